"""Under which names SONAR's speech encoders are published, and ours for them.

Two layouts, both wrapped as ``{"model": …}``: ``fairseq2`` (names as ``encoder.layers.0.ffn1.inner_proj.weight``) and
the older ``fairseq`` (``encoder.w2v_model.encoder.layers.0.ffn1.w_1.weight``), which Meta's own loader reads too
(github.com/facebookresearch/SONAR, ``sonar/models/sonar_speech/loader.py``). A file is of the layout that its names
say; values are never looked at. Our names are Hugging Face's: of ``SeamlessM4TConformerEncoder`` for the conformer, of
``M2M100Decoder`` for the pooler.

Some published tensors cannot change a result and are *dead*: queries and keys of the pooler's self-attention over one
position, all rows of its table except the one it asks with, counters of BatchNorm, and leftovers of pre-training. They
are kept apart from the live ones, so that a file can be written again as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from largeconcept.codec.speech.encoder import SonarSpeechEncoder, SonarSpeechEncoderConfig
from largeconcept.codec.speech.features import FEATURE_DIM
from largeconcept.errors import CheckpointError, ConfigError

Layout = Literal["fairseq2", "fairseq"]

TOKEN_ROW = 2
"""Row of the pooler's table that it asks with, in either layout."""

_TABLE = "pooler.embed_tokens.weight"
_TOKEN = "pooler.token"

# ---------------------------------------------------------------- names

# Ours, fairseq2's, fairseq's.
_TOP = (
    ("feature_projection.layer_norm", "encoder_frontend.post_extract_layer_norm", "encoder.w2v_model.layer_norm"),
    ("feature_projection.projection", "encoder_frontend.model_dim_proj", "encoder.w2v_model.post_extract_proj"),
    # Pre-training put a LayerNorm behind the blocks although each block ends with one.
    ("encoder.layer_norm", "layer_norm", "encoder.w2v_model.encoder.layer_norm"),
)
_BLOCK = (
    *(
        row
        for i in (1, 2)
        for row in (
            (f"ffn{i}_layer_norm", f"ffn{i}_layer_norm", f"ffn{i}.layer_norm"),
            (f"ffn{i}.intermediate_dense", f"ffn{i}.inner_proj", f"ffn{i}.w_1"),
            (f"ffn{i}.output_dense", f"ffn{i}.output_proj", f"ffn{i}.w_2"),
        )
    ),
    ("self_attn_layer_norm", "self_attn_layer_norm", "self_attn_layer_norm"),
    *((f"self_attn.linear_{x}", f"self_attn.{x}_proj", f"self_attn.linear_{x}") for x in "qkv"),
    ("self_attn.linear_out", "self_attn.output_proj", "self_attn.linear_out"),
    ("conv_module.layer_norm", "conv_layer_norm", "conv_module.layer_norm"),
    ("conv_module.batch_norm", "conv.batch_norm", "conv_module.batch_norm"),
    ("final_layer_norm", "layer_norm", "final_layer_norm"),
)
_BLOCK_WEIGHTS = (  # without a bias
    ("self_attn.linear_pos", "self_attn.sdpa.r_proj", "self_attn.linear_pos"),
    *((f"conv_module.{x}", f"conv.{x}", f"conv_module.{x}") for x in ("pointwise_conv1", "depthwise_conv")),
    ("conv_module.pointwise_conv2", "conv.pointwise_conv2", "conv_module.pointwise_conv2"),
)
_BLOCK_TENSORS = (
    *((f"self_attn.pos_bias_{x}", f"self_attn.sdpa.{x}_bias", f"self_attn.pos_bias_{x}") for x in "uv"),
    *((f"conv_module.batch_norm.{x}", f"conv.batch_norm.{x}", f"conv_module.batch_norm.{x}")
      for x in ("running_mean", "running_var")),
)  # fmt: skip
_COUNTER = ("conv_module.batch_norm.num_batches_tracked", "conv.batch_norm.num_batches_tracked",
            "conv_module.batch_norm.num_batches_tracked")  # fmt: skip
