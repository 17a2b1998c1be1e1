"""The conformer, the pooler and the encoder: against plain sums, padding, short and long utterances, 16-bit weights."""

import pytest
import torch
from speech_small import small_speech_config, small_speech_encoder
from torch.nn import functional as F

from largeconcept.codec.speech import conformer
from largeconcept.codec.speech.conformer import RelativeSelfAttention, by_key, distance_table
from largeconcept.codec.speech.encoder import SonarSpeechEncoder, SonarSpeechEncoderConfig
from largeconcept.codec.speech.pooler import AttentionPooler
from largeconcept.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def encoder():
    return small_speech_encoder(seed=0)


def utterances(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 160, generator=generator) for length in lengths]


def padded(rows, value=0.0):
    longest = max(map(len, rows))
    return torch.stack([F.pad(row, (0, 0, 0, longest - len(row)), value=value) for row in rows])


# ---------------------------------------------------------------- attention


def test_distance_table():
    table = distance_table(3, 4)
    for row, distance in enumerate((2, 1, 0, -1, -2)):
        angles = torch.tensor([distance, distance * 0.01])
        expected = torch.stack((angles.sin(), angles.cos()), dim=1).flatten()
        torch.testing.assert_close(table[row], expected)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 5), (2, 2), (3, 7), (7, 7)])
def test_by_key_reads_the_right_column(queries, keys):
    scores = torch.arange(2 * queries * (keys + queries - 1)).view(2, queries, -1)
    got = by_key(scores, keys)
    assert got.shape == (2, queries, keys)
    for b in range(2):
        for q in range(queries):
            for k in range(keys):
                assert got[b, q, k] == scores[b, q, queries - 1 - q + k]


def test_attention_is_the_formula_of_transformer_xl():
    """Scores of every query and key one by one: (q + u)·k + (q + v)·W r(i - j)."""
    torch.manual_seed(1)
    length, dim, heads = 5, 8, 2
    attention = RelativeSelfAttention(dim, heads)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, length, dim)
    query, key, value = (
        p(x)[0].view(length, heads, 4) for p in (attention.linear_q, attention.linear_k, attention.linear_v)
    )
    mixed = torch.zeros(length, heads, 4)
    for h in range(heads):
        for i in range(length):
            scores = []
            for j in range(length):
                angles = (i - j) * torch.tensor([1.0, 0.1, 0.01, 0.001])
                sinusoid = torch.stack((angles.sin(), angles.cos()), dim=1).flatten()
                relative = (attention.linear_pos.weight @ sinusoid).view(heads, 4)[h]
                content = (query[i, h] + attention.pos_bias_u[h]) @ key[j, h]
                scores.append((content + (query[i, h] + attention.pos_bias_v[h]) @ relative) / 2)
            mixed[i, h] = torch.stack(scores).softmax(dim=0) @ value[:, h]
    expected = attention.linear_out(mixed.flatten(1))
    with torch.no_grad():
        torch.testing.assert_close(attention(x, distance_table(length, dim), None)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 7, 16])
