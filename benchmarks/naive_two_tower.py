"""A two-tower model written straight from the equations, to measure the library's loop and training against.

For every new concept the whole document is read again; at every denoising step timestep embedding and modulators are
computed anew, and guidance runs the denoiser on a doubled batch: the second half gets a context of zeros that a mask
hides but for the first key. Linear layers are torch's own. Same weights, same noise, same result as
:func:`largeconcept.generate.loop.generate_concepts`.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.diffusion.guidance import guide
from largeconcept.diffusion.parameterization import to_eps
from largeconcept.diffusion.samplers import DDIMOptions, ddim_plan, ddim_step
from largeconcept.models import TwoTowerConceptModel
from largeconcept.nn.linear import Linear


@torch.no_grad()
@patch.object(Linear, "forward", nn.Linear.forward)
def naive_generate(
    model: TwoTowerConceptModel,
    x: Tensor,
    num_concepts: int,
    options: DDIMOptions,
    initial_noise: Callable[[int], Tensor],
) -> Tensor:
    """Continue (B, S, C) normalised documents, equally long, by (B, n, C); ``initial_noise(position)`` is (B, C)."""
    kind = model.config.prediction_type
    batch, prompt_size = x.shape[:2]
    for _ in range(num_concepts):
        context = model.contextualize(x)
        doubled = torch.cat((context, torch.zeros_like(context)))
        mask = torch.ones(2 * batch, 1, 1, context.shape[1] + 1, dtype=torch.bool)
        mask[batch:, ..., 1:] = False
        x_t = x_0 = initial_noise(x.shape[1]).unsqueeze(1)
        for step in ddim_plan(model.schedule, options):
            timesteps = torch.full((2 * batch, 1), step.timestep)
            with_context, without = model.denoiser(torch.cat((x_t, x_t)), timesteps, doubled, mask).chunk(2)
            if step.guided:
                cond, uncond = (to_eps(p, x_t, step.alpha_t, step.sigma_t, kind) for p in (with_context, without))
                guided = guide(cond, uncond, options.guidance_scale, options.guidance_rescale)
                x_t, x_0 = ddim_step(guided, x_t, step, "eps", options)
            else:
                x_t, x_0 = ddim_step(with_context, x_t, step, kind, options)
        x = torch.cat((x, x_0), dim=1)
    return x[:, prompt_size:]


class NaiveTwoTower(nn.Module):
    """The training forward of a two-tower model as the reference has it, over the weights of the library's model.

    Modulators run for every row; self-attention over one position is a masked attention with queries and keys of its
    own, which never matter; masks are additive and made for all heads in every layer; dropped rows are masked. Same
    result, same gradients.
    """

    def __init__(self, model: TwoTowerConceptModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        dim = model.config.model_dim
        self.dead = nn.ModuleList(nn.ModuleList(nn.Linear(dim, dim) for _ in "qk") for _ in model.denoiser.layers)

    @patch.object(Linear, "forward", nn.Linear.forward)
    def forward(self, x, noisy, timesteps, lengths=None, source_lengths=None, unconditional=None) -> Tensor:
        denoiser, (batch, rows) = self.model.denoiser, noisy.shape[:2]
        context = F.pad(self.model.contextualizer(x), (0, 0, 1, 0))
        keys = context.shape[1]
        visible = torch.arange(keys) <= torch.arange(rows)[:, None]
        visible = visible.expand(batch, rows, keys).clone()
        if unconditional is not None:
            visible[..., 1:] &= ~unconditional.unsqueeze(-1)
        h, time = denoiser.input_proj(noisy), denoiser.embed_time(timesteps)
        for layer, (dead_q, dead_k) in zip(denoiser.layers, self.dead, strict=True):
            shift, scale, gate = layer.modulator(time).unflatten(-1, (3, 3, -1)).unbind(-2)
            y = layer.attention_norm(h) * (1 + scale[..., 0, :]) + shift[..., 0, :]
            attended = self._attend(dead_q(y), dead_k(y), layer.attention.v_proj(y), torch.eye(rows, dtype=torch.bool))
            h = h + gate[..., 0, :] * layer.dropout(layer.attention.output_proj(attended))
            y = layer.cross_attention_norm(h) * (1 + scale[..., 1, :]) + shift[..., 1, :]
            attended = self._attend(
                layer.cross_attention.q_proj(y), *layer.cross_attention.kv_proj(context).chunk(2, -1), visible
            )
            h = h + gate[..., 1, :] * layer.dropout(layer.cross_attention.output_proj(attended))
            y = layer.mlp_norm(h) * (1 + scale[..., 2, :]) + shift[..., 2, :]
            h = h + gate[..., 2, :] * layer.dropout(layer.mlp(y))
        out: Tensor = denoiser.output_proj(denoiser.final_dropout(denoiser.norm(h)))
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        heads = self.config.num_heads
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        mask = torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)
        mask = (mask if mask.ndim == 2 else mask.unsqueeze(1)).expand(len(q), heads, -1, -1).contiguous()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