_POOLER = (
    ("self_attn.v_proj", "self_attn.v_proj", "self_attn.v_proj"),
    ("self_attn.out_proj", "self_attn.output_proj", "self_attn.out_proj"),
    ("self_attn_layer_norm", "self_attn_layer_norm", "self_attn_layer_norm"),
    *((f"encoder_attn.{x}_proj", f"encoder_decoder_attn.{x}_proj", f"encoder_attn.{x}_proj") for x in "qkv"),
    ("encoder_attn.out_proj", "encoder_decoder_attn.output_proj", "encoder_attn.out_proj"),
    ("encoder_attn_layer_norm", "encoder_decoder_attn_layer_norm", "encoder_attn_layer_norm"),
    ("fc1", "ffn.inner_proj", "fc1"),
    ("fc2", "ffn.output_proj", "fc2"),
    ("final_layer_norm", "ffn_layer_norm", "final_layer_norm"),
)
_POOLER_DEAD = tuple((f"self_attn.{x}_proj",) * 3 for x in "qk")
_KINDS = ("weight", "bias")
_STACKS = {
    "block": ("encoder.layers", "encoder.layers", "encoder.w2v_model.encoder.layers"),
    "pooler": ("pooler.layers", "encoder_pooler.decoder.layers", "decoder.layers"),
}
_LEFTOVERS = (
    "encoder.w2v_model.mask_emb",
    "encoder.version",
    "decoder.version",
    "encoder.embed_positions._float_tensor",
    "decoder.embed_positions._float_tensor",
)


class Names(NamedTuple):
    """Our names with those of a layout.

    Attributes:
        live: of the weights that our module has, the pooler's token excepted.
        dead: of those that it does not have; the table is among them.
    """

    live: dict[str, str]
    dead: dict[str, str]


def published_names(layout: Layout, num_layers: int, num_pooler_layers: int) -> Names:
    """Return the published name of each of our tensors."""
    column = 1 if layout == "fairseq2" else 2
    live: dict[str, str] = {}
    dead = {_TABLE: ("encoder_pooler.decoder_frontend.embed.weight", "decoder.embed_tokens.weight")[column - 1]}

    def add(names: dict[str, str], rows: Iterable[tuple[str, ...]], stack: str = "", count: int = 1) -> None:
        for index in range(count):
            own, theirs = ("", "")
            if stack:
                own, theirs = f"{_STACKS[stack][0]}.{index}.", f"{_STACKS[stack][column]}.{index}."
            names.update({own + row[0]: theirs + row[column] for row in rows})

    add(live, _with(_TOP, _KINDS))
    block = (*_with(_BLOCK, _KINDS), *_with(_BLOCK_WEIGHTS, ("weight",)), *_BLOCK_TENSORS)
    add(live, block, "block", num_layers)
    add(live, _with(_POOLER, _KINDS), "pooler", num_pooler_layers)
    live["pooler.projection.weight"] = ("encoder_pooler.projection_out.weight", "decoder.embed_out")[column - 1]
    add(dead, (_COUNTER,), "block", num_layers)
    add(dead, _with(_POOLER_DEAD, _KINDS), "pooler", num_pooler_layers)
    return Names(live, dead)


def _with(rows: Iterable[tuple[str, ...]], kinds: Iterable[str]) -> list[tuple[str, ...]]:
    return [tuple(f"{name}.{kind}" for name in row) for row in rows for kind in kinds]


# ---------------------------------------------------------------- weights


@dataclass(slots=True)
class SpeechWeights:
    """A published speech encoder under our names.

    Attributes:
        config: sizes, read off the shapes.
        layout: of the file.
        live: the weights of :class:`SonarSpeechEncoder`.
        dead: under our names, what has no effect; leftovers of pre-training under theirs.
    """

    config: SonarSpeechEncoderConfig
    layout: Layout
    live: dict[str, Tensor]
    dead: dict[str, Tensor] = field(default_factory=dict)


