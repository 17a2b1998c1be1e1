"""Long recordings cut at their silences into pieces that a speech encoder takes for sentences.

Speech encoders were trained on one sentence at a time, of no more than about 30 seconds.

Shape letters: S samples, F frames (10 ms).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from largeconcept.codec.speech.audio import SAMPLE_RATE, Samples
from largeconcept.errors import ConfigError, DataError

MAX_SECONDS = 30.0
"""Longest piece that speech encoders were trained for; see https://github.com/facebookresearch/SONAR/issues/22."""

_FRAMES_A_SECOND = 100
_SILENT = 10**-9.0  # power, of ±1: a recording that never rises above holds nothing
_DIGITAL = 10**-8.0  # share of the loudest: what is quieter is no background noise but the absence of sound
_FLAT = 6.0  # dB between background and loudest, below which there is no telling noise from voice
_VOICE = 10**-4.0  # share of the loudest that a voice does not sink below
_RISE, _LEAST_RISE, _MOST_RISE = 0.3, 4.0, 15.0  # threshold above the background: share of those dB, least, most
_SHORTEST_SOUND = 10  # frames: shorter ones between silences are clicks
_QUIET_WINDOW = 15  # frames over which the quietest place of a long piece is looked for

Run = tuple[int, int]  # half-open, in frames


class Piece(NamedTuple):
    """A stretch of a recording, in seconds from its begin."""

    start: float
    end: float

    def of(self, samples: Samples) -> Samples:
        """Return what it covers of the recording's samples at 16 kHz."""
        return samples[round(self.start * SAMPLE_RATE) : round(self.end * SAMPLE_RATE)]


def cut(
    samples: Samples,
    *,
    min_pause: float = 0.4,
    min_seconds: float = 1.0,
    max_seconds: float = MAX_SECONDS,
    padding: float = 0.15,
) -> list[Piece]:
    """Cut a recording at its silences into pieces about as long as sentences.

    A frame of 10 ms is silent when its energy lies below a threshold that follows the recording: a share of the way
    from the background noise (the 5th percentile of half a minute around) to the loudest fifth of a second. Where
    frames are silent for ``min_pause`` the recording is cut; a piece shorter than ``min_seconds`` joins the nearer of
    its neighbours if no more than twice ``min_pause`` lies between them; one longer than ``max_seconds`` is cut where
    it is quietest in its middle.

    Args:
        samples: (S,) mono at 16 kHz.
        min_pause: seconds of silence that part two sentences.
        min_seconds: length below which a piece is joined to another.
        max_seconds: length that no piece exceeds.
        padding: seconds of silence that a piece keeps on either side.

    Returns:
        Pieces in order, which do not overlap, and hold every sound of at least 0.1 s that is above the threshold; none
        for silence. What is as loud throughout (noise alone, a tone) is taken for sound.

    Raises:
        ConfigError: lengths that do not go together.
        DataError: not a row of finite samples.
    """
    _check_lengths(min_pause, min_seconds, max_seconds, padding)
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise DataError("wrong shape", where="samples", got=samples.shape, expected="(S,), mono")
    if not len(samples):
        return []
    power = _power(samples)
    longest = math.floor(max_seconds * _FRAMES_A_SECOND + 1e-6)
    runs = _joined(_runs(power > _threshold(power)), _frames(min_pause))
    runs = [(a, b) for a, b in runs if b - a >= _SHORTEST_SOUND]
    runs = _with_neighbours(runs, _frames(min_seconds), _frames(2 * min_pause), longest)
    runs = _padded(runs, _frames(padding), longest, len(power))
    if any(b - a > longest for a, b in runs):
        runs = _no_longer(runs, longest, _mean_around(power, _QUIET_WINDOW))
    last = len(samples) / SAMPLE_RATE
    return [Piece(a / _FRAMES_A_SECOND, min(b / _FRAMES_A_SECOND, last)) for a, b in runs]


