"""The published sizes, for many GPUs: Large Concept Models (arXiv:2412.08821) and SONAR-LLM (arXiv:2508.05305).

LCM (§2.3, §2.4.1): sizes and optimiser of the ablation runs follow the released pre-training recipes: AdamW with betas
(0.9, 0.95), eps 1e-5, decay 0.1; peak rate 4e-4, cosine from 1e-7 to 1e-5, 10,000 of 250,000 updates of warm-up;
gradients clipped at 25; sequences of at most 128 concepts; 32 micro-batches of 7,168 concepts, about 229,000 a step.
The 7B model: 124,000 updates of a million concepts, documents of up to 2,048, peak rate 3e-4, gradients
clipped at 10.

Released code exists for the Base-LCM and the two-tower alone, so the parameter counts of these two are the reference's,
less the weights that have no effect (:func:`largeconcept.convert.meta_lcm.dead_names`). The others are built as the
paper describes them: the same body, and what each adds.

SONAR-LLM (§3): the name counts Llama 3's table of 128,256 tokens, which the model does not use; trainable are 11, 34,
170, 450 and 700 million of 39M to 900M. Rate 1e-3, decay 1e-3, 820 updates of warm-up, texts of at most 128 sentences.

Note: bfloat16 with float32 master weights instead of pure float16, weight decay on matrices only, an averaged copy of
the weights, and a normalizer that is fitted on the data at hand (SONAR-LLM has none). Not published, and chosen here:
the size of SONAR-LLM's steps and their number (such that the warm-up is a twentieth), its schedule after the warm-up,
depth and width of its 39M and 1.3B models, and the training of the planning model beyond its data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from largeconcept.train.config import RunConfig

_PEAK, _FIRST, _LAST = 4e-4, 1e-7, 1e-5


def base_1_6b(data: str | Path, out: str | Path = "runs/base_1_6b", *, validation: str | None = None) -> RunConfig:
    """Base-LCM with 1.6 billion parameters: 32 layers of width 2048, squared error."""
    model = {"type": "mse", "num_layers": 32, **_STYLE, "model_dim": 2048, "num_heads": 16, "ffn_dim": 8192}
    return _run(model, data, out, validation)


def one_tower_1_6b(
    data: str | Path, out: str | Path = "runs/one_tower_1_6b", *, validation: str | None = None
) -> RunConfig:
    """One-tower diffusion LCM with 1.6 billion parameters: 32 layers of width 2048, 32 heads, learned positions."""
    return _run({"type": "one_tower", **_ONE_TOWER}, data, out, validation)


def two_tower_1_6b(
    data: str | Path, out: str | Path = "runs/two_tower_1_6b", *, validation: str | None = None
) -> RunConfig:
    """Two-tower diffusion LCM with 1.6 billion parameters: 5 contextualizer and 13 denoiser layers of width 2048."""
    layers = {"num_context_layers": 5, "num_denoiser_layers": 13}
    model = {"type": "two_tower", **layers, **_STYLE, "model_dim": 2048, "num_heads": 16, "ffn_dim": 8192}
    return _run(model, data, out, validation)


def two_tower_7b(
    data: str | Path, out: str | Path = "runs/two_tower_7b", *, validation: str | None = None
) -> RunConfig:
    """Two-tower diffusion LCM with 7 billion parameters: 5 contextualizer and 14 denoiser layers of width 4096."""
    layers = {"num_context_layers": 5, "num_denoiser_layers": 14}
    model = {"type": "two_tower", **layers, **_STYLE, "model_dim": 4096, "num_heads": 32, "ffn_dim": 16384}
    return _run(
        model,
        data,
        out,
        validation,
        loader={"batch_concepts": 8192, "max_length": 2048, "micro_batches": 128},
        optim={"lr": 3e-4},
        train={"max_steps": 124_000, "clip_norm": 10.0},
    )


def quantized_1_6b(
    data: str | Path, out: str | Path = "runs/quantized_1_6b", *, validation: str | None = None
) -> RunConfig:
    """Quant-LCM-d with 1.6 billion parameters: the one-tower's body over 64 codebooks of 8192 centroids.

    The codebooks are no parameters: 537 million numbers, fitted before the first step (the paper: on 15 million English
    sentences) or taken from a folder with ``quantizer=…``.
    """
    return _run({"type": "quantized", "head": "discrete", **_CODEBOOKS, **_ONE_TOWER}, data, out, validation)


def quantized_continuous_1_6b(
    data: str | Path, out: str | Path = "runs/quantized_continuous_1_6b", *, validation: str | None = None
) -> RunConfig:
    """Quant-LCM-c with 1.6 billion parameters: as quantized_1_6b, with a head that finds the concept itself."""
    return _run({"type": "quantized", "head": "continuous", **_CODEBOOKS, **_ONE_TOWER}, data, out, validation)


def planning_1_6b(
    data: str | Path, out: str | Path = "runs/planning_1_6b", *, validation: str | None = None
) -> RunConfig:
    """Large Planning Concept Model with 1.6 billion parameters: the one-tower, on documents with given plans (§4).

    The data must have plans; the paper's are one-sentence descriptions of each paragraph that a language model wrote.
    """
    model = {"type": "planning", "body": {"type": "one_tower", **_ONE_TOWER}, "plan": "given"}
    return _run(model, data, out, validation)


def sonar_llm_39m(
    data: str | Path, out: str | Path = "runs/sonar_llm_39m", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM called 39M, 11 million trainable: 13 layers of width 216, 6 heads."""
    return _sonar_llm(216, 13, 6, 36, data, out, validation)


