"""Files that are whole or not there: atomic writes, and readers that say what is wrong with a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import CheckpointError, missing_extra

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


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


def stream_safetensors(
    path: str | Path,
    layout: Mapping[str, tuple[torch.dtype, Sequence[int]]],
    tensor: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file one tensor after the other, so that no second copy of the weights is made.

    Args:
        layout: type and shape of each tensor to come.
        tensor: returns the tensor of a name; asked once for each, wide types first.
        metadata: words for the header.

    Raises:
        CheckpointError: a type that the format does not have, or a tensor that is not as announced.
        OSError: the file cannot be written.
    """
    import torch

    codes = {
        torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.float16: "F16",
        torch.bfloat16: "BF16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    names = sorted(layout, key=lambda name: (-layout[name][0].itemsize, name))  # keeps every tensor aligned
    for name in names:
        dtype, shape = layout[name]
        if dtype not in codes:
            raise CheckpointError("a tensor of a type that cannot be stored", where=f"{path}: {name}", got=dtype)
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            value = tensor(name).detach().cpu().contiguous()
            dtype, shape = layout[name]
            if value.dtype != dtype or tuple(value.shape) != tuple(shape):
                raise CheckpointError(
                    "a tensor is not as announced",
                    where=f"{path}: {name}",
                    expected=f"{dtype} {tuple(shape)}",
                    got=f"{value.dtype} {tuple(value.shape)}",
                )
            if value.numel():
                file.write(value.view(-1).view(torch.uint8).numpy().data)


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


def safetensors_metadata(path: str | Path) -> dict[str, str]:
    """Return the words in the header of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError("file not found", where=path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            "not a readable safetensors file (truncated or of another format)", where=path, got=error
        ) from None


def read_torch(path: str | Path, classes: Sequence[type] = ()) -> Any:
    """Read what ``torch.save`` wrote, without running code from it; tensors stay on disk until they are used.

    Args:
        path: a ``.pt`` or ``.bin`` file.
        classes: types besides tensors and plain data that may be in it; only their attributes are restored.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or holds objects of other types.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "file not found"
        raise CheckpointError(problem, where=path, expected="a file of weights")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(classes)):
            warnings.simplefilter("ignore")  # about odd pickles: what is wrong with them is said below
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except (RuntimeError, ValueError):  # files of before torch 1.6 cannot be mapped
                return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        ImportError,
        IndexError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            "not a checkpoint of weights (damaged, of another format, or with objects other than tensors)",
            where=path,
            got=lines[0] if lines else type(error).__name__,
        ) from None


def is_hub_id(name: object) -> bool:
    """Return whether ``name`` has the form ``org/name`` and no file or folder of that name is here."""
    return isinstance(name, str) and _HUB_ID.match(name) is not None and not Path(name).exists()


def fetch_from_hub(name: str, patterns: Sequence[str]) -> Path:
    """Return the local copy of what matches ``patterns`` in a repository of the Hugging Face hub.

    Raises:
        DependencyError: huggingface_hub is not installed.
        CheckpointError: the hub cannot be reached, or does not have it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        error = missing_extra("huggingface_hub", "hub")
        error.hint = f"there is no folder {name!r} here; to fetch it from the hub, {error.hint}"
        raise type(error)(error.problem, where=name, hint=error.hint) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:
        raise CheckpointError(
            "cannot be fetched from the hub, and no such folder exists here",
            where=name,
            got=f"{type(error).__name__}: {error}",
            hint="check the name and the network, or give a local folder",
        ) from None


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: object, *, assign: bool = False) -> None:
    """Load ``tensors`` into ``module``; every key and every shape must fit.

    Args:
        assign: make the tensors themselves the weights instead of copying their values.

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
    module.load_state_dict(dict(tensors), strict=True, assign=assign)


def fingerprint(tensors: Mapping[str, Tensor], *extra: bytes) -> str:
    """Return 16 hexadecimal digits that identify weights (names, dtypes, shapes, values) and ``extra`` bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():
            digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
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


def check_format_version(version: object, supported: int, where: object) -> None:
    """Refuse files of a format that this version of the library does not know.

    Raises:
        CheckpointError: ``version`` is not a number, or above ``supported``.
    """
    if not isinstance(version, int) or version > supported:
        raise CheckpointError(
            "written by a newer version of the library",
            where=where,
            got=version,
            expected=f"≤ {supported}",
            hint="upgrade largeconcept",
        )


__all__ = [
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_text",
    "check_format_version",
    "fetch_from_hub",
    "fingerprint",
    "is_hub_id",
    "load_strict",
    "read_json",
    "read_safetensors",
    "read_torch",
    "require_folder",
    "safetensors_metadata",
    "stream_safetensors",
    "sync_folder",
    "write_json",
    "write_safetensors",
]
