"""How a run is spread over processes. Model code knows nothing of it.

Strategies: ``none`` (one process) and ``ddp`` (every process holds the whole model and sees its share of the
micro-batches; gradients are summed). Processes are started by ``torchrun``, which sets ``RANK``, ``WORLD_SIZE``,
``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``; the backend is NCCL on CUDA and gloo on the CPU.

The model is not wrapped. :class:`GradientSum` adds the gradients of all processes bucket by bucket while the rest of
the backward pass still runs. So a process may have any number of micro-batches in a step, also none, and parameters may
go without a gradient. A strategy that shards the model in place fits the same seam, :meth:`Parallel.prepare`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from largeconcept.errors import ConfigError

Strategy = Literal["auto", "none", "ddp"]


@dataclass(slots=True)
class Parallel:
    """This process's place among the processes of a run.

    Attributes:
        strategy: ``none`` or ``ddp``.
        rank, world_size: this process and their number.
        device: where this process computes.
    """

    strategy: Literal["none", "ddp"]
    rank: int
    world_size: int
    device: torch.device
    _owns_group: bool = False

    @classmethod
    def start(cls, strategy: Strategy = "auto", device: str = "auto") -> Parallel:
        """Join the process group that ``torchrun`` describes, or stand alone.

        Args:
            strategy: ``auto`` is ``ddp`` under torchrun, else ``none``.
            device: ``auto`` (CUDA if there is any, else the CPU), ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ConfigError: the strategy does not fit how the process was started, or there is no such device.
        """
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        launched = "RANK" in os.environ and "MASTER_ADDR" in os.environ
        if strategy == "auto":
            strategy = "ddp" if launched and world_size > 1 else "none"
        place = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if launched else None)
        if strategy == "none":
            if launched and world_size > 1:
                raise ConfigError(
                    "several processes were started for a run of one",
                    where="train.parallel",
                    got=f"none with WORLD_SIZE={world_size}",
                    expected="ddp",
                )
            return cls("none", 0, 1, place)
        if not launched:
            raise ConfigError(
                "ddp needs the variables that torchrun sets",
                where="train.parallel",
                hint="start with: torchrun --nproc-per-node N -m largeconcept train …",
            )
        if place.type == "cuda":
            torch.cuda.set_device(place)
        owns = not dist.is_initialized()
        if owns:
            backend = "nccl" if place.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=30))
        return cls("ddp", dist.get_rank(), dist.get_world_size(), place, owns)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def prepare(self, model: nn.Module) -> GradientSum | None:
        """Make all processes start from rank 0's weights; return what sums their gradients (``None`` if alone)."""
        if self.world_size == 1:
            return None
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.data, src=0)
        return GradientSum([p for p in model.parameters() if p.requires_grad])

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add ``tensor`` over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_main(self, value: Any) -> Any:
        """Return rank 0's plain value on every process."""
        if self.world_size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0, device=self.device if self.device.type == "cuda" else None)
        return holder[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the plain values of all processes, in the order of their ranks, on every process."""
        if self.world_size == 1:
            return [value]
        everyone: list[Any] = [None] * self.world_size
        dist.all_gather_object(everyone, value)
        return everyone

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group if this object opened it."""
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()


def _device(name: str, local_rank: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("unknown device", where="train.device", got=name, expected="auto, cpu or cuda") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("no CUDA device is usable here", where="train.device", got=name, hint="use device=cpu")
        index = device.index if device.index is not None else (local_rank or 0)
        if index >= torch.cuda.device_count():
            raise ConfigError(
                "no such CUDA device", where="train.device", got=index, expected=f"0 to {torch.cuda.device_count() - 1}"
            )
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise ConfigError("training runs on cpu or cuda", where="train.device", got=name)
    return device


class GradientSum:
    """Sums gradients over processes in buckets of a fixed layout, overlapping the last backward pass.

    Call :meth:`arm` before the last backward pass of a step (buckets then leave as soon as they are full) and
    :meth:`finish` after it. The layout depends on the parameters alone, so a resumed run adds in the same order.

    Args:
        parameters: all trainable parameters, in the same order on every process.
        bucket_bytes: size at which a bucket is closed.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], bucket_bytes: int = 25 * 2**20) -> None:
        self._buckets: list[list[nn.Parameter]] = []
        size = bucket_bytes
        dtype = None
        # Backward reaches the last parameters first, so the first bucket to leave holds those.
        for parameter in reversed(list(parameters)):
            if size >= bucket_bytes or parameter.dtype != dtype:
                self._buckets.append([])
                size, dtype = 0, parameter.dtype
            self._buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
        self._bucket_of = {id(p): i for i, bucket in enumerate(self._buckets) for p in bucket}
        self._armed = False
        self._missing: list[int] = []
        self._ready: set[int] = set()
        self._next = 0
        self._sent: list[tuple[Tensor, dist.Work | None]] = []
        for bucket in self._buckets:
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)  # type: ignore[no-untyped-call]

    def arm(self) -> None:
        """Let the buckets leave during the backward pass that comes next."""
        self._armed = True
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish(self) -> None:
        """Send what has not left, wait, and put the sums into ``.grad`` (zeros where no process had a gradient)."""
        while self._next < len(self._buckets):
            self._send()
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            if work is not None:
                work.wait()
            for parameter, piece in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = piece.view_as(parameter)
        self._armed, self._next, self._sent, self._ready = False, 0, [], set()

    def _on_gradient(self, parameter: Tensor) -> None:
        if not self._armed:
            return
        index = self._bucket_of[id(parameter)]
        self._missing[index] -= 1
        if self._missing[index] == 0:
            self._ready.add(index)
        # Collectives must be called in the same order everywhere: a bucket waits for the ones before it.
        while self._next in self._ready:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[self._next]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))
        self._next += 1
