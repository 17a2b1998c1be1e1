"""What a codec is trained on: reconstruction, translation and alignment, under noise on the concept.

* reconstruction: the sentence from its own concept, some encoder tokens hidden (denoising auto-encoding, SONAR section
3);
* translation: a sentence from the concept of its translation, in the target's language;
* alignment: concepts of translations attract, those of other sentences in the batch repel (InfoNCE) plus a squared
  distance (the MSE term of SONAR, arXiv 2308.11466, equation 1);
* robustness: the decoder sees the concept under Gaussian noise of random strength and channel dropout, and some of its
  own inputs are hidden, so it reads the concept rather than guessing from the words before. Where a concept has a form
  (:mod:`largeconcept.codec.network`), it is faded out or mixed with another sentence's in a share of the sentences: a
  model that predicts concepts cannot know it, and the decoder has to say the meaning all the same;
* a teacher: the meaning predicts the vector that another sentence encoder gives the sentence (cosine), which brings an
  order among sentences that are no translations of each other.

The vocabulary loss never holds the (tokens × vocabulary) scores of a whole batch: :class:`ChunkedCrossEntropy`
computes loss and gradient chunk by chunk in the forward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field

from largeconcept.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.codec.network import AutoencoderNetwork

IGNORE = -100
PAD, UNK, EOS = 0, 3, 2


class Quantize(Protocol):
    """Replaces concepts by sums of centroids."""

    @property
    def num_quantizers(self) -> int:
        """Q, the number of codebooks."""
        ...

    def __call__(self, concepts: Tensor, num_quantizers: int | Tensor | None = None) -> Tensor:
        """Map (N, C) to (N, C), with the first ``num_quantizers`` codebooks, one number or (N,)."""
        ...


class CodecObjectiveConfig(Config):
    """Strengths of the parts of the codec objective.

    Attributes:
        truncation: when a decoder is tuned on quantised concepts, share of sentences of which only the first k of Q
            codebooks are kept, k uniform in [2/3 Q, Q] (0.3 in arXiv:2412.08821, §2.3.4).
        encoder_mask: share of encoder input tokens hidden in reconstruction.
        decoder_mask: share of decoder input tokens hidden.
        noise: largest standard deviation of the Gaussian noise on the unit-variance concept; each sentence draws its
            own strength uniformly from 0 to this.
        concept_dropout: share of channels set to zero.
        form_fade: share of sentences whose form is faded (see :func:`fade`); of no effect without a form.
        teacher: weight of one minus the cosine to the teacher's vectors; of no effect without a teacher.
        contrastive, contrastive_temperature: weight and temperature of InfoNCE on translation pairs.
        alignment: weight of the mean squared distance between the concepts of a pair.
        kl, kl_floor: weight and per-channel floor of the divergence (``kl`` bottleneck only).
        chunk: tokens a vocabulary product handles at once.
        sampled_vocabulary: pieces scored besides the batch's own targets; 0 scores the whole vocabulary.
    """

    truncation: float = Field(0.3, ge=0, le=1)
    encoder_mask: float = Field(0.05, ge=0, lt=1)
    decoder_mask: float = Field(0.15, ge=0, lt=1)
    noise: float = Field(0.25, ge=0)
    concept_dropout: float = Field(0.05, ge=0, lt=1)
    form_fade: float = Field(0.6, ge=0, le=1)
    teacher: float = Field(1.0, ge=0)
    contrastive: float = Field(0.2, ge=0)
    contrastive_temperature: float = Field(0.1, gt=0)
    alignment: float = Field(0.2, ge=0)
    kl: float = Field(1e-3, ge=0)
    kl_floor: float = Field(0.5, ge=0)
    chunk: int = Field(512, ge=1)
    sampled_vocabulary: int = Field(0, ge=0)


@dataclass(slots=True)
class CodecBatch:
    """Sentences with what the decoder shall write from each.

    Attributes:
        tokens: (N, T) int64 encoder inputs, right-padded with 0; ``lengths`` (N,).
        source: (N,) row whose concept decodes row i: i itself for reconstruction, its translation's row otherwise.
        lang: (N,) index of the language of row i (as a target).
        paired: whether the second half holds the translations of the first half, in order.
        concepts: (N, C) float32 where an encoder outside the network has made them: the decoder alone is trained.
        teacher: (N, K) float32 vectors of a teacher; rows of zeros are unknown.
    """

    tokens: Tensor
    lengths: Tensor
    source: Tensor
    lang: Tensor
    paired: bool
    concepts: Tensor | None = None
    teacher: Tensor | None = None


class ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of ``hidden @ weight.T + offset`` in chunks of rows; the gradient is made on the way.

    Peak memory is one (chunk, V) matrix instead of three of (rows, V), and each chunk is still in the cache when its
    gradient is formed. Rows whose target is ``IGNORE`` cost nothing. Products run in the dtype of ``hidden``, the
    softmax and the sum in float32.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, offset: Tensor | None, chunk: int) -> Tensor:
        """Return the loss sum, a float32 scalar."""
        rows = (targets != IGNORE).nonzero().squeeze(1)
        hidden_kept, targets_kept = hidden[rows], targets[rows]
        weight_low = weight.to(hidden.dtype)
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, rows.numel(), chunk):
            h, t = hidden_kept[start : start + chunk], targets_kept[start : start + chunk, None]
            gradient, part = softmax_gradient(torch.mm(h, weight_low.t()), t, offset)
            loss += part
            grad_hidden[rows[start : start + chunk]] = torch.mm(gradient, weight_low)
            grad_weight += torch.mm(gradient.t(), h)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Scale the stored gradients."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0].to(grad_hidden.dtype), grad_weight * grads[0], None, None, None


def softmax_gradient(scores: Tensor, targets: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradient of the summed cross-entropy with respect to (n, V) scores, and the sum; ``targets`` is (n, 1)."""
    raw = scores.float() if offset is None else scores.float() + offset
    probability = raw.softmax(dim=1)
    picked = probability.gather(1, targets)
    loss = -picked.clamp(min=1e-30).log().sum()
    return probability.scatter(1, targets, picked - 1.0).to(scores.dtype), loss


