"""Two towers with a rectified-flow denoiser: continuous time, prediction of the data, self-conditioning.

Reading is that of the two-tower diffusion LCM (arXiv:2412.08821, §2.3.3). The denoiser differs in two things:

* Time t is a real number from 0 (noise) to 1 (data), :mod:`largeconcept.diffusion.flow`; its embedding is that of
  ``1000 t``, as if there were a thousand timesteps.
* It also sees its own previous prediction of the clean concept, zeros when there is none: one linear takes both,
  ``W [x_t ; x̂] + b`` (self-conditioning, Chen et al., arXiv:2208.04202, §3).

The output is always a prediction of the clean concept. This combination (flow, prediction of the data, error of the
velocity, self-conditioning in half of the training) is that of ELF (arXiv:2605.10938).

Shape letters: B batch, S concepts, T noisy rows, C concept dimension, D width, N times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.config import Config
from largeconcept.models.checks import check_denoising
from largeconcept.models.two_tower import CrossContext, DenoiserTower, DenoisingPlan, TowersConfig, TwoTowers
from largeconcept.nn.linear import Linear

TIME_SCALE = 1000.0


class FlowConfig(TowersConfig):
    """Configuration of a flow model; the defaults are the sizes of the paper's 1.6B two-tower.

    Attributes:
        self_conditioning: whether the denoiser sees its previous prediction.
    """

    type: Literal["flow"] = "flow"
    self_conditioning: bool = True


class FlowDenoiser(DenoiserTower):
    """Noisy concepts at real times and a context in, predicted clean concepts out.

    Args:
        config: sizes and style.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        # The half of the input's linear that takes the previous prediction.
        self.previous_proj = (
            Linear(config.concept_dim, config.model_dim, bias=False) if config.self_conditioning else None
        )

    def forward(
        self,
        noisy: Tensor,
        times: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        unconditional: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, T, C) float32 from noisy concepts (B, T, C) at times (B, T) and a context (B, S, D).

        ``previous`` is (B, T, C), zeros (or nothing) where there is no previous prediction; the other arguments are
        those of :meth:`~largeconcept.models.two_tower.DenoiserLayer.forward`.
        """
        x = self._embed(noisy, previous)
        time = self.embed_time(times.float() * TIME_SCALE)
        padded = F.pad(context, (0, 0, 1, 0))
        for layer in self.layers:
            x = layer(x, time, None, padded, mask, unconditional)
        out: Tensor = self.output_proj(self.final_dropout(self.norm(x)))
        return out.float()

    def plan(self, times: Sequence[float], *, fold: bool = False) -> DenoisingPlan:
        """Compute what generation needs at these N times; ``fold`` as in a two-tower."""
        device = self.input_proj.weight.device
        embedded = self.embed_time(torch.tensor(list(times), dtype=torch.float32, device=device) * TIME_SCALE)
        return DenoisingPlan(list(times), [layer.plan(embedded, fold) for layer in self.layers])

    def step(
        self,
        plan: DenoisingPlan,
        n: int,
        noisy: Tensor,
        context: CrossContext,
        previous: Tensor | tuple[Tensor, Tensor] | None = None,
        *,
        guided: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Denoise (B, T, C) at the plan's n-th time, the same for all rows; no dropout, whatever the mode.

        ``previous`` is what this method returned before, or ``None``: with guidance each half sees its own.

        Returns:
            (B, T, C) float32 with the context; with ``guided`` also the one without it.
        """
        both = torch.cat((noisy, noisy)) if guided else noisy
        x = self._embed(both, torch.cat(previous) if isinstance(previous, tuple) else previous)
        return self._run(x.flatten(0, 1), plan, n, context, noisy)

    def _embed(self, noisy: Tensor, previous: Tensor | None) -> Tensor:
        dtype = self.input_proj.weight.dtype
        x: Tensor = self.input_proj(noisy.to(dtype))
        if self.previous_proj is None or previous is None:
            return x
        both: Tensor = x + self.previous_proj(previous.to(dtype))
        return both


class FlowConceptModel(TwoTowers):
    """Contextualizer and flow denoiser.

    Args:
        config: sizes and style.
    """

    config_class: ClassVar[type[Config]] = FlowConfig
    config: FlowConfig
    denoiser: FlowDenoiser

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        self.denoiser = FlowDenoiser(config)

    def forward(
        self,
        x: Tensor,
        noisy: Tensor,
        times: Tensor,
        lengths: Tensor | None = None,
        source_lengths: Tensor | None = None,
        unconditional: Tensor | None = None,
        self_conditioned: Tensor | None = None,
    ) -> Tensor:
        """Predict all clean concepts of each document in parallel, each given the clean ones before it.

        Args:
            x: (B, S, C) clean normalised concepts, padded on the right with anything finite.
            noisy: (B, T, C) noisy concepts; T = S, or with ``source_lengths`` the targets alone, aligned to the left.
            times: (B, T) real numbers from 0 (noise) to 1 (data), one for each noisy concept.
            lengths: (B,); taken so that all families are called alike.
            source_lengths: (B,) number of leading concepts that are context only; noisy row j is then concept source
                + j.
            unconditional: (B, T) boolean, rows that see no context at all (classifier-free guidance training).
            self_conditioned: (B, T) boolean, rows that see their own prediction of a first pass; that pass is made
                without gradient. The others see zeros.

        Returns:
            (B, T, C) float32, predicted clean concepts. Values at padding are finite but mean nothing.

        Raises:
            DataError: shapes or types do not fit together, or a document longer than the learned positions.
        """
        check_denoising(self.config.concept_dim, x, noisy, times, source_lengths, unconditional)
        context, mask = self.training_context(x, noisy.shape[1], source_lengths)
        # Zeros, not nothing: then every parameter gets a gradient in every batch, as DDP expects.
        previous = torch.zeros_like(noisy)
        if self_conditioned is not None and self.config.self_conditioning:
            with torch.no_grad():
                found = self.denoiser(noisy, times, context, mask, unconditional, previous)
            previous = found * self_conditioned.unsqueeze(-1)
        out: Tensor = self.denoiser(noisy, times, context, mask, unconditional, previous)
        return out