def from_published(data: object, *, where: object = "weights", num_pooler_heads: int | None = None) -> SpeechWeights:
    """Return a speech encoder out of what its file holds. No tensor is copied but one row of the pooler's table.

    Args:
        data: ``{"model": {name: tensor}}`` or the inner mapping.
        where: names the file in messages.
        num_pooler_heads: heads of the pooler, which no shape tells; by default as many as the conformer has, which is
            so in all released encoders.

    Raises:
        CheckpointError: not weights, those of another network, a key missing or unexpected, a shape that does not fit.
    """
    tensors = _unwrapped(data, where)
    layout = _layout(tensors, where)
    column = 1 if layout == "fairseq2" else 2
    counts = [_count(tensors, _STACKS[stack][column]) for stack in ("block", "pooler")]
    names = published_names(layout, *counts)
    missing = [name for name in (*names.live.values(), names.dead[_TABLE]) if name not in tensors]
    if missing:
        raise CheckpointError(f"{len(missing)} weights are missing", where=where, expected=missing[0])
    known = {*names.live.values(), *names.dead.values(), *_LEFTOVERS}
    unexpected = [name for name in tensors if name not in known]
    if unexpected:
        raise CheckpointError(
            f"{len(unexpected)} weights are not of a speech encoder of SONAR", where=where, got=unexpected[0]
        )
    live = {own: tensors[name] for own, name in names.live.items()}
    dead = {own: tensors[name] for own, name in names.dead.items() if name in tensors}
    table = dead[_TABLE]
    if table.ndim != 2 or len(table) <= TOKEN_ROW:
        got = tuple(table.shape)
        raise CheckpointError("a weight has another shape", where=f"{where}: {names.dead[_TABLE]}", got=got)
    live[_TOKEN] = table[TOKEN_ROW].clone()
    config = _config(live, counts, num_pooler_heads, where)
    check_shapes(live, config, where, names.live)
    absent = [own for own in names.dead if own not in dead and not own.endswith("num_batches_tracked")]
    if absent and len(absent) != 4 * counts[1]:  # a file without any of them is fine, half of them is not
        raise CheckpointError(f"{len(absent)} weights are missing", where=where, expected=names.dead[absent[0]])
    dead |= {name: tensors[name] for name in _LEFTOVERS if name in tensors}
    return SpeechWeights(config, layout, live, dead)


def to_published(
    live: Mapping[str, Tensor],
    dead: Mapping[str, Tensor] | None = None,
    *,
    layout: Layout = "fairseq2",
) -> dict[str, Tensor]:
    """Return the state dict that Meta's loader reads strictly: the inverse of :func:`from_published`.

    Args:
        live: of :class:`SonarSpeechEncoder`, by our names.
        dead: as :class:`SpeechWeights` keeps them. Those that are not given are zeros; they change no output.
        layout: leftovers of pre-training are written only where they were found, in ``fairseq``.

    Raises:
        ConfigError: another layout.
        CheckpointError: a live weight is missing.
    """
    if layout not in ("fairseq2", "fairseq"):
        raise ConfigError("unknown layout", where="layout", got=layout, expected="fairseq2 or fairseq")
    counts = [_count(live, _STACKS[stack][0]) for stack in ("block", "pooler")]
    names = published_names(layout, *counts)
    missing = [own for own in (*names.live, _TOKEN) if own not in live]
    if missing:
        raise CheckpointError(f"{len(missing)} weights are missing", where="live", expected=missing[0])
    given = dict(dead or {})
    token = live[_TOKEN]
    result = {name: live[own] for own, name in names.live.items()}
    for own, name in names.dead.items():
        if own in given:
            result[name] = given[own]
        elif own.endswith("num_batches_tracked"):
            result[name] = torch.zeros((), dtype=torch.long)
        elif own == _TABLE:
            result[name] = token.new_zeros(len(token), len(token))
        else:
            result[name] = torch.zeros_like(live[own.replace("q_proj", "v_proj").replace("k_proj", "v_proj")])
    table = result[names.dead[_TABLE]].to(token.dtype, copy=True)
    table[TOKEN_ROW] = token
    result[names.dead[_TABLE]] = table
    if layout == "fairseq":
        result |= {name: given[name] for name in _LEFTOVERS if name in given}
    return result


def check_shapes(
    live: Mapping[str, Tensor],
    config: SonarSpeechEncoderConfig,
    where: object,
    shown: Mapping[str, str] | None = None,
) -> None:
    """Check names, shapes and types of the weights of an encoder.

    Args:
        shown: under which name to speak of one of ours.

    Raises:
        CheckpointError: a weight is missing, unexpected, of another shape or not of floating type.
    """
    # A configuration from a file is not trusted: nothing is built that is larger than the weights.
    largest = max((size for tensor in live.values() for size in tensor.shape), default=0)
    bounds = {"num_layers": len(live), "num_pooler_layers": len(live)}
    bounds |= dict.fromkeys(("model_dim", "ffn_dim", "kernel_size", "pooler_ffn_dim", "concept_dim"), largest)
    for name, bound in bounds.items():
        if getattr(config, name) > bound:
            problem = "the configuration does not belong to the weights"
            raise CheckpointError(problem, where=f"{where}: {name}", expected=f"≤ {bound}", got=getattr(config, name))
    with torch.device("meta"):
        wanted = SonarSpeechEncoder(config).state_dict()
    missing = [name for name in wanted if name not in live]
    if missing:
        raise CheckpointError(f"{len(missing)} weights are missing", where=where, expected=missing[0])
    unexpected = [name for name in live if name not in wanted]
    if unexpected:
        raise CheckpointError(f"{len(unexpected)} weights are not of this model", where=where, got=unexpected[0])
    for name, tensor in wanted.items():
        place = f"{where}: {(shown or {}).get(name, name)}"
        expected, got = tuple(tensor.shape), tuple(live[name].shape)
        if got != expected:
            raise CheckpointError("a weight has another shape", where=place, expected=expected, got=got)
        if not live[name].is_floating_point():
            got_type = live[name].dtype
            raise CheckpointError("a weight has another type", where=place, expected="floating point", got=got_type)


