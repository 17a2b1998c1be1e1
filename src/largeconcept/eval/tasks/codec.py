"""Tasks that judge the concept space alone: what a codec keeps of a sentence, and what it mixes up.

* ``codec_round_trip``: auto-BLEU (arXiv:2412.08821, section 3.1), chrF and exact sentences, by language and length;
* ``codec_noise``: auto-BLEU of concepts that Gaussian noise has moved;
* ``codec_translation``: chrF of what is written in another language, and retrieval errors among translations, plain
  (xsim) and among sentences that differ in one fact (after xsim++, arXiv:2306.12907);
* ``codec_space``: how the space is used (:mod:`largeconcept.eval.metrics.spaces`).

Every figure has its interval over documents; versions of one document in several languages count as one.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, field_validator

from largeconcept.codec.metrics import best_matches, decoded_under_noise
from largeconcept.config import Config
from largeconcept.eval.hard_negatives import KINDS, hard_negatives, names_in
from largeconcept.eval.metrics import METRICS
from largeconcept.eval.metrics.corpus_scores import (
    bleu_counts,
    bleu_of,
    by_document,
    chrf_counts,
    chrf_of,
    mean_of_groups,
)
from largeconcept.eval.metrics.optional import OF_TRANSLATIONS, Judged
from largeconcept.eval.metrics.spaces import space_figures
from largeconcept.eval.records import MODEL, Direction, Score, TaskResult, digest, write_raw
from largeconcept.eval.statistics import Array, Estimate, Statistic, estimate, per_document, ratio
from largeconcept.eval.tasks import TASKS, Context, LeftOut
from largeconcept.eval.tasks.sentences import (
    FEWEST,
    Sentences,
    aligned_sentences,
    sentences_of_languages,
    some_concepts,
)
from largeconcept.generate.texts import as_config

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

LENGTHS = (0, 25, 50, 100, 150, 200, 250, 1_000_000)
"""Ends of the classes of length, in characters; beyond 250 the paper calls decoding very hard."""


class RoundTripSettings(Config):
    """Settings of writing sentences back.

    Attributes:
        sentences: of a language at most, spread over its documents.
        num_beams: of the decoder; 1 is greedy.
    """

    sentences: int = Field(default=80, ge=2)
    num_beams: int = Field(default=1, ge=1)

    @property
    def decoding(self) -> dict[str, Any]:
        """Settings of ``codec.decode``."""
        return {"method": "beam" if self.num_beams > 1 else "greedy", "num_beams": self.num_beams}


class NoiseSettings(RoundTripSettings):
    """Settings of decoding under noise.

    Attributes:
        strengths: standard deviations of the noise, in multiples of the concepts' root mean square.
    """

    sentences: int = Field(default=25, ge=2)
    strengths: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)

    @field_validator("strengths")
    @classmethod
    def _check(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 <= one < float("inf") for one in value) or any(b <= a for a, b in pairwise(value)):
            raise ValueError("strengths must rise, from 0 or more")
        return value


class TranslationSettings(RoundTripSettings):
    """Settings of comparing aligned sentences.

    Attributes:
        sentences: of a pair of languages at most, spread over documents.
        hard_negatives: changed versions of each sentence and kind (number, name, negation) at most; 0 for none.
        neighbours: of the ratio margin.
    """

    sentences: int = Field(default=25, ge=2)
    hard_negatives: int = Field(default=2, ge=0)
    neighbours: int = Field(default=4, ge=1)


class SpaceSettings(Config):
    """Settings of measuring the space.

    Attributes:
        concepts: at most, spread over documents.
    """

    concepts: int = Field(default=4000, ge=2)


def round_trip(context: Context) -> TaskResult:
    """Encode held-out sentences, write them again in their language, and compare.

    Raises:
        LeftOut: no sentences in a language that the codec writes.
    """
    settings = as_config(RoundTripSettings, context.settings.get("codec_round_trip"), "codec_round_trip")
    codec, began = context.pipeline.codec, time.perf_counter()
    languages = sentences_of_languages(context, settings.sentences)
    written: dict[str, list[str]] = {}
    for number, (lang, group) in enumerate(languages.items()):
        context.progress(number, len(languages), "languages")
        written[lang] = codec.decode(codec.encode(group.texts, lang), lang, **settings.decoding)
    context.progress(len(languages), len(languages), "languages")
    owners = [group.owners for group in languages.values()]
    bleu = {lang: bleu_counts(written[lang], group.texts, lang) for lang, group in languages.items()}
    chrf = {lang: chrf_counts(written[lang], group.texts) for lang, group in languages.items()}
    exact = [
        [float(a == b) for a, b in zip(written[lang], group.texts, strict=True)] for lang, group in languages.items()
    ]
    scores = {
        "auto_bleu": _score(list(bleu.values()), owners, bleu_of, context),
        "chrf": _score(list(chrf.values()), owners, chrf_of, context),
        "exact": _mean([x for one in exact for x in one], [x for one in owners for x in one], context),
    }
    for lang, group in languages.items():
        scores[f"auto_bleu/{lang}"] = _score([bleu[lang]], [group.owners], bleu_of, context)
    if context.folder is not None:
        write_raw(context.folder, "codec_round_trip", MODEL, _raw(codec, languages, written, settings))
    lengths = {lang: _by_length(group, bleu[lang], context) for lang, group in languages.items()}
    return _result(
        context,
        "codec_round_trip",
        scores,
        dict.fromkeys(scores, "higher"),
        n=sum(len(group.texts) for group in languages.values()),
        settings=settings,
        began=began,
        curves={
            "Auto-BLEU by length": {
                "x_label": "characters of a sentence (mean of its class)",
                "y_label": "auto-BLEU",
                "series": {
                    lang: _curve([(row.length, row.score) for row in rows]) for lang, rows in lengths.items() if rows
                },
            }
        },
        tables={
            "Auto-BLEU by language and length": {
                "columns": ["language", "characters", "sentences", "auto-BLEU", "from", "to"],
                "rows": [
                    [lang, row.name, row.count, _round(row.score.value), _round(row.score.low), _round(row.score.high)]
                    for lang, rows in lengths.items()
                    for row in rows
                ],
            }
        },
    )


def noise(context: Context) -> TaskResult:
    """Write sentences from concepts that noise has moved; a model's predictions are never exact.

    Raises:
        LeftOut: no sentences in a language that the codec writes.
    """
    settings = as_config(NoiseSettings, context.settings.get("codec_noise"), "codec_noise")
    codec, began = context.pipeline.codec, time.perf_counter()
    languages = sentences_of_languages(context, settings.sentences)
    counts: dict[float, dict[str, Array]] = {strength: {} for strength in settings.strengths}
    total, done = len(languages) * len(settings.strengths), 0
    for lang, group in languages.items():
        texts = decoded_under_noise(codec, group.texts, lang, settings.strengths, context.seed, **settings.decoding)
        for strength, written in texts:
            counts[strength][lang] = bleu_counts(written, group.texts, lang)
            done += 1
            context.progress(done, total, "strengths")
    owners = [group.owners for group in languages.values()]
    scores = {
        f"auto_bleu/{strength:g}": _score(list(one.values()), owners, bleu_of, context)
        for strength, one in counts.items()
    }
    series = {"all": _curve(list(zip(settings.strengths, scores.values(), strict=True)))}
    if len(languages) > 1:
        for lang, group in languages.items():
            points = [(x, _score([one[lang]], [group.owners], bleu_of, context)) for x, one in counts.items()]
            series[lang] = _curve(points)
    return _result(
        context,
        "codec_noise",
        scores,
        dict.fromkeys(scores, "higher"),
        n=sum(len(group.texts) for group in languages.values()),
        settings=settings,
        began=began,
        curves={
            "Auto-BLEU under noise": {
                "x_label": "noise, in root mean squares of the concepts",
                "y_label": "auto-BLEU",
                "series": series,
            }
        },
    )


def translation(context: Context) -> TaskResult:
    """Translate aligned sentences through their concepts, and look for translations among all of them.

    ``xsim`` is the share of sentences whose nearest concept among those of the other language is not that of their
    translation. ``xsim_hard`` looks among changed versions of the translations too.

    Raises:
        LeftOut: no document in two languages that the codec writes, with as many sentences in both.
    """
    settings = as_config(TranslationSettings, context.settings.get("codec_translation"), "codec_translation")
    codec, began = context.pipeline.codec, time.perf_counter()
    aligned = aligned_sentences(context, settings.sentences)
    chrf: list[Array] = []
    owners: list[Sequence[Hashable]] = []
    errors: dict[str, tuple[list[float], list[Hashable]]] = {}
    verdicts: dict[str, tuple[list[float], list[Hashable]]] = {}
    confused = dict.fromkeys(KINDS, 0)
    offered = dict.fromkeys(KINDS, 0)
    rows = []
    for number, ((source, target), (left, right)) in enumerate(aligned.items()):
        context.progress(number, len(aligned), "pairs of languages")
        here, there = codec.encode(left.texts, source), codec.encode(right.texts, target)
        written = codec.decode(here, target, **settings.decoding)
        chrf.append(chrf_counts(written, right.texts))
        owners.append(left.owners)
        judged = Judged(
            texts=[[text] for text in written],
            langs=[target] * len(written),
            sources=[[text] for text in left.texts],
            references=[[text] for text in right.texts],
            source_langs=[source] * len(written),
            translations=True,
        )
        for name in OF_TRANSLATIONS:
            values = context.metrics[name](judged) if name in context.metrics else []
            known = verdicts.setdefault(name, ([], []))
            for value, label in zip(values, left.owners):
                if value is not None:
                    known[0].append(value)
                    known[1].append(label)
        own = torch.arange(len(here))
        wrong = {"xsim": (best_matches(here, there, settings.neighbours) != own).tolist()}
        if settings.hard_negatives:
            names = [name for text in right.texts for name in names_in(text)]
            changed = [
                one
                for text in right.texts
                for one in hard_negatives(text, target, names, most=settings.hard_negatives, seed=context.seed)
                if one.text not in right.texts
            ]
            best = best_matches(
                here,
                torch.cat([there, codec.encode([one.text for one in changed], target)]) if changed else there,
                settings.neighbours,
            )
            wrong["xsim_hard"] = (best != own).tolist()
            for kind in KINDS:
                offered[kind] += sum(one.kind == kind for one in changed)
                confused[kind] += sum(i >= len(here) and changed[i - len(here)].kind == kind for i in best.tolist())
        for name, flags in wrong.items():
            known = errors.setdefault(name, ([], []))
            known[0].extend(map(float, flags))
            known[1].extend(left.owners)
        each = {name: sum(flags) / len(flags) for name, flags in wrong.items()}
        chrf_score = float(chrf_of(chrf[-1].sum(axis=0)))
        rows.append([source, target, len(here), chrf_score, each["xsim"], each.get("xsim_hard")])
    context.progress(len(aligned), len(aligned), "pairs of languages")
    scores = {"translation_chrf": _score(chrf, owners, chrf_of, context)}
    scores |= {name: _mean(values, labels, context) for name, (values, labels) in verdicts.items() if values}
    scores |= {name: _mean(values, labels, context) for name, (values, labels) in errors.items()}
    tables: dict[str, Any] = {
        "Aligned sentences": {"columns": ["from", "into", "sentences", "chrF", "xsim", "xsim hard"], "rows": rows}
    }
    if settings.hard_negatives:
        tables["Changed sentences taken for the translation"] = {
            "columns": ["changed", "offered", "taken"],
            "rows": [[kind, offered[kind], confused[kind]] for kind in KINDS],
        }
    return _result(
        context,
        "codec_translation",
        scores,
        {name: METRICS[name].direction for name in scores},
        n=sum(len(left.texts) for left, _ in aligned.values()),
        settings=settings,
        began=began,
        tables=tables,
    )


def space(context: Context) -> TaskResult:
    """Measure how held-out concepts fill the space.

    Raises:
        LeftOut: fewer than two documents with sentences.
    """
    settings = as_config(SpaceSettings, context.settings.get("codec_space"), "codec_space")
    codec, began = context.pipeline.codec, time.perf_counter()
    concepts, owners = some_concepts(context, settings.concepts)
    if len(set(owners)) < 2:
        raise LeftOut("fewer than two held-out documents have sentences")
    found = space_figures(concepts, owners, seed=context.seed)
    directions: dict[str, Direction] = dict.fromkeys(found, "none")
    directions["isotropy"] = directions["participation_ratio"] = "higher"
    directions["mean_cosine"] = "lower"
    return _result(
        context,
        "codec_space",
        {name: _from_estimate(one) for name, one in found.items()},
        directions,
        n=len(concepts),
        settings=settings,
        facts={"dim": codec.dim},
        began=began,
    )


# ---------------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class _Class:
    """The sentences of a class of length: its name, their number, mean length and auto-BLEU."""

    name: str
    count: int
    length: float
    score: Score


def _by_length(group: Sentences, counts: Array, context: Context) -> list[_Class]:
    lengths = [len(text) for text in group.texts]
    found = []
    for low, high in pairwise(LENGTHS):
        places = [i for i, length in enumerate(lengths) if low < length <= high]
        if len(places) < FEWEST:
            continue
        score = _score([counts[places]], [[group.owners[i] for i in places]], bleu_of, context)
        name = f"{low + 1}–{high}" if high < LENGTHS[-1] else f"more than {low}"
        found.append(_Class(name, len(places), sum(lengths[i] for i in places) / len(places), score))
    return found


def _score(
    counts: Sequence[Array], owners: Sequence[Sequence[Hashable]], statistic: Statistic, context: Context
) -> Score:
    """Mean over groups (languages) of a function of their summed counts."""
    table = by_document(counts, owners)
    number = sum(map(len, counts))
    return _from_estimate(estimate(table, mean_of_groups(statistic, len(counts)), n=number, seed=context.seed))


def _mean(values: Sequence[float], owners: Sequence[Hashable], context: Context) -> Score:
    labels = [str(owner) for owner in owners]
    return _from_estimate(estimate(per_document(values, labels), ratio, n=len(values), seed=context.seed))


def _from_estimate(one: Estimate) -> Score:
    return Score(one.mean, one.low, one.high, one.n)


def _curve(points: Sequence[tuple[float, Score]]) -> dict[str, list[float | None]]:
    return {
        "x": [x for x, _ in points],
        "y": [one.value for _, one in points],
        "low": [one.low for _, one in points],
        "high": [one.high for _, one in points],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _raw(
    codec: ConceptCodec, languages: dict[str, Sentences], written: dict[str, list[str]], settings: RoundTripSettings
) -> Iterator[dict[str, Any]]:
    for lang, group in languages.items():
        for place, (text, output) in enumerate(zip(group.texts, written[lang], strict=True)):
            yield {
                "key": digest(["codec_round_trip", codec.fingerprint, settings.to_dict(), lang, text]),
                "id": f"{lang} {place}",
                "lang": lang,
                "source": text,
                "reference": text,
                "output": output,
                "seconds": None,
                "metrics": {"exact": float(output == text)},
            }


def _result(
    context: Context,
    task: str,
    scores: dict[str, Score],
    directions: dict[str, Direction],
    *,
    n: int,
    settings: Config,
    began: float,
    facts: dict[str, Any] | None = None,
    curves: dict[str, Any] | None = None,
    tables: dict[str, Any] | None = None,
) -> TaskResult:
    extra = {name: value for name, value in (("curves", curves), ("tables", tables)) if value}
    return TaskResult(
        version=TASKS[task].version,
        n=n,
        metrics=directions,
        scores={MODEL: scores},
        settings={**settings.to_dict(), "codec": context.pipeline.codec.fingerprint, **(facts or {})},
        seconds=time.perf_counter() - began,
        extra=extra,
    )


__all__ = [
    "NoiseSettings",
    "RoundTripSettings",
    "SpaceSettings",
    "TranslationSettings",
    "noise",
    "round_trip",
    "space",
    "translation",
]
