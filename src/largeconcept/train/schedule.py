"""Learning-rate schedules as pure functions: the factor on the peak rate at an update.

A schedule knows nothing of an optimiser. Update 0 is the first one; the factor of update t is what it is made with.
With warm-up the first update uses ``start_ratio`` and update ``warmup_steps`` the peak.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from largeconcept.config import Config

ScheduleType = Literal["cosine", "wsd", "constant", "inverse_sqrt", "polynomial"]
DecayShape = Literal["exponential", "linear", "cosine", "sqrt"]


class LRConfig(Config):
    """How the learning rate moves over a run; rates are relative to ``optim.lr``.

    Attributes:
        steps: length of the schedule; ``None`` is ``train.max_steps``. Set it to stop a run early, or to go on later,
            without moving the schedule.
        type: ``cosine`` (down to ``final_ratio``), ``wsd`` (warm-up, stable, decay), ``constant``, ``inverse_sqrt``
            (lr·√(w/t) after the warm-up; also called "myle"), ``polynomial``.
        warmup_steps: updates of linear warm-up; ``None`` means 3 % of the run, at most 1,000.
        start_ratio: rate of the first update of the warm-up.
        final_ratio: rate at the end of the run (``cosine``, ``wsd``, ``polynomial``).
        decay_fraction: share of the run that ``wsd`` spends on the decay.
        decay_shape: form of the ``wsd`` decay; ``sqrt`` is 1 - √progress.
        power: exponent of ``polynomial``.
        after_end: past the last step ``hold`` the final rate, or ``restart`` the cosine cycle.
    """

    type: ScheduleType = "cosine"
    steps: int | None = Field(default=None, ge=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    start_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    final_ratio: float = Field(default=0.025, ge=0.0, le=1.0)
    decay_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    decay_shape: DecayShape = "sqrt"
    power: float = Field(default=1.0, gt=0.0)
    after_end: Literal["hold", "restart"] = "hold"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.decay_shape == "exponential" and self.type == "wsd" and self.final_ratio == 0.0:
            raise ValueError("an exponential decay never reaches final_ratio 0; set final_ratio above 0")
        if self.after_end == "restart" and self.type != "cosine":
            raise ValueError("after_end=restart has a meaning for type=cosine only")
        return self

    def warmup(self, max_steps: int) -> int:
        """Return the number of warm-up updates of a run of ``max_steps``."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(1000, math.ceil(0.03 * max_steps))


def lr_factor(config: LRConfig, update: int, max_steps: int) -> float:
    """Return the factor on the peak learning rate at ``update`` (counted from 0) of a run of ``max_steps``.

    ``config.steps``, where it is set, takes the place of ``max_steps``.

    The cosine runs over ``max_steps - warmup + 1`` updates, so the value at update ``max_steps`` is just above the
    final rate; ``wsd`` with ``decay_fraction=0.5`` and an exponential decay, ``inverse_sqrt``, and ``polynomial``
    with a power of 200 are the reference implementation's ``wsd``, ``myle`` and ``polynomial``.
    """
    max_steps = config.steps or max_steps
    warmup = config.warmup(max_steps)
    if config.type != "constant" and update < warmup:
        return config.start_ratio + (1.0 - config.start_ratio) * update / warmup
    if config.type == "constant":
        return 1.0 if update >= warmup else config.start_ratio + (1.0 - config.start_ratio) * update / warmup
    if config.type == "inverse_sqrt":
        return math.sqrt(max(warmup, 1) / max(update, 1))
    if config.type == "cosine":
        return _cosine(config, update - warmup, max(max_steps - warmup + 1, 1))
    if config.type == "polynomial":
        progress = min(1.0, (update - warmup) / max(max_steps - warmup, 1))
        return config.final_ratio + (1.0 - config.final_ratio) * math.pow(1.0 - progress, config.power)
    return _decay(config, update, warmup, max_steps)


def _cosine(config: LRConfig, since_warmup: int, cycle: int) -> float:
    if config.after_end == "restart":
        since_warmup %= cycle
    progress = min(1.0, since_warmup / cycle)
    return config.final_ratio + 0.5 * (1.0 - config.final_ratio) * (1.0 + math.cos(math.pi * progress))


def _decay(config: LRConfig, update: int, warmup: int, max_steps: int) -> float:
    length = min(round(config.decay_fraction * max_steps), max(max_steps - warmup, 0))
    start = max_steps - length
    if update < start or (length == 0 and update < max_steps):
        return 1.0
    progress = 1.0 if length == 0 else min(1.0, (update - start) / length)
    if config.decay_shape == "exponential":
        return float(config.final_ratio**progress)
    if config.decay_shape == "linear":
        fall = 1.0 - progress
    elif config.decay_shape == "cosine":
        fall = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        fall = 1.0 - math.sqrt(progress)
    return config.final_ratio + (1.0 - config.final_ratio) * fall
