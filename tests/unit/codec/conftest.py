"""A tiny random codec shared by the codec tests."""

from __future__ import annotations

import pytest
import torch

from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.codec.tokenizer import Tokenizer

WORDS = ["the", "old", "tower", "stands", "near", "a", "river", "where", "seven", "boats", "wait", "for", "rain"]
WORDS += ["and", "nobody", "speaks", "of", "winter", "any", "more"]


def sentences(count: int) -> list[str]:
    generator = torch.Generator().manual_seed(5)
    made = []
    for _ in range(count):
        length = int(torch.randint(3, 12, (1,), generator=generator))
        picks = torch.randint(0, len(WORDS), (length,), generator=generator).tolist()
        made.append(" ".join(WORDS[i] for i in picks).capitalize() + ".")
    return made


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(sentences(400), vocab_size=320)


@pytest.fixture(scope="session")
def tiny_config() -> AutoencoderConfig:
    return AutoencoderConfig(
        dim=16,
        width=32,
        num_heads=2,
        vocab_size=320,
        max_tokens=24,
        encoder_layers=2,
        decoder_layers=2,
        pooling_heads=2,
        memory_tokens=3,
    )


@pytest.fixture
def codec(tokenizer: Tokenizer, tiny_config: AutoencoderConfig) -> AutoencoderCodec:
    torch.manual_seed(0)
    return AutoencoderCodec(AutoencoderNetwork(tiny_config), tokenizer, {"note": "random"})
