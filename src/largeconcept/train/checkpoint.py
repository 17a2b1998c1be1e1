"""Training checkpoints: whole or not there, on any number of processes.

Format: ``step-00002000/`` holds the shards of ``torch.distributed.checkpoint`` (model, optimisers, average) and
``state.json`` (step, concepts seen, configuration and its hash, data position, running meters). A checkpoint is written
to ``step-00002000.tmp``; when every process is done rank 0 renames it. A folder without ``.tmp`` is complete.
Shards carry a pickled index, so only checkpoints of one's own runs should be resumed; the format for exchange is the
exported model.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from largeconcept.config import Config
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import read_json, sync_folder, write_json
from largeconcept.train.ema import EMA
from largeconcept.train.optim import Optimizers
from largeconcept.train.parallel import Parallel

FORMAT_VERSION = 1
_NAME = re.compile(r"^step-(\d{8,})$")


def checkpoints(out: str | Path) -> list[Path]:
    """Return the complete checkpoints of a run folder, oldest first."""
    out = Path(out)
    if not out.is_dir():
        return []
    found = [(int(m.group(1)), p) for p in out.iterdir() if (m := _NAME.match(p.name)) and p.is_dir()]
    return [path for _, path in sorted(found)]


def latest(out: str | Path) -> Path | None:
    """Return the newest complete checkpoint, or ``None``."""
    found = checkpoints(out)
    return found[-1] if found else None


def remove_leftovers(out: str | Path) -> None:
    """Delete what a killed run left half-written or half-deleted."""
    out = Path(out)
    if out.is_dir():
        for path in out.glob("step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def save(
    out: str | Path,
    step: int,
    model: nn.Module,
    optimizers: Optimizers,
    ema: EMA | None,
    state: Mapping[str, Any],
    parallel: Parallel,
    keep_last: int = 2,
) -> Path:
    """Write a checkpoint and delete all but the ``keep_last`` newest; every process must call it.

    Args:
        state: JSON data that comes back from :func:`load`; ``step`` and the format version are added.
    """
    from torch.distributed.checkpoint.state_dict_saver import save as save_shards

    out = Path(out)
    final = out / f"step-{step:08d}"
    temporary = out / f"{final.name}.tmp"
    if parallel.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    parallel.barrier()
    with _quiet():
        save_shards(_tensors(model, optimizers, ema), checkpoint_id=str(temporary))
    if parallel.is_main:
        write_json(temporary / "state.json", {"format_version": FORMAT_VERSION, "step": step, **state})
        sync_folder(temporary)
    parallel.barrier()
    if parallel.is_main:
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync_folder(out)
        _prune(out, keep_last)
    parallel.barrier()
    return final


def read_state(path: str | Path) -> dict[str, Any]:
    """Return the ``state.json`` of a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged or of a newer format.
    """
    path = Path(path)
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError("not a training state", where=path / "state.json")
    if state.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            "unknown checkpoint format",
            where=path / "state.json",
            got=state.get("format_version"),
            expected=FORMAT_VERSION,
        )
    return state


def load(path: str | Path, model: nn.Module, optimizers: Optimizers, ema: EMA | None) -> None:
    """Read the tensors of a checkpoint into place, whatever the number of processes that wrote it.

    Raises:
        CheckpointError: a shard is missing or damaged, or the model is another one.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load as load_shards

    target = _tensors(model, optimizers, ema)
    try:
        with _quiet():
            load_shards(target, checkpoint_id=str(path))
    except (CheckpointException, RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(
            "cannot read the checkpoint",
            where=path,
            got=str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__,
            hint="delete this folder to resume from the one before it",
        ) from None
    model.load_state_dict(target["model"], strict=True)
    with _quiet():
        set_optimizer_state_dict(model, optimizers.parts, optim_state_dict=target["optim"])


def _tensors(model: nn.Module, optimizers: Optimizers, ema: EMA | None) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    with _quiet():
        optim = get_optimizer_state_dict(model, optimizers.parts)
    tensors: dict[str, Any] = {"model": model.state_dict(), "optim": optim}
    if ema is not None:
        tensors["ema"] = ema.state_dict()
    return tensors


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's remark that it saves in a single process, which is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.distributed")
        yield


def _prune(out: Path, keep_last: int) -> None:
    for path in checkpoints(out)[:-keep_last]:
        doomed = path.with_name(f"{path.name}.tmp")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings; lists are values."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_same_config(old: Mapping[str, Any], new: Config, may_change: frozenset[str], where: object) -> None:
    """Refuse to resume with settings that would make another run.

    Args:
        old: configuration of the checkpoint, as plain data. Settings that it lacks, because they came later, are as
            without them: at their defaults.
        new: configuration of this run.
        may_change: dotted keys, or groups of them, that may differ.
        where: the checkpoint, for the message.

    Raises:
        ConfigError: names the first key that changed, its old and its new value; or the old settings are none.
    """
    known = type(new).from_dict(dict(old), where=str(where)).to_dict()
    before, after = dict(flatten(_without_paths(known))), dict(flatten(_without_paths(new.to_dict())))
    for key in [*after, *(k for k in before if k not in after)]:
        if before.get(key) == after.get(key) or any(key == k or key.startswith(f"{k}.") for k in may_change):
            continue
        raise ConfigError(
            f"{key} changed since the checkpoint was written",
            where=where,
            expected=before.get(key, "nothing"),
            got=after.get(key, "nothing"),
            hint="set it back, or start a new run with another train.out",
        )


def _without_paths(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Datasets may have been moved; the data position itself tells whether they are the same."""
    data = config.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("sources"), list):
        return config
    sources = [{k: v for k, v in source.items() if k != "path"} for source in data["sources"]]
    return {**config, "data": {**data, "sources": sources}}
