from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.data.debian.align import align, fits
from largeconcept.data.debian.text import (
    decode,
    is_good,
    is_good_paragraph,
    language_of,
    split_sentences,
    tidy,
)

ANY_TEXT = st.text(alphabet=st.characters(codec=None), max_size=200)


@pytest.mark.parametrize(
    ("tag", "lang"),
    [
        ("C", "en"), ("en_US", "en"), ("en-US", "en"), ("en-gb", "en-GB"), ("de", "de"), ("de_AT.UTF-8", "de"),
        ("pt_BR", "pt-BR"), ("pt-br", "pt-BR"), ("pt", "pt"), ("zh_CN", "zh-CN"), ("zh-tw", "zh-TW"),
        ("zh-Hant-TW", "zh-TW"), ("zh", "zh-CN"), ("zh-Hans-CN", "zh-CN"), ("sr@latin", "sr"), ("nb_NO", "nb"),
        ("", None), ("man1", None), ("../x", None), ("templates", None),
    ],
)  # fmt: skip
def test_language_of(tag, lang):
    assert language_of(tag) == lang


def test_tidy_collapses_and_drops_what_is_invisible():
    assert tidy("  a\u00ad b\n\tc\u200b\x00d\ud800 ") == "a b c d"
    assert tidy("e\u0301") == "é"


@given(ANY_TEXT)
@settings(max_examples=60, deadline=None)
def test_tidy_gives_one_clean_encodable_line(text):
    once = tidy(text)
    assert tidy(once) == once
    assert once.encode("utf-8").decode() == once
    assert not any(c in once for c in "\n\r\t\x00")


@given(st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_decode_never_fails(data):
    assert isinstance(decode(data), str)


def test_decode_prefers_utf8():
    assert decode("\ufeffGrüße".encode()) == "Grüße"
    assert decode("Grüße".encode("latin-1")) == "Grüße"


def test_good_sentences():
    assert is_good("This is a whole sentence of text.", "en")
    assert is_good("“This is a whole sentence of text.”", "en")
    assert not is_good("This is not ended properly at all", "en")
    assert not is_good("Too short a one.", "en")
    assert not is_good("Onewordonewordonewordoneword.", "en")
    assert not is_good("0x33 0x55 0x77 0x99 0xaa 0xbb 0xcc.", "en")
    assert not is_good("word " * 90 + "end.", "en")
    assert is_good("これは日本語の文章です。", "ja")
    assert not is_good("これは日本語の文章です。", "de")
    assert is_good_paragraph(["This is a whole sentence of text."] * 3 + ["No", "No"], "en")
    assert not is_good_paragraph(["This is a whole sentence of text."] * 2 + ["No", "No"], "en")
    assert not is_good_paragraph([], "en")


def test_split_sentences_uses_the_language():
    assert split_sentences("It rains. The sun shines.", "en") == ["It rains.", "The sun shines."]
    assert split_sentences("雨が降る。日が照る。", "ja") == ["雨が降る。", "日が照る。"]
    assert split_sentences("O sol brilha. Chove.", "pt-BR") == ["O sol brilha.", "Chove."]


GOOD = "The house is very old and large."
GUT = "Das Haus ist sehr alt und groß."


def test_pairs_need_the_same_shape():
    assert list(align([[GOOD]], [[GUT]], "de")) == [(GOOD, GUT)]
    assert list(align([[GOOD], [GOOD]], [[GUT]], "de")) == []
    assert list(align([[GOOD, GOOD]], [[GUT]], "de")) == []
    assert list(align([[GOOD], [GOOD]], [[], [GUT]], "de")) == [(GOOD, GUT)]


def test_pairs_are_filtered():
    assert fits(GOOD, GUT, "de")
    assert not fits(GOOD, GOOD, "de"), "untranslated"
    assert not fits(GOOD, "Haus, alt und groß", "de"), "no sentence"
    assert not fits(GOOD, GUT[:-1] + " und " * 20 + "mehr.", "de"), "2.5 times as long"
    assert not fits(GOOD, "Das Haus\tist sehr alt.", "de"), "would break the table"
    russian = "Этот дом очень старый и большой."
    assert fits(GOOD, russian, "ru")
    assert fits(GOOD, russian, "uk")
    english = "The house is very old and large, and nobody has lived in it for years."
    assert is_good("Дом очень стар и велик.", "ru")
    assert not fits(english, "Дом очень стар и велик.", "ru"), "Cyrillic takes two bytes a letter"
    assert fits(english, "Das Haus ist alt, groß, leer und kalt.", "de")
    assert not fits(english, "Das Haus ist alt und leer.", "de"), "0.4 times as long"


@given(st.lists(st.lists(st.text(max_size=30), max_size=3), max_size=4), st.lists(st.lists(st.text(max_size=30))))
@settings(max_examples=40, deadline=None)
def test_align_never_fails(english, other):
    for a, b in align(english, other, "de"):
        assert a != b
