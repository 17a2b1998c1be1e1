"""A small model of every family, for the promises that all of them keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from largeconcept.models import build_model

_STYLE = {"concept_dim": 16, "model_dim": 32, "num_heads": 2, "dropout": 0.0}
_SCHEDULE = {"num_timesteps": 12}

SMALL: dict[str, dict[str, Any]] = {
    "mse": {"type": "mse", "num_layers": 2, **_STYLE},
    "two_tower": {
        "type": "two_tower",
        "num_context_layers": 2,
        "num_denoiser_layers": 2,
        "noise_schedule": _SCHEDULE,
        **_STYLE,
    },
    "one_tower": {"type": "one_tower", "num_layers": 2, "noise_schedule": _SCHEDULE, **_STYLE},
    "one_tower_rope": {
        "type": "one_tower",
        "num_layers": 2,
        "positions": "rope",
        "noise_schedule": _SCHEDULE,
        **_STYLE,
    },
    "planning": {
        "type": "planning",
        "body": {"type": "one_tower", "num_layers": 2, "noise_schedule": _SCHEDULE, **_STYLE},
    },
    "planning_two_tower": {
        "type": "planning",
        "body": {
            "type": "two_tower",
            "num_context_layers": 2,
            "num_denoiser_layers": 2,
            "noise_schedule": _SCHEDULE,
            **_STYLE,
        },
    },
    "planning_mse": {"type": "planning", "body": {"type": "mse", "num_layers": 2, **_STYLE}},
}
"""Name of the variant to its configuration. Names of several variants of one family: ``family_what``."""

GENERATION: dict[str, dict[str, Any]] = {}
"""Name of the variant to options of generation, where it needs others than the tests'."""


def small_model(name: str, seed: int = 0) -> nn.Module:
    """Return a model of the variant with weights that are all alive: none of its parts starts at zero."""
    torch.manual_seed(seed)
    model = build_model(SMALL[name])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def concepts(batch: int, size: int, dim: int = 16, seed: int = 1) -> Tensor:
    """Return (B, S, C) standard normal concepts."""
    return torch.randn(batch, size, dim, generator=torch.Generator().manual_seed(seed))
