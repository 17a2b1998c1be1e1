"""Names and row orders under which SONAR's text weights are published, and ours for them.

Four layouts of the same numbers:

* ``fairseq2``: Meta's ``sonar_text_encoder.pt`` and ``sonar_text_decoder.pt``, ``{"model": {…}}`` with names like
  ``encoder_frontend.embed.weight`` (github.com/facebookresearch/SONAR, ``sonar/models/sonar_text``);
* ``fairseq``: older files, ``{"state_dict": {…}, "embed_tokens": …}`` with names like ``layers.0.fc1.weight``;
* ``huggingface``: ``M2M100Encoder`` and ``M2M100ForConditionalGeneration`` of transformers;
* ``largeconcept``: ours, the names of ``huggingface`` without prefix and the rows of ``fairseq2``.

The rows 0 to 3 of a table are ``<pad> <unk> <s> </s>`` in fairseq2 and ``<s> <pad> </s> <unk>`` in fairseq and Hugging
Face; all others agree. Which order a file has follows from its layout alone; values are never looked at. Queries, keys
and the norm of the decoder's cross-attention have no effect (:mod:`largeconcept.codec.sonar.network`): these *dead*
tensors, and leftovers such as ``version``, are kept apart so that a file can be written back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.errors import CheckpointError

Half = Literal["encoder", "decoder"]
Layout = Literal["largeconcept", "fairseq2", "fairseq", "huggingface"]

TABLE = "embed_tokens.weight"
HEAD_DIM = 64
"""Channels of an attention head in the released weights."""
TO_OWN_ROWS = (1, 3, 0, 2)
"""Row of a Hugging Face (or fairseq) table that our rows 0 to 3 are."""
TO_HF_ROWS = (2, 0, 3, 1)
"""The reverse."""

_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_LIVE = (*(f"self_attn.{part}" for part in _ATTENTION), "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm")
_CROSS = ("encoder_attn.v_proj", "encoder_attn.out_proj")
_DEAD = ("encoder_attn.q_proj", "encoder_attn.k_proj", "encoder_attn_layer_norm")
_FAIRSEQ2 = {
    **{f"self_attn.{part}": f"self_attn.{part}" for part in _ATTENTION[:3]},
    "self_attn.out_proj": "self_attn.output_proj",
    "self_attn_layer_norm": "self_attn_layer_norm",
    **{f"encoder_attn.{part}": f"encoder_decoder_attn.{part}" for part in _ATTENTION[:3]},
    "encoder_attn.out_proj": "encoder_decoder_attn.output_proj",
    "encoder_attn_layer_norm": "encoder_decoder_attn_layer_norm",
    "fc1": "ffn.inner_proj",
    "fc2": "ffn.output_proj",
    "final_layer_norm": "ffn_layer_norm",
}
_KINDS = ("weight", "bias")
# Leftovers of fairseq and of old transformers versions: a number of the file format and tables of sinusoids.
_LEFTOVERS = re.compile(r"(?:^|\.)(?:version|embed_positions\._float_tensor|embed_positions\.weights?)$")


@dataclass(slots=True)
class HalfWeights:
    """One half of SONAR under our names.

    Attributes:
        half: which.
        layout: of the file that it came from.
        live: the weights of our module, rows in our order.
        dead: under our names, what has no effect; leftovers under the names that they had.
    """

    half: Half
    layout: Layout
    live: dict[str, Tensor]
    dead: dict[str, Tensor] = field(default_factory=dict)


def own_names(half: Half, num_layers: int) -> tuple[list[str], list[str]]:
    """Return our names of the live and of the dead tensors."""
    parts = _LIVE if half == "encoder" else (*_LIVE, *_CROSS)
    live = [TABLE, "layer_norm.weight", "layer_norm.bias"]
    live += [f"layers.{i}.{part}.{kind}" for i in range(num_layers) for part in parts for kind in _KINDS]
    if half == "encoder":
        return live, []
    return live, [f"layers.{i}.{part}.{kind}" for i in range(num_layers) for part in _DEAD for kind in _KINDS]


def fairseq2_name(half: Half, name: str) -> str:
    """Return fairseq2's name for one of ours."""
    if name == TABLE:
        return f"{half}_frontend.embed.weight"
    if name.startswith("layer_norm."):
        return name if half == "encoder" else f"decoder.{name}"
    _, index, rest = name.split(".", 2)
    part, _, kind = rest.rpartition(".")
    return f"{half}.layers.{index}.{_FAIRSEQ2[part]}.{kind}"


