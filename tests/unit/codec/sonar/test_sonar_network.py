"""The encoder and the decoder against formulas written out here, and against themselves."""

import math

import pytest
import torch
import torch.nn.functional as F

from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.errors import ConfigError, DataError

SIZES = {"vocab_size": 97, "width": 32, "num_layers": 3, "num_heads": 4, "ffn_dim": 64, "max_tokens": 40}


def randomised(module, seed=0):
    """Norms and biases too: ones and zeros hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator) * 0.2
            weight.copy_(1 + noise if "norm.weight" in name else noise)
    return module.eval()


@pytest.fixture
def encoder():
    return randomised(SonarEncoder(SonarEncoderConfig(**SIZES)))


@pytest.fixture
def decoder():
    return randomised(SonarDecoder(SonarDecoderConfig(**SIZES)), 1)


@pytest.fixture
def concepts():
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(2)) * 0.3


def tokens(*shape, seed=3):
    return torch.randint(4, 97, shape, generator=torch.Generator().manual_seed(seed))


def plain(weights, ids, concept=None, heads=4, layers=3):
    """One sentence through either network in float64, with loops and real cross-attention over one key."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    width = w["embed_tokens.weight"].shape[1]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    half = width // 2
    rows = []
    for t in range(len(ids)):
        angles = [(t + 2) * math.exp(-i * math.log(10_000) / (half - 1)) for i in range(half)]
        position = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
        rows.append(w["embed_tokens.weight"][ids[t]] * math.sqrt(width) + position)
    x = torch.stack(rows)
    for layer in range(layers):
        stem = f"layers.{layer}"
        y = norm(x, f"{stem}.self_attn_layer_norm")
        q, k, v = (linear(y, f"{stem}.self_attn.{part}_proj") for part in "qkv")
        mixed = torch.zeros_like(x)
        size = width // heads
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            if concept is not None:
                scores = scores + torch.full_like(scores, -torch.inf).triu(1)
            mixed[:, part] = scores.softmax(-1) @ v[:, part]
        x = x + linear(mixed, f"{stem}.self_attn.out_proj")
        if concept is not None:
            x = x + linear(linear(concept.double(), f"{stem}.encoder_attn.v_proj"), f"{stem}.encoder_attn.out_proj")
        y = linear(norm(x, f"{stem}.final_layer_norm"), f"{stem}.fc1").clamp(min=0)
        x = x + linear(y, f"{stem}.fc2")
    return norm(x, "layer_norm")


def test_the_encoder_is_the_formula(encoder):
    ids = tokens(1, 9)
    expected = plain(encoder.state_dict(), ids[0].tolist()).sum(0) / (9 + 1e-7)
    torch.testing.assert_close(encoder(ids, torch.tensor([9]))[0].double(), expected, atol=2e-6, rtol=0)


def test_the_decoder_is_the_formula(decoder, concepts):
    ids = tokens(1, 7)
    expected = plain(decoder.state_dict(), ids[0].tolist(), concepts[0])
    torch.testing.assert_close(decoder(concepts[:1], ids)[0].double(), expected, atol=3e-6, rtol=0)
    scores = decoder.logits(decoder(concepts[:1], ids))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores[0].double(), expected @ decoder.embed_tokens.weight.double().T, atol=2e-5, rtol=0)


def test_attention_to_one_vector_does_not_depend_on_the_query(decoder, concepts):
    layer = decoder.blocks[0].encoder_attn
    key, value = torch.randn(3, 1, 32), layer.v_proj(concepts)[:, None]
    for seed in range(2):
        query = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(seed))
        heads = (x.unflatten(-1, (4, 8)).transpose(1, 2) for x in (query, key, value))
        attended = layer.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attended, layer(concepts)[:, None].expand(-1, 5, -1), atol=1e-6, rtol=0)


def test_padding_changes_nothing(encoder):
    lengths = torch.tensor([3, 11, 6])
    padded = torch.zeros(3, 11, dtype=torch.long)
    for row, size in enumerate(lengths):
        padded[row, :size] = tokens(int(size), seed=row)
    together = encoder(padded, lengths)
    for row, size in enumerate(lengths):
        alone = encoder(padded[row : row + 1, :size], None)
        torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=0)
    garbage = padded.clone()
    garbage[0, 3:] = 50
    assert torch.equal(encoder(garbage, lengths), together)


