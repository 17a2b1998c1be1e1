"""The configuration of a training run: what ``config.yaml`` of a run folder holds, and what a recipe returns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.data.loader import LoaderConfig
from largeconcept.models.registry import ModelConfig
from largeconcept.objectives import ObjectiveConfig
from largeconcept.train.optim import OptimConfig
from largeconcept.train.parallel import Strategy
from largeconcept.train.precision import Precision
from largeconcept.train.schedule import LRConfig

# What may differ between a checkpoint and the run that resumes it: length, place, speed, and what is told or kept.
MAY_CHANGE = frozenset(
    {
        "validation",
        "notes",
        "train.out",
        "train.max_steps",
        "train.device",
        "train.parallel",
        "train.compile",
        "train.prefetch",
        "train.log_every",
        "train.save_every",
        "train.keep_last",
        "train.eval_every",
        "train.eval_batches",
        "train.tensorboard",
        "train.max_bad_steps",
        "train.export_weights",
        "train.init_from",
    }
)


class LoopConfig(Config):
    """How long, where, how exactly and with what traces a run trains.

    Attributes:
        out: the run folder; a run that finds checkpoints there goes on from the newest.
        max_steps: optimiser steps of the whole run.
        seed: of the initial weights, noise, timesteps and dropout.
        precision: ``auto`` is bf16 where the hardware multiplies it, else fp32; weights and optimiser stay fp32.
        device: ``auto``, ``cpu`` or ``cuda``.
        parallel: ``auto``, ``none`` or ``ddp`` (one process per device, started by torchrun).
        clip_norm: largest norm of the gradient of the mean loss; ``null`` does not clip. Losses are summed over
            channels, so norms are larger than those of a mean over channels.
        ema_decay: of the averaged weights; ``null`` keeps none.
        init_from: folder of a finished run, a saved pipeline or a saved model whose weights to start from.
        compile: compile the model's forward pass (a minute at the start; pays on long runs).
        prefetch: optimiser steps of data read ahead in a thread.
        log_every: steps between lines of ``metrics.jsonl``.
        save_every: steps between checkpoints; ``null`` saves at the end only.
        keep_last: checkpoints to keep.
        eval_every: steps between evaluations on the validation data; ``null`` evaluates at the end only.
        eval_batches: micro-batches of validation data that an evaluation reads.
        tensorboard: also write TensorBoard files, if the package is installed.
        max_bad_steps: give up after so many steps in a row without a finite loss and gradient.
        export_weights: which weights the exported model has; ``ema`` falls back to ``raw`` without an average.
    """

    out: str = Field(default="runs/train", min_length=1)
    max_steps: int = Field(default=2000, ge=1)
    seed: int = Field(default=0, ge=0)
    precision: Precision = "auto"
    device: str = "auto"
    parallel: Strategy = "auto"
    clip_norm: float | None = Field(default=25.0, gt=0.0)
    ema_decay: float | None = Field(default=0.999, ge=0.0, lt=1.0)
    init_from: str | None = None
    compile: bool = False
    prefetch: int = Field(default=2, ge=0)
    log_every: int = Field(default=10, ge=1)
    save_every: int | None = Field(default=500, ge=1)
    keep_last: int = Field(default=2, ge=1)
    eval_every: int | None = Field(default=None, ge=1)
    eval_batches: int = Field(default=16, ge=1)
    tensorboard: bool = True
    max_bad_steps: int = Field(default=10, ge=1)
    export_weights: Literal["ema", "raw"] = "ema"


class RunConfig(Config):
    """Everything that defines a training run.

    Attributes:
        model: family and sizes.
        objective: what is minimised; ``null`` takes the model's own.
        data: what is read, and how it is batched.
        validation: held-out data for the loss inside training; ``null`` for none.
        normalizer: ``fit`` (robust statistics of the training data), ``robust``, ``standard``, ``meta`` or ``none`` to
            choose the statistics, or the folder of a saved normalizer. A run that starts from another run or from a
            pipeline (``train.init_from``) keeps the normalizer of that where ``fit`` is given.
        quantizer: where a quantised model's codebooks come from: ``fit`` (from the training data, before the first
            step), or the folder of a saved quantizer, whose normalizer must be the run's.
        optim, schedule, train: optimiser, learning rate, loop.
        notes: what a person should know of the run, as plain data; changes nothing, and goes into ``run.json`` too.
    """

    model: ModelConfig
    objective: ObjectiveConfig | None = None
    data: LoaderConfig
    validation: LoaderConfig | None = None
    normalizer: str = "fit"
    quantizer: str = "fit"
    optim: OptimConfig = OptimConfig()
    schedule: LRConfig = LRConfig()
    train: LoopConfig = LoopConfig()
    notes: dict[str, Any] = Field(default_factory=dict)
