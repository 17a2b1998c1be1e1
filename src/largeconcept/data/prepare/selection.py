"""Documents and sentences apart: what is held out, what is too like it, and what is left to train on.

Letters: N documents, S sentences of all documents, W words.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from largeconcept.data.prepare.filters import clean_sentence, is_damaged, pieces_of
from largeconcept.data.prepare.near_duplicates import MinHash, ShingleSets, WordHasher, shingle_sets
from largeconcept.data.prepare.settings import PrepareConfig
from largeconcept.data.prepare.splits import Split, document_key, split_of, words_of
from largeconcept.types import Document


@dataclass(slots=True)
class Entry:
    """A document (a window of one) that may be used.

    Attributes:
        source, id, lang, title, summary: as in the corpus.
        key: shared by its windows and translations.
        split: part it belongs to.
        window: 1 for the first window of a document, 2 for the second, …
        sentences: cleaned, none damaged.
        fate: ``""`` while it is used, else why it is not: ``near_duplicate``, ``held_sentences``, ``translation``,
            ``empty``.
    """

    source: str
    id: str
    lang: str
    title: str | None
    summary: str | None
    key: str
    split: Split
    window: int
    sentences: list[str]
    fate: str = ""


@dataclass(slots=True)
class Counts:
    """How much there was after each step: (what, step, source, language) to a number."""

    numbers: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def add(self, what: str, step: str, source: str, lang: str, number: int = 1) -> None:
        """Count ``number`` more."""
        self.numbers[what, step, source, lang] += number

    def table(self, what: str) -> dict[str, dict[str, dict[str, int]]]:
        """Return source -> language -> step -> number."""
        result: dict[str, dict[str, dict[str, int]]] = {}
        for (kind, step, source, lang), number in self.numbers.items():
            if kind == what and number:
                result.setdefault(source, {}).setdefault(lang, {})[step] = number
        return {source: {lang: result[source][lang] for lang in sorted(result[source])} for source in sorted(result)}


class Collector:
    """Documents in, the parts of them that may be used out.

    Args:
        config: languages, lengths and what a near-duplicate is.
        counts: filled on the way.
    """

    def __init__(self, config: PrepareConfig, counts: Counts) -> None:
        self.config, self.counts = config, counts
        self.entries: list[Entry] = []
        self._windows: Counter[tuple[str, str, str]] = Counter()
        self._hasher = WordHasher()
        self._folds: list[NDArray[np.int64]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._words: list[NDArray[np.uint64]] = []
        self._held: dict[Split, frozenset[int]] = {}
        self._dropped: frozenset[int] = frozenset()

    def add(self, document: Document) -> None:
        """Take a document, unless it is in a language that is not wanted."""
        lang, source = document.lang or "", document.source or ""
        if lang not in self.config.languages:
            return
        self.counts.add("documents", "read", source, lang)
        self.counts.add("sentences", "read", source, lang, len(document.sentences))
        sentences = [text for text in (clean_sentence(s, source) for s in document.sentences) if text]
        sound = [text for text in sentences if not is_damaged(text, source)]
        self.counts.add("sentences", "damaged", source, lang, len(document.sentences) - len(sound))
        split = split_of(source, document.id)
        key = document_key(source, document.id)
        self._windows[source, document.id, lang] += 1
        window = self._windows[source, document.id, lang]
        entry = Entry(source, document.id, lang, document.title, document.summary, key, split, window, sound)
        words = [words_of(text) for text in sound]
        self.entries.append(entry)
        self._folds.append(np.array([fold_of(w) for w in words], np.int64))
        self._lengths.append(np.array([len(w) for w in words], np.int64))
        self._words.append(np.array(self._hasher([word for w in words for word in w]), np.uint64))

    def select(self) -> None:
        """Decide the fate of every document, and take what is held out from the sentences of the others."""
        rows: dict[Split, list[int]] = {"reserved": [], "test": [], "validation": [], "train": []}
        for i, entry in enumerate(self.entries):
            rows[entry.split].append(i)
        self._held = {split: frozenset(self._folds_of(rows[split])) for split in rows if split != "train"}
        held = frozenset().union(*self._held.values())
        self._near_duplicates(rows, held)
        self._translations()
        limit = self.config.near_duplicates.sentence_words
        for i, entry in enumerate(self.entries):
            if entry.split == "train" and not entry.fate:
                long = (self._lengths[i] >= limit).tolist()
                repeated = [w and fold in held for w, fold in zip(long, self._folds[i].tolist(), strict=True)]
                self.counts.add("sentences", "held_out_in_documents", entry.source, entry.lang, sum(repeated))
                entry.sentences = [s for s, known in zip(entry.sentences, repeated, strict=True) if not known]
            if not entry.sentences and not entry.fate:
                entry.fate = "empty"
        used = self._folds_of(i for i in rows["train"] if not self.entries[i].fate)
        self._dropped = frozenset(self._folds_of(i for i in rows["train"] if self.entries[i].fate) - used)
        self._folds, self._lengths, self._words = [], [], []

    def place_of(self, text: str) -> Split | Literal["dropped"]:
        """Return the part whose documents hold a sentence, digits, marks and case aside.

        A sentence of several parts belongs to the one that must be kept apart most: reserved, test, validation.
        ``dropped`` stands only in training documents that are left out; ``train`` is everything else.
        """
        fold = fold_of(words_of(text))
        for split, held in self._held.items():
            if fold in held:
                return split
        return "dropped" if fold in self._dropped else "train"

    def _folds_of(self, rows: Iterable[int]) -> set[int]:
        """Hashes of the sentences of documents, those without letters aside; of long sentences their pieces too."""
        found: set[int] = set()
        limit = self.config.max_chars
        for i in rows:
            found.update(self._folds[i].tolist())
            for text in self.entries[i].sentences:
                if len(text) > limit:
                    found.update(fold_of(words_of(piece)) for piece in pieces_of(text, limit))
        return found - {0}

    def _near_duplicates(self, rows: dict[Split, list[int]], held: frozenset[int]) -> None:
        """Mark documents that nearly repeat held-out ones: of training any, of validation those of test."""
        options = self.config.near_duplicates
        sets = self._sets(options.width)
        minhash = MinHash(options.bands, options.rows)
        self._mark(minhash, sets, rows["train"], [*rows["validation"], *rows["test"], *rows["reserved"]])
        self._mark(minhash, sets, rows["validation"], [*rows["test"], *rows["reserved"]])
        for i in rows["train"]:
            folds = self._folds[i].tolist()
            if folds and not self.entries[i].fate:
                share = sum(fold in held for fold in folds) / len(folds)
                if share >= options.sentence_share:
                    self.entries[i].fate = "held_sentences"

    def _mark(self, minhash: MinHash, sets: ShingleSets, rows: list[int], against: list[int]) -> None:
        index, queries = sets.take(np.array(against, np.int64)), sets.take(np.array(rows, np.int64))
        found, _ = minhash.find(index, queries, self.config.near_duplicates.similarity)
        for i, other in zip(rows, found.tolist(), strict=True):
            if other >= 0:
                self.entries[i].fate = "near_duplicate"

    def _translations(self) -> None:
        """Mark the translations of near-duplicates: a window of the same number, of as many windows."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i, entry in enumerate(self.entries):
            groups[entry.split, entry.key].append(i)
        for group in groups.values():
            if any(self.entries[i].fate for i in group):
                own = [self.entries[i] for i in group]
                gone = {(self._number(entry), entry.window) for entry in own if entry.fate}
                for entry in own:
                    if not entry.fate and (self._number(entry), entry.window) in gone:
                        entry.fate = "translation"

    def _number(self, entry: Entry) -> int:
        """Return how many windows a document has."""
        return self._windows[entry.source, entry.id, entry.lang]

    def _sets(self, width: int) -> ShingleSets:
        offsets = np.zeros(len(self._words) + 1, np.int64)
        np.cumsum([len(words) for words in self._words], out=offsets[1:])
        words = np.concatenate([*self._words, np.zeros(0, np.uint64)])
        return shingle_sets(words, offsets, width)


def fold_of(words: Sequence[str]) -> int:
    """Return a number for a sentence given as its words, equal for equal words; 0 for none."""
    if not words:
        return 0
    digest = hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1
