"""When a document is finished: the stop concept, a repetition, or the greatest length.

A codec may give the wording of a sentence channels of its own, after the M channels of its meaning. What a model
predicts there is a guess, so concepts are compared in the first M channels.

Shape letters: B batch, C concept dimension, M channels of meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.errors import DataError
from largeconcept.generate.options import GenerationOptions
from largeconcept.types import DifferentiableDecoder

if TYPE_CHECKING:
    from largeconcept.generate.loop import GeneratedConcepts
    from largeconcept.types import ConceptCodec

StopReason = Literal["stop_concept", "repetition", "length"]


class StopTest:
    """Decides after each new concept which rows are finished.

    Args:
        options: thresholds and counts.
        stop_vector: (C,) the concept of the stop sentence, not normalised; ``None`` switches this test off.
        dim: C.
        meaning_dim: M; ``None`` compares all channels.
    """

    def __init__(
        self, options: GenerationOptions, stop_vector: Tensor | None, dim: int, meaning_dim: int | None = None
    ) -> None:
        if stop_vector is not None:
            if tuple(stop_vector.shape) != (dim,):
                raise DataError("wrong shape", where="stop_vector", expected=(dim,), got=tuple(stop_vector.shape))
            if not bool(torch.isfinite(stop_vector).all()) or not bool(stop_vector.any()):
                raise DataError("not a usable stop concept", where="stop_vector", got="zeros, NaN or infinity")
        self.options = options
        self.meaning_dim = meaning_dim if meaning_dim is not None else dim
        self.stop_vector = stop_vector if options.stop_threshold is not None else None

    def __call__(self, new: Tensor, previous: Tensor, counts: Sequence[int]) -> list[StopReason | None]:
        """Return for each row why it ends here, or ``None``.

        Args:
            new: (B, C) the newest concepts, not normalised.
            previous: (B, C) those before them; zeros where there is none.
            counts: how many concepts of each row were generated, the newest included.
        """
        options = self.options
        asked = self.stop_vector is not None or options.repetition_threshold is not None
        stopped: Sequence[bool] = [False] * len(counts)
        repeated = stopped
        if asked and max(counts) >= options.min_concepts:  # else only by length, which is known without asking
            tests = (
                self.similar(new, self.stop_vector, options.stop_threshold),
                self.similar(new, previous, options.repetition_threshold),
            )
            stopped, repeated = torch.stack(tests).tolist()  # the one wait for the device in each generated concept
        return [
            self._reason(count, stop, repeat) for count, stop, repeat in zip(counts, stopped, repeated, strict=True)
        ]

    def _reason(self, count: int, stop: bool, repeat: bool) -> StopReason | None:
        if count >= self.options.min_concepts and (stop or repeat):
            return "stop_concept" if stop else "repetition"
        return "length" if count >= self.options.max_concepts else None

    def similar(self, new: Tensor, other: Tensor | None, threshold: float | None) -> Tensor:
        """Return (B,) boolean: whether the meanings of (B, C) and (B, C) or (C,) have this cosine; no, without one."""
        if other is None or threshold is None:
            return torch.zeros(len(new), dtype=torch.bool, device=new.device)
        left, right = (one[..., : self.meaning_dim].float() for one in (new, other))
        return F.cosine_similarity(left, right.expand_as(left), dim=-1) >= threshold


def until_end(
    codec: ConceptCodec, generated: Sequence[GeneratedConcepts], stop_text: str | None, lang: str, min_concepts: int = 0
) -> list[GeneratedConcepts]:
    """Cut each text before the first concept that says the stop sentence, by what the decoder makes of it.

    A model that was trained through the decoder says "End of text." with a concept that need not lie near the one that
    the encoder makes of these words. It counts as said if the decoder gives the whole sentence a probability above one
    half, so that no other could be likelier. That is asked in the language of the stop sentence, whatever the text's.

    Args:
        codec: one without likelihoods finds no end.
        generated: concepts of each text, not normalised.
        stop_text: the stop sentence.
        lang: its language; in one that the codec cannot write no end is found.
        min_concepts: an end before so many does not count.
    """
    sizes = [len(one.concepts) for one in generated]
    if stop_text is None or lang not in codec.languages or not sum(sizes):
        return list(generated)
    if not isinstance(codec, DifferentiableDecoder):
        return list(generated)
    weights = codec.decoder_parameters()
    concepts = torch.cat([one.concepts for one in generated]).to(weights[0].device if weights else "cpu")
    with torch.inference_mode():
        nats = codec.token_loss(concepts, [stop_text] * len(concepts), lang).nats
    result = []
    said = iter((nats < math.log(2)).tolist())
    for one, size in zip(generated, sizes, strict=True):
        here = [next(said) for _ in range(size)]
        ends = [place for place, end in enumerate(here) if end and place + 1 >= min_concepts]
        result.append(replace(one, concepts=one.concepts[: ends[0]], stop_reason="stop_concept") if ends else one)
    return result
