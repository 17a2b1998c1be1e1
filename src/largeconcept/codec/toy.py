"""A codec without weights, for tests and for trying the tools: hashed character n-grams, and recall by nearest
neighbour.

It is deterministic, needs no training, and puts similar strings near one another. It can only decode sentences that it
has seen: those given to ``remember`` and those it encoded itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from largeconcept.codec.rows import check_concepts
from largeconcept.errors import CheckpointError, DataError, LanguageError
from largeconcept.io import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor


class ToyCodec:
    """Hashed character trigrams projected to a unit-variance vector; decodes by recall.

    Args:
        dim: C, the number of channels.
        sentences: sentences that ``decode`` may answer with from the start.
    """

    languages: tuple[str, ...] = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn")

    def __init__(self, dim: int = 32, sentences: Sequence[str] = ()) -> None:
        self._dim = dim
        self._memory: dict[str, np.ndarray] = {}
        self.remember(sentences)

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        return self._dim

    @property
    def fingerprint(self) -> str:
        """Depends on the dimension alone: the space is fixed by the hash."""
        return hashlib.sha256(f"toy-{self._dim}".encode()).hexdigest()[:16]

    def remember(self, sentences: Sequence[str]) -> None:
        """Add sentences that ``decode`` may answer with."""
        for sentence in sentences:
            if sentence not in self._memory:
                self._memory[sentence] = self._vector(sentence)

    def encode(
        self, sentences: Sequence[str], lang: str | Sequence[str] | None = None, *, batch_tokens: int = 8192
    ) -> Tensor:
        """Return (N, C) float32 vectors of variance one; the language is not used."""
        self.remember(sentences)
        if not len(sentences):
            return torch.zeros(0, self._dim)
        return torch.from_numpy(np.stack([self._memory[s] for s in sentences]))

    def decode(
        self,
        concepts: Tensor,
        lang: str | Sequence[str],
        *,
        method: str = "beam",
        num_beams: int = 4,
        max_length: int = 128,
        batch_tokens: int = 8192,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> list[str]:
        """Return the remembered sentence nearest to each vector, whatever the language.

        Raises:
            DataError: nothing is remembered, a wrong dimension, or a vector that is not finite.
            LanguageError: a language outside ``languages``.
        """
        for code in [lang] if isinstance(lang, str) else lang:
            if code not in self.languages:
                raise LanguageError("the toy codec cannot write this language", got=code, expected=self.languages)
        check_concepts(concepts, self._dim)
        if not self._memory:
            raise DataError("the toy codec has seen no sentence", hint="call remember() or encode() first")
        names = list(self._memory)
        table = torch.from_numpy(np.stack([self._memory[name] for name in names]))
        nearest = torch.cdist(concepts.detach().float().cpu(), table).argmin(dim=1)
        return [names[i] for i in nearest.tolist()]

    def _vector(self, sentence: str) -> np.ndarray:
        text = f"  {sentence} "
        total = np.zeros(self._dim, dtype=np.float64)
        for i in range(len(text) - 2):
            data = text[i : i + 3].encode("utf-8", "surrogatepass")
            seed = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            total += np.random.default_rng(seed).standard_normal(self._dim)
        total /= max(float(np.sqrt(np.mean(total**2))), 1e-12)
        return total.astype(np.float32)

    def save_pretrained(self, folder: str | Path) -> str:
        """Write dimension and remembered sentences; return the fingerprint."""
        write_json(
            Path(folder) / "config.json",
            {"type": "toy", "format_version": 1, "dim": self._dim, "sentences": list(self._memory)},
        )
        return self.fingerprint

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ToyCodec:
        """Read a saved toy codec.

        Raises:
            CheckpointError: the file is missing or of another kind.
        """
        path = Path(folder) / "config.json"
        data = read_json(path)
        if not isinstance(data, dict) or data.get("type") != "toy":
            raise CheckpointError("not a toy codec", where=path)
        return cls(int(data["dim"]), [str(sentence) for sentence in data["sentences"]])
