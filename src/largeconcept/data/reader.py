"""Concept datasets, read as a stream: one row group in memory at a time, always in the same order.

Shape letters: S concepts of a document, N concepts, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from largeconcept.data.affixes import Affixes, read_affixes
from largeconcept.data.schema import (
    MANIFEST,
    DatasetMetadata,
    check_columns,
    is_planned,
    is_supervised,
    open_shard,
    read_row_group,
    shard_paths,
)
from largeconcept.errors import CheckpointError, DataError, did_you_mean
from largeconcept.io import read_json

if TYPE_CHECKING:
    from torch import Tensor

Offsets = npt.NDArray[np.int64]
Half = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class ConceptDocument:
    """One row of a dataset.

    Attributes:
        id, lang: as built.
        sentences: the S sentences.
        concepts: (S, C) float32.
        paragraph_starts: index of the first sentence of each paragraph.
        target_sentences, target_concepts: of supervised data, else ``None``; empty where this document has no target.
        plans, plan_concepts: one for each paragraph, (P, C) float32, of planned data, else ``None``.
    """

    id: str
    sentences: list[str]
    concepts: Tensor
    lang: str | None = None
    paragraph_starts: tuple[int, ...] = (0,)
    target_sentences: list[str] | None = None
    target_concepts: Tensor | None = None
    plans: list[str] | None = None
    plan_concepts: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ConceptTable:
    """The vectors of one row group, and its text if it was asked for.

    Attributes:
        ids: one for each document.
        offsets: (documents + 1,) where each document begins in ``concepts``.
        concepts: (N, C) float16.
        target_offsets, target_concepts: the same for targets, or ``None``.
        sentences, target_sentences: of each document, one for each concept, or ``None``.
        languages: of each document; ``None`` without text.
        paragraphs: of each document, where its paragraphs begin; ``None`` unless plans were asked for.
        plan_offsets, plan_concepts, plans: like ``offsets``, ``concepts`` and ``sentences``, one for each paragraph.
    """

    ids: list[str]
    offsets: Offsets
    concepts: Half
    target_offsets: Offsets | None = None
    target_concepts: Half | None = None
    sentences: list[list[str]] | None = None
    target_sentences: list[list[str]] | None = None
    languages: list[str | None] | None = None
    paragraphs: list[list[int]] | None = None
    plan_offsets: Offsets | None = None
    plan_concepts: Half | None = None
    plans: list[list[str]] | None = None


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Where a row group lies: shard number, index in the shard, rows."""

    shard: int
    index: int
    rows: int


