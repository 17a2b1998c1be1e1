from __future__ import annotations

import io
import unicodedata
from itertools import pairwise

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from largeconcept.codec.sonar import tokenizer as module
from largeconcept.codec.sonar.tokenizer import (
    BOS,
    EOS,
    LANGUAGES,
    PAD,
    UNK,
    UNKNOWN_SOURCE,
    SonarTokenizer,
    truncate_ids,
)
from largeconcept.codec.tokenizer import Tokenizer
from largeconcept.errors import CheckpointError, DataError, LanguageError
from largeconcept.languages import FLORES_200, flores

TEXT = [
    "The old tower stands near a river where seven boats wait for rain.",
    "Nobody speaks of winter any more, and the boats are grey.",
    "Ein alter Turm steht am Fluss, und sieben Boote warten auf Regen.",
    "La vieille tour est près d'une rivière; sept bateaux attendent.",
    "1 2 3 4 5 6 7 8 9 0 (a) [b] <c> /d_ eng_Latn </s> <pad> <unk>",
]


def trained(**changes: object) -> bytes:
    out = io.BytesIO()
    options = {
        "vocab_size": 200,
        "model_type": "bpe",
        "character_coverage": 1.0,
        "normalization_rule_name": "nmt_nfkc",
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 3), model_writer=out, **{**options, "pad_id": -1, **changes}
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return trained()


@pytest.fixture(scope="module")
def tokens(model: bytes) -> SonarTokenizer:
    return SonarTokenizer(model)


def test_the_languages_are_those_of_the_released_tables() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 202
    assert set(FLORES_200) - {flores(code) for code in LANGUAGES} == {"arb_Latn", "min_Arab"}
    assert [code for code in LANGUAGES if flores(code) != code] == ["sat_Beng"]
    # Ids that have been published, by the released model's 256 000 pieces.
    assert 256_001 + LANGUAGES.index("eng_Latn") == 256_047
    assert 256_001 + LANGUAGES.index("fra_Latn") == 256_057
    assert (LANGUAGES[0], LANGUAGES[-1]) == ("ace_Arab", "zul_Latn")
    # Not the alphabet's order: Persian is where "fas" would be, Malagasy where "mlg" would be.
    breaks = [b for a, b in pairwise(LANGUAGES) if a > b]
    assert breaks[:3] == ["fij_Latn", "kaz_Cyrl", "kmr_Latn"]
    assert len(breaks) == 11


def test_ids_lie_where_the_tables_have_them(tokens: SonarTokenizer, model: bytes) -> None:
    n = tokens.num_pieces
    assert n == 200
    assert tokens.vocab_size == n + 1 + 202 + 3
    assert tokens.language_id("ace_Arab") == n + 1
    assert tokens.language_id("en") == n + 1 + LANGUAGES.index("eng_Latn")
    assert tokens.language_id("zul_Latn") == n + 202
    assert [tokens.tag_id(t) for t in module.DATA_TAGS] == [n + 203, n + 204, n + 205]
    plain = sentencepiece.SentencePieceProcessor(model_proto=model)
    row = tokens.encode(["The old tower."], "eng_Latn")[0]
    assert row == [tokens.language_id("eng_Latn"), *(i + 1 for i in plain.encode("The old tower.")), EOS]
    assert tokens.encode(["x"], "fra_Latn", tag="MINED_DATA")[0][:2] == [tokens.language_id("fra_Latn"), n + 203]
    assert tokens.model == model


def test_santali_is_one_language_and_two_of_flores_are_missing(tokens: SonarTokenizer) -> None:
    assert tokens.language_id("sat_Olck") == tokens.language_id("sat_Beng") == 201 + LANGUAGES.index("sat_Beng")
    assert "sat_Olck" in tokens.languages
    assert len(tokens.languages) == 202
    for code, near in {"arb_Latn": "arb_Arab", "min_Arab": "min_Latn"}.items():
        with pytest.raises(LanguageError, match="SONAR does not know"):
            tokens.language_id(code)
        assert tokens.language_id(near)
    with pytest.raises(LanguageError, match="unknown language"):
        tokens.language_id("tlh")


def test_each_row_may_have_its_language(tokens: SonarTokenizer) -> None:
    rows = tokens.encode(["one", "two", "three"], ["de", None, "spa_Latn"])
    assert [row[0] for row in rows] == [tokens.language_id(c) for c in ("deu_Latn", UNKNOWN_SOURCE, "spa_Latn")]
    assert tokens.encode(["one"], None)[0][0] == tokens.language_id("ell_Grek")
    assert tokens.encode([], "eng_Latn") == []
    assert tokens.decode([]) == []
    with pytest.raises(LanguageError, match="one language per row"):
        tokens.encode(["one", "two"], ["eng_Latn"])


