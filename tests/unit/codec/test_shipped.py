"""The codec that ships: small enough, whole, and as good as the README says, on held-out text of the sample corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from largeconcept.codec import load_codec, shipped_codec
from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.metrics import bleu, xsim_error

TEST = Path(__file__).resolve().parents[3] / "examples" / "corpus" / "test"


def held_out(source: str, lang: str, count: int) -> list[str]:
    sentences: list[str] = []
    for line in (TEST / f"{source}.{lang}.jsonl").read_text(encoding="utf-8").splitlines():
        sentences += json.loads(line)["sentences"]
    return sentences[:: max(1, len(sentences) // count)][:count]


@pytest.fixture(scope="module")
def starter() -> AutoencoderCodec:
    codec = load_codec()
    assert isinstance(codec, AutoencoderCodec)
    return codec


def test_size_and_languages(starter: AutoencoderCodec) -> None:
    size = sum(path.stat().st_size for path in shipped_codec().iterdir())
    assert size <= 12 * 2**20
    assert set(starter.languages) >= {"eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn"}
    stored = json.loads((shipped_codec() / "config.json").read_text(encoding="utf-8"))
    assert stored["fingerprint"] == starter.fingerprint and stored["storage"] == "int8"
    assert stored["metadata"]["licence"] == "Apache-2.0" and stored["metadata"]["tokens_seen"] > 10_000_000


@pytest.mark.parametrize("lang", ["eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn"])
def test_sentences_come_back(starter: AutoencoderCodec, lang: str) -> None:
    sentences = held_out("libreoffice-help", lang, 24)
    concepts = starter.encode(sentences)
    written = starter.decode(concepts, lang, method="greedy")
    assert bleu(written, sentences, lang) > 15
    noise = torch.randn(concepts.shape, generator=torch.Generator().manual_seed(0))
    noisy = starter.decode(concepts + 0.2 * noise, lang, method="greedy")
    assert bleu(noisy, sentences, lang) > 10
    shuffled = starter.decode(concepts.roll(1, 0), lang, method="greedy")
    assert bleu(shuffled, sentences, lang) < 5, (
        "the score must come from the concepts, not from the style of the corpus"
    )


def test_translations_lie_together(starter: AutoencoderCodec) -> None:
    english: dict[str, list[str]] = {}
    french: dict[str, list[str]] = {}
    for table, lang in ((english, "eng_Latn"), (french, "fra_Latn")):
        for line in (TEST / f"libreoffice-help.{lang}.jsonl").read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            table[document["id"]] = document["sentences"]
    pairs = [
        (a, b)
        for key in english.keys() & french.keys()
        if len(english[key]) == len(french[key])
        for a, b in zip(english[key], french[key], strict=True)
    ]
    assert len(pairs) >= 10
    left, right = starter.encode([a for a, _ in pairs]), starter.encode([b for _, b in pairs])
    assert xsim_error(left, right) < 0.2
