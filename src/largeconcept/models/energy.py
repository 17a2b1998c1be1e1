"""Energy model: a causal transformer that reads, and a small head that draws the next concept in one step.

The head of CALM (arXiv:2510.27688, §3), on concepts instead of chunks of tokens. It maps noise u, uniform on [-1/2,
1/2], and the state h of the context to a sample of the next concept:

    e_0 = W_u u,  g = W_h h;   e_{l+1} = e_l + W_o (silu(a) * b),  (a, b) = W_2 silu(W_1 [norm(e_l) ; g])
    x̂ = W norm(e_L)

Every u gives another sample; nothing is iterated, and there is no density. The head is trained with the energy score
(:mod:`largeconcept.objectives.energy`), which needs samples alone.

The state for concept i is what the transformer says after concepts 0..i-1; for the first concept it is a learned
vector, so this family can begin a text.

Note: CALM feeds the transformer with the tokens of what it wrote; here concepts are fed as they are.

Shape letters: B batch, S concepts, T targets, N samples, C concept dimension, D width, U noise dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.errors import DataError
from largeconcept.models.checks import as_lengths, check_concepts
from largeconcept.nn.decoder import CausalDecoder, TransformerConfig
from largeconcept.nn.kv_cache import StateCache
from largeconcept.nn.linear import Linear
from largeconcept.nn.norms import Norm, NormStyle

POSITION_STD = 0.006


class EnergyConfig(TransformerConfig):
    """Configuration of an energy model; the defaults are the sizes of the 1.6B Base-LCM.

    Attributes:
        num_layers: layers of the transformer.
        num_head_layers: blocks of the head, each of 6 D² parameters; CALM takes a quarter of the transformer's.
        noise_dim: U, channels of the noise; ``None`` for as many as a concept has.
        start: what the head's residual stream begins with: ``noise`` as in CALM, or ``both``, e_0 = W_u u + g. Then the
            state has a straight way to the output, as in a model that regresses, which little data needs.
    """

    type: Literal["energy"] = "energy"
    num_layers: int = Field(default=32, ge=1)
    num_head_layers: int = Field(default=8, ge=1)
    noise_dim: int | None = Field(default=None, ge=1)
    start: Literal["noise", "both"] = "noise"

    @property
    def num_noise(self) -> int:
        """``noise_dim`` with its default filled in."""
        return self.concept_dim if self.noise_dim is None else self.noise_dim


class HeadBlock(nn.Module):
    """A residual block that mixes the sample with the state: two linears, then a gated one."""

    def __init__(self, dim: int, norm: NormStyle) -> None:
        super().__init__()
        self.norm = Norm(dim, norm)
        # The linear of [norm(e) ; g] in two parts: the state's is the same for all samples of a position.
        self.sample_proj = Linear(dim, dim)
        self.state_proj = Linear(dim, dim, bias=False)
        self.inner_proj = Linear(dim, 2 * dim)
        self.output_proj = Linear(dim, dim)

    def forward(self, e: Tensor, state: Tensor) -> Tensor:
        """Map samples (…, N, D) with states (…, 1, D) to (…, N, D)."""
        h = F.silu(self.sample_proj(self.norm(e)) + self.state_proj(state))
        gate, inner = self.inner_proj(h).chunk(2, dim=-1)
        out: Tensor = e + self.output_proj(F.silu(gate) * inner)
        return out


class EnergyHead(nn.Module):
    """Noise and a state in, a sample out.

    Args:
        config: sizes.
    """

    def __init__(self, config: EnergyConfig) -> None:
        super().__init__()
        dim = config.model_dim
        self.starts_with_state = config.start == "both"
        self.noise_proj = Linear(config.num_noise, dim)
        self.state_proj = Linear(dim, dim)
        blocks = nn.ModuleList(HeadBlock(dim, config.norm) for _ in range(config.num_head_layers))
        self.blocks = cast("Sequence[HeadBlock]", blocks)
        self.norm = Norm(dim, config.norm)
        self.output_proj = Linear(dim, config.concept_dim)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        """Map states (…, D) and noise (…, N, U) to samples (…, N, C) float32."""
        e = self.noise_proj(noise.to(self.noise_proj.weight.dtype))
        g = self.state_proj(state).unsqueeze(-2)
        if self.starts_with_state:
            e = e + g
        for block in self.blocks:
            e = block(e, g)
        out: Tensor = self.output_proj(self.norm(e))
        return out.float()


class EnergyConceptModel(nn.Module):
    """Causal transformer with a head that draws samples.

    Args:
        config: sizes and style.
    """

    config_class: ClassVar[type[Config]] = EnergyConfig

    def __init__(self, config: EnergyConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = CausalDecoder(config, config.num_layers, POSITION_STD)
        self.head = EnergyHead(config)
        self.first_state = nn.Parameter(torch.zeros(config.model_dim))

    def forward(
        self, x: Tensor, noise: Tensor, lengths: Tensor | None = None, source_lengths: Tensor | None = None
    ) -> Tensor:
        """Draw samples of every concept of each document, given the ones before it.

        Args:
            x: (B, S, C) normalised concepts, padded on the right with anything finite.
            noise: (B, T, N, U), uniform on [-1/2, 1/2]; T = S, or with ``source_lengths`` the targets alone.
            lengths: (B,); taken so that all families are called alike.
            source_lengths: (B,) number of leading concepts that are context only; target j is then concept source + j.

        Returns:
            (B, T, N, C) float32. Values at padding are finite but mean nothing.

        Raises:
            DataError: shapes or types do not fit together, or a document longer than the learned positions.
        """
        check_concepts(x, self.config.concept_dim, "x")
        batch, size = x.shape[:2]
        rows = noise.shape[1] if noise.ndim == 4 else size
        wanted = (batch, size if source_lengths is None else rows, "N", self.config.num_noise)
        if noise.ndim != 4 or (noise.shape[0], noise.shape[1], noise.shape[3]) != (wanted[0], wanted[1], wanted[3]):
            raise DataError("wrong shape", where="noise", expected=wanted, got=tuple(noise.shape))
        if source_lengths is not None and tuple(source_lengths.shape) != (batch,):
            got = tuple(source_lengths.shape)
            raise DataError("wrong shape", where="source_lengths", expected=(batch,), got=got)
        states = self.states(x)
        if source_lengths is not None:
            place = (source_lengths.unsqueeze(1) + torch.arange(rows, device=x.device)).clamp(max=size - 1)
            states = states.gather(1, place.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        out: Tensor = self.head(states, noise)
        return out

    def states(self, x: Tensor) -> Tensor:
        """Return (B, S, D): the state for concept i of (B, S, C), from the concepts before it."""
        size = x.shape[1] - 1
        # A single concept is still read, so that every parameter gets a gradient (zero) in every batch, as DDP expects.
        read = self.decoder(x[:, : max(size, 1)])[:, :size]
        first = self.first_state.expand(x.shape[0], 1, -1)
        return torch.cat((first.to(read.dtype), read), dim=1)

    def prefill(
        self, x: Tensor, lengths: Tensor | Sequence[int] | None = None, capacity: int | None = None
    ) -> StateCache:
        """Read right-padded prompts (B, S, C), each to its own length (0 is allowed), with room for ``capacity``
        concepts.

        Raises:
            DataError: a wrong shape, or lengths that do not fit it.
        """
        check_concepts(x, self.config.concept_dim, "prompt", allow_empty=True)
        batch, size = x.shape[:2]
        sizes = as_lengths(lengths, batch, size)
        cache = self.decoder.new_cache(batch, max(capacity or 0, size))
        state = self.first_state.expand(batch, 1, -1)
        if size:
            read = self.decoder.prefill(x, sizes, cache)
            state = torch.cat((state.to(read.dtype), read), dim=1)
        last = state[torch.arange(batch, device=x.device), torch.tensor(sizes, device=x.device)]
        return StateCache(cache, last)

    def extend(self, cache: StateCache, x: Tensor) -> None:
        """Read one more concept of each row, (B, C) normalised; ``cache.state`` is then for the one after it."""
        cache.state = self.decoder.step(x, cache.context)
