"""The quick ways of SONAR's networks give what the plain ones give."""

import copy
import pickle

import pytest
import torch
from sonar_small import small_decoder, small_encoder

from largeconcept.codec.sonar import network, quick
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.nn.linear import has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")
LENGTHS = [5, 3, 9, 3, 12, 9, 9, 3]


def sentences(encoder: SonarEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, encoder.config.vocab_size, (len(LENGTHS), max(LENGTHS)), generator=generator)
    lengths = torch.tensor(LENGTHS)
    return tokens.masked_fill(torch.arange(max(LENGTHS)) >= lengths[:, None], 0), lengths


@torch.no_grad()
def test_rows_instead_of_padded_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small_encoder(3)
    tokens, lengths = sentences(encoder)
    monkeypatch.setattr(quick, "CACHED_ROWS", 7)
    quickly, unpadded = encoder(tokens, lengths), encoder(tokens[4:5], None)
    in_bfloat16 = copy.deepcopy(encoder).bfloat16()(tokens, lengths)
    monkeypatch.setattr(network, "is_quick", lambda weight: False)
    plainly = encoder(tokens, lengths)
    torch.testing.assert_close(quickly, plainly, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(unpadded, plainly[4:5], rtol=1e-5, atol=1e-6)
    assert torch.cosine_similarity(in_bfloat16, plainly).min() > 0.999
    assert torch.cosine_similarity(plainly[:1], plainly[1:]).max() < 0.99  # else the line above would say nothing


def test_the_encoder_takes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, calls = small_encoder(3), []
    tokens, lengths = sentences(encoder)
    monkeypatch.setattr(network, "encode_rows", lambda *arguments: calls.append(1) or torch.zeros(1))
    encoder(tokens, lengths)
    assert not calls  # gradients
    with torch.inference_mode():
        encoder(tokens, lengths)
        assert calls == [1]
        encoder.half()(tokens[:2, :2], None)
    assert calls == [1]


def read(decoder: SonarDecoder, tokens: torch.Tensor, concepts: torch.Tensor) -> torch.Tensor:
    """States of all steps, with rows that leave, come twice and change places."""
    with torch.inference_mode():
        cache = decoder.start(concepts, 12)
        states = [decoder.step(tokens[:, step], cache) for step in range(3)]
        for rows in ([0, 4, 2, 2], [3, 1], [1, 0, 0, 1]):
            cache.select(torch.tensor(rows))
            states.append(decoder.step(tokens[: len(rows), 4], cache))
            states.append(decoder.scores(states[-1], cache))
        return torch.cat([one.flatten() for one in states]).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rearranged_weights(dtype: torch.dtype) -> None:
    decoder = small_decoder(5).to(dtype)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(4, decoder.config.vocab_size, (5, 6), generator=generator)
    concepts = torch.randn(5, decoder.config.concept_dim, generator=generator)
    packed = read(decoder, tokens, concepts)
    assert decoder._packed is not None
    decoder.pack = False
    plain = read(decoder, tokens, concepts)
    assert decoder._packed is None
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(packed, plain, rtol=tolerance, atol=tolerance * float(plain.std()))
    assert torch.equal(packed, plain) is False  # other products: else the comparison would be of one way with itself


def test_changed_weights_are_rearranged_again() -> None:
    decoder = small_decoder(5)
    tokens, concepts = torch.arange(4, 34).view(5, 6), torch.randn(5, decoder.config.concept_dim)
    before = read(decoder, tokens, concepts)
    with torch.no_grad():
        decoder.blocks[1].fc2.weight *= -1
    fresh = small_decoder(5)
    fresh.load_state_dict(decoder.state_dict())
    after = read(decoder, tokens, concepts)
    assert not torch.allclose(before, after, atol=0.1)
    torch.testing.assert_close(after, read(fresh, tokens, concepts))


def test_copies_leave_rearranged_weights_out() -> None:
    decoder = small_decoder(5)
    tokens, concepts = torch.arange(4, 34).view(5, 6), torch.randn(5, decoder.config.concept_dim)
    expected = read(decoder, tokens, concepts)
    for twin in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        assert twin._packed is None
        torch.testing.assert_close(read(twin, tokens, concepts), expected)


def test_gradients_go_around() -> None:
    decoder = small_decoder(5)
    concepts = torch.randn(2, decoder.config.concept_dim, requires_grad=True)
    cache = decoder.start(concepts, 3)
    assert cache.packed is None
    with torch.no_grad():
        assert decoder.start(concepts, 3).packed is not None


@pytest.mark.slow
def test_a_compiled_step() -> None:
    decoder = small_decoder(5)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(4, decoder.config.vocab_size, (5, 6), generator=generator)
    concepts = torch.randn(5, decoder.config.concept_dim, generator=generator)
    plain = read(decoder, tokens, concepts)
    decoder.compile_step()
    torch.testing.assert_close(read(decoder, tokens, concepts), plain, rtol=1e-5, atol=1e-5)
    assert decoder._packed is None
    assert copy.deepcopy(decoder)._layer_step is network.DecoderLayer.step
