"""Sentences to concepts and back: codecs, their decoding, the normalizer, and figures that judge a codec."""

from __future__ import annotations

from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import CheckpointError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

CODECS = {
    "autoencoder": "largeconcept.codec.autoencoder:AutoencoderCodec",
    "toy": "largeconcept.codec.toy:ToyCodec",
}
SHIPPED = ("starter",)


def shipped_codec(name: str = "starter") -> Path:
    """Return the folder of a codec that comes with the library."""
    return Path(str(resources.files("largeconcept"))) / "assets" / f"codec-{name}"


def load_codec(name: str | Path = "starter") -> ConceptCodec:
    """Load a codec: ``starter`` (shipped), ``toy`` (for trying things out), or the folder of a saved codec.

    Raises:
        CheckpointError: no such folder, or its files are damaged.
        ConfigError: neither a known name nor a folder.
    """
    text = str(name)
    folder = Path(name)
    if text == "toy":
        from largeconcept.codec.toy import ToyCodec

        return ToyCodec()
    if text in SHIPPED and not folder.exists():
        folder = shipped_codec(text)
    elif not folder.exists() and "/" not in text and "." not in text:
        raise ConfigError("unknown codec", where="codec", got=text, hint=did_you_mean(text, [*SHIPPED, "toy"]))
    from largeconcept.io import read_json, require_folder

    folder = require_folder(folder, "codec")
    data = read_json(folder / "config.json")
    kind = data.get("type") if isinstance(data, dict) else None
    if kind not in CODECS:
        raise CheckpointError("not a saved codec", where=folder / "config.json", got=kind, expected=", ".join(CODECS))
    module, _, attribute = CODECS[kind].partition(":")
    cls: Any = getattr(import_module(module), attribute)
    codec: ConceptCodec = cls.from_pretrained(folder)
    return codec