def _unwrapped(data: object, where: object) -> dict[str, Tensor]:
    if isinstance(data, Mapping) and isinstance(data.get("model"), Mapping):
        data = data["model"]
    if not isinstance(data, Mapping) or not data:
        got = "nothing" if isinstance(data, Mapping) else type(data).__name__
        raise CheckpointError("no weights", where=where, got=got, expected="names and tensors")
    tensors: dict[str, Tensor] = {}
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError("not a tensor", where=f"{where}: {name}", got=type(value).__name__)
        tensors[name] = value.detach()
    return tensors


def _layout(tensors: Mapping[str, Any], where: object) -> Layout:
    if "encoder_pooler.projection_out.weight" in tensors:
        return "fairseq2"
    if "decoder.embed_out" in tensors and any(name.startswith("encoder.w2v_model.") for name in tensors):
        return "fairseq"
    found = f"{len(tensors)} tensors such as {next(iter(tensors))}"
    if any(name.endswith(("frontend.embed.weight", "embed_tokens.weight")) for name in tensors):
        found = "an encoder or decoder of text"
    elif any("encoder_frontend.post_extract" in name or "w2v_model" in name for name in tensors):
        found = "a w2v-BERT without SONAR's pooler"
    raise CheckpointError(
        "not a speech encoder of SONAR", where=where, got=found, expected="a file like spenc.v3ap.fra.pt"
    )


def _count(tensors: Mapping[str, Any], stack: str) -> int:
    """Return one more than the highest index of a stack of layers, and no more than there are tensors at all."""
    start = len(stack) + 1
    numbers = {name[start:].partition(".")[0] for name in tensors if name.startswith(f"{stack}.")}
    highest = max((int(number) for number in numbers if number.isdecimal() and len(number) < 9), default=-1)
    return min(highest + 1, len(tensors))


def _config(
    live: Mapping[str, Tensor], counts: list[int], num_pooler_heads: int | None, where: object
) -> SonarSpeechEncoderConfig:
    """Read the sizes off the shapes."""
    projection, biases = live["feature_projection.projection.weight"], live.get("encoder.layers.0.self_attn.pos_bias_u")
    inner = live.get("encoder.layers.0.ffn1.intermediate_dense.weight")
    kernel, fc1 = live.get("encoder.layers.0.conv_module.depthwise_conv.weight"), live.get("pooler.layers.0.fc1.weight")
    out = live["pooler.projection.weight"]
    if biases is None or inner is None or kernel is None or fc1 is None:
        raise CheckpointError("no layers", where=where, got=f"{counts[0]} blocks, {counts[1]} layers of the pooler")
    sizes = {"projection": projection, "pos_bias_u": biases, "intermediate_dense": inner, "fc1": fc1, "out": out}
    for name, tensor in sizes.items():
        if tensor.ndim != 2:
            got = tuple(tensor.shape)
            raise CheckpointError("a weight has another shape", where=f"{where}: {name}", expected="two axes", got=got)
    if projection.shape[1] != FEATURE_DIM:
        raise CheckpointError(
            "other features", where=where, expected=f"{FEATURE_DIM} channels", got=f"{projection.shape[1]} channels"
        )
    try:
        return SonarSpeechEncoderConfig(
            model_dim=projection.shape[0],
            num_layers=counts[0],
            num_heads=biases.shape[0],
            ffn_dim=inner.shape[0],
            kernel_size=kernel.shape[-1],
            num_pooler_layers=counts[1],
            num_pooler_heads=num_pooler_heads or biases.shape[0],
            pooler_ffn_dim=fc1.shape[0],
            concept_dim=out.shape[0],
        )
    except ConfigError as error:
        raise CheckpointError("sizes that do not fit together", where=where, got=error) from None


__all__ = [
    "Layout",
    "Names",
    "SpeechWeights",
    "check_shapes",
    "from_published",
    "published_names",
    "to_published",
]
