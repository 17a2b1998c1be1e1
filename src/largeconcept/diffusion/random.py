"""Random numbers that depend on *what* they are for, not on when, where or beside what they are drawn.

Every number is a hash of (seed, stream, step, sample id, position, channel). Regrouping samples into other batches,
padding them further, spreading them over other processes or resuming a run therefore changes nothing. The hash is the
finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) on 64-bit integers, applied once for each index.

Shape letters: B samples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class StepRandom:
    """Random numbers of one optimiser step (or of one generated concept, or of anything else that is counted).

    Args:
        seed: any integer.
        step: any integer; usually the optimiser step.

    ``shape`` below is the shape for one sample: ``(positions, channels)``, ``(positions,)`` or ``()``. The number at an
    index depends on the index only, so a longer shape has the shorter one as its beginning. Numbers live on the device
    of ``sample_ids``. Integers and uniforms are the same bits on every device; normals are computed in float64 and
    rounded, so that two devices rarely differ, and then in the last digit.
    """

    def __init__(self, seed: int, step: int = 0) -> None:
        self.seed = seed
        self.step = step

    def uniform(self, stream: str, sample_ids: Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Return (B, *shape) float32, multiples of 2⁻²⁴ in [0, 1)."""
        import torch

        bits = self._bits(stream, sample_ids, shape)
        return _shift_right(bits, 40).to(torch.float32) * 2.0**-24

    def integers(self, stream: str, sample_ids: Tensor, shape: Sequence[int], high: int) -> Tensor:
        """Return (B, *shape) int64, uniform in ``0 … high - 1`` (the bias is below ``high`` / 2³¹)."""
        bits = self._bits(stream, sample_ids, shape)
        return (_shift_right(bits, 33) * high) >> 31

    def normal(self, stream: str, sample_ids: Tensor, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape) float32, standard normal (Box & Muller 1958; at most 6.8 in absolute value)."""
        import torch

        if sample_ids.device.type == "mps":  # no float64 there
            return self.normal(stream, sample_ids.cpu(), shape).to(sample_ids.device)
        if not shape:
            return self.normal(stream, sample_ids, (1,)).squeeze(-1)
        # One hash gives a radius and an angle, and so the two numbers of channels 2k and 2k + 1.
        *outer, channels = shape
        bits = self._bits(stream, sample_ids, [*outer, (channels + 1) // 2])
        radius = (_shift_right(bits, 32).to(torch.float64) + 0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        angle = (bits & 0xFFFFFFFF).to(torch.float64).mul_(2.0**-31 * math.pi)
        out = torch.empty(*bits.shape, 2, dtype=torch.float32, device=bits.device)
        out[..., 0] = torch.cos(angle).mul_(radius)
        out[..., 1] = angle.sin_().mul_(radius)
        return out.flatten(-2)[..., :channels]

    def permutation(self, stream: str, sample_ids: Tensor, length: int) -> Tensor:
        """Return (B, length) int64, a random order of ``0 … length - 1`` for each sample."""
        return self._bits(stream, sample_ids, [length]).argsort(dim=-1)

    def _bits(self, stream: str, sample_ids: Tensor, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape) int64 of 64 random bits each."""
        import torch

        name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
        key = _mix_int(_mix_int(_mix_int(self.seed & _MASK) ^ name) + self.step)
        state = _mix(sample_ids.to(torch.int64) * _signed(_GOLDEN) + _signed(key))
        for size in shape:
            index = torch.arange(1, size + 1, dtype=torch.int64, device=state.device)
            state = _mix(state.unsqueeze(-1) + index * _signed(_GOLDEN))
        return state


_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(z: Tensor) -> Tensor:
    """The SplitMix64 finaliser on a fresh int64 tensor, changed in place; products wrap around."""
    z ^= _shift_right(z, 30)
    z *= _signed(_MIX_1)
    z ^= _shift_right(z, 27)
    z *= _signed(_MIX_2)
    z ^= _shift_right(z, 31)
    return z


def _mix_int(z: int) -> int:
    """The same finaliser on a Python integer."""
    z = (z + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift right filling with zeros (the operator on int64 fills with the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same bits."""
    return value - (1 << 64) if value >> 63 else value
