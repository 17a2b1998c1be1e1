"""Whatever texts hold, they stay texts."""

import pytest
from html_checks import parse
from report_runs import HOSTILE

from largeconcept.eval.report.markup import Markup, escape, join, plain, tag


@pytest.mark.parametrize("text", [*HOSTILE, "</p></div>", "a & b < c > d"])
def test_texts_and_attributes_cannot_leave_their_place(text):
    made = tag("p", text, title=text, class_="x")
    root = parse(made)
    assert [one.name for one in root.children] == ["p"]
    paragraph = root.children[0]
    assert not paragraph.children
    assert "".join(paragraph.text) == plain(text)
    assert paragraph.attributes == {"title": plain(text), "class": "x"}


def test_characters_that_html_forbids_are_replaced():
    assert plain("a\x00b\x1b\ud800c\x85") == "a\ufffdb\ufffd\ufffdc\ufffd"
    assert plain("tab\tline\n‮ ü 中") == "tab\tline\n‮ ü 中"
    plain("".join(HOSTILE)).encode()


def test_elements():
    assert tag("p", "a", Markup("<b>c</b>"), ["d", None, 5]) == "<p>a<b>c</b>d5</p>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("line", x1=1.25, y1=2.0, aria_hidden="true") == '<line x1="1.2" y1="2" aria-hidden="true"/>'
    assert tag("a", name="x", hidden=True, id=None, open=False) == '<a name="x" hidden></a>'
    assert join(["a", "<"], "\n") == "a\n&lt;"
    assert escape('"') == "&quot;"
