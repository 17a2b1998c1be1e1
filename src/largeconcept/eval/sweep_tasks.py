"""Settings of generation compared by what they write: any metric of any task that predicts or writes.

Each setting does the task as ``eval run`` would, with the tasks' own items and scoring. What does not depend on it is
done once: sentences that were encoded before are not encoded again, and prompts that the model has read are not read
again. With a folder, texts are kept by what they depend on, so a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.eval.metrics import METRICS
from largeconcept.eval.predictors import Predictor
from largeconcept.eval.records import MODEL, Score, TaskResult, digest
from largeconcept.eval.sweep import Grid, combinations
from largeconcept.eval.sweep_compare import Better, Criterion, Measured, chosen, compared, recorded
from largeconcept.eval.tasks import TASKS, Context, LeftOut, load_task
from largeconcept.eval.tasks.scoring import OWN
from largeconcept.generate.contexts import ContextStore

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.eval.metrics.likelihood import CausalLM
    from largeconcept.eval.sweep_results import SweepResult
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.types import ConceptCodec

JUDGED = frozenset({"perplexity", "entropy", "mutual_information"})
"""Metrics that need a causal language model."""
MOST_CONCEPTS = 1 << 16
"""Concepts of sentences that are remembered."""
HUMAN = "reference"
"""The predictor whose figures are those of human text."""


def default_task(metric: str) -> str:
    """Return the task that a metric is looked for in where none is named."""
    from largeconcept.eval.next_concept_report import DIRECTIONS

    return "next_concept" if metric in DIRECTIONS else "next_sentence" if metric.startswith("brier") else "continuation"


def check_task(task: str, metric: str) -> None:
    """Complain about a task that is none, or that generates nothing, and about a metric that is none.

    Raises:
        ConfigError: as said.
    """
    if task not in TASKS:
        raise ConfigError("unknown task", where="task", got=task, hint=did_you_mean(task, TASKS))
    if TASKS[task].kind == "codec":
        raise ConfigError("no option of generation changes it", where="task", got=task)
    known = (*METRICS, *OWN)
    if metric not in known:
        raise ConfigError("unknown metric", where="metric", got=metric, hint=did_you_mean(metric, known))


def open_context(
    model: str | Path,
    metric: str,
    *,
    data: str | Path | None = None,
    documents: str | Path | Sequence[str | Path] | None = None,
    split: str = "validation",
    weights: str | None = None,
    metric_codec: ConceptCodec | str | Path | None = None,
    judge: str | CausalLM | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int | None = None,
    seed: int = 0,
    codec: ConceptCodec | str | Path | None = None,
    device: str | None = None,
) -> Context:
    """Open what :func:`sweep_task` works on, as :func:`~largeconcept.eval.harness.evaluate` does.

    Args:
        metric: what settings are compared by; judges and weights are opened for it alone.
        split: of ``data``.
        weights: of the metric, where it has some, as in :func:`~largeconcept.eval.metrics.optional.open_metrics`.
        metric_codec: SONAR, for a metric that judges its concepts, where the model's codec is another one.
        judge: of perplexity and mutual information; the token model beside the model by default.

    Raises:
        ConfigError, DataError, CheckpointError, DependencyError: as ``evaluate``.
    """
    from largeconcept.eval.harness import (
        TOKEN_OPTIONS,
        open_data,
        open_judge,
        open_space,
        read_texts,
        token_model_beside,
    )
    from largeconcept.eval.metrics.optional import OPTIONAL, open_metrics
    from largeconcept.eval.predictors import open_pipeline, open_token_model
    from largeconcept.generate.options import GenerationOptions

    if weights is not None and metric not in OPTIONAL:
        raise ConfigError("has no weights", where="metric", got=metric)
    pipeline = open_pipeline(model, codec=codec, device=device)
    where = str(next(pipeline.model.parameters()).device)
    held_out, _ = open_data(pipeline, data, split, None)
    context = Context(
        pipeline=pipeline,
        dataset=held_out,
        documents=read_texts(held_out, documents, limit, seed),
        options=GenerationOptions.from_dict({**pipeline.options.to_dict(), **(options or {}), "seed": seed}),
        limit=limit,
        seed=seed,
        settings={name: dict(given) for name, given in (settings or {}).items()},
    )
    if metric in JUDGED:
        beside = token_model_beside(Path(model)) if judge is None else None
        if beside is not None:
            context.predictors = [open_token_model(beside, pipeline.codec, options=TOKEN_OPTIONS, device=where)]
        context.judge, _ = open_judge(judge, context, device)
    if metric in OPTIONAL:
        context.metrics = open_metrics(
            [metric if weights is None else f"{metric}={weights}"], where, open_space(metric_codec, pipeline.codec)
        )
    return context


def sweep_task(
    context: Context,
    task: str,
    grid: Grid,
    *,
    metric: str,
    better: Better | None = None,
    num_bootstrap: int = 1000,
    context_bytes: int = 1 << 30,
    folder: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
) -> SweepResult:
    """Do a task with every combination of the grid.

    Args:
        context: what the task works on; ``options`` are all other options, and the setting that all are compared with.
            Predictors and folder of it are not used.
        task: of predicting or writing, see :data:`~largeconcept.eval.tasks.TASKS`.
        grid: options of generation and the values to try.
        metric: what settings are compared by: any that the task measures.
        better: which values are good; needed where the metric itself does not say. ``human``: nearest to that of the
            references.
        num_bootstrap: number of resamplings of documents.
        context_bytes: room for what the model has read of the prompts.
        folder: keeps texts (``cache/``) and the result (``sweep.json``).
        about: words for the record, such as the names of model and data.
        progress: called with (settings done, all of them, unit, note).

    Raises:
        ConfigError: an unknown task, one that generates nothing or that the model cannot do; a metric that it does not
            measure, or without direction; a grid that is empty, too large, or of options that do not exist.
        DataError: no held-out text to do it with.
    """
    check_task(task, metric)
    base = context.options if context.options is not None else context.pipeline.options
    base = base.model_copy(update={"seed": context.seed})
    if task == "next_concept":
        return _next_concept(
            context,
            base,
            grid,
            metric=metric,
            better=better,
            num_bootstrap=num_bootstrap,
            context_bytes=context_bytes,
            folder=folder,
            about=about,
            progress=progress,
        )
    axes = {name: list(values) for name, values in grid.items()}
    writes = TASKS[task].kind == "generation"
    points = combinations(axes, base, whole_texts=writes)
    criterion = check_task_metric(task, metric, better, context)
    pipeline = copy(context.pipeline)
    remembering: Any = Remembering(pipeline.codec)
    pipeline.codec, pipeline.contexts = remembering, ContextStore(pipeline.model, context_bytes)
    inside = replace(
        context, pipeline=pipeline, predictors=(), folder=None if folder is None else Path(folder), keep_raw=False
    )
    total, sizes = len(points) + 1, [0]

    def do(number: int, options: GenerationOptions, beside: Sequence[Predictor] = ()) -> TaskResult:
        def tell(done: int, all_: int, unit: str = "") -> None:
            if progress is not None:
                share = done / all_ if all_ else 1.0
                progress(min(number + share, total), total, "settings", f"{min(number + 1, len(points))}/{len(points)}")

        try:
            return load_task(task)(replace(inside, options=options, predictors=beside, progress=tell))
        except LeftOut as reason:
            raise ConfigError("cannot be done", where=f"task: {task}", got=reason) from None

    if criterion.better == "human":
        criterion = replace(criterion, target=_human(do, points[0][1], criterion))

    def measure(number: int, options: GenerationOptions) -> Measured:
        result = do(number, options)
        sizes[0] = result.n
        tables = result.tables.get(MODEL, {})
        values = {name: one for name, one in result.scores[MODEL].items() if name not in tables}
        spent = result.extra.get("seconds_per_text", {}).get(MODEL)
        return Measured(tables, values, result.seconds if spent is None else spent * result.n)

    made = compared(axes, points, base, measure, criterion, seed=context.seed, number=num_bootstrap)
    made.task = task
    texts = digest([[one.id, one.lang, one.sentences, one.summary, one.target_sentences] for one in context.documents])
    made.settings = {
        **(about or {}),
        "texts": texts,
        "task_settings": context.settings.get(task, {}),
        "task_version": TASKS[task].version,
        "seed": context.seed,
        "limit": context.limit,
    }
    made.num_documents = made.num_predictions = sizes[0]
    return recorded(made, next(pipeline.model.parameters()).device, folder)


def check_task_metric(task: str, metric: str, better: Better | None, context: Context) -> Criterion:
    """Return what settings are compared by; the value of human text is not known yet.

    Raises:
        ConfigError: unknown, without direction, or it needs what there is not.
    """
    known = {name: one.direction for name, one in METRICS.items()} | OWN
    if metric in ("perplexity", "entropy") and context.judge is None:
        raise ConfigError("needs a judge", where="metric", got=metric, hint="name one, as hf=NAME")
    optional = metric in METRICS and any(need.startswith("extra:") for need in METRICS[metric].needs)
    if optional and metric not in context.metrics:
        raise ConfigError("was not opened", where="metric", got=metric, hint="it needs weights of its own")
    return chosen(metric, known[metric], better, None, TASKS[task].kind == "generation")


def _human(do: Callable[..., TaskResult], options: GenerationOptions, criterion: Criterion) -> float:
    """Return the value of the references."""
    from largeconcept.eval.text_baselines import Reference

    found = do(0, options, [Reference()]).scores.get(HUMAN, {}).get(criterion.metric, Score(None)).value
    if found is None:
        raise ConfigError("what people wrote has no value of this", where="better: human", got=criterion.metric)
    return found


def _next_concept(context: Context, base: GenerationOptions, grid: Grid, **words: Any) -> SweepResult:
    """Sweep over the prediction of next concepts, which needs no text."""
    from largeconcept.eval.next_concept import through_text
    from largeconcept.eval.sweep import sweep
    from largeconcept.eval.tasks.concepts import NextConceptSettings, encoded_documents
    from largeconcept.generate.texts import as_config

    settings = as_config(NextConceptSettings, context.settings.get("next_concept"), "next_concept")
    pipe = context.pipeline
    through = words["metric"] in ("round_trip_l2", "mutual_information")
    documents: Any = context.dataset if context.dataset is not None else list(encoded_documents(context))
    return sweep(
        pipe.model,
        documents,
        pipe.normalizer,
        grid,
        options=base,
        round_trip=through_text(pipe.codec) if through else None,
        language_model=context.judge if words["metric"] == "mutual_information" else None,
        limit=context.limit,
        seed=context.seed,
        max_length=settings.max_length,
        **words,
    )


class Remembering:
    """A codec that encodes a sentence once; all else is the codec's own.

    Args:
        codec: the codec.
        most: concepts that are remembered.
    """

    def __init__(self, codec: ConceptCodec, most: int = MOST_CONCEPTS) -> None:
        self._codec, self._most = codec, most
        self._known: dict[tuple[str, str | None], Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, sentences: Sequence[str], lang: str | Sequence[str | None] | None = None, **more: Any) -> Tensor:
        """Return (N, C) concepts; see :class:`~largeconcept.types.ConceptCodec`."""
        import torch

        codes = [lang] * len(sentences) if lang is None or isinstance(lang, str) else list(lang)
        wanted = list(zip(sentences, codes, strict=True))
        fresh = [key for key in dict.fromkeys(wanted) if key not in self._known]
        found = dict(self._known) if len(fresh) + len(self._known) > self._most else self._known
        if fresh or not wanted:
            texts, known = [text for text, _ in fresh], [code for _, code in fresh]
            named: Any = (None if None in known else known) if texts else lang
            made = self._codec.encode(texts, named, **more).cpu()
            if not wanted:
                return made
            found.update(zip(fresh, made, strict=True))
        return torch.stack([found[key] for key in wanted])


__all__ = ["Remembering", "check_task", "check_task_metric", "default_task", "open_context", "sweep_task"]
