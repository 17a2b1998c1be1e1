"""The shape of a concept space: does it use its channels, or has it collapsed?

A space that has collapsed puts everything near one point or line: vectors are alike (mean cosine near 1), hardly vary
(trace of the covariance near 0), or vary in few directions (participation ratio of a few).

Shape letters: N concepts, C concept dimension, G groups of documents.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from largeconcept.errors import DataError
from largeconcept.eval.statistics import Array, Estimate, draws, interval

GROUPS = 64
"""Documents are put into this many groups at most, which are what is resampled."""
_ROWS = 2048


def space_figures(
    concepts: Tensor, documents: Sequence[Hashable], *, number: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Measure the spread of concepts, with intervals over documents.

    * ``norm``: mean Euclidean length.
    * ``variance``: trace of the covariance, the mean squared distance from the mean.
    * ``participation_ratio``: (Σ λ)² / Σ λ² of the covariance's eigenvalues λ: how many directions are used, from 1 to
      C (Gao et al. 2017, https://doi.org/10.1101/214262).
    * ``isotropy``: that, divided by C.
    * ``mean_cosine``: of two concepts of different documents; 0 in a space without a preferred direction
      (arXiv:1909.00512, section 3).

    Sums of squares and products of concepts run over pairs from *different* groups of documents. Pairs within a group,
    and a concept with itself, would make a small sample look flatter than its space is, and resampled ones more so.
    The mean is that of the whole sample, in the resamplings too.

    Args:
        concepts: (N, C).
        documents: of each concept.
        number: resamplings.
        seed: of the groups and resamplings.

    Raises:
        DataError: another number of documents, concepts of fewer than two documents, or values that are not finite.
    """
    if concepts.ndim != 2 or len(concepts) != len(documents):
        got = f"{tuple(concepts.shape)}, {len(documents)} documents"
        raise DataError("wrong shape", where="concepts", expected="(N, C) and N documents", got=got)
    if not bool(torch.isfinite(concepts).all()):
        raise DataError("a concept is not finite", where="concepts")
    groups = _groups(documents, seed)
    count = int(groups.max()) + 1 if len(groups) else 0
    if count < 2:
        raise DataError("concepts of two documents are needed", where="concepts", got=count)
    x = concepts.double()
    centered = x - x.mean(dim=0)
    unit = torch.nn.functional.normalize(x, dim=1)
    owner = torch.from_numpy(groups)

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add_(0, owner, values)

    sizes = summed(torch.ones(len(x), 1, dtype=torch.float64)).squeeze(1).numpy()
    lengths = summed(x.norm(dim=1, keepdim=True)).squeeze(1).numpy()
    squares = summed(centered.square().sum(dim=1, keepdim=True)).squeeze(1).numpy()
    directions = summed(unit)
    cosines = (directions @ directions.T).numpy()
    # tr(Σ_g Σ_h) is the sum of squared products between the rows of two groups.
    products = torch.zeros(count, count, dtype=torch.float64)
    for start in range(0, len(x), _ROWS):
        part = slice(start, start + _ROWS)
        rows = summed((centered @ centered[part].T).square())
        products.index_add_(1, owner[part], rows)

    def figures(weights: Array) -> dict[str, Array]:
        """Values for (…, G) weights of the groups."""
        total = weights @ sizes

        def pairs(table: Array) -> Array:
            whole = np.einsum("...g,gh,...h->...", weights, table, weights)
            return np.asarray(whole - (weights**2) @ np.diag(table))

        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = pairs(np.outer(squares, squares)) / pairs(products.numpy())
            return {
                "norm": (weights @ lengths) / total,
                "variance": (weights @ squares) / total,
                "participation_ratio": ratio,
                "isotropy": ratio / x.shape[1],
                "mean_cosine": pairs(cosines) / pairs(np.outer(sizes, sizes)),
            }

    own = figures(np.ones(count))
    resampled = figures(draws(count, number, (seed, 1)).astype(np.float64))
    return {name: Estimate(float(own[name]), *interval(resampled[name]), len(x)) for name in own}


def _groups(documents: Sequence[Hashable], seed: int) -> np.ndarray:
    """Return (N,) the group of each concept: documents, dealt out at random."""
    places: dict[Hashable, int] = {}
    owner = np.array([places.setdefault(name, len(places)) for name in documents], dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(places))
    return order[owner] % GROUPS if len(places) else owner