# -------------------------------------------------------------------- reading


def read_half(
    data: object, half: Half, *, layout: Layout | None = None, where: object = "weights", owned: bool = False
) -> HalfWeights:
    """Find one half of SONAR in what a file holds.

    Args:
        data: what ``torch.load`` gave: a state dict, wrapped or not.
        half: the half that is wanted.
        layout: as the file declares it; by default the one that its wrapping and its names belong to. Ours has to be
            declared, because its names are those of Hugging Face.
        owned: the tensors may be changed: four rows of a table then change places in it instead of in a copy.

    Raises:
        CheckpointError: not a state dict, the other half, not SONAR's text networks, a key missing or unexpected, or an
            output matrix that is not the table.
    """
    tensors, declared = _unwrap(data, where)
    layout = layout or declared or _layout_of(tensors, where)
    names = _names(tensors, half, layout, where)
    used = set(names.theirs.values())
    missing = [own for own, name in names.theirs.items() if name not in tensors and own not in names.dead]
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights are missing", where=where, expected=names.theirs[missing[0]], hint="is it whole?"
        )
    absent = [own for own in names.dead if names.theirs[own] not in tensors]
    if absent and len(absent) != len(names.dead):
        raise CheckpointError(
            f"{len(absent)} weights without effect are missing", where=where, expected=names.theirs[absent[0]]
        )
    left = [name for name in tensors if name not in used and name not in names.aliases and not names.ignores(name)]
    unexpected = [name for name in left if not _LEFTOVERS.search(name)]
    if unexpected:
        raise CheckpointError(f"{len(unexpected)} weights are not of SONAR's {half}", where=where, got=unexpected[0])
    live = {own: tensors[name] for own, name in names.theirs.items() if own not in names.dead}
    dead = {own: tensors[names.theirs[own]] for own in names.dead if not absent}
    table = live[TABLE]
    for name in names.aliases:
        if name in tensors and not same_tensor(tensors[name], table):
            raise CheckpointError(
                "the output matrix is not the table of embeddings",
                where=f"{where}: {name}",
                expected="tied weights, as SONAR's are",
            )
    if layout in ("fairseq", "huggingface"):
        live[TABLE] = reordered(table, TO_OWN_ROWS, in_place=owned)
    return HalfWeights(half, layout, live, {**dead, **{name: tensors[name] for name in left}})


def reordered(table: Tensor, rows: tuple[int, ...], *, in_place: bool = False) -> Tensor:
    """Return a table whose first rows are its rows ``rows``, the others as they are."""
    if table.ndim != 2 or len(table) < len(rows):
        raise CheckpointError("not a table of embeddings", where=TABLE, got=tuple(table.shape))
    first = table[list(rows)]  # a copy
    table = table if in_place else table.clone()
    table[: len(rows)] = first
    return table


@dataclass(frozen=True, slots=True)
class _Names:
    """Where a file has what: our names to its names, which of ours are dead, other names of the table, other halves."""

    theirs: dict[str, str]
    dead: frozenset[str]
    aliases: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        return name.startswith(self.other) if self.other else False


