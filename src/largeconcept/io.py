"""Files that are whole or not there: atomic writes, and readers that say what is wrong with a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed, on failure removed.

    A reader therefore never sees a half-written file, whenever the process is killed. A kill may leave the temporary
    file, hidden and with a name of its own, which no reader takes for the real one.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """Ask the file system to make renames inside ``folder`` durable; silently skipped where unsupported."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a kill leaves the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically; see :func:`atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; text that UTF-8 cannot hold (lone surrogates) is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        data = json.dumps(value, indent=2).encode()
    atomic_write_bytes(path, data + b"\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError("file not found", where=path) from None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number or nesting without end
        raise CheckpointError("cannot read JSON", where=path, got=error) from None


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (moved to the CPU, made contiguous) to a safetensors file, atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(plain, str(temporary), metadata=dict(metadata or {}))
    except SafetensorError as error:  # a full disk arrives like this
        raise CheckpointError("cannot write the weights", where=path, got=error) from None


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file onto the CPU.

    Raises:
        CheckpointError: the file is missing, truncated or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise CheckpointError("file not found", where=path)
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            "not a readable safetensors file (truncated or of another format)", where=path, got=error
        ) from None


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Load ``tensors`` into ``module``; every key and every shape must fit.

    Raises:
        CheckpointError: names the first missing key, unexpected key or wrong shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    if missing:
        raise CheckpointError(f"{len(missing)} weights are missing", where=where, got=None, expected=missing[0])
    if unexpected:
        raise CheckpointError(f"{len(unexpected)} weights are not of this model", where=where, got=unexpected[0])
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                "a weight has another shape",
                where=f"{where}: {name}",
                expected=tuple(tensor.shape),
                got=tuple(tensors[name].shape),
            )
    module.load_state_dict(dict(tensors), strict=True)


def fingerprint(tensors: Mapping[str, Tensor], *extra: bytes) -> str:
    """Return 16 hexadecimal digits that identify weights (names, dtypes, shapes, values) and ``extra`` bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    for data in extra:
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def require_folder(path: str | Path, what: str) -> Path:
    """Return ``path`` as a folder that exists.

    Raises:
        CheckpointError: it does not exist or is a file.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise CheckpointError(problem, where=folder, expected=f"a saved {what}")
    return folder


__all__ = [
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_text",
    "fingerprint",
    "load_strict",
    "read_json",
    "read_safetensors",
    "require_folder",
    "sync_folder",
    "write_json",
    "write_safetensors",
]
