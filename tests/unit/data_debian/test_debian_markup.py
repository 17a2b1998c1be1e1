from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("lxml")

from largeconcept.data.debian.markup import parse_html, parse_xml
from largeconcept.data.debian.text import tidy

MALLARD = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE page [ <!ENTITY version "3.2"> ]>
<page xmlns="http://projectmallard.org/1.0/" id="sample">
  <info>
    <desc>Look at a file without <app>opening</app> it.</desc>
    <credit type="author"><name>Nobody</name></credit>
    <license><p>Free as can be.</p></license>
  </info>
  <title>Preview files</title>
  <p>Press <guiseq><gui>File</gui> <gui>New</gui></guiseq> or
     <keyseq><key>Ctrl</key><key>N</key></keyseq>. It is version &version;.</p>
  <screen>rm -rf ./here</screen>
  <steps><item><p>Choose a file &mdash; any &kappname; file.</p></item></steps>
  <note><p>A note.</p></note>
  <section><title>More</title><desc>not this</desc><code>x = 1</code><p>The <code>end</code> is near.</p></section>
</page>"""

DOCBOOK = """<!DOCTYPE book PUBLIC "-//x" "y.dtd" [ <!ENTITY kappname "&kfoo;"> <!ENTITY % more "INCLUDE"> ]>
<book><bookinfo><title>The Handbook</title><legalnotice><para>Terms.</para></legalnotice></bookinfo>
<chapter><title>First</title>
<para>Choose <menuchoice><shortcut><keycombo>&Ctrl;<keycap>Q</keycap></keycombo></shortcut>
<guimenu>File</guimenu> <guimenuitem>Quit</guimenuitem></menuchoice> to leave &kde;.
<indexterm><primary>quit</primary></indexterm>
<itemizedlist><listitem><para>One thing &amp; another.</para></listitem></itemizedlist>
Afterwards all is well.</para>
<programlisting>int main;</programlisting></chapter></book>"""

HTML = """<?xml version="1.0"?><!DOCTYPE html><html><head><title>Window title</title><style>p{}</style></head>
<body><nav><p>Home and back again.</p></nav>
<div id="DisplayArea"><h1>The <b>Title</b></h1>
<p class="x">Choose <span class="i"><span hidden="true" class="MAC">Mac - Options</span><span
hidden="true">Tools</span></span>.<br>Now.</p>
<pre>code()</pre><ul><li>First item.</li><li><p>Second item.</p> loose</li></ul>
<div class="para">A paragraph in a div of the handbook.<div class="noteicon">!</div></div>
<div>short</div><table><tr><td>cell</td><td><p>Text in a cell.</p></td></tr></table>
<dl><dt>term</dt><dd>Its meaning.</dd></dl><script>var p = "<p>no</p>";</script>
<!-- a comment -->Loose text that is longer than twenty characters.</div>
<footer><p>Copyright by somebody.</p></footer></body></html>"""


def test_mallard():
    page = parse_xml(MALLARD, {"kappname": "Sushi"})
    assert page.title == "Preview files"
    assert page.summary == "Look at a file without opening it."
    assert page.paragraphs == (
        "Press File ▸ New or Ctrl+N. It is version 3.2.",
        "Choose a file — any Sushi file.",
        "A note.",
        "The end is near.",
    )


def test_docbook():
    page = parse_xml(DOCBOOK)
    assert page.title == "The Handbook"
    assert page.paragraphs[0].startswith("Choose ")
    assert "File ▸ Quit to leave KDE." in page.paragraphs[0]
    assert page.paragraphs[1:] == ("One thing & another.", "Afterwards all is well.")


def test_entities_of_one_page_do_not_leak_into_the_next():
    assert "3.2" in parse_xml(MALLARD).paragraphs[0]
    assert parse_xml("<page><p>It is version &version; of it.</p></page>").paragraphs == (
        "It is version version of it.",
    )


def test_entities_are_not_expanded_over_and_over():
    bomb = '<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><page><p>&b;&b; text</p></page>'
    assert len("".join(parse_xml(bomb).paragraphs)) < 200


def test_external_entities_are_not_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    page = parse_xml(f'<!DOCTYPE p [<!ENTITY x SYSTEM "file://{secret}">]><page><p>It says &x; here.</p></page>')
    assert "hunter2" not in str(page)


def test_html():
    page = parse_html(HTML, "DisplayArea")
    assert page.title == "The Title"
    assert page.paragraphs == (
        "Choose Tools. Now.",
        "First item.",
        "Second item.",
        "loose",
        "A paragraph in a div of the handbook.",
        "short",
        "Text in a cell.",
        "Its meaning.",
        "Loose text that is longer than twenty characters.",
    )


def test_references_that_name_no_character_are_dropped():
    assert parse_html("<p>a&#xD800;b &#x41;&#66;</p>").paragraphs == ("a b AB",)
    assert parse_xml("<page><p>a&#55296;b &#x41;&#66;</p></page>").paragraphs == ("a b AB",)


def test_html_without_the_wanted_element_is_read_whole():
    assert parse_html("<p>Only this.</p>", "DisplayArea").paragraphs == ("Only this.",)


PIECES = st.sampled_from(
    [
        "<p>", "</p>", "<div>", "</div>", "<li>", "<br>", "<!--", "-->", "<![CDATA[", "]]>", "<!DOCTYPE", "[", "]>",
        "<?x", "?>", "&amp;", "&x;", "&#0;", "&#xD800;", "&#99999999;", "\x00", "\ud800", "<table><td>", "text. ",
        '<a href="', "<para>", "<title>", "<info><desc>", "<guiseq><gui>", "<screen>", "</screen>",
        "<?xml version='1.0' encoding='utf-16'?>", "é",
    ]
)  # fmt: skip
HOSTILE = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(st.characters(codec=None), max_size=80))


@given(HOSTILE)
@example("")
@example("<" * 2000)
@example("<p>&#xD800;&#55296 &#0; and &#x110000; and &#99999999999999999999;")
@example("<div>" * 3000 + "deep")
@example("<page>" + "<p>" * 3000 + "deep")
@settings(max_examples=120, deadline=None)
def test_parsers_survive_anything(text):
    for page in (parse_html(text), parse_html(text, "x"), parse_xml(text)):
        assert all(p and tidy(p) == p for p in page.paragraphs)
