"""A small SONAR speech encoder with random weights in which nothing is left at zero or one, and sounds to hear."""

import math

import torch

from largeconcept.codec.speech.encoder import SonarSpeechEncoder, SonarSpeechEncoderConfig


def small_speech_config(**changes):
    """Sizes small enough to compute anywhere."""
    sizes = {
        "model_dim": 32,
        "num_layers": 2,
        "num_heads": 4,
        "ffn_dim": 48,
        "kernel_size": 7,
        "num_pooler_layers": 2,
        "num_pooler_heads": 4,
        "pooler_ffn_dim": 40,
        "concept_dim": 32,
    }
    return SonarSpeechEncoderConfig(**{**sizes, **changes})


def small_speech_encoder(seed=0, **changes):
    """An encoder whose norms, biases and statistics are random too: an exchanged tensor shows."""
    generator = torch.Generator().manual_seed(seed)
    encoder = SonarSpeechEncoder(small_speech_config(**changes)).eval()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(noise.exp())
            elif tensor.ndim == 1 and name.endswith("norm.weight"):
                tensor.copy_(1 + 0.3 * noise)
            elif tensor.ndim == 1:
                tensor.copy_(0.3 * noise)
            else:
                tensor.copy_(noise * (tensor[0].numel() ** -0.5))
    return encoder


def chirp(seconds=0.4, low=100.0, high=7000.0):
    """A tone that rises steadily, on the grid of 16 bits."""
    time = torch.arange(round(16_000 * seconds), dtype=torch.float64) / 16_000
    phase = 2 * math.pi * (low * time + (high - low) / (2 * seconds) * time * time)
    return ((0.5 * phase.sin() * 2**15).round() / 2**15).float()


def voice(seconds=0.5, pitch=120.0):
    """Harmonics of a wavering pitch in syllables, with pauses, on the grid of 16 bits."""
    time = torch.arange(round(16_000 * seconds), dtype=torch.float64) / 16_000
    phase = 2 * math.pi * torch.cumsum(pitch + 25 * (2 * math.pi * 1.7 * time).sin(), 0) / 16_000
    tone = sum((k * phase).sin() / k for k in range(1, 30))
    loudness = (0.5 + 0.6 * (2 * math.pi * 3.1 * time).sin()).clamp_min(0) ** 2
    hiss = torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((0.15 * tone * loudness + 0.001 * hiss).clamp(-1, 1) * 2**15).round().div(2**15).float()