def test_any_number_of_queries_at_once_gives_the_same(encoder, monkeypatch, block):
    rows = padded(utterances([23, 9]))
    lengths = torch.tensor([23, 9])
    with torch.no_grad():
        expected = encoder(rows, lengths)
        monkeypatch.setattr(conformer, "QUERY_BLOCK", block)
        torch.testing.assert_close(encoder(rows, lengths), expected, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- pooler


def test_pooler_is_a_decoder_with_one_token():
    """Against torch's own decoder, post-norm, whose self-attention has queries and keys that cannot matter."""
    torch.manual_seed(2)
    pooler = AttentionPooler(8, 2, 2, 16, 6)
    for parameter in pooler.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    frames, padding = torch.randn(3, 5, 8), torch.tensor([[0] * 5, [0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]).bool()
    x = (pooler.token * 8**0.5 + torch.tensor([0.0] * 4 + [1.0] * 4)).expand(3, 1, 8)
    for layer in pooler.layers:
        reference = torch.nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        state = reference.state_dict()
        own, other = layer.self_attn, layer.encoder_attn
        zeros = torch.randn(16, 8)  # queries and keys of self-attention: anything
        state["self_attn.in_proj_weight"] = torch.cat((zeros, own.v_proj.weight))
        state["self_attn.in_proj_bias"] = torch.cat((zeros[:, 0], own.v_proj.bias))
        attention = (other.q_proj, other.k_proj, other.v_proj)
        state["multihead_attn.in_proj_weight"] = torch.cat([p.weight for p in attention])
        state["multihead_attn.in_proj_bias"] = torch.cat([p.bias for p in attention])
        parts = {
            "self_attn.out_proj": own.out_proj,
            "multihead_attn.out_proj": other.out_proj,
            "linear1": layer.fc1,
            "linear2": layer.fc2,
            "norm1": layer.self_attn_layer_norm,
            "norm2": layer.encoder_attn_layer_norm,
            "norm3": layer.final_layer_norm,
        }
        for name, part in parts.items():
            state[f"{name}.weight"], state[f"{name}.bias"] = part.weight, part.bias
        reference.load_state_dict(state)
        x = reference(x, frames, memory_key_padding_mask=padding)
    with torch.no_grad():
        torch.testing.assert_close(pooler(frames, padding), pooler.projection(x[:, 0]), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- encoder


def test_a_ragged_batch_equals_single_rows(encoder):
    rows = utterances([40, 1, 17, 2])
    with torch.no_grad():
        alone = torch.cat([encoder(row[None]) for row in rows])
        for value in (0.0, 50.0, float("nan")):
            together = encoder(padded(rows, value), torch.tensor([40, 1, 17, 2]))
            torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert (alone[0] - alone[2]).abs().max() > 0.1  # the rows do differ


def test_every_frame_matters_and_so_does_their_order(encoder):
    (row,) = utterances([12])
    with torch.no_grad():
        before = encoder(row[None])
        for frame in range(12):
            changed = row.clone()
            changed[frame] += torch.linspace(-1, 1, 160)
            assert (encoder(changed[None]) - before).abs().max() > 1e-4
        assert (encoder(row.flip(0)[None]) - before).abs().max() > 1e-3


def test_training_mode_changes_nothing(encoder):
    (row,) = utterances([9])
    with torch.no_grad():
        expected = encoder(row[None])
        statistics = {name: value.clone() for name, value in encoder.named_buffers()}
        encoder.train()
        torch.testing.assert_close(encoder(row[None]), expected)
        encoder.eval()
    assert len(statistics) == 2 * encoder.config.num_layers
    for name, value in encoder.named_buffers():
        torch.testing.assert_close(value, statistics[name])


def test_gradients_reach_features_and_weights(encoder):
    rows = padded(utterances([6, 3])).requires_grad_()
    encoder(rows, torch.tensor([6, 3])).square().sum().backward()
    assert rows.grad is not None
    assert (rows.grad[1, :3] != 0).any()
    assert (rows.grad[1, 3:] == 0).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    encoder.zero_grad()


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 0.999), (torch.float16, 0.99999)])
def test_16_bit_weights(dtype, least):
    rows, lengths = padded(utterances([30, 11])), torch.tensor([30, 11])
    with torch.no_grad():
        expected = small_speech_encoder(seed=0)(rows, lengths)
        got = small_speech_encoder(seed=0).to(dtype)(rows, lengths)
    assert got.dtype == torch.float32
    assert F.cosine_similarity(got, expected).min() > least


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 5, 80), None, "features: wrong shape.*160"),
        ((5, 160), None, "features: wrong shape"),
        ((2, 0, 160), None, "features: wrong shape"),
        ((2, 5, 160), [5], "lengths: wrong shape"),
        ((2, 5, 160), [5, 6], "lengths: not a number of frames.*1 to 5.*6"),
        ((2, 5, 160), [5, 0], "lengths: not a number of frames"),
    ],
)
def test_bad_input(encoder, shape, lengths, message):
    with pytest.raises(DataError, match=message):
        encoder(torch.zeros(shape), None if lengths is None else torch.tensor(lengths))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kernel_size": 30}, "odd"),
        ({"num_heads": 3}, "multiple of num_heads"),
        ({"num_pooler_heads": 5}, "multiple of num_pooler_heads"),
        ({"model_dim": 7, "num_heads": 1, "num_pooler_heads": 1}, "even"),
    ],
)
def test_bad_sizes(setting, message):
    with pytest.raises(ConfigError, match=message):
        SonarSpeechEncoderConfig(**{**small_speech_config().to_dict(), **setting})


@pytest.mark.parametrize(("layers", "parameters"), [(3, 650_739_008), (6, 694_831_424)])
def test_sizes_of_the_released_encoders(layers, parameters):
    """English has 3 pooler layers, all others 6."""
    with torch.device("meta"):
        encoder = SonarSpeechEncoder(SonarSpeechEncoderConfig(num_pooler_layers=layers))
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert sum(b.numel() for b in encoder.buffers()) == 24 * 2 * 1024
