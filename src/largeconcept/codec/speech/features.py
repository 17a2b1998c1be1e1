"""What a speech encoder hears: log-mel filter bank energies as Kaldi computes them.

Kaldi's ``compute-fbank-feats`` (kaldi-asr.org/doc/feat.html; the same numbers in ``torchaudio.compliance.kaldi.fbank``)
with 80 bins, no dither and the window called povey; then, as the w2v-BERT of Seamless was trained (Seamless
Communication 2023, arXiv:2308.11596), each bin is standardised over the utterance and frames are stacked in pairs.

Shape letters: T stacked frames (20 ms), F frames (10 ms), S samples.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from largeconcept.errors import DataError

SAMPLE_RATE = 16_000
FRAME_SAMPLES = 400
"""Samples of a frame: 25 ms."""
SHIFT_SAMPLES = 160
"""Samples from one frame to the next: 10 ms."""
NUM_BINS = 80
STACK = 2
"""Frames that make one input of the encoder."""
FEATURE_DIM = NUM_BINS * STACK
MIN_SAMPLES = FRAME_SAMPLES + (STACK - 1) * SHIFT_SAMPLES
"""Fewest samples that make a stacked frame: 35 ms."""

_FFT = 512
_PRE_EMPHASIS = 0.97
_LOW, _HIGH = 20.0, SAMPLE_RATE / 2
_FLOOR = float(torch.finfo(torch.float32).eps)
_SCALE = 2.0**15  # Kaldi reads 16-bit numbers; the floor of the energies is absolute
_STEADY = 1e-4  # deviation of a log energy that is rounding and nothing else
_CHUNK = 4096  # frames whose spectra are held at once: 16 MB


def num_frames(samples: int) -> int:
    """Return T, the stacked frames that ``samples`` samples give; 0 for less than 35 ms."""
    return 0 if samples < MIN_SAMPLES else (1 + (samples - FRAME_SAMPLES) // SHIFT_SAMPLES) // STACK


def filter_bank(samples: Tensor) -> Tensor:
    """Return log-mel energies (F, 80) float32 of (S,) samples: Kaldi's features, neither standardised nor stacked.

    Frames of 25 ms every 10 ms, none reaching over an end; of each the mean is taken off, it is pre-emphasised by 0.97
    (its first sample by itself), weighted with a Hann window to the power 0.85 and padded to 512. The power spectrum is
    summed in 80 triangles, equally wide on Kaldi's mel scale 1127 ln(1 + f / 700) from 20 to 8000 Hz, and the logarithm
    taken of no less than the float32 epsilon.

    Note: computed in float64, so that quiet bins beside loud ones keep their digits; Kaldi computes in float32.

    Raises:
        DataError: see :func:`log_mel`.
    """
    _check(samples)
    wave = samples.detach().to(torch.float64) * _SCALE
    window, triangles = (table.to(wave.device) for table in _tables())
    frames = wave.unfold(0, FRAME_SAMPLES, SHIFT_SAMPLES)
    energies = []
    for chunk in torch.split(frames, _CHUNK):
        centred = chunk - chunk.mean(dim=1, keepdim=True)
        before = torch.cat((centred[:, :1], centred[:, :-1]), dim=1)
        spectrum = torch.view_as_real(torch.fft.rfft((centred - _PRE_EMPHASIS * before) * window, n=_FFT))
        energies.append(spectrum.square().sum(dim=-1) @ triangles)
    return torch.cat(energies).clamp_min(_FLOOR).log().float()


def log_mel(samples: Tensor) -> Tensor:
    """Return the features (T, 160) float32 of one utterance, on the device of ``samples``.

    Each of the 80 bins gets mean 0 and (unbiased) variance 1 over the utterance; two frames in a row then make one
    input, and an odd last frame is dropped after it counted in mean and variance. A bin that never changes becomes 0.

    Args:
        samples: (S,) floating numbers at 16 kHz, mono, full scale at ±1. Only their shape matters: any gain is taken
            off again, except where the audio is so quiet that it reaches the floor.

    Raises:
        DataError: not one row of floating numbers, shorter than 35 ms, with a value that is not finite, or silent: no
            bin changes (by a deviation of 1e-4), so that there is nothing to hear.
    """
    energies = filter_bank(samples)
    deviation, mean = torch.std_mean(energies.double(), dim=0)
    changing = deviation > _STEADY
    if not bool(changing.any()):
        hint = "cut silence off before the audio is encoded"
        raise DataError("the audio is silent (or one steady tone)", where="audio", hint=hint)
    features = ((energies - mean) / torch.where(changing, deviation, math.inf)).float()
    pairs = len(features) // STACK
    return features[: pairs * STACK].reshape(pairs, FEATURE_DIM)


def _check(samples: Tensor) -> None:
    expected = "(S,) floating numbers, mono at 16 kHz"
    if not isinstance(samples, Tensor):
        hint = "torch.from_numpy makes a tensor of an array"
        raise DataError("not a tensor", where="audio", got=type(samples).__name__, expected=expected, hint=hint)
    if samples.ndim != 1:
        hint = "take the mean of the channels" if samples.ndim == 2 else None
        raise DataError("wrong shape", where="audio", got=tuple(samples.shape), expected=expected, hint=hint)
    if not samples.is_floating_point():
        hint = "divide integers by their full scale, 2 ** 15 for 16 bits"
        raise DataError("not floating numbers", where="audio", got=samples.dtype, expected=expected, hint=hint)
    if len(samples) < MIN_SAMPLES:
        raise DataError(
            "the audio is too short",
            where="audio",
            got=f"{len(samples)} samples",
            expected=f"at least {MIN_SAMPLES} samples ({1000 * MIN_SAMPLES // SAMPLE_RATE} ms)",
        )
    finite = samples.isfinite()
    if not bool(finite.all()):
        raise DataError(f"sample {int((~finite).nonzero()[0])} is not finite", where="audio")


@cache
def _tables() -> tuple[Tensor, Tensor]:
    """Return the window (400,) and the triangles (257, 80), float64."""
    angles = torch.arange(FRAME_SAMPLES, dtype=torch.float64) * (2 * math.pi / (FRAME_SAMPLES - 1))
    window = (0.5 - 0.5 * angles.cos()).pow(0.85)
    edges = torch.linspace(_mel(_LOW), _mel(_HIGH), NUM_BINS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / _FFT)
    mels = 1127.0 * torch.log1p(bins / 700.0).unsqueeze(1)
    triangles = torch.minimum((mels - left) / (centre - left), (right - mels) / (right - centre)).clamp_min(0)
    return window, triangles


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)


__all__ = [
    "FEATURE_DIM",
    "FRAME_SAMPLES",
    "MIN_SAMPLES",
    "NUM_BINS",
    "SAMPLE_RATE",
    "SHIFT_SAMPLES",
    "STACK",
    "filter_bank",
    "log_mel",
    "num_frames",
]
