"""When a document is finished: the stop concept, a repetition, or the greatest length.

Shape letters: B batch, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.errors import DataError
from largeconcept.generate.options import GenerationOptions

StopReason = Literal["stop_concept", "repetition", "length"]


class StopTest:
    """Decides after each new concept which rows are finished.

    Args:
        options: thresholds and counts.
        stop_vector: (C,) the concept of the stop sentence, not normalised; ``None`` switches this test off.
        dim: C.
    """

    def __init__(self, options: GenerationOptions, stop_vector: Tensor | None, dim: int) -> None:
        if stop_vector is not None:
            if tuple(stop_vector.shape) != (dim,):
                raise DataError("wrong shape", where="stop_vector", expected=(dim,), got=tuple(stop_vector.shape))
            if not bool(torch.isfinite(stop_vector).all()) or not bool(stop_vector.any()):
                raise DataError("not a usable stop concept", where="stop_vector", got="zeros, NaN or infinity")
        self.options = options
        self.stop_vector = stop_vector if options.stop_threshold is not None else None

    def __call__(self, new: Tensor, previous: Tensor, count: int) -> list[StopReason | None]:
        """Return for each row why it ends here, or ``None``.

        Args:
            new: (B, C) the newest concepts, not normalised.
            previous: (B, C) those before them; zeros where there is none.
            count: how many concepts were generated, the newest included.
        """
        options, batch = self.options, new.shape[0]
        at_end: StopReason | None = "length" if count >= options.max_concepts else None
        if count < options.min_concepts:
            return [at_end] * batch
        stopped = self._similar(new, self.stop_vector, options.stop_threshold)
        repeated = self._similar(new, previous, options.repetition_threshold)
        return [
            "stop_concept" if stop else "repetition" if repeat else at_end
            for stop, repeat in zip(stopped, repeated, strict=True)
        ]

    @staticmethod
    def _similar(new: Tensor, other: Tensor | None, threshold: float | None) -> Sequence[bool]:
        """Compare cosines with ``threshold``; this is the one wait for the device in each generated concept."""
        if other is None or threshold is None:
            return [False] * new.shape[0]
        cosines: list[float] = F.cosine_similarity(new.float(), other.float().expand_as(new), dim=-1).tolist()
        return [cosine >= threshold for cosine in cosines]
