"""Tasks in which text is written: continuation, summaries (also in another language), expansion, planned paragraphs.

Items are made from held-out documents, the same ones for the same seed and settings whatever is judged; then every
predictor writes, and all are scored on the same items (see :mod:`largeconcept.eval.tasks.writing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from largeconcept.config import Config
from largeconcept.data.documents import family_of, version_of
from largeconcept.eval.predictors import Item
from largeconcept.eval.records import TaskResult, digest
from largeconcept.eval.tasks import Context, LeftOut
from largeconcept.eval.tasks.writing import write_and_score
from largeconcept.eval.zero_shot import question
from largeconcept.generate.texts import DEFAULT_LANGUAGE, as_config
from largeconcept.types import Document

if TYPE_CHECKING:
    from largeconcept.types import Segmenter


class ContinuationSettings(Config):
    """How documents are cut for continuation.

    Attributes:
        prompt: most sentences that are read.
        length: sentences that are asked for, and most of the author's that they are compared with.
    """

    prompt: int = Field(default=8, ge=1)
    length: int = Field(default=4, ge=1)


class SummarySettings(Config):
    """How long summaries may be.

    Attributes:
        ratio: most sentences of a summary, as a share of the source's; at least one is allowed.
        length: the same as a number; wins over ``ratio``.
        max_source: most sentences of a source; the others, at its end, are left out.
        zero_shot: ask models that were not tuned to it by a sentence after the text
            (:mod:`largeconcept.eval.zero_shot`); without, they are left out.
    """

    ratio: float = Field(default=0.2, gt=0)
    length: int | None = Field(default=None, ge=1)
    max_source: int = Field(default=64, ge=1)
    zero_shot: bool = True


class ExpansionSettings(Config):
    """How long expansions may be.

    Attributes:
        ratio: most sentences, as a multiple of those of the summary.
        length: the same as a number; wins over ``ratio``.
        max_reference: most sentences of the original that an expansion is compared with.
        zero_shot: as in :class:`SummarySettings`.
    """

    ratio: float = Field(default=4.0, gt=0)
    length: int | None = Field(default=None, ge=1)
    max_reference: int = Field(default=64, ge=1)
    zero_shot: bool = True


def continuation(context: Context) -> TaskResult:
    """Continue the beginnings of held-out texts; the reference is what their author wrote next.

    Raises:
        LeftOut: no document of two sentences.
    """
    settings = as_config(ContinuationSettings, context.settings.get("continuation"), "continuation")
    chosen = _beginnings(context, settings)
    return write_and_score(context, "continuation", "continue", chosen, settings.to_dict())


def plan(context: Context) -> TaskResult:
    """Continue texts by paragraphs, each planned before it is written.

    Texts are cut at a paragraph where they have some. Predictors that do not plan write as many sentences without.

    Raises:
        LeftOut: the model does not plan, or there is no document of two sentences.
    """
    from largeconcept.models.planning import PlanningConceptModel

    settings = as_config(ContinuationSettings, context.settings.get("plan"), "plan")
    if not isinstance(context.pipeline.model, PlanningConceptModel):
        raise LeftOut("the model does not plan")
    chosen = _beginnings(context, settings, at_paragraphs=True)
    return write_and_score(context, "plan", "plan", chosen, settings.to_dict())


def summarize(context: Context) -> TaskResult:
    """Summarise texts; the reference is the summary (or the target sentences) that they came with.

    Raises:
        LeftOut: no text with a summary, or a model that was not tuned to it and may not be asked otherwise.
    """
    settings = as_config(SummarySettings, context.settings.get("summarize"), "summarize")

    def items() -> Iterator[Item]:
        for document, lang in _writable(context):
            summary = summary_of(document, context.pipeline.segmenter)
            if summary:
                yield _summary_item(document, lang, summary, settings)

    chosen = _chosen(context, items(), "no held-out text has a summary or target sentences")
    return write_and_score(context, "summarize", "summarize", chosen, settings.to_dict())


def summarize_into(context: Context) -> TaskResult:
    """Summarise texts in another language than theirs; the reference is the summary of the same text there.

    Versions of a text in several languages are those with one id. A model that was tuned on summaries of one language
    does this zero-shot (arXiv:2412.08821, section 4.3).

    Raises:
        LeftOut: no text whose summary is there in another language, or a model that was not tuned to summarise and may
            not be asked otherwise.
    """
    settings = as_config(SummarySettings, context.settings.get("summarize_into"), "summarize_into")
    languages = set(context.pipeline.codec.languages)

    def items() -> Iterator[Item]:
        versions: dict[tuple[str | None, str], dict[str, Document]] = {}
        for document in context.documents:
            if document.lang is not None:
                versions.setdefault(_work(document), {})[document.lang] = document
        for document in context.documents:
            twins = versions.get(_work(document), {}) if document.lang is not None else {}
            found = {
                lang: summary
                for lang, twin in sorted(twins.items())
                if lang != document.lang and lang in languages
                if (summary := summary_of(twin, context.pipeline.segmenter))
            }
            if found:
                # One language for each text, drawn from its name and the seed.
                draw = int(digest([context.seed, version_of(document.id), document.lang]), 16) % len(found)
                lang = list(found)[draw]
                yield _summary_item(document, lang, found[lang], settings)

    chosen = _chosen(context, items(), "no held-out text has a summary in another language that the codec writes")
    return write_and_score(context, "summarize_into", "summarize", chosen, settings.to_dict())


def expand(context: Context) -> TaskResult:
    """Write a text from its summary; the reference is the text.

    Raises:
        LeftOut: no text with a summary, or a model that was not tuned to it and may not be asked otherwise.
    """
    settings = as_config(ExpansionSettings, context.settings.get("expand"), "expand")

    def items() -> Iterator[Item]:
        for document, lang in _writable(context):
            summary = summary_of(document, context.pipeline.segmenter)
            if summary:
                source = Document(id=document.id, sentences=summary, lang=document.lang, title=document.title)
                budget = settings.length or max(1, round(settings.ratio * len(summary)))
                reference = document.sentences[: settings.max_reference]
                asked = question("expand", lang) if settings.zero_shot else None
                yield Item(document.id, document.lang, lang, source, reference, budget, asked)

    chosen = _chosen(context, items(), "no held-out text has a summary or target sentences")
    return write_and_score(context, "expand", "expand", chosen, settings.to_dict())


def summary_of(document: Document, segmenter: Segmenter) -> tuple[str, ...]:
    """Return the sentences of a document's target, else of its summary; none without either."""
    if document.target_sentences:
        return tuple(sentence for sentence in document.target_sentences if sentence.strip())
    text = document.summary or ""
    spans = segmenter.segment(text, document.lang) if text.strip() else []
    return tuple(sentence for span in spans if (sentence := " ".join(span.of(text).split())))


