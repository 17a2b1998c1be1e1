"""A SONAR of ours on disk: a folder that any version of torch reads, with the licence on it.

::

    config.json            shapes, fingerprints, licence, where the weights came from
    encoder.safetensors    each half under our names; either may be absent
    decoder.safetensors
    tokenizer.model        the SentencePiece file as published
    dead.safetensors       tensors without effect, kept so that the published files can be written again
    speech/eng/            speech encoders, see largeconcept.codec.speech.files
    README.md              model card

The *space* of a folder is the fingerprint of its encoder's weights as they were published, its heads and the tokenizer:
a copy in 16 bits, or with another decoder, has the same concepts but for rounding and keeps it. What is stored has a
hash of its own for each file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.files import OWN_LAYOUT, CastTensors
from largeconcept.codec.sonar.tokenizer import SonarTokenizer
from largeconcept.errors import CheckpointError
from largeconcept.io import (
    atomic_write_text,
    check_format_version,
    fingerprint,
    read_json,
    read_safetensors,
    require_folder,
    stream_safetensors,
    write_json,
)

TYPE = "sonar"
FORMAT_VERSION = 1
HALVES = ("encoder", "decoder")
DEAD_FILE = "dead.safetensors"
SPEECH_FOLDER = "speech"


@dataclass(slots=True)
class StoredHalf:
    """What is written of a half.

    Attributes:
        config: its shape.
        live: its weights, in our layout.
        dead: tensors without effect, kept in the type they have.
        source: what is known of the file it came from: its name, layout and SHA-256.
    """

    config: SonarEncoderConfig | SonarDecoderConfig
    live: Mapping[str, Tensor]
    dead: Mapping[str, Tensor] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Turn what a file system complains about into an error that names the folder.

    Raises:
        CheckpointError: nothing can be written there, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError("cannot be written", where=place, got=error.strerror or error) from None


def space_fingerprint(live: Mapping[str, Tensor], num_heads: int, tokenizer: SonarTokenizer) -> str:
    """Return the fingerprint of a concept space: the encoder's weights, its heads, and the tokenizer.

    Reads all of the weights: seconds for the released ones.
    """
    languages = json.dumps([num_heads, *tokenizer.languages]).encode()
    return fingerprint(live, hashlib.sha256(tokenizer.model).digest(), languages)


def digest(tokenizer: SonarTokenizer) -> str:
    """Return the SHA-256 of the SentencePiece file."""
    return hashlib.sha256(tokenizer.model).hexdigest()


def write_folder(
    folder: str | Path,
    halves: Mapping[str, StoredHalf],
    tokenizer: SonarTokenizer,
    *,
    space: str | None,
    dtype: torch.dtype | None = None,
    licence: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    speech: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a folder, one tensor after the other, and return its ``config.json``.

    Args:
        folder: made if it is missing; ``config.json`` comes last, so that a folder without it is not whole.
        halves: ``encoder``, ``decoder`` or both.
        space: fingerprint of the concept space; ``None`` when there is no encoder to take it from.
        dtype: to store the weights in; by default each as it is.
        licence: of the weights.
        metadata: whatever else is known, as plain data.
        speech: what is known of the speech encoders that lie in ``speech/``, by code.

    Raises:
        CheckpointError: a tensor that cannot be stored, or the folder cannot be written.
    """
    with writing(folder):
        return _write(Path(folder), halves, tokenizer, space, dtype, licence, metadata or {}, speech or {})


