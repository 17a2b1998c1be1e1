"""Files of concepts: what ``encode`` writes and ``decode`` reads, as .npz, .safetensors or .jsonl.

All three hold the (N, C) float32 concepts, the N sentences they came from (empty when unknown) and the fingerprint of
the codec; none of them is ever unpickled.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, DataError
from largeconcept.io import atomic_write_bytes, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = (".npz", ".safetensors", ".jsonl")


@dataclass(frozen=True, slots=True)
class ConceptFile:
    """Concepts with where they came from.

    Attributes:
        concepts: (N, C) float32.
        sentences: N sentences, or none.
        codec: fingerprint of the codec that made them; ``None`` when the file does not say.
    """

    concepts: Tensor
    sentences: tuple[str, ...] = ()
    codec: str | None = None


def file_format(path: str | Path) -> str:
    """Return the suffix that decides the format.

    Raises:
        ConfigError: none of the known ones.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError("not a format for concepts", where=path, expected=" or ".join(FORMATS), got=suffix or "none")
    return suffix


def write_concepts(path: str | Path, content: ConceptFile) -> None:
    """Write concepts in the format that the suffix names, atomically.

    Raises:
        ConfigError: an unknown suffix, or a place that cannot be written.
    """
    import numpy as np

    suffix = file_format(path)
    try:
        if suffix == ".safetensors":
            notes = {"sentences": json.dumps(content.sentences, ensure_ascii=False), "codec": content.codec or ""}
            write_safetensors(path, {"concepts": content.concepts.float()}, notes)
        elif suffix == ".npz":
            buffer = io.BytesIO()
            np.savez(
                buffer,
                concepts=content.concepts.float().cpu().numpy(),
                codec=np.array(content.codec or ""),
                sentences=np.array(content.sentences, dtype=np.str_),
            )
            atomic_write_bytes(path, buffer.getvalue())
        else:
            lines = json_lines(content.sentences, content.concepts, content.codec)
            atomic_write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise ConfigError("cannot write there", where=path, got=error.strerror or error) from None


def json_lines(sentences: Sequence[str], concepts: Tensor, codec: str | None) -> Iterator[str]:
    """Yield one JSON object a concept: sentence, codec, concept."""
    for row, sentence in zip(concepts.float().tolist(), sentences or [""] * len(concepts)):
        # Seven digits give every float32 back exactly or to its last bit; nine always do.
        numbers = "[" + ", ".join(f"{value:.9g}" for value in row) + "]"
        head = json.dumps({"sentence": sentence, "codec": codec}, ensure_ascii=False)
        yield f'{head[:-1]}, "concept": {numbers}}}'


def read_concepts(path: str | Path) -> ConceptFile:
    """Read a file of concepts.

    Raises:
        ConfigError: an unknown suffix.
        DataError: missing, damaged, or without concepts of one size.
        CheckpointError: a damaged .safetensors file.
    """
    suffix, path = file_format(path), Path(path)
    if not path.is_file():
        raise DataError("file not found", where=path)
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix == ".npz":
        return _read_npz(path)
    try:
        with path.open(encoding="utf-8") as lines:
            return parse_json_lines(lines, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot be read", where=path, got=error) from None


def parse_json_lines(lines: Iterable[str], where: str) -> ConceptFile:
    """Read the lines that :func:`json_lines` makes.

    Raises:
        DataError: names the line.
    """
    import torch

    rows: list[list[float]] = []
    sentences: list[str] = []
    codecs: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError("not JSON", where=place, got=error) from None
        row = record.get("concept") if isinstance(record, dict) else None
        if not isinstance(row, list) or not row or not all(isinstance(x, int | float) for x in row):
            raise DataError("no concept", where=place, expected='{"concept": [numbers], …}')
        if rows and len(row) != len(rows[0]):
            raise DataError("another number of channels than before", where=place, expected=len(rows[0]), got=len(row))
        rows.append(row)
        sentences.append(str(record.get("sentence") or ""))
        if record.get("codec"):
            codecs.add(str(record["codec"]))
    if len(codecs) > 1:
        raise DataError("concepts of several codecs", where=where, expected="one", got=", ".join(sorted(codecs)))
    if not rows:
        raise DataError("there is no concept", where=where)
    return ConceptFile(torch.tensor(rows, dtype=torch.float32), tuple(sentences), next(iter(codecs), None))


def _read_safetensors(path: Path) -> ConceptFile:
    from safetensors import safe_open

    tensors = read_safetensors(path)
    with safe_open(str(path), framework="pt") as file:
        notes: dict[str, str] = file.metadata() or {}
    try:
        sentences = json.loads(notes.get("sentences", "[]"))
    except json.JSONDecodeError as error:
        raise DataError("its sentences cannot be read", where=path, got=error) from None
    return _checked(path, tensors.get("concepts"), sentences, notes.get("codec"))


def _read_npz(path: Path) -> ConceptFile:
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("not a readable .npz file", where=path, got=error) from None
    concepts = arrays.get("concepts")
    tensor = None if concepts is None or concepts.dtype.kind != "f" else torch.from_numpy(concepts.astype("float32"))
    sentences = arrays["sentences"].tolist() if "sentences" in arrays else []
    return _checked(path, tensor, sentences, str(arrays["codec"]) if "codec" in arrays else None)


def _checked(path: Path, concepts: Tensor | None, sentences: Any, codec: str | None) -> ConceptFile:
    if concepts is None or concepts.ndim != 2:
        got = "none" if concepts is None else tuple(concepts.shape)
        raise DataError("no array of concepts", where=path, expected="'concepts', (N, C) floats", got=got)
    if not isinstance(sentences, list) or len(sentences) not in (0, len(concepts)):
        raise DataError("as many sentences as concepts are needed", where=path, expected=len(concepts))
    return ConceptFile(concepts.float(), tuple(str(one) for one in sentences), codec or None)


__all__ = ["ConceptFile", "file_format", "json_lines", "parse_json_lines", "read_concepts", "write_concepts"]
