"""How far the concepts that a model writes are from those that people write, as distributions.

The measure of MAUVE (arXiv:2102.01454): both sets are put into common clusters, and the histograms P (human) and Q
(model) compared with all their mixtures R = λ P + (1 − λ) Q. A model that writes what nobody writes has a large
KL(Q ‖ R), one that leaves out much of what people write a large KL(P ‖ R); the area under the curve of
exp(−c KL(Q ‖ R)) against exp(−c KL(P ‖ R)) is 1 for equal distributions and near 0 for those that share nothing.

Shape letters: N, M concepts, C concept dimension, V clusters, L mixtures.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.statistics import Array
from largeconcept.nn.kmeans import check_vectors, kmeans, nearest

SCALING = 5.0
"""c, as in the paper (section 3)."""
MOST_CLUSTERS = 500
_MIXTURES = 1001


def divergence(
    human: Tensor, model: Tensor, *, num_clusters: int | None = None, scaling: float = SCALING, seed: int = 0
) -> float:
    """Return the area, in (0, 1], under the divergence curve of human and model concepts; 1 is best.

    Two halves of one set of human concepts do not reach 1 either, and the fewer concepts the less: compare values of
    equal numbers of concepts only, and with that of human text against human text.

    Args:
        human: (N, C) concepts of human text.
        model: (M, C) concepts of model text.
        num_clusters: V; by default a tenth of the smaller set, between 2 and 500.
        scaling: c.
        seed: of the clusters.

    Note: MAUVE describes a text by one state of GPT-2; here every sentence is a concept. Vectors are scaled to length 1
    and not reduced by PCA, and the curve has 1001 points instead of 25.

    Raises:
        DataError: other shapes, values that are not finite, or an empty set.
        ConfigError: a setting out of range, or more clusters than concepts.
    """
    for name, x in (("human", human), ("model", model)):
        check_vectors(x, name)
        if x.ndim != 2 or not len(x) or x.shape[1] != human.shape[-1]:
            expected = f"(N, {human.shape[-1]}), N ≥ 1"
            raise DataError("not concepts to compare", where=name, got=tuple(x.shape), expected=expected)
    clusters = num_clusters
    if clusters is None:
        clusters = min(max(round(min(len(human), len(model)) / 10), 2), MOST_CLUSTERS)
    pooled = torch.nn.functional.normalize(torch.cat([human, model]).detach().float(), dim=-1)
    if not 1 <= clusters <= len(pooled):
        raise ConfigError("out of range", where="num_clusters", got=clusters, expected=f"1 to {len(pooled)}")
    # One backend for all machines: figures must not depend on what else is installed.
    index, _ = nearest(pooled, kmeans(pooled, clusters, seed=seed, backend="torch"))
    counts = [torch.bincount(part, minlength=clusters) for part in (index[: len(human)], index[len(human) :])]
    p, q = (count.double().cpu().numpy() for count in counts)
    return frontier_area(p, q, scaling)


def frontier_area(p: ArrayLike, q: ArrayLike, scaling: float = SCALING) -> float:
    """Return the area under the divergence curve of two histograms (V,); they need not sum to 1.

    Of histograms that share nothing it is c Γ(c) Γ(c + 1) / Γ(2 c + 1), which is 0.004 for c = 5.

    Raises:
        DataError: other lengths, negative or no counts.
        ConfigError: ``scaling`` is not positive.
    """
    if scaling <= 0:
        raise ConfigError("out of range", where="scaling", got=scaling, expected="above 0")
    x, y = frontier(p, q, scaling)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def frontier(p: ArrayLike, q: ArrayLike, scaling: float = SCALING) -> tuple[Array, Array]:
    """Return the curve: (L,) values exp(−c KL(Q ‖ R)), ascending from 0 to 1, and exp(−c KL(P ‖ R)) from 1 to 0.

    Raises:
        DataError: other lengths, negative or no counts.
    """
    histograms = []
    for name, counts in (("p", p), ("q", q)):
        one = np.asarray(counts, dtype=np.float64)
        if one.ndim != 1 or bool((one < 0).any()) or not bool(np.isfinite(one).all()) or one.sum() <= 0:
            raise DataError("not a histogram", where=name, got=one.shape, expected="(V,) counts, not all 0")
        histograms.append(one / one.sum())
    human, model = histograms
    if human.shape != model.shape:
        raise DataError("not histograms of the same clusters", where="q", got=model.shape, expected=human.shape)
    # λ from 1 to 0, ends left out: a distribution that lies partly outside of the other is infinitely far from it.
    weights = np.linspace(0, 1, _MIXTURES + 2)[-2:0:-1, None]
    mixtures = weights * human + (1 - weights) * model
    x, y = (np.exp(-scaling * _divergence(one, mixtures)) for one in (model, human))
    return np.concatenate([[0.0], x, [1.0]]), np.concatenate([[1.0], y, [0.0]])


def _divergence(p: Array, mixtures: Array) -> Array:
    """KL(p ‖ r) of (V,) and (L, V) that are positive where p is."""
    held = p > 0
    found = (p[held] * np.log(p[held] / mixtures[:, held])).sum(axis=1)
    return np.asarray(np.maximum(found, 0.0))
