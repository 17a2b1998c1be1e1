from __future__ import annotations

import struct
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.data.debian import games, sword
from largeconcept.data.debian.descriptions import join_description, parse_appstream, parse_translations
from largeconcept.data.debian.manifest import licences_in
from largeconcept.data.debian.manpages import parse_man, unescape
from largeconcept.data.debian.novels import paragraphs_of, read_lazyload
from largeconcept.data.debian.readers import corrected_driver, inflate
from largeconcept.errors import DataError, DependencyError

ANYTHING = st.text(st.characters(codec=None), max_size=120)


def lines_of(*pieces: str) -> st.SearchStrategy[str]:
    """Text made of the words that mean something to a parser."""
    return st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=12)), max_size=20).map("\n".join)


# ---- package descriptions

TRANSLATION = """Package: hello
Description-md5: 0123456789abcdef
Description-de: ein Beispiel
 Der erste Absatz⋅hat zwei
 Zeilen.
 .
 Er kann:
  * grüßen und
    winken,
  * gehen.
 Das ist alles.

Package: broken
Description-de: ohne Prüfsumme
 Text.

Package: last
Description-md5: ff
Description-ja: 例
 これは
 一つです。
"""


def test_translations():
    first, last = parse_translations(TRANSLATION.splitlines(keepends=True))
    assert (first.package, first.lang, first.synopsis) == ("hello", "de", "ein Beispiel")
    assert first.paragraphs == (
        "Der erste Absatz hat zwei Zeilen.",
        "Er kann:",
        "grüßen und winken,",
        "gehen.",
        "Das ist alles.",
    )
    assert last.paragraphs == ("これは一つです。",)


@given(lines_of("Package: x", "Description-md5: 1", "Description-de: y", " text", "  * item", " .", ""))
@settings(max_examples=60, deadline=None)
def test_translations_survive_anything(text):
    for found in parse_translations(text.splitlines(keepends=True)):
        assert found.package and found.md5 and all(found.paragraphs)


@given(st.lists(ANYTHING, max_size=8))
@settings(max_examples=40, deadline=None)
def test_join_description_loses_no_word_of_running_text(lines):
    joined = " ".join(join_description([" " + " ".join(line.split()) for line in lines], "en"))
    assert isinstance(joined, str)


# ---- AppStream

APPSTREAM = """---
File: DEP-11
---
ID: org.example.Music
Package: music
Summary:
  C: Plays music
  de: Spielt Musik
  zh-Hans-CN: 播放音乐
Description:
  C: <p>It plays &amp; stores.</p><ul><li>Fast
    one.</li></ul>
  de: <p>Es spielt.</p>
---
ID: [not, text]
---
: : broken {
---
ID: bare
"""


def test_appstream():
    music, bare = parse_appstream(APPSTREAM)
    assert music.id == "org.example.Music"
    assert music.summaries == {"en": "Plays music", "de": "Spielt Musik", "zh-CN": "播放音乐"}
    assert music.paragraphs == {"en": ("It plays & stores.", "Fast one."), "de": ("Es spielt.",)}
    assert bare.paragraphs == {}


@given(
    lines_of("---", "ID: a", "Summary:", "  C: x", "  - y", "Description:", "  de: <p>z</p>", "&a", "*a", "!!x", "\t")
)
@settings(max_examples=60, deadline=None)
def test_appstream_survives_anything(text):
    assert all(component.id for component in parse_appstream(text))


# ---- manual pages

MAN = r""".\" a comment
.TH SAMPLE 1 "2024"
.SH NAME
sample \- shows things
.SH DESCRIPTION
The
.B sample
program shows \fIthings\fR\&.
It needs
.BR ls (1)
and \(lqquotes\(rq \[u00E9] \(em that is all.
.nf
raw text here
.fi
.TS
a table
.TE
.PP
The end.
'''
"""


def test_man():
    page = parse_man(MAN)
    assert page.title == "sample"
    assert page.summary == "shows things"
    assert page.paragraphs == (
        "sample - shows things",
        "The sample program shows things. It needs ls(1) and “quotes” é — that is all.",
        "The end.",
    )


def test_roff_escapes():
    assert unescape(r"a\-b\ c\fBd\fP\e\(co\[bu]\*(Tm\s-2x\s0") == "a-b cd\\©•x"


