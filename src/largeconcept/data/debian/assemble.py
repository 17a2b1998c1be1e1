"""From split rows to documents and pairs: untranslated and repeated paragraphs go, long documents become windows.

Everything is done in a fixed order (parts, then English before the other languages, then ids), so the same rows give
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from largeconcept.data.debian.align import align, fits
from largeconcept.data.debian.parts import Part
from largeconcept.data.debian.text import Pair, Row, is_good_paragraph, split_sentences

WINDOW = 64
"""Sentences a document at most. Longer ones become several lines with the same id: a split by its hash keeps them
together."""
_SHORTEST = 2
_CHUNK = 512


@dataclass(slots=True)
class Split:
    """A row whose paragraphs are cut into sentences."""

    package: str
    lang: str
    id: str
    title: str | None
    summary: str | None
    paragraphs: list[list[str]]


@dataclass(slots=True)
class Counts:
    """What was taken, by language."""

    documents: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    summaries: Counter[str] = field(default_factory=Counter)


def split_row(row: Row | Pair) -> dict[str, Any]:
    """Return a row as plain data for the cache, its paragraphs cut into sentences."""
    if isinstance(row, Pair):
        return {"pair": [row.lang, row.english, row.other]}
    paragraphs = [split_sentences(paragraph, row.lang) if paragraph else [] for paragraph in row.paragraphs]
    return {
        "pkg": row.package, "lang": row.lang, "id": row.id, "title": row.title, "summary": row.summary,
        "paras": paragraphs,
    }  # fmt: skip


def read_split(record: dict[str, Any]) -> Split | Pair:
    """Return what :func:`split_row` made plain."""
    if "pair" in record:
        return Pair(*record["pair"])
    return Split(record["pkg"], record["lang"], record["id"], record["title"], record["summary"], record["paras"])


class Assembler:
    """Keeps what was seen in earlier parts, so that a paragraph is in the corpus once a language.

    Args:
        languages: BCP-47 tags of the documents wanted; English is read in any case, to align with it.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = frozenset(languages)
        self._paragraphs: dict[str, set[bytes]] = {}
        self._pairs: set[bytes] = set()

    def assemble(self, part: Part, rows: Iterable[Split | Pair], counts: Counts) -> Iterator[tuple[str, str]]:
        """Yield ("document" or "pair", line) of one part and count them."""
        by_lang, verses = _group(part, rows)
        english = by_lang.get("en", {})
        for lang in sorted(by_lang, key=lambda name: (name != "en", name)):
            if lang not in self.languages and lang != "en":
                continue
            for key in self._order(part, by_lang[lang], lang):
                row = by_lang[lang][key]
                twin = english.get(key) if lang != "en" else None
                paragraphs = row.paragraphs
                if twin is not None:
                    same = {_joined(p) for p in twin.paragraphs}
                    paragraphs = [p if _joined(p) not in same else [] for p in paragraphs]
                if lang in self.languages:
                    for line in self._documents(part, row, paragraphs, counts):
                        yield "document", line
                if twin is not None and part.pairs:
                    for a, b in align(twin.paragraphs, paragraphs, lang):
                        yield from self._pair(part, lang, a, b, counts)
        for verse in verses:
            if verse.lang in self.languages and part.pairs and fits(verse.english, verse.other, verse.lang):
                yield from self._pair(part, verse.lang, verse.english, verse.other, counts)

    def _order(self, part: Part, rows: dict[Any, Split], lang: str) -> list[Any]:
        keys = sorted(rows)
        if part.cap is None:
            return keys
        chosen, total = [], 0
        for key in sorted(keys, key=lambda k: hashlib.sha1(f"{part.src}/{rows[k].id}".encode()).digest()):
            if total >= part.cap:
                break
            chosen.append(key)
            total += sum(len(p) for p in rows[key].paragraphs if is_good_paragraph(p, lang))
        return sorted(chosen)

    def _documents(self, part: Part, row: Split, paragraphs: list[list[str]], counts: Counts) -> Iterator[str]:
        seen = self._paragraphs.setdefault(row.lang, set())
        window: list[str] = []
        for piece in [*self._fresh(paragraphs, row.lang, seen), None]:
            if window and (piece is None or len(window) + len(piece) > WINDOW):
                if len(window) >= _SHORTEST:
                    yield self._line(part, row, window, counts)
                window = []
            window += piece or []

    def _fresh(self, paragraphs: list[list[str]], lang: str, seen: set[bytes]) -> Iterator[list[str]]:
        for sentences in paragraphs:
            if not is_good_paragraph(sentences, lang):
                continue
            digest = _digest(_joined(sentences))
            if digest not in seen:
                seen.add(digest)
                yield from (sentences[i : i + WINDOW] for i in range(0, len(sentences), WINDOW))

    def _line(self, part: Part, row: Split, window: list[str], counts: Counts) -> str:
        counts.documents[row.lang] += 1
        counts.sentences[row.lang] += len(window)
        counts.summaries[row.lang] += bool(row.summary)
        document = {
            "src": part.src,
            "lang": row.lang,
            "id": row.id,
            "title": row.title,
            "summary": row.summary,
            "sents": window,
        }
        return json.dumps(document, ensure_ascii=False) + "\n"

    def _pair(self, part: Part, lang: str, english: str, other: str, counts: Counts) -> Iterator[tuple[str, str]]:
        digest = _digest(f"{lang}\0{english}\0{other}")
        if digest not in self._pairs:
            self._pairs.add(digest)
            counts.pairs[lang] += 1
            yield "pair", f"{part.src}\t{lang}\t{english}\t{other}\n"


def _group(part: Part, rows: Iterable[Split | Pair]) -> tuple[dict[str, dict[Any, Split]], list[Pair]]:
    by_lang: dict[str, dict[Any, Split]] = {}
    verses: list[Pair] = []
    for row in rows:
        if isinstance(row, Pair):
            verses.append(row)
        else:
            key = row.id if part.join == "id" else (row.package, row.id)
            by_lang.setdefault(row.lang, {}).setdefault(key, row)
    return by_lang, verses


def _joined(sentences: list[str]) -> str:
    return " ".join(sentences)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
