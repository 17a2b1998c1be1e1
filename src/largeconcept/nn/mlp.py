"""The feed-forward part of a layer. Shape letters: D width, F inner width."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.nn.linear import Linear

MlpStyle = Literal["swiglu", "relu"]


def glu_width(ffn_dim: int) -> int:
    """Return two thirds of ``ffn_dim``, rounded up to a multiple of 256: the inner width of a gated MLP."""
    return 256 * -(-int(ffn_dim * 2 / 3) // 256)


class Mlp(nn.Module):
    """``swiglu``: out(silu(gate(x)) * inner(x)) (arXiv:2002.05202); ``relu``: out(relu(inner(x))). All with biases.

    Args:
        dim: D.
        ffn_dim: F of the ReLU MLP; the gated one is narrower, see :func:`glu_width`, to keep the parameter count.
        style: which of the two.
    """

    def __init__(self, dim: int, ffn_dim: int, style: MlpStyle = "swiglu") -> None:
        super().__init__()
        self.gated = style == "swiglu"
        inner = glu_width(ffn_dim) if self.gated else ffn_dim
        # One product for gate and inner: rows [:F] are the gate, rows [F:] the inner projection.
        self.inner_proj = Linear(dim, 2 * inner if self.gated else inner)
        self.output_proj = Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        h = self.inner_proj(x)
        if self.gated:
            gate, inner = h.chunk(2, dim=-1)
            h = F.silu(gate) * inner
        else:
            h = F.relu(h)
        out: Tensor = self.output_proj(h)
        return out