@given(
    st.one_of(
        ANYTHING, lines_of(".nf", ".fi", ".TS", ".de x", "..", ".SH", '.B "', "\\", "\\(", "\\[", "\\[uFFFFFF]", "'")
    )
)
@settings(max_examples=80, deadline=None)
def test_man_survives_anything(text):
    assert all(parse_man(text).paragraphs)


# ---- games

CAMPAIGN = """
# note = _ "a comment is not a story at all"
#textdomain wesnoth-x
[story]
  story = _ "You came to the <i>old</i> forest, and " + _ "it was ""dark"" there."
  name = _ "A name is not prose at all"
  message= _ "short"
  message= _"female^I will follow you, my lord."
[/story]
"""


def catalogue(pairs: dict[str, str], order: str = "<") -> bytes:
    """A compiled gettext catalogue."""
    names = sorted(pairs)
    blobs = [n.encode() for n in names] + [pairs[n].encode() for n in names]
    start = 28 + 16 * len(names)
    table, data = b"", b""
    for blob in blobs:
        table += struct.pack(order + "2I", len(blob), start + len(data))
        data += blob + b"\0"
    magic = struct.pack(order + "I", 0x950412DE)
    return magic + struct.pack(order + "6I", 0, len(names), 28, 28 + 8 * len(names), 0, 0) + table + data


def test_campaign():
    messages = games.parse_campaign(CAMPAIGN)
    assert messages == [
        "You came to the <i>old</i> forest, and ",
        'it was "dark" there.',
        "female^I will follow you, my lord.",
    ]
    assert games.clean_message(messages[0]) == "You came to the old forest, and"
    assert games.clean_message(messages[2]) == "I will follow you, my lord."


@pytest.mark.parametrize("order", ["<", ">"])
def test_catalogue(order):
    wanted = {"one": "eins", "two\0twos": "zwei\0zweien", "empty": ""}
    assert games.read_catalogue(catalogue(wanted, order)) == {"one": "eins", "two": "zwei"}


@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=80, deadline=None)
def test_catalogue_survives_anything(data, position, value):
    games.read_catalogue(data)
    good = bytearray(catalogue({"one": "eins", "two": "zwei"}))
    good[position % len(good)] = value
    games.read_catalogue(bytes(good))
    games.read_catalogue(bytes(good[: position % len(good)]))


def test_crawl_and_stringtable():
    text = "%%%%\n# remark\nan orc\n\nAn ugly thing\nwith a club.\n\nIt grins.\n%%%%\nalias\n<an orc>\n%%%%\nempty\n"
    assert list(games.parse_crawl(text)) == [("an orc", ("An ugly thing with a club.", "It grins."))]
    table = "# x\nKEY_ONE\n'''First [[KEY_TWO]] part.\n\nSecond <b>part</b>.'''\n\nKEY_TWO\nOne line.\n"
    assert list(games.parse_stringtable(table)) == [
        ("KEY_ONE", ("First X part.", "Second part.")),
        ("KEY_TWO", ("One line.",)),
    ]


@given(st.one_of(ANYTHING, lines_of("%%%%", "KEY_A", "'''", "[[", 'story = _ "', 'x = _ "y" + _ "z"', "#")))
@settings(max_examples=60, deadline=None)
def test_game_parsers_survive_anything(text):
    games.parse_campaign(text)
    list(games.parse_crawl(text))
    list(games.parse_stringtable(text))
    games.clean_message(text)


# ---- SWORD

TITLE = '<title canonical="true" type="psalm">A Psalm by David.</title> <lg sID="g1"/>'
VERSES = (
    f'{TITLE} <l sID="g2"/>Psalms 3:1: <w savlm="strong:H1">God</w><w savlm="strong:H2">created</w> it,<l eID="g2"/> '
    '<l sID="g3"/>and it was good.<note n="1">Or, well.</note>\n'
    "“So he said.”\n"
    f"{TITLE} Psalms 3:2: Selah.\n"
    f"{TITLE} I Samuel 1:1: <w>Yahweh</w>’s word.\n"
    "I Samuel 1:2: \n"
    "(engWEB)\n"
)