def draw_candidates(
    targets: Tensor, vocab_size: int, num_sampled: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the part of the vocabulary that a training step scores.

    All targets of the batch are in it, and ``num_sampled`` of the other pieces, drawn uniformly without repetition.
    Adding log(others / sampled) to the scores of the latter makes the sum over the drawn pieces an unbiased estimate
    of the sum over the whole vocabulary.

    Returns:
        indices (K,) of the pieces, offset (K,) for their scores, targets renumbered to the pieces.
    """
    present = torch.zeros(vocab_size, dtype=torch.bool)
    present[targets[targets != IGNORE]] = True
    others = (~present).nonzero().squeeze(1)
    num_sampled = min(num_sampled, others.numel())
    sampled = others[torch.randperm(others.numel(), generator=generator)[:num_sampled]]
    kept = present.nonzero().squeeze(1)
    indices = torch.cat([kept, sampled])
    offset = torch.zeros(indices.numel())
    if num_sampled:
        offset[kept.numel() :] = math.log(others.numel() / num_sampled)
    number = torch.full((vocab_size,), IGNORE, dtype=torch.long)
    number[kept] = torch.arange(kept.numel())
    renumbered = torch.where(targets == IGNORE, IGNORE, number[targets.clamp(min=0)])
    return indices, offset, renumbered


def perturb(concepts: Tensor, config: CodecObjectiveConfig, normal: Tensor, strength: Tensor, drop: Tensor) -> Tensor:
    """Noise of per-sentence strength (N, 1) and channel dropout on (N, C) concepts.

    ``normal`` is (N, C) standard normal, ``strength`` (N, 1) and ``drop`` (N, C) uniform in [0, 1).
    """
    noisy = concepts + normal * strength * config.noise
    return noisy * (drop >= config.concept_dropout)


def fade(form_NF: Tensor, share: float, uniform: Tensor) -> Tensor:
    """Fade the form of a share of sentences: a · form + b · form of the row before.

    a and b are each 0 in half of the faded sentences, and uniform in [0, 1) in the others. ``uniform`` is (N, 3),
    uniform in [0, 1).
    """
    part = (2 * uniform[:, 1:] - 1).clamp(min=0)
    mixed = part[:, :1] * form_NF + part[:, 1:] * form_NF.roll(1, dims=0)
    return torch.where(uniform[:, :1] < share, mixed, form_NF)


def fade_form(concepts_NC: Tensor, meaning_dim: int, share: float, uniform: Tensor) -> Tensor:
    """Return concepts whose form, what comes after ``meaning_dim`` channels, is faded as :func:`fade` says."""
    meaning, form = concepts_NC[:, :meaning_dim], concepts_NC[:, meaning_dim:]
    return torch.cat([meaning, fade(form, share, uniform)], dim=1)


def codec_loss(
    network: AutoencoderNetwork,
    batch: CodecBatch,
    config: CodecObjectiveConfig,
    generator: torch.Generator,
    quantize: Quantize | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss (mean per target token, plus weighted pair terms) and detached sums to log.

    All randomness comes from ``generator``, so a step is a function of its seed. With ``quantize`` the encoder gets no
    gradient, and the decoder learns to write from quantised concepts instead of noisy ones; there are no pair terms.
    """
    if quantize is None:
        states, concepts, extra = _states(network, batch, config, generator)
    else:
        states, concepts, extra = _quantized_states(network, batch, config, generator, quantize)
    targets = decoder_targets(batch)
    count = (targets != IGNORE).sum()
    weight, offset, flat = network.embedding.weight, None, targets.flatten()
    if config.sampled_vocabulary:
        indices, offset, flat = draw_candidates(flat, len(weight), config.sampled_vocabulary, generator)
        weight = weight[indices]
    total = cross_entropy_sum(states.flatten(0, 1), weight, flat, config.chunk, offset)
    loss = total / count + extra
    metrics = {"nats": total.detach(), "tokens": count}
    if batch.paired and quantize is None and batch.concepts is None:
        pair_loss = pair_terms(concepts[:, : network.config.meaning_dim], config)
        loss = loss + pair_loss
        metrics["pair_loss"] = pair_loss.detach()
    if batch.teacher is not None and network.to_teacher is not None:
        known = batch.teacher.square().sum(dim=1) > 0
        predicted = network.to_teacher(concepts[:, : network.config.meaning_dim]).float()
        distance = 1 - F.cosine_similarity(predicted, batch.teacher, dim=-1)
        teacher_loss = (distance * known).sum() / known.sum().clamp(min=1)
        loss = loss + config.teacher * teacher_loss
        metrics["teacher_loss"] = teacher_loss.detach()
    return loss, metrics


def cross_entropy_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, offset: Tensor | None = None
) -> Tensor:
    """Summed cross-entropy of (R, D) states against a (V, D) output table, in the autocast dtype when one is active."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        function: Any = ChunkedCrossEntropy
        result: Tensor = function.apply(hidden.to(dtype), weight, targets, offset, chunk)
    return result


def decoder_targets(batch: CodecBatch) -> Tensor:
    """(N, T + 1) targets: the sentence's tokens, the end mark, then ``IGNORE``."""
    steps = torch.arange(batch.tokens.shape[1] + 1, device=batch.tokens.device)
    targets = F.pad(batch.tokens, (0, 1))
    targets = torch.where(steps == batch.lengths[:, None], EOS, targets)
    return torch.where(steps > batch.lengths[:, None], IGNORE, targets)


