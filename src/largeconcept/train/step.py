"""One optimiser step, and one evaluation pass. Nothing here knows of files, of diffusion or of how data is read.

The gradient of a step is (sum of losses over all micro-batches of all processes) / (number of target concepts among
them), so it depends neither on the number of processes nor on how a step is cut into micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from largeconcept.diffusion.random import StepRandom
from largeconcept.train.ema import EMA
from largeconcept.train.optim import Optimizers
from largeconcept.train.parallel import GradientSum, Parallel
from largeconcept.train.precision import autocast
from largeconcept.types import ConceptBatch, Loss

Objective = Callable[[nn.Module, ConceptBatch, StepRandom], Loss]
Metrics = dict[str, tuple[Tensor, Tensor]]


@dataclass(slots=True)
class StepResult:
    """What an optimiser step did, the same on every process except ``metrics`` (this process's share).

    Attributes:
        loss_sum, count: loss summed over target concepts of all processes, and their number.
        grad_norm: norm of the gradient of loss_sum / count, before clipping.
        skipped: no update was made, since the loss or the gradient was not finite or there was no target.
        stop: some process was asked to stop.
        concepts: concepts read by all processes, context included.
        metrics: sums and counts of the objective's own numbers.
    """

    loss_sum: float
    count: float
    grad_norm: float
    skipped: bool
    stop: bool
    concepts: float = 0.0
    metrics: Metrics = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Loss per target concept."""
        return self.loss_sum / self.count if self.count else math.nan


class Stepper:
    """Makes optimiser steps on one model.

    Args:
        model: on its device; may be compiled in place.
        objective: maps (model, batch, random numbers) to a :class:`~largeconcept.types.Loss`.
        optimizers: over the model's parameters.
        parallel: this process's place.
        precision: ``fp32`` or ``bf16``.
        clip_norm: largest norm of the mean gradient; ``None`` leaves it alone.
        ema: updated after every step that was not skipped.
        gradients: what :meth:`Parallel.prepare` returned.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizers: Optimizers,
        parallel: Parallel,
        precision: str = "fp32",
        clip_norm: float | None = None,
        ema: EMA | None = None,
        gradients: GradientSum | None = None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimizers = optimizers
        self.parallel = parallel
        self.precision = precision
        self.clip_norm = clip_norm
        self.ema = ema
        self._gradients = gradients
        self._weights = [p for p in model.parameters() if p.requires_grad]

    def __call__(
        self, batches: Sequence[ConceptBatch], seed: int, step: int, factor: float, stop: bool = False
    ) -> StepResult:
        """Make one step.

        Args:
            batches: this process's micro-batches, possibly none.
            seed: of the run; noise, timesteps and dropout follow from (seed, step).
            step: number of the step, from 0.
            factor: of the learning-rate schedule.
            stop: whether this process was asked to stop; the result tells whether any was.
        """
        self.model.train()
        device = self.parallel.device
        rng = StepRandom(seed, step)
        total = torch.zeros(5, dtype=torch.float64, device=device)
        metrics: Metrics = {}
        for index, batch in enumerate(batches):
            place = index * self.parallel.world_size + self.parallel.rank
            torch.manual_seed(mix_seed(seed, step, place))
            with autocast(self.precision, device):
                loss = self.objective(self.model, batch.to(device), rng)
            if self._gradients is not None and index == len(batches) - 1:
                self._gradients.arm()
            loss.sum.backward()  # type: ignore[no-untyped-call]
            total[0] += loss.sum.detach()
            total[1] += loss.count
            add_metrics(metrics, loss.metrics)
        if self._gradients is not None:
            self._gradients.finish()
        # No gradient counts as zero, as it does when gradients are summed over processes.
        gradients = [_gradient(p) for p in self._weights]
        norm = torch.nn.utils.get_total_norm(gradients)
        # A loss that is not finite on one process must stop the update on all of them, so it travels as a flag.
        total[2] = (~torch.isfinite(total[0]) | ~torch.isfinite(norm)).double()
        total[3] = float(stop)
        total[4] = float(sum(batch.num_concepts for batch in batches))  # batches are still on the host
        self.parallel.sum_(total)
        loss_sum, count, bad, stopping, concepts, norm_sum = torch.cat([total, norm.double().reshape(1)]).tolist()
        grad_norm = norm_sum / count if count else math.nan
        skipped = bool(bad) or not count
        result = StepResult(loss_sum, count, grad_norm, skipped, bool(stopping), concepts, metrics)
        if not result.skipped:
            self._update(gradients, count, result.grad_norm, factor)
        self.optimizers.zero_grad()
        return result

    def _update(self, gradients: list[Tensor], count: float, norm: float, factor: float) -> None:
        scale = 1.0 / count
        if self.clip_norm is not None and norm > self.clip_norm:
            scale *= self.clip_norm / norm
        torch._foreach_mul_(gradients, scale)
        self.optimizers.step(factor)
        if self.ema is not None:
            self.ema.update()


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[ConceptBatch],
    seed: int,
    parallel: Parallel,
    precision: str = "fp32",
) -> dict[str, tuple[float, float]]:
    """Return sums and counts of the loss and the objective's metrics over the batches of all processes.

    The random numbers depend on ``seed`` and the sample ids alone, so two calls on the same data differ by the weights
    only.
    """
    was_training = model.training
    model.eval()
    rng = StepRandom(seed, 0)
    sums: Metrics = {}
    for batch in batches:
        with autocast(precision, parallel.device):
            loss = objective(model, batch.to(parallel.device), rng)
        add_metrics(sums, {"loss": (loss.sum.detach(), torch.as_tensor(loss.count)), **loss.metrics})
    model.train(was_training)
    return gather_metrics(sums, parallel)


def add_metrics(total: Metrics, more: Metrics) -> None:
    """Add sums and counts into ``total``, without waiting for the device."""
    for name, (value, count) in more.items():
        value, count = value.detach().double(), count.detach().double()
        if name in total:
            value, count = total[name][0] + value, total[name][1] + count
        total[name] = (value, count)


def gather_metrics(own: Metrics, parallel: Parallel) -> dict[str, tuple[float, float]]:
    """Return sums and counts added over all processes; names may differ between processes."""
    plain = {name: (float(value), float(count)) for name, (value, count) in own.items()}
    total: dict[str, tuple[float, float]] = {}
    for part in parallel.gather(plain):
        for name, (value, count) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + count)
    return total


def mix_seed(*numbers: int) -> int:
    """Return 63 well-mixed bits of a few integers (the finaliser of splitmix64, applied in turn)."""
    mask = (1 << 64) - 1
    state = 0
    for number in numbers:
        state = (state + (number & mask) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1
