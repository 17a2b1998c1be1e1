"""The reference implementation's state-dict names, turned into ours: fused projections stacked, dead weights dropped.

Self-attention of the reference's denoiser sees one position only, so its query and key weights never matter; they
have no counterpart here and are returned apart, for counting.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_FUSED = {
    # ours -> the reference's parts, stacked in this order
    "attention.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "cross_attention.kv_proj": ("cross_attention.k_proj", "cross_attention.v_proj"),
    "mlp.inner_proj": ("ffn.gate_proj", "ffn.inner_proj"),
}
_RENAMED = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.v_proj": "attention.v_proj",
    "self_attn.output_proj": "attention.output_proj",
    "cross_attention_layer_norm": "cross_attention_norm",
    "cross_attention.q_proj": "cross_attention.q_proj",
    "cross_attention.output_proj": "cross_attention.output_proj",
    "ffn_layer_norm": "mlp_norm",
    "ffn.inner_proj": "mlp.inner_proj",
    "ffn.output_proj": "mlp.output_proj",
    "modulator.fc": "modulator.fc",
}
_BASE = {
    "frontend.pre_linear": "decoder.input_proj",
    "frontend.pos_encoder": "decoder.positions",
    "lcm.layer_norm": "decoder.norm",
    "postnet.fc": "output_proj",
}
_TWO_TOWER = {
    "encoder_frontend.pre_linear": "contextualizer.input_proj",
    "encoder_frontend.pos_encoder": "contextualizer.positions",
    "context_encoder.layer_norm": "contextualizer.norm",
    "denoiser.embed_time.fc1": "denoiser.embed_time.fc1",
    "denoiser.embed_time.fc2": "denoiser.embed_time.fc2",
    "denoiser.initial_proj.fc": "denoiser.input_proj",
    "denoiser.layer_norm": "denoiser.norm",
    "denoiser.final_proj.fc": "denoiser.output_proj",
}
_STACKS = {"lcm": "decoder", "context_encoder": "contextualizer", "denoiser": "denoiser"}
_LAYER = re.compile(r"(lcm|context_encoder|denoiser)\.layers\.(\d+)\.(.+)\.(weight|bias)")


def from_meta(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (our state dict without the normalizer, the dead weights that were dropped)."""
    ours: dict[str, Tensor] = {}
    dead: dict[str, Tensor] = {}
    flat = _BASE if any(name.startswith("lcm.") for name in weights) else _TWO_TOWER
    used: set[str] = set()
    for name, tensor in weights.items():
        if "sonar_normalizer." in name or name in used:
            continue
        match = _LAYER.fullmatch(name)
        if match is None:
            stem, _, kind = name.rpartition(".")
            ours[f"{flat[stem]}.{kind}"] = tensor
            continue
        stack, index, part, kind = match.groups()
        prefix, target = f"{stack}.layers.{index}", f"{_STACKS[stack]}.layers.{index}"
        if stack == "denoiser" and part in ("self_attn.q_proj", "self_attn.k_proj"):
            dead[name] = tensor
            continue
        for new, parts in _FUSED.items():
            names = [f"{prefix}.{p}.{kind}" for p in parts]
            if part in parts and not (stack == "denoiser" and part.startswith("self_attn")) and names[0] in weights:
                ours[f"{target}.{new}.{kind}"] = torch.cat([weights[n] for n in names])
                used.update(names)
                break
        else:
            ours[f"{target}.{_RENAMED[part]}.{kind}"] = tensor
    return ours, dead
