"""Where a codec puts the sentences of one document in several languages: the plane of their largest variance.

Shape letters: N sentences of all languages, C concept dimension.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from largeconcept.errors import DataError
from largeconcept.eval.report.charts import Dot, scatter
from largeconcept.eval.report.markup import Markup, tag
from largeconcept.eval.report.samples import language, passage
from largeconcept.eval.report.tables import scrolled

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec, Document

MOST_SENTENCES = 20
MOST_LANGUAGES = 8


def parallel_document(documents: Iterable[Document], seed: int = 0) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the id of a document, and its sentences in each of its languages.

    Documents are the same when their ids are. Those with equally many sentences in most languages come first, as their
    sentences are translations of each other; among equals the seed decides.

    Raises:
        DataError: no document is there in two languages.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for document in documents:
        if document.lang is not None and len(document.sentences) >= 3:
            found.setdefault(document.id, {}).setdefault(document.lang, document.sentences)
    sizes = {
        name: max((_alike(texts, n) for n in map(len, texts.values())), default=0) for name, texts in found.items()
    }
    most = max(sizes.values(), default=0)
    usable = sorted(name for name, size in sizes.items() if size == most)
    if most < 2 and not any(len(texts) > 1 for texts in found.values()):
        raise DataError(
            "no document in two languages", where="map", expected="documents of equal id, with lang and sentences"
        )
    if most < 2:
        usable = sorted(name for name, texts in found.items() if len(texts) > 1)
    name = random.Random(seed).choice(usable)
    texts = found[name]
    if most >= 2:
        number = max(map(len, texts.values()), key=lambda n: _alike(texts, n))
        texts = {lang: sentences for lang, sentences in texts.items() if len(sentences) == number}
    return name, {lang: texts[lang][:MOST_SENTENCES] for lang in sorted(texts)[:MOST_LANGUAGES]}


def _alike(texts: Mapping[str, Sequence[str]], number: int) -> int:
    return sum(len(sentences) == number for sentences in texts.values())


def principal_plane(concepts: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, 2) coordinates of (N, C) concepts on their two principal axes, and the (2,) shares of variance.

    The sign of an axis is chosen so that its largest coordinate is positive, to draw the same map each time.
    """
    x = concepts.double() - concepts.double().mean(dim=0)
    _, values, axes = torch.linalg.svd(x, full_matrices=False)
    axes = torch.nn.functional.pad(axes, (0, 0, 0, max(2 - len(axes), 0)))[:2]
    plane = x @ axes.T
    plane = plane * torch.where(plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)) < 0, -1.0, 1.0)
    variance = torch.nn.functional.pad(values.square(), (0, max(2 - len(values), 0)))
    return plane, variance[:2] / variance.sum().clamp(min=1e-30)


def concept_map(codec: ConceptCodec, texts: Mapping[str, Sequence[str]], title: str = "") -> Markup:
    """Draw the concepts of a document in several languages, translations joined.

    Args:
        codec: writes the concepts.
        texts: language -> sentences.
        title: name of the document.
    """
    sentences = [sentence for one in texts.values() for sentence in one]
    languages = [lang for lang, one in texts.items() for _ in one]
    concepts = codec.encode(sentences, languages).float().cpu()
    plane, shares = principal_plane(concepts)
    places = [place for one in texts.values() for place in range(len(one))]
    aligned = len({len(one) for one in texts.values()}) == 1
    dots = [
        Dot(float(x), float(y), language(lang), place, f"{language(lang)}, sentence {place + 1}: {sentence[:140]}")
        for (x, y), lang, place, sentence in zip(plane.tolist(), languages, places, sentences, strict=True)
    ]
    first, second = (f"{float(share):.0%} of the variance" for share in shares)
    words = f"Each point is a sentence, numbered by its place in the text{f' ({title})' if title else ''}. "
    if aligned:
        near, far = spread(concepts, places)
        words += (
            f"Lines lead from the translations of a sentence to their middle. In the whole space translations are "
            f"{near:.2f} apart on average (cosine distance), different sentences {far:.2f}."
        )
    else:
        words += "The translations differ in their number of sentences, so points are not joined."
    drawing = scatter(
        "Concepts of one text in several languages",
        dots,
        x_label=f"first principal axis ({first})",
        y_label=f"second ({second})",
        linked=aligned,
    )
    return tag("div", drawing, tag("p", words, class_="note"), _sentences(texts), class_="wide")


def _sentences(texts: Mapping[str, Sequence[str]]) -> Markup:
    """The text of the map, for those who want to read it or cannot see the map."""
    head = tag("tr", tag("th", "Sentence", scope="col"), [tag("th", language(lang), scope="col") for lang in texts])
    rows = [
        tag(
            "tr",
            tag("th", place + 1, scope="row"),
            [tag("td", passage(one[place], lang) if place < len(one) else "–") for lang, one in texts.items()],
        )
        for place in range(max(map(len, texts.values())))
    ]
    table = tag("table", tag("caption", "Sentences of the map"), tag("thead", head), tag("tbody", rows))
    return tag("details", tag("summary", "Sentences"), scrolled(table, "Sentences of the map"))


def spread(concepts: Tensor, places: Sequence[int]) -> tuple[float, float]:
    """Return the mean cosine distance of (N, C) concepts with equal places, and of those with different ones."""
    unit = torch.nn.functional.normalize(concepts.double(), dim=-1)
    distance = 1.0 - unit @ unit.T
    place = torch.tensor(places)
    same = place[:, None] == place[None, :]
    off = ~torch.eye(len(places), dtype=torch.bool)
    return float(distance[same & off].mean()), float(distance[~same].mean())


__all__ = ["concept_map", "parallel_document", "principal_plane", "spread"]
