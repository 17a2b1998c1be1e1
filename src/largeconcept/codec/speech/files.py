"""Files of speech encoders: Meta's ``spenc.*.pt`` in, a folder of ours out and in, and Meta's layout again.

A saved speech encoder is a folder with ``config.json``, ``model.safetensors`` and, so that nothing published is lost,
``dead.safetensors``; ``README.md`` names language and licence. Nothing is ever unpickled but tensors and plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from largeconcept.codec.sonar.files import DTYPES, Dtype, announce_licence, torch_dtype
from largeconcept.codec.speech.encoder import MAX_SECONDS, SonarSpeechEncoder, SonarSpeechEncoderConfig, encode_audio
from largeconcept.codec.speech.languages import (
    LANGUAGES,
    NON_COMMERCIAL,
    SpeechLanguage,
    language_of_file,
    speech_language,
)
from largeconcept.codec.speech.layouts import Layout, SpeechWeights, check_shapes, from_published, to_published
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import (
    atomic_path,
    atomic_write_text,
    check_format_version,
    fingerprint,
    read_json,
    read_safetensors,
    read_torch,
    stream_safetensors,
    write_json,
)

FORMAT_VERSION = 1
TYPE = "sonar_speech_encoder"
DEAD_FILE = "dead.safetensors"

_STATISTICS = ("running_mean", "running_var")  # of BatchNorm: small, and factors are computed from them


@dataclass(slots=True)
class SpeechEncoder:
    """A speech encoder and what is known about it.

    Attributes:
        network: in evaluation mode.
        language: that it hears; ``None`` if neither its file nor the caller said.
        licence: of its weights.
        fingerprint: of its weights as they were published; ``None`` where it was not computed.
    """

    network: SonarSpeechEncoder
    language: SpeechLanguage | None = None
    licence: str = NON_COMMERCIAL
    fingerprint: str | None = None

    @property
    def dim(self) -> int:
        """C, the channels of a concept."""
        return self.network.config.concept_dim

    def encode(
        self,
        audio: Sequence[Tensor],
        *,
        batch_frames: int = 4096,
        max_seconds: float = MAX_SECONDS,
        on_long: Literal["warn", "error"] = "warn",
    ) -> Tensor:
        """Return concepts (N, C) float32; see :func:`largeconcept.codec.speech.encoder.encode_audio`."""
        return encode_audio(self.network, audio, batch_frames=batch_frames, max_seconds=max_seconds, on_long=on_long)

    def to(self, device: str | torch.device) -> SpeechEncoder:
        """Move the network to a device."""
        self.network.to(device)
        return self

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return "SONAR's speech encoder" + ("" if self.language is None else f" for {self.language.name}")


def load_speech_encoder(
    path: str | Path,
    *,
    lang: str | None = None,
    dtype: Dtype = "auto",
    device: str | torch.device = "cpu",
    num_pooler_heads: int | None = None,
) -> SpeechEncoder:
    """Load a speech encoder.

    Weights are mapped from the file and never held twice: a page of it is read when the network first uses it. If they
    are not free for every use, a warning says so, once in a process.

    Args:
        path: a published file (``spenc.v3ap.fra.pt``, either layout; or its tensors in ``.safetensors``), or a folder
            of :func:`convert_speech_encoder`.
        lang: that it hears; by default what the name of the file, or the folder, says.
        dtype: of the weights; ``auto`` is the stored one. BatchNorm's statistics are float32 in any case.
        device: where to put it.
        num_pooler_heads: see :func:`largeconcept.codec.speech.layouts.from_published`.

    Raises:
        CheckpointError: no such file, damaged, another network (as SONAR's text encoder), or weights that do not fit.
        LanguageError: ``lang`` is no language that SONAR hears.
        ConfigError: an unknown ``dtype``.
    """
    wanted = torch_dtype(dtype)
    found = _open(path, lang, num_pooler_heads)
    live = found.weights.live
    if wanted is None:  # one type for all, which one that nobody computes with is not
        stored = live["feature_projection.projection.weight"].dtype
        wanted = stored if stored in DTYPES.values() else torch.float32
    with torch.device("meta"):
        network = SonarSpeechEncoder(found.weights.config)
    network.load_state_dict({name: _cast(name, tensor, wanted) for name, tensor in live.items()}, assign=True)
    network.eval().to(device)
    encoder = SpeechEncoder(network, found.language, found.licence, found.fingerprint)
    announce_licence(f"The weights of {encoder.title}", found.licence)
    return encoder


def read_published(path: str | Path, *, num_pooler_heads: int | None = None) -> SpeechWeights:
    """Read a published file under our names, without copying its tensors.

    Raises:
        CheckpointError: as :func:`load_speech_encoder`.
    """
    path = Path(path)
    data = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    return from_published(data, where=path, num_pooler_heads=num_pooler_heads)


def convert_speech_encoder(
    source: str | Path | SpeechEncoder, folder: str | Path, *, lang: str | None = None, dtype: Dtype = "auto"
) -> dict[str, Any]:
    """Write a speech encoder as a folder of ours, one tensor after the other, and return its configuration.

    Args:
        source: a published file, a folder of this function, or a loaded encoder, which has lost its dead weights.
        folder: made if it is missing; ``config.json`` comes last. It may be the source itself.
        lang: that it hears; by default what the source says.
        dtype: to store the weights in. In 16 bits the file is half as large and cannot be turned back exactly.

    Raises:
        CheckpointError, LanguageError, ConfigError: as :func:`load_speech_encoder`; also if no language is known.
    """
    wanted, folder = torch_dtype(dtype), Path(folder)
    found = _open(source, lang)
    if found.language is None:
        raise ConfigError(
            "which language the encoder hears is not known",
            where=found.name,
            expected="a name like spenc.v3ap.fra.pt, or the language",
        )
    live, dead, mark = found.weights.live, found.weights.dead, found.fingerprint
    if mark is None and not isinstance(source, SpeechEncoder):  # a loaded one may have been rounded
        mark = fingerprint(live)
    stored = {name: (_kept(name, tensor, wanted), tuple(tensor.shape)) for name, tensor in live.items()}
    stream_safetensors(folder / "model.safetensors", stored, lambda name: _cast(name, live[name], wanted))
    (folder / DEAD_FILE).unlink(missing_ok=True)
    if dead:
        shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in dead.items()}
        stream_safetensors(folder / DEAD_FILE, shapes, dead.__getitem__)
    known = {
        "type": TYPE,
        "format_version": FORMAT_VERSION,
        "network": found.weights.config.to_dict(),
        "lang": found.language.code,
        "licence": found.licence,
        "source": found.name,
        "layout": found.weights.layout,
        "fingerprint": mark,
    }
    atomic_write_text(folder / "README.md", _card(found.language, found.licence, found.name))
    write_json(folder / "config.json", known)
    return known


def export_speech_encoder(folder: str | Path, out: str | Path, *, layout: Layout | None = None) -> dict[str, Tensor]:
    """Write a converted speech encoder as Meta publishes it, ``{"model": …}``, and return the tensors.

    Args:
        folder: of :func:`convert_speech_encoder`.
        out: a ``.pt`` file.
        layout: by default that of the file it was made from; the result then equals that file, tensor by tensor.

    Raises:
        CheckpointError: not such a folder.
        ConfigError: another ending or layout.
    """
    folder, out = Path(folder), Path(out)
    if out.suffix != ".pt":
        raise ConfigError("unknown kind of file", where=out, expected="a name that ends in .pt")
    weights = _open_folder(folder, None).weights
    tensors = to_published(weights.live, weights.dead, layout=layout or weights.layout)
    with atomic_path(out) as temporary:
        torch.save({"model": tensors}, temporary)
    return tensors


@dataclass(slots=True)
class _Opened:
    """A speech encoder that was read but is not in a module; ``name`` is that of the file as it was published."""

    weights: SpeechWeights
    language: SpeechLanguage | None
    licence: str
    fingerprint: str | None
    name: str


def _open(source: str | Path | SpeechEncoder, lang: str | None, num_pooler_heads: int | None = None) -> _Opened:
    language = None if lang is None else speech_language(lang)
    if isinstance(source, SpeechEncoder):
        weights = SpeechWeights(source.network.config, "fairseq2", dict(source.network.state_dict()))
        return _Opened(weights, language or source.language, source.licence, source.fingerprint, "a loaded encoder")
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, language)
    weights = read_published(path, num_pooler_heads=num_pooler_heads)
    return _Opened(weights, language or language_of_file(path.name), _licence(path.name), None, path.name)


def _open_folder(folder: Path, language: SpeechLanguage | None) -> _Opened:
    place = folder / "config.json"
    known = read_json(place)
    if not isinstance(known, dict) or known.get("type") != TYPE or "network" not in known:
        got = known.get("type") if isinstance(known, dict) else type(known).__name__
        raise CheckpointError("not a saved speech encoder", where=place, got=got, expected=TYPE)
    version, layout, code = known.get("format_version"), known.get("layout"), known.get("lang")
    check_format_version(version, FORMAT_VERSION, place)
    if layout not in ("fairseq2", "fairseq"):
        raise CheckpointError("damaged", where=f"{place}: layout", got=layout, expected="fairseq2 or fairseq")
    if code not in LANGUAGES:
        raise CheckpointError("not a language that SONAR hears", where=f"{place}: lang", got=code)
    config = SonarSpeechEncoderConfig.from_dict(known["network"], where=str(place))
    live = read_safetensors(folder / "model.safetensors")
    check_shapes(live, config, folder / "model.safetensors")
    dead = read_safetensors(folder / DEAD_FILE) if (folder / DEAD_FILE).is_file() else {}
    licence, mark = known.get("licence"), known.get("fingerprint")
    return _Opened(
        SpeechWeights(config, layout, live, dead),
        language or LANGUAGES[code],
        licence if isinstance(licence, str) else NON_COMMERCIAL,
        mark if isinstance(mark, str) else None,
        str(known.get("source", folder.name)),
    )


def _licence(name: str) -> str:
    """A licence belongs to a published file; one under another name is counted as non-commercial."""
    known = language_of_file(name)
    return known.licence if known is not None and Path(known.file).stem == Path(name).stem else NON_COMMERCIAL


def _card(language: SpeechLanguage, licence: str, source: str) -> str:
    tag = "mit" if licence == "MIT" else "cc-by-nc-4.0"
    return (
        f"---\nlicense: {tag}\nlibrary_name: largeconcept\n---\n\n"
        f"# SONAR's speech encoder for {language.name}\n\n"
        f"Weights by Meta, from `{source}` (published at {language.address}), under {licence}. They turn one spoken "
        "sentence (16 kHz, at most about 30 seconds) into a concept of SONAR's space.\n"
    )


def _kept(name: str, tensor: Tensor, wanted: torch.dtype | None) -> torch.dtype:
    if wanted is None:
        return tensor.dtype
    return torch.float32 if name.endswith(_STATISTICS) else wanted


def _cast(name: str, tensor: Tensor, wanted: torch.dtype | None) -> Tensor:
    return tensor.to(_kept(name, tensor, wanted))


__all__ = [
    "FORMAT_VERSION",
    "SpeechEncoder",
    "convert_speech_encoder",
    "export_speech_encoder",
    "load_speech_encoder",
    "read_published",
]
