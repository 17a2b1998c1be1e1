from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sentencex

from largeconcept.errors import ConfigError, DataError, LanguageError
from largeconcept.languages import bcp47
from largeconcept.segment import SegmenterConfig, build_segmenter
from largeconcept.segment.align import starts_of
from largeconcept.segment.guess import guess_language
from largeconcept.types import Segmenter, Span

FOLDER = Path(__file__).parent
SEGMENTER = build_segmenter()


def cut(text: str, lang: str | None = "en", **settings: object) -> list[str]:
    segmenter = build_segmenter(settings) if settings else SEGMENTER
    return [span.of(text) for span in segmenter.segment(text, lang)]


def read_cases(name: str) -> Iterator[tuple[str, str, set[int]]]:
    """Language, text, and where sentences but the last end."""
    lang = ""
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            lang = heading[1]
        elif line and not line.startswith("#"):
            space = " " if " | " in line else ""
            sentences = [part.strip() for part in line.split("|")]
            ends, position = set(), 0
            for sentence in sentences[:-1]:
                position += len(sentence)
                ends.add(position)
                position += len(space)
            yield lang, space.join(sentences), ends


def f1(name: str, find: Callable[[str, str], set[int]]) -> tuple[float, int]:
    right = wrong = missed = 0
    for lang, text, gold in read_cases(name):
        found = find(text, lang) - {len(text)}
        right += len(found & gold)
        wrong += len(found - gold)
        missed += len(gold - found)
    return 2 * right / (2 * right + wrong + missed), right + missed


def with_rules(text: str, lang: str) -> set[int]:
    return {span.end for span in build_segmenter({"max_chars": None}).segment(text, lang)}


def with_guessed_language(text: str, lang: str) -> set[int]:
    return {span.end for span in build_segmenter({"max_chars": None}).segment(text)}


def with_library_alone(text: str, lang: str) -> set[int]:
    ends, position = set(), 0
    for sentence in sentencex.segment(lang, text):
        position += len(sentence)
        ends.add(position - len(sentence) + len(sentence.rstrip()))
    return ends


@pytest.mark.parametrize(("name", "least"), [("hard_cases.txt", 0.985), ("unseen_cases.txt", 0.93)])
def test_hard_boundaries_are_found(name: str, least: float) -> None:
    score, count = f1(name, with_rules)
    assert count > 85
    assert score >= least
    assert score > f1(name, with_library_alone)[0] + 0.05  # the corrections are worth their lines


def test_a_guessed_language_is_nearly_as_good() -> None:
    for name in ("hard_cases.txt", "unseen_cases.txt"):
        assert f1(name, with_guessed_language)[0] >= f1(name, with_rules)[0] - 0.03


def test_offsets_index_the_original_text() -> None:
    text = "  Tim had a ball.\tIt rolled away!  \n\n Where?\n"
    assert SEGMENTER.segment(text, "en") == [Span(2, 17, 0), Span(18, 33, 0), Span(38, 44, 1)]


@pytest.mark.parametrize("text", ["", " ", "\n", " \t\r\n\x1c\u3000\u2029\n "])
def test_nothing_but_white_space_has_no_sentences(text: str) -> None:
    assert SEGMENTER.segment(text) == []
    assert SEGMENTER.sentences(text) == []


def test_text_without_words_is_not_lost() -> None:
    assert cut("\0\0") == ["\0\0"]
    assert cut("* * *") == ["* * *"]
    assert cut("\ud800. \udfff") == ["\ud800. \udfff"]
    assert cut("\ufeffHello there. Bye.") == ["\ufeffHello there.", "Bye."]


def test_stray_marks_go_with_their_neighbour() -> None:
    assert cut("Hi there. 😀") == ["Hi there. 😀"]
    assert cut("1. Open the door. 2. Go in.")[0] == "1. Open the door."


def test_markup_and_tokens_are_plain_text() -> None:
    assert cut("This </s> is text. So is __eng_Latn__.") == ["This </s> is text.", "So is __eng_Latn__."]


def test_lone_surrogates_do_not_stop_it() -> None:
    assert cut("One \ud83d two. Three \udc00 four.") == ["One \ud83d two.", "Three \udc00 four."]


def test_text_without_capitals_is_cut_all_the_same() -> None:
    assert cut("hello there. how are you. bye.") == ["hello there.", "how are you.", "bye."]
    assert cut("He came at 5 p.m. and left.") == ["He came at 5 p.m. and left."]


def test_no_sentence_ends_inside_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencex, "segment", lambda _, text: re.split(r"(?<=[.。])", text))
    assert cut("A J.-P. and a file.Txt and 3.5 too.") == ["A J.-P. and a file.Txt and 3.5 too."]
    assert cut("Yes.好。是。") == ["Yes.", "好。", "是。"]


def test_the_language_matters() -> None:
    text = "Am 19. Januar kam er. Am 5. Ludwigstag ging er."
    assert len(cut(text, "de")) == 2
    assert cut(text, "deu_Latn") == cut(text, "de-AT") == cut(text, "GER")


