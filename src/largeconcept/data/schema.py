"""Schema 1 of a concept dataset: what a folder of Parquet shards promises.

``DATASET/affixes.safetensors`` and, for each split, ``DATASET/SPLIT/build.json`` beside ``shard-00000.parquet``, …
One row is one document:

=====================  ==============================================  =====================================
column                 type                                            promise
=====================  ==============================================  =====================================
``id``                 string                                          not null, unique in the split
``sentences``          list<string>                                    at least one, none null or blank
``concepts``           list<fixed_size_list<float16, C>>               one for each sentence, finite
``lang``               string (optional column)                        FLORES-200 code or null
``paragraph_starts``   list<int32> (optional column)                   rising from 0, below len(sentences)
``target_sentences``   list<string> (with target_concepts)             like ``sentences``; may be empty, see below
``target_concepts``    list<fixed_size_list<float16, C>>               like ``concepts``
``plans``              list<string> (with plan_concepts)               one for each paragraph, none null or blank
``plan_concepts``      list<fixed_size_list<float16, C>>               one for each of ``plans``, finite
=====================  ==============================================  =====================================

The file metadata of every shard holds ``largeconcept.schema_version``, ``.codec_id``, ``.codec_fingerprint``, ``.dim``
and ``.segmenter`` (JSON, or ``null`` when the input came as sentences); with plans also ``.plan`` (JSON: their kind,
and the most sentences that a paragraph has). Where documents without a target stand among others it has
``.partial_targets``: their lists of target sentences are empty.

Shape letters: N concepts, C concept dimension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from largeconcept.errors import DataError

SCHEMA_VERSION = 1
PREFIX = "largeconcept."
MANIFEST = "build.json"


@dataclass(frozen=True, slots=True)
class DatasetMetadata:
    """What the file metadata of a shard says.

    Attributes:
        codec_id: name of the codec, for people.
        codec_fingerprint: identifies the concept space; equal fingerprints mean the same space.
        dim: C.
        segmenter: the segmenter's own description, or ``None`` when the input came as sentences.
        plan: ``kind`` of the plans and ``max_paragraph``, the most sentences of a paragraph; ``None`` without plans.
        partial_targets: documents without a target, whose target is empty, may stand among others.
        schema_version: of the format.
    """

    codec_id: str
    codec_fingerprint: str
    dim: int
    segmenter: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    partial_targets: bool = False
    schema_version: int = SCHEMA_VERSION

    def to_arrow(self, extra: Mapping[str, str] | None = None) -> dict[bytes, bytes]:
        """Return the key-value pairs of a Parquet file."""
        values = {
            "schema_version": str(self.schema_version),
            "codec_id": self.codec_id,
            "codec_fingerprint": self.codec_fingerprint,
            "dim": str(self.dim),
            "segmenter": json.dumps(self.segmenter, sort_keys=True),
            **({} if self.plan is None else {"plan": json.dumps(self.plan, sort_keys=True)}),
            **({"partial_targets": "true"} if self.partial_targets else {}),
            **(extra or {}),
        }
        return {(PREFIX + name).encode(): value.encode() for name, value in values.items()}

    @classmethod
    def from_arrow(cls, metadata: Mapping[bytes, bytes] | None, where: object) -> DatasetMetadata:
        """Read the pairs that :meth:`to_arrow` wrote.

        Raises:
            DataError: a key is missing or not readable, or the schema version is another one.
        """
        values: dict[str, str] = {}
        for name in ("schema_version", "codec_id", "codec_fingerprint", "dim", "segmenter"):
            raw = (metadata or {}).get((PREFIX + name).encode())
            if raw is None:
                raise DataError(
                    f"the file metadata has no {PREFIX}{name}", where=where, hint="not a concept dataset? build one"
                )
            values[name] = raw.decode("utf-8", "replace")
        if values["schema_version"] != str(SCHEMA_VERSION):
            raise DataError(
                "another schema version", where=where, expected=SCHEMA_VERSION, got=values["schema_version"]
            )
        try:
            dim = int(values["dim"])
            segmenter = json.loads(values["segmenter"])
            plan = json.loads((metadata or {}).get((PREFIX + "plan").encode(), b"null"))
            partial = json.loads((metadata or {}).get((PREFIX + "partial_targets").encode(), b"false"))
        except ValueError as error:
            raise DataError("the file metadata is damaged", where=where, got=error) from None
        if dim < 1 or not (segmenter is None or isinstance(segmenter, dict)):
            raise DataError("the file metadata is damaged", where=where, got=values)
        if plan is not None and not (isinstance(plan, dict) and type(plan.get("max_paragraph")) is int):
            raise DataError("the file metadata is damaged", where=where, got=f"{PREFIX}plan: {plan}")
        if not isinstance(partial, bool):
            raise DataError("the file metadata is damaged", where=where, got=f"{PREFIX}partial_targets: {partial}")
        return cls(values["codec_id"], values["codec_fingerprint"], dim, segmenter, plan, partial)


def arrow_schema(
    dim: int, supervised: bool, metadata: Mapping[bytes, bytes] | None = None, *, planned: bool = False
) -> pa.Schema:
    """Return the Arrow schema of a shard; ``supervised`` adds the target columns, ``planned`` those of plans."""
    concepts = pa.list_(pa.list_(pa.float16(), dim))
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sentences", pa.list_(pa.string())),
        pa.field("concepts", concepts),
        pa.field("lang", pa.string()),
        pa.field("paragraph_starts", pa.list_(pa.int32())),
    ]
    if supervised:
        fields += [pa.field("target_sentences", pa.list_(pa.string())), pa.field("target_concepts", concepts)]
    if planned:
        fields += [pa.field("plans", pa.list_(pa.string())), pa.field("plan_concepts", concepts)]
    return pa.schema(fields, metadata=dict(metadata or {}))


def is_supervised(schema: pa.Schema) -> bool:
    """Whether a shard has targets."""
    return "target_concepts" in schema.names


def is_planned(schema: pa.Schema) -> bool:
    """Whether a shard has plans."""
    return "plan_concepts" in schema.names


def check_columns(schema: pa.Schema, dim: int, where: object) -> None:
    """Check that the columns are there and of their types (names of inner fields do not matter).

    Raises:
        DataError: names the column, the type it has and the one it should have.
    """
    checks = {
        "id": (_is_string, "string"),
        "sentences": (_is_string_list, "list<string>"),
        "concepts": (lambda t: _is_concepts(t, dim), f"list<fixed_size_list<float16, {dim}>>"),
        "lang": (_is_string, "string"),
        "paragraph_starts": (lambda t: _is_list(t) and pa.types.is_int32(t.value_type), "list<int32>"),
        "target_sentences": (_is_string_list, "list<string>"),
        "target_concepts": (lambda t: _is_concepts(t, dim), f"list<fixed_size_list<float16, {dim}>>"),
        "plans": (_is_string_list, "list<string>"),
        "plan_concepts": (lambda t: _is_concepts(t, dim), f"list<fixed_size_list<float16, {dim}>>"),
    }
    for name, (fits, expected) in checks.items():
        if schema.names.count(name) > 1:
            raise DataError("the column is there twice", where=f"{where}: column {name}")
        if name not in schema.names:
            if name in ("id", "sentences", "concepts"):
                raise DataError("the column is missing", where=f"{where}: column {name}", expected=expected)
            continue
        if not fits(schema.field(name).type):
            got = schema.field(name).type
            raise DataError("the column has another type", where=f"{where}: column {name}", expected=expected, got=got)
    if ("target_sentences" in schema.names) != ("target_concepts" in schema.names):
        raise DataError("target_sentences and target_concepts go together", where=where)
    planned = [name in schema.names for name in ("plans", "plan_concepts")]
    if any(planned) and not (all(planned) and "paragraph_starts" in schema.names):
        raise DataError("plans, plan_concepts and paragraph_starts go together", where=where)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind))


def _is_string_list(kind: pa.DataType) -> bool:
    return _is_list(kind) and _is_string(kind.value_type)


def _is_concepts(kind: pa.DataType, dim: int) -> bool:
    if not _is_list(kind) or not pa.types.is_fixed_size_list(kind.value_type):
        return False
    return kind.value_type.list_size == dim and bool(pa.types.is_float16(kind.value_type.value_type))


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; only its footer is read.

    Raises:
        DataError: it is missing, truncated or of another format.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError("the shard is missing", where=path, hint="run the build again") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "not a readable Parquet file (truncated or of another format)",
            where=path,
            got=error,
            hint="delete it and run the build again",
        ) from None


def read_row_group(file: pq.ParquetFile, index: int, columns: list[str] | None, where: object) -> pa.Table:
    """Read some columns (``None``: all) of one row group.

    Raises:
        DataError: the data is damaged.
    """
    try:
        return file.read_row_group(index, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError("the data of the shard is damaged", where=where, got=error) from None


def shard_paths(folder: Path) -> list[Path]:
    """Return the Parquet files of a split in order of their names."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


__all__ = [
    "MANIFEST",
    "PREFIX",
    "SCHEMA_VERSION",
    "DatasetMetadata",
    "arrow_schema",
    "check_columns",
    "is_planned",
    "is_supervised",
    "open_shard",
    "read_row_group",
    "shard_paths",
]
