"""Tokenised sentences in flat arrays, with their translations: what a codec is trained from.

Letters: N sentences, P pairs. A table of a million sentences takes some 50 MB and is built once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from largeconcept.errors import DataError
from largeconcept.io import atomic_path

_CHUNK = 2**16  # sentences tokenised at once


@dataclass(slots=True)
class SentenceTable:
    """Sentences as token ids.

    Attributes:
        tokens: flat uint16 ids of all sentences.
        offsets: (N + 1,) int64; sentence i is ``tokens[offsets[i]:offsets[i + 1]]``.
        langs: (N,) uint8 indices into ``languages``.
        pairs: (P, 2) int32 row numbers of sentences that translate each other.
        languages: FLORES-200 codes.
    """

    tokens: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    langs: NDArray[np.uint8]
    pairs: NDArray[np.int32]
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.langs)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each sentence."""
        lengths: NDArray[np.int64] = np.diff(self.offsets)
        return lengths

    def rows(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Right-padded (n, T) int64 tokens and (n,) lengths of the sentences at ``indices``."""
        lengths = (self.offsets[indices + 1] - self.offsets[indices]).astype(np.int64)
        columns = np.arange(int(lengths.max(initial=1)))
        place = self.offsets[indices][:, None] + np.minimum(columns, np.maximum(lengths - 1, 0)[:, None])
        tokens = np.where(columns < lengths[:, None], self.tokens[place], 0).astype(np.int64)
        return torch.from_numpy(tokens), torch.from_numpy(lengths)

    @classmethod
    def build(
        cls,
        encode: Callable[[Sequence[str]], list[list[int]]],
        sentences: Sequence[tuple[str, str]],
        pairs: Sequence[tuple[str, str, str, str]] = (),
        *,
        languages: Sequence[str] | None = None,
        max_tokens: int = 128,
    ) -> SentenceTable:
        """Tokenise sentences and pairs; equal sentences of one language share a row, too long or empty ones are left
        out.

        Args:
            encode: texts to token ids.
            sentences: (language, text).
            pairs: (language, text, other language, its translation).
            languages: order of the language indices; those met, in order, by default.
            max_tokens: longest sentence kept.

        Raises:
            DataError: nothing is left, or a language is not in ``languages``.
        """
        index: dict[tuple[str, str], int] = {}
        for lang, text in sentences:
            index.setdefault((lang, text), len(index))
        links = [
            (index.setdefault((la, a), len(index)), index.setdefault((lb, b), len(index))) for la, a, lb, b in pairs
        ]
        codes = tuple(languages) if languages is not None else tuple(dict.fromkeys(lang for lang, _ in index))
        number = {code: i for i, code in enumerate(codes)}
        for lang, _ in index:
            if lang not in number:
                raise DataError("a language outside the codec's list", got=lang, expected=", ".join(codes))
        keys = list(index)
        lengths = np.zeros(len(keys), np.int64)
        parts = [np.zeros(0, np.uint16)]
        for start in range(0, len(keys), _CHUNK):  # lists of numbers take twenty times the memory of the table
            rows = encode([text for _, text in keys[start : start + _CHUNK]])
            counts = np.array([len(row) for row in rows], np.int64)
            counts[counts > max_tokens] = 0
            lengths[start : start + len(rows)] = counts
            flat = (i for row, count in zip(rows, counts.tolist(), strict=True) if count for i in row)
            parts.append(np.fromiter(flat, np.uint16, int(counts.sum())))
        good = lengths > 0
        new = np.cumsum(good) - 1
        if not good.any():
            raise DataError("no sentence to train on", expected=f"1 to {max_tokens} tokens each")
        offsets = np.zeros(int(good.sum()) + 1, np.int64)
        np.cumsum(lengths[good], out=offsets[1:])
        tokens = np.concatenate(parts)
        langs = np.array([number[k[0]] for k, ok in zip(keys, good, strict=True) if ok], np.uint8)
        joined = [(new[a], new[b]) for a, b in links if good[a] and good[b]]
        return cls(tokens, offsets, langs, np.array(joined, np.int32).reshape(-1, 2), codes)

    def save(self, path: str | Path) -> None:
        """Write an uncompressed ``.npz``, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                tokens=self.tokens,
                offsets=self.offsets,
                langs=self.langs,
                pairs=self.pairs,
                languages=np.array(self.languages),
            )

    @classmethod
    def load(cls, path: str | Path) -> SentenceTable:
        """Read a table.

        Raises:
            DataError: the file is missing, damaged or of another kind.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as data:
                return cls(
                    data["tokens"],
                    data["offsets"],
                    data["langs"],
                    data["pairs"].reshape(-1, 2),
                    tuple(str(code) for code in data["languages"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError("not a sentence table", where=path, got=error) from None
