"""Checks of what a caller hands to a model; shapes only, so that nothing waits for a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from largeconcept.errors import DataError


def check_concepts(x: Tensor, dim: int, where: str, *, allow_empty: bool = False) -> None:
    """Refuse anything but a (B, S, C) floating tensor with C = ``dim`` and, unless allowed, at least one concept.

    Raises:
        DataError: a wrong number of dimensions, a wrong C, integers, or no concepts.
    """
    if x.ndim != 3 or x.shape[-1] != dim:
        raise DataError("wrong shape", where=where, expected=f"(B, S, {dim})", got=tuple(x.shape))
    if not x.is_floating_point():
        raise DataError("wrong type", where=where, expected="floating point", got=x.dtype)
    if not allow_empty and x.shape[1] == 0:
        raise DataError("no concepts", where=where, expected="at least one concept a row", got=tuple(x.shape))


def as_lengths(lengths: Tensor | Sequence[int] | None, batch: int, size: int, where: str = "lengths") -> list[int]:
    """Return row lengths as host integers; ``None`` means all rows are full.

    Raises:
        DataError: a wrong number of lengths, or one outside 0..``size``.
    """
    if lengths is None:
        return [size] * batch
    listed = [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    if len(listed) != batch or any(not 0 <= n <= size for n in listed):
        raise DataError("lengths do not fit", where=where, expected=f"{batch} values of 0 to {size}", got=listed)
    return listed


def check_finite(x: Tensor, where: str) -> None:
    """Refuse NaN and infinity; one host synchronisation on an accelerator.

    Raises:
        DataError: names the first row and position that is not finite.
    """
    if bool(torch.isfinite(x).all()):
        return
    place = (~torch.isfinite(x).all(dim=-1)).nonzero()[0].tolist()
    raise DataError(
        "a concept is not finite", where=f"{where}{place}", got="NaN or infinity", hint="check the encoder's output"
    )


def check_denoising(
    dim: int,
    x: Tensor,
    noisy: Tensor,
    timesteps: Tensor,
    source_lengths: Tensor | None = None,
    unconditional: Tensor | None = None,
) -> None:
    """Refuse what a denoising model cannot be called with in training.

    Args:
        dim: C of the model.
        x: must be (B, S, C).
        noisy: must be (B, T, C), T = S without ``source_lengths``.
        timesteps: must be (B, T).
        source_lengths: must be (B,).
        unconditional: must be (B, T).

    Raises:
        DataError: shapes or types do not fit together.
    """
    check_concepts(x, dim, "x")
    check_concepts(noisy, dim, "noisy")
    batch, size, rows = x.shape[0], x.shape[1], noisy.shape[1]
    if noisy.shape[0] != batch or (source_lengths is None and rows != size):
        expected = (batch, size) if source_lengths is None else (batch, "T")
        raise DataError("wrong shape", where="noisy", expected=expected, got=tuple(noisy.shape[:2]))
    for name, tensor, shape in (
        ("timesteps", timesteps, (batch, rows)),
        ("unconditional", unconditional, (batch, rows)),
        ("source_lengths", source_lengths, (batch,)),
    ):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise DataError("wrong shape", where=name, expected=shape, got=tuple(tensor.shape))
