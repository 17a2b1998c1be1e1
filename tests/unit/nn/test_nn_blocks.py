"""The blocks: properties that do not need recorded numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.errors import ConfigError, DataError
from largeconcept.nn.adaln import Modulator, modulate
from largeconcept.nn.attention import CrossAttention, PositionwiseAttention, SelfAttention
from largeconcept.nn.decoder import CausalDecoder, TransformerConfig
from largeconcept.nn.kv_cache import KVCache
from largeconcept.nn.linear import Linear, few_rows_linear
from largeconcept.nn.masks import lengths_mask, shifted_causal_mask
from largeconcept.nn.mlp import Mlp, glu_width
from largeconcept.nn.norms import Norm, normalize
from largeconcept.nn.positions import LearnedPositions
from largeconcept.nn.rope import apply_rope, rope_table
from largeconcept.nn.timestep import TimestepEmbedding


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_rope_scores_depend_on_distance_only():
    q, k = torch.randn(1, 16), torch.randn(1, 16)

    def score(i, j):
        turned = [apply_rope(x, *rope_table(torch.tensor([p]), 16)) for x, p in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(3, 1), score(40, 38), rtol=1e-4, atol=1e-4)
    assert abs(score(3, 1) - score(3, 2)) > 1e-3


def test_rope_keeps_the_type_and_the_norm():
    x = torch.randn(2, 5, 8, dtype=torch.bfloat16)
    turned = apply_rope(x, *rope_table(torch.arange(5), 8))
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float().norm(dim=-1), x.float().norm(dim=-1), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("style", ["rms", "layer", "layer_weight", "layer_plain"])
def test_modulation_folds_into_a_norm(style):
    norm = Norm(12, style)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x, scale, shift = torch.randn(3, 12), torch.randn(12), torch.randn(12)
    weight, bias = norm.modulated(scale, shift)
    expected = norm(x) * (1 + scale) + shift
    torch.testing.assert_close(modulate(norm(x), shift, scale), expected)
    torch.testing.assert_close(normalize(x, style, weight, bias), expected)


def test_unknown_norm_is_refused():
    with pytest.raises(ConfigError, match="unknown normalisation"):
        Norm(4, "batch")


def test_modulator_and_timestep_embedding_start_as_in_the_reference():
    modulator, embedding = Modulator(8), TimestepEmbedding(256)
    assert not any(p.any() for p in modulator.parameters())
    assert not embedding.fc1.bias.any() and not embedding.fc2.bias.any()
    assert abs(embedding.fc2.weight.std() - 0.02) < 1e-3


def test_fused_projections_start_as_if_they_were_apart():
    """Xavier's bound depends on the shape of one D x D projection, not of the stack."""
    dim = 128
    attention, cross, alone = SelfAttention(dim, 4), CrossAttention(dim, 4), PositionwiseAttention(dim)
    for weight, gain in (
        (attention.qkv_proj.weight, 2**-0.5),
        (cross.q_proj.weight, 2**-0.5),
        (cross.kv_proj.weight, 2**-0.5),
        (alone.v_proj.weight, 2**-0.5),
        (attention.output_proj.weight, 1.0),
        (alone.output_proj.weight, 1.0),
    ):
        bound = gain * (6 / (2 * dim)) ** 0.5
        assert 0.98 * bound < weight.abs().max() <= bound
    assert not attention.qkv_proj.bias.any() and not cross.kv_proj.bias.any()


def test_positionwise_attention_is_attention_over_one_position():
    block = PositionwiseAttention(16, output_bias=False)
    torch.nn.init.normal_(block.v_proj.bias)
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(block(x), torch.nn.functional.linear(x, *block.folded()))
    whole = SelfAttention(16, 2, output_bias=False)
    with torch.no_grad():
        whole.qkv_proj.weight[32:] = block.v_proj.weight
        whole.qkv_proj.bias[32:] = block.v_proj.bias
        whole.output_proj.weight.copy_(block.output_proj.weight)
    torch.testing.assert_close(whole(x[:, :1]), block(x[:, :1]))


def test_zero_key_is_the_projection_of_the_zero_vector():
    cross = CrossAttention(16, 2)
    torch.nn.init.normal_(cross.kv_proj.bias)
    keys, values = cross.keys_values(torch.zeros(1, 1, 16))
    key, value = cross.zero_key_value()
    torch.testing.assert_close(keys[0], key)
    torch.testing.assert_close(values[0], value)


@given(st.integers(1, 100_000))
@settings(max_examples=50, deadline=None)
def test_gated_width(ffn_dim):
    width = glu_width(ffn_dim)
    assert width % 256 == 0
    assert 0 <= width - int(ffn_dim * 2 / 3) < 256


def test_both_mlps():
    x = torch.randn(3, 8)
    gated, plain = Mlp(8, 300, "swiglu"), Mlp(8, 300, "relu")
    gate, inner = gated.inner_proj(x).chunk(2, -1)
    assert inner.shape[1] == 256
    torch.testing.assert_close(gated(x), gated.output_proj(gate.sigmoid() * gate * inner))
    torch.testing.assert_close(plain(x), plain.output_proj(plain.inner_proj(x).clamp(min=0)))


