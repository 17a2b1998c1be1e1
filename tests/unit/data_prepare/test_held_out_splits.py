from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from largeconcept.data.prepare.splits import (
    HELD_OUT,
    check_keys,
    checksum,
    document_key,
    split_of,
    split_of_key,
    words_of,
)
from largeconcept.errors import DataError

PUBLISHED = Path(__file__).parents[3] / "docs" / "held_out"
texts = st.text(min_size=1, max_size=30)


def old_rule(source: str, id: str) -> bool:
    """The rule by which the starter codec and the sample corpus hold documents out."""
    if source == "bible":
        id = id.split(":", 1)[1]
    return int(hashlib.sha1(f"{source}/{id}".encode()).hexdigest(), 16) % 40 == 13


@given(st.sampled_from(["ddtp", "bible", "gnome"]), st.integers(0, 10**9))
def test_the_held_out_part_is_that_of_earlier_codecs(source: str, number: int) -> None:
    id = f"web:{number}" if source == "bible" else str(number)
    held = split_of_key(document_key(source, id)) in HELD_OUT
    assert held == old_rule(source, id)


@given(
    texts, st.lists(st.text(st.characters(exclude_characters=":", codec="utf-8"), max_size=9), min_size=2, max_size=4)
)
def test_bible_translations_of_a_chapter_never_straddle(chapter: str, translations: list[str]) -> None:
    assert len({split_of_key(document_key("bible", f"{name}:{chapter}")) for name in translations}) == 1


def test_shares_of_the_parts() -> None:
    found = Counter(split_of("source", str(number)) for number in range(40_000))
    assert found["test"] / 40_000 == pytest.approx(1 / 80, abs=0.002)
    assert found["validation"] / 40_000 == pytest.approx(1 / 80, abs=0.002)
    assert found["reserved"] / 40_000 == pytest.approx(1 / 50, abs=0.003)


@given(texts)
def test_words_do_not_depend_on_case_of_letters_marks_or_normal_form(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert words_of(unicodedata.normalize("NFD", text)) == words_of(unicodedata.normalize("NFC", text))
    assert words_of(f"  12, {text} (3)!") == words


def test_words_of_languages_without_spaces_are_characters() -> None:
    assert words_of("Die 3 Häuser – „alt“ _x_") == ["die", "häuser", "alt", "x"]
    assert words_of("天気がいい。Qt 5") == ["天", "気", "が", "い", "い", "qt"]


@given(st.lists(texts))
def test_the_checksum_is_of_the_set(keys: list[str]) -> None:
    assert checksum(keys) == checksum([*reversed(keys), *keys])


def published(split: str) -> list[str]:
    return (PUBLISHED / f"{split}.txt").read_text(encoding="utf-8").splitlines()


def test_the_published_ids_follow_the_rule() -> None:
    for split in HELD_OUT:
        keys = published(split)
        assert keys == sorted(set(keys))
        assert len(keys) > 500
        check_keys(keys, split)
        facts = (PUBLISHED / "README.md").read_text(encoding="utf-8")
        assert checksum(keys) in facts
        assert f"| {len(keys)}" in facts
    with pytest.raises(DataError, match="expected test"):
        check_keys(published("validation"), "test")


def test_the_published_ids_are_those_of_the_rule_in_the_sample_corpus() -> None:
    """The sample was cut from the same corpus: all of its test part is published, and none of its train part."""
    sample = PUBLISHED.parents[1] / "examples" / "corpus"
    known = {*published("test"), *published("validation")}
    keys = {part: set() for part in ("train", "test")}
    for part, found in keys.items():
        for path in (sample / part).glob("*.jsonl"):
            lines = path.read_text(encoding="utf-8").splitlines()
            found |= {json.loads(line)["id"].rpartition("#")[0] or json.loads(line)["id"] for line in lines}
    assert len(keys["test"]) > 30
    assert keys["test"] <= known
    assert not keys["train"] & known
    assert {split_of_key(key) for key in keys["test"]} == {"test", "validation"}
