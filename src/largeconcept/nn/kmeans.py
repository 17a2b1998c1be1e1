"""K-means for codebooks: spread-out first centroids, Lloyd's iterations, no empty cluster at the end.

Assignments are exact. Where ``faiss`` is installed (``pip install 'largeconcept[quant]'``) it runs the iterations;
without it the same iterations run in torch, also on an accelerator. Both begin with the same centroids and end with the
same repair, so results are of the same kind, though not the same bits.

Shape letters: N vectors, C channels, V centroids.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from largeconcept.errors import ConfigError, DataError, missing_extra

Backend = Literal["auto", "faiss", "torch"]
POINTS_PER_CENTROID = 256  # more than this many vectors for each centroid do not move it much
_SCORES = 1 << 22  # distances held at once
_ROUNDS = 64  # of the first draw


def check_vectors(x: Tensor, where: str, dim: int | None = None) -> None:
    """Refuse anything but finite floating vectors (…, C).

    Raises:
        DataError: integers, no channels, another C than ``dim``, NaN or infinity.
    """
    if x.ndim < 1 or x.shape[-1] == 0 or (dim is not None and x.shape[-1] != dim):
        raise DataError("wrong shape", where=where, expected=f"(…, {dim or 'C'})", got=tuple(x.shape))
    if not x.is_floating_point():
        raise DataError("wrong type", where=where, expected="floating point", got=x.dtype)
    if not bool(torch.isfinite(x).all()):
        place = (~torch.isfinite(x).all(dim=-1)).nonzero()[0].tolist()
        raise DataError("a vector is not finite", where=f"{where}{place or ''}", got="NaN or infinity")


def nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for (N, C) vectors, the index (N,) of the nearest of (V, C) centroids and the squared distance (N,).

    Of centroids at the same distance the first one wins.
    """
    indices, distances = [], []
    norms = centroids.square().sum(dim=-1)
    for rows in torch.split(x, max(_SCORES // len(centroids), 1)):
        # ‖x − c‖² without ‖x‖², which decides nothing.
        least, index = torch.addmm(norms, rows, centroids.t(), alpha=-2.0).min(dim=-1)
        indices.append(index)
        distances.append((least + rows.square().sum(dim=-1)).clamp(min=0.0))
    if not indices:
        return x.new_zeros(0, dtype=torch.long), x.new_zeros(0)
    return torch.cat(indices), torch.cat(distances)


def kmeans(x: Tensor, num_centroids: int, *, iterations: int = 20, seed: int = 0, backend: Backend = "auto") -> Tensor:
    """Return (V, C) float32 centroids of (N, C) vectors, on their device; the same ones for the same seed.

    Of more than 256 V vectors a random part is used.

    Args:
        x: at least V finite vectors.
        num_centroids: V.
        iterations: most rounds of assigning and averaging; fewer when nothing changes.
        seed: of the part that is used and of the first centroids.
        backend: ``faiss``, ``torch``, or ``auto``: faiss where it is installed and the vectors are on the CPU.

    Raises:
        DataError: a wrong shape or type, NaN or infinity, or fewer vectors than centroids.
        ConfigError: a setting out of range.
        DependencyError: ``faiss`` was asked for and is not installed.
    """
    for name, value, least in (("num_centroids", num_centroids, 1), ("iterations", iterations, 0)):
        if value < least:
            raise ConfigError("out of range", where=name, got=value, expected=f"at least {least}")
    if backend not in get_args(Backend):
        raise ConfigError("unknown backend", where="backend", got=backend, expected=", ".join(get_args(Backend)))
    if x.ndim != 2:
        raise DataError("wrong shape", where="vectors", expected="(N, C)", got=tuple(x.shape))
    check_vectors(x, "vectors")
    if len(x) < num_centroids:
        raise DataError(
            "too few vectors for so many centroids",
            where="vectors",
            got=len(x),
            expected=f"at least {num_centroids}",
            hint="lower codebook_size or give more data",
        )
    installed = find_spec("faiss") is not None
    if backend == "faiss" and not installed:
        raise missing_extra("faiss", "quant")
    generator = torch.Generator().manual_seed(seed)
    x = x.detach().float()
    if len(x) > POINTS_PER_CENTROID * num_centroids:
        x = x[torch.randperm(len(x), generator=generator)[: POINTS_PER_CENTROID * num_centroids].to(x.device)]
    centroids = _start(x, num_centroids, generator)
    if backend == "torch" or not installed or x.device.type != "cpu":
        return lloyd(x, centroids, iterations)
    return lloyd(x, _faiss(x, centroids, iterations, seed), min(iterations, 2))


def spread(x: Tensor, num_centroids: int, generator: torch.Generator) -> Tensor:
    """Draw (V, C) first centroids from the vectors, each with probability ∝ squared distance to those before it, where
    distances above twice the mean count as twice the mean.

    Without that bound, outliers are drawn; what quantisers leave over of concepts has many, and codebooks that hold
    them have fewer centroids for all the rest. Clusters that lie apart are still found: whatever is near none of the
    centroids so far is then above the mean.

    This is k-means++ (Arthur & Vassilvitskii 2007) up to 64 centroids; of more, as many are drawn at a time as make 64
    rounds (Bahmani et al. 2012, arXiv:1203.6402, without the second clustering).
    """
    each = -(-num_centroids // _ROUNDS)
    first = int(torch.randint(len(x), (1,), generator=generator))
    chosen = [torch.tensor([first], device=x.device)]
    distance = _distance(x, x[chosen[0]])
    distance[chosen[0]] = 0.0
    left = num_centroids - 1
    while left:
        running = distance.double().clamp(max=2.0 * float(distance.mean())).cumsum(0)
        if not running[-1] > 0:  # every vector is a centroid: any will do
            chosen.append(torch.randint(len(x), (left,), generator=generator).to(x.device))
            break
        draws = torch.rand(min(each, left), generator=generator, dtype=torch.float64).to(x.device) * running[-1]
        picked = torch.searchsorted(running, draws, right=True).clamp(max=len(x) - 1).sort().values
        picked = torch.unique_consecutive(picked)
        chosen.append(picked)
        distance = torch.minimum(distance, _distance(x, x[picked]))
        distance[picked] = 0.0
        left -= len(picked)
    return x[torch.cat(chosen)].clone()


def _start(x: Tensor, num_centroids: int, generator: torch.Generator) -> Tensor:
    """Return the better one, after three iterations, of two sets of first centroids: :func:`spread`, and random vectors
    brought near the mean.

    The second is for what has no clusters. There, in many dimensions, two vectors are farther from each other than from
    the mean, so a first centroid that happens to lie near it takes all vectors and leaves the others one each; near the
    mean all begin alike.
    """
    mean = x.mean(dim=0)
    random = x[torch.randperm(len(x), generator=generator)[:num_centroids].to(x.device)]
    starts = [spread(x, num_centroids, generator), torch.lerp(mean, random, 0.1)]
    tried = [lloyd(x, start, 3) for start in starts]
    errors = [float(nearest(x, one)[1].double().sum()) for one in tried]
    return tried[0] if errors[0] <= errors[1] else tried[1]


def lloyd(x: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """Assign (N, C) vectors to the nearest centroid and move (V, C) centroids to their means, until nothing changes.

    A centroid without vectors goes to the vector that is farthest from its own, if that is anywhere else.
    """
    before: Tensor | None = None
    for _ in range(iterations):
        index, distance = nearest(x, centroids)
        counts = torch.bincount(index, minlength=len(centroids))
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            far = distance.topk(min(len(empty), len(x))).indices
            far = far[distance[far] > 1e-12]
            index[far] = empty[: len(far)]
            counts = torch.bincount(index, minlength=len(centroids))
        elif before is not None and torch.equal(index, before):
            break
        before = index
        sums = torch.zeros_like(centroids).index_add_(0, index, x)
        means = sums / counts.clamp(min=1).unsqueeze(-1)
        centroids = torch.where((counts > 0).unsqueeze(-1), means, centroids)
    return centroids


def _distance(x: Tensor, centroids: Tensor) -> Tensor:
    return nearest(x, centroids)[1]


def _faiss(x: Tensor, centroids: Tensor, iterations: int, seed: int) -> Tensor:
    import faiss

    engine = faiss.Kmeans(
        x.shape[1],
        len(centroids),
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    engine.train(x.contiguous().numpy(), init_centroids=centroids.numpy())
    return torch.from_numpy(np.array(engine.centroids))
