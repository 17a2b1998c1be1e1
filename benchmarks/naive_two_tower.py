"""Two-tower generation written straight from the equations, to measure the library's loop against.

For every new concept the whole document is read again; at every denoising step timestep embedding and modulators are
computed anew, and guidance runs the denoiser on a doubled batch: the second half gets a context of zeros that a mask
hides but for the first key. Linear layers are torch's own. Same weights, same noise, same result as
:func:`largeconcept.generate.loop.generate_concepts`.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import torch
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
