"""Which number type the matrix products of a run use: float32, or bfloat16 with float32 master weights."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Literal

import torch

from largeconcept.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]


@functools.cache
def _cpu_has_bf16() -> bool:
    # Private names, and a torch without them simply stays with float32.
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test() for test in tests if test is not None)


def has_bf16(device: torch.device | str) -> bool:
    """Return whether ``device`` multiplies bfloat16 matrices in hardware.

    CUDA: compute capability 8 and later. CPU: AVX512-BF16 or AMX. Everything else: no.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and _cpu_has_bf16()


def resolve_precision(precision: Precision, device: torch.device | str) -> Literal["fp32", "bf16"]:
    """Return the precision that ``auto`` stands for on ``device``.

    The choice depends on the hardware's capabilities, not on a timing, so a resumed run makes the same choice.
    """
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device) else "fp32"


def autocast(precision: str, device: torch.device | str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a forward pass runs.

    Raises:
        ConfigError: ``auto`` was not resolved, or the name is unknown.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision != "bf16":
        raise ConfigError("unknown precision", where="train.precision", got=precision, expected="auto, fp32 or bf16")
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def measure_matmul(device: torch.device | str, size: int = 512, rounds: int = 8) -> dict[str, float]:
    """Return billions of multiply-adds per second of a square product, in float32 and bfloat16 (best of ``rounds``)."""
    device = torch.device(device)
    result = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.ones(size, size, device=device, dtype=dtype)
        best = float("inf")
        for _ in range(rounds):
            _synchronize(device)
            start = time.perf_counter()
            a @ a
            _synchronize(device)
            best = min(best, time.perf_counter() - start)
        result[name] = size**3 / best / 1e9
    return result


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
