"""Which settings of generation suit a model: every combination of a grid, measured on the same held-out documents.

Each setting predicts every concept of each document from the true ones before it, with the same noise; what the model
read of the documents is kept from one setting to the next. A folder remembers the settings that are done, so a sweep
that was stopped goes on where it was.

The best of many settings is partly the luckiest: its figure is too good by a little, and settings whose paired
difference from it could be chance are marked as ties. Choose on a validation split and report on the test split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.eval.records import Difference, OutputCache, Score, digest, git_revision, machine, now
from largeconcept.eval.sweep_results import FORMAT_VERSION, SWEEP, SettingResult, SweepResult
from largeconcept.io import fingerprint, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.eval.next_concept import RoundTrip
    from largeconcept.eval.next_concept_report import NextConceptReport
    from largeconcept.generate.options import GenerationOptions

MAX_SETTINGS = 10_000
OF_WHOLE_TEXTS = frozenset(
    {
        "max_concepts",
        "max_batch",
        "min_concepts",
        "stop_threshold",
        "repetition_threshold",
        "keep_last",
        "max_paragraphs",
        "max_paragraph_concepts",
        "break_threshold",
        "plain_ends",
    }
)
"""Options that say how long a text becomes; the prediction of a single concept does not depend on them."""

Grid = Mapping[str, Sequence[Any]]
"""Option -> the values to try."""


def sweep(
    model: nn.Module,
    documents: Iterable[Any],
    normalizer: ConceptNormalizer,
    grid: Grid,
    *,
    metric: str = "contrastive_accuracy",
    options: GenerationOptions | None = None,
    round_trip: RoundTrip | None = None,
    limit: int | None = None,
    seed: int = 0,
    max_length: int = 128,
    num_bootstrap: int = 1000,
    context_bytes: int = 1 << 30,
    folder: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
) -> SweepResult:
    """Measure every combination of the grid on held-out documents.

    Args:
        model, documents, normalizer, round_trip, max_length, num_bootstrap: as for
            :func:`~largeconcept.eval.next_concept.evaluate_next_concept`.
        grid: options of generation and the values to try.
        metric: what settings are compared by; one that has a direction.
        options: all other options; the defaults of generation, with ``seed``, when ``None``.
        limit: use at most this many documents that have something to predict.
        seed: of the pool and of the intervals; the noise has that of ``options``.
        context_bytes: room for what the model read of the documents; beyond it, documents are read for each setting.
        folder: keeps settings that are done (``cache/sweep.jsonl``) and the result (``sweep.json``).
        about: words for the record, such as the names of model and data.
        progress: called with (predicted concepts so far, all to predict, unit, note).

    Raises:
        ConfigError: a grid that is empty, too large, or of options or values that do not exist; a metric without
            direction, or one that needs a round trip.
        DataError: see ``evaluate_next_concept``.
    """
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.data.sequences import planned_documents
    from largeconcept.eval.held_out import drawn, usable_documents
    from largeconcept.eval.next_concept import score_next_concept
    from largeconcept.generate.contexts import ContextStore
    from largeconcept.generate.loop import predict_teacher_forced
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.models.planning import PlanningConceptModel

    direction = check_metric(metric, round_trip is not None)
    base = options if options is not None else GenerationOptions(seed=seed)
    axes = {name: list(values) for name, values in grid.items()}
    points = combinations(axes, base)
    if isinstance(model, PlanningConceptModel) and isinstance(documents, ConceptDataset) and documents.planned:
        documents = planned_documents(documents)
    chosen = drawn(usable_documents(documents, normalizer.dim), limit, seed)
    depends = {
        "documents": digest([fingerprint({"x": one.concepts, "scored": one.scored}) for one in chosen]),
        "model": fingerprint({**model.state_dict(), **{f"normalizer.{k}": v for k, v in _state(normalizer).items()}}),
        "model_config": digest(_config(model)),
        "round_trip": round_trip is not None,
        "seed": seed,
        "max_length": max_length,
    }
    cache = OutputCache(None if folder is None else Path(folder) / "cache" / "sweep.jsonl")
    contexts = ContextStore(model, context_bytes)
    results: list[SettingResult] = []
    tables: list[dict[str, list[list[float]]]] = []
    total = sum(len(one.concepts) - 1 for one in chosen) * len(points)
    for number, (values, settings) in enumerate(points):
        key = digest({**depends, "options": settings.to_dict(), "version": FORMAT_VERSION})
        record = cache.get(key)
        if record is None:

            def predict(x: Any, lengths: Any, ids: list[int], settings: GenerationOptions = settings) -> Any:
                return predict_teacher_forced(model, x, lengths, settings, sample_ids=ids, contexts=contexts)

            def report_progress(done: int, all_: int, number: int = number) -> None:
                if progress is not None:
                    progress(number * (total // len(points)) + done, total, "concepts", f"{number + 1}/{len(points)}")

            began = time.perf_counter()
            report = score_next_concept(
                predict,
                chosen,
                normalizer,
                round_trip=round_trip,
                seed=seed,
                max_length=max_length,
                num_bootstrap=1,  # intervals are made below, for settings that were done before as well
                progress=report_progress,
            )
            record = {"key": key, "output": _output(report), "seconds": time.perf_counter() - began}
            cache.add([record])
        tables.append(record["output"]["sums"])
        results.append(SettingResult(values, {}, seconds=float(record["seconds"])))
    count = sum(int(one.scored[1:].sum()) for one in chosen)
    ordered = _compare(results, tables, metric, direction, seed, num_bootstrap, count)
    made = SweepResult(
        grid=axes,
        metric=metric,
        direction=direction,
        results=ordered,
        base=base.to_dict(),
        settings={**(about or {}), **depends, "limit": limit},
        num_documents=len(chosen),
        num_predictions=count,
        machine=machine(next(model.parameters()).device),
        git=git_revision(),
        created=now(),
    )
    if folder is not None:
        try:
            write_json(Path(folder) / SWEEP, made.to_dict())
        except OSError as error:
            raise ConfigError("cannot write there", where=folder, got=error.strerror or error) from None
    return made


def check_metric(metric: str, round_trip: bool) -> str:
    """Return which direction of a metric is better.

    Raises:
        ConfigError: unknown, without direction, or not measured in a sweep.
    """
    from largeconcept.eval.next_concept_report import DIRECTIONS

    usable = {name: direction for name, direction in DIRECTIONS.items() if direction != "none"}
    usable.pop("mutual_information", None)
    if metric not in usable:
        problem = "neither more nor less of this is better" if metric in DIRECTIONS else "unknown metric"
        if metric == "mutual_information":
            problem = "not measured in a sweep"
        raise ConfigError(problem, where="metric", got=metric, hint=did_you_mean(metric, usable))
    if metric == "round_trip_l2" and not round_trip:
        raise ConfigError("needs a codec", where="metric", got=metric, hint="give a round trip through text")
    return usable[metric]


def combinations(grid: Grid, base: GenerationOptions) -> list[tuple[dict[str, Any], GenerationOptions]]:
    """Return every combination of a grid: its values, and all options with them.

    Raises:
        ConfigError: no option or no value, a value twice, an option that does not exist or concerns whole texts, a
            value that it cannot have, or more than 10 000 combinations.
    """
    fields = type(base).model_fields
    if not grid:
        raise ConfigError("an empty grid", where="grid", expected="options with values, as guidance_scale=1,3,6")
    number = 1
    for name, values in grid.items():
        if name not in fields:
            raise ConfigError("not an option of generation", where="grid", got=name, hint=did_you_mean(name, fields))
        if name in OF_WHOLE_TEXTS or name == "seed":
            raise ConfigError(
                "luck, not a setting" if name == "seed" else "does not change the prediction of a single concept",
                where=f"grid: {name}",
                expected="such as guidance_scale, num_inference_steps, initial_noise_scale",
            )
        if not values:
            raise ConfigError("no value", where=f"grid: {name}")
        if len({digest(value) for value in values}) < len(values):
            raise ConfigError("a value twice", where=f"grid: {name}", got=list(values))
        number *= len(values)
    if number > MAX_SETTINGS:
        raise ConfigError("too many combinations", where="grid", got=number, expected=f"at most {MAX_SETTINGS}")
    plain = base.to_dict()
    made = []
    for values in product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        made.append((point, type(base).from_dict({**plain, **point})))
    return made


def write_best(folder: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Make options the defaults of generation of a saved pipeline; returns all its defaults.

    ``pipeline.json`` is replaced atomically: a reader sees the old defaults or the new ones.

    Raises:
        CheckpointError: not a saved pipeline.
        ConfigError: options that do not exist, or the folder cannot be written.
    """
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.hub import RECORD, read_record

    path = Path(folder) / RECORD
    record = read_record(folder)
    defaults = GenerationOptions.from_dict({**record.generation, **options}).to_dict()
    changed = {**record.generation, **{name: defaults[name] for name in options}}
    try:
        write_json(path, {**read_json(path), "generation": changed})
    except OSError as error:
        raise ConfigError("cannot be written", where=path, got=error.strerror or error) from None
    return changed