def sonar_llm_100m(
    data: str | Path, out: str | Path = "runs/sonar_llm_100m", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM called 100M, 34 million trainable: 8 layers of width 512, 16 heads."""
    return _sonar_llm(512, 8, 16, 32, data, out, validation)


def sonar_llm_300m(
    data: str | Path, out: str | Path = "runs/sonar_llm_300m", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM called 300M, 170 million trainable: 10 layers of width 1024, 16 heads."""
    return _sonar_llm(1024, 10, 16, 64, data, out, validation)


def sonar_llm_600m(
    data: str | Path, out: str | Path = "runs/sonar_llm_600m", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM called 600M, 450 million trainable: 16 layers of width 1280, 26 heads."""
    return _sonar_llm(1280, 16, 26, 64, data, out, validation)


def sonar_llm_900m(
    data: str | Path, out: str | Path = "runs/sonar_llm_900m", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM called 900M, 700 million trainable: 17 layers of width 1536, 32 heads."""
    return _sonar_llm(1536, 17, 32, 64, data, out, validation)


def sonar_llm_1_3b(
    data: str | Path, out: str | Path = "runs/sonar_llm_1_3b", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM called 1.3B, 1.1 billion trainable: 16 layers of width 2048, 32 heads."""
    return _sonar_llm(2048, 16, 32, 64, data, out, validation)


_STYLE: dict[str, Any] = {
    "concept_dim": 1024,
    "norm": "rms",
    "mlp": "swiglu",
    "positions": "rope",
    "attention_output_bias": True,
    "dropout": 0.1,
}
_ONE_TOWER: dict[str, Any] = {
    **_STYLE,
    "num_layers": 32,
    "model_dim": 2048,
    "num_heads": 32,
    "ffn_dim": 8192,
    "positions": "learned",
}
_CODEBOOKS: dict[str, Any] = {"num_quantizers": 64, "codebook_size": 8192}


def _sonar_llm(
    width: int, layers: int, heads: int, head_size: int, data: str | Path, out: str | Path, validation: str | None
) -> RunConfig:
    model = {
        "type": "through_decoder",
        "concept_dim": 1024,
        "model_dim": width,
        "num_layers": layers,
        "num_heads": heads,
        "head_size": head_size,
    }
    return _run(
        model,
        data,
        out,
        validation,
        loader={"batch_concepts": 2048, "micro_batches": 8},
        optim={"lr": 1e-3, "weight_decay": 1e-3},
        schedule={"warmup_steps": 820},
        train={"max_steps": 16_400, "clip_norm": 1.0},
    )


def _run(
    model: dict[str, Any],
    data: str | Path,
    out: str | Path,
    validation: str | None,
    *,
    loader: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
) -> RunConfig:
    """Fill in the ablation runs' settings, changed by those that are given."""
    batches: dict[str, Any] = {"batch_concepts": 7168, "max_length": 128, "micro_batches": 32, **(loader or {})}
    rates = {"lr": _PEAK, "betas": (0.9, 0.95), "eps": 1e-5, "weight_decay": 0.1, **(optim or {})}
    return RunConfig.from_dict(
        {
            "model": model,
            "data": {**batches, "sources": [{"path": str(data)}], "shuffle_window": 1_000_000},
            "validation": None
            if validation is None
            else {**batches, "sources": [{"path": str(data), "split": validation}]},
            "optim": rates,
            "schedule": {
                "type": "cosine",
                "warmup_steps": 10_000,
                "start_ratio": _FIRST / rates["lr"],
                "final_ratio": _LAST / rates["lr"],
                **(schedule or {}),
            },
            "train": {
                "out": str(out),
                "max_steps": 250_000,
                "clip_norm": 25.0,
                "ema_decay": 0.9999,
                "precision": "bf16",
                "log_every": 50,
                "save_every": 2000,
                "eval_every": 10_000,
                "keep_last": 2,
                **(train or {}),
            },
        }
    )
