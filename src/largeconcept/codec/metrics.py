"""Figures that judge a codec: round trip, translation, retrieval across languages, and decoding under noise.

* ``auto_bleu``: BLEU of decode(encode(x)) against x (Large Concept Models, arXiv 2412.08821, section 3.1);
* ``xsim``: share of sentences whose nearest neighbour among the translations, by ratio margin with 4 neighbours, is
  not their own translation (arXiv 1811.01136, equation 2; the error rate SONAR reports);
* ``meaning``: how near a sentence and what is written back are to an encoder that had no part in either;
* ``noise_curve``: auto-BLEU when the concept moves by Gaussian noise of a given strength relative to its own scale.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from largeconcept.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.types import ConceptCodec

Judge = Callable[[list[str]], "Tensor"]
"""``judge(sentences)``: N sentences to (N, C) vectors of an encoder that judges."""

# Languages whose words are not separated by spaces, with the sacrebleu tokenizer that reads them.
_TOKENIZERS = {"zho_Hans": "zh", "zho_Hant": "zh", "jpn_Jpan": "char", "tha_Thai": "char", "kor_Hang": "char"}


def bleu_tokenizer(lang: str) -> str:
    """Return the name of the sacrebleu tokenizer for a language."""
    return _TOKENIZERS.get(lang, "13a")


def bleu(hypotheses: Sequence[str], references: Sequence[str], lang: str = "eng_Latn") -> float:
    """Corpus BLEU (0–100) by sacrebleu, tokenised for the language."""
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(list(hypotheses), [list(references)], tokenize=bleu_tokenizer(lang)).score)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2 (0–100) by sacrebleu."""
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(list(hypotheses), [list(references)]).score)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """How well sentences come back from their own concepts.

    Attributes:
        meaning: mean cosine of a sentence and what came back, under a judge's encoder; ``None`` without a judge.
        meaning_error: share of sentences for which that encoder finds what came back from another one nearer.
    """

    lang: str
    num_sentences: int
    auto_bleu: float
    chrf: float
    exact: float
    meaning: float | None = None
    meaning_error: float | None = None


def round_trip(
    codec: ConceptCodec, sentences: Sequence[str], lang: str, *, judge: Judge | None = None, **decoding: Any
) -> RoundTrip:
    """Encode, decode into the same language, and compare.

    Args:
        judge: an encoder that had no part in the codec, for the figures of meaning.

    Raises:
        DataError: no sentences.
    """
    if not sentences:
        raise DataError("no sentences to judge the codec on", where=lang)
    written = codec.decode(codec.encode(list(sentences), lang), lang, **decoding)
    exact = sum(a == b for a, b in zip(written, sentences, strict=True)) / len(sentences)
    scores = (lang, len(sentences), bleu(written, sentences, lang), chrf(written, sentences), exact)
    if judge is None:
        return RoundTrip(*scores)
    # What is empty has no vector; a full stop says as little.
    there, back = judge(list(sentences)).float(), judge([text if text.strip() else "." for text in written]).float()
    error = xsim_error(there, back) if len(there) > 1 else None
    return RoundTrip(*scores, float(F.cosine_similarity(there, back, dim=1).mean()), error)


def xsim_error(left_NC: Tensor, right_NC: Tensor, neighbours: int = 4) -> float:
    """Share of rows of ``left`` whose best match in ``right`` by ratio margin is another row.

    Raises:
        DataError: different shapes or fewer than two rows.
    """
    if left_NC.shape != right_NC.shape:
        raise DataError(
            "two tables of the same shape are needed",
            where="xsim",
            got=f"{tuple(left_NC.shape)} and {tuple(right_NC.shape)}",
        )
    best = best_matches(left_NC, right_NC, neighbours)
    wrong: Tensor = (best != torch.arange(len(best), device=best.device)).float().mean()
    return float(wrong)