def test_step_by_step_equals_all_at_once(decoder, concepts):
    ids = tokens(3, 12)
    full = decoder(concepts, ids)
    cache = decoder.start(concepts, 12)
    for t in range(12):
        torch.testing.assert_close(decoder.step(ids[:, t], cache), full[:, t], atol=3e-6, rtol=0)


def test_rows_of_the_cache_leave_repeat_and_change_places(decoder, concepts):
    ids = tokens(3, 9)
    full = decoder(concepts, ids)
    cache = decoder.start(concepts, 9)
    where = torch.arange(3)
    for t, rows in enumerate([None, [2, 0, 1], [0, 0, 1, 2, 2], [4, 1], [1, 0, 0], None, [2], [0, 0, 0, 0], None]):
        torch.testing.assert_close(decoder.step(ids[where, t], cache), full[where, t], atol=3e-6, rtol=0)
        if rows is not None:
            cache.select(torch.tensor(rows))
            where = where[torch.tensor(rows)]
    assert len(cache.keys[0]) == 4


def test_concepts_get_gradients(decoder, concepts):
    concepts = concepts.double().requires_grad_()
    ids = tokens(3, 4)
    weight = torch.randn(3, 4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    network = decoder.double()
    assert torch.autograd.gradcheck(
        lambda c: (network(c, ids).double() * weight).sum(), (concepts,), eps=1e-4, atol=2e-2
    )


def test_a_memory_of_another_width():
    decoder = randomised(SonarDecoder(SonarDecoderConfig(**SIZES, input_dim=20)))
    concepts, ids = torch.randn(2, 20), tokens(2, 5)
    assert decoder.config.concept_dim == 20
    expected = plain(decoder.state_dict(), ids[1].tolist(), concepts[1])
    torch.testing.assert_close(decoder(concepts, ids)[1].double(), expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("dtype, closeness", [(torch.bfloat16, 0.999), (torch.float16, 0.99999)])
@torch.no_grad()
def test_half_precision(encoder, decoder, concepts, dtype, closeness):
    ids, lengths = tokens(3, 30), torch.tensor([30, 30, 12])
    exact, states = encoder(ids, lengths), decoder(concepts, ids)
    encoder.to(dtype), decoder.to(dtype)
    rounded = encoder(ids, lengths)
    assert rounded.dtype == torch.float32
    assert float(F.cosine_similarity(rounded, exact).min()) > closeness
    cache = decoder.start(concepts, 30)
    for t in range(30):
        hidden = decoder.step(ids[:, t], cache)
        assert hidden.dtype == dtype and float(F.cosine_similarity(hidden.float(), states[:, t]).min()) > closeness
    # The table of positions was not rounded with the weights.
    assert encoder._positions(0, 30, ids.device).dtype == torch.float32


def test_too_many_tokens(encoder, decoder, concepts):
    encoder(tokens(1, 40), None)
    with pytest.raises(DataError, match="got 41"):
        encoder(tokens(1, 41), None)
    with pytest.raises(DataError, match="at most 40"):
        decoder(concepts[:1], tokens(1, 41))
    with pytest.raises(DataError, match="at most 40"):
        decoder.start(concepts, 41)
    cache = decoder.start(concepts, 1)
    decoder.step(tokens(3), cache)
    with pytest.raises(DataError, match="cache is full"):
        decoder.step(tokens(3), cache)


def test_the_released_sizes():
    with torch.device("meta"):
        encoder, decoder = SonarEncoder(SonarEncoderConfig()), SonarDecoder(SonarDecoderConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 766_091_264
    # Without 24 × (2 (D² + D) + 2 D) numbers that have no effect.
    assert sum(p.numel() for p in decoder.parameters()) == 866_902_016 - 24 * (2 * (1024**2 + 1024) + 2 * 1024)


def test_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match="multiple of num_heads"):
        SonarEncoderConfig(width=30, num_heads=4)