def _write(
    folder: Path,
    halves: Mapping[str, StoredHalf],
    tokenizer: SonarTokenizer,
    space: str | None,
    dtype: torch.dtype | None,
    licence: str | None,
    metadata: Mapping[str, Any],
    speech: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    stored: dict[str, dict[str, str]] = {}
    dead: dict[str, Tensor] = {}
    for half in HALVES:
        path = folder / f"{half}.safetensors"
        if half not in halves:
            path.unlink(missing_ok=True)
            continue
        live = CastTensors(halves[half].live, dtype)
        shapes = {name: (dtype or tensor.dtype, tuple(tensor.shape)) for name, tensor in halves[half].live.items()}
        stream_safetensors(path, shapes, live.__getitem__, {"format": "pt", "layout": OWN_LAYOUT, "half": half})
        stored[half] = {"file": path.name, "dtype": _type_name(shapes), "fingerprint": fingerprint(live)}
        dead |= {f"{half}.{name}": tensor for name, tensor in halves[half].dead.items()}
    (folder / DEAD_FILE).unlink(missing_ok=True)
    if dead:
        kept = CastTensors(dead, dtype)
        shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
        stream_safetensors(folder / DEAD_FILE, shapes, kept.__getitem__, {"format": "pt", "layout": OWN_LAYOUT})
    tokenizer.save(folder / "tokenizer.model")
    config = {
        "type": TYPE,
        "format_version": FORMAT_VERSION,
        **{half: halves[half].config.to_dict() if half in halves else None for half in HALVES},
        "space": space,
        "tokenizer": digest(tokenizer),
        "languages": list(tokenizer.languages),
        "stored": stored,
        "licence": licence,
        "sources": {half: dict(halves[half].source) for half in HALVES if half in halves and halves[half].source},
        "speech": {code: dict(known) for code, known in speech.items()},
        "metadata": dict(metadata),
    }
    atomic_write_text(folder / "README.md", render_card(config, folder.resolve().name))
    write_json(folder / "config.json", config)
    return config


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read and check ``config.json``.

    Raises:
        CheckpointError: missing, of a newer format, or not a SONAR's.
    """
    path = require_folder(folder, "codec") / "config.json"
    data = read_json(path)
    if not isinstance(data, dict) or data.get("type") != TYPE:
        got = data.get("type") if isinstance(data, dict) else type(data).__name__
        raise CheckpointError("not a saved SONAR", where=path, got=got, expected=TYPE)
    check_format_version(data.get("format_version"), FORMAT_VERSION, path)
    for key, kind in (("stored", dict), ("languages", list), ("sources", dict), ("speech", dict), ("metadata", dict)):
        if not isinstance(data.get(key), kind):
            raise CheckpointError("damaged", where=f"{path}: {key}", got=type(data.get(key)).__name__)
    inner = [(f"{key}.{name}", known) for key in ("stored", "sources", "speech") for name, known in data[key].items()]
    for place, known in inner:
        if not isinstance(known, dict):
            raise CheckpointError("damaged", where=f"{path}: {place}", got=type(known).__name__)
    if not isinstance(data.get("space"), str | None):
        raise CheckpointError("damaged", where=f"{path}: space", got=data["space"])
    return data


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> SonarTokenizer:
    """Read the tokenizer of a folder.

    Raises:
        CheckpointError: missing, damaged, or another one than was written.
    """
    path = folder / "tokenizer.model"
    tokenizer = SonarTokenizer.from_file(path, config["languages"])
    found = digest(tokenizer)
    if found != config.get("tokenizer"):
        raise CheckpointError(
            "not the tokenizer that was saved", where=path, expected=config.get("tokenizer"), got=found,
            hint="a file was changed or replaced; copy the folder again",
        )  # fmt: skip
    return tokenizer


def read_dead(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return the dead tensors of each half."""
    path = folder / DEAD_FILE
    dead: dict[str, dict[str, Tensor]] = {half: {} for half in HALVES}
    for name, tensor in (read_safetensors(path) if path.is_file() else {}).items():
        half, _, own = name.partition(".")
        if half not in dead:
            raise CheckpointError("not a tensor of SONAR's", where=path, got=name)
        dead[half][own] = tensor
    return dead


def verify(folder: str | Path) -> None:
    """Read all of a folder's weights and compare them with their fingerprints.

    Raises:
        CheckpointError: a file is missing, damaged or another one than was written.
    """
    folder = Path(folder)
    config = read_config(folder)
    for half, known in config["stored"].items():
        path = folder / f"{half}.safetensors"
        found = fingerprint(read_safetensors(path))
        if found != known.get("fingerprint"):
            raise CheckpointError(
                "not the weights that were saved",
                where=path,
                expected=known.get("fingerprint"),
                got=found,
                hint="a file was changed or replaced; copy the folder again",
            )
    read_tokenizer(folder, config)


def render_card(config: Mapping[str, Any], title: str) -> str:
    """Return the model card as Markdown."""
    licence = config.get("licence")
    front = ["---", "library_name: largeconcept", "tags:", "- sonar", "- sentence-embeddings"]
    if licence:
        front.append(f"license: {str(licence).lower()}")
    lines = [*front, "---", "", f"# {title}", ""]
    lines += [
        f"SONAR as a concept space of largeconcept: sentences in {len(config['languages'])} languages as vectors."
    ]
    if licence:
        lines += ["", "## Licence", "", f"The weights are Meta's, under {licence}"]
        lines[-1] += ": not for commercial use." if "NC" in str(licence) else "."
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "from largeconcept import load_codec",
        "",
        f'codec = load_codec("{title}")',
    ]
    if config["encoder"]:
        lines.append('concepts = codec.encode(["It rains."], "eng_Latn")')
    if config["decoder"]:
        lines.append('print(codec.decode(concepts, "fra_Latn"))')
    lines += ["```", "", "## Parts", "", "| part | type | fingerprint | from |", "|---|---|---|---|"]
    for half, known in config["stored"].items():
        source = config["sources"].get(half, {})
        origin = ", ".join(f"{key} `{value}`" for key, value in source.items())
        lines.append(f"| {half} | {known['dtype']} | `{known['fingerprint']}` | {origin} |")
    if config["space"]:
        lines += ["", f"Concept space: `{config['space']}`."]
    if config["speech"]:
        lines += ["", "## Speech encoders", "", "| language | licence |", "|---|---|"]
        lines += [f"| {code} | {known.get('licence')} |" for code, known in sorted(config["speech"].items())]
    lines += [
        "",
        "Paper: Duquenne, Schwenk and Sagot 2023, *SONAR: Sentence-Level Multimodal and Language-Agnostic "
        "Representations*, arXiv 2308.11466.",
    ]
    return "\n".join(lines) + "\n"


def _type_name(shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> str:
    return ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype, _ in shapes.values()}))


__all__ = [
    "DEAD_FILE",
    "FORMAT_VERSION",
    "HALVES",
    "SPEECH_FOLDER",
    "TYPE",
    "StoredHalf",
    "digest",
    "read_config",
    "read_dead",
    "read_tokenizer",
    "render_card",
    "space_fingerprint",
    "verify",
    "write_folder",
    "writing",
]
