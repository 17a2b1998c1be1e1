"""Near-duplicates among many documents: MinHash signatures, banding, then exact Jaccard of the pairs that were found.

A document is the set of its word shingles (five words that follow each other). MinHash estimates the Jaccard
similarity of two such sets by the share of equal minima under random hash functions (Broder, "On the resemblance and
containment of documents", 1997). Signatures are cut into bands of r rows, and two documents become candidates when a
band is equal in both: with b bands and similarity s that happens with probability ``1 - (1 - s^r)^b`` (Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", §3.4). The default, 42 bands of 3, finds 99.6 % of the pairs of
similarity 0.5. Candidates are then compared exactly, so nothing is reported that is not so similar.

Letters: N documents, W words, K shingles, P hash functions, M pairs. All arrays, no Python loop over documents but for
the exact comparison of candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from largeconcept.errors import ConfigError

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]
_WORDS = 2**18  # words of the documents whose shingles are made at once
_CHUNK = 2**12  # shingles hashed at once: 126 times 4 bytes each, which stay in a cache


class WordHasher:
    """Words to 64-bit numbers, the same in every process; each distinct word is hashed once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, words: Iterable[str]) -> list[int]:
        """Return a number for each word."""
        known = self._known
        result = []
        for word in words:
            number = known.get(word)
            if number is None:
                digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                number = known[word] = int.from_bytes(digest, "little")
            result.append(number)
        return result


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The shingles of N documents.

    Attributes:
        shingles: (K,) uint64, sorted and distinct inside each document.
        offsets: (N + 1,) int64; document i has ``shingles[offsets[i]:offsets[i + 1]]``.
    """

    shingles: Hashes
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Hashes:
        return self.shingles[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: NDArray[np.int64]) -> ShingleSets:
        """Return the sets of some documents, in the order of ``rows``."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[:-1][rows], lengths)
        return ShingleSets(self.shingles[places], offsets)


def shingle_sets(words: Hashes, offsets: Offsets, width: int = 5) -> ShingleSets:
    """Return the sets of hashed shingles of documents given as hashed words.

    Args:
        words: (W,) uint64, the words of all documents.
        offsets: (N + 1,) int64; document i has ``words[offsets[i]:offsets[i + 1]]``.
        width: words of a shingle. A shorter document has one shingle, of all its words; one without words has none.
    """
    parts, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    first = 0
    while first < len(offsets) - 1:  # some documents at once: the work takes many times their memory
        last = int(np.searchsorted(offsets, offsets[first] + _WORDS, side="right")) - 1
        last = max(last, first + 1)
        own = words[offsets[first] : offsets[last]]
        shingles, numbers = _shingles(own, offsets[first : last + 1] - offsets[first], width)
        parts.append(shingles)
        sizes.append(numbers)
        first = last
    starts = np.zeros(len(offsets), np.int64)
    np.cumsum(np.concatenate(sizes), out=starts[1:])
    return ShingleSets(np.concatenate(parts), starts)


def _shingles(words: Hashes, offsets: Offsets, width: int) -> tuple[Hashes, Offsets]:
    """Return the shingles of some documents, sorted and distinct in each, and how many each has."""
    lengths = np.diff(offsets)
    counts = np.where(lengths >= width, lengths - width + 1, np.minimum(lengths, 1))
    documents = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    places, ends = offsets[:-1][documents] + within, offsets[1:][documents]
    found = np.zeros(len(documents), np.uint64)
    for step in range(width):  # a polynomial of the words; places past the end of a short document add nothing
        value = words[np.minimum(places + step, max(len(words) - 1, 0))] if len(words) else found
        found = found * np.uint64(0x9E3779B97F4A7C15) + np.where(places + step < ends, value, np.uint64(0))
    found = _mix(found)
    order = np.lexsort((found, documents))
    found, documents = found[order], documents[order]
    new = np.ones(len(found), bool)
    new[1:] = (found[1:] != found[:-1]) | (documents[1:] != documents[:-1])
    return found[new], np.bincount(documents[new], minlength=len(lengths)).astype(np.int64)


