"""A small model of every family, for the promises that all of them keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.models import build_model
from largeconcept.objectives import Objective, build_objective, default_objective
from largeconcept.types import ConceptBatch, TokenLoss

_BODY = {"model_dim": 32, "num_heads": 2, "dropout": 0.0}
_STYLE = {"concept_dim": 16, **_BODY}
_SCHEDULE = {"num_timesteps": 12}

SMALL: dict[str, dict[str, Any]] = {
    "mse": {"type": "mse", "num_layers": 2, **_STYLE},
    "mse_copying": {"type": "mse", "num_layers": 2, "copy_heads": 2, **_STYLE},
    "two_tower": {
        "type": "two_tower",
        "num_context_layers": 2,
        "num_denoiser_layers": 2,
        "noise_schedule": _SCHEDULE,
        **_STYLE,
    },
    "one_tower": {"type": "one_tower", "num_layers": 2, "noise_schedule": _SCHEDULE, **_STYLE},
    "flow": {"type": "flow", "num_context_layers": 2, "num_denoiser_layers": 2, **_STYLE},
    "energy": {"type": "energy", "num_layers": 2, "num_head_layers": 2, "noise_dim": 10, **_STYLE},
    "energy_more_noise": {"type": "energy", "num_layers": 2, "num_head_layers": 1, "noise_dim": 20, **_STYLE},
    "energy_both": {
        "type": "energy",
        "num_layers": 2,
        "num_head_layers": 1,
        "noise_dim": 10,
        "start": "both",
        **_STYLE,
    },
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
    "planning_flow": {
        "type": "planning",
        "body": {"type": "flow", "num_context_layers": 1, "num_denoiser_layers": 1, **_STYLE},
    },
    "planning_energy": {
        "type": "planning",
        "body": {"type": "energy", "num_layers": 1, "num_head_layers": 1, "noise_dim": 10, **_STYLE},
    },
    "token_lm": {"type": "token_lm", "vocab_size": 100, "num_layers": 2, **_BODY},
    "through_decoder": {"type": "through_decoder", "num_layers": 2, "head_size": 12, **_STYLE},
    "quantized": {"type": "quantized", "num_layers": 2, "num_quantizers": 3, "codebook_size": 8, **_STYLE},
    "quantized_codebook": {
        "type": "quantized",
        "logits": "codebook",
        "num_layers": 2,
        "num_quantizers": 3,
        "codebook_size": 8,
        **_STYLE,
    },
    "quantized_continuous": {
        "type": "quantized",
        "head": "continuous",
        "num_layers": 2,
        "num_quantizers": 3,
        "codebook_size": 8,
        **_STYLE,
    },
}
"""Name of the variant to its configuration. Names of several variants of one family: ``family_what``."""

GENERATION: dict[str, dict[str, Any]] = {"energy": {"num_candidates": 4}}
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
    if hasattr(model, "prepare"):  # what training does before its first step
        model.prepare(lambda number: concepts(1, 200)[0], seed=0)
    return model.eval()


def concepts(batch: int, size: int, dim: int = 16, seed: int = 1) -> Tensor:
    """Return (B, S, C) standard normal concepts."""
    return torch.randn(batch, size, dim, generator=torch.Generator().manual_seed(seed))


class LetterDecoder:
    """Writes each letter of a sentence independently: the simplest decoder that has likelihoods."""

    dim = 16

    def __init__(self) -> None:
        self.table = torch.randn(128, self.dim, generator=torch.Generator().manual_seed(7))

    def token_loss(self, concepts: Tensor, sentences: Sequence[str], lang: Any) -> TokenLoss:
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        letters = torch.tensor([ord(letter) for sentence in sentences for letter in sentence])
        owner = torch.arange(len(sentences)).repeat_interleave(lengths)
        scores = concepts[owner] @ self.table.T
        nats = F.cross_entropy(scores, letters, reduction="none")
        correct = (scores.argmax(-1) == letters).long()
        sums = torch.zeros(len(sentences)).index_add(0, owner, nats)
        return TokenLoss(sums, lengths, torch.zeros_like(lengths).index_add(0, owner, correct))

    def decoder_parameters(self) -> list[nn.Parameter]:
        return []


def small_objective(model: nn.Module, normalizer: ConceptNormalizer) -> Objective:
    """Return the objective that the model's family is meant for, with a decoder if it needs one."""
    objective: Any = build_objective(default_objective(model.config), normalizer)
    if hasattr(objective, "decoder"):
        objective.decoder = LetterDecoder()
    return objective


def small_batch(x: Tensor, lengths: Tensor, ids: Tensor) -> ConceptBatch:
    """Return a batch whose sentences follow from row and position."""
    texts = [[f"{id} and {i * 7}" for i in range(n)] for id, n in zip(ids.tolist(), lengths.tolist())]
    return ConceptBatch(x, lengths, ids, sentences=texts, languages=["eng_Latn"] * len(texts))
