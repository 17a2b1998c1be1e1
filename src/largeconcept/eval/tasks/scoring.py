"""Scores of written texts: each metric on each item, means over documents, and model minus every other predictor.

A metric that does not apply (overlap with a source in another language, repetition in a text of three words) has no
value for that item; it is not counted as 0.

Shape letters: N sentences, C concept dimension, D documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from largeconcept.eval.metrics import METRICS
from largeconcept.eval.metrics.ngrams import chrf, distinct, length_ratio, overlap_3, repetition_4
from largeconcept.eval.metrics.rouge import rouge
from largeconcept.eval.predictors import Item, Output, grouped
from largeconcept.eval.records import MODEL, Difference, Direction, Score
from largeconcept.eval.statistics import Array, difference, estimate, per_document
from largeconcept.eval.tasks import Context

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.types import ConceptCodec

Values = dict[str, float | None]
DISTINCT = (1, 2, 3)
OWN: dict[str, Direction] = {"similarity": "higher"}
"""Metrics of this file: ``similarity`` is the cosine of the mean concepts of output and reference, under the codec."""


@dataclass(slots=True)
class Scored:
    """What was found.

    Attributes:
        of_items: predictor -> the values of each item.
        directions: metric -> which way is better, in the order of tables.
        versions: metric -> its version.
        scores, differences: as in :class:`~largeconcept.eval.records.TaskResult`.
        extra: other figures.
    """

    of_items: dict[str, list[Values]]
    directions: dict[str, Direction]
    versions: dict[str, int]
    scores: dict[str, dict[str, Score]]
    differences: dict[str, dict[str, Difference]]
    extra: dict[str, Any] = field(default_factory=dict)


def score(items: Sequence[Item], outputs: Mapping[str, Sequence[Output]], context: Context) -> Scored:
    """Score the outputs of all predictors, the model's (``model``) against each of the others'."""
    codec = context.pipeline.codec
    references = [encoded(codec, item.reference, item.target_lang) for item in items]
    of_items: dict[str, list[Values]] = {}
    together: dict[str, dict[str, Score]] = {}
    for name, texts in outputs.items():
        concepts = [encoded(codec, one.sentences, item.target_lang) for item, one in zip(items, texts, strict=True)]
        of_items[name] = [
            {**text_metrics(item, one), **concept_metrics(own, reference)}
            for item, one, own, reference in zip(items, texts, concepts, references, strict=True)
        ]
        together[name] = corpus_metrics(items, texts)
    labels = [item.id for item in items]
    tables = {
        name: {metric: _sums([one.get(metric) for one in values], labels) for metric in values[0]}
        for name, values in of_items.items()
    }
    scores = {
        name: {metric: _score(rows, context.seed) for metric, rows in group.items()} | together[name]
        for name, group in tables.items()
    }
    differences = {
        name: {metric: _difference(tables[MODEL][metric], rows, context.seed) for metric, rows in group.items()}
        for name, group in tables.items()
        if name != MODEL
    }
    present = {metric for group in scores.values() for metric in group}
    directions = {metric: info.direction for metric, info in METRICS.items() if metric in present}
    directions |= {metric: direction for metric, direction in OWN.items() if metric in present}
    versions = {metric: METRICS[metric].version if metric in METRICS else 1 for metric in directions}
    return Scored(of_items, directions, versions, scores, differences)


def text_metrics(item: Item, output: Output) -> Values:
    """Return the metrics that need texts alone; ``None`` where one has no value."""
    lang, sentences, reference = item.target_lang, list(output.sentences), list(item.reference)
    values: Values = {}
    if reference:
        values |= rouge(sentences, reference, lang)
        values["chrf"] = chrf(sentences, reference)
        values["length_ratio"] = length_ratio(sentences, reference, lang)
    same = item.lang is None or item.lang == lang
    values["overlap_3"] = overlap_3(sentences, list(item.source.sentences), lang) if same else None
    values["repetition_4"] = repetition_4(sentences, lang)
    return values


def concept_metrics(own: Tensor | None, reference: Tensor | None) -> Values:
    """Return the metrics of (N, C) concepts of an output and a reference; ``None`` stands for texts without any."""
    import torch

    values: Values = {"similarity": None}
    if own is not None and reference is not None:
        cosine = torch.nn.functional.cosine_similarity(own.double().mean(0), reference.double().mean(0), dim=0)
        values["similarity"] = float(cosine)
    return values


def corpus_metrics(items: Sequence[Item], outputs: Sequence[Output]) -> dict[str, Score]:
    """Return the metrics of all outputs together: means over languages, weighted by their number of texts."""
    found: dict[str, Score] = {}
    for n in DISTINCT:
        values, weights = [], []
        for (lang,), places in grouped(items, "target_lang").items():
            value = distinct([list(outputs[place].sentences) for place in places], n, lang)
            if value is not None:
                values.append(value)
                weights.append(len(places))
        mean = float(np.average(values, weights=weights)) if values else None
        found[f"distinct_{n}"] = Score(mean, n=len(items))
    return found


def encoded(codec: ConceptCodec, sentences: Sequence[str], lang: str) -> Tensor | None:
    """Return (N, C) concepts of what is printable among the sentences, or ``None`` if nothing is."""
    kept = [sentence for sentence in sentences if sentence.strip()]
    return codec.encode(kept, lang if lang in codec.languages else None).float().cpu() if kept else None


def _sums(values: Sequence[float | None], labels: Sequence[str]) -> Array:
    return per_document([math.nan if value is None else value for value in values], labels)


def _score(rows: Array, seed: int) -> Score:
    found = estimate(rows, seed=seed)
    count = int(rows[:, 1].sum())
    return Score(found.mean, found.low, found.high, count) if count else Score(None, n=0)


def _difference(own: Array, other: Array, seed: int) -> Difference:
    if not own[:, 1].sum() or not other[:, 1].sum():
        return Difference(None)
    found = difference(own, other, seed=seed)
    return Difference(found.mean, found.low, found.high, found.p)


__all__ = ["Scored", "concept_metrics", "corpus_metrics", "encoded", "score", "text_metrics"]