@pytest.mark.parametrize("shape", [(1, 8), (2, 8), (3, 1, 8), (1, 3, 8), (4, 8), (0, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_take_the_other_order_and_give_the_same(shape, bias):
    layer, x = Linear(8, 5, bias=bias), torch.randn(shape)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
        half = layer.bfloat16()(x.bfloat16())
    assert half.shape == expected.shape and half.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert few_rows_linear(x, layer.weight.float(), None).dtype == torch.bfloat16


def test_masks():
    assert lengths_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
    mask = shifted_causal_mask(2, 6, torch.tensor([0, 3]))
    assert mask.shape == (2, 1, 2, 6)
    assert mask.sum(-1).flatten().tolist() == [1, 2, 4, 5]


def test_learned_positions_refuse_what_lies_beyond_the_table():
    table = LearnedPositions(4, 8, std=0.5)
    assert table(torch.arange(4), 3).shape == (4, 8)
    with pytest.raises(DataError, match="at most 4 concepts; got 5"):
        table(torch.arange(5), 4)


class TestKVCache:
    def make(self, lengths, capacity):
        cache = KVCache(2, len(lengths), 2, 3, capacity, torch.zeros(0))
        filled = torch.randn(2, 2, len(lengths), 2, max(lengths), 3)
        for layer in range(2):
            cache.fill(layer, *filled[layer])
        cache.set_lengths(lengths)
        return cache, filled

    def test_rows_grow_at_their_own_end(self):
        cache, filled = self.make([3, 1], capacity=4)
        new = torch.randn(2, 2, 2, 2, 3)  # layer, key or value, B, H, K
        cache.begin()
        for layer in range(2):
            cache.append(layer, *new[layer])
        assert cache.lengths == [4, 2]
        assert cache.mask.tolist() == [[[[True] * 4]], [[[True, True, False, False]]]]
        for layer in range(2):
            for kind, view in enumerate(cache.view(layer)):
                torch.testing.assert_close(view[0, :, :3], filled[layer, kind, 0])
                torch.testing.assert_close(view[0, :, 3], new[layer, kind, 0])
                torch.testing.assert_close(view[1, :, :1], filled[layer, kind, 1, :, :1])
                torch.testing.assert_close(view[1, :, 1], new[layer, kind, 1])

    def test_equal_rows_need_no_mask(self):
        cache, _ = self.make([2, 2], capacity=2)
        assert cache.mask is None
        cache.select([1])
        assert cache.lengths == [2]

    def test_selecting_reorders_and_shrinks(self):
        cache, filled = self.make([3, 1, 2], capacity=3)
        cache.select([2, 1])
        assert cache.lengths == [2, 1]
        assert cache.mask.shape == (2, 1, 1, 2)
        torch.testing.assert_close(cache.view(1)[1][0], filled[1, 1, 2, :, :2])

    def test_memory_grows_when_needed(self):
        cache, filled = self.make([2], capacity=2)
        cache.begin()
        for layer in range(2):
            cache.append(layer, torch.ones(1, 2, 3), torch.ones(1, 2, 3))
        assert cache.capacity >= 3
        torch.testing.assert_close(cache.view(0)[0][:, :, :2], filled[0, 0])
        assert (cache.view(0)[0][:, :, 2] == 1).all()


STYLES = {
    "recipe": {},
    "toy": {"norm": "layer", "mlp": "relu", "positions": "learned", "attention_output_bias": False},
    "sine": {"positions": "sine"},
    "none": {"positions": "none"},
}


@pytest.mark.parametrize("style", STYLES)
def test_decoder_step_by_step_equals_all_at_once(style):
    """Ragged prompts in one batch, then three steps, against the uncached stack on each row alone."""
    config = TransformerConfig(
        concept_dim=6, model_dim=16, num_heads=2, ffn_dim=32, max_positions=9, dropout=0.0, **STYLES[style]
    )
    decoder = CausalDecoder(config, 2, position_std=1.0).eval()
    x, lengths = torch.randn(3, 9, 6), [6, 2, 4]
    with torch.no_grad():
        expected = decoder(x)
        padded = torch.full((3, 6, 6), 7.0)
        for b, n in enumerate(lengths):
            padded[b, :n] = x[b, :n]
        cache = decoder.new_cache(3, 6)
        hidden = decoder.prefill(padded, lengths, cache)
        for b, n in enumerate(lengths):
            torch.testing.assert_close(hidden[b, :n], expected[b, :n])
        for i in range(3):
            at = [n + i for n in lengths]
            got = decoder.step(x[range(3), at], cache)
            torch.testing.assert_close(got, expected[range(3), at])


def test_decoder_positions_matter():
    for style in ("recipe", "toy", "sine"):
        config = TransformerConfig(concept_dim=6, model_dim=16, num_heads=2, max_positions=9, **STYLES[style])
        decoder = CausalDecoder(config, 1, position_std=1.0).eval()
        x = torch.randn(1, 3, 6)
        last = [decoder(x[:, order])[0, -1] for order in ([0, 1, 2], [1, 0, 2])]
        assert (last[0] - last[1]).abs().max() > 1e-4, style


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_dim": 30, "num_heads": 4}, "not a multiple"),
        ({"model_dim": 12, "num_heads": 4}, "even head dimension"),
        ({"model_dim": 15, "num_heads": 1, "positions": "sine"}, "even model_dim"),
        ({"norm": "rsm"}, "norm"),
        ({"num_head": 4}, "did you mean num_heads"),
    ],
)
def test_config_complains(settings, message):
    with pytest.raises(ConfigError, match=message):
        TransformerConfig.from_dict(settings)
