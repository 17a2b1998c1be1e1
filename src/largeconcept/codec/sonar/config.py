"""Shapes of SONAR's text encoder and decoder; the defaults are those of the released weights.

Source: the ``basic`` architecture of github.com/facebookresearch/SONAR, which is NLLB-200 1.3B (arXiv 2207.04672) with
a pooled encoder.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from largeconcept.config import Config


class _SonarConfig(Config):
    vocab_size: int = Field(256_206, ge=5)
    width: int = Field(1024, ge=2)
    num_layers: int = Field(24, ge=1)
    num_heads: int = Field(16, ge=1)
    ffn_dim: int = Field(8192, ge=1)

    @model_validator(mode="after")
    def _check(self) -> _SonarConfig:
        if self.width % 2 or self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be even and a multiple of num_heads {self.num_heads}")
        return self


class SonarEncoderConfig(_SonarConfig):
    """Shape of the sentence encoder; a concept has ``width`` channels.

    Attributes:
        vocab_size: V; pieces, control ids and language tokens.
        width: D, and C, the channels of a concept.
        num_layers, num_heads, ffn_dim: of the transformer.
        max_tokens: most tokens of a sentence, its language and ``</s>`` included.
    """

    max_tokens: int = Field(514, ge=3)


class SonarDecoderConfig(_SonarConfig):
    """Shape of the sentence decoder.

    Attributes:
        vocab_size: V, as of the encoder.
        width: D.
        num_layers, num_heads, ffn_dim: of the transformer.
        max_tokens: most tokens that can be read, the prompt (``</s>`` and the language) included.
        input_dim: C, the channels of a concept; ``None`` means ``width``, as in all released weights.
    """

    max_tokens: int = Field(512, ge=3)
    input_dim: int | None = Field(None, ge=1)

    @property
    def concept_dim(self) -> int:
        """C, the channels of a concept."""
        return self.width if self.input_dim is None else self.input_dim
