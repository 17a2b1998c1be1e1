"""Between a codec's own space and the space in which models work, where every channel has centre 0 and scale 1.

LCM paper (arXiv:2412.08821), section 2.2: ``normalize(x) = (x - center) / scale``, and the same backwards; centre and
scale are robust statistics (median and inter-quartile range) of concepts of the training data.

Shape letters: N concepts, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import CheckpointError, ConfigError, DataError, did_you_mean
from largeconcept.io import load_strict, read_json, read_safetensors, require_folder, write_json, write_safetensors

NormalizerMethod = Literal["robust", "standard", "none", "meta"]

# Quantiles of the standard normal distribution: what a difference of quantiles is divided by to give its sigma.
_IQR_OF_NORMAL = 1.3489795003921634
_LOW_TAIL_OF_NORMAL = 0.3746548477573263  # between the 0.25 % and the 0.75 % quantile
_CONSTANT = 1e-3


class NormalizerConfig(Config):
    """What is written beside the tensors of a normaliser.

    Attributes:
        dim: C.
        method: how center and scale were found; see :meth:`ConceptNormalizer.fit`.
        clip_proba: share of the data cut off at each end, or ``None``.
        fft: normalise the real Fourier transform of each vector instead of the vector.
        num_samples: number of concepts that it was fitted on.
        format_version: of this folder.
    """

    dim: int = Field(ge=1)
    method: NormalizerMethod = "none"
    clip_proba: float | None = Field(default=None, gt=0, lt=0.5)
    fft: bool = False
    num_samples: int = Field(default=0, ge=0)
    format_version: Literal[1] = 1


class ConceptNormalizer(nn.Module):
    """Normalises and denormalises concepts; a module without trainable parameters.

    Computes in float32 and returns float32, whatever the input's type and whatever the type of the model around it:
    converting this module to another type moves it without rounding its statistics.

    Attributes:
        center, scale: (C,) float32.
        clip_min, clip_max: (C,) float32 bounds in normalised space; only with ``clip_proba``.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self, config: NormalizerConfig, center: Tensor, scale: Tensor, clip: tuple[Tensor, Tensor] | None = None
    ) -> None:
        super().__init__()
        if config.fft:
            _check_even(config.dim)
        self.config = config
        self.register_buffer("center", center.detach().to(torch.float32, copy=True))
        self.register_buffer("scale", scale.detach().to(torch.float32, copy=True))
        if (config.clip_proba is not None) != (clip is not None):
            raise ConfigError("clip_proba and the clip bounds belong together", where="normalizer")
        if clip is not None:
            self.register_buffer("clip_min", clip[0].detach().to(torch.float32, copy=True))
            self.register_buffer("clip_max", clip[1].detach().to(torch.float32, copy=True))

    @property
    def dim(self) -> int:
        """C, the number of channels."""
        return self.config.dim

    def normalize(self, x: Tensor) -> Tensor:
        """Map (…, C) concepts from the codec's space to normalised space, float32.

        Raises:
            DataError: another number of channels.
        """
        x = self._checked(x)
        if self.config.fft:
            x = _to_fourier(x)
        return self._clipped((x - self.center) / self.scale)

    def denormalize(self, x: Tensor) -> Tensor:
        """Map (…, C) normalised concepts back to the codec's space, float32.

        Raises:
            DataError: another number of channels.
        """
        x = self._clipped(self._checked(x)) * self.scale + self.center
        return _from_fourier(x) if self.config.fft else x

    @classmethod
    def identity(cls, dim: int) -> ConceptNormalizer:
        """Return the normaliser that changes nothing."""
        return cls(NormalizerConfig(dim=dim), torch.zeros(dim), torch.ones(dim))

    @classmethod
    def fit(
        cls,
        batches: Iterable[Tensor],
        method: NormalizerMethod = "robust",
        max_samples: int = 200_000,
        seed: int = 0,
        *,
        clip_proba: float | None = None,
        fft: bool = False,
    ) -> ConceptNormalizer:
        """Find center and scale in a stream of (N, C) concepts.

        Methods:
            ``robust``: median, and inter-quartile range times 0.7413 (sigma of a normal distribution).
            ``standard``: mean and standard deviation of all concepts.
            ``none``: 0 and 1.
            ``meta``: median, and the difference of the 0.75 % and 0.25 % quantiles divided by 0.3747. This is what the
                reference implementation computes: it hands fractions to a function that takes per cent.

        A channel whose scale is under a thousandth of the median scale of all channels gets its own standard deviation
        as scale (many equal values, a few others), and if that is as small (a constant channel) the median scale, so
        that small errors of a model stay small in it. ``meta`` uses 1 where the scale is 0, as the reference.

        Args:
            batches: tensors of any length, in any floating type.
            method: see above.
            max_samples: quantiles are those of a random sample of this size; it is held in memory, 4 · C bytes for
                each. The sample does not depend on how the stream is cut into batches.
            seed: of that sample.
            clip_proba: also find the quantiles ``p`` and ``1 - p`` of the normalised data, and cut there.
            fft: normalise the Fourier transform.

        Raises:
            DataError: NaN or infinity, batches of different dimensions, or fewer than two concepts.
            ConfigError: an unknown method or setting.
        """
        if method not in get_args(NormalizerMethod):
            hint = did_you_mean(method, get_args(NormalizerMethod))
            raise ConfigError("unknown method", where="normalizer", got=method, hint=hint)
        if max_samples < 2:
            raise ConfigError("out of range", where="max_samples", got=max_samples, expected="at least 2")
        moments = _Moments()
        sample = _Sample(max_samples, seed)
        for index, batch in enumerate(batches):
            rows = _as_rows(batch, index, moments.dim)
            if fft:
                _check_even(rows.shape[1])
                rows = _to_fourier(rows)
            moments.add(rows)
            if method in ("robust", "meta") or clip_proba is not None:
                sample.add(rows)
        if moments.count < 2 or moments.dim is None:
            raise DataError(
                "too few concepts to fit a normalizer", where="normalizer", got=moments.count, expected="at least 2"
            )
        config = NormalizerConfig.from_dict(
            {"dim": moments.dim, "method": method, "clip_proba": clip_proba, "fft": fft, "num_samples": moments.count},
            where="normalizer",
        )
        center, scale = _statistics(method, moments, sample)
        clip: tuple[Tensor, Tensor] | None = None
        if clip_proba is not None:
            low, high = sample.quantiles([clip_proba, 1.0 - clip_proba])
            clip = ((low - center) / scale, (high - center) / scale)
        return cls(config, center, scale, clip)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        write_safetensors(Path(folder) / "model.safetensors", self.state_dict())
        write_json(Path(folder) / "config.json", self.config.to_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ConceptNormalizer:
        """Read what :meth:`save_pretrained` wrote.

        Raises:
            CheckpointError: files are missing, damaged, or hold a scale that is not positive.
            ConfigError: ``config.json`` describes something else.
        """
        path = require_folder(folder, "normalizer")
        config = NormalizerConfig.from_dict(read_json(path / "config.json"), where=str(path / "config.json"))
        zeros = torch.zeros(config.dim)
        clip = None if config.clip_proba is None else (zeros, zeros)
        normalizer = cls(config, zeros, torch.ones(config.dim), clip)
        where = path / "model.safetensors"
        load_strict(normalizer, read_safetensors(where), where)
        for name, tensor in normalizer.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError("a value is not finite", where=f"{where}: {name}")
        if not bool((normalizer.scale > 0).all()):
            raise CheckpointError("a scale is not positive", where=f"{where}: scale", got=float(normalizer.scale.min()))
        return normalizer

    def extra_repr(self) -> str:
        """Describe the normaliser in the printed form of a model."""
        return f"dim={self.dim}, method={self.config.method}"

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.config.dim:
            raise DataError(
                "concepts of another dimension",
                where="normalizer",
                expected=self.config.dim,
                got=tuple(x.shape),
                hint="the normalizer was fitted on another concept space",
            )
        return x.to(torch.float32)

    def _clipped(self, x: Tensor) -> Tensor:
        if self.config.clip_proba is None:
            return x
        return torch.maximum(torch.minimum(x, self.get_buffer("clip_max")), self.get_buffer("clip_min"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self.get_buffer(name)
            if moved.dtype != torch.float32:
                setattr(self, name, buffer.to(moved.device))
        return self


class _Moments:
    """Running mean and variance of each channel in float64 (Chan, Golub & LeVeque 1979)."""

    def __init__(self) -> None:
        self.dim: int | None = None
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.squares = torch.zeros(0, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        if self.dim is None:
            self.dim = rows.shape[1]
            self.mean = torch.zeros(self.dim, dtype=torch.float64)
            self.squares = torch.zeros(self.dim, dtype=torch.float64)
        if not len(rows):
            return
        wide = rows.double()
        mean = wide.mean(dim=0)
        total = self.count + len(rows)
        self.squares += (wide - mean).square().sum(dim=0) + (mean - self.mean).square() * (
            self.count * len(rows) / total
        )
        self.mean += (mean - self.mean) * (len(rows) / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        return (self.squares / self.count).sqrt()


class _Sample:
    """A uniform random sample of a stream: the rows whose hashed number in the stream is smallest."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.random = StepRandom(seed)
        self.seen = 0
        self.rows: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.held = 0
        self.limit: int | None = None

    def add(self, rows: Tensor) -> None:
        keys = self.random.integers("normalizer", torch.arange(self.seen, self.seen + len(rows)), (), 1 << 30)
        self.seen += len(rows)
        if self.limit is not None:
            chosen = keys < self.limit
            rows, keys = rows[chosen], keys[chosen]
        self.rows.append(rows.clone())
        self.keys.append(keys)
        self.held += len(rows)
        if self.held > self.size + max(self.size // 4, 1024):
            self._prune()

    def quantiles(self, probabilities: list[float]) -> list[Tensor]:
        """Return one (C,) float64 tensor for each probability, interpolated linearly."""
        self._prune()
        rows = self.rows[0].numpy()
        found = []
        for start in range(0, rows.shape[1], 32):  # a few channels at a time: numpy copies what it sorts
            columns = np.ascontiguousarray(rows[:, start : start + 32].T).astype(np.float64)
            found.append(np.quantile(columns, probabilities, axis=1))
        return list(torch.from_numpy(np.concatenate(found, axis=1)).unbind(0))

    def _prune(self) -> None:
        rows, keys = torch.cat(self.rows), torch.cat(self.keys)
        if len(rows) > self.size:
            keys, order = keys.sort(stable=True)
            kept = order[: self.size].sort().values
            self.limit = int(keys[self.size - 1])
            rows, keys = rows[kept], torch.cat(self.keys)[kept]
        self.rows, self.keys, self.held = [rows], [keys], len(rows)


def _statistics(method: NormalizerMethod, moments: _Moments, sample: _Sample) -> tuple[Tensor, Tensor]:
    """Return center and scale, (C,) float64 each."""
    if method == "none":
        return torch.zeros_like(moments.mean), torch.ones_like(moments.mean)
    if method == "meta":
        low, high, center = sample.quantiles([0.0025, 0.0075, 0.5])
        scale = (high - low) / _LOW_TAIL_OF_NORMAL
        return center, torch.where(scale == 0, 1.0, scale)
    std = moments.std
    if method == "standard":
        center, scale = moments.mean, std
    else:
        low, center, high = sample.quantiles([0.25, 0.5, 0.75])
        scale = (high - low) / _IQR_OF_NORMAL
    # Medians of scales, not of standard deviations: outliers must not decide which robust scale is too small.
    found = scale[scale > 0] if bool((scale > 0).any()) else std[std > 0]
    typical = found.median() if len(found) else torch.ones((), dtype=torch.float64)
    floor = _CONSTANT * typical
    return center, torch.where(scale >= floor, scale, torch.where(std >= floor, std, typical))


def _as_rows(batch: Tensor, index: int, dim: int | None) -> Tensor:
    where = f"batch {index}"
    if batch.ndim != 2 or (dim is not None and batch.shape[1] != dim):
        raise DataError("wrong shape", where=where, expected=f"(N, {dim or 'C'})", got=tuple(batch.shape))
    rows = batch.detach().to("cpu", torch.float32)
    finite = torch.isfinite(rows).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0, 0])
        raise DataError(
            "a concept is not finite",
            where=f"{where}, row {bad}",
            hint="check the dataset with: largeconcept data inspect",
        )
    return rows


def _check_even(dim: int) -> None:
    if dim % 2:
        raise ConfigError("the Fourier variant needs an even number of channels", where="fft", got=dim)


def _to_fourier(x: Tensor) -> Tensor:
    """Real Fourier transform as C numbers: C/2 + 1 real parts, then the C/2 - 1 imaginary parts that are not 0."""
    spectrum = torch.fft.rfft(x, norm="backward")
    return torch.cat([spectrum.real, spectrum.imag[..., 1:-1]], dim=-1)


def _from_fourier(x: Tensor) -> Tensor:
    dim = x.shape[-1]
    real, imaginary = x[..., : dim // 2 + 1], x[..., dim // 2 + 1 :]
    padded = nn.functional.pad(imaginary, (1, 1))
    restored: Tensor = torch.fft.irfft(torch.complex(real, padded), n=dim, norm="backward")
    return restored
