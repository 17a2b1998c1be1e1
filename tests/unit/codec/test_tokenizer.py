from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.codec.tokenizer import Tokenizer, clean
from largeconcept.errors import CheckpointError, ConfigError, DataError


@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    wanted = clean(text).replace("\u2581", " ").strip()
    assert " ".join(tokenizer.decode(tokenizer.encode([text]))[0].split()) == " ".join(wanted.split())


@pytest.mark.parametrize("text", ["</s>", "<s> <pad> <unk>", "eng_Latn", "<0x41>", "a </s> b"])
def test_typed_control_marks_stay_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode([text])[0]
    assert min(ids) > 3
    assert tokenizer.decode([ids]) == [text]


def test_clean_handles_hostile_characters() -> None:
    assert clean("a\x00b\ud800c\n\td  e\u0301") == "a b\ufffdc d \u00e9"
    assert clean(" \u2003\n") == ""


def test_model_file_is_checked(tmp_path) -> None:
    broken = tmp_path / "tokenizer.model"
    broken.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="SentencePiece"):
        Tokenizer.from_file(broken)
    with pytest.raises(CheckpointError, match="cannot read"):
        Tokenizer.from_file(tmp_path / "missing.model")


def test_training_errors_are_clear() -> None:
    with pytest.raises(DataError, match="no text"):
        Tokenizer.train(["", "  "])
    with pytest.raises(ConfigError, match="vocab_size"):
        Tokenizer.train(["one short line."], vocab_size=5000)


def test_save_and_load(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path / "t.model")
    again = Tokenizer.from_file(tmp_path / "t.model")
    assert again.encode(["The old tower."]) == tokenizer.encode(["The old tower."])
    assert again.vocab_size == 320
