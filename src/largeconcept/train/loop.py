"""The training loop: steps, reports, evaluations, checkpoints, and a clean stop.

A run folder holds ``config.yaml`` (the whole configuration; training can be started from it), ``normalizer/``,
``metrics.jsonl``, ``tensorboard/``, ``step-*/`` checkpoints, and at the end ``model/`` and ``run.json``. A run that is
killed at any moment and started again makes the same steps as one that was not: everything random follows from
(seed, step, sample id), and the state of everything else is in the checkpoint.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import nn

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError, TrainingError
from largeconcept.io import atomic_write_text
from largeconcept.objectives import build_objective, default_objective
from largeconcept.train import checkpoint
from largeconcept.train.config import MAY_CHANGE, RunConfig
from largeconcept.train.ema import EMA
from largeconcept.train.meters import Meters, MetricWriter, Reporter
from largeconcept.train.optim import build_optimizers
from largeconcept.train.parallel import Parallel
from largeconcept.train.precision import resolve_precision
from largeconcept.train.quantizer import prepare_codebooks
from largeconcept.train.schedule import lr_factor
from largeconcept.train.setup import (
    StepSource,
    check_dim,
    export,
    loader_configs,
    open_loader,
    open_objective,
    open_validation,
    prepare_normalizer,
    tell_breaks,
    trained_together,
    validation_batches,
)
from largeconcept.train.start import prepare_model
from largeconcept.train.step import Stepper, StepResult, add_metrics, evaluate, gather_metrics

Weights = Literal["ema", "raw"]
_VALIDATION_SEED_OFFSET = 1_000_003  # validation noise is not the training noise of any usual seed


@dataclass(frozen=True, slots=True)
class EvalContext:
    """What an evaluation callback gets.

    Attributes:
        model: in evaluation mode, with the weights that ``weights`` names.
        normalizer: of the run.
        step: optimiser steps made.
        weights: ``ema`` or ``raw``.
    """

    model: nn.Module
    normalizer: ConceptNormalizer
    step: int
    weights: Weights


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Functions that a run calls; all on the main process only.

    Attributes:
        on_step: after every optimiser step, with the number of steps made and what the step did.
        on_eval: at every evaluation; returns numbers that are logged beside the validation loss.
        on_checkpoint: after a checkpoint is complete, with its folder.
    """

    on_step: Callable[[int, StepResult], None] | None = None
    on_eval: Callable[[EvalContext], Mapping[str, float]] | None = None
    on_checkpoint: Callable[[Path], None] | None = None


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a call of :meth:`Trainer.fit` did.

    Attributes:
        steps: optimiser steps of the run so far.
        losses: loss per target concept of each step that this call made.
        out: the run folder.
        metrics: the numbers of the last evaluation.
        skipped: steps of the run without an update, since something was not finite.
        interrupted: whether a signal stopped the run before its last step; started again, it goes on.
    """

    steps: int
    losses: list[float]
    out: Path
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    interrupted: bool = False


class Trainer:
    """Trains a concept model as a configuration says.

    Args:
        config: the whole run.
        callbacks: optional functions to call.
        progress: show a bar (on a terminal) or log lines (elsewhere).
    """

    def __init__(self, config: RunConfig, callbacks: Callbacks | None = None, progress: bool = True) -> None:
        self.config = config
        self.callbacks = callbacks or Callbacks()
        self.progress = progress

    def fit(self) -> TrainResult:
        """Train to ``train.max_steps``, from the newest checkpoint of the run folder if there is one.

        Raises:
            ConfigError: the settings do not fit one another, the data, or the checkpoint to go on from.
            DataError: the data is missing, damaged or empty.
            CheckpointError: the newest checkpoint cannot be read.
            TrainingError: too many steps in a row without a finite loss and gradient.
        """
        settings = self.config.train
        parallel = Parallel.start(settings.parallel, settings.device)
        devices = [parallel.device] if parallel.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), _Signals() as signals:
                return _Run(self.config, self.callbacks, parallel, self.progress, signals).fit()
        finally:
            parallel.close()


class _Run:
    """One call of ``fit``: the parts of a run, and how far it is."""

    def __init__(
        self, config: RunConfig, callbacks: Callbacks, parallel: Parallel, progress: bool, signals: _Signals
    ) -> None:
        self.config, self.settings, self.callbacks = config, config.train, callbacks
        self.parallel, self.signals = parallel, signals
        self.progress = progress and parallel.is_main
        self.out = Path(config.train.out)
        self.step = self.concepts = self.skipped = self.bad_in_a_row = 0
        self.last_eval: dict[str, float] = {}
        self.losses: list[float] = []
        self.meters, self.own_metrics = Meters(), {}  # type: ignore[var-annotated]

        objective = config.objective or default_objective(config.model)
        data, self.validation = loader_configs(config, getattr(objective, "needs_sentences", False))
        self.loader = open_loader(data, parallel)
        self.datasets = self.loader.datasets
        check_dim(config, self.loader)
        if self.validation is not None:
            check_dim(config, open_validation(self.validation, parallel))
        start, state = self._find_start()
        self.precision = self._precision(state)
        self._prepare_folder()
        self.normalizer = prepare_normalizer(config, self.datasets, self.out, parallel, resumed=start is not None)
        fingerprint = self.loader.metadata.codec_fingerprint
        self.model = prepare_model(config, parallel, fingerprint, resumed=start is not None)
        tell_breaks(self.model, self.loader, self.normalizer)
        prepare_codebooks(config, self.model, self.datasets, self.normalizer, self.out, parallel, start is not None)
        self.objective = open_objective(build_objective(objective, self.normalizer), self.loader, parallel)
        self.trained = trained_together(self.model, self.objective)
        gradients = parallel.prepare(self.trained)
        self.optimizers = build_optimizers(self.trained, config.optim)
        decay = self.settings.ema_decay
        self.ema = EMA(self.trained, decay) if decay is not None else None
        if start is not None and state is not None:
            checkpoint.load(start, self.trained, self.optimizers, self.ema)
            self._restore(state)
        self.position = self.loader.state_dict()
        if self.settings.compile:
            self.model.compile()
        self.stepper = Stepper(
            self.trained,
            self.objective,
            self.optimizers,
            parallel,
            self.precision,
            self.settings.clip_norm,
            self.ema,
            gradients,
        )

    def _find_start(self) -> tuple[Path | None, dict[str, Any] | None]:
        if self.parallel.is_main:
            checkpoint.remove_leftovers(self.out)
        start = self.parallel.from_main(checkpoint.latest(self.out) if self.parallel.is_main else None)
        if start is None:
            return None, None
        state = checkpoint.read_state(start)
        checkpoint.check_same_config(state["config"], self.config, MAY_CHANGE, start)
        return start, state

    def _precision(self, state: dict[str, Any] | None) -> str:
        """A resumed run keeps the precision it began with, also on another machine."""
        if state is not None and self.settings.precision == "auto":
            return str(state["precision"])
        return resolve_precision(self.settings.precision, self.parallel.device)

    def _prepare_folder(self) -> None:
        if self.parallel.is_main:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                atomic_write_text(self.out / "config.yaml", self.config.to_yaml())
            except OSError as error:
                raise ConfigError("cannot write to the run folder", where="train.out", got=error) from None
        self.parallel.barrier()

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.concepts = state["step"], state["concepts"]
        self.skipped, self.bad_in_a_row = state["skipped"], state["bad_in_a_row"]
        self.last_eval = dict(state["last_eval"])
        if self.parallel.is_main:
            self.meters.load_state_dict(state["meters"])
        if self.ema is not None:
            self.ema.updates = state["ema_updates"]
        self.loader.load_state_dict(state["data"])

    def fit(self) -> TrainResult:
        settings = self.settings
        first, interrupted = self.step, False
        with ExitStack() as stack:
            reporter = stack.enter_context(Reporter(settings.max_steps, first, self.progress))
            writer = None
            if self.parallel.is_main:
                writer = MetricWriter(self.out, first, settings.tensorboard)
                stack.callback(writer.close)
                self._announce(reporter, writer)
            source = StepSource(self.loader, settings.prefetch if self.step < settings.max_steps else 0)
            stack.callback(source.close)
            clock = _Rate(self.concepts)
            while self.step < settings.max_steps and not interrupted:
                result = self._one_step(source)
                reporter.step(self.step, result.loss, clock.recent(self.concepts))
                if self.parallel.is_main and self.callbacks.on_step is not None:
                    self.callbacks.on_step(self.step, result)
                finished = self.step >= settings.max_steps
                if self.step % settings.log_every == 0 or finished:
                    self._log(writer, reporter, clock)
                if finished or (settings.eval_every and self.step % settings.eval_every == 0):
                    self._evaluate(writer, reporter)
                interrupted = result.stop and not finished
                if finished or interrupted or (settings.save_every and self.step % settings.save_every == 0):
                    self._save()
            if interrupted:
                reporter.say(f"stopped at step {self.step}; start the same command again to go on")
            else:
                self._export(reporter)
        return TrainResult(self.step, self.losses, self.out, self.last_eval, self.skipped, interrupted)

    def _announce(self, reporter: Reporter, writer: MetricWriter) -> None:
        count = sum(p.numel() for p in self.model.parameters())
        place = f"{self.parallel.world_size} × {self.parallel.device.type}"
        reporter.say(f"{self.config.model.type}: {count:,} parameters, {self.precision}, {place}, {self.out}")
        if self.step:
            reporter.say(f"going on from step {self.step}")
        if self.settings.tensorboard and not writer.has_tensorboard:
            reporter.say("TensorBoard is not installed: metrics go to metrics.jsonl only")

    def _one_step(self, source: StepSource) -> StepResult:
        batches, self.position = source.next()
        factor = lr_factor(self.config.schedule, self.step, self.settings.max_steps)
        result = self.stepper(batches, self.settings.seed, self.step, factor, stop=self.signals.received)
        self.step += 1
        self.concepts += int(result.concepts)
        self.losses.append(result.loss)
        if result.skipped:
            self.skipped += 1
            self.bad_in_a_row += 1
            self._give_up_if_hopeless(result)
            return result
        self.bad_in_a_row = 0
        self.meters.add("loss", result.loss_sum, result.count)
        self.meters.add("grad_norm", result.grad_norm)
        add_metrics(self.own_metrics, result.metrics)
        return result

    def _give_up_if_hopeless(self, result: StepResult) -> None:
        if self.bad_in_a_row < self.settings.max_bad_steps:
            return
        no_targets = not result.count
        raise TrainingError(
            f"{self.bad_in_a_row} steps in a row {'had no target' if no_targets else 'were not finite'}",
            where=f"step {self.step}",
            got=f"loss {result.loss:g}, gradient norm {result.grad_norm:g}",
            hint="documents are too short for this objective"
            if no_targets
            else "lower optim.lr, or check the data with: largeconcept data inspect",
        )

    def _collect(self) -> None:
        """Bring the objective's metrics of all processes into the main process's meters."""
        gathered = gather_metrics(self.own_metrics, self.parallel)
        self.own_metrics = {}
        if self.parallel.is_main:
            for name, (total, count) in gathered.items():
                self.meters.add(name, total, count)

    def _log(self, writer: MetricWriter | None, reporter: Reporter, clock: _Rate) -> None:
        self._collect()
        if writer is None:
            return
        means = self.meters.take()
        factor = lr_factor(self.config.schedule, self.step - 1, self.settings.max_steps)
        rate = clock.since_last(self.concepts)
        values = {**means, "lr": self.config.optim.lr * factor, "concepts": self.concepts, "skipped": self.skipped}
        writer.write(self.step, {**values, "concepts_per_second": rate, "time": time.time()})
        shown: dict[str, float | int | str] = {name: means[name] for name in ("loss", "grad_norm") if name in means}
        reporter.report(self.step, {**shown, "lr": values["lr"], "concepts/s": round(rate)})

    def _evaluate(self, writer: MetricWriter | None, reporter: Reporter) -> None:
        if self.config.validation is None and self.callbacks.on_eval is None:
            return
        values: dict[str, float] = {}
        choices: tuple[Weights, ...] = ("ema", "raw") if self.ema is not None else ("raw",)
        for weights in choices:
            with self._weights(weights):
                values |= {f"validation/{weights}/{k}": v for k, v in self._validate(weights).items()}
        self.last_eval = values
        if writer is not None:
            writer.write(self.step, values)
            reporter.say(f"step {self.step}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def _validate(self, weights: Weights) -> dict[str, float]:
        values: dict[str, float] = {}
        if self.validation is not None:
            batches = validation_batches(self.validation, self.settings.eval_batches, self.parallel)
            seed = self.settings.seed + _VALIDATION_SEED_OFFSET
            sums = evaluate(self.model, self.objective, batches, seed, self.parallel, self.precision)
            values |= {name: total / count for name, (total, count) in sums.items() if count}
        if self.callbacks.on_eval is not None and self.parallel.is_main:
            self.model.eval()
            with torch.no_grad():
                values |= self.callbacks.on_eval(EvalContext(self.model, self.normalizer, self.step, weights))
        return values

    @contextmanager
    def _weights(self, weights: Weights) -> Iterator[None]:
        with self.ema.applied() if weights == "ema" and self.ema is not None else nullcontext():
            yield

    def _save(self) -> None:
        self._collect()
        state = {
            "concepts": self.concepts,
            "config_hash": self.config.hash(),
            "data": self.position,
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            "ema_updates": self.ema.updates if self.ema is not None else 0,
            "meters": self.meters.state_dict(),
            "last_eval": self.last_eval,
            "precision": self.precision,
            "world_size": self.parallel.world_size,
            "torch": torch.__version__,
            "config": self.config.to_dict(),
        }
        path = checkpoint.save(
            self.out,
            self.step,
            self.trained,
            self.optimizers,
            self.ema,
            state,
            self.parallel,
            self.settings.keep_last,
        )
        if self.parallel.is_main and self.callbacks.on_checkpoint is not None:
            self.callbacks.on_checkpoint(path)

    def _export(self, reporter: Reporter) -> None:
        weights: Weights = "ema" if self.settings.export_weights == "ema" and self.ema is not None else "raw"
        if self.parallel.is_main:
            with self._weights(weights):
                metrics, objective = self.last_eval, self.objective
                export(self.out, self.config, self.model, self.datasets, self.step, weights, metrics, objective)
            reporter.say(f"wrote {self.out / 'model'} ({weights} weights)")
        self.parallel.barrier()


class _Rate:
    """Concepts per second, over the last report and smoothed over the last steps."""

    def __init__(self, concepts: int) -> None:
        now = time.perf_counter()
        self._report, self._last, self._smooth = (now, concepts), (now, concepts), 0.0

    def recent(self, concepts: int) -> float:
        now = time.perf_counter()
        rate = (concepts - self._last[1]) / max(now - self._last[0], 1e-9)
        self._last = (now, concepts)
        self._smooth = rate if not self._smooth else 0.9 * self._smooth + 0.1 * rate
        return self._smooth

    def since_last(self, concepts: int) -> float:
        now = time.perf_counter()
        rate = (concepts - self._report[1]) / max(now - self._report[0], 1e-9)
        self._report = (now, concepts)
        return rate


class _Signals:
    """Remembers SIGTERM and SIGINT instead of dying of them; the second SIGINT is a KeyboardInterrupt again.

    Signals reach the main thread only; in any other thread nothing is changed.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True
