"""Tasks in which concepts are predicted, all positions of a document at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from pydantic import Field

from largeconcept.config import Config
from largeconcept.errors import ConfigError
from largeconcept.eval.records import Difference, Direction, Score, TaskResult
from largeconcept.eval.tasks import TASKS, Context
from largeconcept.generate.texts import as_config


class NextConceptSettings(Config):
    """Settings of the next-concept task.

    Attributes:
        max_length: longer documents are cut into windows of this many concepts.
        pool: most concepts that distractors are drawn from.
        round_trip: also decode every prediction of the model and encode it again.
        mutual_information: also decode those of all predictors, and let the judge read each with and without ten
            sentences before it; ``None``: where there is a judge.
        token_models: let the token models among the predictors write the next sentence at every place.
    """

    max_length: int = Field(default=128, ge=2)
    pool: int = Field(default=4096, ge=1)
    round_trip: bool = True
    mutual_information: bool | None = None
    token_models: bool = True


def next_concept(context: Context) -> TaskResult:
    """Predict each concept of held-out documents from the true ones before it; see :mod:`..next_concept`.

    Raises:
        DataError: fewer than two documents with at least two concepts.
        ConfigError: mutual information without a judge.
    """
    from largeconcept.eval.baselines import Guess, NearestFollower, TokenGuess
    from largeconcept.eval.next_concept import evaluate_next_concept, mean_concept, through_text
    from largeconcept.eval.next_concept_report import DIRECTIONS
    from largeconcept.eval.predictors import TokenModelPredictor

    settings = as_config(NextConceptSettings, context.settings.get("next_concept"), "next_concept")
    pipe, began = context.pipeline, time.perf_counter()
    documents: Any = context.dataset if context.dataset is not None else list(encoded_documents(context))
    baselines: dict[str, Guess] = {}
    if context.train is not None:
        baselines["nearest_train"] = NearestFollower.of(context.train)
    for predictor in context.predictors:
        if settings.token_models and isinstance(predictor, TokenModelPredictor):
            baselines[predictor.name] = TokenGuess(predictor.model, predictor.tokenizer, pipe.codec, predictor.options)
    judge = context.judge if settings.mutual_information is not False else None
    if settings.mutual_information and judge is None:
        raise ConfigError("there is no judge", where="next_concept: mutual_information", hint="name one, as hf=NAME")
    options = context.options if context.options is not None else pipe.options
    report = evaluate_next_concept(
        pipe.model,
        documents,
        pipe.normalizer,
        training_mean=None if context.train is None else mean_concept(context.train),
        baselines=baselines,
        options=options.model_copy(update={"seed": context.seed}),
        round_trip=through_text(pipe.codec) if settings.round_trip or judge is not None else None,
        language_model=judge,
        self_judged=context.self_judged,
        limit=context.limit,
        seed=context.seed,
        pool=settings.pool,
        max_length=settings.max_length,
        progress=lambda done, total: context.progress(done, total, "concepts"),
    )
    shown = {metric for group in report.scores.values() for metric in group}
    count = report.num_documents
    return TaskResult(
        version=TASKS["next_concept"].version,
        n=count,
        metrics={metric: _WAYS[way] for metric, way in DIRECTIONS.items() if metric in shown},
        scores={
            name: {metric: Score(one.mean, one.low, one.high, count) for metric, one in group.items()}
            for name, group in report.scores.items()
        },
        differences={
            name: {metric: Difference(one.mean, one.low, one.high, one.p) for metric, one in group.items()}
            for name, group in report.differences.items()
        },
        settings={
            **settings.to_dict(),
            "mutual_information": judge is not None,
            "num_predictions": report.num_predictions,
            "pool_size": report.pool_size,
        },
        extra={"notes": [] if judge is None else context.judge_notes("mutual information", report.scores)},
        seconds=time.perf_counter() - began,
    )


_WAYS: dict[str, Direction] = {"higher": "higher", "lower": "lower", "none": "none"}


def encoded_documents(context: Context) -> Iterator[SimpleNamespace]:
    """Yield texts with their concepts, where no dataset has them; no more of them than are used."""
    codec, count = context.pipeline.codec, 0
    for document in context.documents:
        if len(document.sentences) < 2:
            continue
        if context.limit is not None and count >= context.limit:
            return
        known = document.lang if document.lang in codec.languages else None
        concepts = document.concepts
        if concepts is None:
            concepts = codec.encode(list(document.sentences), known)
        yield SimpleNamespace(
            id=document.id, lang=document.lang, sentences=list(document.sentences), concepts=concepts.float().cpu()
        )
        count += 1


__all__ = ["NextConceptSettings", "encoded_documents", "next_concept"]
