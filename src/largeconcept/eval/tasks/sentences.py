"""Which sentences and concepts of the held-out documents the codec is judged on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from largeconcept.data.documents import family_of, name_of, version_of
from largeconcept.eval.tasks import Context, LeftOut

if TYPE_CHECKING:
    from largeconcept.types import Document

FEWEST = 2
"""Sentences of a language, or of a class of them, that a figure is given for."""


@dataclass(slots=True)
class Sentences:
    """Sentences of one language, with the documents they are from."""

    texts: list[str] = field(default_factory=list)
    owners: list[Hashable] = field(default_factory=list)


def _known(context: Context) -> Iterator[Document]:
    """Yield the documents with sentences in the languages that the codec writes."""
    for document in context.documents:
        if document.lang in context.pipeline.codec.languages and any(map(str.strip, document.sentences)):
            yield document


def _limited(context: Context) -> Iterator[Document]:
    """Yield documents of as many names as the limit allows."""
    names: set[Hashable] = set()
    for document in _known(context):
        name = name_of(document.id)
        if name in names or context.limit is None or len(names) < context.limit:
            names.add(name)
            yield document


def sentences_of_languages(context: Context, most: int) -> dict[str, Sentences]:
    """Return sentences of each language, spread over its documents, so that long ones do not decide alone."""
    documents: dict[str, list[Document]] = {}
    for document in _limited(context):
        documents.setdefault(document.lang or "", []).append(document)
    found = {}
    for lang, group in sorted(documents.items()):
        chosen = Sentences()
        for document, texts in zip(group, _shared([_texts(one) for one in group], most), strict=True):
            chosen.texts += texts
            chosen.owners += [name_of(document.id)] * len(texts)
        if len(chosen.texts) >= FEWEST:
            found[lang] = chosen
    if not found:
        raise LeftOut("no held-out sentences in a language that the codec writes")
    return found


def _texts(document: Document) -> list[str]:
    return [text for text in document.sentences if text.strip()]


def _shared(groups: Sequence[list[Any]], most: int) -> list[list[Any]]:
    """Take ``most`` things in all, as evenly as the groups' sizes allow, and of each group evenly spread ones."""
    room, shares = most, [0] * len(groups)
    waiting = sorted(range(len(groups)), key=lambda i: len(groups[i]))
    for place, i in enumerate(waiting):
        shares[i] = min(len(groups[i]), -(-room // (len(waiting) - place)))
        room -= shares[i]
    return [[group[j * len(group) // share] for j in range(share)] for group, share in zip(groups, shares, strict=True)]


def aligned_sentences(context: Context, most: int) -> dict[tuple[str, str], tuple[Sentences, Sentences]]:
    """Return the aligned sentences of every ordered pair of languages: in both, as many and in the same order."""
    from largeconcept.train.codec_job import parallel_pairs

    versions: dict[tuple[str | None, str], dict[str, list[Document]]] = {}
    for document in _known(context):
        id = version_of(document.id)
        known = versions.setdefault((family_of(document), id), {})
        known.setdefault(document.lang or "", []).append(replace(document, id=id))
    pairs: dict[tuple[str, str], dict[Hashable, list[tuple[str, str]]]] = {}
    used: set[str] = set()
    for (_, id), languages in versions.items():
        name = name_of(id)
        if context.limit is not None and len(used) >= context.limit and name not in used:
            continue
        # Of a language with several documents of one id nobody knows which belongs to which.
        group = [parts[0] for parts in languages.values() if len(parts) == 1]
        rows = [row for row in parallel_pairs(group) if row[1].strip() and row[3].strip()]
        used |= {name} if rows else set()
        for source, left, target, right in rows:
            for way, pair in (((source, target), (left, right)), ((target, source), (right, left))):
                pairs.setdefault(way, {}).setdefault(name, []).append(pair)
    found = {}
    for key, documents in sorted(pairs.items()):
        here, there = Sentences(), Sentences()
        for owner, chosen in zip(documents, _shared(list(documents.values()), most), strict=True):
            for side, column in ((here, 0), (there, 1)):
                side.texts += [row[column] for row in chosen]
                side.owners += [owner] * len(chosen)
        if len(here.texts) >= FEWEST:
            found[key] = here, there
    if not found:
        raise LeftOut("no held-out document has as many sentences in two languages that the codec writes")
    return found


def some_concepts(context: Context, most: int) -> tuple[Tensor, list[Hashable]]:
    """Return concepts, of the dataset or encoded, and the documents they are from."""
    rows: list[Tensor] = []
    owners: list[Hashable] = []
    if context.dataset is not None:
        tables = [document.concepts for document in context.dataset]
        names: list[Hashable] = [name_of(document.id) for document in context.dataset]
        for table, name in zip(tables, names, strict=True):
            rows.append(table)
            owners += [name] * len(table)
        picked = _shared([list(range(len(table))) for table in tables], most)
        rows = [table[places] for table, places in zip(tables, picked, strict=True) if places]
        owners = [name for name, places in zip(names, picked, strict=True) for _ in places]
    else:
        documents = list(_limited(context))
        shares = _shared([_texts(document) for document in documents], most)
        for document, texts in zip(documents, shares, strict=True):
            if texts:
                rows.append(context.pipeline.codec.encode(texts, document.lang))
                owners += [name_of(document.id)] * len(texts)
    if not rows:
        raise LeftOut("no held-out sentences")
    return torch.cat([row.float().cpu() for row in rows]), owners