@given(text=st.text(max_size=80))
@example("</s>")
@example("<s> <pad> <unk> </s> __eng_Latn__ <MINED_DATA>")
@example("\x00\ud800 \u200b\ufeff\n\t")
@settings(max_examples=200, deadline=None)
def test_no_text_becomes_a_mark_or_a_language(tokens: SonarTokenizer, text: str) -> None:
    row = tokens.pieces([text])[0]
    assert all(i == UNK or EOS < i <= tokens.num_pieces for i in row)
    marked = tokens.encode([text], "fra_Latn")[0]
    assert marked == [tokens.language_id("fra_Latn"), *row, EOS]


@given(
    text=st.text(alphabet=sorted(set("".join(TEXT))), max_size=60),
    before=st.sampled_from(["", " ", "  "]),
    after=st.sampled_from(["", " ", "  ", "\n"]),
)
@settings(max_examples=200, deadline=None)
def test_text_comes_back_up_to_normalisation(tokens: SonarTokenizer, text: str, before: str, after: str) -> None:
    wanted = " ".join(unicodedata.normalize("NFKC", text).split())
    row = tokens.encode([before + text + after], "eng_Latn")[0]
    assert UNK not in row
    assert tokens.decode([row]) == [wanted]
    assert row[1:-1] == tokens.pieces([wanted])[0], "white space at the ends adds nothing"


@pytest.mark.parametrize("text", ["</s>", "<pad> <unk>", "eng_Latn", "a </s> b"])
def test_typed_marks_come_back_as_typed(tokens: SonarTokenizer, text: str) -> None:
    assert tokens.decode(tokens.encode([text], "eng_Latn")) == [text]


def test_unknown_characters_print_as_question_marks(tokens: SonarTokenizer) -> None:
    row = tokens.pieces(["a \u4e2d b"])[0]
    assert UNK in row
    assert tokens.decode([row]) == ["a  \u2047  b"]


def test_marks_and_numbers_outside_the_table_print_as_nothing(tokens: SonarTokenizer) -> None:
    row = tokens.pieces(["the boats"])[0]
    hidden = [PAD, BOS, EOS, tokens.language_id("eng_Latn"), tokens.tag_id("MINED_DATA"), tokens.vocab_size + 9, -4]
    assert tokens.decode([[*hidden, *row, *hidden]]) == ["the boats"]


def test_a_long_text_is_cut_as_the_original_does_or_with_its_end() -> None:
    ids = [900, *range(10, 1000), EOS]
    assert truncate_ids(ids, keep_end=False) == ids[:514]
    cut = truncate_ids(ids)
    assert (len(cut), cut[:513], cut[-1]) == (514, ids[:513], EOS)
    assert truncate_ids(ids[:500]) == ids[:500]
    assert truncate_ids([*ids[:513], EOS]) == [*ids[:513], EOS]
    with pytest.raises(DataError, match="no room"):
        truncate_ids(ids, 1)


def test_nul_is_a_space_and_half_a_pair_an_unknown_character(tokens: SonarTokenizer) -> None:
    assert tokens.pieces(["old\x00tower"]) == tokens.pieces(["old tower"])
    assert tokens.pieces(["old \ud800"]) == tokens.pieces(["old \ufffd"])


def test_a_long_text_is_read_quickly(tokens: SonarTokenizer) -> None:
    assert len(tokens.pieces(["tower " * 20_000])[0]) > 20_000


@pytest.mark.parametrize(
    "changes",
    [{"pad_id": 3}, {"unk_id": 3, "bos_id": 0, "eos_id": 1}, {"bos_id": -1, "eos_id": 1}],
)
def test_other_kinds_of_model_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match="not SONAR's kind"):
        SonarTokenizer(trained(**changes))


def test_files_are_checked(tmp_path, model: bytes) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        SonarTokenizer.from_file(tmp_path / "missing.model")
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"\x80 no model")
    with pytest.raises(CheckpointError, match=r"broken\.model: not a SentencePiece model"):
        SonarTokenizer.from_file(broken)
    Tokenizer.train(TEXT * 3, vocab_size=320).save(broken)
    with pytest.raises(CheckpointError, match=r"broken\.model: not SONAR's kind"):
        SonarTokenizer.from_file(broken)
    SonarTokenizer(model).save(tmp_path / "good.model")
    assert SonarTokenizer.from_file(tmp_path / "good.model", ["eng_Latn"]).vocab_size == 205


def test_shifted_languages_are_noticed(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="listed twice"):
        SonarTokenizer(model, ["sat_Beng", "sat_Olck"])
    monkeypatch.setattr(module, "_PIECES", 200)
    monkeypatch.setattr(module, "_ENGLISH", 247)
    assert SonarTokenizer(model).language_id("eng_Latn") == 247
    with pytest.raises(CheckpointError, match=r"eng_Latn.*expected 247; got 246"):
        SonarTokenizer(model, LANGUAGES[1:])