class ConceptDataset:
    """One split of a concept dataset.

    Args:
        path: the dataset folder.
        split: name of the split.
        fingerprint: refuse another concept space than this.
        dim: refuse another number of channels than this.

    Raises:
        DataError: no such dataset or split, a build that is not finished, a shard that is missing, truncated, of
            another schema, dimension or concept space.
    """

    def __init__(
        self, path: str | Path, split: str = "train", *, fingerprint: str | None = None, dim: int | None = None
    ) -> None:
        self.path, self.split = Path(path), split
        self.folder = self.path / split
        self.shards = _shards(self.path, split)
        self.row_groups: list[RowGroup] = []
        self._num_concepts = self._rows = 0
        self._has_lang: list[bool] = []  # of each shard: the column is optional
        metadata: DatasetMetadata | None = None
        for number, shard in enumerate(self.shards):
            with open_shard(shard) as file:
                schema = file.schema_arrow
                found = DatasetMetadata.from_arrow(schema.metadata, shard)
                if metadata is None:
                    metadata, self.supervised, self.planned = found, is_supervised(schema), is_planned(schema)
                    check_space(found, shard, fingerprint, dim)
                elif found != metadata:
                    problem = "the file metadata differs from that of the first shard"
                    raise DataError(problem, where=shard, expected=metadata, got=found, hint="build the split again")
                check_columns(schema, found.dim, shard)
                self._has_lang.append("lang" in schema.names)
                if is_supervised(schema) != self.supervised:
                    raise DataError("some shards have targets and some have none", where=shard)
                if is_planned(schema) != self.planned or self.planned != (found.plan is not None):
                    problem = "some shards have plans and some have none, or the file metadata tells otherwise"
                    raise DataError(problem, where=shard, hint="build the split again")
                footer = file.metadata
                self._rows += footer.num_rows
                groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
                self.row_groups += [RowGroup(number, i, g.num_rows) for i, g in enumerate(groups) if g.num_rows]
                leaf = next(
                    i for i in range(footer.num_columns) if footer.schema.column(i).path.startswith("concepts.")
                )
                self._num_concepts += sum(group.column(leaf).num_values for group in groups) // found.dim
        assert metadata is not None  # there is at least one shard
        self.metadata: DatasetMetadata = metadata

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        return self.metadata.dim

    @property
    def paired(self) -> bool:
        """Whether every document has a target; a ``supervised`` dataset may also hold documents without."""
        return self.supervised and not self.metadata.partial_targets

    @property
    def num_concepts(self) -> int:
        """N, the number of concepts of all documents (targets not counted)."""
        return self._num_concepts

    @cached_property
    def affixes(self) -> Affixes:
        """The affix concepts of the dataset.

        Raises:
            DataError: there are none, or they are of another concept space.
        """
        affixes = read_affixes(self.path)
        if affixes.codec_fingerprint != self.metadata.codec_fingerprint:
            raise DataError(
                "the affixes are of another concept space",
                where=affixes.where,
                expected=self.metadata.codec_fingerprint,
                got=affixes.codec_fingerprint,
                hint="build the dataset again",
            )
        return affixes

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[ConceptDocument]:
        """Yield all documents in order."""
        for group in range(len(self.row_groups)):
            yield from self.documents(group)

    def documents(self, group: int) -> Iterator[ConceptDocument]:
        """Yield the documents of one row group.

        Raises:
            DataError: the data is damaged.
        """
        import torch

        table = self.table(group)
        parts = self._vectors(table, group)
        columns: dict[str, list[Any]] = {
            name: table.column(name).to_pylist()
            for name in ("sentences", "lang", "paragraph_starts", "target_sentences", "plans")
            if name in table.column_names
        }
        planned: list[Tensor] | None = None
        if self.planned:
            ends, every = self._flat(table, "plan_concepts", group)
            planned = list(torch.split(torch.from_numpy(every.astype(np.float32)), np.diff(ends).tolist()))
        for row, id in enumerate(parts.ids):
            values = {name: column[row] for name, column in columns.items()}
            start, end = int(parts.offsets[row]), int(parts.offsets[row + 1])
            target: Tensor | None = None
            if parts.target_offsets is not None and parts.target_concepts is not None:
                first, last = int(parts.target_offsets[row]), int(parts.target_offsets[row + 1])
                target = torch.from_numpy(parts.target_concepts[first:last].astype(np.float32))
            sentences = values["sentences"]
            if sentences is None or len(sentences) != end - start:
                got = f"{0 if sentences is None else len(sentences)} sentences, {end - start} concepts"
                raise DataError("sentences and concepts differ in number", where=self.where(group, row), got=got)
            yield ConceptDocument(
                id=id,
                sentences=sentences,
                concepts=torch.from_numpy(parts.concepts[start:end].astype(np.float32)),
                lang=values.get("lang"),
                paragraph_starts=tuple(values.get("paragraph_starts") or (0,)),
                target_sentences=values.get("target_sentences"),
                target_concepts=target,
                plans=values.get("plans"),
                plan_concepts=None if planned is None else planned[row],
            )

    def vectors(self, group: int, targets: bool = True, sentences: bool = False, plans: bool = False) -> ConceptTable:
        """Read ids and vectors of one row group; its text only with ``sentences``, its plans only with ``plans``.

        Raises:
            DataError: the data is damaged or holds a null.
        """
        targets = targets and self.supervised
        columns = ["id", "concepts", *(["target_concepts"] if targets else [])]
        if plans and self.planned:
            columns += ["paragraph_starts", "plan_concepts", *(["plans"] if sentences else [])]
        if not sentences:
            table = self.table(group, columns)
            return self._with_plans(self._vectors(table, group), table, group)
        has_lang = self._has_lang[self.row_groups[group].shard]
        columns += ["sentences", *(["target_sentences"] if targets else []), *(["lang"] if has_lang else [])]
        table = self.table(group, columns)
        vectors = self._with_plans(self._vectors(table, group), table, group)
        return replace(
            vectors,
            sentences=self._text(table, "sentences", vectors.offsets, group),
            target_sentences=None
            if vectors.target_offsets is None
            else self._text(table, "target_sentences", vectors.target_offsets, group),
            languages=table.column("lang").to_pylist() if has_lang else [None] * len(vectors.ids),
        )

    def where(self, group: int, row: int) -> str:
        """Name the shard and the row (from 0, in the shard) of a document."""
        place = self.row_groups[group]
        before = sum(g.rows for g in self.row_groups[:group] if g.shard == place.shard)
        return f"{self.shards[place.shard]}: row {before + row}"

    def table(self, group: int, columns: list[str] | None = None) -> pa.Table:
        """Read one row group as an Arrow table, all columns or some.

        Raises:
            DataError: the data is damaged.
        """
        place = self.row_groups[group]
        shard = self.shards[place.shard]
        with open_shard(shard) as file:
            return read_row_group(file, place.index, columns, f"{shard}: row group {place.index}")

    def _vectors(self, table: pa.Table, group: int) -> ConceptTable:
        ids = table.column("id").to_pylist()
        if None in ids:
            raise DataError("the id is null", where=self.where(group, ids.index(None)))
        offsets, concepts = self._flat(table, "concepts", group)
        if "target_concepts" not in table.column_names:
            return ConceptTable(ids, offsets, concepts)
        return ConceptTable(ids, offsets, concepts, *self._flat(table, "target_concepts", group))

    def _with_plans(self, vectors: ConceptTable, table: pa.Table, group: int) -> ConceptTable:
        """Add paragraphs and plans, if their columns were read; there must be as many of one as of the other."""
        if "plan_concepts" not in table.column_names:
            return vectors
        paragraphs = table.column("paragraph_starts").to_pylist()
        offsets, concepts = self._flat(table, "plan_concepts", group)
        sizes, counts = np.diff(vectors.offsets).tolist(), np.diff(offsets).tolist()
        for row, (starts, size, count) in enumerate(zip(paragraphs, sizes, counts, strict=True)):
            edges = [*(starts or ()), size]
            if edges[0] != 0 or len(edges) != count + 1 or any(a >= b for a, b in pairwise(edges)):
                got = f"paragraph_starts {starts}, {count} plans, {size} concepts"
                hint = "inspect the dataset: it names the row"
                raise DataError("paragraphs and plans do not fit", where=self.where(group, row), got=got, hint=hint)
        plans = self._text(table, "plans", offsets, group) if "plans" in table.column_names else None
        return replace(vectors, paragraphs=paragraphs, plan_offsets=offsets, plan_concepts=concepts, plans=plans)

    def _text(self, table: pa.Table, name: str, offsets: Offsets, group: int) -> list[list[str]]:
        """Return the sentences of each document; there must be as many as concepts."""
        documents: list[Any] = table.column(name).to_pylist()
        for row, (text, size) in enumerate(zip(documents, np.diff(offsets).tolist(), strict=True)):
            if text is None or len(text) != size or None in text:
                got = f"{0 if text is None else len(text)} sentences, {size} concepts"
                hint = "inspect the dataset: it names the row"
                raise DataError("sentences and concepts differ", where=self.where(group, row), got=got, hint=hint)
        return documents

    def _flat(self, table: pa.Table, name: str, group: int) -> tuple[Offsets, Half]:
        array = combined(table.column(name))
        if array.null_count or array.flatten().null_count or array.flatten().flatten().null_count:
            problem = f"column {name} holds a null"
            raise DataError(problem, where=self.where(group, 0), hint="inspect the dataset: it names the row")
        return flat_concepts(array, self.dim)


