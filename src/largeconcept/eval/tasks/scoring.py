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

from largeconcept.data.documents import name_of
from largeconcept.eval.metrics import METRICS
from largeconcept.eval.metrics.coherence import coherence
from largeconcept.eval.metrics.divergence import divergence
from largeconcept.eval.metrics.likelihood import CausalLM, generative_perplexity, word_entropy
from largeconcept.eval.metrics.ngrams import chrf, distinct, length_ratio, overlap_3, repetition_4, seq_rep_4
from largeconcept.eval.metrics.optional import Judged
from largeconcept.eval.metrics.rouge import rouge
from largeconcept.eval.predictors import Item, Output, grouped
from largeconcept.eval.records import MODEL, Difference, Direction, Score
from largeconcept.eval.statistics import Array, Statistic, Table, difference, estimate, per_document, perplexity, ratio
from largeconcept.eval.tasks import Context

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.types import ConceptCodec

Values = dict[str, float | None]
DISTINCT = (1, 2, 3)
FEWEST_CONCEPTS = 20
"""Concepts on each side below which two distributions are not compared."""
OWN: dict[str, Direction] = {
    "similarity": "higher",
}
"""Which way is better, of metrics that the list of metrics does not have: ``similarity`` is the cosine of the mean
concepts of output and reference, under the codec."""


