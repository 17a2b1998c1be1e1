"""Properties that hold for any text whatsoever, and time that grows no faster than the text."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence

import pytest
import regex
import sentencex
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.segment import SegmenterConfig, build_segmenter
from largeconcept.segment.base import BaseSegmenter
from largeconcept.segment.graphemes import boundaries, is_simple, on_boundaries
from largeconcept.types import Span

# Marks, joiners, prepended signs, Hangul letters, flags, emoji, controls, surrogates, right-to-left, every white space.
NASTY = list(
    "aB1é .!?,;:'\"()-…。！？「」“”\n\r\t\0\x0b\x0c\x1c\x1f\x7f\x85\xa0\xad\u0301\u0308\u0600\u0903\u094d\u0e33\u0f0c"
    "\u1100\u1161\u11a8\u180e\u200b\u200c\u200d\u200f\u2028\u2029\u202e\u3000\ud800\udc00\ud83d\ue000\ufe0f\ufeff\uffff"
    "क가好ภהم٪👨👩😀\U0001f1e9\U0001f1ea\U0001f3fd\U000e0067\U0010ffff"
)
CHUNKS = [
    "Dr. ",
    "z. B. ",
    "etc. A",
    "\r\n",
    " \u0301",
    ". \u0301",
    "👨\u200d👩",
    "क्ष",
    "No. 5",
    "x" * 30,
    "\n\n",
    "- ",
    "3. ",
]
texts = st.one_of(
    st.lists(st.sampled_from(NASTY + CHUNKS), max_size=60).map("".join),
    st.text(st.characters(), max_size=60),  # any code point, surrogates included
    st.lists(
        st.sampled_from(["Hello there. ", "Er kam usw. ", "好。", "line\n", "\n", "word ", "😀", "! "]), max_size=40
    ).map("".join),
)
languages = st.sampled_from([None, "en", "de", "fr", "zh", "ja", "ar", "th", "hi", "xx"])
caps = st.sampled_from([1, 2, 3, 8, 40, 200, None])


@functools.cache
def segmenter(cap: int | None, join: bool) -> BaseSegmenter:
    return build_segmenter({"max_chars": cap, "join_wrapped_lines": join})


def cluster_ends(text: str) -> set[int]:
    return {0} | {match.end() for match in regex.finditer(r"\X", text)}


def check(text: str, spans: list[Span], cap: int | None) -> None:
    ends = cluster_ends(text)
    position = paragraph = 0
    for span in spans:
        gap = text[position : span.start]
        assert span.start >= position and (not gap or gap.isspace())
        assert span.end > span.start
        assert span.start in ends and span.end in ends
        assert cap is None or span.end - span.start <= cap or regex.fullmatch(r"\X", span.of(text))
        assert paragraph <= span.paragraph <= paragraph + 1
        assert not span.of(text).isspace()
        position, paragraph = span.end, span.paragraph
    assert not text[position:] or text[position:].isspace()


@settings(max_examples=400, deadline=None)
@given(texts, languages, caps, st.booleans())
def test_nothing_is_lost_moved_or_broken(text: str, lang: str | None, cap: int | None, join: bool) -> None:
    spans = segmenter(cap, join).segment(text, lang)
    check(text, spans, cap)
    assert segmenter(cap, join).segment(text, lang) == spans


class ToldSegmenter(BaseSegmenter):
    """Believes that sentences begin where it was told."""

    told: tuple[int, ...] = ()

    def _starts(self, bodies: Sequence[str], lang: str) -> Iterator[Sequence[int]]:
        for _ in bodies:
            yield self.told


@settings(max_examples=200, deadline=None)
@given(texts, caps, st.lists(st.integers(-3, 70), max_size=8).map(sorted))
def test_no_backend_can_break_a_promise(text: str, cap: int | None, told: list[int]) -> None:
    made = ToldSegmenter(SegmenterConfig(max_chars=cap))
    made.told = tuple(told)
    check(text, made.segment(text), cap)


def test_white_space_at_a_start_is_no_part_of_the_sentence() -> None:
    made = ToldSegmenter(SegmenterConfig())
    made.told = (0, 3, 3, 9, 50)
    assert made.segment("One  two three") == [Span(0, 3), Span(5, 8), Span(9, 14)]


@settings(max_examples=100, deadline=None)
@given(texts, languages)
def test_sentences_are_lines_with_the_same_characters(text: str, lang: str | None) -> None:
    found = segmenter(200, True).sentences(text, lang)
    assert all(sentence and len(sentence.splitlines()) == 1 for sentence in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(0, 50))
def test_cluster_boundaries_are_those_of_the_whole_text(text: str, at: int) -> None:
    ends = sorted(cluster_ends(text))
    assert list(boundaries(text, 0, len(text))) == ends[1:]
    positions = range(1, len(text))
    assert list(on_boundaries(text, positions, 0)) == [p for p in positions if p in set(ends)]
    if is_simple(text, 0, len(text)):
        assert len(ends) == len(text) + 1 - text.count("\r\n")


@pytest.mark.parametrize(
    "unit", ["e\u0301", "\U0001f1e9", "👨\u200d", "क्", "\u1100", "a", "\r\n", "\u0600", "x\u0301\u0301"]
)
@pytest.mark.parametrize("count", [100, 127, 128, 129, 255, 256, 257, 1025])
def test_cluster_boundaries_across_slices(unit: str, count: int) -> None:
    text = "ab" + unit * count + "cd"
    assert list(boundaries(text, 0, len(text))) == sorted(cluster_ends(text))[1:]


LONG = {
    "letters": "a", "words": "word ", "Chinese": "你好。他来了，", "one Chinese letter": "好", "dots": ".",
    "abbreviations": "A. ", "exclamations": "! ", "accents": "\u0301", "accented": "a\u0301", "flags": "\U0001f1e9",
    "family": "👨\u200d", "open quotes": "“ab. ", "brackets": "(A. b) ", "NUL": "\0", "surrogates": "\ud800",
    "space under accent": ". \u0301", "conjunct": "क्", "lines": "a\n", "blank lines": " \n", "domains": "ab.cd.",
    "quotes": "“", "Thai": "ภาษาไทย",
}  # fmt: skip


def segment_timed(text: str, lang: str | None = None) -> tuple[list[Span], float]:
    begin = time.process_time()
    spans = segmenter(200, True).segment(text, lang)
    return spans, time.process_time() - begin


@pytest.mark.parametrize("name", LONG)
def test_time_is_linear_in_hostile_text(name: str) -> None:
    # One paragraph of 50,000 characters, against ordinary text in the same moment: 35 times as long where every
    # letter is a paragraph, the worst. Matched in place instead of in slices, the flags take 700 times as long.
    text = (LONG[name] * 50_000)[:50_000]
    _, ordinary = segment_timed("The cat sat on the mat, and then it slept. " * 1_150)
    spans, took = segment_timed(text)
    assert took < 0.5 + 60 * ordinary
    position = 0
    for span in spans:
        assert not text[position : span.start].strip()
        position = span.end
    assert not text[position:].strip()


def test_the_rule_library_sees_windows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def count(lang: str, text: str) -> list[str]:
        seen.append(len(text))
        return library(lang, text)

    library = sentencex.segment
    monkeypatch.setattr(sentencex, "segment", count)
    for unit in LONG.values():
        text = (unit * 20_000)[:20_000]
        seen.clear()
        segmenter(200, True).segment(text)
        assert max(seen, default=0) <= 1000
        assert sum(seen) <= 2.1 * len(text)


@pytest.mark.slow
def test_five_megabytes_on_one_line() -> None:
    text = ("The cat sat on the mat, and Dr. Smith came at 5 p.m. with it. " * 81_000)[:5_000_000]
    spans, took = segment_timed(text, "en")
    assert len(spans) == pytest.approx(81_000, rel=0.01)
    assert took < 30.0
    assert "".join(span.of(text) + " " for span in spans).strip() == text.strip()


def test_windows_do_not_change_ordinary_text() -> None:
    sentences = [f"Sentence number {i} is about as long as most sentences are." for i in range(100)]
    assert segmenter(None, True).sentences(" ".join(sentences), "en") == sentences


def test_a_sentence_longer_than_a_window_stays_whole() -> None:
    long = "It goes on " + "and on " * 800 + "and ends."
    assert segmenter(None, True).sentences(f"Short one. {long} Last one.", "en") == ["Short one.", long, "Last one."]
