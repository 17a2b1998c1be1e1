"""Planned texts (arXiv:2412.08821, §4): which sentence plans a paragraph, and how plan, paragraph and break follow.

The layout of a document is, for each of its paragraphs,

    plan, the paragraph's sentences, break

and then the end of the text. Three rules make it:

* A paragraph has fewer than ten sentences, as in the paper: a longer one is cut into the fewest pieces of nearly equal
  length. A document without paragraphs is one long paragraph, so the same rule gives it some.
* A plan that *is* the first sentence of its paragraph stands in for it and is not said twice. So every sentence of a
  document comes once, in order, whatever the plans are.
* Sequences that are too long are cut between paragraphs only.

Shape letters: P paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from largeconcept.errors import ConfigError, DataError, did_you_mean

PlanKind = Literal["first_sentence", "title", "given"]
PLAN_KINDS: tuple[PlanKind, ...] = get_args(PlanKind)
END_OF_PARAGRAPH = "End of paragraph."
"""The sentence whose concept is the break."""

MAX_PARAGRAPH = 9
"""Most sentences of a planned paragraph: the paper has fewer than ten."""

_HEADING_CHARS = 80
_FINAL = re.compile(r"[.!?…:;,。！？：；，।۔؟॥።]['\"”’»)\]」』】）]*\s*$")


@dataclass(frozen=True, slots=True)
class PlannedParagraph:
    """A paragraph and its plan.

    Attributes:
        plan: one sentence that says what comes.
        start, stop: the sentences of the document that the paragraph has; the first one may be the plan itself.
    """

    plan: str
    start: int
    stop: int


def check_kind(kind: str) -> PlanKind:
    """Return the kind of plans that a name means.

    Raises:
        ConfigError: there is no such kind; the message names the nearest.
    """
    for known in PLAN_KINDS:
        if kind == known:
            return known
    hint = did_you_mean(kind, PLAN_KINDS)
    raise ConfigError("unknown kind of plans", where="plan", got=kind, expected=", ".join(PLAN_KINDS), hint=hint)


def plan_paragraphs(
    sentences: Sequence[str],
    starts: Sequence[int],
    kind: PlanKind,
    *,
    title: str | None = None,
    given: Sequence[str] | None = None,
    limit: int = MAX_PARAGRAPH,
) -> list[PlannedParagraph]:
    """Return the paragraphs of a document with their plans, in order; together they hold every sentence once.

    Args:
        sentences: all sentences, one or more.
        starts: index of the first sentence of each paragraph.
        kind: ``first_sentence``: of the paragraph, or of the piece of it. ``title``: the heading above (a paragraph of
            one short sentence without a final mark, which joins the paragraph after it), else the document's title,
            else the first sentence. ``given``: one for each paragraph; pieces of a paragraph share it.
        title: of the document.
        given: for ``kind="given"``, as many as ``starts``.
        limit: most sentences of a paragraph.

    Raises:
        DataError: plans are missing, blank, or as many as the paragraphs they are not.
    """
    bounds = list(zip(starts, [*starts[1:], len(sentences)], strict=True))
    if kind == "given":
        plans = _checked(given, len(bounds))
        return [
            PlannedParagraph(plan, *piece)
            for plan, whole in zip(plans, bounds)
            for piece in cut_paragraph(*whole, limit)
        ]
    if kind == "first_sentence":
        pieces = [piece for whole in bounds for piece in cut_paragraph(*whole, limit)]
        return [PlannedParagraph(sentences[start], start, stop) for start, stop in pieces]
    result: list[PlannedParagraph] = []
    heading = title.strip() if title is not None and title.strip() else None
    begin: int | None = None  # of a heading that waits for its paragraph
    for start, stop in bounds:
        if stop - start == 1 and stop < len(sentences) and is_heading(sentences[start]):
            if begin is not None:  # a heading without a paragraph of its own
                result.append(PlannedParagraph(sentences[begin], begin, start))
            heading, begin = sentences[start], start
            continue
        first = start if begin is None else begin
        begin = None
        plan = sentences[first] if heading is None else heading
        result += [PlannedParagraph(plan, *piece) for piece in cut_paragraph(first, stop, limit)]
    return result


def cut_paragraph(start: int, stop: int, limit: int) -> list[tuple[int, int]]:
    """Cut sentences ``start`` to ``stop`` into the fewest pieces of at most ``limit``, the longer ones first."""
    number = -(-(stop - start) // limit)
    size, longer = divmod(stop - start, number)
    edges = [start + i * size + min(i, longer) for i in range(number + 1)]
    return list(pairwise(edges))


def is_heading(sentence: str) -> bool:
    """Tell whether a paragraph of this one sentence reads like a heading: short, and without a final mark."""
    return sentence.startswith("#") or (len(sentence) <= _HEADING_CHARS and not _FINAL.search(sentence))


def paragraph_windows(sizes: Sequence[int], max_length: int, min_length: int) -> list[tuple[int, int]]:
    """Cut P paragraphs of these sizes (plan and break included) into windows of at most ``max_length`` concepts.

    Windows are filled one after the other. A last one shorter than ``min_length`` takes paragraphs from the one before,
    as long as that keeps ``min_length`` itself.

    Returns:
        (first, last + 1) paragraph of each window. A paragraph that is too long by itself stands alone.
    """
    windows: list[tuple[int, int]] = []
    begin = length = 0
    for index, size in enumerate(sizes):
        if index > begin and length + size > max_length:
            windows.append((begin, index))
            begin, length = index, 0
        length += size
    windows.append((begin, len(sizes)))
    if len(windows) > 1:
        (first, border), (_, end) = windows[-2:]
        while (
            sum(sizes[border:end]) < min_length
            and sum(sizes[first : border - 1]) >= min_length
            and sum(sizes[border - 1 : end]) <= max_length
        ):
            border -= 1
        windows[-2:] = [(first, border), (border, end)]
    return windows


def _checked(given: Sequence[str] | None, number: int) -> Sequence[str]:
    hint = "give plans: one sentence for each paragraph"
    if given is None:
        raise DataError("the document has no plans", where="plans", expected=f"{number}", hint=hint)
    if len(given) != number:
        problem = "another number of plans than of paragraphs"
        raise DataError(problem, where="plans", expected=number, got=len(given), hint=hint)
    for index, plan in enumerate(given):
        if not plan.strip():
            raise DataError("a plan is blank", where=f"plans[{index}]", expected="one sentence")
    return given