@dataclass(slots=True)
class Scored:
    """What was found.

    Attributes:
        of_items: predictor -> the values of each item.
        directions: metric -> which way is better, in the order of tables.
        versions: metric -> its version.
        scores, differences: as in :class:`~largeconcept.eval.records.TaskResult`.
        tables: predictor -> metric -> the sums that scores and differences were made of.
        extra: other figures.
    """

    of_items: dict[str, list[Values]]
    directions: dict[str, Direction]
    versions: dict[str, int]
    scores: dict[str, dict[str, Score]]
    differences: dict[str, dict[str, Difference]]
    tables: Mapping[str, Mapping[str, Table]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def score(items: Sequence[Item], outputs: Mapping[str, Sequence[Output]], context: Context) -> Scored:
    """Score the outputs of all predictors, the model's (``model``) against each of the others'.

    Perplexity and entropy are there where the context has a judge, other metrics of texts where it has them. What a
    judge wrote itself has no perplexity.
    """
    codec, seed = context.pipeline.codec, context.seed
    references = [encoded(codec, item.reference, item.target_lang) for item in items]
    of_items: dict[str, list[Values]] = {}
    together: dict[str, dict[str, Score]] = {}
    tables: dict[str, dict[str, Table]] = {}
    labels = [name_of(item.id) for item in items]  # versions and parts of one document are alike
    for name, texts in outputs.items():
        concepts = [encoded(codec, one.sentences, item.target_lang) for item, one in zip(items, texts, strict=True)]
        of_items[name] = [
            {**text_metrics(item, one), **concept_metrics(own, reference)}
            for item, one, own, reference in zip(items, texts, concepts, references, strict=True)
        ]
        tables[name] = {
            metric: (_sums([one.get(metric) for one in of_items[name]], labels), ratio) for metric in of_items[name][0]
        }
        if context.judge is not None:
            values, judged = judged_metrics(items, texts, None if name in context.self_judged else context.judge)
            tables[name] |= {metric: (summed(rows, labels), statistic) for metric, (rows, statistic) in judged.items()}
            of_items[name] = [{**old, **new} for old, new in zip(of_items[name], values, strict=True)]
        for metric, measured in context.metrics.items():
            found = measured(_judged(items, texts))
            tables[name][metric] = (_sums(found, labels), ratio)
            of_items[name] = [{**old, metric: value} for old, value in zip(of_items[name], found, strict=True)]
        together[name] = corpus_metrics(items, texts) | compared(references, concepts, seed)
    return collected(of_items, tables, together, seed)


def collected(
    of_items: dict[str, list[Values]],
    tables: Mapping[str, Mapping[str, Table]],
    together: Mapping[str, Mapping[str, Score]],
    seed: int,
) -> Scored:
    """Return values, intervals and differences from sums over documents.

    Args:
        of_items: predictor -> the values of each item, for the raw outputs.
        tables: predictor -> metric -> (D, K) sums of each document, and the statistic of such sums.
        together: predictor -> metrics without intervals.
        seed: of the resamplings.
    """
    scores = {
        name: {metric: _score(*table, seed) for metric, table in group.items()} | dict(together.get(name, {}))
        for name, group in tables.items()
    }
    differences = {
        name: {
            metric: _difference(tables[MODEL][metric][0], *table, seed)
            for metric, table in group.items()
            if metric in tables[MODEL]
        }
        for name, group in tables.items()
        if name != MODEL
    }
    present = {metric for group in scores.values() for metric in group}
    directions = {metric: info.direction for metric, info in METRICS.items() if metric in present}
    directions |= {metric: way for metric, way in OWN.items() if metric in present and metric not in directions}
    versions = {metric: METRICS[metric].version if metric in METRICS else 1 for metric in directions}
    return Scored(of_items, directions, versions, scores, differences, tables)


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
    values["seq_rep_4"] = seq_rep_4(sentences, lang)
    return values


def concept_metrics(own: Tensor | None, reference: Tensor | None) -> Values:
    """Return the metrics of (N, C) concepts of an output and a reference; ``None`` stands for texts without any."""
    import torch

    values: Values = {"similarity": None, "coherence": None if own is None else coherence(own)}
    if own is not None and reference is not None:
        cosine = torch.nn.functional.cosine_similarity(own.double().mean(0), reference.double().mean(0), dim=0)
        values["similarity"] = float(cosine)
    return values


def compared(references: Sequence[Tensor | None], concepts: Sequence[Tensor | None], seed: int) -> dict[str, Score]:
    """Return how near the outputs' concepts are to the references', as distributions; nothing of too few."""
    import torch

    human = [one for one in references if one is not None]
    own = [one for one in concepts if one is not None]
    if min(sum(map(len, human)), sum(map(len, own))) < FEWEST_CONCEPTS:
        return {}
    return {"divergence": Score(divergence(torch.cat(human), torch.cat(own), seed=seed), n=len(own))}


def judged_metrics(
    items: Sequence[Item], outputs: Sequence[Output], judge: CausalLM | None
) -> tuple[list[Values], dict[str, Table]]:
    """Return the perplexity of each output under a judge, and the entropy of its words, never one without the other.

    Without a judge the entropy alone has values.
    """
    entropies = [word_entropy(list(one.sentences), item.target_lang) for item, one in zip(items, outputs, strict=True)]
    pairs = np.zeros((len(outputs), 2))
    if judge is not None:
        found = generative_perplexity(judge, [list(one.sentences) for one in outputs])
        pairs = np.array([found.nats, found.tokens], dtype=np.float64).T
    values: list[Values] = []
    for (nats, tokens), entropy in zip(pairs.tolist(), entropies, strict=True):
        values.append({"perplexity": math.exp(min(nats / tokens, 700.0)) if tokens else None, "entropy": entropy})
    known = np.array([[0.0, 0.0] if one is None else [one, 1.0] for one in entropies])
    return values, {"perplexity": (pairs, perplexity), "entropy": (known, ratio)}


def _judged(items: Sequence[Item], outputs: Sequence[Output]) -> Judged:
    return Judged(
        texts=[list(one.sentences) for one in outputs],
        langs=[item.target_lang for item in items],
        sources=[list(item.source.sentences) for item in items],
        references=[list(item.reference) for item in items],
        source_langs=[item.lang for item in items],
    )


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


def summed(rows: Array, labels: Sequence[str]) -> Array:
    """Add the (N, K) rows of items of one document."""
    names, index = np.unique(np.asarray(labels), return_inverse=True)
    total = np.zeros((len(names), rows.shape[1]))
    np.add.at(total, index, rows)
    return total


def _score(rows: Array, statistic: Statistic, seed: int) -> Score:
    """The last column of sums is what is divided by: items, or tokens."""
    if not rows[:, -1].sum():
        return Score(None, n=0)
    found = estimate(rows, statistic, seed=seed)
    return Score(found.mean, found.low, found.high, int((rows[:, -1] > 0).sum()))


def _difference(own: Array, other: Array, statistic: Statistic, seed: int) -> Difference:
    if not own[:, -1].sum() or not other[:, -1].sum():
        return Difference(None)
    found = difference(own, other, statistic, seed=seed)
    return Difference(found.mean, found.low, found.high, found.p)


__all__ = [
    "Scored",
    "collected",
    "compared",
    "concept_metrics",
    "corpus_metrics",
    "encoded",
    "judged_metrics",
    "score",
    "summed",
    "text_metrics",
]