def _compare(
    results: Sequence[SettingResult],
    tables: Sequence[Mapping[str, Any]],
    metric: str,
    direction: str,
    seed: int,
    number: int,
    num_predictions: int,
) -> list[SettingResult]:
    """Give each setting its scores and its paired difference from the best; the best first."""
    from largeconcept.eval.statistics import difference, estimate

    words: dict[str, Any] = {"number": number, "seed": (seed, 1)}
    scored = []
    for one, sums in zip(results, tables, strict=True):
        scores = {}
        for name, rows in sums.items():
            found = estimate(rows, **words)
            value, low, high = (v if math.isfinite(v) else None for v in (found.mean, found.low, found.high))
            scores[name] = Score(value, low, high, num_predictions)
        scored.append(replace(one, scores=scores))
    sign = -1.0 if direction == "higher" else 1.0

    def rank(i: int) -> float:
        value = scored[i].scores[metric].value
        return math.inf if value is None else sign * value

    order = sorted(range(len(scored)), key=rank)  # equal ones stay in the order of the grid
    best = order[0]
    scored[best].ties = True
    for i in order[1:]:
        found = difference(tables[best][metric], tables[i][metric], **words)
        scored[i].difference = Difference(found.mean, found.low, found.high, found.p)
        scored[i].ties = not (found.low > 0 or found.high < 0)
    return [scored[i] for i in order]


def _output(report: NextConceptReport) -> dict[str, Any]:
    return {"sums": {metric: rows.tolist() for metric, rows in report.sums["model"].items()}}


def _state(normalizer: ConceptNormalizer) -> dict[str, Any]:
    return dict(normalizer.state_dict())


def _config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.to_dict() if hasattr(config, "to_dict") else str(config)


__all__ = ["SWEEP", "Grid", "SettingResult", "SweepResult", "check_metric", "combinations", "sweep", "write_best"]
