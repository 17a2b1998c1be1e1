"""The published sizes (arXiv:2412.08821, §2.3 and §2.4.1), for many GPUs.

Sizes and optimiser follow the released pre-training recipes: width, depth, RoPE, RMSNorm, SwiGLU, dropout 0.1; AdamW
with betas (0.9, 0.95), eps 1e-5, decay 0.1; peak rate 4e-4, cosine from 1e-7 to 1e-5, 10,000 of 250,000 updates of
warm-up; gradients clipped at 25; sequences of at most 128 concepts; 32 micro-batches of 7,168 concepts, about 229,000 a
step.

Note: bfloat16 with float32 master weights instead of pure float16, weight decay on matrices only, an averaged copy of
the weights, and a normalizer that is fitted on the data at hand.
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
    return _run(model, data, out, validation)


_STYLE: dict[str, Any] = {
    "concept_dim": 1024,
    "norm": "rms",
    "mlp": "swiglu",
    "positions": "rope",
    "attention_output_bias": True,
    "dropout": 0.1,
}


def _run(model: dict[str, Any], data: str | Path, out: str | Path, validation: str | None) -> RunConfig:
    sources: dict[str, Any] = {"batch_concepts": 7168, "max_length": 128}
    return RunConfig.from_dict(
        {
            "model": model,
            "data": {**sources, "sources": [{"path": str(data)}], "micro_batches": 32, "shuffle_window": 1_000_000},
            "validation": None
            if validation is None
            else {**sources, "sources": [{"path": str(data), "split": validation}], "micro_batches": 32},
            "optim": {"lr": _PEAK, "betas": (0.9, 0.95), "eps": 1e-5, "weight_decay": 0.1},
            "schedule": {
                "type": "cosine",
                "warmup_steps": 10_000,
                "start_ratio": _FIRST / _PEAK,
                "final_ratio": _LAST / _PEAK,
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
            },
        }
    )
