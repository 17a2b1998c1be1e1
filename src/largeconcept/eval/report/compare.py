"""The models of several runs against each other, on the items that both were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from largeconcept.eval.records import MODEL, RAW, Difference, TaskResult, digest, raw_path, read_raw
from largeconcept.eval.report.reading import Run, real

Items = dict[str, dict[str, Any]]
"""What an item is -> its record."""


def items_of(run: Run, task: str, predictor: str) -> Items:
    """Return the raw outputs of a predictor by what was asked; none where the run kept none.

    Raises:
        CheckpointError: a damaged file.
    """
    path = raw_path(run.path, RAW, task, predictor)
    return {question(one): one for one in read_raw(path)} if path.is_file() else {}


def question(record: Mapping[str, Any]) -> str:
    """Return what identifies an item whoever answers it: document, language, source and reference."""
    return digest([record.get(name) for name in ("id", "lang", "target_lang", "source", "reference")])


def compare_models(
    runs: Sequence[tuple[Run, TaskResult]], task: str, number: int = 1000
) -> dict[str, dict[str, Difference]]:
    """Return, for every run but the first, the first run's model minus its model: metric to paired difference.

    Only metrics of single items are compared, over the items that both runs have.

    Raises:
        CheckpointError: a damaged file of raw outputs.
    """
    from largeconcept.eval.statistics import difference, per_document

    first = items_of(runs[0][0], task, MODEL)
    found: dict[str, dict[str, Difference]] = {}
    for run, result in runs[1:]:
        other = items_of(run, task, MODEL)
        shared = [key for key in first if key in other]
        if len(shared) < 2:
            continue
        group: dict[str, Difference] = {}
        for metric in result.metrics:
            pairs = [
                (str(first[key].get("id")), left, right)
                for key in shared
                if (left := _value(first[key], metric)) is not None
                and (right := _value(other[key], metric)) is not None
            ]
            if len(pairs) < 2:
                continue
            names, left_values, right_values = zip(*pairs, strict=True)
            made = difference(
                per_document(left_values, names), per_document(right_values, names), number=number, n=len(pairs)
            )
            group[metric] = Difference(made.mean, made.low, made.high, made.p)
        if group:
            found[run.label] = group
    return found


def _value(record: Mapping[str, Any], metric: str) -> float | None:
    metrics = record.get("metrics")
    return real(metrics.get(metric)) if isinstance(metrics, Mapping) else None


__all__ = ["Items", "compare_models", "items_of", "question"]
