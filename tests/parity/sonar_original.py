"""What the original SONAR answered (tests/parity/sonar/make_fixtures.py), and our networks with its weights."""

import functools
import gzip
import json
from pathlib import Path

import torch

from largeconcept.codec.sonar.layouts import HalfWeights, config_of, read_half
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.io import load_strict, read_safetensors

FOLDER = Path(__file__).parent / "sonar"
HEADS, MAX_TOKENS = 4, 64


@functools.cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    """Inputs and outputs of a file."""
    return read_safetensors(FOLDER / f"{name}.safetensors")


def weights(name: str, prefix: str) -> dict[str, torch.Tensor]:
    """A state dict of the original under its own names, in float32; a fresh copy."""
    found = {
        key.removeprefix(f"{prefix}/"): tensor.float() if tensor.is_floating_point() else tensor.clone()
        for key, tensor in tensors(name).items()
        if key.startswith(f"{prefix}/")
    }
    assert found
    return found


def half_file(prefix: str, name: str = "network") -> dict[str, dict[str, torch.Tensor]]:
    """What one of Meta's files of a text network holds; its output matrix is the table, under two names."""
    model = weights(name, prefix)
    if prefix.startswith("decoder"):
        model["final_proj.weight"] = model["decoder_frontend.embed.weight"]
    return {"model": model}


def read(prefix: str) -> HalfWeights:
    return read_half(half_file(prefix), "encoder" if prefix == "encoder" else "decoder")


def encoder() -> SonarEncoder:
    found = read("encoder")
    network = SonarEncoder(config_of(found, "fixture", num_heads=HEADS, max_tokens=MAX_TOKENS))
    load_strict(network, found.live, "fixture")
    return network.eval().requires_grad_(False)


@functools.cache
def decoder(number: int = 0) -> SonarDecoder:
    found = read(f"decoder{number}")
    network = SonarDecoder(config_of(found, "fixture", num_heads=HEADS, max_tokens=MAX_TOKENS))
    load_strict(network, found.live, "fixture")
    return network.eval().requires_grad_(False)


def tokenizer_model() -> bytes:
    """The SentencePiece file."""
    return gzip.decompress((FOLDER / "tokenizer.model.gz").read_bytes())


@functools.cache
def records(name: str) -> dict:
    """A JSON file."""
    return json.loads((FOLDER / f"{name}.json").read_text())
