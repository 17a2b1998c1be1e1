from __future__ import annotations

import pytest
import regex

from largeconcept.segment import build_segmenter
from largeconcept.segment.cap import pieces

FAMILY = "👨\u200d👩\u200d👧"


def cut(text: str, limit: int) -> list[str]:
    return [text[a:b] for a, b in pieces(text, 0, len(text), limit)]


def test_a_short_text_stays_whole() -> None:
    assert cut("a, b; c", 7) == ["a, b; c"]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        (
            "aaaa bbbbbb; cccc dddd, eeee ffff gggg hhhh",
            30,
            ["aaaa bbbbbb;", "cccc dddd, eeee ffff gggg hhhh"],
        ),  # strong before comma
        ("one two three, four five six seven", 25, ["one two three,", "four five six seven"]),  # comma before space
        ("one two three four five six", 15, ["one two three", "four five six"]),  # the middle, not the end
        ("aaaaaaaaaaaa", 5, ["aaaa", "aaaa", "aaaa"]),  # even parts
        ("see http://example.org/some/long/path?with=query now", 30, None),
        ("it costs 3.50, at 12:30, or 1,000 at most today", 30, ["it costs 3.50, at 12:30,", "or 1,000 at most today"]),
        ("今天很冷，我们回家吧，明天再来看看", 12, ["今天很冷，我们回家吧，", "明天再来看看"]),
        ("彼は来た。彼女も来たが何も言わなかった", 15, ["彼は来た。", "彼女も来たが何も言わなかった"]),
        ("وصل الرجل، ثم عاد إلى البيت", 20, ["وصل الرجل،", "ثم عاد إلى البيت"]),
        ("word (in brackets of some length) word", 25, ["word (in brackets of", "some length) word"]),
    ],
)
def test_the_best_place(text: str, limit: int, expected: list[str] | None) -> None:
    found = cut(text, limit)
    assert all(len(piece) <= limit for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    if expected is not None:
        assert found == expected


def test_an_abbreviation_is_no_place_to_cut() -> None:
    for firm in ("the old firm of Messrs. adams met at nine,", "the old house of Dr. Brown stood here,"):
        assert cut(f"{firm} in the old town hall", 45) == [firm, "in the old town hall"]
    assert cut("the old house stood here. Then, as we all know, it fell", 45) == [
        "the old house stood here.",
        "Then, as we all know, it fell",
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11])
@pytest.mark.parametrize(
    "text", [FAMILY * 9, "🇩🇪🇫🇷" * 20, "e\u0301" * 30, "क्षत्रिय" * 9, "각" * 20, "a\u0308\u0323bc" * 12, "กำ" * 30]
)
def test_a_grapheme_is_never_cut(text: str, limit: int) -> None:
    clusters = regex.findall(r"\X", text)
    found = cut(text, limit)
    assert "".join(found) == text
    assert [c for piece in found for c in regex.findall(r"\X", piece)] == clusters
    for piece in found:
        assert len(piece) <= limit or piece in clusters


def test_one_grapheme_longer_than_the_cap_is_a_piece_of_its_own() -> None:
    giant = "e" + "\u0301" * 500
    assert cut("ab" + giant + "cd", 10) == ["ab", giant, "cd"]


def test_spaces_around_a_cut_belong_to_no_piece() -> None:
    assert cut("aaaa      bbbb", 6) == ["aaaa", "bbbb"]
    assert cut("aaaa \u0301  bbbb", 8) == ["aaaa \u0301", "bbbb"]  # a space under an accent is a character


def test_a_cut_never_parts_carriage_return_and_line_feed() -> None:
    for limit in range(1, 9):
        assert all(not piece.endswith("\r") and not piece.startswith("\n") for piece in cut("ab\r\ncd\r\nef", limit))


def test_pieces_are_of_about_one_length() -> None:
    text = "word " * 41 + "end"  # 208 characters, 8 too many
    lengths = [len(piece) for piece in cut(text, 200)]
    assert len(lengths) == 2 and max(lengths) - min(lengths) <= 10


def test_the_segmenter_caps_at_200_unless_told_otherwise() -> None:
    text = "word " * 200 + "end."
    assert max(len(s) for s in build_segmenter().sentences(text)) <= 200
    assert [len(s) for s in build_segmenter({"max_chars": None}).sentences(text)] == [len(text)]
    assert max(len(s) for s in build_segmenter({"max_chars": 30}).sentences(text)) <= 30
