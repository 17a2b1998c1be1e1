from __future__ import annotations

import textwrap

import pytest

from largeconcept.segment import build_segmenter

SEGMENTER = build_segmenter()

ENGLISH = (
    "The harbour was quiet when the boat came in. Nobody had expected it before the evening, and the few people who "
    "were about did not look up. An old man was mending a net. Only the dog knew."
)
GERMAN = (
    "Der Präsident der Republik hat gestern in Berlin eine Rede gehalten, in der er die Bedeutung der Zusammenarbeit "
    "betonte. Danach fuhr er am 3. Mai nach Hause. Viele Gäste waren gekommen, um ihn zu hören."
)
CHINESE = (
    "他们来到了一个很大的城市里面，看见了许多的人在街上走来走去，非常热闹。他们很高兴，决定在那里住下来，过一段时间再"
    "回家去看望父母。"
)


def cut(text: str, lang: str | None = None, **settings: object) -> list[tuple[int, str]]:
    segmenter = build_segmenter(settings) if settings else SEGMENTER
    return [(span.paragraph, span.of(text)) for span in segmenter.segment(text, lang)]


def test_blank_lines_part_paragraphs() -> None:
    assert cut("One. Two.\n\nThree.\n \t\n\nFour") == [(0, "One."), (0, "Two."), (1, "Three."), (2, "Four")]


@pytest.mark.parametrize("mark", ["\x0c", "\u2029", "\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\x85\x85"])
def test_every_kind_of_paragraph_break(mark: str) -> None:
    assert cut(f"no full stop here{mark}and here neither") == [(0, "no full stop here"), (1, "and here neither")]


@pytest.mark.parametrize("text", [ENGLISH, GERMAN])
@pytest.mark.parametrize("width", [45, 55, 60, 65, 72, 76, 80])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_wrapped_prose_is_one_paragraph(text: str, width: int, newline: str) -> None:
    wrapped = textwrap.fill(text, width).replace("\n", newline)
    assert newline in wrapped
    assert SEGMENTER.sentences(wrapped) == SEGMENTER.sentences(text)
    assert {number for number, _ in cut(wrapped)} == {0}


@pytest.mark.parametrize("width", [25, 30, 33])
def test_wrapped_chinese_is_joined_without_spaces(width: int) -> None:
    wrapped = "\n".join(CHINESE[i : i + width] for i in range(0, len(CHINESE), width))
    assert SEGMENTER.sentences(wrapped) == SEGMENTER.sentences(CHINESE)


def test_a_line_break_inside_a_sentence_stays_in_its_span() -> None:
    text = "The quick brown fox jumps over the lazy dog and\nruns away."
    assert cut(text) == [(0, text)]
    assert SEGMENTER.sentences(text) == ["The quick brown fox jumps over the lazy dog and runs away."]


def test_a_small_letter_goes_on_from_a_line_that_was_broken_early() -> None:
    text = "The meeting has been moved\nto the large hall on the second floor, where we met last year."
    assert cut(text) == [(0, text)]


def test_a_form_feed_ends_a_paragraph_even_in_wrapped_prose() -> None:
    text = "The quick brown fox jumps over the lazy dog and\x0cruns away."
    assert [number for number, _ in cut(text)] == [0, 1]


def test_a_heading_is_not_part_of_the_sentence_below() -> None:
    text = "My Trip to Rome\nIt was a sunny day when we left. The plane was late."
    assert [sentence for _, sentence in cut(text)] == [
        "My Trip to Rome",
        "It was a sunny day when we left.",
        "The plane was late.",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["- apples and pears from the garden of my aunt", "- bread", "* milk", "• tea"],
        ["1. open the door of the house and go inside at once", "2. sit down", "3) wait", "10. leave"],
        ["# A heading that is long enough to be a wrapped line", "text under it"],
        ["apples", "oranges", "pears", "figs"],
        [
            "Two roads diverged in a yellow wood,",
            "And sorry I could not travel both",
            "And be one traveler, long I stood",
        ],
        ["| a table cell that is rather long, much like prose |", "| b | c |"],
        ["> quoted words of someone else that fill up a line", "> more quoted words"],
        ["— ¿Vienes conmigo a la casa de mi abuela mañana", "— No"],
    ],
)
def test_lists_verse_and_tables_keep_their_lines(lines: list[str]) -> None:
    assert [sentence for _, sentence in cut("\n".join(lines))] == lines


def test_one_paragraph_a_line() -> None:
    lines = [" ".join(["word"] * n) + "." for n in (60, 45, 80, 10)]
    assert [number for number, _ in cut("\n".join(lines), max_chars=None)] == [0, 1, 2, 3]
    shorter = ["The first paragraph is as long as this.", "The second one is somewhat longer than the first.", "Third."]
    assert cut("\n".join(shorter)) == list(enumerate(shorter))


def test_a_number_may_begin_a_wrapped_line() -> None:
    text = (
        "Wir treffen uns alle zusammen in der alten Halle am\n3. Mai um acht Uhr, und dann gehen wir alle nach\nHause."
    )
    assert len(cut(text, "de")) == 1


def test_wrapped_lines_can_be_left_alone() -> None:
    wrapped = textwrap.fill(ENGLISH, 60)
    assert [s for _, s in cut(wrapped, join_wrapped_lines=False) if "\n" in s] == []
    assert max(number for number, _ in cut(wrapped, join_wrapped_lines=False)) == wrapped.count("\n")
