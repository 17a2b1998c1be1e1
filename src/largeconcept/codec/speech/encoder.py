"""SONAR's speech encoders: an utterance to a point of the space that SONAR's text encoder and decoder share.

Duquenne, Schwenk and Sagot 2023, arXiv:2308.11466, §4.2: a conformer of 24 blocks over log-mel features, an attention
pooler and a projection, trained as a student of the text encoder. One encoder for each language.

Shape letters: N utterances, T frames of 20 ms, D width, C concept dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from largeconcept.codec.rows import by_length
from largeconcept.codec.speech.conformer import Conformer
from largeconcept.codec.speech.features import FEATURE_DIM, SAMPLE_RATE, log_mel, num_frames
from largeconcept.codec.speech.pooler import AttentionPooler
from largeconcept.config import Config
from largeconcept.errors import ConfigError, DataError

MAX_SECONDS = 30.0
"""Length from which on an utterance is too long for one concept, by rule of thumb."""


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


def encode_audio(
    encoder: SonarSpeechEncoder,
    audio: Sequence[Tensor],
    *,
    batch_frames: int = 4096,
    max_seconds: float = MAX_SECONDS,
    on_long: Literal["warn", "error"] = "warn",
    numbers: Sequence[int] | None = None,
) -> Tensor:
    """Return concepts (N, C) float32 on the CPU, one of each utterance, in the order they were given.

    Args:
        encoder: on any device; features are computed there too.
        audio: N utterances, each (S,) floating numbers, mono, 16 kHz, about one sentence long.
        batch_frames: frames of 20 ms, padding included, that go through the network at once; utterances are sorted by
            length. 4096 is 82 seconds.
        max_seconds: from where on an utterance counts as long. The encoders were trained on single sentences; of more
            than about 30 seconds, one vector does not hold what was said.
        on_long: what then: warn and encode it all the same, or fail.
        numbers: by which messages name the utterances; by default 0 to N - 1.

    Raises:
        DataError: as :func:`largeconcept.codec.speech.features.log_mel`, naming the utterance; or one is too long.
        ConfigError: a setting out of range.
    """
    check_list(audio)
    if on_long not in ("warn", "error"):
        raise ConfigError("unknown choice", where="on_long", got=on_long, expected="warn or error")
    if batch_frames < 1:
        raise ConfigError("out of range", where="batch_frames", got=batch_frames, expected="≥ 1")
    names = [f"audio[{i}]" for i in (range(len(audio)) if numbers is None else numbers)]
    frames = [num_frames(_samples(row)) for row in audio]
    too_long = [i for i, row in enumerate(audio) if _samples(row) > max_seconds * SAMPLE_RATE]
    if too_long:
        first, hint = too_long[0], "cut long audio at its pauses into sentences"
        seconds = _samples(audio[first]) / SAMPLE_RATE
        if on_long == "error":
            expected = f"at most {max_seconds:g} seconds"
            raise DataError("too long", where=names[first], got=f"{seconds:.1f} s", expected=expected, hint=hint)
        warnings.warn(
            f"{len(too_long)} utterance(s) are longer than {max_seconds:g} s; the first is {names[first]} with "
            f"{seconds:.1f} s. One concept holds about one sentence: {hint}",
            stacklevel=2,
        )
    device = encoder.feature_projection.projection.weight.device
    concepts = torch.empty(len(audio), encoder.config.concept_dim)
    for rows in by_length(frames, batch_frames):
        with torch.inference_mode():  # not around the result, which may become the leaf of a graph
            features = [_features(audio[i], device, names[i]) for i in rows]
            lengths = torch.tensor([len(row) for row in features])
            batch = nn.utils.rnn.pad_sequence(features, batch_first=True).to(device)
            concepts[torch.tensor(rows)] = encoder(batch, lengths).cpu()
    return concepts


def check_list(audio: object) -> None:
    """Raise a DataError unless ``audio`` is a list (or tuple) of utterances."""
    if not isinstance(audio, Sequence) or isinstance(audio, str | bytes):
        raise DataError("expected a list of utterances", where="audio", got=type(audio).__name__, hint="use [samples]")


def _samples(row: object) -> int:
    """Number of samples of what may not be a tensor at all; :func:`log_mel` says what is wrong with it."""
    return row.shape[-1] if isinstance(row, Tensor) and row.ndim else 0


def _features(samples: Tensor, device: torch.device, where: str) -> Tensor:
    try:  # features need float64, which Apple's GPUs do not have
        return log_mel(
            samples.to("cpu" if device.type == "mps" else device) if isinstance(samples, Tensor) else samples
        )
    except DataError as error:
        raise DataError(error.problem, where=where, got=error.got, expected=error.expected, hint=error.hint) from None


__all__ = ["MAX_SECONDS", "SonarSpeechEncoder", "SonarSpeechEncoderConfig", "check_list", "encode_audio"]
