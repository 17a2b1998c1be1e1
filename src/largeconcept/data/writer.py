"""Shards of a concept dataset: rows in memory to one Parquet file, written whole or not at all.

Shape letters: S concepts of a document, N concepts, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from largeconcept.data.schema import DatasetMetadata, arrow_schema
from largeconcept.errors import DataError
from largeconcept.io import atomic_path

ROW_GROUP_DOCUMENTS = 512
ROW_GROUP_CONCEPTS = 4096
Half = npt.NDArray[np.float16]


@dataclass(slots=True)
class Row:
    """One document on its way into a shard; ``concepts`` are (S, C) float16, filled after encoding."""

    id: str
    sentences: Sequence[str]
    lang: str | None
    paragraph_starts: Sequence[int]
    target_sentences: Sequence[str] | None = None
    where: str = ""
    plans: Sequence[str] | None = None
    concepts: Half | None = None
    target_concepts: Half | None = None
    plan_concepts: Half | None = None

    @property
    def num_sentences(self) -> int:
        """Sentences to encode, targets and plans included."""
        return len(self.sentences) + len(self.target_sentences or ()) + len(self.plans or ())


def write_shard(
    path: Path, rows: Sequence[Row], metadata: DatasetMetadata, supervised: bool, extra: Mapping[str, str] | None = None
) -> None:
    """Write a shard atomically. The same rows and metadata always give the same bytes.

    A row group holds at most 512 documents and, unless one document alone is longer, 4,096 concepts: that is what a
    reader holds in memory.

    Raises:
        DataError: the file cannot be written.
    """
    schema = arrow_schema(metadata.dim, supervised, metadata.to_arrow(extra), planned=metadata.plan is not None)
    try:
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(
                temporary,
                schema,
                compression="zstd",
                use_dictionary=["lang"],  # everything else is nearly unique
                write_statistics=False,
            ) as writer,
        ):
            for chunk in _groups(rows):
                writer.write_table(_table(chunk, schema, metadata.dim))
    except OSError as error:
        raise DataError("cannot write the shard", where=path, got=error.strerror or error) from None


def _groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start, concepts = 0, 0
    for index, row in enumerate(rows):
        full = index - start >= ROW_GROUP_DOCUMENTS or concepts + row.num_sentences > ROW_GROUP_CONCEPTS
        if full and index > start:
            yield rows[start:index]
            start, concepts = index, 0
        concepts += row.num_sentences
    if start < len(rows):
        yield rows[start:]


def _table(rows: Sequence[Row], schema: pa.Schema, dim: int) -> pa.Table:
    columns = {
        "id": pa.array([row.id for row in rows], pa.string()),
        "sentences": pa.array([list(row.sentences) for row in rows], pa.list_(pa.string())),
        "concepts": concept_array([_given(row.concepts) for row in rows], dim),
        "lang": pa.array([row.lang for row in rows], pa.string()),
        "paragraph_starts": pa.array([list(row.paragraph_starts) for row in rows], pa.list_(pa.int32())),
    }
    if "target_concepts" in schema.names:
        targets = [list(row.target_sentences or ()) for row in rows]
        columns["target_sentences"] = pa.array(targets, pa.list_(pa.string()))
        columns["target_concepts"] = concept_array([_given(row.target_concepts) for row in rows], dim)
    if "plan_concepts" in schema.names:
        columns["plans"] = pa.array([list(row.plans or ()) for row in rows], pa.list_(pa.string()))
        columns["plan_concepts"] = concept_array([_given(row.plan_concepts) for row in rows], dim)
    return pa.Table.from_arrays([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def _given(concepts: Half | None) -> Half:
    if concepts is None:
        raise ValueError("a row without concepts")  # a mistake of the caller, not of a user
    return concepts


def concept_array(documents: Sequence[Half], dim: int) -> pa.ListArray:
    """Return a list<fixed_size_list<float16, C>> array from one (S, C) array a document."""
    offsets = np.zeros(len(documents) + 1, dtype=np.int32)
    np.cumsum([len(document) for document in documents], out=offsets[1:])
    flat = np.concatenate(documents) if documents else np.zeros((0, dim), np.float16)
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), pa.float16()), dim)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