def _writable(context: Context) -> Iterator[tuple[Document, str]]:
    """Yield documents with the language to write: their own, if the codec has it."""
    languages = context.pipeline.codec.languages
    fallback = DEFAULT_LANGUAGE if DEFAULT_LANGUAGE in languages else languages[0]
    refused = set()
    found = False
    for document in context.documents:
        lang = document.lang or fallback
        if lang in languages and document.sentences:
            found = True
            yield document, lang
        else:
            refused.add(lang)
    if not found and refused:
        raise LeftOut(f"the codec writes none of the texts' languages ({', '.join(sorted(refused))})")


def _beginnings(context: Context, settings: ContinuationSettings, *, at_paragraphs: bool = False) -> list[Item]:
    """Return beginnings of held-out texts with what followed, cut at a paragraph where that is wanted and there is one.

    Raises:
        LeftOut: no document of two sentences, or in no language that the codec writes.
    """

    def items() -> Iterator[Item]:
        for document, lang in _writable(context):
            if len(document.sentences) >= 2:
                cut = min(settings.prompt, max(1, len(document.sentences) - settings.length))
                breaks = [start for start in document.paragraph_starts if 0 < start <= cut] if at_paragraphs else []
                yield _cut(document, lang, breaks[-1] if breaks else cut, settings.length)

    return _chosen(context, items(), "no document of two sentences")


def _cut(document: Document, lang: str, cut: int, length: int) -> Item:
    """Return the item that reads the first ``cut`` sentences and writes up to ``length``."""
    starts = tuple(start for start in document.paragraph_starts if start < cut)
    source = replace(
        document,
        text="",
        sentences=document.sentences[:cut],
        paragraph_starts=starts,
        target_sentences=None,
        summary=None,
        plans=None if document.plans is None else document.plans[: len(starts)],
        concepts=None if document.concepts is None else document.concepts[:cut],
        times=None if document.times is None else document.times[:cut],
    )
    return Item(document.id, document.lang, lang, source, document.sentences[cut : cut + length], length)


def _summary_item(document: Document, lang: str, summary: tuple[str, ...], settings: SummarySettings) -> Item:
    item = _cut(document, lang, min(len(document.sentences), settings.max_source), 1)
    budget = settings.length or max(1, round(settings.ratio * len(item.source.sentences)))
    asked = question("summarize", lang, cross_lingual=item.cross_lingual) if settings.zero_shot else None
    return replace(item, reference=summary, max_concepts=budget, question=asked)


def _work(document: Document) -> tuple[str | None, str]:
    """Return what the versions of a text in several languages have in common."""
    return family_of(document), version_of(document.id)


def _chosen(context: Context, items: Iterable[Item], nothing: str) -> list[Item]:
    """Return the first items up to the limit; the documents came in an order drawn from the seed.

    Raises:
        LeftOut: there is none.
    """
    chosen: list[Item] = []
    for item in items:
        if context.limit is not None and len(chosen) >= context.limit:
            break
        chosen.append(item)
    if not chosen:
        raise LeftOut(nothing)
    return chosen


__all__ = [
    "ContinuationSettings",
    "ExpansionSettings",
    "SummarySettings",
    "continuation",
    "expand",
    "plan",
    "summarize",
    "summarize_into",
    "summary_of",
]
