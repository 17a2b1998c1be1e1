"""Small models for one CPU: minutes on two cores, on some ten thousand concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from largeconcept.data.reader import ConceptDataset, splits
from largeconcept.train.config import RunConfig

_STYLE: dict[str, Any] = {"model_dim": 256, "num_heads": 4}
SAMPLERS: dict[str, dict[str, Any]] = {
    "mse": {},
    "two_tower": {"num_inference_steps": 3, "guidance_scale": 6.0, "guidance_rescale": 1.0},
    "one_tower": {"num_inference_steps": 3, "guidance_scale": 6.0, "guidance_rescale": 1.0},
}
"""Type of model to the options of generation that suit what these recipes train: on 15,000 concepts a diffusion model
learns what comes next better than how exactly, and few steps under strong guidance keep its samples on the subject
(dev/LOG.md)."""


def mse(data: str | Path, out: str | Path = "runs/tiny_mse", *, validation: str | None = None) -> RunConfig:
    """Base-LCM of 2 layers and width 256, squared error; half a minute on two cores.

    Fifteen thousand concepts are soon learnt by heart: few steps and strong dropout (0.4) generalise best there. Give
    more of both layers and steps to more data.
    """
    return _run({"type": "mse", "num_layers": 2, "dropout": 0.4, **_STYLE}, data, out, validation, max_steps=120)


def two_tower(data: str | Path, out: str | Path = "runs/tiny_two_tower", *, validation: str | None = None) -> RunConfig:
    """Two-tower diffusion LCM of 2 + 2 layers and width 256; about two minutes on two cores.

    Timesteps are drawn from a Beta(3, 1): the noisiest ones decide what a sample is about, and with little data they
    profit most from the few steps that generalise.
    """
    layers = {"num_context_layers": 2, "num_denoiser_layers": 2, "dropout": 0.4}
    objective = {"type": "diffusion", "timesteps": {"type": "beta", "a": 3.0, "b": 1.0}}
    run = _run({"type": "two_tower", **layers, **_STYLE}, data, out, validation, max_steps=200)
    return RunConfig.from_dict({**run.to_dict(), "objective": objective})


def one_tower(data: str | Path, out: str | Path = "runs/tiny_one_tower", *, validation: str | None = None) -> RunConfig:
    """One-tower diffusion LCM of 3 layers and width 256; about two minutes on two cores.

    Timesteps as for :func:`two_tower`.
    """
    model = {"type": "one_tower", "num_layers": 3, "dropout": 0.4, "max_positions": 1024, **_STYLE}
    objective = {"type": "diffusion", "timesteps": {"type": "beta", "a": 3.0, "b": 1.0}}
    run = _run(model, data, out, validation, max_steps=200)
    return RunConfig.from_dict({**run.to_dict(), "objective": objective})


def _run(model: dict[str, Any], data: str | Path, out: str | Path, validation: str | None, max_steps: int) -> RunConfig:
    """Fill in what both have in common.

    Args:
        data: a concept dataset; its dimension is the model's.
        out: the run folder.
        validation: split for the loss inside training; ``None`` takes ``validation`` or ``test`` if there is one.

    Raises:
        DataError: there is no dataset at ``data``.
    """
    dataset = ConceptDataset(data)
    held_out = validation or next((name for name in ("validation", "test") if name in splits(data)), None)
    batches: dict[str, Any] = {"batch_concepts": 2048, "max_length": 64}
    return RunConfig.from_dict(
        {
            "model": {**model, "concept_dim": dataset.dim},
            "data": {**batches, "sources": [{"path": str(data)}]},
            "validation": None
            if held_out is None
            else {**batches, "sources": [{"path": str(data), "split": held_out}]},
            "optim": {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1},
            "schedule": {"type": "wsd", "decay_fraction": 0.3, "decay_shape": "linear", "final_ratio": 0.01},
            "train": {
                "out": str(out),
                "max_steps": max_steps,
                "ema_decay": 0.97,
                "log_every": 20,
                "save_every": 100,
                "eval_every": 100,
            },
        }
    )
