"""Documents of one dataset to sequences a model is trained on: affixes, wrapping, source/target pairs, order.

Shape letters: S concepts of a sequence, C concept dimension.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from largeconcept.data.affixes import END_OF_TEXT
from largeconcept.data.plans import END_OF_PARAGRAPH, paragraph_windows
from largeconcept.data.reader import ConceptDataset, ConceptTable
from largeconcept.errors import CheckpointError, DataError
from largeconcept.types import ROLES

if TYPE_CHECKING:
    from torch import Tensor

Vectors = npt.NDArray[np.floating[Any]]
_CONCEPT, _BREAK, _PLAN, _END = (ROLES.index(name) for name in ("concept", "break", "plan", "end"))


@dataclass(frozen=True, slots=True)
class ConceptSequence:
    """One row of a batch before it is padded.

    Attributes:
        pieces: arrays (n, C) that follow each other; views into a row group, and affixes.
        length: S.
        sample_id: depends on source, document and window only.
        source_length: leading concepts that are context only; 0 for unsupervised data.
        sentences: the text of each concept, if text is read.
        lang: of the document, if text is read and it is known.
        roles: of each concept of a planned text, as indices into :data:`~largeconcept.types.ROLES`.
    """

    pieces: tuple[Vectors, ...]
    length: int
    sample_id: int
    source_length: int = 0
    sentences: tuple[str, ...] | None = None
    lang: str | None = None
    roles: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SequenceOptions:
    """How documents become sequences.

    Attributes:
        max_length, min_length: most and least concepts of a sequence.
        end, prompt: (1, C) float32 concepts of the affixes, or ``None`` to go without.
        pairs: make source/target pairs.
        expand: of these, read the target and write the document.
        sentences: read the text too.
        end_text, prompt_text: the affixes as text.
        pause, break_text: (1, C) float32 concept of a break, and its text; ``None`` to go without plans.
    """

    max_length: int
    min_length: int
    end: Vectors | None
    prompt: Vectors | None
    pairs: bool
    expand: bool = False
    sentences: bool = False
    end_text: str = ""
    prompt_text: str = ""
    pause: Vectors | None = None
    break_text: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Concepts that follow each other, with their text if it is read."""

    concepts: Vectors
    text: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.concepts)

    def cut(self, start: int, stop: int) -> _Piece:
        return _Piece(self.concepts[start:stop], None if self.text is None else self.text[start:stop])


@dataclass(slots=True)
class Omissions:
    """What had to be left out of the sequences so far.

    Attributes:
        short_documents: shorter than ``min_length``.
        shortened_pairs: the end of the document (and of the other side, if that alone was too long) was cut off.
        without_target: documents that make no pair as they have no target.
    """

    short_documents: int = 0
    shortened_pairs: int = 0
    without_target: int = 0


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


@dataclass(frozen=True, slots=True)
class PlannedDocument:
    """A whole document as a planning model reads it.

    Attributes:
        concepts: (S, C) float32: plans, paragraphs, breaks, end.
        roles: (S,) int64 indices into :data:`~largeconcept.types.ROLES`.
        sentences: the S sentences.
        lang: FLORES-200 code, or ``None`` when unknown.
    """

    concepts: Tensor
    roles: Tensor
    sentences: tuple[str, ...]
    lang: str | None

    @property
    def scored(self) -> Tensor:
        """(S,) boolean: the sentences of paragraphs, by which models with and without plans can be compared."""
        return self.roles == _CONCEPT


