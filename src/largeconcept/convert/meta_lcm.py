"""Weights of Meta's Large Concept Models (github.com/facebookresearch/large_concept_model), read and written.

The Base-LCM and the two-tower diffusion model, in every style that :mod:`largeconcept.convert.meta_config` accepts. Our
modules compute the same with other tensors: queries, keys and values of one input are one product here, and so are the
gate and inner projection of a gated MLP. Self-attention of Meta's denoiser sees its own position only, so its queries
and keys never matter; these *dead weights* have no place in our module and are returned, and kept, apart.

Shape letters: C concept dimension, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from largeconcept.convert.meta_config import (
    MetaBaseLCM,
    MetaConfig,
    meta_config,
    model_config,
    read_meta_config,
    sampler_options,
    to_meta_config,
)
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import read_safetensors, read_torch, write_json, write_safetensors
from largeconcept.models.mse import MSEConceptModel, MSEConfig
from largeconcept.models.two_tower import TwoTowerConceptModel, TwoTowerConfig
from largeconcept.nn.attention import INPUT_GAIN

if TYPE_CHECKING:
    from largeconcept.codec.normalizer import ConceptNormalizer

ConceptModel = MSEConceptModel | TwoTowerConceptModel

DEAD_FILE = "dead.safetensors"
META_CONFIG_FILE = "meta-config.json"

_CLIP_PROBA = 1e-4  # of the reference's clipping normalisers; the share itself is not in their files
_MARKS = {"base_lcm": ("lcm.", "postnet."), "two_tower_diffusion_lcm": ("denoiser.", "context_encoder.")}
_FLAT = {
    "mse": {
        "decoder.input_proj": "frontend.pre_linear",
        "decoder.positions": "frontend.pos_encoder",
        "decoder.norm": "lcm.layer_norm",
        "output_proj": "postnet.fc",
    },
    "two_tower": {
        "contextualizer.input_proj": "encoder_frontend.pre_linear",
        "contextualizer.positions": "encoder_frontend.pos_encoder",
        "contextualizer.norm": "context_encoder.layer_norm",
        "denoiser.embed_time.fc1": "denoiser.embed_time.fc1",
        "denoiser.embed_time.fc2": "denoiser.embed_time.fc2",
        "denoiser.input_proj": "denoiser.initial_proj.fc",
        "denoiser.norm": "denoiser.layer_norm",
        "denoiser.output_proj": "denoiser.final_proj.fc",
    },
}
_STACKS = {"decoder": "lcm", "contextualizer": "context_encoder", "denoiser": "denoiser"}
_PARTS = {
    # our part of a layer -> Meta's, stacked along the first axis in this order
    "attention_norm": ("self_attn_layer_norm",),
    "attention.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.v_proj": ("self_attn.v_proj",),
    "attention.output_proj": ("self_attn.output_proj",),
    "cross_attention_norm": ("cross_attention_layer_norm",),
    "cross_attention.q_proj": ("cross_attention.q_proj",),
    "cross_attention.kv_proj": ("cross_attention.k_proj", "cross_attention.v_proj"),
    "cross_attention.output_proj": ("cross_attention.output_proj",),
    "mlp_norm": ("ffn_layer_norm",),
    "mlp.output_proj": ("ffn.output_proj",),
    "modulator.fc": ("modulator.fc",),
}
_INNER = {"swiglu": ("ffn.gate_proj", "ffn.inner_proj"), "relu": ("ffn.inner_proj",)}
_LAYER = re.compile(r"(decoder|contextualizer|denoiser)\.layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What a checkpoint of Meta's held.

    Attributes:
        model: in evaluation mode, float32.
        normalizer: of the checkpoint, if it holds one.
        dead: under Meta's names, the query and key weights of the denoiser's self-attention, which have no effect.
        config: Meta's configuration.
    """

    model: ConceptModel
    normalizer: ConceptNormalizer | None
    dead: dict[str, Tensor] = field(default_factory=dict)
    config: MetaConfig = field(default_factory=MetaBaseLCM)


def from_state_dict(state_dict: Mapping[str, Any], config: MetaConfig | Mapping[str, Any] | str) -> ConceptModel:
    """Return our model with Meta's weights, in evaluation mode and float32.

    Args:
        state_dict: under Meta's names, in any floating type; also as the ``{"model": …}`` of a checkpoint file, and
            with the prefix ``module.``. It is copied, not kept.
        config: Meta's configuration; see :mod:`largeconcept.convert.meta_config`.

    Raises:
        CheckpointError: a key is missing or not of this model, or has another shape, or it is another family's.
        ConfigError: an unknown key or value, or a setting that the models here cannot follow.
    """
    return import_state_dict(state_dict, config).model


