"""Quant-LCM (arXiv:2412.08821, §2.3.4 on quantised LCMs): a concept is refined codebook by codebook, not step by step.

A residual vector quantiser (:mod:`largeconcept.nn.residual_vq`) writes a normalised concept as a sum of centroids, one
from each of Q codebooks. The body is the one-tower's (:mod:`largeconcept.models.one_tower`), with two changes:

    noisy concept      →  s_k, the sum of the centroids of the first k codebooks; s_0 is the zero vector
    timestep embedding →  embedding of k, the number of codebooks already summed; clean concepts have k = Q

From s_k and the clean concepts before it the model says how to go on:

    discrete    (Quant-LCM-d)  logits (V,) of the index in codebook k + 1
    continuous  (Quant-LCM-c)  the whole concept x̂, or what is missing of it, r̂ = x̂ − s_k; the centroid of codebook k+1
                               nearest to r̂ is taken, or one drawn with p ∝ exp(−β ‖c − r̂‖)

and s_{k+1} adds the centroid that was taken. So a concept costs Q evaluations of the noisy row, and the result is
always a sum of centroids. Codebooks belong to the model and are saved with it; they are fitted on the training data
before the first step, or loaded.

Logits come from one output table (D, V) for all codebooks, as in the paper, or from the codebooks themselves: with
``logits="codebook"`` the head finds a concept x̂ as the continuous one does, and

    logits_v = a_k (⟨r̂, c_v⟩ − ½ ‖c_v‖²),    the Gaussian likelihood of c_v = r̂ ± 1/√a_k, up to a constant,

which has fewer parameters, knows from the start which centroids are alike, and can be asked about later codebooks too:
r̂ = x̂ − s_j for any j ≥ k.

Note: either way the logits of codebook k + 1 get a bias of their own, (Q, V) numbers that hold how often each centroid
is used.

Shape letters: B batch, S concepts, T noisy rows, C concept dimension, D width, Q codebooks, V centroids of a codebook.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.errors import ConfigError
from largeconcept.models.one_tower import CleanContext, OneTower, OneTowerStack
from largeconcept.nn.decoder import TransformerConfig
from largeconcept.nn.positions import PositionStyle
from largeconcept.nn.residual_vq import QuantizerConfig, ResidualVectorQuantizer


class QuantizedConfig(TransformerConfig):
    """Configuration of a quantised model; the defaults are the paper's 1.6B model.

    Attributes:
        num_layers: number of layers.
        num_quantizers: Q, the number of codebooks.
        codebook_size: V, centroids of each.
        head: ``discrete`` gives logits of the next codebook, ``continuous`` a vector.
        logits: of a discrete head: ``table`` or ``codebook``, see above.
        target: what the vector is that a continuous head, or one with ``codebook`` logits, finds: the whole concept, or
            the ``residual`` that the centroids so far leave. The loss is the same; the second starts from what is
            known.
        fit_samples: most concepts that the codebooks are fitted on, when they are.
        fit_passes: how often these are gone through to improve the codebooks after k-means.
    """

    type: Literal["quantized"] = "quantized"
    num_layers: int = Field(default=32, ge=1)
    num_heads: int = Field(default=32, ge=1)
    positions: PositionStyle = "learned"
    num_quantizers: int = Field(default=64, ge=1)
    codebook_size: int = Field(default=8192, ge=2)
    head: Literal["discrete", "continuous"] = "discrete"
    logits: Literal["table", "codebook"] = "table"
    target: Literal["concept", "residual"] = "concept"
    fit_samples: int = Field(default=2_000_000, ge=2)
    fit_passes: int = Field(default=0, ge=0)


class QuantizedConceptModel(OneTower):
    """One transformer for clean concepts and partial sums, and the codebooks.

    Args:
        config: sizes, style, codebooks and head.

    Attributes:
        quantizer: the codebooks, for normalised concepts; empty until :meth:`prepare` or loaded.
    """

    config_class: ClassVar[type[Config]] = QuantizedConfig

    def __init__(self, config: QuantizedConfig) -> None:
        levels = config.num_quantizers
        decoder = OneTowerStack(config, config.num_layers, lambda dim: nn.Embedding(levels + 1, dim), clean=levels)
        discrete = config.head == "discrete"
        self.finds_concepts = not discrete or config.logits == "codebook"
        super().__init__(config, decoder, config.concept_dim if self.finds_concepts else config.codebook_size)
        self.config = config
        self.level_bias = nn.Parameter(torch.zeros(levels, config.codebook_size)) if discrete else None
        # Logarithms of a_k; at first the products with centroids, sums over C channels, are of order 1.
        start = torch.full((levels,), -0.5 * math.log(config.concept_dim))
        self.log_precision = nn.Parameter(start) if discrete and self.finds_concepts else None
        self.quantizer = ResidualVectorQuantizer(
            QuantizerConfig(
                dim=config.concept_dim, num_quantizers=config.num_quantizers, codebook_size=config.codebook_size
            )
        )

    def prepare(self, sample: Callable[[int], Tensor], seed: int) -> None:
        """Fit the codebooks, unless there are some.

        Args:
            sample: gives (N, C) normalised concepts of the training data, at most as many as it is asked for.
            seed: of the fit.

        Raises:
            DataError: fewer concepts than centroids.
        """
        if self.quantizer.is_fitted:
            return
        config = self.config
        fitted = ResidualVectorQuantizer.fit(
            sample(config.fit_samples), config.num_quantizers, config.codebook_size, passes=config.fit_passes, seed=seed
        )
        self.set_codebooks(fitted)

    def set_codebooks(self, quantizer: ResidualVectorQuantizer) -> None:
        """Take over the codebooks of a quantiser that was fitted on normalised concepts.

        Raises:
            ConfigError: codebooks of another number, size or dimension.
            DataError: it is empty.
        """
        quantizer.require_fitted()
        own, other = self.quantizer.codebooks, quantizer.codebooks
        if own.shape != other.shape:
            raise ConfigError(
                "the codebooks have other sizes than the model's (number, centroids, dimension)",
                where="quantizer",
                expected=tuple(own.shape),
                got=tuple(other.shape),
                hint="set model.num_quantizers and model.codebook_size to those of the quantizer",
            )
        own.copy_(other)
        self.quantizer.config = quantizer.config

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
        lengths: Tensor | None = None,
        source_lengths: Tensor | None = None,
        unconditional: Tensor | None = None,
        later: tuple[Tensor, Tensor] | None = None,
        with_concepts: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Say for all concepts of each document in parallel how to go on, each given the clean ones before it.

        Args:
            x: (B, S, C) clean normalised concepts, padded on the right with anything finite.
            noisy: (B, T, C) partial sums; T = S, or with ``source_lengths`` the targets alone, aligned to the left.
            timesteps: (B, T) integers k in 0..Q-1: how many codebooks are in each partial sum.
            lengths: (B,); taken so that all families are called alike.
            source_lengths: (B,) number of leading concepts that are context only; row j is then concept source + j.
            unconditional: (B, T) boolean, rows that see themselves alone (classifier-free guidance training).
            later: with logits from the codebooks, (B, T) numbers j of codebooks and (B, T, C) their partial sums, to
                ask each row for codebook j + 1 instead.
            with_concepts: with logits from the codebooks, also return the concepts found.

        Returns:
            (B, T, V) logits of codebook k + 1, or (B, T, C) concepts x̂ (whatever ``target`` is), float32; with
            ``with_concepts`` both.

        Raises:
            DataError: shapes or types do not fit together, or a document longer than the learned positions.
        """
        out = super().forward(x, noisy, timesteps, lengths, source_lengths, unconditional)
        if self.finds_concepts and self.config.target == "residual":
            out = out + noisy
        if self.level_bias is None:
            return out
        found, (levels, partial) = out, (timesteps, noisy) if later is None else later
        if self.finds_concepts:
            # Rows of one level together: one host synchronisation, instead of a codebook for each row.
            flat = levels.flatten()
            order, counts = flat.argsort(stable=True), torch.bincount(flat, minlength=self.config.num_quantizers)
            parts = torch.split((out - partial).flatten(0, 1)[order], counts.tolist())
            logits = torch.cat([self._likelihood(part, level) for level, part in enumerate(parts)])
            out = logits[order.argsort()].view(*levels.shape, -1)
        out = out + F.embedding(levels, self.level_bias)
        return (out, found) if with_concepts else out

    def predict(
        self, partial: Tensor, time: Tensor, context: CleanContext, *, guided: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Evaluate the transformer in generation for partial sums (B, T, C), all of one number of codebooks.

        Args:
            partial: the sums.
            time: :meth:`plan`'s entry for that number.
            context: what the rows look at.
            guided: also without context.

        Returns:
            The concepts found (B, T, C), or with ``table`` logits what :meth:`logits` takes, (B, T, V); float32. With
            ``guided`` also the same without context.
        """
        out = self.denoise(partial, time, context, guided=guided)
        if not self.finds_concepts or self.config.target == "concept":
            return out
        return (out[0] + partial, out[1] + partial) if isinstance(out, tuple) else out + partial

    def logits(self, found: Tensor, partial: Tensor, level: int) -> Tensor:
        """Return (…, V) logits of codebook ``level`` + 1 of a discrete model.

        Args:
            found: what :meth:`predict` gave, for this partial sum or, with logits from the codebooks, for an earlier.
            partial: (…, C) sums of ``level`` centroids.
            level: k.
        """
        assert self.level_bias is not None
        scores = self._likelihood(found - partial, level) if self.finds_concepts else found
        return scores + self.level_bias[level].float()

    def _likelihood(self, found: Tensor, level: int) -> Tensor:
        """Return (…, V) logits of vectors (…, C) for codebook ``level`` + 1."""
        assert self.log_precision is not None
        codebook = self.quantizer.codebooks[level].float()
        scores = found @ codebook.t() - 0.5 * codebook.square().sum(dim=-1)
        return scores * self.log_precision[level].float().exp()
