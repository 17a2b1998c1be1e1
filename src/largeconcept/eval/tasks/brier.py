"""BrierLM: models of concepts and of tokens measured alike, by two samples of the next sentence of held-out texts.

The yardstick of CALM (arXiv:2510.27688, section 4) needs samples alone: see :mod:`largeconcept.eval.metrics.brier`.
Each model draws from what it learnt: without guidance, truncation or temperature. One that does not draw gives the same
sample twice, and gets what a forecast that is always sure deserves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from largeconcept.eval.metrics.brier import ORDERS, Tokens, brier_statistic, brier_terms
from largeconcept.eval.metrics.words import words
from largeconcept.eval.predictors import ConceptModelPredictor, Item, Output, Predictor, TokenModelPredictor
from largeconcept.eval.records import MODEL, TaskResult, write_raw
from largeconcept.eval.statistics import ratio
from largeconcept.eval.tasks import TASKS, Context, LeftOut
from largeconcept.eval.tasks.generation import ContinuationSettings, continuation_items
from largeconcept.eval.tasks.scoring import Table, Values, collected, summed
from largeconcept.eval.tasks.writing import Written, raw_lines, write
from largeconcept.generate.texts import as_config

SECOND = 1_000_003
"""Added to the seed for the second sample."""


def brier_lm(context: Context) -> TaskResult:
    """Draw the next sentence of each text twice, and compare its first words with the author's.

    Note: CALM compares tokens at every place of a text; here words at the beginning of one sentence of each text.

    Raises:
        LeftOut: no document of two sentences.
    """
    given = {"length": 1, **context.settings.get("brier_lm", {})}
    settings = as_config(ContinuationSettings, given, "brier_lm")
    items = continuation_items(context, settings)
    able: list[Predictor] = []
    left_out: dict[str, str] = {}
    model = ConceptModelPredictor(context.pipeline, context.options, MODEL)
    for predictor in (model, *context.predictors):
        reason = predictor.cannot("continue", items)
        if reason is None:
            able.append(drawing(predictor))
        elif predictor is model:
            raise LeftOut(reason)
        else:
            left_out[predictor.name] = reason
    labels = [item.id for item in items]
    of_items: dict[str, list[Values]] = {}
    tables: dict[str, dict[str, Table]] = {}
    samples: dict[str, Written] = {}
    total, done = 2 * len(items) * len(able), 0
    for predictor in able:
        drawn = []
        for turn in (context, replace(context, seed=context.seed + SECOND)):

            def tell(number: int, before: int = done) -> None:
                context.progress(before + number, total, "texts")

            drawn.append(write(turn, "brier_lm", "continue", predictor, items, tell))
            done += len(items)
        first, second = (_words(items, one.outputs) for one in drawn)
        terms = brier_terms(first, second, [_cut(item.reference, item) for item in items])
        ones = np.ones((len(items), 1))
        tables[predictor.name] = {
            "brier_lm": (summed(np.hstack([terms, ones]), labels), brier_statistic),
            **{
                f"brier_{n}": (summed(np.hstack([terms[:, n - 1 : n], ones]), labels), ratio)
                for n in range(1, ORDERS + 1)
            },
        }
        of_items[predictor.name] = [{f"brier_{n}": float(row[n - 1]) for n in range(1, ORDERS + 1)} for row in terms]
        samples[predictor.name] = drawn[0]
    scored = collected(of_items, tables, {}, context.seed)
    if context.folder is not None:
        for name, one in samples.items():
            write_raw(context.folder, "brier_lm", name, raw_lines(items, one, of_items[name]))
    return TaskResult(
        version=TASKS["brier_lm"].version,
        n=len(items),
        metrics=scored.directions,
        scores=scored.scores,
        differences=scored.differences,
        settings=settings.to_dict(),
        left_out=left_out,
        seconds=sum(one.seconds for one in samples.values()),
    )


def drawing(predictor: Predictor) -> Predictor:
    """Return the predictor such that it draws from its whole distribution; others than models as they are."""
    if isinstance(predictor, ConceptModelPredictor):
        changes: dict[str, Any] = {"guidance_scale": 1.0, "guidance_rescale": 0.0, "initial_noise_scale": 1.0}
        if getattr(predictor.pipeline.model.config, "type", None) == "quantized":
            changes |= {"temperature": 1.0, "centroid_temperature": 1.0, "top_k": 0, "top_p": 1.0}
        options = predictor.options.model_copy(update=changes)
        return ConceptModelPredictor(predictor.pipeline, options, predictor.name)
    if isinstance(predictor, TokenModelPredictor):
        tokens = predictor.options.model_copy(update={"temperature": 1.0, "top_k": 0, "top_p": 1.0})
        return TokenModelPredictor(predictor.model, predictor.tokenizer, tokens, predictor.name)
    return predictor


def _words(items: Sequence[Item], outputs: Sequence[Output]) -> list[Tokens]:
    return [_cut(output.sentences, item) for item, output in zip(items, outputs, strict=True)]


def _cut(sentences: Sequence[str], item: Item) -> Tokens:
    return list(words(list(sentences), item.target_lang))[:ORDERS]


__all__ = ["SECOND", "brier_lm", "drawing"]
