"""The models that are meant to ship, at the size of two processor cores: under three hours with bf16 matrix units.

The chain, the codec's network and the tasks are those of :mod:`largeconcept.recipes.default`; the model is smaller and
sees fewer concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.recipes.default import codec_run, concept_run, tuning_run
from largeconcept.train.config import RunConfig

if TYPE_CHECKING:
    from largeconcept.train.codec_trainer import CodecTrainConfig


def codec(out: str | Path = "runs/default_cpu/codec") -> CodecTrainConfig:
    """Codec of six languages with 512 channels of meaning and 512 of form.

    100 minutes on two cores, whatever they reach in them. Meanings are taught by the universal sentence encoder.
    """
    return codec_run(out, max_minutes=100.0, micro_tokens=3072, micro_batches=3)


def pretrain(
    data: str | Path,
    out: str | Path = "runs/default_cpu/pretrain",
    *,
    kind: str = "two_tower",
    languages: Sequence[str] | None = None,
) -> RunConfig:
    """LCM of about 10 M parameters on all documents; about 45 minutes on two cores.

    Args:
        data: a concept dataset; where it has a ``mixture.json`` its splits are mixed as that says.
        out: the run folder.
        kind: ``two_tower`` or ``mse``.
        languages: train on these alone; ``None`` trains on all.
    """
    shapes: dict[str, dict[str, Any]] = {
        "two_tower": {"num_context_layers": 3, "num_denoiser_layers": 4, "model_dim": 256, "num_heads": 4},
        "mse": {"num_layers": 3, "model_dim": 512, "num_heads": 8, "copy_heads": 4},
    }
    run = concept_run({"type": kind, "dropout": 0.1, **shapes[kind]}, data, out, languages)
    return run.override(
        f"train.max_steps={1500 if kind == 'mse' else 3000}",
        "train.save_every=200",
        "train.eval_every=500",
        "train.ema_decay=0.99",
        "schedule.warmup_steps=100",
    )


def finetune(
    data: str | Path,
    start: str | Path,
    out: str | Path = "runs/default_cpu/finetune",
    *,
    languages: Sequence[str] | None = None,
) -> RunConfig:
    """Instruction tuning of a pre-trained LCM: summarise, expand, go on.

    About ten minutes on two cores by diffusion, an hour through the decoder (``mse``).

    Args:
        data: a concept dataset that keeps summaries.
        start: the run or pipeline to start from.
        out: the run folder.
        languages: tune on these alone; ``None`` tunes on all.
    """
    run = tuning_run(data, start, out, languages)
    if run.model.type == "mse":  # through the decoder, which is most of the work
        run = run.override("data.batch_concepts=2048")
    return run.override(
        "train.max_steps=800",
        "train.save_every=200",
        "train.eval_every=400",
        "train.ema_decay=0.99",
        "schedule.warmup_steps=50",
        "optim.lr=5e-4",
    )