def _states(
    network: AutoencoderNetwork, batch: CodecBatch, config: CodecObjectiveConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    tokens = batch.tokens
    shape = tokens.shape
    hide = torch.rand(2, *shape, generator=generator)
    rows, dim = shape[0], network.config.dim
    normal = torch.randn(rows, dim, generator=generator)
    uniform = torch.rand(rows, dim + 1, generator=generator)
    rate = config.encoder_mask if not batch.paired else 0.0
    if batch.concepts is not None:
        encoded = batch.concepts
    else:
        encoder_in = torch.where((hide[0] < rate) & (tokens != PAD), UNK, tokens)
        encoded = network.encode(encoder_in, batch.lengths)
    extra = encoded.new_zeros(())
    if network.config.bottleneck == "kl" and batch.concepts is None:
        mean, log_variance = encoded.chunk(2, dim=-1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        extra = config.kl * divergence.clamp(min=config.kl_floor).sum(-1).mean()
        encoded = mean
        noisy = mean + torch.exp(0.5 * log_variance) * normal
        noisy = noisy * (uniform[:, 1:] >= config.concept_dropout)
    else:
        noisy = perturb(encoded, config, normal, uniform[:, :1], uniform[:, 1:])
        if network.config.form_dim:
            uniform = torch.rand(rows, 3, generator=generator)
            noisy = fade_form(noisy, network.config.meaning_dim, config.form_fade, uniform)
    decoder_in = torch.where(hide[1] < config.decoder_mask, UNK, tokens)
    states = network.decode_hidden(noisy[batch.source], decoder_in, batch.lang)
    return states, encoded, extra


def _quantized_states(
    network: AutoencoderNetwork,
    batch: CodecBatch,
    config: CodecObjectiveConfig,
    generator: torch.Generator,
    quantize: Quantize,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, levels = len(batch.tokens), quantize.num_quantizers
    hide = torch.rand(*batch.tokens.shape, generator=generator)
    uniform = torch.rand(2, rows, generator=generator)
    least = -(-2 * levels // 3)
    fewer = least + (uniform[1] * (levels - least + 1)).long().clamp(max=levels - least)
    kept = torch.where(uniform[0] < config.truncation, fewer, levels)
    with torch.no_grad():
        encoded = network.encode(batch.tokens, batch.lengths)
        if network.config.bottleneck == "kl":
            encoded = encoded.chunk(2, dim=-1)[0]
        quantized = quantize(encoded, kept)
    decoder_in = torch.where(hide < config.decoder_mask, UNK, batch.tokens)
    return network.decode_hidden(quantized[batch.source], decoder_in, batch.lang), encoded, encoded.new_zeros(())


def pair_terms(concepts: Tensor, config: CodecObjectiveConfig) -> Tensor:
    """Contrastive and squared-distance terms for concepts whose second half translates the first half."""
    left, right = concepts.float().chunk(2)
    a, b = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
    scores = a @ b.t() / config.contrastive_temperature
    target = torch.arange(len(a), device=a.device)
    contrastive = 0.5 * (F.cross_entropy(scores, target) + F.cross_entropy(scores.t(), target))
    return config.contrastive * contrastive + config.alignment * (left - right).square().mean()