def import_state_dict(
    state_dict: Mapping[str, Any],
    config: MetaConfig | Mapping[str, Any] | str,
    *,
    where: str = "state dict",
    fourier: bool = False,
) -> ImportedModel:
    """Return model, normaliser and dead weights; arguments and errors as :func:`from_state_dict`.

    Args:
        where: names the weights in messages.
        fourier: the checkpoint's normaliser works on the Fourier transform (Meta's ``base_fft``, ``clipping_fft``);
            neither weights nor configuration say so.
    """
    meta = meta_config(config)
    ours = model_config(meta)
    weights = _tensors(state_dict, where)
    _check_family(weights, meta.model_type, where)
    with torch.device("meta"):  # no time is spent on initial values that are overwritten
        model: ConceptModel = MSEConceptModel(ours) if isinstance(ours, MSEConfig) else TwoTowerConceptModel(ours)
    layout = _layout(model)
    dead_shapes = _dead_shapes(model.config)
    prefix = _normalizer_prefix(model.config)
    present = {name for name in weights if name.startswith(prefix)}
    expected = {name for names, _ in layout.values() for name in names}
    _check_names(weights, expected, set(dead_shapes), present, where)
    for names, shape in layout.values():
        for name in names:
            _check_shape(weights[name], (shape[0] // len(names), *shape[1:]), f"{where}: {name}")
    for name, shape in dead_shapes.items():
        if name in weights:
            _check_shape(weights[name], shape, f"{where}: {name}")
    loaded = {own: _joined([weights[name] for name in names]) for own, (names, _) in layout.items()}
    model.load_state_dict(loaded, strict=True, assign=True)
    return ImportedModel(
        model.eval(),
        _normalizer({name.removeprefix(prefix): weights[name] for name in present}, ours.concept_dim, where, fourier),
        {name: weights[name].detach().clone() for name in dead_shapes if name in weights},
        meta,
    )


def to_meta(
    model: nn.Module,
    dead: Mapping[str, Tensor] | None = None,
    *,
    normalizer: ConceptNormalizer | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the state dict of a model in Meta's layout, complete, so that Meta's code loads it strictly.

    Args:
        model: of type ``mse`` or ``two_tower``.
        dead: the denoiser's dead weights under Meta's names, as :class:`ImportedModel` keeps them. Those that are not
            given are drawn as Meta draws them (Xavier with gain 2 ** -0.5, zero biases); they change no output, and
            :func:`dead_names` tells which they are.
        normalizer: of the model, to be put in.
        seed: of the weights that are drawn.

    Raises:
        ConfigError: a model of another family.
        CheckpointError: a dead weight of another name or shape.
    """
    family = getattr(getattr(model, "config", None), "type", type(model).__name__)
    # Other families are built on these two.
    if not isinstance(model, MSEConceptModel | TwoTowerConceptModel) or family not in ("mse", "two_tower"):
        raise ConfigError(
            "Meta's code has no such model",
            where="model",
            got=family,
            expected="mse or two_tower",
        )
    state = model.state_dict()
    result: dict[str, Tensor] = {}
    for own, (names, _) in _layout(model).items():
        for name, part in zip(names, state[own].detach().chunk(len(names)), strict=True):
            result[name] = part.clone()
    given, shapes = dict(dead or {}), _dead_shapes(model.config)
    for name in given:
        if name not in shapes:
            raise CheckpointError("not a dead weight of this model", where=name, expected=next(iter(shapes), "none"))
        _check_shape(given[name], shapes[name], name)
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        if name in given:
            result[name] = given[name].detach().clone()
        elif len(shape) == 1:
            result[name] = torch.zeros(shape)
        else:
            result[name] = nn.init.xavier_uniform_(torch.empty(shape), INPUT_GAIN, generator=generator)
    if normalizer is not None:
        prefix = _normalizer_prefix(model.config)
        result |= {prefix + name: tensor.detach().clone() for name, tensor in normalizer.state_dict().items()}
    return result


def dead_names(config: MetaConfig | Mapping[str, Any] | str) -> list[str]:
    """Return Meta's names of the weights that have no effect: 2 (D² + D) numbers for each denoiser layer.

    Raises:
        ConfigError: as :func:`largeconcept.convert.meta_config.meta_config`.
    """
    return list(_dead_shapes(model_config(config)))


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a ``.pt`` or ``.safetensors`` file under Meta's names.

    A ``.pt`` file holds them itself, or under ``model`` or the key that its ``model_key`` names. No code in it is run
    (``weights_only``), and its tensors stay on disk until they are used.

    Raises:
        CheckpointError: missing, damaged, of another format, or without weights.
    """
    path = Path(path)
    data = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    return _tensors(data, str(path))


def load(
    checkpoint: str | Path, config: MetaConfig | Mapping[str, Any] | str, *, fourier: bool = False
) -> ImportedModel:
    """Read a checkpoint file into our model; see :func:`read_checkpoint` and :func:`import_state_dict`."""
    return import_state_dict(read_checkpoint(checkpoint), config, where=str(checkpoint), fourier=fourier)


def convert(
    checkpoint: str | Path, config: str | Path, out: str | Path, *, fourier: bool = False
) -> tuple[ImportedModel, Path]:
    """Turn a checkpoint of Meta's into a folder of ours.

    Writes ``model/``, ``normalizer/`` if the checkpoint holds one, ``dead.safetensors`` (the denoiser's dead weights in
    Meta's layout) if there are any, and ``meta-config.json``: :func:`export` makes the same checkpoint of it again.

    Args:
        checkpoint: a ``.pt`` or ``.safetensors`` file.
        config: a JSON or YAML file with Meta's configuration, or the name of one of Meta's architectures.
        out: the folder to make.
        fourier: see :func:`import_state_dict`.

    Raises:
        CheckpointError, ConfigError: as :func:`read_checkpoint` and :func:`from_state_dict`.
    """
    from largeconcept.models.registry import save_model

    imported = load(checkpoint, read_meta_config(config), fourier=fourier)
    folder = Path(out)
    if imported.dead:
        write_safetensors(folder / DEAD_FILE, imported.dead)
    if imported.normalizer is not None:
        imported.normalizer.save_pretrained(folder / "normalizer")
    write_json(folder / META_CONFIG_FILE, imported.config.to_dict())
    save_model(imported.model, folder / "model")
    return imported, folder


def export(folder: str | Path, out: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """Write a model in Meta's layout: a ``.pt`` file that Meta's loader reads, or a ``.safetensors`` file.

    Args:
        folder: of :func:`convert`, of a finished training run, or any other with ``model/`` and perhaps
            ``normalizer/``, ``dead.safetensors`` and ``meta-config.json``.
        out: ends in ``.pt`` or ``.safetensors``; Meta's configuration is written beside it, ending in ``.json``.

    Returns:
        The weights, and the names of the dead weights that were drawn because none were kept.

    Raises:
        CheckpointError: no model in the folder.
        ConfigError: a model that Meta's code does not have, or another ending.
    """
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.io import atomic_path, read_json
    from largeconcept.models.registry import load_model

    folder, out = Path(folder), Path(out)
    if out.suffix not in (".pt", ".safetensors"):
        raise ConfigError("unknown kind of file", where=out, expected="a name that ends in .pt or .safetensors")
    model = load_model(folder / "model")
    normalizer = None
    if (folder / "normalizer").is_dir():
        normalizer = ConceptNormalizer.from_pretrained(folder / "normalizer")
    dead = read_safetensors(folder / DEAD_FILE) if (folder / DEAD_FILE).is_file() else {}
    weights = to_meta(model, dead, normalizer=normalizer)
    own = model.config
    assert isinstance(own, MSEConfig | TwoTowerConfig)
    if (folder / META_CONFIG_FILE).is_file():
        config = meta_config(read_json(folder / META_CONFIG_FILE))
    else:
        config = to_meta_config(own, None if normalizer is None else "sonar_normalizer")
    if out.suffix == ".safetensors":
        write_safetensors(out, {name: tensor.contiguous() for name, tensor in weights.items()})
    else:
        with atomic_path(out) as temporary:
            torch.save({"model_key": "model", "model": weights}, temporary)
    write_json(out.with_suffix(".json"), config.to_dict())
    return weights, [name for name in _dead_shapes(own) if name not in dead]


def _layout(model: ConceptModel) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return for each of our tensors Meta's names, to be stacked along the first axis, and our shape."""
    flat, inner = _FLAT[model.config.type], _INNER[model.config.mlp]
    layout = {}
    for own, tensor in model.state_dict().items():
        match = _LAYER.fullmatch(own)
        if match is None:
            stem, _, kind = own.rpartition(".")
            names: tuple[str, ...] = (f"{flat[stem]}.{kind}",)
        else:
            stack, index, part, kind = match.groups()
            parts = inner if part == "mlp.inner_proj" else _PARTS[part]
            names = tuple(f"{_STACKS[stack]}.layers.{index}.{one}.{kind}" for one in parts)
        layout[own] = (names, tuple(tensor.shape))
    return layout


def _dead_shapes(config: MSEConfig | TwoTowerConfig) -> dict[str, tuple[int, ...]]:
    if isinstance(config, MSEConfig):
        return {}
    dim = config.model_dim
    return {
        f"denoiser.layers.{layer}.self_attn.{part}.{kind}": shape
        for layer in range(config.num_denoiser_layers)
        for part in ("q_proj", "k_proj")
        for kind, shape in (("weight", (dim, dim)), ("bias", (dim,)))
    }


def _normalizer_prefix(config: MSEConfig | TwoTowerConfig) -> str:
    return "frontend.sonar_normalizer." if isinstance(config, MSEConfig) else "sonar_normalizer."


def _tensors(data: object, where: str) -> dict[str, Tensor]:
    """Return the weights of a state dict, unwrapped and without the prefix of data-parallel training."""
    if isinstance(data, Mapping) and not any(isinstance(value, Tensor) for value in data.values()):
        key = data.get("model_key", "model")
        if key not in data:
            raise CheckpointError(
                "no weights",
                where=where,
                got=", ".join(map(str, list(data)[:5])) or "nothing",
                expected=f"a key {key!r}",
            )
        data = data[key]
    if not isinstance(data, Mapping) or not data:
        got = "nothing" if isinstance(data, Mapping) else type(data).__name__
        raise CheckpointError("no weights", where=where, got=got, expected="a mapping of names to tensors")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError("not a tensor", where=f"{where}: {name}", got=type(value).__name__)
    if all(name.startswith("module.") for name in data):
        return {name.removeprefix("module."): value for name, value in data.items()}
    return dict(data)


def _check_family(weights: Mapping[str, Tensor], family: str, where: str) -> None:
    found = [one for one, marks in _MARKS.items() if any(name.startswith(marks) for name in weights)]
    if found != [family]:
        raise CheckpointError(
            "weights of another family of models" if found else "not the weights of a Large Concept Model",
            where=where,
            expected=f"{family}, with names as {_MARKS[family][0]}…",
            got=", ".join(found) or next(iter(weights)),
        )


def _check_names(
    weights: Mapping[str, Tensor], expected: set[str], dead: set[str], normalizer: set[str], where: str
) -> None:
    missing = sorted(expected - set(weights))
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights are missing",
            where=where,
            expected=missing[0],
            hint="does the configuration belong to this checkpoint?",
        )
    unexpected = sorted(set(weights) - expected - dead - normalizer)
    if unexpected:
        raise CheckpointError(
            f"{len(unexpected)} weights are not of this model",
            where=where,
            got=unexpected[0],
            hint="does the configuration belong to this checkpoint?",
        )
    absent = sorted(dead - set(weights))
    if absent and len(absent) != len(dead):
        raise CheckpointError(f"{len(absent)} of {len(dead)} dead weights are missing", where=where, expected=absent[0])


def _check_shape(tensor: Tensor, shape: tuple[int, ...], where: str) -> None:
    if tuple(tensor.shape) != shape:
        raise CheckpointError("a weight has another shape", where=where, expected=shape, got=tuple(tensor.shape))
    if not tensor.is_floating_point():
        raise CheckpointError("a weight has another type", where=where, expected="floating point", got=tensor.dtype)


def _joined(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0].detach().to("cpu", torch.float32, copy=True)
    return torch.cat([part.detach().to("cpu", torch.float32) for part in parts])


def _normalizer(tensors: Mapping[str, Tensor], dim: int, where: str, fourier: bool) -> ConceptNormalizer | None:
    if not tensors:
        return None
    from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig

    known = {"center", "scale", "clip_min", "clip_max"}
    clipped = "clip_min" in tensors
    wanted = known if clipped else known - {"clip_min", "clip_max"}
    if set(tensors) != wanted:
        odd = sorted(set(tensors) ^ wanted)[0]
        raise CheckpointError("the normalizer is not complete, or holds something else", where=where, got=odd)
    for name, tensor in tensors.items():
        _check_shape(tensor, (dim,), f"{where}: sonar_normalizer.{name}")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError("a value is not finite", where=f"{where}: sonar_normalizer.{name}")
    if not bool((tensors["scale"] > 0).all()):
        raise CheckpointError("a scale is not positive", where=f"{where}: sonar_normalizer.scale")
    config = NormalizerConfig(dim=dim, method="meta", clip_proba=_CLIP_PROBA if clipped else None, fft=fourier)
    clip = (tensors["clip_min"], tensors["clip_max"]) if clipped else None
    return ConceptNormalizer(config, tensors["center"], tensors["scale"], clip)


__all__ = [
    "ImportedModel",
    "convert",
    "dead_names",
    "export",
    "from_state_dict",
    "import_state_dict",
    "load",
    "meta_config",
    "model_config",
    "read_checkpoint",
    "read_meta_config",
    "sampler_options",
    "to_meta",
    "to_meta_config",
]
