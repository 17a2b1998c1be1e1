"""SentencePiece with byte fallback: any text becomes tokens, and no typed text becomes a control token."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.io import atomic_write_bytes

_SPACE = re.compile(r"\s+")
_UNENCODABLE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return the text as the codec sees it: NFC, one space for any white space, no NUL, U+FFFD for lone surrogates."""
    text = _UNENCODABLE.sub("\ufffd", text).replace("\x00", " ")
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


class Tokenizer:
    """A SentencePiece unigram model with ids 0–3 for padding, start, end and unknown.

    Only pieces and bytes come out of :meth:`encode`: typing ``</s>`` or ``eng_Latn`` gives plain text pieces.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as error:
            raise CheckpointError("not a SentencePiece model", where="tokenizer", got=error) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a ``.model`` file.

        Raises:
            CheckpointError: the file is missing or not a SentencePiece model.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise CheckpointError("cannot read the tokenizer", where=path, got=error.strerror) from None
        return cls(data)

    @classmethod
    def train(
        cls, sentences: Iterable[str], vocab_size: int = 8192, *, seed: int = 0, num_threads: int = 1
    ) -> Tokenizer:
        """Train a model on sentences.

        Raises:
            DataError: there is no text.
            ConfigError: the text is too small for the vocabulary.
        """
        texts = [t for t in (clean(s) for s in sentences) if t]
        if not texts:
            raise DataError("no text to train the tokenizer on")
        out = io.BytesIO()
        sentencepiece.set_random_generator_seed(seed)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=out,
                vocab_size=vocab_size,
                model_type="unigram",
                byte_fallback=True,
                character_coverage=0.9995,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                split_digits=True,
                pad_id=0,
                bos_id=1,
                eos_id=2,
                unk_id=3,
                pad_piece="<pad>",
                num_threads=num_threads,
                max_sentence_length=4000,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ConfigError(
                "the tokenizer cannot be trained",
                where="vocab_size",
                got=f"{vocab_size} ({str(error).splitlines()[0][-80:]})",
                hint="use a smaller vocabulary or more text",
            ) from None
        return cls(out.getvalue())

    @property
    def vocab_size(self) -> int:
        """V, number of pieces, the four control ids and 256 bytes included."""
        return int(self._processor.GetPieceSize())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each cleaned text, without start or end mark."""
        return [list(ids) for ids in self._processor.EncodeAsIds([clean(t) for t in texts])]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each list of ids; invalid byte sequences become U+FFFD."""
        size = self.vocab_size
        kept = [[i for i in row if 3 < i < size] for row in ids]
        return [str(text).strip() for text in self._processor.DecodeIds(kept)] if kept else []

    def save(self, path: str | Path) -> None:
        """Write the ``.model`` file."""
        atomic_write_bytes(path, self.model)
