"""SONAR's speech encoders: an utterance to a point of the space that SONAR's text encoder and decoder share.

Duquenne, Schwenk and Sagot 2023, arXiv:2308.11466, §4.2: a conformer of 24 blocks over log-mel features, an attention
pooler and a projection, trained as a student of the text encoder. One encoder for each language.

Shape letters: N utterances, T frames of 20 ms, D width, C concept dimension.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from largeconcept.codec.speech.conformer import Conformer
from largeconcept.codec.speech.features import FEATURE_DIM
from largeconcept.codec.speech.pooler import AttentionPooler
from largeconcept.config import Config
from largeconcept.errors import DataError


class SonarSpeechEncoderConfig(Config):
    """Sizes of a speech encoder; the defaults are those of the released encoders except the English one.

    Attributes:
        model_dim: D.
        num_layers, num_heads, ffn_dim, kernel_size: of the conformer blocks.
        num_pooler_layers: 6; 3 in the English encoder.
        concept_dim: C.
    """

    type: Literal["sonar_speech_encoder"] = "sonar_speech_encoder"
    model_dim: int = Field(default=1024, ge=2)
    num_layers: int = Field(default=24, ge=1)
    num_heads: int = Field(default=16, ge=1)
    ffn_dim: int = Field(default=4096, ge=1)
    kernel_size: int = Field(default=31, ge=1)
    num_pooler_layers: int = Field(default=6, ge=1)
    num_pooler_heads: int = Field(default=16, ge=1)
    pooler_ffn_dim: int = Field(default=4096, ge=1)
    concept_dim: int = Field(default=1024, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> SonarSpeechEncoderConfig:
        if self.model_dim % 2:
            raise ValueError("model_dim must be even: sines and cosines share it")
        for name in ("num_heads", "num_pooler_heads"):
            if self.model_dim % getattr(self, name):
                raise ValueError(f"model_dim must be a multiple of {name}")
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size must be odd: the convolution sees as far to the left as to the right")
        return self


class FeatureProjection(nn.Module):
    """LayerNorm and a linear layer from the features to the width of the conformer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(FEATURE_DIM)
        self.projection = nn.Linear(FEATURE_DIM, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, T, D)."""
        projected: Tensor = self.projection(self.layer_norm(features))
        return projected


class SonarSpeechEncoder(nn.Module):
    """Features of utterances to their concepts.

    It computes in the type of its weights (float32, bfloat16, float16); there is no dropout, and the statistics of
    BatchNorm are those of the file, in training mode too.
    """

    def __init__(self, config: SonarSpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.model_dim
        self.feature_projection = FeatureProjection(dim)
        self.encoder = Conformer(dim, config.num_layers, config.num_heads, config.ffn_dim, config.kernel_size)
        self.pooler = AttentionPooler(
            dim, config.num_pooler_layers, config.num_pooler_heads, config.pooler_ffn_dim, config.concept_dim
        )

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return concepts (N, C) float32.

        Args:
            features: (N, T, 160) of :func:`largeconcept.codec.speech.features.log_mel`, padded on the right with
                anything.
            lengths: (N,) frames of each utterance, at least one; all T when left out.

        Raises:
            DataError: a wrong shape, or a length that is not between 1 and T.
        """
        padding = self._padding(features, lengths)
        if padding is not None:  # a weight of 0 does not help against a value that is not finite
            features = features.masked_fill(padding.unsqueeze(-1), 0.0)
        weight = self.feature_projection.projection.weight
        frames = self.encoder(self.feature_projection(features.to(weight.dtype)), padding)
        concepts: Tensor = self.pooler(frames, padding)
        return concepts.float()

    def _padding(self, features: Tensor, lengths: Tensor | None) -> Tensor | None:
        if features.ndim != 3 or features.shape[2] != FEATURE_DIM or not features.shape[1]:
            got = tuple(features.shape)
            raise DataError("wrong shape", where="features", expected=f"(N, T, {FEATURE_DIM})", got=got)
        if lengths is None:
            return None
        rows, longest = features.shape[:2]
        if lengths.shape != (rows,):
            raise DataError("wrong shape", where="lengths", expected=(rows,), got=tuple(lengths.shape))
        sizes: list[int] = lengths.long().tolist()
        wrong = [size for size in sizes if not 1 <= size <= longest]
        if wrong:
            raise DataError("not a number of frames", where="lengths", expected=f"1 to {longest}", got=wrong[0])
        if min(sizes, default=longest) == longest:
            return None
        steps = torch.arange(longest, device=features.device)
        return steps >= lengths.to(features.device).unsqueeze(1)


__all__ = ["SonarSpeechEncoder", "SonarSpeechEncoderConfig"]
