"""Quant-LCM (arXiv:2412.08821, §2.3.4 on quantised LCMs): how to go on from the first k centroids of a concept.

For each target concept a number k of codebooks is drawn; the model sees the sum of its first k centroids and the clean
concepts before it. A discrete model is trained with the cross-entropy of the index in codebook k + 1, a continuous one
with the squared error of the concept it finds. Some rows see no context: guidance needs a model without it too.

Shape letters: B batch, S concepts, T noisy concepts (S, or the longest target of supervised data), C concept dimension,
Q codebooks, V centroids of a codebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.errors import ConfigError
from largeconcept.objectives.base import config_of, masked_sum, noised_targets, normalized, num_noisy, squared_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.nn.residual_vq import ResidualVectorQuantizer
    from largeconcept.types import ConceptBatch, Loss


class QuantizedObjectiveConfig(Config):
    """Settings of the quantised objective; which head is trained is the model's own setting.

    Attributes:
        conditioning_dropout: share of target concepts that see no context.
        level_power: k is ``floor(Q u^power)`` for a uniform u: 1 draws all codebooks alike, as the paper; more draws
            the first ones more often, which decide what the concept is about.
        lookahead: for models with logits from the codebooks: the index asked for is up to so many codebooks later than
            the next one, drawn alike; 0 asks for the next one, as the paper.
        concept_weight: for models with logits from the codebooks: weight of the mean squared error over channels of the
            concept found, added to the cross-entropy; 0 in the paper. Few data say more through it than by indices.
        beam: width of the search that finds the centroids of a concept.
        level_buckets: number of ranges of k whose loss is a metric of its own; 0 turns that off.
    """

    type: Literal["quantized"] = "quantized"
    conditioning_dropout: float = Field(default=0.15, ge=0, le=1)
    level_power: float = Field(default=1.0, gt=0)
    lookahead: int = Field(default=0, ge=0)
    concept_weight: float = Field(default=0.0, ge=0)
    beam: int = Field(default=1, ge=1)
    level_buckets: int = Field(default=4, ge=0, le=100)


class QuantizedObjective:
    """Cross-entropy in nats, or squared distance summed over channels in normalised space, for each target concept.

    All concepts count, the first one included; in supervised batches the target concepts. Everything random follows
    from (seed, step, sample id, position) alone.

    Metrics: ``nats`` and ``accuracy`` (discrete), ``mse`` (continuous), ``l2``, the Euclidean distance of the concept
    found in the codec's space (where one is found); ``nats_k0-1`` or ``mse_k0-1`` and so on for ranges of k.

    Args:
        config: settings.
        normalizer: of the model.
    """

    def __init__(self, config: QuantizedObjectiveConfig, normalizer: ConceptNormalizer) -> None:
        self.config = config
        self.normalizer = normalizer

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Draw k and the dropped rows, and return the loss of a batch.

        Raises:
            ConfigError: the model is not a quantised one.
        """
        size, ids = num_noisy(batch), batch.sample_ids
        number = config_of(model, "num_quantizers").num_quantizers
        u = rng.uniform("levels", ids, (size,))
        levels = (number * u.double() ** self.config.level_power).long().clamp(max=number - 1)
        share = self.config.conditioning_dropout
        dropped = rng.uniform("conditioning", ids, (size,)) < share if share else None
        asked = None
        if self.config.lookahead:
            ahead = rng.integers("lookahead", ids, (size,), self.config.lookahead + 1)
            asked = (levels + ahead).clamp(max=number - 1)
        return self.loss(model, batch, levels, dropped, asked)

    def loss(
        self,
        model: nn.Module,
        batch: ConceptBatch,
        levels: Tensor,
        dropped: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Loss:
        """Return the loss for given (B, T) numbers k of codebooks and (B, T) rows without context.

        With (B, T) numbers j ≥ k in ``asked``, codebook j + 1 is asked for instead of k + 1.

        Raises:
            ConfigError: ``asked`` for a model whose logits are not from the codebooks.
        """
        import torch.nn.functional as F

        from largeconcept.types import Loss

        config, quantizer = config_of(model, "num_quantizers", "head"), quantizer_of(model)
        x = normalized(self.normalizer, batch.concepts)
        x_0, mask = noised_targets(x, batch, levels.shape[1])
        indices = quantizer.search(x_0, self.config.beam)
        partial = quantizer.sum(indices, levels)
        arguments = (x, partial, levels, batch.lengths, batch.source_lengths, dropped)
        extra = self.config.concept_weight > 0.0
        if asked is None and not extra:
            out, found = model(*arguments).float(), None
        elif config.head == "discrete" and config.logits == "codebook":
            later = None if asked is None else (asked, quantizer.sum(indices, asked))
            out, found = model(*arguments, later=later, with_concepts=True)
        else:
            raise ConfigError(
                "only a discrete model with logits from its codebooks can be asked about later ones or for concepts",
                where="objective.lookahead, objective.concept_weight",
                hint="set them to 0, or model.head=discrete and model.logits=codebook",
            )
        count = mask.sum().float()
        if config.head == "discrete":
            wanted = indices.gather(-1, (levels if asked is None else asked).unsqueeze(-1)).squeeze(-1)
            error = F.cross_entropy(out.flatten(0, 1), wanted.flatten(), reduction="none").view_as(levels)
            right = (out.detach().argmax(dim=-1) == wanted).float()
            name, metrics = "nats", {"accuracy": (masked_sum(right, mask), count)}
        else:
            error, found = squared_error(out, x_0), out
            name, metrics = "mse", {}
        total = masked_sum(error, mask)
        metrics[name] = (total.detach(), count)
        if found is not None:
            l2 = (self.normalizer.denormalize(found.detach()) - self.normalizer.denormalize(x_0)).norm(dim=-1)
            metrics["l2"] = (masked_sum(l2, mask), count)
        if found is not None and extra:
            mean = squared_error(found, x_0) / x_0.shape[-1]
            total = total + self.config.concept_weight * masked_sum(mean, mask)
        metrics.update(self._buckets(name, error.detach(), levels, mask, config.num_quantizers))
        return Loss(total, count, metrics)

    def _buckets(
        self, name: str, error: Tensor, levels: Tensor, mask: Tensor, number: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        parts = min(self.config.level_buckets, number)
        if not parts:
            return {}
        zeros, bucket = error.new_zeros(parts), (levels * parts // number).flatten()
        sums = zeros.index_add(0, bucket, error.masked_fill(~mask, 0.0).flatten())
        counts = zeros.index_add(0, bucket, mask.flatten().float())
        edges = [-(-k * number // parts) for k in range(parts + 1)]
        return {f"{name}_k{edges[k]}-{edges[k + 1] - 1}": (sums[k], counts[k]) for k in range(parts)}


def quantizer_of(model: nn.Module) -> ResidualVectorQuantizer:
    """Return the codebooks of a model, also when it is wrapped (compiled, data parallel).

    Raises:
        ConfigError: it has none.
    """
    inner: Any = model
    while inner is not None:
        found = getattr(inner, "quantizer", None)
        if found is not None:
            quantizer: ResidualVectorQuantizer = found
            return quantizer
        inner = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
    raise ConfigError("the model has no codebooks", where=type(model).__name__)
