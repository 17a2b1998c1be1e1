"""Planned texts in words: prompts laid out as a planning model was trained, and what it wrote as text.

Shape letters: C concept dimension, P paragraphs, n concepts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from largeconcept.data.plans import PlanKind, plan_paragraphs
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.planning import PlannedConcepts
from largeconcept.generate.texts import check_text, join_sentences, split
from largeconcept.models.planning import PlanningConceptModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from largeconcept.types import Document, Segmenter


@dataclass(frozen=True, slots=True)
class PlannedText:
    """What a planning model wrote after a text.

    Attributes:
        text: the paragraphs, parted by blank lines; a plan that stands for the first sentence of its paragraph is part
            of it, another one is not.
        plans: one sentence for each paragraph, as given or as the model wrote it.
        paragraphs: the sentences of each, without the plan.
        concepts: the same as concepts, on the CPU, in the codec's own space.
        prompt_sentences: the sentences that the model read, plans included.
        stop_reason: why it ended, as :class:`~largeconcept.generate.planning.PlannedConcepts` says.
        lang: FLORES-200 code of ``text``.
    """

    text: str
    plans: tuple[str, ...]
    paragraphs: tuple[tuple[str, ...], ...]
    concepts: PlannedConcepts
    prompt_sentences: tuple[str, ...]
    stop_reason: str
    lang: str


def planning_model(model: nn.Module) -> PlanningConceptModel:
    """Return the model if it is one that plans.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(model, PlanningConceptModel):
        kind = getattr(getattr(model, "config", None), "type", type(model).__name__)
        hint = "train one with the recipe tiny.planning on data that was built with --plan"
        raise ConfigError("this model does not plan", where="model", got=kind, expected="planning", hint=hint)
    return model


def prompt_paragraphs(
    document: Document | None,
    kind: PlanKind | None,
    segmenter: Segmenter,
    input_lang: str | None,
    where: str,
    room: int,
) -> list[list[str]]:
    """Return the paragraphs of a prompt, each with its plan in front; none without a document.

    Plans are made as in the model's training data; where they had to be given and are not, by the first sentence. Of a
    prompt longer than ``room`` concepts the last paragraphs are kept, and a warning says so.

    Raises:
        DataError: a text without a sentence or with characters that are no text, or plans that do not fit it.
    """
    if document is None:
        return []
    pieces = split(document, segmenter, input_lang, where)
    sentences = [sentence for sentence, _ in pieces]
    starts = [0, *(i for i, (_, gap) in enumerate(pieces) if gap is not None)]
    if kind is None or (kind == "given" and document.plans is None):
        kind = "first_sentence"
    planned = plan_paragraphs(sentences, starts, kind, title=document.title, given=document.plans)
    paragraphs = [
        [one.plan, *sentences[one.start + (one.plan == sentences[one.start]) : one.stop]]  # not said twice
        for one in planned
    ]
    kept = last_paragraphs(paragraphs, room)
    if len(kept) < len(paragraphs):
        told = f"{where} has {len(paragraphs)} paragraphs; the model reads the last {len(kept)} of them"
        warnings.warn(told, UserWarning, stacklevel=4)
    return kept


def last_paragraphs(paragraphs: list[list[str]], room: int) -> list[list[str]]:
    """Keep as many paragraphs from the end as fit, breaks included, into ``room`` concepts; at least one."""
    kept = len(paragraphs)
    while kept and (sum(len(one) + 1 for one in paragraphs[kept - 1 :]) <= room or kept == len(paragraphs)):
        kept -= 1
    return paragraphs[kept:]


def with_breaks(concepts: Tensor, paragraphs: Sequence[Sequence[str]], pause: Tensor) -> Tensor:
    """Put the (C,) break after each paragraph of (n, C) concepts."""
    import torch

    rows: list[Tensor] = []
    for paragraph in torch.split(concepts, [len(one) for one in paragraphs]) if paragraphs else ():
        rows += [paragraph, pause.unsqueeze(0)]
    return torch.cat(rows) if rows else pause.new_zeros(0, len(pause))


def given_plans(
    plans: Sequence[str] | Sequence[Sequence[str] | None] | None, number: int, many: bool
) -> list[list[str]]:
    """Return the plans of each text: none of them where the model is to write them itself.

    Raises:
        DataError: another number of lists than of texts, no plan in one, or one that is no sentence.
    """
    if plans is None:
        return [[] for _ in range(number)]
    lists = list(plans) if many else [plans]
    if len(lists) != number:
        raise DataError(
            "wrong number of plans", where="plans", expected=f"{number}, a list for each text", got=len(lists)
        )
    checked: list[list[str]] = []
    for i, one in enumerate(lists):
        where = f"plans[{i}]" if many else "plans"
        if one is not None and (isinstance(one, str) or not len(one) or not all(isinstance(p, str) for p in one)):
            raise DataError("not plans", where=where, expected="a list of sentences, one or more", got=one)
        checked.append([str(plan) for plan in one or ()])
        for plan in checked[-1]:
            check_text(plan, where)
            if not plan.strip():
                raise DataError("a plan is blank", where=where, expected="one sentence")
    return checked


def planned_text(
    concepts: PlannedConcepts,
    written: Sequence[str],
    given: Sequence[str],
    prompt: Sequence[Sequence[str]],
    kind: PlanKind | None,
    lang: str,
) -> PlannedText:
    """Put together what was decoded: first all plans, then all sentences of the paragraphs."""
    sentences = iter(written)
    decoded = [next(sentences) for _ in concepts.plans]
    plans = tuple(given[: len(decoded)] or decoded)
    paragraphs = tuple(tuple(next(sentences) for _ in one) for one in concepts.paragraphs)
    whole = [
        [plan, *paragraph] if kind in (None, "first_sentence") else list(paragraph)
        for plan, paragraph in zip(plans, paragraphs, strict=True)
    ]
    return PlannedText(
        text="\n\n".join(join_sentences(one, lang) for one in whole if one),
        plans=plans,
        paragraphs=paragraphs,
        concepts=concepts,
        prompt_sentences=tuple(sentence for paragraph in prompt for sentence in paragraph),
        stop_reason=concepts.stop_reason,
        lang=lang,
    )
