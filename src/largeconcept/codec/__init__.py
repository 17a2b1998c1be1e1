"""Sentences to concepts and back: codecs, their decoding, the normalizer, and figures that judge a codec."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import CheckpointError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

CODECS = {
    "autoencoder": "largeconcept.codec.autoencoder:AutoencoderCodec",
    "external": "largeconcept.codec.external:ExternalCodec",
    "sonar": "largeconcept.codec.sonar.codec:SonarCodec",
    "toy": "largeconcept.codec.toy:ToyCodec",
}
SHIPPED = {"starter": "codec-starter", "small": "pipeline/codec"}
"""Name -> folder in ``largeconcept/assets``: four languages in 384 channels; six in 1,024, of the model that ships."""
NAMES = (*SHIPPED, "toy", "sonar", "external:use")


def shipped_codec(name: str = "starter") -> Path:
    """Return the folder of a codec that comes with the library.

    Raises:
        ConfigError: none of that name does.
    """
    if name not in SHIPPED:
        raise ConfigError("no such codec ships", where="codec", got=name, hint=did_you_mean(name, list(SHIPPED)))
    return Path(str(resources.files("largeconcept"))) / "assets" / SHIPPED[name]


def load_codec(name: str | Path = "starter", path: str | Path | None = None, **options: Any) -> ConceptCodec:
    """Load a codec.

    Args:
        name: ``starter`` or ``small`` (shipped), ``toy`` (for trying things out), ``sonar``, or the folder of a saved
            codec.
            ``sonar:PLACE`` is the same as ``sonar`` with ``path=PLACE``. ``external:NAME`` is another sentence encoder
            without a decoder, see :func:`largeconcept.codec.encoders.open_encoder`.
        path: of ``sonar``: a folder with Meta's files, a Hugging Face model, or an id on the hub.
        options: of ``sonar``: ``encoder``, ``decoder``, ``spm``, ``speech``, ``dtype``, ``device`` and others, see
            :func:`largeconcept.codec.sonar.loading.load_sonar`. Of ``external:NAME``: ``languages``, ``batch_size``,
            ``device``; of the folder of a codec with another's encoder: ``encoder``, ``device``.

    Raises:
        CheckpointError: no such folder, or its files are damaged.
        ConfigError: neither a known name nor a folder, or options that the codec does not have.
    """
    text = str(name)
    folder = Path(name)
    kind, colon, place = text.partition(":")
    files = {"encoder", "decoder"} & options.keys() or path is not None
    if kind == "sonar" and (colon or files or not folder.exists()):
        if colon and path is not None:
            raise ConfigError("two places for SONAR's files", where="codec", got=f"{text} and path={path}")
        return _load_sonar(place if colon else path, options)
    if kind == "external" and colon:
        _known_options(text, options, ("languages", "batch_size", "device"))
        from largeconcept.codec.encoders import open_encoder
        from largeconcept.codec.external import ExternalCodec

        return ExternalCodec(open_encoder(text, **options))
    if path is not None:
        raise ConfigError("only sonar has a path", where="codec", got=text, hint=f"name the folder itself: {path}")
    if text == "toy":
        _known_options(text, options)
        from largeconcept.codec.toy import ToyCodec

        return ToyCodec()
    if text in SHIPPED and not folder.exists():
        folder = shipped_codec(text)
    elif not folder.exists() and "/" not in text and "." not in text:
        raise ConfigError("unknown codec", where="codec", got=text, hint=did_you_mean(text, NAMES))
    from largeconcept.io import read_json, require_folder

    folder = require_folder(folder, "codec")
    data = read_json(folder / "config.json")
    saved = data.get("type") if isinstance(data, dict) else None
    if saved not in CODECS:
        raise CheckpointError("not a saved codec", where=folder / "config.json", got=saved, expected=", ".join(CODECS))
    if saved == "sonar":
        return _load_sonar(folder, options)
    _known_options(text, options, ("encoder", "device") if saved == "external" else ())
    module, _, attribute = CODECS[saved].partition(":")
    cls: Any = getattr(import_module(module), attribute)
    codec: ConceptCodec = cls.from_pretrained(folder, **options)
    return codec


def _load_sonar(path: str | Path | None, options: dict[str, Any]) -> ConceptCodec:
    from inspect import signature

    from largeconcept.codec.sonar.codec import SonarCodec
    from largeconcept.codec.sonar.loading import load_sonar

    known = [*signature(load_sonar).parameters, *signature(SonarCodec).parameters]
    for option in options:
        if option not in known or option in ("path", "tokenizer", "space", "metadata", "options"):
            raise ConfigError("unknown option", where="codec sonar", got=option, hint=did_you_mean(option, known))
    return load_sonar(path or None, **options)


def _known_options(name: str, options: dict[str, Any], known: Sequence[str] = ()) -> None:
    if options and not known:
        raise ConfigError("the codec has no options", where="codec", got=f"{name} with {', '.join(options)}")
    for option in options:
        if option not in known:
            raise ConfigError("unknown option", where=f"codec {name}", got=option, hint=did_you_mean(option, known))
