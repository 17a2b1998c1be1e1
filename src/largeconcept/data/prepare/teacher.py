"""Translation pairs judged by a sentence encoder: how near are the two sentences in its space?

Letters: P pairs, C dimension of the encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from largeconcept.data.pairs import SourcedPair
from largeconcept.io import atomic_path

if TYPE_CHECKING:
    from largeconcept.codec.encoders import ExternalEncoder

CHUNK = 4096
"""Pairs scored between two saves."""


def cosines_of(
    encoder: ExternalEncoder,
    pairs: Sequence[SourcedPair],
    folder: str | Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """Return the cosine of the two vectors of each pair.

    Pairs are taken in the order of their English sentence, so one that has many translations is encoded once.

    Args:
        encoder: gives vectors.
        pairs: P pairs. Those in a language that the encoder does not read get NaN.
        folder: keeps what is done; a call with the same pairs and the same encoder goes on there.
        progress: called with (done, total) pairs.

    Returns:
        (P,) float32.
    """
    known = frozenset(encoder.languages)
    rows = [i for i, pair in enumerate(pairs) if not known or {"eng_Latn", pair.lang} <= known]
    rows.sort(key=lambda i: (pairs[i].english, pairs[i].other))
    result = np.full(len(pairs), np.nan, np.float32)
    path = None if folder is None else Path(folder) / f"cosines-{_key(encoder, pairs, rows)}.npy"
    done = np.load(path) if path is not None and path.is_file() else np.zeros(0, np.float32)
    result[rows[: len(done)]] = done
    for start in range(len(done), len(rows), CHUNK):
        if progress is not None:
            progress(start, len(rows))
        part = rows[start : start + CHUNK]
        texts = list(dict.fromkeys(text for i in part for text in (pairs[i].english, pairs[i].other)))
        place = {text: number for number, text in enumerate(texts)}
        vectors = encoder.encode(texts).numpy()
        left = vectors[[place[pairs[i].english] for i in part]]
        right = vectors[[place[pairs[i].other] for i in part]]
        result[part] = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
        if path is not None:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, result[rows[: start + len(part)]])
    if progress is not None:
        progress(len(rows), len(rows))
    return result


def _key(encoder: ExternalEncoder, pairs: Sequence[SourcedPair], rows: Sequence[int]) -> str:
    digest = hashlib.sha256(f"{encoder.fingerprint}\n".encode())
    for i in rows:
        digest.update(f"{pairs[i].english}\t{pairs[i].other}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
