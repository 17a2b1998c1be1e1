"""A segmenter and codecs whose vectors say what they encode, and a function that builds a dataset from sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from largeconcept.data.build import BuildReport, build_concepts
from largeconcept.types import Span


class DotSegmenter:
    """A sentence ends with a full stop; a blank line ends a paragraph; a sentence has at most 40 characters."""

    def segment(self, text: str, lang: str | None = None) -> list[Span]:
        pieces = re.finditer(r"\S[^.]{0,38}\.?", text)
        return [Span(m.start(), m.end(), text.count("\n\n", 0, m.start())) for m in pieces]

    def describe(self) -> dict[str, Any]:
        return {"type": "dots"}


class NumberCodec:
    """The sentence ``"3 1 4"`` is the vector (3, 1, 4, 0, …); other sentences are their length in the last channel.

    Attributes:
        calls: what ``encode`` was asked for, as (sentences, languages).
    """

    languages = ("eng_Latn",)

    def __init__(self, dim: int = 4, fingerprint: str = "feedfacefeedface") -> None:
        self.dim, self.fingerprint = dim, fingerprint
        self.calls: list[tuple[list[str], Any]] = []

    def encode(self, sentences: Sequence[str], lang: Any = None, *, batch_tokens: int = 8192) -> torch.Tensor:
        self.calls.append((list(sentences), lang))
        result = np.zeros((len(sentences), self.dim), dtype=np.float32)
        for row, sentence in zip(result, sentences):
            words = sentence.split()
            if all(re.fullmatch(r"-?\d+", word) for word in words):
                row[: len(words)] = [float(word) for word in words]
            else:
                row[-1] = -len(sentence)
        return torch.from_numpy(result)


@pytest.fixture
def segmenter() -> DotSegmenter:
    return DotSegmenter()


@pytest.fixture
def make_codec() -> type[NumberCodec]:
    return NumberCodec


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(documents: Sequence[Any], name: str = "corpus.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(document) + "\n" for document in documents))
        return path

    return write


@pytest.fixture
def make_dataset(tmp_path: Path, write_jsonl: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that builds documents "d0", "d1", … of given lengths; vectors: (document, sentence, 1, …)."""

    def make(lengths: Sequence[int], name: str = "data", targets: Sequence[int] | None = None, **keywords: Any) -> Path:
        documents: list[dict[str, Any]] = []
        for number, length in enumerate(lengths):
            sentences = [f"{number} {i} 1" for i in range(length)]
            documents.append({"id": f"d{number}", "sentences": sentences})
            if targets is not None:
                documents[-1]["target_sentences"] = [f"{number} {i} 2" for i in range(targets[number])]
        path = write_jsonl(documents, f"{name}.jsonl")
        settings: dict[str, Any] = {"codec": NumberCodec(), "segmenter": DotSegmenter(), **keywords}
        if targets is not None:
            settings["target"] = "target_sentences"
        report = build_concepts(path, tmp_path / name, **settings)
        assert isinstance(report, BuildReport)
        return tmp_path / name

    return make