def _unwrap(data: object, where: object) -> tuple[dict[str, Tensor], Layout | None]:
    """Return the tensors by name, and the layout if the wrapping declares it."""
    layout: Layout | None = None
    extra: dict[str, Any] = {}
    if isinstance(data, Mapping) and isinstance(data.get("state_dict"), Mapping):
        layout = "fairseq"
        table = data.get("embed_tokens")
        table = table.get("weight") if isinstance(table, Mapping) else getattr(table, "weight", table)
        if isinstance(table, Tensor):
            extra[TABLE] = table
        data = data["state_dict"]
    elif isinstance(data, Mapping) and isinstance(data.get("model"), Mapping):
        data = data["model"]
    if not isinstance(data, Mapping) or not data:
        got = "nothing" if isinstance(data, Mapping) else type(data).__name__
        raise CheckpointError("no weights", where=where, got=got, expected="names and tensors")
    tensors: dict[str, Tensor] = {}
    for name, value in {**data, **extra}.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError("not a tensor", where=f"{where}: {name}", got=type(value).__name__)
        tensors[name] = value.detach()
    return tensors, layout


def _layout_of(tensors: Mapping[str, Tensor], where: object) -> Layout:
    if any(name.startswith(("encoder_frontend.", "decoder_frontend.")) for name in tensors):
        return "fairseq2"
    if any(re.search(r"(?:^|\.)layers\.\d+\.fc1\.weight$", name) for name in tensors):
        fairseq = any(_LEFTOVERS.search(name) or name.endswith("output_projection.weight") for name in tensors)
        return "fairseq" if fairseq else "huggingface"
    raise CheckpointError(
        "not the weights of SONAR's text networks",
        where=where,
        got=f"{len(tensors)} tensors such as {next(iter(tensors))}",
        expected="sonar_text_encoder.pt, sonar_text_decoder.pt, or an M2M100 model of Hugging Face",
    )


def _names(tensors: Mapping[str, Tensor], half: Half, layout: Layout, where: object) -> _Names:
    other = "decoder" if half == "encoder" else "encoder"
    if layout == "fairseq2":
        if any(name.startswith(("encoder_pooler.", "encoder_frontend.post_extract")) for name in tensors):
            raise _wrong_half(half, "a speech encoder", where)
        if f"{half}_frontend.embed.weight" not in tensors and f"{other}_frontend.embed.weight" in tensors:
            raise _wrong_half(half, f"the text {other}", where)
        live, dead = own_names(half, _num_layers(tensors, f"{half}."))
        theirs = {name: fairseq2_name(half, name) for name in (*live, *dead)}
        return _Names(theirs, frozenset(dead), ("final_proj.weight",) if half == "decoder" else ())
    for prefix in (f"model.{half}.", f"{half}.", ""):
        inner = [name for name in tensors if name.startswith(f"{prefix}layers.")]
        if inner:
            break
    else:
        raise _wrong_half(half, f"the text {other}", where)
    if any(".encoder_attn." in name for name in inner) != (half == "decoder"):
        raise _wrong_half(half, f"the text {other}", where)
    live, dead = own_names(half, _num_layers(tensors, prefix))
    theirs = {name: prefix + name for name in (*live, *dead)}
    outputs = ("lm_head.weight", f"{prefix}output_projection.weight")
    tables = (prefix + TABLE, "model.shared.weight", "shared.weight", *(outputs if half == "decoder" else ()))
    theirs[TABLE] = next((name for name in tables if name in tensors), tables[0])
    # A model with both halves may be read for one of them; what it shares with the other is no leftover.
    others = (f"model.{other}.", f"{other}.", "model.shared.", "shared.", "final_logits_bias")
    aliases = outputs if half == "decoder" else ()
    return _Names(theirs, frozenset(dead), aliases, (*others, *(() if half == "decoder" else ("lm_head.",))))


def _num_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.")
    return 1 + max((int(match[1]) for name in tensors if (match := pattern.match(name))), default=0)


def _wrong_half(half: Half, found: str, where: object) -> CheckpointError:
    return CheckpointError(f"the file holds {found} of SONAR", where=where, expected=f"the text {half}")