def combined(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def flat_concepts(array: pa.Array, dim: int) -> tuple[Offsets, Half]:
    """Return offsets (documents + 1,), starting at 0, and the (N, C) float16 vectors of a list column without nulls."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.flatten().flatten().to_numpy(zero_copy_only=False)
    return offsets - offsets[0], values.reshape(-1, dim)


def check_space(metadata: DatasetMetadata, where: object, fingerprint: str | None, dim: int | None) -> None:
    """Check that a dataset is in the concept space that is asked for.

    Raises:
        DataError: another dimension or fingerprint; the message holds both.
    """
    if dim is not None and metadata.dim != dim:
        problem = "the dataset has concepts of another dimension"
        raise DataError(problem, where=where, expected=dim, got=metadata.dim, hint="build it with the model's codec")
    if fingerprint is not None and metadata.codec_fingerprint != fingerprint:
        raise DataError(
            "the dataset is of another concept space",
            where=where,
            expected=f"codec fingerprint {fingerprint}",
            got=f"{metadata.codec_fingerprint} ({metadata.codec_id})",
            hint="build it with the model's codec",
        )


def splits(path: str | Path) -> list[str]:
    """Return the names of the splits of a dataset."""
    folder = Path(path)
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and shard_paths(p)) if folder.is_dir() else []


def _shards(path: Path, split: str) -> list[Path]:
    """Return the shards of a split; what its manifest promises must be there."""
    folder = path / split
    if not path.is_dir():
        problem = "is a file, not a dataset folder" if path.exists() else "no such dataset"
        raise DataError(problem, where=path, hint="build it first")
    manifest: Any = None
    if (folder / MANIFEST).exists():
        try:
            manifest = read_json(folder / MANIFEST)
        except CheckpointError as error:
            raise DataError(error.problem, where=folder / MANIFEST, got=error.got, hint="build it again") from None
    if isinstance(manifest, dict) and manifest.get("status") == "building":
        raise DataError("the build is not finished", where=folder, hint="run it again: it goes on where it stopped")
    found = shard_paths(folder) if folder.is_dir() else []
    if not found:
        raise DataError("the dataset has no such split", where=path, got=split, hint=did_you_mean(split, splits(path)))
    if isinstance(manifest, dict) and isinstance(manifest.get("shards"), list):
        names = [str(shard.get("name")) for shard in manifest["shards"] if isinstance(shard, dict)]
        for shard in found:
            if shard.name not in names:
                raise DataError("the shard is not of this build", where=shard, expected=f"{len(names)} shards")
        for name in names:
            if folder / name not in found:
                raise DataError("the shard is missing", where=folder / name, hint="run the build again")
    return found