def test_titles_of_psalms_do_not_stray_into_verses():
    verses = sword.parse_verses(VERSES)
    assert verses == {
        ("Psalms", 3, 1): "God created it, and it was good. “So he said.”",
        ("Psalms", 3, 2): "Selah.",
        ("I Samuel", 1, 1): "Yahweh’s word.",
    }
    assert dict(sword.chapters_of(verses))["Psalms 3"] == ("God created it, and it was good. “So he said.” Selah.",)


def test_chapters_are_cut_into_groups_of_verses():
    verses = {("Ruth", 1, n): f"Verse {n}." for n in range(1, 30)}
    ((name, paragraphs),) = sword.chapters_of(verses)
    assert name == "Ruth 1" and [p.count("Verse") for p in paragraphs] == [12, 12, 5]


def test_commentary_takes_a_note_once():
    note = (
        '<hi type="bold">Verses 1-2</hi> <div sID="a"/>God said it. '
        '<reference>1Jo 5</reference> tells.<div eID="a"/>Amen.'
    )
    output = f"Genesis 1:1: {note}\nGenesis 1:2: {note}\nGenesis 2:1: * Another * one.\n(MHCC)\n"
    assert list(sword.parse_commentary(output)) == [
        ("Genesis 1", ("God said it. 1Jo 5 tells.", "Amen.")),
        ("Genesis 2", ("Another one.",)),
    ]


@given(
    st.one_of(
        ANYTHING, lines_of("Genesis 1:1: x", "<title>", "</title>", "<note>", "(X)", "II Kings 2:3: <w>", "</w><w")
    )
)
@settings(max_examples=60, deadline=None)
def test_sword_survives_anything(text):
    assert all(sword.parse_verses(text).values())
    assert all(paragraphs for _, paragraphs in sword.parse_commentary(text))


def test_a_wrong_driver_is_corrected_by_the_size_of_the_index():
    conf = "[MHCC]\nModDrv=zCom4\nLang=en\n"
    assert "ModDrv=zCom\n" in corrected_driver(conf, [241150, 82460])
    assert corrected_driver(conf, [241152]) == conf
    assert corrected_driver(conf, [120]) == conf, "both sizes fit: believe the file"
    assert corrected_driver(conf, []) == conf


# ---- novels, licences, compression


def test_paragraphs_of_a_novel():
    assert paragraphs_of(["It is a _truth_", "universally known.", "", "", "Next."]) == (
        "It is a truth universally known.",
        "Next.",
    )


def test_novels_without_rdata_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(DependencyError, match="largeconcept\\[corpus\\]"):
        list(read_lazyload(b"", b"", "x"))


class FakeRdata:
    """Stands for the library: 'objects' are text that Python can read."""

    class parser:  # noqa: N801 - named as in the library
        @staticmethod
        def parse_data(data, extension):
            return data

    class conversion:  # noqa: N801
        @staticmethod
        def convert(parsed):
            import ast

            return ast.literal_eval(parsed.decode())


def lazyload(objects: dict[str, object]) -> tuple[bytes, bytes]:
    data, table = b"", {}
    for name, value in objects.items():
        block = repr(value).encode()
        packed = struct.pack(">I", len(block)) + zlib.compress(block)
        table[name] = [len(data), len(packed)]
        data += packed
    return zlib.compress(repr({"variables": table}).encode()), data


def test_lazyload(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdata", FakeRdata)
    index, data = lazyload({"emma": ["VOLUME I", "", "Emma was rich."], "numbers": [1, 2], "none": []})
    assert list(read_lazyload(index, data, "x")) == [("emma", ["VOLUME I", "", "Emma was rich."])]
    for broken in ((index[:-4], data), (index, data[:9]), (b"no", data), (index, b"")):
        with pytest.raises(DataError, match="not an R lazy-load database"):
            list(read_lazyload(*broken, "x"))


def test_licences():
    text = "Files: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: MPL-2.0\nLicense: GPL-2+\n"
    assert licences_in(text) == ["GPL-2+", "MPL-2.0"]
    assert licences_in("This is free.") == []


def test_inflate():
    import bz2
    import gzip
    import lzma

    assert inflate("a.gz", gzip.compress(b"x")) == b"x"
    assert inflate("a.bz2", bz2.compress(b"x")) == b"x"
    assert inflate("a.xz", lzma.compress(b"x")) == b"x"
    assert inflate("a.html", b"x") == b"x"
    assert inflate("a.gz", b"damaged") == b""
