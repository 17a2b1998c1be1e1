"""Log-mel features: the definition step by step, lengths, and what bad audio gives."""

import math

import pytest
import torch

from largeconcept.codec.speech import features
from largeconcept.codec.speech.features import MIN_SAMPLES, filter_bank, log_mel, num_frames
from largeconcept.errors import DataError


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_one_frame_by_the_definition():
    """Kaldi's steps written out for one frame, sum by sum."""
    audio = noise(400 + 160)
    frame = [float(x) * 2**15 for x in audio[160:].double()]
    mean = sum(frame) / 400
    frame = [x - mean for x in frame]
    frame = [x - 0.97 * frame[max(i - 1, 0)] for i, x in enumerate(frame)]
    frame = [x * (0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85 for i, x in enumerate(frame)]
    turn = [2 * math.pi * i / 512 for i in range(512)]
    power = []
    for k in range(256):
        real = sum(x * math.cos(turn[k * i % 512]) for i, x in enumerate(frame))
        imaginary = sum(x * math.sin(turn[k * i % 512]) for i, x in enumerate(frame))
        power.append(real**2 + imaginary**2)

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    low, high = mel(20), mel(8000)
    width = (high - low) / 81
    for b in range(80):
        centre = low + (b + 1) * width
        weights = [max(0.0, 1 - abs(mel(k * 31.25) - centre) / width) for k in range(256)]
        expected = math.log(sum(w * p for w, p in zip(weights, power, strict=True)))
        assert filter_bank(audio)[1, b].item() == pytest.approx(expected, abs=1e-5)


def test_bins_have_mean_0_and_unbiased_variance_1_before_stacking():
    audio = noise(400 + 160 * 7)  # 8 frames: nothing is dropped
    frames = log_mel(audio).reshape(8, 80)
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(80), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.var(dim=0), torch.ones(80), atol=1e-5, rtol=0)


def test_odd_last_frame_counts_in_the_mean_and_is_dropped():
    audio = noise(400 + 160 * 8)  # 9 frames
    energies = filter_bank(audio)
    assert energies.shape == (9, 80)
    expected = ((energies - energies.mean(dim=0)) / energies.std(dim=0))[:8].reshape(4, 160)
    torch.testing.assert_close(log_mel(audio), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", [MIN_SAMPLES, 719, 720, 879, 880, 16_000, 16_001])
def test_num_frames(samples):
    assert len(log_mel(noise(samples))) == num_frames(samples)


def test_shortest():
    assert (num_frames(559), num_frames(560), num_frames(0)) == (0, 1, 0)
    with pytest.raises(DataError, match=r"too short.*560 samples.*559"):
        log_mel(noise(559))


def test_no_frame_is_missed_between_chunks(monkeypatch):
    audio = noise(400 + 160 * 20)
    whole = log_mel(audio)
    monkeypatch.setattr(features, "_CHUNK", 5)
    torch.testing.assert_close(log_mel(audio), whole)


def test_gain_does_not_matter():
    audio = noise(8000)
    torch.testing.assert_close(log_mel(audio * 30), log_mel(audio), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types(dtype):
    audio = noise(4000).to(dtype)
    features = log_mel(audio)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, log_mel(audio.float()))


def test_a_bin_that_never_changes_is_0(monkeypatch):
    """A bin at the floor throughout, as of a band that a telephone line cuts off, divides nothing by zero."""
    audio = torch.zeros(8000)
    audio[2000:6000] = noise(4000)
    floor = filter_bank(torch.zeros(8000))
    torch.testing.assert_close(floor, torch.full_like(floor, math.log(2**-23)))  # the floor itself
    energies = filter_bank(audio)
    energies[:, 70:] = floor[:, 70:]
    monkeypatch.setattr(features, "filter_bank", lambda samples: energies)
    frames = log_mel(audio).reshape(-1, 80)
    assert torch.isfinite(frames).all()
    assert (frames[:, 70:] == 0).all()
    assert (frames[:, :70].abs() > 0).any(dim=0).all()


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(16_000), "silent"),
        (torch.full((16_000,), 0.3), "silent"),  # a constant voltage is no sound
        (torch.zeros(0), "too short"),
        (torch.zeros(2, 16_000), "wrong shape.*mean of the channels"),
        (torch.zeros(16_000, dtype=torch.int16), "not floating.*full scale"),
        ([0.0] * 16_000, "not a tensor"),
        (torch.full((16_000,), float("nan")), "audio: sample 0 is not finite"),
        (torch.cat((noise(1000), torch.tensor([float("inf")]))), "audio: sample 1000 is not finite"),
    ],
)
def test_bad_audio(audio, message):
    with pytest.raises(DataError, match=message):
        log_mel(audio)
