"""SONAR-LLM: a causal transformer over concepts that is trained through the codec's decoder (arXiv:2508.05305, §3).

The network is a Llama-style decoder between two linear projectors,

    h_i = P_in x_i;  h' = Layer_N(… Layer_1(h));  x̂_{i+1} = P_out norm(h'_i)

the same body as a Base-LCM's. What differs is what it is trained on: not the distance from the next concept, but how
likely the (frozen) decoder of the codec writes the next *sentence* from x̂_{i+1}; see
:mod:`largeconcept.objectives.through_decoder`. It predicts one concept, with no noise anywhere, and generates as a
Base-LCM does.

Sizes: inner width of the gated MLP 4 D, and heads whose width may differ from D/H (the released configurations have 64
channels a head at 900M, where D/H is 48). With them the counts are those of the paper: D 512, 8 layers, 16 heads of 32
give 34 million; D 1024, 10 layers, 16 heads of 64 give 170 million; D 1280, 16 layers, 26 heads of 64 give 450 million;
D 1536, 17 layers, 32 heads of 64 give 700 million (the names 100M, 300M, 600M and 900M count the unused token table of
Llama 3 too).

Note: the projections have biases (under 0.1 % of the weights), rotary angles are plain instead of stretched beyond 8192
positions, and concepts are normalised before P_in; the released code has no normaliser.

Shape letters: B batch, S concepts, C concept dimension, D width, H heads, K head dimension.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.models.mse import MSEConceptModel, MSEConfig


class ThroughDecoderConfig(MSEConfig):
    """Configuration of a model that is trained through a decoder; the defaults are the paper's 900M model.

    Attributes:
        ffn_dim: width of the MLP before the gated MLP's two-thirds rule; ``None`` for 6 ``model_dim``, so that its
            inner width is 4 ``model_dim``.
        head_size: K, channels of a head; ``None`` for ``model_dim`` / ``num_heads``.
    """

    type: Literal["through_decoder"] = "through_decoder"  # type: ignore[assignment]
    model_dim: int = Field(default=1536, ge=1)
    num_heads: int = Field(default=32, ge=1)
    num_layers: int = Field(default=17, ge=1)
    head_size: int | None = Field(default=None, ge=1)
    rope_theta: float = Field(default=500_000.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @property
    def head_dim(self) -> int:
        """K, channels of a head."""
        return self.model_dim // self.num_heads if self.head_size is None else self.head_size

    @property
    def inner_dim(self) -> int:
        """``ffn_dim`` with its default filled in."""
        return 6 * self.model_dim if self.ffn_dim is None else self.ffn_dim


class ThroughDecoderConceptModel(MSEConceptModel):
    """A Base-LCM's body, to be trained through a codec's decoder.

    Args:
        config: sizes and style.
    """

    config_class: ClassVar[type[Config]] = ThroughDecoderConfig

    def __init__(self, config: ThroughDecoderConfig) -> None:
        super().__init__(config)