def best_matches(left_NC: Tensor, right_MC: Tensor, neighbours: int = 4) -> Tensor:
    """Return (N,) int64: which row of ``right`` is nearest to each row of ``left`` by ratio margin.

    The margin divides the cosine by the mean cosine of both sides to their ``neighbours`` nearest rows, which corrects
    for vectors that are near everything (arXiv 1811.01136, equation 2).

    Raises:
        DataError: other widths, or fewer than two rows on a side.
    """
    if left_NC.ndim != 2 or right_MC.ndim != 2 or left_NC.shape[1] != right_MC.shape[1]:
        got = f"{tuple(left_NC.shape)} and {tuple(right_MC.shape)}"
        raise DataError("wrong shape", where="xsim", expected="(N, C) and (M, C)", got=got)
    if min(len(left_NC), len(right_MC)) < 2:
        got = f"{len(left_NC)} and {len(right_MC)}"
        raise DataError("too few rows", where="xsim", expected="at least two on each side", got=got)
    cosine = F.normalize(left_NC.float(), dim=1) @ F.normalize(right_MC.float(), dim=1).T
    forward = cosine.topk(min(neighbours, cosine.shape[1]), dim=1).values.mean(dim=1, keepdim=True)
    backward = cosine.topk(min(neighbours, cosine.shape[0]), dim=0).values.mean(dim=0, keepdim=True)
    return (cosine / ((forward + backward) / 2)).argmax(dim=1)


def noise_curve(
    codec: ConceptCodec,
    sentences: Sequence[str],
    lang: str,
    strengths: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5),
    seed: int = 0,
    **decoding: Any,
) -> list[tuple[float, float]]:
    """Auto-BLEU after adding Gaussian noise of ``strength`` times the concepts' root-mean-square to each channel."""
    written = decoded_under_noise(codec, sentences, lang, strengths, seed, **decoding)
    return [(strength, bleu(texts, sentences, lang)) for strength, texts in written]


def decoded_under_noise(
    codec: ConceptCodec,
    sentences: Sequence[str],
    lang: str,
    strengths: Sequence[float],
    seed: int = 0,
    **decoding: Any,
) -> Iterator[tuple[float, list[str]]]:
    """Yield each strength of noise with what is written from the sentences' concepts under it; see
    :func:`noise_curve`. The noise of all strengths has the same directions."""
    concepts = codec.encode(list(sentences), lang)
    scale = concepts.square().mean().sqrt()
    noise = torch.randn(concepts.shape, generator=torch.Generator().manual_seed(seed))
    for strength in strengths:
        yield float(strength), codec.decode(concepts + strength * scale * noise, lang, **decoding)


@dataclass(slots=True)
class CodecReport:
    """All figures of a codec on held-out text.

    Attributes:
        round_trips: per language.
        translations: "source → target": chrF of decoding the concept of one language into the other.
        xsim: "source → target": retrieval error, 0 is perfect.
        noise: per language, (strength, auto-BLEU).
    """

    round_trips: list[RoundTrip] = field(default_factory=list)
    translations: dict[str, float] = field(default_factory=dict)
    xsim: dict[str, float] = field(default_factory=dict)
    noise: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def evaluate_codec(
    codec: ConceptCodec,
    sentences: Mapping[str, Sequence[str]],
    pairs: Mapping[tuple[str, str], Sequence[tuple[str, str]]] | None = None,
    *,
    judge: Judge | None = None,
    strengths: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5),
    noise_sentences: int = 100,
    **decoding: Any,
) -> CodecReport:
    """Judge a codec. Of one that cannot write there is only the retrieval error.

    Args:
        codec: any codec.
        sentences: language → held-out sentences.
        pairs: (source language, target language) → (sentence, its translation).
        judge: see :func:`round_trip`.
        strengths: of the noise curve; empty to leave it out.
        noise_sentences: how many sentences a language gives to the noise curve.
        decoding: passed to ``codec.decode``.
    """
    report = CodecReport()
    for lang, texts in sentences.items() if codec.languages else ():
        report.round_trips.append(round_trip(codec, texts, lang, judge=judge, **decoding))
        if strengths:
            report.noise[lang] = noise_curve(codec, texts[:noise_sentences], lang, strengths, **decoding)
    for (source, target), rows in (pairs or {}).items():
        if len(rows) < 2:
            continue
        name = f"{source} → {target}"
        left, right = codec.encode([a for a, _ in rows], source), codec.encode([b for _, b in rows], target)
        if codec.languages:
            report.translations[name] = chrf(codec.decode(left, target, **decoding), [b for _, b in rows])
        report.xsim[name] = xsim_error(left, right)
    return report
