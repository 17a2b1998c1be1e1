"""From files to a :class:`SonarCodec` and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from largeconcept.codec.sonar.codec import SonarCodec, SpeechSources
from largeconcept.codec.sonar.config import SonarDecoderConfig
from largeconcept.codec.sonar.files import (
    LICENCE,
    META_FILES,
    Dtype,
    OpenedHalf,
    announce_licence,
    build,
    find,
    folder_kind,
    local,
    open_half,
    tokenizer_beside,
    torch_dtype,
)
from largeconcept.codec.sonar.folder import (
    SPEECH_FOLDER,
    StoredHalf,
    digest,
    read_config,
    read_dead,
    read_tokenizer,
    space_fingerprint,
    write_folder,
)
from largeconcept.codec.sonar.layouts import Half
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.codec.sonar.onnx import TOKENIZER, SonarOnnxEncoder, is_exported
from largeconcept.codec.sonar.tokenizer import SonarTokenizer
from largeconcept.codec.speech.encoders import SpeechEncoders, by_code
from largeconcept.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def load_sonar(
    path: str | Path | None = None,
    *,
    encoder: str | Path | Literal[False] | None = None,
    decoder: str | Path | Literal[False] | None = None,
    spm: str | Path | None = None,
    speech: SpeechSources | None = None,
    dtype: Dtype = "auto",
    device: str | torch.device = "cpu",
    num_heads: int | None = None,
    **options: Any,
) -> SonarCodec:
    """Load SONAR from Meta's files, from Hugging Face ports, or from a saved folder.

    Args:
        path: a folder, or an id on the hub, with encoder, decoder and tokenizer, or with some of them; or the folder
            of an exported encoder.
        encoder, decoder: a file, folder or id of one half, instead of the one in ``path``; ``False`` for none. The
            encoder may be the folder of an exported one (:mod:`largeconcept.codec.sonar.onnx`).
        spm: the SentencePiece file; by default the one in ``path``, or beside encoder or decoder.
        speech: published files or saved folders of speech encoders by language, besides those in ``path``.
        dtype: type of the weights in memory; ``auto`` is the type that is stored.
        device: where to put the networks.
        num_heads: of networks that are not of the released size and whose files do not say it.
        options: of :class:`SonarCodec`.

    Raises:
        CheckpointError: a file is missing, damaged, of another network, or does not fit the others.
        DependencyError: an id on the hub was named, and huggingface_hub is not installed.
        ConfigError: nothing was named, or an unknown ``dtype``.
    """
    exported = None
    if encoder is None and is_exported(path):
        path, encoder = None, path
    if encoder and is_exported(encoder):
        exported, encoder = SonarOnnxEncoder(encoder), False
        spm = exported.folder / TOKENIZER if spm is None else spm
    if exported is not None and path is None and not decoder:
        tokenizer = _tokenizer(None, None, spm, {})
        halves: dict[Half, OpenedHalf] = {}
        sources: Mapping[str, Any] = by_code(speech)
    else:
        halves, tokenizer, sources = read_sonar(
            path, encoder=encoder, decoder=decoder, spm=spm, speech=speech, num_heads=num_heads
        )
    wanted = torch_dtype(dtype)
    space, metadata = known_space(halves, tokenizer), known_facts(halves)
    if exported is not None:
        space, metadata = exported.space, metadata | exported.metadata
    announce_licence("SONAR's text weights", metadata.get("licence"))
    if space is None and "encoder" in halves and wanted not in (None, halves["encoder"].dtype):
        # The published weights are looked at again, should somebody ask: rounded ones are no fingerprint.
        space = _later(halves["encoder"].path, halves["encoder"].config.num_heads, tokenizer)
    networks = {half: build(opened, wanted) for half, opened in halves.items()}
    first, second = exported or networks.get("encoder"), networks.get("decoder")
    assert first is None or isinstance(first, SonarEncoder)
    assert second is None or isinstance(second, SonarDecoder)
    heard = SpeechEncoders(sources, dtype=dtype, device=device, dim=next(map(_dim, halves.values()), None))
    codec = SonarCodec(first, second, tokenizer, speech=heard, space=space, metadata=metadata, **options)
    codec.dead = {half: opened.weights.dead for half, opened in halves.items()}
    codec.sources = {half: source_of(half, opened) for half, opened in halves.items()}
    return codec.to(device)


def read_sonar(
    path: str | Path | None = None,
    *,
    encoder: str | Path | Literal[False] | None = None,
    decoder: str | Path | Literal[False] | None = None,
    spm: str | Path | None = None,
    speech: SpeechSources | None = None,
    num_heads: int | None = None,
) -> tuple[dict[Half, OpenedHalf], SonarTokenizer, dict[str, Any]]:
    """Find and open everything that :func:`load_sonar` was given: halves, tokenizer, and speech encoders by language.

    Raises:
        CheckpointError, DependencyError, ConfigError: as :func:`load_sonar`.
    """
    folder = None if path is None else local(path)
    found = None if folder is None else find(folder)
    places: dict[Half, str | Path] = {}
    given: tuple[tuple[Half, str | Path | Literal[False] | None], ...] = (("encoder", encoder), ("decoder", decoder))
    for half, named in given:
        place = getattr(found, half, None) if named is None else named
        if place:
            places[half] = place
    sources = {**(found.speech if found else {}), **by_code(speech)}
    if not places and not sources:
        raise ConfigError("no weights were named", where="SONAR", expected="path=FOLDER, or encoder=FILE, decoder=FILE")
    halves = {half: open_half(place, half, num_heads=num_heads) for half, place in places.items()}
    for half, opened in halves.items():
        if _own_config(opened) is not None:
            opened.weights.dead = read_dead(opened.path.parent)[half]
    tokenizer = _tokenizer(folder, found.tokenizer if found else None, spm, places)
    for half, opened in halves.items():
        if opened.config.vocab_size != tokenizer.vocab_size:
            raise CheckpointError(
                f"the table of the {half} has another size than the tokenizer says",
                where=opened.path,
                expected=f"{tokenizer.vocab_size} rows ({tokenizer.num_pieces} pieces, "
                f"{len(tokenizer.languages)} languages)",
                got=opened.config.vocab_size,
            )
    return halves, tokenizer, sources


def known_space(halves: Mapping[Half, OpenedHalf], tokenizer: SonarTokenizer) -> str | Callable[[], str] | None:
    """Return the space that a saved folder says its encoder has, or its decoder where there is no encoder."""
    for opened in halves.values():  # the encoder comes first
        own = _own_config(opened)
        return own.get("space") if own and own.get("tokenizer") == digest(tokenizer) else None
    return None


def known_facts(halves: Mapping[Half, OpenedHalf]) -> dict[str, Any]:
    """Return metadata of the folders that halves are from; what was published elsewhere has Meta's licence."""
    facts: dict[str, Any] = {}
    for opened in halves.values():
        own = _own_config(opened)
        licence = LICENCE if own is None else own.get("licence")
        facts |= (own or {}).get("metadata", {})
        if licence:
            facts["licence"] = licence
    return facts


