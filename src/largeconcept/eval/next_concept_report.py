"""What the next-concept tasks find: scores of all predictors, differences to the model, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from largeconcept.errors import ConfigError
from largeconcept.eval.statistics import Array, Difference, Estimate, difference, estimate

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

METRICS = {
    "l2": "l2 (lower is better)",
    "contrastive_accuracy": "contrastive accuracy (higher)",
    "contrastive_accuracy_in_batch": "in batch (higher)",
    "paraphrase": "paraphrase",
    "round_trip_l2": "round-trip l2 (lower)",
    "mutual_information": "mutual information (higher)",
}
DIRECTIONS = {
    "l2": "lower",
    "contrastive_accuracy": "higher",
    "contrastive_accuracy_in_batch": "higher",
    "paraphrase": "none",
    "round_trip_l2": "lower",
    "mutual_information": "higher",
}


@dataclass(frozen=True, slots=True)
class NextConceptReport:
    """What :func:`~largeconcept.eval.next_concept.evaluate_next_concept` found.

    Attributes:
        scores: for ``model``, ``copy_last``, (if given) ``training_mean`` and the other baselines: metric to estimate;
            with mutual information also that of the ``truth``.
        differences: model minus baseline, for each baseline; documents are resampled together, so an interval that
            does not hold 0 tells the two apart.
        num_documents, num_predictions: what the means are over.
        pool_size: number of concepts that distractors were taken from.
        sums: predictor to metric to (D, 2) of the documents: the sum over its predictions, and what that is to be
            divided by. A score is the quotient of both columns' sums.
    """

    scores: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Difference]]
    num_documents: int
    num_predictions: int
    pool_size: int
    sums: Mapping[str, Mapping[str, Array]] = field(default_factory=dict, compare=False, repr=False)

    def beats(self, baseline: str, metric: str = "contrastive_accuracy") -> bool:
        """Tell whether the model is better than a baseline by more than the confidence interval.

        Raises:
            ConfigError: a metric of which neither more nor less is better.
        """
        difference = self.differences[baseline][metric]
        if DIRECTIONS[metric] == "none":
            raise ConfigError("neither more nor less of this is better", where="metric", got=metric)
        return difference.high < 0 if DIRECTIONS[metric] == "lower" else difference.low > 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""

        def plain(groups: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
            return {name: {metric: _plain(one) for metric, one in group.items()} for name, group in groups.items()}

        return {
            "num_documents": self.num_documents,
            "num_predictions": self.num_predictions,
            "pool_size": self.pool_size,
            "scores": plain(self.scores),
            "differences": plain(self.differences),
        }

    def table(self, title: str = "Next concept") -> Table:
        """Return a table for a terminal; print it with ``rich``."""
        from rich.table import Table

        caption = f"{self.num_predictions} predictions in {self.num_documents} documents; 95 % intervals"
        table = Table(title=title, caption=caption)
        table.add_column("predictor")
        shown = [metric for metric in METRICS if metric in self.scores["model"]]
        for metric in shown:
            table.add_column(METRICS[metric], justify="right")
        for name, group in self.scores.items():
            table.add_row(name.replace("_", " "), *(str(group.get(metric, "–")) for metric in shown))
        for name, group in self.differences.items():
            table.add_row(
                f"model − {name.replace('_', ' ')}", *(str(group.get(metric, "–")) for metric in shown), style="dim"
            )
        return table


def _plain(one: Estimate) -> dict[str, float]:
    found = {"mean": one.mean, "low": one.low, "high": one.high}
    return {**found, "p": one.p} if isinstance(one, Difference) else found


class Sums:
    """Collects, for each predictor and metric, sums over the predictions of each document.

    Args:
        documents: D.

    Attributes:
        sums: predictor to metric to (D, 2): the sum of a document's values, and what it is to be divided by.
    """

    def __init__(self, documents: int) -> None:
        self._documents = documents
        self.sums: dict[str, dict[str, Array]] = {}

    def add(self, name: str, owner: int, metric: str, values: Tensor, divisor: float | None = None) -> None:
        """Add the values of a window; the divisor is their number unless told."""
        rows = self.sums.setdefault(name, {}).setdefault(metric, np.zeros((self._documents, 2)))
        rows[owner, 0] += float(values.sum())
        rows[owner, 1] += len(values) if divisor is None else divisor

    def report(self, num_predictions: int, pool_size: int, seed: int, num_bootstrap: int) -> NextConceptReport:
        """Return quotients of sums, and differences of the model to the others, with their intervals."""
        settings: dict[str, Any] = {"number": num_bootstrap, "seed": (seed, 1), "n": num_predictions}
        scores = {
            name: {metric: estimate(rows, **settings) for metric, rows in group.items()}
            for name, group in self.sums.items()
        }
        own = self.sums["model"]
        differences = {
            name: {metric: difference(own[metric], rows, **settings) for metric, rows in group.items() if metric in own}
            for name, group in self.sums.items()
            if name != "model"
        }
        return NextConceptReport(scores, differences, self._documents, num_predictions, pool_size, self.sums)
