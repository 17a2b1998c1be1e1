"""Small models for one CPU: minutes on two cores, on some ten thousand concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from largeconcept.data.reader import ConceptDataset, splits
from largeconcept.train.config import RunConfig

_STYLE: dict[str, Any] = {"model_dim": 256, "num_heads": 4}
SAMPLERS: dict[str, dict[str, Any]] = {
    "mse": {},
    "quantized": {"guidance_scale": 3.0, "guidance_rescale": 0.0, "codebooks_per_step": 32},
    "two_tower": {"num_inference_steps": 3, "guidance_scale": 6.0, "guidance_rescale": 1.0},
    "energy": {"num_candidates": 32, "candidate_choice": "mean", "initial_noise_scale": 0.5},
    "flow": {"num_inference_steps": 3, "guidance_scale": 6.0, "guidance_rescale": 0.5},
    "one_tower": {"num_inference_steps": 3, "guidance_scale": 6.0, "guidance_rescale": 1.0},
    "planning": {
        "num_inference_steps": 3,
        "guidance_scale": 6.0,
        "guidance_rescale": 1.0,
        "initial_noise_scale": 0.2,
    },
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
    """One-tower diffusion LCM of 2 layers and width 256; about a minute on two cores.

    Timesteps as for :func:`two_tower`.
    """
    model = {"type": "one_tower", "num_layers": 2, "dropout": 0.4, "max_positions": 1024, **_STYLE}
    objective = {"type": "diffusion", "timesteps": {"type": "beta", "a": 3.0, "b": 1.0}}
    run = _run(model, data, out, validation, max_steps=140)
    return RunConfig.from_dict({**run.to_dict(), "objective": objective})


def flow(data: str | Path, out: str | Path = "runs/tiny_flow", *, validation: str | None = None) -> RunConfig:
    """Two towers of 2 + 2 layers and width 256 with a rectified-flow denoiser; about two minutes on two cores.

    Times are drawn near noise (log-odds around -1.5) for the reason given at :func:`two_tower`.
    """
    layers = {"num_context_layers": 2, "num_denoiser_layers": 2, "dropout": 0.4}
    objective = {"type": "flow", "times": {"location": -1.5, "scale": 1.5}}
    run = _run({"type": "flow", **layers, **_STYLE}, data, out, validation, max_steps=180)
    return RunConfig.from_dict({**run.to_dict(), "objective": objective}).override("data.batch_concepts=1024")


def energy(data: str | Path, out: str | Path = "runs/tiny_energy", *, validation: str | None = None) -> RunConfig:
    """Energy model of 2 + 1 layers and width 256, four samples a concept; a minute on two cores.

    A sample of what little data teaches is far from any truth; near the middle of the distribution it is about right.
    The head begins with the state as well as with noise: without that straight way to the output it does not beat
    copying the last sentence here.
    """
    model = {"type": "energy", "num_layers": 2, "num_head_layers": 1, "noise_dim": 64, "start": "both", "dropout": 0.4}
    run = _run({**model, **_STYLE}, data, out, validation, max_steps=120)
    return RunConfig.from_dict({**run.to_dict(), "objective": {"type": "energy", "num_samples": 4}})


def through_decoder(
    data: str | Path, out: str | Path = "runs/tiny_through_decoder", *, validation: str | None = None
) -> RunConfig:
    """SONAR-LLM of 2 layers and width 256, trained through the codec's decoder; about a minute and a half on one core.

    Some thousand sentences through the decoder are not enough to learn from them alone: here the squared error of all
    concepts leads, and the decoder, shown 24 sentences a step, says what matters. With ``mse_weight`` 2 the token loss
    falls further and the contrastive accuracy less far above that of copying.
    """
    model = {"type": "through_decoder", "num_layers": 2, "ffn_dim": 1024, "dropout": 0.4, **_STYLE}
    objective = {"type": "through_decoder", "max_sentences": 24, "mse_weight": 5.0}
    run = _run(model, data, out, validation, max_steps=120)
    return RunConfig.from_dict({**run.to_dict(), "objective": objective})


def quantized(data: str | Path, out: str | Path = "runs/tiny_quantized", *, validation: str | None = None) -> RunConfig:
    """Quant-LCM-d of 2 layers and width 256 over 32 codebooks of 16 centroids; about two minutes on two cores.

    Fifteen thousand concepts fit larger codebooks to themselves, and are too few to learn indices from alone: logits
    come from the codebooks, every codebook to come is asked for, and the distance of the concept counts too. The first
    codebooks, which decide what a concept is about, are drawn more often than the last.
    """
    objective = {"lookahead": 31, "concept_weight": 10.0}
    return _quantized({"head": "discrete", "logits": "codebook"}, objective, data, out, validation)


def quantized_continuous(
    data: str | Path, out: str | Path = "runs/tiny_quantized_continuous", *, validation: str | None = None
) -> RunConfig:
    """Quant-LCM-c: as :func:`quantized`, with a head that finds the concept; about two minutes on two cores."""
    return _quantized({"head": "continuous"}, {}, data, out, validation)


def _quantized(
    head: dict[str, Any], objective: dict[str, Any], data: str | Path, out: str | Path, validation: str | None
) -> RunConfig:
    codebooks = {"num_quantizers": 32, "codebook_size": 16, "fit_passes": 2}
    model = {"type": "quantized", "num_layers": 2, "dropout": 0.4, "max_positions": 1024, **head, **codebooks}
    run = _run({**model, **_STYLE}, data, out, validation, max_steps=120)
    return RunConfig.from_dict({**run.to_dict(), "objective": {"type": "quantized", "level_power": 4.0, **objective}})


def planning(data: str | Path, out: str | Path = "runs/tiny_planning", *, validation: str | None = None) -> RunConfig:
    """Large Planning Concept Model with a one-tower body; about a minute and a half on two cores.

    The data must have plans. Its breaks and plans leave fewer of the steps to the sentences, so samples are drawn with
    less noise than those of :func:`one_tower`.
    """
    kind = (ConceptDataset(data).metadata.plan or {}).get("kind")
    run = one_tower(data, out, validation=validation).to_dict()
    run["model"] = {"type": "planning", "body": run["model"], "plan": kind}
    run["objective"] = {"type": "planning", "body": run["objective"]}
    return RunConfig.from_dict(run)


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
