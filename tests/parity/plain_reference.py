"""The two released models written out plainly over Meta's own state-dict names: no cache, no fused products.

It shares no code with the library. `test_converted_models.py` first holds it against the golden numbers, then holds
converted models of every style against it.
"""

import math

import torch
import torch.nn.functional as F


class PlainModel:
    def __init__(self, weights, config):
        self.w, self.config = weights, config

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", torch.zeros(()))

    def norm(self, name, x, stack):
        weight, bias = self.w.get(f"{name}.weight"), self.w.get(f"{name}.bias")
        if stack["layer_normalization_style"] == "rms":
            return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (y if weight is None else y * weight) + (0 if bias is None else bias)

    def attention(self, name, x, context, mask, stack):
        """`mask` is additive, (rows, keys)."""
        heads = stack["num_attn_heads"]
        split = lambda y: y.unflatten(-1, (heads, -1)).transpose(-3, -2)  # noqa: E731
        q = split(self.linear(f"{name}.q_proj", x))
        k, v = split(self.linear(f"{name}.k_proj", context)), split(self.linear(f"{name}.v_proj", context))
        if stack["pos_embedding_style"] == "rope":
            q, k = self.rotate(q, stack), self.rotate(k, stack)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
        return self.linear(f"{name}.output_proj", (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2))

    @staticmethod
    def rotate(x, stack):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        exponents = torch.arange(pairs.shape[-1]) * 2 / x.shape[-1]
        angles = torch.arange(x.shape[-2]).unsqueeze(-1) * stack["rope_theta"] ** -exponents
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)

    def ffn(self, name, x, stack):
        inner = self.linear(f"{name}.inner_proj", x)
        if stack["use_swiglu"]:
            return self.linear(f"{name}.output_proj", F.silu(self.linear(f"{name}.gate_proj", x)) * inner)
        return self.linear(f"{name}.output_proj", inner.relu())

    def decoder(self, frontend, name, x, stack):
        x = self.linear(f"{frontend}.pre_linear", x)
        if stack["pos_embedding_style"] == "learned":
            x = x + self.w[f"{frontend}.pos_encoder.weight"][: x.shape[-2]]
        mask = torch.full((x.shape[-2],) * 2, -math.inf).triu(1)
        for n in range(stack["num_layers"]):
            layer = f"{name}.layers.{n}"
            y = self.norm(f"{layer}.self_attn_layer_norm", x, stack)
            x = x + self.attention(f"{layer}.self_attn", y, y, mask, stack)
            x = x + self.ffn(f"{layer}.ffn", self.norm(f"{layer}.ffn_layer_norm", x, stack), stack)
        return self.norm(f"{name}.layer_norm", x, stack)

    def mse(self, x):
        return self.linear("postnet.fc", self.decoder("frontend", "lcm", x, self.config["lcm"]))

    def contextualize(self, x):
        return self.decoder("encoder_frontend", "context_encoder", x, self.config["context_encoder"])

    def two_tower(self, x, noisy, timesteps):
        stack, context = self.config["denoiser"], self.contextualize(x)
        angles = timesteps.unsqueeze(-1) * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        time = self.linear("denoiser.embed_time.fc1", torch.cat((angles.cos(), angles.sin()), -1))
        time = F.silu(self.linear("denoiser.embed_time.fc2", F.silu(time)))
        context = torch.cat((torch.zeros_like(context[:, :1]), context), 1)
        size = x.shape[1]
        own = torch.full((size, size), -math.inf).fill_diagonal_(0.0)
        cross = torch.full((size, size + 1), -math.inf).triu(1)
        h = self.linear("denoiser.initial_proj.fc", noisy)
        for n in range(stack["num_layers"]):
            layer = f"denoiser.layers.{n}"
            shifts = self.linear(f"{layer}.modulator.fc", time).chunk(9, -1)
            blocks = (
                ("self_attn_layer_norm", lambda y, at=layer: self.attention(f"{at}.self_attn", y, y, own, stack)),
                (
                    "cross_attention_layer_norm",
                    lambda y, at=layer: self.attention(f"{at}.cross_attention", y, context, cross, stack),
                ),
                ("ffn_layer_norm", lambda y, at=layer: self.ffn(f"{at}.ffn", y, stack)),
            )
            for b, (norm, block) in enumerate(blocks):
                shift, scale, gate = shifts[3 * b : 3 * b + 3]
                h = h + gate * block(self.norm(f"{layer}.{norm}", h, stack) * (1 + scale) + shift)
        return self.linear("denoiser.final_proj.fc", self.norm("denoiser.layer_norm", h, stack))
