"""Finding and reading the files of SONAR: Meta's, those of Hugging Face ports, and ours.

What may be named: a file of weights (``.pt``, ``.bin``, ``.safetensors``), a folder with Meta's files under their
published names, a folder of a Hugging Face model, a folder that this library saved, or an id on the hub (``org/name``),
which is fetched with ``huggingface_hub``. Files are mapped into memory and their tensors become the weights of the
networks as they are: nothing is copied unless another type of weights is asked for, and then one tensor at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.layouts import Half, HalfWeights, Layout, config_of, read_half, same_tensor
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import (
    fetch_from_hub,
    is_hub_id,
    load_strict,
    read_json,
    read_safetensors,
    read_torch,
    safetensors_metadata,
)

LICENCE = "CC-BY-NC-4.0"
"""Of all published text weights (github.com/facebookresearch/SONAR, LICENSE.md)."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

OWN_LAYOUT = "largeconcept-sonar"
"""Word in the header of our safetensors files that says whose row order they have."""

META_FILES: dict[str, tuple[str, ...]] = {
    "encoder": ("sonar_text_encoder.pt",),
    "decoder": ("sonar_text_decoder.pt", "finetuned_decoder.pt"),
    "tokenizer": ("sentencepiece.source.256000.model", "tokenizer.model", "sentencepiece.bpe.model"),
}
"""Names under which files are published; the first that exists is taken."""

_HUB_FILES = (
    "config.json", "model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin",
    "pytorch_model.bin.index.json", "encoder.safetensors", "decoder.safetensors",
    *(name for names in META_FILES.values() for name in names),
)  # fmt: skip
_HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOLD: set[str] = set()


@dataclass(slots=True)
class Found:
    """The files of a folder; what is not there is ``None``."""

    encoder: Path | None = None
    decoder: Path | None = None
    tokenizer: Path | None = None
    speech: dict[str, Path] = field(default_factory=dict)


@dataclass(slots=True)
class OpenedHalf:
    """A half of SONAR that was read but not yet put into a module."""

    weights: HalfWeights
    config: SonarEncoderConfig | SonarDecoderConfig
    path: Path

    @property
    def dtype(self) -> torch.dtype:
        """The type of the stored table, which stands for all."""
        return self.weights.live["embed_tokens.weight"].dtype


