"""Tests 12 and 13: SONAR's speech encoder and its features against what the original recorded."""

import pytest
import sonar_original
import torch

from largeconcept.codec.speech.encoder import SonarSpeechEncoder, encode_audio
from largeconcept.codec.speech.features import FEATURE_DIM, STACK, log_mel
from largeconcept.codec.speech.layouts import from_published, to_published
from largeconcept.io import load_strict

IO = sonar_original.tensors("speech")
BANKS = sonar_original.tensors("filterbank")


def speech_encoder():
    found = from_published({"model": sonar_original.weights("speech", "speech")})
    network = SonarSpeechEncoder(found.config)
    load_strict(network, found.live, "fixture")
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder():
    return speech_encoder()


def stacked(banks, lengths):
    """Pairs of frames; an odd last frame is left out."""
    frames = banks.float()[:, : banks.shape[1] // STACK * STACK]
    return frames.reshape(len(banks), -1, FEATURE_DIM), lengths // STACK


# ------------------------------------------------------------------ 12


def test_12_embeddings(encoder):
    features, lengths = stacked(IO["banks"], IO["lengths"])
    torch.testing.assert_close(encoder(features, lengths), IO["embeddings"], rtol=0, atol=5e-6)


def test_12_embeddings_of_one_utterance_at_a_time(encoder):
    features, lengths = stacked(IO["banks"], IO["lengths"])
    for row, length in enumerate(lengths.tolist()):
        got = encoder(features[row : row + 1, :length])
        torch.testing.assert_close(got[0], IO["embeddings"][row], rtol=0, atol=5e-6)


@pytest.mark.parametrize(("name", "bound"), [("chirp", 2e-4), ("voice", 2e-5)])
def test_12_embeddings_from_samples(encoder, name, bound):
    """Features and networks together; the bounds are those of the features' float32."""
    samples = BANKS[f"{name}/samples"].float() / 2**15
    got = encode_audio(encoder, [samples])
    torch.testing.assert_close(got, IO[f"embedding/{name}"], rtol=0, atol=bound)


def test_12_states_of_the_conformer(encoder):
    features, _ = stacked(IO["banks"], IO["lengths"])
    frames = encoder.encoder(encoder.feature_projection(features[1:2, : len(IO["states"])]), None)[0]
    torch.testing.assert_close(frames, IO["states"], rtol=0, atol=5e-6)


def test_12_no_weight_is_unused():
    encoder = speech_encoder()
    features, lengths = stacked(IO["banks"], IO["lengths"])
    before = encoder(features, lengths)
    for name, tensor in encoder.state_dict().items():
        if name.endswith(("k_proj.bias", "linear_k.bias", "num_batches_tracked")):
            continue  # the bias of keys adds the same to all scores of a query
        kept = tensor.clone()
        tensor.mul_(1.5)
        assert not torch.allclose(encoder(features, lengths), before, atol=1e-4), name
        tensor.copy_(kept)


def test_12_names_go_round_without_loss():
    original = sonar_original.weights("speech", "speech")
    found = from_published({"model": dict(original)})
    for layout in ("fairseq", "fairseq2"):
        other = to_published(found.live, found.dead, layout=layout)
        assert layout == "fairseq2" or not set(other) & set(original)
        again = from_published(other)
        back = to_published(again.live, again.dead)
        assert set(back) == set(original)
        for name, tensor in original.items():
            assert torch.equal(back[name], tensor), name


# ------------------------------------------------------------------ 13


@pytest.mark.parametrize(("name", "bound"), [("chirp", 1e-3), ("voice", 5e-5)])
def test_13_features(name, bound):
    """Native float32 filter banks; the chirp's quiet bins are 80 dB below its loud ones, which costs them digits."""
    samples, bank = BANKS[f"{name}/samples"], BANKS[f"{name}/bank"]
    got = log_mel(samples.float() / 2**15)
    assert len(got) == len(bank) // STACK
    torch.testing.assert_close(got, stacked(bank[None], torch.tensor([0]))[0][0], rtol=0, atol=bound)


def test_13_an_odd_last_frame_is_dropped():
    samples, bank = BANKS["voice/samples"], BANKS["voice/bank"]
    shorter = samples[: 400 + 160 * 68]  # 69 frames
    assert len(bank) == 70
    assert len(log_mel(shorter.float() / 2**15)) == 34
