"""Residual vector quantisation: a vector as a sum of centroids, one from each of Q codebooks.

Codebook q quantises what the first q - 1 left over (arXiv:2107.03312, §III-C; arXiv:2412.08821, §2.3.4): with
``r_0 = x``, index ``i_q = argmin_v ‖r_{q-1} − c_{q,v}‖`` and ``r_q = r_{q-1} − c_{q,i_q}``. Any number of leading
codebooks gives an approximation, and each further one a better one on average. Vectors are normalised concepts when a
model uses this; the quantiser itself knows nothing of normalisers.

Shape letters: N vectors, C channels, Q codebooks, V centroids of a codebook.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.io import load_strict, read_json, read_safetensors, require_folder, write_json, write_safetensors
from largeconcept.nn.kmeans import Backend, check_vectors, kmeans, nearest

_SCORES = 1 << 22  # distances that the beam search holds at once
_EMA_BATCH = 4096


class QuantizerConfig(Config):
    """What is written beside the codebooks.

    Attributes:
        dim: C.
        num_quantizers: Q; the paper's concepts have 64.
        codebook_size: V; 8192 in the paper.
        num_samples: number of vectors that the codebooks were fitted on.
        format_version: of this folder.
    """

    dim: int = Field(ge=1)
    num_quantizers: int = Field(default=64, ge=1)
    codebook_size: int = Field(default=8192, ge=1)
    num_samples: int = Field(default=0, ge=0)
    format_version: Literal[1] = 1


class ResidualVectorQuantizer(nn.Module):
    """Q codebooks; a module without trainable parameters.

    Attributes:
        codebooks: (Q, V, C); zeros until they are fitted or loaded.
    """

    codebooks: Tensor

    def __init__(self, config: QuantizerConfig, codebooks: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        shape = (config.num_quantizers, config.codebook_size, config.dim)
        if codebooks is not None and tuple(codebooks.shape) != shape:
            raise DataError("wrong shape", where="codebooks", expected=shape, got=tuple(codebooks.shape))
        self.register_buffer("codebooks", torch.zeros(shape) if codebooks is None else codebooks.detach().clone())

    @property
    def is_fitted(self) -> bool:
        """Whether there are codebooks (one host synchronisation on an accelerator)."""
        return bool(self.codebooks[0].any())

    @classmethod
    def fit(
        cls,
        vectors: Tensor | Iterable[Tensor],
        num_quantizers: int = 64,
        codebook_size: int = 8192,
        *,
        iterations: int = 20,
        passes: int = 0,
        decay: float = 0.9,
        beam: int = 1,
        seed: int = 0,
        backend: Backend = "auto",
    ) -> ResidualVectorQuantizer:
        """Find codebooks level by level: k-means of what the levels before leave over.

        Args:
            vectors: (N, C), or several of that shape; all are held in memory.
            num_quantizers: Q.
            codebook_size: V.
            iterations: of k-means, see :func:`~largeconcept.nn.kmeans.kmeans`.
            passes: how often to go through all vectors once more: each batch is encoded, from its residuals all
                codebooks move on as exponential moving averages (arXiv:2107.03312, §III-C), and centroids that nothing
                is near start anew at a random residual. The best codebooks met on the way are kept.
            decay: of these averages, for each batch of 4096 vectors.
            beam: width of the search that assigns vectors in these passes.
            seed: of all that is random.
            backend: of k-means.

        Raises:
            DataError: vectors of different dimensions, NaN or infinity, or fewer vectors than ``codebook_size``.
            ConfigError: a setting out of range.
        """
        if passes < 0 or not 0.0 <= decay < 1.0:
            raise ConfigError("out of range", where="passes, decay", got=(passes, decay), expected="≥ 0, in [0, 1)")
        x = _stacked(vectors)
        config = QuantizerConfig(
            dim=x.shape[1], num_quantizers=num_quantizers, codebook_size=codebook_size, num_samples=len(x)
        )
        residual, codebooks = x.clone(), []
        for level in range(num_quantizers):
            centroids = kmeans(residual, codebook_size, iterations=iterations, seed=seed + level, backend=backend)
            residual -= centroids[nearest(residual, centroids)[0]]
            codebooks.append(centroids)
        quantizer = cls(config, torch.stack(codebooks))
        if passes:
            quantizer._improve(x, passes, decay, beam, seed)
        return quantizer

    def encode(self, x: Tensor, beam: int = 1) -> Tensor:
        """Return the indices (…, Q) int64 of (…, C) vectors.

        Args:
            x: finite vectors.
            beam: 1 takes the nearest centroid at each level; more keeps that many partial sums for each vector and
                takes the best in the end, or the result of 1 should that be better.

        Raises:
            DataError: another number of channels, integers, NaN or infinity, or codebooks that were never fitted.
            ConfigError: a beam under 1.
        """
        if beam < 1:
            raise ConfigError("out of range", where="beam", got=beam, expected="at least 1")
        check_vectors(x, "vectors", self.config.dim)
        self.require_fitted()
        return self.search(x, beam)

    @torch.no_grad()
    def search(self, x: Tensor, beam: int = 1) -> Tensor:
        """:meth:`encode` without its checks: nothing waits for the device."""
        rows = x.detach().reshape(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            rows, codebooks = rows.float(), self.codebooks.float()
            indices, error = _greedy(rows, codebooks)
            if beam > 1:
                each = max(_SCORES // (beam * self.config.codebook_size), 1)
                parts = [_beam(part, codebooks, beam) for part in torch.split(rows, each)]
                if parts:
                    found, found_error = (torch.cat(one) for one in zip(*parts, strict=True))
                    indices = torch.where((found_error < error).unsqueeze(-1), found, indices)
        return indices.view(*x.shape[:-1], self.config.num_quantizers)

    def decode(self, indices: Tensor, num_quantizers: int | Tensor | None = None) -> Tensor:
        """Return the sums (…, C) float32 of the centroids that (…, Q') indices name; Q' ≤ Q.

        Args:
            indices: as :meth:`encode` gives them; the first Q' levels alone are fine.
            num_quantizers: how many leading codebooks count: one number, or (…) int64 with one for each vector; all
                by default. 0 gives the zero vector.

        Raises:
            DataError: too many levels, indices outside 0..V-1, not integers.
        """
        levels = indices.shape[-1] if indices.ndim else 0
        if indices.is_floating_point() or not 0 < levels <= self.config.num_quantizers:
            expected = f"integers (…, ≤ {self.config.num_quantizers})"
            raise DataError("wrong indices", where="indices", expected=expected, got=f"{indices.dtype} {indices.shape}")
        if indices.numel() and not (int(indices.min()) >= 0 and int(indices.max()) < self.config.codebook_size):
            raise DataError(
                "an index is outside the codebook", where="indices", expected=f"0 to {self.config.codebook_size - 1}"
            )
        return self.sum(indices, num_quantizers)

    def sum(self, indices: Tensor, num_quantizers: int | Tensor | None = None) -> Tensor:
        """:meth:`decode` without its checks: nothing waits for the device."""
        levels = indices.shape[-1]
        level = torch.arange(levels, device=indices.device)
        flat = (indices + level * self.config.codebook_size).reshape(-1, levels)
        weights = None
        if num_quantizers is not None:
            number = torch.as_tensor(num_quantizers, device=indices.device).expand(indices.shape[:-1])
            weights = (level < number.unsqueeze(-1)).to(self.codebooks.dtype).reshape(-1, levels)
        table = self.codebooks.flatten(0, 1)
        out = F.embedding_bag(flat, table, mode="sum", per_sample_weights=weights)
        return out.float().view(*indices.shape[:-1], self.config.dim)

    def forward(self, x: Tensor, beam: int = 1) -> Tensor:
        """Return the quantised vectors (…, C) float32: :meth:`encode`, then :meth:`decode`."""
        return self.sum(self.encode(x, beam))

    def errors(self, x: Tensor, beam: int = 1) -> Tensor:
        """Return (Q + 1,) float32: the mean squared distance from (…, C) vectors to their first 0, 1, … Q centroids."""
        indices, rows = self.encode(x, beam).flatten(0, -2), x.float().reshape(-1, x.shape[-1])
        found = [rows.square().sum(dim=-1).mean()]
        for number in range(1, self.config.num_quantizers + 1):
            found.append((rows - self.sum(indices, number)).square().sum(dim=-1).mean())
        return torch.stack(found)

    def require_fitted(self) -> None:
        """Refuse to work with codebooks of zeros.

        Raises:
            DataError: they were never fitted.
        """
        if not self.is_fitted:
            raise DataError(
                "the codebooks are empty", where="quantizer", hint="fit them on data, or load a quantiser that was"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        write_safetensors(Path(folder) / "model.safetensors", self.state_dict())
        write_json(Path(folder) / "config.json", self.config.to_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ResidualVectorQuantizer:
        """Read what :meth:`save_pretrained` wrote.

        Raises:
            CheckpointError: files are missing or damaged, or hold values that are not finite.
            ConfigError: ``config.json`` describes something else.
        """
        path = require_folder(folder, "quantiser")
        config = QuantizerConfig.from_dict(read_json(path / "config.json"), where=str(path / "config.json"))
        with torch.device("meta"):
            quantizer = cls(config)
        quantizer, where = quantizer.to_empty(device="cpu"), path / "model.safetensors"
        load_strict(quantizer, read_safetensors(where), where)
        if not bool(torch.isfinite(quantizer.codebooks).all()):
            raise CheckpointError("a value is not finite", where=f"{where}: codebooks")
        return quantizer

    def extra_repr(self) -> str:
        """Describe the quantiser in the printed form of a model."""
        return f"num_quantizers={self.config.num_quantizers}, codebook_size={self.config.codebook_size}"

    @torch.no_grad()
    def _improve(self, x: Tensor, passes: int, decay: float, beam: int, seed: int) -> None:
        """Move the codebooks as :meth:`fit` says; keep the best that were met, judged on all vectors."""
        generator = torch.Generator().manual_seed(seed)
        size, batch = self.config.codebook_size, min(_EMA_BATCH, len(x))
        found = [torch.bincount(one, minlength=size) for one in self.search(x, beam).unbind(-1)]
        counts = torch.stack(found).float() * (batch / len(x))
        sums = self.codebooks * counts.unsqueeze(-1)
        best, least = self.codebooks.clone(), float(self.errors(x, beam)[-1])
        for _ in range(passes):
            for rows in torch.split(torch.randperm(len(x), generator=generator).to(x.device), batch):
                part = x[rows]
                self._move(part, self.search(part, beam), counts, sums, decay, generator)
            error = float(self.errors(x, beam)[-1])
            if error < least:
                best, least = self.codebooks.clone(), error
        self.codebooks.copy_(best)

    def _move(
        self, x: Tensor, indices: Tensor, counts: Tensor, sums: Tensor, decay: float, generator: torch.Generator
    ) -> None:
        """Move one codebook after the other towards the means of what all others leave over of a batch."""
        left = x - self.sum(indices)
        for level, codebook in enumerate(self.codebooks):
            index = indices[:, level]
            target = left + codebook[index]
            counts[level].mul_(decay).add_(torch.bincount(index, minlength=len(codebook)).float(), alpha=1 - decay)
            sums[level].mul_(decay).index_add_(0, index, target, alpha=1 - decay)
            dead = (counts[level] < 1e-2).nonzero().flatten()
            if len(dead):
                rows = torch.randint(len(x), (len(dead),), generator=generator).to(x.device)
                sums[level, dead], counts[level, dead] = target[rows], 1.0
            codebook.copy_(sums[level] / counts[level].unsqueeze(-1))
            left = target - codebook[index]


def _greedy(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Return indices (N, Q) and squared errors (N,) of (N, C) vectors, the nearest centroid at each level."""
    residual, indices = x.clone(), []
    for codebook in codebooks:
        index = nearest(residual, codebook)[0]
        residual -= codebook[index]
        indices.append(index)
    return torch.stack(indices, dim=-1), residual.square().sum(dim=-1)


def _beam(x: Tensor, codebooks: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return indices (N, Q) and squared errors (N,): at each level the ``width`` best partial sums live on."""
    number, dim = x.shape
    residual = x.unsqueeze(1)  # (N, paths, C)
    indices = x.new_zeros(number, 1, 0, dtype=torch.long)
    for codebook in codebooks:
        paths, size = residual.shape[1], len(codebook)
        norms = codebook.square().sum(dim=-1)
        scores = torch.addmm(norms, residual.flatten(0, 1), codebook.t(), alpha=-2.0).view(number, paths, size)
        scores = (scores + residual.square().sum(dim=-1, keepdim=True)).flatten(1)
        kept = scores.topk(min(width, scores.shape[1]), largest=False).indices
        path, index = kept // size, kept % size
        residual = residual.gather(1, path.unsqueeze(-1).expand(-1, -1, dim)) - codebook[index]
        earlier = indices.gather(1, path.unsqueeze(-1).expand(-1, -1, indices.shape[-1]))
        indices = torch.cat((earlier, index.unsqueeze(-1)), dim=-1)
    error, best = residual.square().sum(dim=-1).min(dim=1)
    return indices[torch.arange(number, device=x.device), best], error


def _stacked(vectors: Tensor | Iterable[Tensor]) -> Tensor:
    """Return (N, C) float32 of one tensor or several.

    Raises:
        DataError: ragged vectors, a wrong type, NaN or infinity, or none at all.
    """
    parts, dim = [], None
    for number, part in enumerate([vectors] if isinstance(vectors, Tensor) else vectors):
        where = "vectors" if isinstance(vectors, Tensor) else f"vectors, batch {number}"
        if not isinstance(part, Tensor) or part.ndim != 2 or (dim is not None and part.shape[1] != dim):
            got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise DataError("wrong shape", where=where, expected=f"a tensor (N, {dim or 'C'})", got=got)
        check_vectors(part, where)
        parts.append(part.detach().float())
        dim = part.shape[1]
    if not parts:
        raise DataError("no vectors", where="vectors")
    return torch.cat(parts)
