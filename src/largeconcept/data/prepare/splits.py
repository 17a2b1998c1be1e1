"""Which documents are held out, decided by the hash of a key that all translations of a document share.

A document's key is ``source/id``. The same chapter of several Bible translations has one key: there, what stands before
the colon of the id (the translation) does not count. With ``h = int(sha1(key))``:

* ``h % 80 == 13``: test; nothing is trained on it, and nothing is chosen by it.
* ``h % 80 == 53``: validation. Both together are ``h % 40 == 13``, which is also the test part of the sample corpus.
* ``int(sha1(source/id)) % 50 == 7``: reserved, for judging by others; neither trained on nor reported.
* all others: training.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from largeconcept.errors import DataError

Split = Literal["train", "validation", "test", "reserved"]
HELD_OUT: tuple[Split, ...] = ("validation", "test")

# Sources whose ids name a translation before a colon: the key is what stands behind it.
_MANY_TRANSLATIONS = frozenset({"bible"})
_LETTERS = re.compile(
    # Characters of languages written without spaces stand for themselves, so that shingles of them mean something.
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_]+"
)


def document_key(source: str | None, id: str) -> str:
    """Return the key of a document, the same for all its windows and translations.

    >>> document_key("bible", "engWEB2015eb:Genesis 1")
    'bible/Genesis 1'
    """
    if source in _MANY_TRANSLATIONS:
        id = id.split(":", 1)[-1]
    return f"{source or ''}/{id}"


def split_of(source: str | None, id: str) -> Split:
    """Return the part that a document belongs to; see the module for the rule."""
    if _hash(f"{source or ''}/{id}") % 50 == 7:
        return "reserved"
    return split_of_key(document_key(source, id))


def split_of_key(key: str) -> Split:
    """Return the part of a key, reserved documents aside: their rule needs the whole id."""
    rest = _hash(key) % 80
    return "test" if rest == 13 else "validation" if rest == 53 else "train"


def words_of(text: str) -> list[str]:
    """Return what is compared of a text: its runs of letters, small; digits and marks do not count.

    Characters of languages without spaces are words of their own. The text may be in any Unicode normal form.
    """
    return _LETTERS.findall(unicodedata.normalize("NFC", text).lower())


def checksum(keys: Iterable[str]) -> str:
    """Return the SHA-256 of the sorted, distinct keys, one a line: what ``sha256sum`` says of a file of them."""
    return hashlib.sha256("".join(f"{key}\n" for key in sorted(set(keys))).encode()).hexdigest()


def check_keys(keys: Iterable[str], split: Split) -> None:
    """Check that published keys follow the rule.

    Raises:
        DataError: names the first key that belongs to another part.
    """
    for key in keys:
        found = split_of_key(key)
        if found != split:
            raise DataError("a document of another part", where=f"key {key}", expected=split, got=found)


def _hash(key: str) -> int:
    return int(hashlib.sha1(key.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest(), 16)
