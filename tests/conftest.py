"""Fixtures shared by several rooms: a pipeline with random weights and a codec without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SENTENCES = (
    "Tim had a red ball.",
    "The ball rolled away.",
    "Tim ran after it.",
    "A dog took the ball.",
    "The dog ran home.",
    "Tim was sad.",
    "His mother found the ball.",
    "They played again.",
)


@pytest.fixture(scope="session")
def make_pipeline() -> Callable[..., Any]:
    """Return a function that builds a pipeline: ``family`` is mse or two_tower, other words go to ConceptPipeline."""

    def make(family: str = "two_tower", dim: int = 16, **keywords: Any) -> Any:
        import torch

        from largeconcept.codec.normalizer import ConceptNormalizer
        from largeconcept.codec.toy import ToyCodec
        from largeconcept.generate.pipeline import ConceptPipeline
        from largeconcept.models import build_model
        from largeconcept.segment import build_segmenter

        sizes: dict[str, Any] = {"concept_dim": dim, "model_dim": 16, "num_heads": 2}
        if family == "mse":
            sizes |= {"num_layers": 1}
        else:
            sizes |= {"num_context_layers": 1, "num_denoiser_layers": 1}
        sizes |= keywords.pop("model", {})
        codec = keywords.pop("codec", None) or ToyCodec(dim, SENTENCES)
        torch.manual_seed(0)
        options = {"num_inference_steps": 4, "max_concepts": 3, **keywords.pop("options", {})}
        return ConceptPipeline(
            build_segmenter(),
            codec,
            ConceptNormalizer.fit([codec.encode(SENTENCES)], method="standard"),
            build_model({"type": family, **sizes}),
            options if family != "mse" else {"max_concepts": options["max_concepts"]},
            device="cpu",
            **keywords,
        )

    return make