class MinHash:
    """Finds the documents of an index that a document nearly repeats.

    Args:
        bands, rows: shape of a signature; ``bands * rows`` hash functions.
        seed: of the hash functions.
    """

    def __init__(self, bands: int = 42, rows: int = 3, seed: int = 0) -> None:
        if bands < 1 or rows < 1:
            raise ConfigError("a signature needs bands and rows", got=f"{bands} bands of {rows}")
        self.bands, self.rows = bands, rows
        random = np.random.default_rng(seed)
        self._factors = random.integers(0, 2**32, bands * rows, dtype=np.uint32) | np.uint32(1)
        self._terms = random.integers(0, 2**32, bands * rows, dtype=np.uint32)

    def probability(self, similarity: float) -> float:
        """Return how likely two documents of a similarity become candidates."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    def signatures(self, sets: ShingleSets) -> NDArray[np.uint32]:
        """Return (N, P) minima; of a document without words all are the greatest number."""
        result = np.full((len(sets), self.bands * self.rows), 0xFFFFFFFF, np.uint32)
        filled = np.flatnonzero(np.diff(sets.offsets))
        # Whole documents a chunk; one that is longer than a chunk is a chunk of its own.
        first = 0
        while first < len(filled):
            begin = int(sets.offsets[filled[first]])
            last = int(np.searchsorted(sets.offsets[filled + 1], begin + _CHUNK, side="right"))
            last = max(last, first + 1)
            rows = filled[first:last]
            part = (sets.shingles[begin : sets.offsets[rows[-1] + 1]] >> np.uint64(32)).astype(np.uint32)
            values = part[:, None] * self._factors  # modulo 2^32, like the sum
            values += self._terms
            result[rows] = np.minimum.reduceat(values, sets.offsets[rows] - begin, axis=0)
            first = last
        return result

    def candidates(self, index: NDArray[np.uint32], queries: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return (M, 2) pairs (row of ``queries``, row of ``index``) with an equal band, sorted, each once.

        Rows without words are no candidates.
        """
        here, there = (np.flatnonzero((s != 0xFFFFFFFF).any(axis=1)) for s in (queries, index))
        codes = [np.zeros(0, np.int64)]
        for band in range(self.bands):
            columns = slice(band * self.rows, (band + 1) * self.rows)
            wanted, known = self._band(queries[here, columns]), self._band(index[there, columns])
            order = np.argsort(known, kind="stable")
            low = np.searchsorted(known[order], wanted, side="left")
            counts = np.searchsorted(known[order], wanted, side="right") - low
            rows = np.repeat(np.arange(len(wanted)), counts)
            within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            matches = order[np.repeat(low, counts) + within]
            codes.append(np.unique(here[rows] * len(index) + there[matches]))
        found = np.unique(np.concatenate(codes))
        return np.stack([found // max(len(index), 1), found % max(len(index), 1)], axis=1)

    def find(self, index: ShingleSets, queries: ShingleSets, threshold: float) -> tuple[Offsets, NDArray[np.float64]]:
        """Return for each document of ``queries`` the most similar one of ``index`` and the exact similarity.

        Returns:
            (N,) row of ``index``, -1 where none is at least ``threshold`` similar, and (N,) Jaccard similarities, 0
            there.
        """
        pairs = self.candidates(self.signatures(index), self.signatures(queries))
        best, similarity = np.full(len(queries), -1, np.int64), np.zeros(len(queries))
        for (query, other), value in zip(pairs.tolist(), jaccard(queries, index, pairs).tolist(), strict=True):
            if value >= threshold and value > similarity[query]:
                best[query], similarity[query] = other, value
        return best, similarity

    def _band(self, part: NDArray[np.uint32]) -> Hashes:
        key = np.zeros(len(part), np.uint64)
        for column in range(part.shape[1]):
            key = _mix(key ^ part[:, column].astype(np.uint64))
        return key


def jaccard(left: ShingleSets, right: ShingleSets, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (M,) exact Jaccard similarities of (row of ``left``, row of ``right``) pairs; 0 of two empty sets."""
    result = np.zeros(len(pairs))
    for place, (a, b) in enumerate(pairs.tolist()):
        one, other = left[a], right[b]
        common = len(np.intersect1d(one, other, assume_unique=True))
        result[place] = common / max(len(one) + len(other) - common, 1)
    return result


def _mix(values: Hashes) -> Hashes:
    """Scatter 64-bit numbers, one to one (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
