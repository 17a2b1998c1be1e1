"""The simplest decoder: the nearest sentence of a bank.

It works for any encoder, needs no training and writes nothing that nobody wrote; what the bank does not say it cannot
say. Nearness is the cosine: exact up to :data:`EXACT` sentences of a language, with FAISS (Johnson et al.,
arXiv:1702.08734) up to :data:`FLAT`, above that by an inverted file, which may miss the nearest.

Shape letters: N concepts, C concept dimension, R sentences of a bank, K neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.codec.rows import check_concepts
from largeconcept.codec.tokenizer import clean
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError, did_you_mean, missing_extra
from largeconcept.io import (
    atomic_write_text,
    check_format_version,
    fingerprint,
    read_json,
    read_safetensors,
    require_folder,
    write_json,
    write_safetensors,
)
from largeconcept.languages import flores

FORMAT_VERSION = 1
EXACT = 200_000
"""Most sentences of a language that are compared one by one where FAISS is not installed."""
FLAT = 500_000
"""Most sentences of a language for which FAISS compares with all of them."""
_ROWS = 1024


class Found(NamedTuple):
    """A sentence of the bank, and its cosine to what was asked for."""

    text: str
    score: float


class RetrievalDecoder:
    """Answers with sentences of a bank.

    Args:
        sentences: of each language, without repetition.
        vectors: of each language, (R, C) float16 of length one.
    """

    def __init__(self, sentences: Mapping[str, Sequence[str]], vectors: Mapping[str, Tensor]) -> None:
        if not sentences or sentences.keys() != vectors.keys():
            raise DataError("no sentences, or no vectors for them", where="bank", got=", ".join(sentences) or "nothing")
        for lang, texts in sentences.items():
            if not texts or vectors[lang].ndim != 2 or len(texts) != len(vectors[lang]):
                got = f"{len(texts)} sentences, vectors {tuple(vectors[lang].shape)}"
                raise DataError("not one vector for each sentence", where=f"bank, {lang}", got=got)
        widths = {table.shape[1] for table in vectors.values()}
        if len(widths) > 1:
            raise DataError("vectors of different widths", where="bank", got=sorted(widths))
        self._sentences = {lang: list(texts) for lang, texts in sentences.items()}
        self._vectors = dict(vectors)
        self._indices: dict[str, Any] = {}
        self._fingerprint: str | None = None

    @classmethod
    def build(
        cls,
        sentences: Mapping[str, Sequence[str]],
        vectors: Mapping[str, Tensor] | None = None,
        encode: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> RetrievalDecoder:
        """Make a bank; equal sentences of a language are kept once.

        Args:
            sentences: of each language; FLORES-200 or BCP-47.
            vectors: (R, C) concepts of each language's sentences, where they are known already.
            encode: makes them otherwise.

        Raises:
            DataError: no sentence, an empty one, or another number of vectors.
            ConfigError: neither vectors nor an encoder.
            LanguageError: an unknown language.
        """
        texts: dict[str, list[str]] = {}
        kept: dict[str, Tensor] = {}
        for lang, given in sentences.items():
            first: dict[str, int] = {}
            for i, sentence in enumerate(given):
                text = clean(sentence) if isinstance(sentence, str) else ""
                if not text:
                    raise DataError("not a sentence", where=f"bank, {lang}, sentence {i}", got=repr(sentence))
                first.setdefault(text, i)
            if not first:
                continue
            if vectors is not None:
                rows = vectors[lang] if lang in vectors else torch.zeros(0, 0)
                if rows.ndim != 2 or len(rows) != len(given):
                    got = f"{len(given)} sentences, vectors {tuple(rows.shape)}"
                    raise DataError("not one vector for each sentence", where=f"bank, {lang}", got=got)
                rows = rows[torch.tensor(list(first.values()))]
            elif encode is not None:
                rows = encode(list(first))
            else:
                raise ConfigError("vectors or an encoder are needed", where="bank")
            code = flores(lang)
            if code in texts:
                raise DataError("a language is given twice", where="bank", got=f"{lang} is {code}")
            texts[code] = list(first)
            kept[code] = F.normalize(rows.detach().float().cpu(), dim=1).half()
        return cls(texts, kept)

    @property
    def dim(self) -> int:
        """C, the number of channels."""
        return next(iter(self._vectors.values())).shape[1]

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes of the bank's sentences."""
        return tuple(self._sentences)

    @property
    def sizes(self) -> dict[str, int]:
        """R, sentences of each language."""
        return {lang: len(texts) for lang, texts in self._sentences.items()}

    @property
    def fingerprint(self) -> str:
        """Hash of vectors and sentences."""
        if self._fingerprint is None:
            texts = hashlib.sha256()
            for lang in sorted(self._sentences):
                texts.update("\n".join([lang, *self._sentences[lang], ""]).encode())
            self._fingerprint = fingerprint(self._vectors, texts.digest())
        return self._fingerprint

    # ------------------------------------------------------------------ search

    def search(self, concepts: Tensor, lang: str | Sequence[str], k: int = 5) -> list[list[Found]]:
        """Return the nearest sentences of each of (N, C) concepts, best first, in the language of each row.

        Fewer than ``k`` are returned where the bank has fewer.

        Raises:
            DataError: a wrong shape, or a value that is not finite.
            LanguageError: the bank has no sentence in a language, or there is not one language for each row.
            ConfigError: ``k`` below one.
            DependencyError: a large bank, and FAISS is not installed.
        """
        check_concepts(concepts, self.dim)
        if k < 1:
            raise ConfigError("out of range", where="k", got=k, expected="≥ 1")
        codes = self._codes(lang, len(concepts))
        unit = F.normalize(concepts.detach().float().cpu(), dim=1)
        found: list[list[Found]] = [[] for _ in codes]
        for code in dict.fromkeys(codes):
            rows = [i for i, one in enumerate(codes) if one == code]
            scores, places = self._nearest(code, unit[torch.tensor(rows)], min(k, len(self._sentences[code])))
            texts = self._sentences[code]
            for i, score, place in zip(rows, scores.tolist(), places.tolist(), strict=True):
                found[i] = [Found(texts[p], s) for p, s in zip(place, score, strict=True) if p >= 0]
        return found

    def decode(self, concepts: Tensor, lang: str | Sequence[str]) -> list[str]:
        """Return the nearest sentence of each of (N, C) concepts; raises as :meth:`search`."""
        return [one[0].text for one in self.search(concepts, lang, 1)]

    def _codes(self, lang: str | Sequence[str], rows: int) -> list[str]:
        codes = [flores(lang)] * rows if isinstance(lang, str) else [flores(one) for one in lang]
        if len(codes) != rows:
            raise LanguageError("one language per row is needed", where="lang", expected=rows, got=len(codes))
        for code in codes if codes or not isinstance(lang, str) else [flores(lang)]:
            if code not in self._sentences:
                hint = did_you_mean(code, self.languages)
                raise LanguageError("the bank has no sentence in the language", got=code, hint=hint)
        return codes

    def _nearest(self, lang: str, unit_NC: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Cosines and places, (N, K) each; a place is −1 where an index found fewer."""
        table = self._vectors[lang]
        index = self._index(lang)
        if index is not None:
            scores, places = index.search(unit_NC.numpy(), k)
            return torch.from_numpy(scores), torch.from_numpy(places)
        scores_: list[Tensor] = []
        places_: list[Tensor] = []
        for start in range(0, len(unit_NC), _ROWS):
            best = _best(unit_NC[start : start + _ROWS], table, k)
            scores_.append(best[0])
            places_.append(best[1])
        return torch.cat(scores_), torch.cat(places_)

    def _index(self, lang: str) -> Any:
        """The index of a language, made when it is first needed; ``None`` where all sentences are compared here."""
        if lang in self._indices:
            return self._indices[lang]
        table = self._vectors[lang]
        try:
            import faiss
        except ImportError:
            if len(table) > EXACT:
                raise missing_extra("faiss-cpu", "faiss") from None
            self._indices[lang] = None
            return None
        rows = table.float().numpy()
        index: Any
        if len(rows) <= FLAT:
            index = faiss.IndexFlatIP(self.dim)
        else:
            cells = int(4 * len(rows) ** 0.5)
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(self.dim), self.dim, cells, faiss.METRIC_INNER_PRODUCT)
            index.nprobe = max(16, cells // 16)
            index.train(rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: 40 * cells]])
        index.add(rows)
        self._indices[lang] = index
        return index

    # ------------------------------------------------------------------ files

    def save_pretrained(self, folder: str | Path) -> str:
        """Write ``config.json``, ``vectors.safetensors`` and a text file for each language; return the fingerprint."""
        folder = Path(folder)
        write_safetensors(folder / "vectors.safetensors", self._vectors)
        for lang, texts in self._sentences.items():
            atomic_write_text(folder / f"{lang}.txt", "".join(f"{text}\n" for text in texts))
        record = {"type": "retrieval", "format_version": FORMAT_VERSION, "dim": self.dim, "sentences": self.sizes}
        write_json(folder / "config.json", {**record, "fingerprint": self.fingerprint})
        return self.fingerprint

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> RetrievalDecoder:
        """Read a saved bank.

        Raises:
            CheckpointError: a file is missing, damaged or does not belong to the others.
        """
        folder = require_folder(folder, "bank")
        data = read_json(folder / "config.json")
        if not isinstance(data, dict) or data.get("type") != "retrieval" or not isinstance(data.get("sentences"), dict):
            raise CheckpointError("not a bank of sentences", where=folder / "config.json")
        check_format_version(data.get("format_version", 0), FORMAT_VERSION, folder / "config.json")
        sentences: dict[str, list[str]] = {}
        for lang in data["sentences"]:
            path = folder / f"{flores(lang)}.txt"
            try:
                sentences[lang] = path.read_text(encoding="utf-8").split("\n")[:-1]
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError("cannot read the bank's sentences", where=path, got=error) from None
        try:
            bank = cls(sentences, read_safetensors(folder / "vectors.safetensors"))
        except DataError as error:
            raise CheckpointError(error.problem, where=folder, got=error.got) from None
        if bank.fingerprint != data.get("fingerprint"):
            raise CheckpointError(
                "sentences or vectors do not match the bank's fingerprint",
                where=folder,
                expected=data.get("fingerprint"),
                got=bank.fingerprint,
                hint="a file was changed or replaced; copy the folder again",
            )
        return bank


def _best(unit_NC: Tensor, table_RC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The K largest products with the rows of a table, (N, K) each, part by part of the table."""
    scores = torch.empty(len(unit_NC), 0)
    places = torch.empty(len(unit_NC), 0, dtype=torch.long)
    for start in range(0, len(table_RC), 16 * _ROWS):
        part = unit_NC @ table_RC[start : start + 16 * _ROWS].float().T
        values, rows = part.topk(min(k, part.shape[1]), dim=1)
        scores, places = torch.cat([scores, values], dim=1), torch.cat([places, rows + start], dim=1)
        order = scores.topk(min(k, scores.shape[1]), dim=1)
        scores, places = order.values, places.gather(1, order.indices)
    return scores, places
