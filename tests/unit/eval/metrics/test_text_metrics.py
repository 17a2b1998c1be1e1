"""Metrics of words: against rouge-score, by hand, their bounds, and text of all kinds."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.errors import ConfigError, DataError, LanguageError
from largeconcept.eval.metrics import METRICS
from largeconcept.eval.metrics.ngrams import chrf, distinct, length_ratio, ngrams, overlap_3, repetition_4, seq_rep_4
from largeconcept.eval.metrics.rouge import ROUGE, _common_length, _common_places, rouge
from largeconcept.eval.metrics.words import rouge_words, sentences, words

GOLDEN = json.loads((Path(__file__).parent / "golden/rouge.json").read_text(encoding="utf-8"))
few_words = st.lists(st.sampled_from(["a", "b", "c", "the", "of"]), max_size=12)
texts = st.lists(few_words.map(" ".join), max_size=4)
anything = st.text(max_size=60)


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("Don't stop: 3.5% — NOW!", "eng_Latn", ["don", "t", "stop", "3", "5", "now"]),
        ("snake_case", "eng_Latn", ["snake", "case"]),
        ("L’été à Orléans", "fra_Latn", ["l", "été", "à", "orléans"]),
        ("e\u0301te\u0301", "fra_Latn", ["été"]),
        ("Straße, ÄRGER", "de", ["straße", "ärger"]),
        ("中文 分词。", "zho_Hans", ["中", "文", "分", "词"]),
        ("ラーメンを食べる", "jpn_Jpan", [*"ラーメンを食べる"]),
        ("ภาษาไทย", "tha_Thai", [*"ภาษาไทย"]),
        ("ที่นี่", "tha_Thai", ["ที่", "นี่"]),
        ("မြန်မာ", "mya_Mymr", ["မြ", "န်", "မာ"]),
        ("ភាសា", "khm_Khmr", ["ភា", "សា"]),
        ("한국어 문장", "kor_Hang", ["한국어", "문장"]),
        ("हिन्दी में", "hin_Deva", ["हिन्दी", "में"]),
        ("བོད་སྐད།", "bod_Tibt", ["བོད", "སྐད"]),
        ("می‌شود", "pes_Arab", ["میشود"]),
        ("ISPARTA İzmir", "tur_Latn", ["ısparta", "izmir"]),
        ("ISPARTA", "eng_Latn", ["isparta"]),
        ("Ｆｕｌｌ　１２", "jpn_Jpan", ["full", "12"]),
        ("Debian は Linux です2026年", None, ["debian", "は", "linux", "で", "す", "2026", "年"]),
        ("русский and ελληνικά混合", None, ["русский", "and", "ελληνικά", "混", "合"]),
        ("", None, []),
        (" \n…!? 🙂", None, []),
        ("word", None, ["word"]),
        ("a\ud800b", None, ["a", "b"]),
        (["Two sentences.", "Like this."], "en", ["two", "sentences", "like", "this"]),
    ],
)
def test_words(text, lang, expected):
    assert words(text, lang) == expected


@settings(deadline=None)
@given(anything)
def test_words_are_small_and_stay_what_they_are(text):
    found = words(text)
    assert all(word and word == word.lower() and " " not in word for word in found)
    assert words(" ".join(found)) == found


def test_english_is_cut_as_by_rouge():
    assert rouge_words("Beyoncé", "eng_Latn") == ["beyonc"]
    assert rouge_words("Beyoncé", "en") == ["beyonc"]
    assert rouge_words("Beyoncé", "fra_Latn") == rouge_words("Beyoncé") == ["beyoncé"]


def test_sentences_of_a_string_and_of_lines():
    text = "Dr. Smith came. He left.\nA new line without a stop\nThe end."
    assert sentences(text, "eng_Latn") == ["Dr. Smith came.", "He left.", "A new line without a stop", "The end."]
    assert sentences(["One. Two."], "eng_Latn") == ["One. Two."]
    assert sentences("彼は来た。彼は去った。", "jpn_Jpan") == ["彼は来た。", "彼は去った。"]


# ------------------------------------------------------------------ rouge


@pytest.mark.parametrize("case", GOLDEN["single"], ids=lambda case: " ".join(case["prediction"])[:24])
def test_rouge_is_that_of_rouge_score(case):
    scores = rouge(case["prediction"], case["reference"], "eng_Latn")
    assert [scores[name] for name in ROUGE] == pytest.approx(case["scores"], abs=1e-9)


@pytest.mark.parametrize("case", GOLDEN["several"], ids=lambda case: " ".join(case["prediction"])[:24])
def test_the_best_reference_counts(case):
    first, *others = case["references"]
    scores = rouge(case["prediction"], first, "eng_Latn", others)
    assert [scores[name] for name in ROUGE] == pytest.approx(case["scores"], abs=1e-9)


def test_rouge_by_hand():
    """The example of the paper, section 3.2: the union of two subsequences has w1 w2 w3 w5, of 5 and of 10 words."""
    scores = rouge(["w1 w2 w6 w7 w8", "w1 w3 w8 w9 w5"], ["w1 w2 w3 w4 w5"], "eng_Latn")
    assert scores["rouge_lsum"] == pytest.approx(100 * 2 * 4 / (5 + 10))
    scores = rouge("police kill the gunman", "police killed the gunman", "eng_Latn")
    assert scores["rouge_1"] == pytest.approx(75) and scores["rouge_2"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("prediction", "reference", "lang"),
    [
        ("Ein schöner Tag heute.", "Ein schöner Tag heute.", "deu_Latn"),
        ("今天天气很好。", "今天天气很好。", "zho_Hans"),
        ("วันนี้อากาศดี", "วันนี้อากาศดี", "tha_Thai"),
        ("Привет, мир", "привет мир!", "rus_Cyrl"),
    ],
)
def test_the_same_text_in_any_language_is_100(prediction, reference, lang):
    assert rouge(prediction, reference, lang) == dict.fromkeys(ROUGE, pytest.approx(100))


def test_part_of_a_japanese_text_by_hand():
    scores = rouge("猫が寝る", "猫が走る", "jpn_Jpan")  # three of four characters, one of three pairs
    assert scores["rouge_1"] == scores["rouge_l"] == pytest.approx(75)
    assert scores["rouge_2"] == pytest.approx(100 / 3)


@settings(max_examples=80, deadline=None)
@given(texts, texts)
def test_rouge_is_bounded_symmetric_and_100_for_the_same(left, right):
    scores, back = rouge(left, right, "eng_Latn"), rouge(right, left, "eng_Latn")
    assert all(0 <= value <= 100 for value in scores.values())
    for name in ("rouge_1", "rouge_2", "rouge_l"):
        assert scores[name] == pytest.approx(back[name])
    assert scores["rouge_l"] <= scores["rouge_1"] + 1e-9
    same, number = rouge(left, left, "eng_Latn"), len(words(left))
    assert same["rouge_1"] == same["rouge_l"] == same["rouge_lsum"] == pytest.approx(100 if number else 0)
    assert same["rouge_2"] == pytest.approx(100 if number > 1 else 0)


@settings(max_examples=80, deadline=None)
@given(few_words, few_words)
def test_longest_common_subsequences_by_the_plain_table(left, right):
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert _common_length(left, right) == table[-1][-1]
    numbers = [np.array([ord(word[0]) for word in one], dtype=int) for one in (left, right)]
    places = _common_places(numbers[0], numbers[1][None], np.array([len(right)]))
    assert places.sum() == table[-1][-1]


def test_subsequences_are_the_same_in_parts(monkeypatch):
    case = max(GOLDEN["single"], key=lambda case: len(case["prediction"]) * len(case["reference"]))
    monkeypatch.setattr("largeconcept.eval.metrics.rouge._CELLS", 1)
    scores = rouge(case["prediction"], case["reference"], "eng_Latn")
    assert [scores[name] for name in ROUGE] == pytest.approx(case["scores"], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(anything, anything, st.sampled_from([None, "eng_Latn", "zho_Hans", "tha_Thai", "arb_Arab"]))
def test_nothing_breaks_text_metrics(left, right, lang):
    assert all(0 <= value <= 100 for value in rouge(left, right, lang).values())
    assert 0 <= chrf(left, right) <= 100
    for value in (overlap_3(left, right, lang), repetition_4(left, lang), distinct([left, right], 2, lang)):
        assert value is None or 0 <= value <= 1
    assert (length_ratio(left, right, lang) is None) == (not words(right, lang))


# ------------------------------------------------------------------ copying and repeating


def test_overlap_by_hand():
    source = "a b c d e b c d"  # abc bcd cde deb ebc: five distinct ones
    assert overlap_3("x a b c d y", source, "eng_Latn") == pytest.approx(2 / 5)
    assert overlap_3(source, source) == 1
    assert overlap_3("", source) == 0
    assert overlap_3("a b c", "a b") is None


def test_repetition_by_hand():
    assert repetition_4("a b c d a b c d") == pytest.approx(5 / 4 - 1)  # five runs, of which abcd comes twice
    assert repetition_4("a " * 10) == pytest.approx(6)  # seven times the same
    assert repetition_4("a b c d e f") == 0
    assert repetition_4("a b c") is None
    assert repetition_4(["The cat sat on the mat."] * 3, "eng_Latn") == pytest.approx(15 / 6 - 1)
    assert seq_rep_4("a b c d a b c d") == pytest.approx(1 / 5)
    assert seq_rep_4("a " * 10) == pytest.approx(6 / 7)
    assert seq_rep_4("a b c d e f") == 0
    assert seq_rep_4("a b c") is None
    assert seq_rep_4(["The cat sat on the mat."] * 3, "eng_Latn") == pytest.approx(1 - 6 / 15)


def test_counts_are_of_words_and_not_of_characters():
    """A long text without a repeated run of words has many repeated runs of characters."""
    text = " ".join(f"word{i}" for i in range(200))
    assert repetition_4(text, "eng_Latn") == 0
    characters = Counter(ngrams(text, 4))
    assert 1 - len(characters) / characters.total() > 0.5


def test_distinct_is_of_all_texts_together():
    assert distinct(["a b", "a c"], 1) == pytest.approx(3 / 4)
    assert distinct(["a b", "a b"], 2) == pytest.approx(1 / 2)
    assert distinct(["a b", "b a"], 2) == 1  # none crosses from one text to the next
    assert distinct(["a", ""], 2) is None


def test_length_ratio_by_hand():
    assert length_ratio("one two", "one two three four") == 0.5
    assert length_ratio("", "one") == 0
    assert length_ratio("one", "") is None
    assert length_ratio("今天", "今天天气", "zho_Hans") == 0.5


def test_chrf_is_that_of_sacrebleu():
    from sacrebleu import sentence_chrf

    prediction, references = "The cat sat on the mat", ["A cat sat on the mat.", "The cat is on a mat"]
    expected = sentence_chrf(prediction, references).score
    assert chrf(prediction, references[0], references[1:]) == pytest.approx(expected)
    assert expected >= chrf(prediction, references[0])
    assert chrf(["今天天气很好。", "真的。"], ["今天天气很好。", "真的。"]) == pytest.approx(100)
    assert chrf("x", "") == chrf("", "x") == 0


# ------------------------------------------------------------------ refusals


def test_refusals():
    with pytest.raises(DataError, match="not a text"):
        words(3)
    with pytest.raises(DataError, match="not a text"):
        rouge(["a", None], "a")
    with pytest.raises(LanguageError):
        words("a", "no language")
    with pytest.raises(ConfigError, match="n"):
        distinct(["a"], 0)


def test_metrics_are_listed_under_their_names():
    assert set(ROUGE) <= set(METRICS)
    for name, info in METRICS.items():
        assert name == info.name and info.direction in ("higher", "lower", "none") and info.source