def source_of(half: Half, opened: OpenedHalf) -> dict[str, str]:
    """Return where a half was first published: what its folder says, or its file."""
    own = _own_config(opened)
    if own is not None:
        return dict(own["sources"].get(half, {}))
    return {"file": opened.path.name, "layout": opened.weights.layout}


def save_sonar(codec: SonarCodec, path: str | Path, dtype: Dtype = "auto") -> str | None:
    """Write a codec; see :meth:`SonarCodec.save_pretrained`."""
    folder = Path(path)
    halves = {
        half: StoredHalf(network.config, network.state_dict(), codec.dead.get(half, {}), codec.sources.get(half, {}))
        for half, network in codec.halves.items()
    }
    speech = write_speech(codec.speech.sources, folder, dtype)
    metadata = dict(codec.metadata)
    licence = metadata.pop("licence", None)
    write_folder(
        folder,
        halves,
        codec.tokenizer,
        space=codec.space,
        dtype=torch_dtype(dtype),
        licence=licence,
        metadata=metadata,
        speech=speech,
    )
    return codec.space


def write_speech(sources: SpeechSources, folder: Path, dtype: Dtype) -> dict[str, dict[str, Any]]:
    """Write speech encoders into ``folder/speech`` and return what is known of each, by code."""
    from largeconcept.codec.speech.files import convert_speech_encoder

    written = {}
    for code, source in by_code(sources).items():
        known = convert_speech_encoder(source, folder / SPEECH_FOLDER / code, lang=code, dtype=dtype)
        written[code] = {"licence": known["licence"], "fingerprint": known["fingerprint"]}
    return written


def _tokenizer(
    folder: Path | None, found: Path | None, spm: str | Path | None, places: Mapping[Half, str | Path]
) -> SonarTokenizer:
    if spm is not None:
        return SonarTokenizer.from_file(local(spm))
    if found is None:
        found = next((beside for place in places.values() if (beside := tokenizer_beside(place)) is not None), None)
    if found is None:
        raise CheckpointError(
            "no SentencePiece file",
            where=folder or next(iter(places.values()), "SONAR"),
            expected=META_FILES["tokenizer"][0],
            hint="name it: spm=FILE",
        )
    if folder_kind(found.parent) == "sonar":
        return read_tokenizer(found.parent, read_config(found.parent))
    return SonarTokenizer.from_file(found)


def _own_config(opened: OpenedHalf) -> dict[str, Any] | None:
    own = opened.weights.layout == "largeconcept" and folder_kind(opened.path.parent) == "sonar"
    return read_config(opened.path.parent) if own else None


def _dim(opened: OpenedHalf) -> int:
    config = opened.config
    return config.concept_dim if isinstance(config, SonarDecoderConfig) else config.width


def _later(path: Path, num_heads: int, tokenizer: SonarTokenizer) -> Callable[[], str]:
    def find_out() -> str:
        live: Mapping[str, Tensor] = open_half(path, "encoder", num_heads=num_heads).weights.live
        return space_fingerprint(live, num_heads, tokenizer)

    return find_out


__all__ = ["known_facts", "known_space", "load_sonar", "read_sonar", "save_sonar", "source_of", "write_speech"]