class CastTensors(Mapping[str, Tensor]):
    """Tensors in another type, each converted when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        self._tensors, self._dtype = tensors, dtype

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return tensor.to(self._dtype) if self._dtype is not None and tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def announce_licence(what: str, licence: str | None) -> None:
    """Warn, once in a process, that weights are not free for every use."""
    if licence and "NC" in licence and what not in _TOLD:
        _TOLD.add(what)
        warnings.warn(f"{what} are licensed {licence}: not for commercial use", UserWarning, stacklevel=2)


def torch_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """Return a type of weights by name; ``None`` for ``auto``, the type that is stored.

    Raises:
        ConfigError: another word.
    """
    if name is None or name == "auto":
        return None
    found = name if isinstance(name, torch.dtype) else DTYPES.get(str(name))
    if found not in DTYPES.values():
        raise ConfigError("unknown type of weights", where="dtype", got=name, expected=", ".join(["auto", *DTYPES]))
    return found


def local(path: str | Path) -> Path:
    """Return a path, fetched first where it is an id on the hub.

    Raises:
        DependencyError: an id on the hub, and huggingface_hub is not installed.
        CheckpointError: the hub cannot be reached, or does not have it.
    """
    if is_hub_id(path):
        return fetch_from_hub(str(path), _HUB_FILES)
    return Path(path).expanduser()


# -------------------------------------------------------------------- finding


def find(path: str | Path) -> Found:
    """Return what lies in a folder.

    The decoder of a Hugging Face model with both halves is always taken, its encoder only if it has a table of its own:
    SONAR's halves do not share one, so a shared one belongs to the decoder.

    Raises:
        CheckpointError: no such folder, or nothing of SONAR in it.
    """
    folder = local(path)
    if not folder.is_dir():
        if folder.exists():
            raise CheckpointError(
                "is a file, not a folder", where=folder, hint="name it as the half that it is: encoder=… or decoder=…"
            )
        raise CheckpointError("no such folder", where=folder, expected="a folder with the files of SONAR")
    kind = folder_kind(folder)
    found = Found(tokenizer=_first(folder, META_FILES["tokenizer"]), speech=_speech_files(folder, kind))
    if kind == "huggingface":
        tensors, _ = _read_file(_hf_weights(folder))
        if any(".encoder_attn." in name for name in tensors):
            found.decoder = folder
            found.encoder = folder if _has_own_encoder(tensors) else None
        else:
            found.encoder = folder
    else:
        for half in ("encoder", "decoder"):
            names = (f"{half}.safetensors",) if kind == "sonar" else META_FILES[half]
            inner = folder / half
            nested = inner if folder_kind(inner) == "huggingface" else None
            setattr(found, half, _first(folder, names) or nested)
            if nested is not None and found.tokenizer is None:
                found.tokenizer = _first(inner, META_FILES["tokenizer"])
    if not (found.encoder or found.decoder or found.speech):
        expected = ", ".join(names[0] for names in META_FILES.values())
        raise CheckpointError("no weights of SONAR in the folder", where=folder, expected=expected)
    return found


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def folder_kind(folder: Path) -> str | None:
    """``sonar`` for our own folder, ``huggingface`` for a model of transformers, ``None`` otherwise."""
    if not (folder / "config.json").is_file():
        return None
    data = read_json(folder / "config.json")
    if not isinstance(data, dict):
        return None
    if data.get("type") == "sonar":
        return "sonar"
    return "huggingface" if "model_type" in data or "architectures" in data else None


def _speech_files(folder: Path, kind: str | None) -> dict[str, Path]:
    from largeconcept.codec.speech.languages import language_of_file

    if kind == "sonar":  # by its own list: a folder that was written again may hold encoders of before
        known = read_json(folder / "config.json").get("speech")
        return {code: folder / "speech" / code for code in known} if isinstance(known, dict) else {}
    found = {}
    for path in sorted(folder.glob("spenc.*.pt")):
        language = language_of_file(path.name)
        if language is not None:
            found[language.code] = path
    return found


def tokenizer_beside(path: str | Path) -> Path | None:
    """Return the SentencePiece file that lies with a file of weights, or in its folder."""
    place = local(path)
    return _first(place if place.is_dir() else place.parent, META_FILES["tokenizer"])


def _hf_weights(folder: Path) -> Path:
    path = _first(folder, _HF_WEIGHTS)
    if path is None:
        raise CheckpointError("no weights in the folder of a Hugging Face model", where=folder, expected=_HF_WEIGHTS[0])
    return path


def _has_own_encoder(tensors: Mapping[str, Tensor]) -> bool:
    own = [name for name in tensors if name.endswith("encoder.embed_tokens.weight")]
    shared = ("decoder.embed_tokens.weight", "shared.weight", "lm_head.weight")
    others = [tensors[name] for name in tensors if name.endswith(shared)]
    return bool(own) and bool(others) and not any(same_tensor(tensors[own[0]], other) for other in others)


# -------------------------------------------------------------------- reading


def open_half(path: str | Path, half: Half, *, num_heads: int | None = None) -> OpenedHalf:
    """Read one half of SONAR from a file, a folder or the hub; tensors stay on disk until they are used.

    Args:
        path: see the head of this file.
        half: which.
        num_heads: of a network that is not of the released size and whose files do not say it.

    Raises:
        CheckpointError: no such file, not SONAR's, the other half, a key missing or unexpected, sizes that do not fit
            one another, or a Hugging Face model that computes something else.
    """
    path = local(path)
    settings: dict[str, Any] = {}
    kind = folder_kind(path) if path.is_dir() else None
    if kind == "huggingface":
        settings = _hf_settings(path, half)
        path = _hf_weights(path)
    elif path.is_dir():
        found: Path | None = getattr(find(path), half)
        if found is None:
            raise CheckpointError(f"SONAR's text {half} is not in the folder", where=path, expected=META_FILES[half][0])
        if found.is_dir():
            return open_half(found, half, num_heads=num_heads)
        path = found
    tensors, layout = _read_file(path)
    weights = read_half(tensors, half, layout=layout, where=path, owned=True)
    own = path.parent / "config.json"
    if layout == "largeconcept" and folder_kind(path.parent) == "sonar":
        stored = read_json(own).get(half)
        cls = SonarEncoderConfig if half == "encoder" else SonarDecoderConfig
        config: SonarEncoderConfig | SonarDecoderConfig = cls.from_dict(stored, where=f"{own}: {half}")
    else:
        if num_heads is not None:
            settings["num_heads"] = num_heads
        config = config_of(weights, path, **settings)
    return OpenedHalf(weights, config, path)


def build(opened: OpenedHalf, dtype: torch.dtype | None = None) -> SonarEncoder | SonarDecoder:
    """Return the module of a half that was read, its weights the tensors of the file where the type is the same.

    The tensors leave ``opened.weights.live`` as they are converted, so that there is one copy at any time.

    Raises:
        CheckpointError: a weight has another shape.
    """
    with torch.device("meta"):
        module = (
            SonarEncoder(opened.config)
            if isinstance(opened.config, SonarEncoderConfig)
            else SonarDecoder(opened.config)
        )
    load_into(module, opened.weights.live, dtype or opened.dtype, opened.path)
    return module


def load_into(module: nn.Module, tensors: MutableMapping[str, Tensor], dtype: torch.dtype, where: object) -> None:
    """Make ``tensors``, in ``dtype``, the weights of a module on the meta device, and empty the mapping.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape.
    """
    converted = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        if not tensor.is_floating_point():
            raise CheckpointError("not a floating-point weight", where=f"{where}: {name}", got=tensor.dtype)
        converted[name] = tensor.to(dtype)
    load_strict(module, converted, where, assign=True)
    module.eval()


def _read_file(path: Path) -> tuple[Mapping[str, Any], Layout | None]:
    """Return what a file holds, and the layout if its header declares it."""
    if path.name.endswith(".index.json"):
        return _read_shards(path), None
    if path.suffix != ".safetensors":
        data = read_torch(path, [nn.Embedding])
        if not isinstance(data, Mapping):
            raise CheckpointError("no weights", where=path, got=type(data).__name__, expected="names and tensors")
        return data, None
    declared = safetensors_metadata(path).get("layout")
    return read_safetensors(path), "largeconcept" if declared == OWN_LAYOUT else None


def _read_shards(index: Path) -> dict[str, Tensor]:
    data = read_json(index)
    places = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError("not an index of shards", where=index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise CheckpointError("a shard outside of the folder", where=index, got=name)
        tensors |= _read_file(index.parent / name)[0]
    return tensors


def _hf_settings(folder: Path, half: Half) -> dict[str, Any]:
    """Return the sizes that weights do not show, and refuse what would be computed otherwise."""
    path = folder / "config.json"
    data = read_json(path)
    expected = {
        "model_type": "m2m_100",
        "scale_embedding": True,
        "activation_function": "relu",
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    for key, value in expected.items():
        if key in data and data[key] != value:
            raise CheckpointError("not a model like SONAR's", where=f"{path}: {key}", expected=value, got=data[key])
    settings: dict[str, Any] = {}
    heads = data.get(f"{half}_attention_heads")
    if isinstance(heads, int):
        settings["num_heads"] = heads
    longest = data.get("max_position_embeddings")
    released = (SonarEncoderConfig if half == "encoder" else SonarDecoderConfig)().max_tokens
    if isinstance(longest, int) and longest < released:  # the usual 1024 is what the class has room for
        settings["max_tokens"] = longest
    return settings


__all__ = [
    "DTYPES",
    "LICENCE",
    "META_FILES",
    "OWN_LAYOUT",
    "CastTensors",
    "Dtype",
    "Found",
    "OpenedHalf",
    "announce_licence",
    "build",
    "find",
    "folder_kind",
    "load_into",
    "local",
    "open_half",
    "tokenizer_beside",
    "torch_dtype",
]