@pytest.mark.parametrize("lang", ["english", "", "12", "en!", "x" * 300])
def test_what_is_no_language_code_is_refused(lang: str) -> None:
    with pytest.raises(LanguageError, match="unknown language"):
        SEGMENTER.segment("Hello.", lang)


@pytest.mark.parametrize("lang", ["tlh", "xx", "sr-Latn", "mul"])
def test_a_language_outside_flores_is_guessed(lang: str) -> None:
    text = "Er ist am 19. Januar nicht da. Das ist gut."
    assert cut(text, lang) == cut(text, None) == cut(text, "de") != cut(text, "en")


@pytest.mark.parametrize("text", [None, 5, b"Hello.", ["Hello."]])
def test_only_text_is_cut(text: object) -> None:
    with pytest.raises(DataError, match="not a text"):
        SEGMENTER.segment(text)  # type: ignore[arg-type]


def test_describe_builds_the_same_segmenter() -> None:
    segmenter = build_segmenter({"max_chars": 50, "join_wrapped_lines": False})
    again = build_segmenter(segmenter.describe())
    assert again.describe() == segmenter.describe()
    assert again.config == SegmenterConfig(max_chars=50, join_wrapped_lines=False)
    assert isinstance(segmenter, Segmenter)
    assert build_segmenter().config == SegmenterConfig()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "spacy"}, "segmenter: type"),
        ({"max_char": 3}, "did you mean max_chars"),
        ({"max_chars": 0}, "segmenter: max_chars"),
        ({"type": "rule", "threshold": 0.2}, "threshold is a setting of type sat, not of rule"),
        ({"type": "sat", "threshold": 2}, "threshold"),
        ("rule", "not a mapping"),
    ],
)
def test_wrong_settings_are_refused(config: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_segmenter(config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "eng_Latn"),
        ("12345 !!", "eng_Latn"),
        ("The cat is on the mat and it was asleep.", "eng_Latn"),
        ("Der Hund ist nicht in dem Haus und schläft.", "deu_Latn"),
        ("Le chat est dans la maison et il dort.", "fra_Latn"),
        ("El perro no está en la casa y los niños duermen.", "spa_Latn"),
        ("O gato não está em casa, mas você pode esperar.", "por_Latn"),
        ("Il cane non è nella casa che dorme di notte.", "ita_Latn"),
        ("De hond is niet in het huis van een vriend.", "nld_Latn"),
        ("Pies nie jest w domu, ale to się zmieni.", "pol_Latn"),
        ("Это не дом, а что это такое?", "rus_Cyrl"),
        ("Це не дім, але що це за місце для них?", "ukr_Cyrl"),
        ("这是一只猫。", "zho_Hans"),
        ("これは猫です。", "jpn_Jpan"),
        ("이것은 고양이입니다.", "kor_Hang"),
        ("هذا قط في البيت.", "arb_Arab"),
        ("این یک گربه است که در خانه می خوابد.", "pes_Arab"),
        ("यह एक बिल्ली है।", "hin_Deva"),
        ("นี่คือแมว", "tha_Thai"),
        ("Αυτή είναι μια γάτα.", "ell_Grek"),
        ("Use GNU Emacs: 这是一只非常大的猫，它在家里睡觉。", "zho_Hans"),
    ],
)
def test_the_language_is_guessed_from_script_and_words(text: str, code: str) -> None:
    assert guess_language(text) == code


def test_every_language_code_can_be_segmented() -> None:
    from largeconcept.languages import FLORES_200

    for code in FLORES_200:
        assert cut("Abc def. Ghi jkl?", bcp47(code))[0].startswith("Abc")


@pytest.mark.parametrize(
    ("sentences", "text", "starts"),
    [
        ([], "One. Two.", []),
        (["One. ", "Two."], "One. Two.", [5]),
        (["One.", "Two."], "One. Two.", [5]),
        (["One.", "Tvo.", "Six."], "One. Two. Six.", [10]),  # a changed sentence goes with the one before
        (["Two."], "One. Two.", [5]),  # a lost one too
        (["No.", "No.", "No."], "No. No. No.", [4, 8]),
        (["", " ", "Two."], "Two.", []),
        (["Two.", "One."], "One. Two.", [5]),
        (["Two. One. Two. Three"], "One. Two.", []),
    ],
)
def test_alignment_survives_what_libraries_do_to_text(sentences: list[str], text: str, starts: list[int]) -> None:
    assert starts_of(sentences, text) == starts


def test_a_panic_of_the_library_costs_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {})

    def fail(*_: object) -> list[str]:
        raise panic("index out of bounds")

    monkeypatch.setattr(sentencex, "segment", fail)
    assert cut("One. Two.") == ["One. Two."]

    def interrupt(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencex, "segment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cut("One. Two.")


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: [text.upper()],
        lambda text: [text[::-1]],
        lambda text: [],
        lambda text: [text[i] for i in range(len(text))],
        lambda text: [text[5:]],
        lambda text: [text, text, text],
    ],
)
def test_a_library_that_changes_text_costs_none(
    monkeypatch: pytest.MonkeyPatch, mangle: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(sentencex, "segment", lambda _, text: mangle(text))
    text = "One thing. Two things.\n\nThree things."
    assert "".join("".join(cut(text)).split()) == "".join(text.split())
