"""The next sentence at every place of held-out texts, drawn several times and compared word by word: BrierLM.

One yardstick for models that give samples only and for those that give likelihoods (see
:mod:`largeconcept.eval.metrics.brier`). It judges distributions, so models draw from the one that they learnt, not from
one sharpened for writing.

Shape letters: S concepts, C concept dimension, D documents.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from largeconcept.config import Config
from largeconcept.eval.drawing import drawn, spread
from largeconcept.eval.held_out import HeldOutDocument, usable_documents
from largeconcept.eval.metrics import METRICS
from largeconcept.eval.metrics.brier import ORDERS, brier_statistic, brier_terms
from largeconcept.eval.metrics.words import words
from largeconcept.eval.predictors import TokenModelPredictor
from largeconcept.eval.records import MODEL, Difference, Score, TaskResult
from largeconcept.eval.statistics import Array, Statistic, difference, estimate, ratio
from largeconcept.eval.tasks import TASKS, Context, LeftOut
from largeconcept.eval.tasks.concepts import encoded_documents
from largeconcept.generate.loop import predict_teacher_forced
from largeconcept.generate.texts import as_config
from largeconcept.models.planning import PlanningConceptModel

if TYPE_CHECKING:
    from largeconcept.generate.options import GenerationOptions

BATCH = 64
LEARNT: dict[str, Any] = {
    "guidance_scale": 1.0,
    "guidance_rescale": 0.0,
    "initial_noise_scale": 1.0,
    "num_candidates": 1,
    "top_k": 0,
    "top_p": 1.0,
    "epsilon_scaling": None,
    "codebooks_per_step": 1,
}
"""Generation options with which each family draws from the distribution that it learnt."""
FEWEST_STEPS = 40
"""Steps of a diffusion or flow model at least: with a few of them it draws from a distribution of its own."""
Draw = list[list[str]]
"""For each document the sentences said in the place of all but its first."""


class NextSentenceSettings(Config):
    """Settings of the task.

    Attributes:
        length: sentences at the beginning of each document that are used.
        num_samples: draws at each place, two or more.
        max_tokens: most tokens that are written; the first four words are compared.
        learnt: draw from the distribution that was learnt; ``false`` keeps the given generation options.
    """

    length: int = Field(default=16, ge=2)
    num_samples: int = Field(default=4, ge=2)
    max_tokens: int = Field(default=24, ge=1)
    learnt: bool = True


def next_sentence(context: Context) -> TaskResult:
    """Say the next sentence at every place of held-out texts, several times with other random numbers.

    Beside the model stand the token models among the predictors, at temperature 1, and the last sentence again. A
    regression says the same each time: it is sure of itself, and pays for it.

    Raises:
        LeftOut: a planning model, or fewer than two texts with two sentences.
    """
    settings = as_config(NextSentenceSettings, context.settings.get("next_sentence"), "next_sentence")
    began = time.perf_counter()
    documents = _documents(context, settings.length)
    texts = [list(document.sentences or ()) for document in documents]
    options = context.options if context.options is not None else context.pipeline.options
    if settings.learnt:
        config = getattr(context.pipeline.model, "config", None)
        kind, schedule = getattr(config, "type", ""), getattr(config, "noise_schedule", None)
        # A regression's temperature is noise that it was not trained with.
        sampled = {"temperature": 1.0, "centroid_temperature": 1.0} if kind == "quantized" else {"temperature": 0.0}
        fewest = FEWEST_STEPS if schedule is None else min(FEWEST_STEPS, schedule.num_timesteps)
        steps = max(options.num_inference_steps, fewest)
        options = options.model_copy(update=LEARNT | sampled | {"num_inference_steps": steps})
    number = settings.num_samples
    draws: dict[str, list[Draw]] = {MODEL: [], "copy_last": [[text[:-1] for text in texts]] * number}
    for place in range(number):
        context.progress(place, number, "draws")
        seed = number * context.seed + place  # no draw is used by another seed's run
        draws[MODEL].append(_by_concepts(context, documents, options, seed, settings.max_tokens))
        for predictor in context.predictors:
            if isinstance(predictor, TokenModelPredictor):
                draws.setdefault(predictor.name, []).append(_by_tokens(predictor, texts, seed, settings))
    context.progress(number, number, "draws")
    sums = {name: _sums(drawn_texts, texts, documents) for name, drawn_texts in draws.items()}
    metrics = {metric: METRICS[metric].direction for metric in _METRICS}
    scores = {
        name: {metric: _score(_METRICS[metric], table, context.seed) for metric in metrics}
        for name, table in sums.items()
    }
    return TaskResult(
        version=TASKS["next_sentence"].version,
        n=len(documents),
        metrics=metrics,
        scores=scores,
        differences={
            name: {metric: _difference(_METRICS[metric], sums[MODEL], table, context.seed) for metric in metrics}
            for name, table in sums.items()
            if name != MODEL
        },
        settings={
            **settings.to_dict(),
            "num_places": int(sums[MODEL][:, -1].sum()),
            "metric_versions": {metric: METRICS[metric].version for metric in metrics},
        },
        seconds=time.perf_counter() - began,
        extra={"notes": _notes(scores)},
        tables={name: {metric: (table, _METRICS[metric]) for metric in metrics} for name, table in sums.items()},
    )  # fmt: skip


def _documents(context: Context, length: int) -> list[HeldOutDocument]:
    """Return the beginnings of held-out documents.

    Raises:
        LeftOut: a planning model, or too few documents.
    """
    if isinstance(context.pipeline.model, PlanningConceptModel):
        raise LeftOut("a planning model writes plans between its sentences")
    source: Any = context.dataset if context.dataset is not None else encoded_documents(context)

    def beginnings() -> Iterator[HeldOutDocument]:
        for one in usable_documents(spread(source, context.limit, context.seed), context.pipeline.codec.dim):
            if one.sentences is not None and bool(one.scored[1:length].any()):
                text = list(one.sentences[:length])
                yield HeldOutDocument(one.concepts[:length], one.scored[:length], text, one.lang)

    found = drawn(beginnings(), context.limit, context.seed)
    if len(found) < 2:
        raise LeftOut("fewer than two held-out texts with two sentences")
    return found


def _by_concepts(
    context: Context, documents: Sequence[HeldOutDocument], options: GenerationOptions, seed: int, max_tokens: int
) -> Draw:
    """Predict concepts from the true ones before them, and write them."""
    pipe, predicted = context.pipeline, []
    settings = options.model_copy(update={"seed": seed})
    for start in range(0, len(documents), BATCH):
        batch = [document.concepts for document in documents[start : start + BATCH]]
        padded = pad_sequence(batch, batch_first=True).to(pipe.normalizer.center.device)
        lengths = torch.tensor([len(concepts) for concepts in batch])
        ids = list(range(start, start + len(batch)))
        x = predict_teacher_forced(pipe.model, pipe.normalizer.normalize(padded), lengths, settings, sample_ids=ids)
        x = pipe.normalizer.denormalize(x.to(pipe.normalizer.center.device)).cpu()
        predicted += [x[row, 1 : len(concepts)] for row, concepts in enumerate(batch)]
    codec = pipe.codec
    known = [document.lang if document.lang in codec.languages else codec.languages[0] for document in documents]
    languages = [str(lang) for lang, rows in zip(known, predicted, strict=True) for _ in range(len(rows))]
    written = iter(codec.decode(torch.cat(predicted), languages, method="greedy", max_length=max_tokens))
    return [[next(written) for _ in range(len(rows))] for rows in predicted]


def _by_tokens(
    predictor: TokenModelPredictor, texts: Sequence[Sequence[str]], seed: int, settings: NextSentenceSettings
) -> Draw:
    from largeconcept.generate.token_lm import predict_next_sentences

    sampled = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if settings.learnt else {}
    options = predictor.options.model_copy(update={"seed": seed, "max_tokens": settings.max_tokens, **sampled})
    ids = list(range(len(texts)))
    return predict_next_sentences(predictor.model, predictor.tokenizer, texts, options, sample_ids=ids)


def _sums(draws: Sequence[Draw], texts: Sequence[Sequence[str]], documents: Sequence[HeldOutDocument]) -> Array:
    """Return (D, ORDERS + 1): sums of the terms of Brier-1, … over the scored places of each document, and how many."""
    rows = np.zeros((len(texts), ORDERS + 1))
    for row, (text, document, *said) in enumerate(zip(texts, documents, *draws, strict=True)):
        scored = document.scored[1:].tolist()
        truth, *cut = [
            [words(sentence, document.lang) for sentence, counts in zip(one, scored, strict=True) if counts]
            for one in (text[1:], *said)
        ]
        rows[row] = [*brier_terms(cut, truth).sum(axis=0), len(truth)]
    return rows


def _notes(scores: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """Return a line for each predictor that says what its BrierLM is made of, and what these items do not tell."""
    lines = []
    for name, group in scores.items():
        parts = [f"Brier-{n} {group[f'brier_{n}']}" for n in range(1, ORDERS + 1)]
        low = [group[f"brier_{n}"].low for n in range(1, ORDERS + 1)]
        unclear = [f"Brier-{n}" for n, one in enumerate(low, 1) if one is not None and one < 1e-9]
        end = f"; not above 0: {', '.join(unclear)}" if unclear else ""
        lines.append(f"{name}: {', '.join(parts)}{end}")
    return lines


def _order(n: int) -> Statistic:
    def statistic(sums: Array) -> Array:
        return ratio(sums[..., [n - 1, ORDERS]])

    return statistic


_METRICS: dict[str, Statistic] = {
    "brier_lm": brier_statistic,
    **{f"brier_{n}": _order(n) for n in range(1, ORDERS + 1)},
}


def _score(statistic: Statistic, table: Array, seed: int) -> Score:
    found = estimate(table, statistic, seed=seed)
    return Score(found.mean, found.low, found.high, len(table))


def _difference(statistic: Statistic, own: Array, other: Array, seed: int) -> Difference:
    found = difference(own, other, statistic, seed=seed)
    return Difference(found.mean, found.low, found.high, found.p)


__all__ = ["LEARNT", "NextSentenceSettings", "next_sentence"]
