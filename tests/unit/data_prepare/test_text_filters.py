from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from largeconcept.data.prepare.filters import clean_sentence, draw, is_damaged, pair_fault, pieces_of


def test_what_is_no_text_goes() -> None:
    assert clean_sentence("A praise psalm by David. And  God said", "bible") == "And God said"
    assert clean_sentence("* Verses 1-3 * Here *we* see", "commentary") == "Here we see"
    assert clean_sentence("She was _very_ happy.", "austen") == "She was very happy."
    assert clean_sentence("* a _list_ of  things", "man") == "* a _list_ of things"


@pytest.mark.parametrize(
    ("text", "source", "damaged"),
    [
        ("He went out.Then he came back.", "bible", True),
        ("one,two and three", "bible", True),
        ("A Psalm by David.", "bible", True),
        ("A psalm that goes on for so long that it is a sentence of its own and no title", "bible", False),
        ("God called the light “day”.", "bible", False),
        ("The wordTogether is glued.", "commentary", True),
        ("The word stands alone.", "commentary", False),
        ("Call getText.Then go on, one,two", "pydoc", False),
    ],
)
def test_damage_known_from_single_sources(text: str, source: str, damaged: bool) -> None:
    assert is_damaged(text, source) is damaged


@given(st.text(st.sampled_from("ab, .;é天"), max_size=400), st.integers(8, 60))
def test_pieces_are_short_and_lose_nothing(text: str, limit: int) -> None:
    cleaned = clean_sentence(text)
    pieces = pieces_of(cleaned, limit)
    assert all(len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(cleaned.split())
    if len(cleaned) <= limit:
        assert pieces == [cleaned]


@pytest.mark.parametrize(
    ("english", "other", "lang", "source", "fault"),
    [
        ("The same line here.", "The same line here.", "deu_Latn", "kde", "untranslated"),
        ("Short.", "Kurzer Satz hier.", "deu_Latn", "kde", "length"),
        ("A sentence of the usual length, or nearly so.", "Zu kurz.", "deu_Latn", "kde", "length_ratio"),
        ("A sentence of the usual length.", "Предложение обычной длины.", "rus_Cyrl", "kde", None),
        ("A sentence of the usual length.", "Предложение", "rus_Cyrl", "kde", "length_ratio"),
        ("He went out.Then he came back.", "Salió fuera.Luego volvió.", "spa_Latn", "bible", "damaged"),
        ("He went out. Then he came back.", "Salió fuera. Luego volvió.", "spa_Latn", "bible", None),
    ],
)
def test_faults_of_pairs(english: str, other: str, lang: str, source: str, fault: str | None) -> None:
    # Cyrillic letters take two bytes: the bounds are others there.
    assert pair_fault(english, other, lang, source, 8, 200) == fault


def test_thinning_depends_on_the_text_alone() -> None:
    values = [draw(f"sentence {i}") for i in range(4000)]
    assert values == [draw(f"sentence {i}") for i in range(4000)]
    assert all(0 <= value < 1 for value in values)
    assert sum(value < 0.3 for value in values) / 4000 == pytest.approx(0.3, abs=0.03)
    assert draw("sentence 1", "a") != draw("sentence 1", "b")