def _power(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Return (F,) the variance of the samples in 30 ms around each frame, so that an offset is no sound.

    Raises:
        DataError: a sample is not finite.
    """
    hop, chunk = SAMPLE_RATE // _FRAMES_A_SECOND, 1 << 12
    frames = -(-len(samples) // hop)
    sums, squares = np.zeros(frames), np.zeros(frames)
    for first in range(0, frames, chunk):
        block = samples[first * hop : (first + chunk) * hop].astype(np.float64)
        block = np.pad(block, (0, -len(block) % hop), mode="edge").reshape(-1, hop)
        sums[first : first + chunk], squares[first : first + chunk] = block.sum(1), np.square(block).sum(1)
    if not np.isfinite(squares).all():
        at = int(np.argmin(np.isfinite(squares))) / _FRAMES_A_SECOND
        raise DataError(f"a sample is not finite, about {at:.2f} s from the begin", where="samples")
    mean = _mean_around(sums, 3) / hop
    return np.maximum(_mean_around(squares, 3) / hop - np.square(mean), 0.0)


def _threshold(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (F,) the power above which a frame sounds; infinity where nothing does."""
    loudest = float(_mean_around(power, _FRAMES_A_SECOND // 5).max())
    if loudest < _SILENT:
        return np.full(len(power), np.inf)
    digital = loudest * _DIGITAL
    step, half = 5 * _FRAMES_A_SECOND, 15 * _FRAMES_A_SECOND
    thresholds = np.empty(len(power))
    for first in range(0, len(power), step):
        around = power[max(0, first + step // 2 - half) : first + step // 2 + half]
        audible = around[around > digital]
        noise = float(np.quantile(audible, 0.05)) if len(audible) else loudest
        span = 10 * math.log10(loudest / noise)
        rise = min(max(_RISE * span, _LEAST_RISE), _MOST_RISE)
        threshold = digital if span < _FLAT else noise * 10 ** (rise / 10)
        if len(audible) < 0.95 * len(around):  # pauses hold nothing, so what is quiet may well be voice
            threshold = min(threshold, loudest * _VOICE)
        thresholds[first : first + step] = threshold
    return thresholds


def _runs(mask: NDArray[np.bool_]) -> list[Run]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(runs: list[Run], min_gap: int) -> list[Run]:
    """Close gaps that are shorter than ``min_gap``."""
    joined: list[Run] = []
    for a, b in runs:
        if joined and a - joined[-1][1] < min_gap:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    return joined


def _with_neighbours(runs: list[Run], shortest: int, near: int, longest: int) -> list[Run]:
    """Join runs that are too short to the nearer neighbour, where one is near and the two are not too long."""
    runs, i = list(runs), 0
    while i < len(runs):
        a, b = runs[i]
        found = []
        if b - a < shortest:
            if i and b - runs[i - 1][0] <= longest:
                found.append((a - runs[i - 1][1], i - 1))
            if i + 1 < len(runs) and runs[i + 1][1] - a <= longest:
                found.append((runs[i + 1][0] - b, i))
        gap, first = min(found, default=(near + 1, i))
        if gap > near:
            i += 1
            continue
        runs[first : first + 2] = [(runs[first][0], runs[first + 1][1])]
        i = first
    return runs


def _padded(runs: list[Run], padding: int, longest: int, frames: int) -> list[Run]:
    """Widen runs on both sides: at most to the middle of the gaps between them, and to ``longest``."""
    bounds = [0, *((b + c) // 2 for (_, b), (c, _) in pairwise(runs)), frames]
    result = []
    for i, (a, b) in enumerate(runs):
        room = min(padding, max(0, longest - (b - a)) // 2)
        result.append((max(a - room, bounds[i]), min(b + room, bounds[i + 1])))
    return result


def _no_longer(runs: list[Run], longest: int, loudness: NDArray[np.float64]) -> list[Run]:
    """Cut runs that are too long where they are quietest, at least a third of ``longest`` from either end."""
    result = []
    for a, b in runs:
        while b - a > longest:
            first = a + longest // 3
            place = first + int(np.argmin(loudness[first : min(a + longest, b - longest // 3) + 1]))
            result.append((a, place))
            a = place
        result.append((a, b))
    return result


def _mean_around(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of ``width`` values around each, fewer at the ends."""
    width = min(width, len(values))
    box = np.ones(width)
    return np.convolve(values, box, "same") / np.convolve(np.ones(len(values)), box, "same")


def _frames(seconds: float) -> int:
    return round(seconds * _FRAMES_A_SECOND)


def _check_lengths(min_pause: float, min_seconds: float, max_seconds: float, padding: float) -> None:
    for name, value, least, most in (
        ("min_pause", min_pause, 0.05, 60.0),
        ("max_seconds", max_seconds, 1.0, 3600.0),
        ("min_seconds", min_seconds, 0.0, max_seconds / 2),
        ("padding", padding, 0.0, 10.0),
    ):
        if not least <= value <= most:
            raise ConfigError("not a possible length", where=name, got=value, expected=f"{least:g} to {most:g} seconds")


__all__ = ["MAX_SECONDS", "Piece", "cut"]
