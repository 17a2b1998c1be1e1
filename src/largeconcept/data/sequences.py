"""Documents of one dataset to sequences a model is trained on: affixes, wrapping, source/target pairs, order.

Shape letters: S concepts of a sequence, C concept dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from largeconcept.data.reader import ConceptDataset, ConceptTable
from largeconcept.errors import CheckpointError, DataError

Vectors = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class ConceptSequence:
    """One row of a batch before it is padded.

    Attributes:
        pieces: arrays (n, C) that follow each other; views into a row group, and affixes.
        length: S.
        sample_id: depends on source, document and window only.
        source_length: leading concepts that are context only; 0 for unsupervised data.
    """

    pieces: tuple[Vectors, ...]
    length: int
    sample_id: int
    source_length: int = 0


@dataclass(frozen=True, slots=True)
class SequenceOptions:
    """How documents become sequences; ``end`` and ``prompt`` are (1, C) float32, or ``None`` to go without."""

    max_length: int
    min_length: int
    end: Vectors | None
    prompt: Vectors | None
    pairs: bool


@dataclass(slots=True)
class Omissions:
    """What had to be left out of the sequences so far.

    Attributes:
        short_documents: shorter than ``min_length``.
        shortened_pairs: the end of the source (and of the target, if that alone was too long) was cut off.
    """

    short_documents: int = 0
    shortened_pairs: int = 0


def windows(length: int, max_length: int, min_length: int) -> list[tuple[int, int]]:
    """Cut a document into windows of at most ``max_length`` that follow each other.

    A rest shorter than ``min_length`` is lengthened at the cost of the window before it, so nothing is lost.
    """
    starts = list(range(0, length, max_length))
    rest = length - starts[-1] if starts else 0
    if len(starts) > 1 and rest < min_length:
        starts[-1] -= min_length - rest
    return list(zip(starts, [*starts[1:], length]))


def sample_id(source: int, document: str, window: int) -> int:
    """Return a stable id in [0, 2**63) for a window of a document."""
    data = f"{source}\0{window}\0{document}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


class SourceStream:
    """An endless stream of the sequences of one dataset; each epoch has its own order of row groups.

    The position is (``epoch``, ``group``: how many row groups of the epoch are used up, ``sequence`` in the next one).
    """

    def __init__(
        self, dataset: ConceptDataset, number: int, options: SequenceOptions, seed: int | None, omissions: Omissions
    ) -> None:
        self.dataset, self.number, self.options, self.seed = dataset, number, options, seed
        self.omissions = omissions
        self.epoch = self.group = self.sequence = 0
        self._order: tuple[int, list[int]] = (-1, [])
        self._sequences: list[ConceptSequence] | None = None

    def state(self) -> dict[str, int]:
        """Return the position."""
        return {"epoch": self.epoch, "group": self.group, "sequence": self.sequence}

    def load(self, state: dict[str, Any]) -> None:
        """Go to a position.

        Raises:
            CheckpointError: it is not one of this dataset.
        """
        values = [state.get(name) for name in ("epoch", "group", "sequence")]
        if not all(type(v) is int and v >= 0 for v in values) or state["group"] >= max(len(self.dataset.row_groups), 1):
            raise CheckpointError("not a position in the dataset", where=self.dataset.folder, got=state)
        self.epoch, self.group, self.sequence = state["epoch"], state["group"], state["sequence"]
        self._sequences = None

    def next(self) -> ConceptSequence:
        """Return the next sequence.

        Raises:
            DataError: the dataset gives none at all, or is damaged.
        """
        for _ in range(len(self.dataset.row_groups) + 1):
            if self._sequences is None:
                self._sequences = self._read(self._groups()[self.group]) if self._groups() else []
            if self.sequence < len(self._sequences):
                result = self._sequences[self.sequence]
                self.sequence += 1
                if self.sequence == len(self._sequences):
                    self._advance()
                return result
            self._advance()
        raise self._barren()

    def once(self) -> Iterator[ConceptSequence]:
        """Yield the sequences of the whole dataset in its own order; the position is left alone.

        Raises:
            DataError: the dataset gives none at all, or is damaged.
        """
        empty = True
        for group in range(len(self.dataset.row_groups)):
            for sequence in self._read(group):
                empty = False
                yield sequence
        if empty:
            raise self._barren()

    def _barren(self) -> DataError:
        expected = f"documents of at least {self.options.min_length} concepts"
        return DataError("the dataset gives no sequence", where=self.dataset.folder, expected=expected)

    def _read(self, group: int) -> list[ConceptSequence]:
        return self._make(self.dataset.vectors(group, self.options.pairs))

    def _advance(self) -> None:
        self._sequences = None
        self.sequence = 0
        self.group += 1
        if self.group >= len(self.dataset.row_groups):
            self.group = 0
            self.epoch += 1

    def _groups(self) -> list[int]:
        """Return the order of the row groups in this epoch."""
        if self._order[0] != self.epoch:
            count = len(self.dataset.row_groups)
            order = list(range(count))
            if self.seed is not None:
                generator = np.random.Generator(np.random.PCG64([self.seed, 1, self.number, self.epoch]))
                order = generator.permutation(count).tolist()
            self._order = (self.epoch, order)
        return self._order[1]

    def _make(self, table: ConceptTable) -> list[ConceptSequence]:
        result: list[ConceptSequence] = []
        ends = table.offsets.tolist()
        target_ends = table.target_offsets.tolist() if table.target_offsets is not None else None
        for row, id in enumerate(table.ids):
            body = table.concepts[ends[row] : ends[row + 1]]
            if self.options.pairs and target_ends is not None and table.target_concepts is not None:
                made = self._pair(id, body, table.target_concepts[target_ends[row] : target_ends[row + 1]])
            else:
                made = self._wrapped(id, body)
            if not made:
                self.omissions.short_documents += 1
            result += made
        return result

    def _wrapped(self, id: str, body: Vectors) -> list[ConceptSequence]:
        options = self.options
        count = len(body)
        length = count + (options.end is not None)
        if length < options.min_length or not count:
            return []
        result = []
        for window, (start, stop) in enumerate(windows(length, options.max_length, options.min_length)):
            pieces: tuple[Vectors, ...] = (body[start : min(stop, count)],)
            if stop > count and options.end is not None:
                pieces = (*pieces, options.end)
            result.append(ConceptSequence(pieces, stop - start, sample_id(self.number, id, window)))
        return result

    def _pair(self, id: str, source: Vectors, target: Vectors) -> list[ConceptSequence]:
        """Source, prompt, target, end; a pair that is too long loses the end of its source, never the prompt."""
        prompt, end, limit = self.options.prompt, self.options.end, self.options.max_length
        if not len(source) or not len(target):
            return []
        around = (prompt is not None) + (end is not None)
        if len(source) + len(target) + around > limit:
            self.omissions.shortened_pairs += 1
            source = source[: max(1, limit - len(target) - around)]
            if len(source) + len(target) + around > limit:
                target, end = target[: limit - 1 - (prompt is not None)], None  # a target cut off has no end
        pieces = (source, *(() if prompt is None else (prompt,)), target, *(() if end is None else (end,)))
        length = sum(map(len, pieces))
        if length < self.options.min_length:
            return []
        source_length = len(source) + (prompt is not None)
        return [ConceptSequence(pieces, length, sample_id(self.number, id, 0), source_length)]
