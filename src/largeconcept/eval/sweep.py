"""Which settings of generation suit a model: every combination of a grid, measured on the same held-out documents.

Here each setting predicts every concept of each document from the true ones before it, with the same noise; what the
model read of the documents is kept from one setting to the next, and so is all of the scoring that no setting changes.
:mod:`largeconcept.eval.sweep_tasks` compares settings by what they write. A folder remembers the settings that are
done, so a sweep that was stopped goes on where it was.

The best of many settings is partly the luckiest: its figure is too good by a little, and settings whose paired
difference from it could be chance are marked as ties. Whether a setting differs from the one that was there before is
tested for each, and the p-values are corrected for their number. Choose on a validation split and report on the test
split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.eval.metrics import METRICS
from largeconcept.eval.records import OutputCache, digest
from largeconcept.eval.statistics import ratio
from largeconcept.eval.sweep_compare import Better, Criterion, Measured, chosen, compared, recorded
from largeconcept.eval.sweep_results import FORMAT_VERSION, SWEEP, SettingResult, SweepResult
from largeconcept.io import fingerprint, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.eval.metrics.likelihood import CausalLM
    from largeconcept.eval.next_concept import RoundTrip
    from largeconcept.generate.options import GenerationOptions

MAX_SETTINGS = 10_000
NOT_SETTINGS = frozenset({"seed", "max_batch", "max_concepts"})
"""Options that change luck, speed, or how much is asked for."""
OF_WHOLE_TEXTS = frozenset(
    {
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
NEXT_CONCEPT_TARGETS = {"paraphrase": 1.0}
"""Values of human text where a metric is a ratio to it."""


def sweep(
    model: nn.Module,
    documents: Iterable[Any],
    normalizer: ConceptNormalizer,
    grid: Grid,
    *,
    metric: str = "contrastive_accuracy",
    better: Better | None = None,
    options: GenerationOptions | None = None,
    round_trip: RoundTrip | None = None,
    language_model: CausalLM | None = None,
    limit: int | None = None,
    seed: int = 0,
    max_length: int = 128,
    num_bootstrap: int = 1000,
    context_bytes: int = 1 << 30,
    folder: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
) -> SweepResult:
    """Predict the next concepts of held-out documents with every combination of the grid.

    Args:
        model, documents, normalizer, round_trip, language_model, max_length, num_bootstrap: as for
            :func:`~largeconcept.eval.next_concept.evaluate_next_concept`.
        grid: options of generation and the values to try.
        metric: what settings are compared by.
        better: which values are good; needed where the metric itself does not say. ``human``: nearest to human text.
        options: all other options, and the setting that all are compared with; the defaults of generation, with
            ``seed``, when ``None``.
        limit: use at most this many documents that have something to predict.
        seed: of the pool and of the intervals; the noise has that of ``options``.
        context_bytes: room for what the model read of the documents; beyond it, documents are read for each setting.
        folder: keeps settings that are done (``cache/sweep.jsonl``) and the result (``sweep.json``).
        about: words for the record, such as the names of model and data.
        progress: called with (predicted concepts so far, all to predict, unit, note).

    Raises:
        ConfigError: a grid that is empty, too large, or of options or values that do not exist; a metric without
            direction, or one that needs a round trip or a judge.
        DataError: see ``evaluate_next_concept``.
    """
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.data.sequences import planned_documents
    from largeconcept.eval.held_out import HeldOut
    from largeconcept.eval.next_concept import score_next_concept
    from largeconcept.generate.contexts import ContextStore
    from largeconcept.generate.loop import predict_teacher_forced
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.models.planning import PlanningConceptModel

    criterion = check_metric(metric, round_trip is not None, better, judge=language_model is not None)
    base = options if options is not None else GenerationOptions(seed=seed)
    axes = {name: list(values) for name, values in grid.items()}
    points = combinations(axes, base)
    if isinstance(model, PlanningConceptModel) and isinstance(documents, ConceptDataset) and documents.planned:
        documents = planned_documents(documents)
    data = HeldOut.of(documents, normalizer.dim, limit=limit, seed=seed, max_length=max_length)
    depends = {
        "documents": digest([fingerprint({"x": one.concepts, "scored": one.scored}) for one in data.documents]),
        "model": fingerprint({**model.state_dict(), **{f"normalizer.{k}": v for k, v in _state(normalizer).items()}}),
        "model_config": digest(_config(model)),
        "round_trip": round_trip is not None,
        "judge": _judge(language_model),
        "seed": seed,
        "max_length": max_length,
    }
    cache = OutputCache(None if folder is None else Path(folder) / "cache" / "sweep.jsonl")
    contexts = ContextStore(model, context_bytes)
    each = sum(len(one.concepts) - 1 for one in data.documents)
    total = each * (len(points) + 1)

    def measure(number: int, settings: GenerationOptions) -> Measured:
        key = digest({**depends, "options": settings.to_dict(), "version": FORMAT_VERSION})
        record = cache.get(key)
        if record is None:
            spent = 0.0

            def predict(x: Any, lengths: Any, ids: list[int]) -> Any:
                nonlocal spent
                began, read = time.perf_counter(), contexts.seconds
                made = predict_teacher_forced(model, x, lengths, settings, sample_ids=ids, contexts=contexts)
                spent += time.perf_counter() - began - (contexts.seconds - read)
                return made

            def report_progress(done: int, all_: int) -> None:
                if progress is not None:
                    progress(number * each + done, total, "concepts", f"{number + 1}/{len(points)}")

            report = score_next_concept(
                predict,
                data,
                normalizer,
                alone=True,
                round_trip=round_trip,
                language_model=language_model,
                seed=seed,
                num_bootstrap=1,  # intervals are made below, for settings that were done before as well
                progress=report_progress,
            )
            sums = {name: rows.tolist() for name, rows in report.sums["model"].items()}
            record = {"key": key, "output": {"sums": sums}, "seconds": spent}
            cache.add([record])
        tables = {name: (np.asarray(rows, dtype=np.float64), ratio) for name, rows in record["output"]["sums"].items()}
        return Measured(tables, seconds=float(record["seconds"]))

    count = sum(int(one.scored[1:].sum()) for one in data.documents)
    made = compared(axes, points, base, measure, criterion, seed=(seed, 1), number=num_bootstrap, count=count)
    made.task = "next_concept"
    made.settings = {**(about or {}), **depends, "limit": limit}
    made.num_documents, made.num_predictions = len(data.documents), count
    return recorded(made, next(model.parameters()).device, folder)


def check_metric(metric: str, round_trip: bool, better: Better | None = None, *, judge: bool = False) -> Criterion:
    """Return what settings are compared by in the prediction of next concepts.

    Raises:
        ConfigError: unknown, without direction, or not measured.
    """
    from largeconcept.eval.next_concept_report import DIRECTIONS

    if metric not in DIRECTIONS:
        hint = did_you_mean(metric, METRICS)
        raise ConfigError("not a metric of next concepts", where="metric", got=metric, hint=hint)
    if metric == "round_trip_l2" and not round_trip:
        raise ConfigError("needs a codec", where="metric", got=metric, hint="give a round trip through text")
    if metric == "mutual_information" and not (judge and round_trip):
        raise ConfigError("needs a codec and a judge", where="metric", got=metric)
    return chosen(metric, DIRECTIONS[metric], better, NEXT_CONCEPT_TARGETS.get(metric), metric in NEXT_CONCEPT_TARGETS)


def combinations(
    grid: Grid, base: GenerationOptions, *, whole_texts: bool = False
) -> list[tuple[dict[str, Any], GenerationOptions]]:
    """Return every combination of a grid: its values, and all options with them.

    Args:
        grid: options and their values.
        base: all other options.
        whole_texts: options that concern whole texts may be among them.

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
        if name in NOT_SETTINGS or (name in OF_WHOLE_TEXTS and not whole_texts):
            said = {"seed": "luck, not a setting", "max_batch": "changes speed, not what is written"}
            raise ConfigError(
                said.get(name, "does not change the prediction of a single concept")
                if name != "max_concepts" or not whole_texts
                else "is what the task asks for",
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


def _judge(judge: CausalLM | None) -> Any:
    if judge is None:
        return None
    model: Any = getattr(judge, "model", None)
    return fingerprint(model.state_dict()) if hasattr(model, "state_dict") else type(judge).__name__


def _state(normalizer: ConceptNormalizer) -> dict[str, Any]:
    return dict(normalizer.state_dict())


def _config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.to_dict() if hasattr(config, "to_dict") else str(config)


__all__ = ["SWEEP", "Grid", "SettingResult", "SweepResult", "check_metric", "combinations", "sweep", "write_best"]