def planned_documents(
    dataset: ConceptDataset, *, break_text: str = END_OF_PARAGRAPH, end_text: str | None = END_OF_TEXT
) -> Iterator[PlannedDocument]:
    """Yield the documents of a dataset with plans, each in one piece, in the dataset's order.

    Raises:
        DataError: the dataset has no plans or no such affixes, or is damaged.
    """
    import torch

    if not dataset.planned:
        raise DataError("the dataset has no plans", where=dataset.folder, hint="build it with plan=first_sentence")
    affixes = dataset.affixes
    end = None if end_text is None else affixes[end_text].numpy()[None]
    options = SequenceOptions(
        sys.maxsize,
        1,
        end,
        None,
        pairs=False,
        sentences=True,
        end_text=end_text or "",
        pause=affixes[break_text].numpy()[None],
        break_text=break_text,
    )
    for sequence in SourceStream(dataset, 0, options, None, Omissions()).once():
        concepts = np.concatenate([piece.astype(np.float32) for piece in sequence.pieces])
        text = sequence.sentences or ()
        yield PlannedDocument(torch.from_numpy(concepts), torch.tensor(sequence.roles), text, sequence.lang)


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
        options = self.options
        return self._make(self.dataset.vectors(group, options.pairs, options.sentences, options.pause is not None))

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
            lang = None if table.languages is None else table.languages[row]
            body = self._piece(table.concepts[ends[row] : ends[row + 1]], table.sentences, row)
            if self.options.pairs and target_ends is not None and table.target_concepts is not None:
                concepts = table.target_concepts[target_ends[row] : target_ends[row + 1]]
                if not len(concepts):
                    self.omissions.without_target += 1
                    continue
                target = self._piece(concepts, table.target_sentences, row)
                made = self._pair(id, target, body, lang) if self.options.expand else self._pair(id, body, target, lang)
            elif table.plan_offsets is not None and table.plan_concepts is not None and table.paragraphs is not None:
                first, last = table.plan_offsets[row : row + 2].tolist()
                plans = self._piece(table.plan_concepts[first:last], table.plans, row)
                made = self._planned(id, body, plans, table.paragraphs[row], lang)
            else:
                made = self._wrapped(id, body, lang)
            if not made:
                self.omissions.short_documents += 1
            result += made
        return result

    def _piece(self, concepts: Vectors, sentences: list[list[str]] | None, row: int) -> _Piece:
        return _Piece(concepts, None if sentences is None else tuple(sentences[row]))

    def _affix(self, concept: Vectors | None, text: str) -> list[_Piece]:
        """Return an affix as a list of one piece, or of none."""
        return [] if concept is None else [_Piece(concept, (text,) if self.options.sentences else None)]

    def _wrapped(self, id: str, body: _Piece, lang: str | None) -> list[ConceptSequence]:
        options = self.options
        count = len(body)
        length = count + (options.end is not None)
        if length < options.min_length or not count:
            return []
        result = []
        for window, (start, stop) in enumerate(windows(length, options.max_length, options.min_length)):
            pieces = [body.cut(start, min(stop, count))]
            if stop > count:
                pieces += self._affix(options.end, options.end_text)
            result.append(self._sequence(pieces, sample_id(self.number, id, window), lang=lang))
        return result

    def _planned(
        self, id: str, body: _Piece, plans: _Piece, starts: Sequence[int], lang: str | None
    ) -> list[ConceptSequence]:
        """Plan, sentences, break, for every paragraph, then the end; windows are cut between paragraphs.

        Raises:
            DataError: a paragraph does not fit into a window.
        """
        options = self.options
        paragraphs: list[list[tuple[_Piece, int]]] = []  # pieces, each with its role
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(body)])):
            plan = plans.cut(number, number + 1)
            if bool((plan.concepts[0] == body.concepts[start]).all()):
                start += 1  # the plan is the first sentence: it is not said twice
            paragraph = [(plan, _PLAN), (body.cut(start, stop), _CONCEPT)]
            paragraphs.append(paragraph + [(piece, _BREAK) for piece in self._affix(options.pause, options.break_text)])
        paragraphs[-1] += [(piece, _END) for piece in self._affix(options.end, options.end_text)]
        sizes = [sum(len(piece) for piece, _ in paragraph) for paragraph in paragraphs]
        if max(sizes) > options.max_length:
            hint = "raise max_length, or build the dataset with a smaller max_paragraph"
            raise DataError(
                "a paragraph with its plan and break is longer than a sequence",
                where=f"{self.dataset.folder}: document {id}",
                got=f"{max(sizes)} concepts",
                expected=f"at most max_length ({options.max_length})",
                hint=hint,
            )
        if sum(sizes) < options.min_length:
            return []
        result = []
        for window, (first, last) in enumerate(paragraph_windows(sizes, options.max_length, options.min_length)):
            pieces = [piece for paragraph in paragraphs[first:last] for piece in paragraph]
            made = self._sequence([piece for piece, _ in pieces], sample_id(self.number, id, window), lang=lang)
            roles = tuple(role for piece, role in pieces for _ in range(len(piece)))
            result.append(replace(made, roles=roles))
        return result

    def _pair(self, id: str, source: _Piece, target: _Piece, lang: str | None) -> list[ConceptSequence]:
        """Source, prompt, target, end; a pair that is too long loses the end of its document, never the prompt.

        The document is the source, or, where a model learns to expand, the target. If the other side alone is too
        long it is cut too: a target to what goes with one concept of its source, a source to half of the sequence.
        """
        options, limit = self.options, self.options.max_length
        prompt, end = self._affix(options.prompt, options.prompt_text), self._affix(options.end, options.end_text)
        if not len(source) or not len(target):
            return []
        around = len(prompt) + len(end)
        if len(source) + len(target) + around > limit:
            self.omissions.shortened_pairs += 1
            most = limit // 2 - len(prompt) if options.expand else limit - len(target) - around
            source = source.cut(0, max(1, most))
            if len(source) + len(target) + around > limit:
                # A target cut off has no end.
                target, end = target.cut(0, limit - len(source) - len(prompt)), []
                if not len(target):
                    return []
        pieces, source_length = [source, *prompt, target, *end], len(source) + len(prompt)
        made = self._sequence(pieces, sample_id(self.number, id, 0), source_length, lang)
        return [made] if made.length >= options.min_length else []

    def _sequence(
        self, pieces: list[_Piece], id: int, source_length: int = 0, lang: str | None = None
    ) -> ConceptSequence:
        text = tuple(s for piece in pieces for s in piece.text or ()) if self.options.sentences else None
        concepts = tuple(piece.concepts for piece in pieces)
        return ConceptSequence(concepts, sum(map(len, concepts)), id, source_length, text, lang)