def same_tensor(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are one, or have the same values."""
    if a.shape != b.shape:
        return False
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


# -------------------------------------------------------------------- writing


def write_half(weights: HalfWeights, layout: Layout) -> dict[str, Any]:
    """Return a half as a file of another layout holds it; reading that gives the same tensors again.

    Dead tensors that were not kept are filled: ones for the weights of norms, zeros otherwise. Leftovers go back into
    the layout that they came from.

    Returns:
        ``{"model": {…}}`` for ``fairseq2``, ``{"state_dict": {…}, "embed_tokens": table}`` for ``fairseq``, and plain
        names otherwise: without prefix for an ``M2M100Encoder``, with ``model.decoder.`` for the decoder of an
        ``M2M100ForConditionalGeneration``.
    """
    half = weights.half
    _, dead = own_names(half, _num_layers(weights.live, ""))
    own = dict(weights.live)
    own |= {name: weights.dead[name] if name in weights.dead else _filled(name, own) for name in dead}
    leftovers = {name: value for name, value in weights.dead.items() if name not in own}
    if layout == "largeconcept":
        return own
    if layout == "fairseq2":
        model = {fairseq2_name(half, name): tensor for name, tensor in own.items()}
        if half == "decoder":
            model["final_proj.weight"] = own[TABLE]
        return {"model": model}
    table = own[TABLE] = reordered(own[TABLE], TO_HF_ROWS)
    if layout == "fairseq":
        if half == "encoder":
            del own[TABLE]
        else:
            own["output_projection.weight"] = table
        return {"state_dict": {**leftovers, **own}, "embed_tokens": {"weight": table}}
    if half == "encoder":
        return own
    return {f"model.decoder.{name}": tensor for name, tensor in own.items() if name != TABLE} | {
        "model.shared.weight": table
    }


def _filled(name: str, live: Mapping[str, Tensor]) -> Tensor:
    """A dead tensor that was not kept."""
    width = live["layer_norm.weight"].shape[0]
    like = live[re.sub(r"(?<=encoder_attn).*", ".v_proj.weight", name)]
    if name.endswith("bias"):
        return like.new_zeros(width)
    if "layer_norm" in name:
        return like.new_ones(width)
    return like.new_zeros((width, like.shape[1] if ".k_proj." in name else width))


# -------------------------------------------------------------------- shapes


def config_of(
    weights: HalfWeights, where: object, *, num_heads: int | None = None, max_tokens: int | None = None
) -> SonarEncoderConfig | SonarDecoderConfig:
    """Return the shape that weights have.

    Args:
        num_heads: does not show in the weights; heads of 64 channels by default, as released.
        max_tokens: likewise; as released by default.

    Raises:
        CheckpointError: tensors that are not matrices, or no default for the number of heads.
    """
    live = weights.live
    for name in (TABLE, "layers.0.fc1.weight"):
        if live[name].ndim != 2:
            raise CheckpointError("not a matrix", where=f"{where}: {name}", got=tuple(live[name].shape))
    vocab_size, width = live[TABLE].shape
    if num_heads is None:
        if width % HEAD_DIM:
            raise CheckpointError(
                "the number of attention heads is not known",
                where=where,
                got=f"{width} channels",
                hint="give num_heads",
            )
        num_heads = width // HEAD_DIM
    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "width": width,
        "num_layers": _num_layers(live, ""),
        "num_heads": num_heads,
        "ffn_dim": live["layers.0.fc1.weight"].shape[0],
        **({} if max_tokens is None else {"max_tokens": max_tokens}),
    }
    if weights.half == "encoder":
        return SonarEncoderConfig(**sizes)
    concept_dim = live["layers.0.encoder_attn.v_proj.weight"].shape[-1]
    return SonarDecoderConfig(**sizes, input_dim=None if concept_dim == width else concept_dim)
