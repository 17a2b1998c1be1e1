"""SONAR's published weights into a folder of ours, and out again in every published layout.

What a folder holds is described in :mod:`largeconcept.codec.sonar.folder`, what may be read in
:mod:`largeconcept.codec.sonar.files`. Tensors go from file to file one at a time. Weights that are not converted to
another type come back exactly: names, values, row orders, and the tensors that have no effect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from largeconcept.codec.sonar.codec import SpeechSources
from largeconcept.codec.sonar.config import SonarDecoderConfig
from largeconcept.codec.sonar.files import META_FILES, Dtype, OpenedHalf, announce_licence, folder_kind, torch_dtype
from largeconcept.codec.sonar.folder import StoredHalf, space_fingerprint, write_folder, writing
from largeconcept.codec.sonar.layouts import Half, write_half
from largeconcept.codec.sonar.loading import known_facts, known_space, read_sonar, source_of, write_speech
from largeconcept.codec.sonar.tokenizer import SonarTokenizer
from largeconcept.errors import ConfigError
from largeconcept.io import atomic_path, stream_safetensors, write_json

ExportLayout = Literal["fairseq2", "fairseq", "huggingface"]
EXPORT_LAYOUTS = ("fairseq2", "fairseq", "huggingface")
SPM_FILES = {"fairseq2": META_FILES["tokenizer"][0], "huggingface": "sentencepiece.bpe.model"}

# What a model of transformers is told besides sizes; ids are in its order of rows.
_HF_SETTINGS = {
    "model_type": "m2m_100",
    "activation_function": "relu",
    "scale_embedding": True,
    "tie_word_embeddings": True,
    "is_encoder_decoder": True,
    "use_cache": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_HF_POSITIONS = 1024  # what ports of SONAR say; the sinusoids have no end


def convert(
    out: str | Path,
    path: str | Path | None = None,
    *,
    encoder: str | Path | Literal[False] | None = None,
    decoder: str | Path | Literal[False] | None = None,
    spm: str | Path | None = None,
    speech: SpeechSources | None = None,
    dtype: Dtype = "auto",
    num_heads: int | None = None,
) -> dict[str, Any]:
    """Write a folder of ours and return its ``config.json``.

    Args:
        out: a new or empty folder, or one with a saved SONAR, which is replaced.
        path, encoder, decoder, spm, num_heads: see :func:`largeconcept.codec.sonar.loading.load_sonar`.
        speech: published files or saved folders of speech encoders by language.
        dtype: of the stored weights. In 16 bits a folder is half as large and cannot be turned back exactly; it has the
            space of the weights as they were published.

    Raises:
        CheckpointError, DependencyError, ConfigError: as :func:`~largeconcept.codec.sonar.loading.load_sonar`.
        ConfigError: ``out`` holds something else.
    """
    wanted, out = torch_dtype(dtype), Path(out)
    _check_target(out)
    halves, tokenizer, sources = read_sonar(
        path, encoder=encoder, decoder=decoder, spm=spm, speech=speech, num_heads=num_heads
    )
    metadata = known_facts(halves)
    licence = metadata.pop("licence", None)
    announce_licence("SONAR's text weights", licence)
    space = known_space(halves, tokenizer)
    if space is None and "encoder" in halves:
        opened = halves["encoder"]
        space = space_fingerprint(opened.weights.live, opened.config.num_heads, tokenizer)
    stored = {
        str(half): StoredHalf(opened.config, opened.weights.live, opened.weights.dead, _source(half, opened))
        for half, opened in halves.items()
    }
    with writing(out):
        known = write_speech(sources, out, dtype)
    return write_folder(
        out,
        stored,
        tokenizer,
        space=space if isinstance(space, str) else None,
        dtype=wanted,
        licence=licence,
        metadata=metadata,
        speech=known,
    )


def export(
    folder: str | Path, out: str | Path, layout: ExportLayout = "fairseq2", *, num_heads: int | None = None
) -> dict[str, Path]:
    """Write text encoder, text decoder and tokenizer as they are published elsewhere.

    ``fairseq2`` and ``fairseq`` give ``sonar_text_encoder.pt``, ``sonar_text_decoder.pt`` and the SentencePiece file
    under the names that Meta's code expects. ``huggingface`` gives ``encoder/``, for ``M2M100Encoder``, and
    ``decoder/``, for ``M2M100ForConditionalGeneration``: the classes of transformers, with concepts as
    ``encoder_outputs`` of one position. One object for both would share one table, and SONAR's halves have two.

    Args:
        folder: of :func:`convert`, or anything else that :func:`~largeconcept.codec.sonar.loading.load_sonar` reads.
        out: made if it is missing.
        layout: as above.
        num_heads: as of ``load_sonar``.

    Returns:
        The files of the halves that were there.

    Raises:
        CheckpointError: nothing of SONAR in the folder, or ``out`` cannot be written.
        ConfigError: another layout.
    """
    if layout not in EXPORT_LAYOUTS:
        raise ConfigError("unknown layout", where="layout", got=layout, expected=", ".join(EXPORT_LAYOUTS))
    halves, tokenizer, _ = read_sonar(folder, num_heads=num_heads)
    out = Path(out)
    with writing(out):
        return _export(halves, tokenizer, out, layout)


def _export(
    halves: Mapping[Half, OpenedHalf], tokenizer: SonarTokenizer, out: Path, layout: ExportLayout
) -> dict[str, Path]:
    written = {}
    for half, opened in halves.items():
        data = write_half(opened.weights, layout)
        if layout == "huggingface":
            written[str(half)] = _write_hugging_face(out / half, half, opened, data, tokenizer)
            continue
        if layout == "fairseq":  # Meta's loader takes the table out of a module
            weight = data["embed_tokens"]["weight"]
            rows, width = weight.shape
            data["embed_tokens"] = nn.Embedding(rows, width, padding_idx=1, device="meta")
            data["embed_tokens"].weight = nn.Parameter(weight, requires_grad=False)
        written[str(half)] = path = out / META_FILES[half][0]
        with atomic_path(path) as temporary:
            torch.save(data, temporary)
    if layout != "huggingface":
        tokenizer.save(out / SPM_FILES["fairseq2"])
    return written


def _write_hugging_face(
    folder: Path, half: Half, opened: OpenedHalf, tensors: Mapping[str, Tensor], tokenizer: SonarTokenizer
) -> Path:
    config = opened.config
    layers = {"encoder_layers": config.num_layers, "decoder_layers": config.num_layers}
    kind = "M2M100Encoder"
    if half == "decoder":
        if isinstance(config, SonarDecoderConfig) and config.concept_dim != config.width:
            raise ConfigError("the classes of transformers have one width for decoder and concepts", where=opened.path)
        kind, layers["encoder_layers"] = "M2M100ForConditionalGeneration", 0
        like = tensors["model.decoder.layer_norm.weight"]
        # The class wants an encoder, if only an empty one.
        tensors = dict(tensors) | {
            "model.encoder.layer_norm.weight": torch.ones_like(like),
            "model.encoder.layer_norm.bias": torch.zeros_like(like),
        }
    released = type(config)().max_tokens
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    stream_safetensors(folder / "model.safetensors", shapes, tensors.__getitem__, {"format": "pt"})
    tokenizer.save(folder / SPM_FILES["huggingface"])
    settings = {
        "architectures": [kind],
        **_HF_SETTINGS,
        **layers,
        **{f"{side}_attention_heads": config.num_heads for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": config.ffn_dim for side in ("encoder", "decoder")},
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "max_position_embeddings": _HF_POSITIONS if config.max_tokens == released else config.max_tokens,
        "torch_dtype": str(opened.dtype).removeprefix("torch."),
    }
    write_json(folder / "config.json", settings)
    return folder / "model.safetensors"


def _source(half: Half, opened: OpenedHalf) -> dict[str, str]:
    source = source_of(half, opened)
    if opened.weights.layout != "largeconcept":
        with opened.path.open("rb") as file:
            source["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return source


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError("is not a folder", where=out, expected="a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and folder_kind(out) != "sonar":
        raise ConfigError("the folder holds something else", where=out, expected="a new or empty folder")


__all__ = ["EXPORT_LAYOUTS", "ExportLayout", "convert", "export"]
