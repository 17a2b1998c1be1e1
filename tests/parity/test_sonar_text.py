"""SONAR's text networks against the original's recorded numbers, and against themselves.

The number of each test is that of the plan: 1 positions, 4 constant cross-attention, 5 cached steps and padding,
6 round trip of names, 7 embeddings and logits, 15 sixteen-bit weights. (2, 3 and 9 need transformers:
test_sonar_transformers.py; 8, 10 and 11 are in test_sonar_search.py and test_sonar_tokens.py.)
"""

import math

import pytest
import sonar_original
import torch
import torch.nn.functional as F

from largeconcept.codec.sonar.layouts import HalfWeights, read_half, write_half
from largeconcept.codec.sonar.network import FIRST_POSITION
from largeconcept.nn.positions import sine_positions

IO = sonar_original.tensors("network")


def close(got, want, share):
    """Within ``share`` of the largest value."""
    torch.testing.assert_close(got, want, rtol=0, atol=share * float(want.abs().max()))


@pytest.fixture(params=["plain", "quick"])
def way(request):
    """With gradients the networks compute plainly, without them by the quick products of a CPU."""
    with torch.inference_mode(request.param == "quick"):
        yield request.param


@pytest.fixture(scope="module")
def encoder():
    return sonar_original.encoder()


@pytest.fixture(scope="module")
def decoder():
    return sonar_original.decoder()


# ------------------------------------------------------------------ 1


def test_01_positions_are_those_of_the_original():
    got = sine_positions(IO["steps"] + FIRST_POSITION, 128)
    # An angle of 513 radians has float32 digits to 3e-5; those of the first tokens have all.
    torch.testing.assert_close(got, IO["sinusoids"], rtol=0, atol=4e-5)
    torch.testing.assert_close(got[:3], IO["sinusoids"][:3], rtol=0, atol=5e-7)


def test_01_positions_by_their_formula():
    """Sines then cosines, not interleaved; frequencies from 1 to 1/10 000, both included; the first token is 2."""
    table = sine_positions(torch.arange(FIRST_POSITION, FIRST_POSITION + 3), 1024)
    for step in range(3):
        for i in (0, 1, 100, 511):
            angle = (step + 2) * math.exp(-i * math.log(10_000) / 511)
            assert abs(float(table[step, i]) - math.sin(angle)) < 1e-6
            assert abs(float(table[step, 512 + i]) - math.cos(angle)) < 1e-6


# ------------------------------------------------------------------ 4


class AttentionToOneKey(torch.nn.Module):
    """Cross-attention as the original has it: queries after a norm, a softmax over one key."""

    def __init__(self, weights, layer, heads):
        super().__init__()
        self.weights, self.prefix, self.heads = weights, f"decoder.layers.{layer}.", heads

    def linear(self, x, name):
        name = f"{self.prefix}encoder_decoder_attn.{name}"
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def forward(self, x_NTD, concepts_NC):
        norm = f"{self.prefix}encoder_decoder_attn_layer_norm"
        normed = F.layer_norm(x_NTD, x_NTD.shape[-1:], self.weights[f"{norm}.weight"], self.weights[f"{norm}.bias"])
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (
                self.linear(normed, "q_proj"),
                self.linear(concepts_NC[:, None], "k_proj"),
                self.linear(concepts_NC[:, None], "v_proj"),
            )
        )
        probability = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        return self.linear((probability @ v).transpose(1, 2).flatten(2), "output_proj")


@pytest.mark.parametrize("disturbed", [False, True])
def test_04_attention_to_one_vector_is_a_constant(decoder, disturbed):
    weights = sonar_original.weights("network", "decoder0")
    generator = torch.Generator().manual_seed(1)
    if disturbed:  # queries, keys and the norm may be anything
        dead = ("encoder_decoder_attn.q_proj", "encoder_decoder_attn.k_proj", "encoder_decoder_attn_layer_norm")
        for name in weights:
            if any(part in name for part in dead):
                weights[name] = torch.randn(weights[name].shape, generator=generator)
    x = torch.randn(3, 7, 32, generator=generator)
    for layer, constant in enumerate(decoder.constants(IO["concepts"])):
        attended = AttentionToOneKey(weights, layer, sonar_original.HEADS)(x, IO["concepts"])
        close(constant[:, None].expand_as(attended), attended, 1e-6)


# ------------------------------------------------------------------ 5


def test_05_cached_steps_and_the_whole_text_agree(decoder, way):
    whole = decoder(IO["concepts"], IO["texts"])
    cache = decoder.start(IO["concepts"], IO["texts"].shape[1])
    steps = torch.stack([decoder.step(tokens, cache) for tokens in IO["texts"].T], dim=1)
    torch.testing.assert_close(steps, whole, rtol=0, atol=1e-5)


def test_05_reordered_caches_go_on_as_their_rows(decoder, way):
    cache = decoder.start(IO["concepts"], IO["texts"].shape[1])
    for tokens in IO["texts"].T[:6]:
        decoder.step(tokens, cache)
    rows = torch.tensor([2, 0, 0, 1])
    cache.select(rows)
    got = torch.stack([decoder.step(tokens, cache) for tokens in IO["texts"][rows].T[6:]], dim=1)
    whole = decoder(IO["concepts"][rows], IO["texts"][rows])
    torch.testing.assert_close(got, whole[:, 6:], rtol=0, atol=1e-5)


def test_05_padding_changes_nothing(encoder, way):
    together = encoder(IO["tokens"], IO["lengths"])
    for row, length in enumerate(IO["lengths"].tolist()):
        alone = encoder(IO["tokens"][row : row + 1, :length], None)
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=2e-6)
    disturbed = IO["tokens"].clone()
    for row, length in enumerate(IO["lengths"].tolist()):
        disturbed[row, length:] = 50
    torch.testing.assert_close(encoder(disturbed, IO["lengths"]), together, rtol=0, atol=2e-6)


# ------------------------------------------------------------------ 6


@pytest.mark.parametrize("prefix", ["encoder", "decoder0"])
def test_06_names_go_round_without_loss(prefix):
    """fairseq2 → ours → Hugging Face → ours → fairseq2: every tensor, dead ones too, bit for bit."""
    original = sonar_original.half_file(prefix)["model"]
    half = "encoder" if prefix == "encoder" else "decoder"
    ours = read_half({"model": dict(original)}, half)
    theirs = write_half(ours, "huggingface")
    back = read_half(theirs, half, layout="huggingface")
    again = write_half(HalfWeights(half, "fairseq2", back.live, back.dead), "fairseq2")["model"]
    assert set(again) == set(original)
    for name, tensor in original.items():
        assert torch.equal(again[name], tensor), name


def test_06_rows_and_names_of_hugging_face():
    """Only the first four rows change places; the names are those that transformers gives an M2M100."""
    original = sonar_original.half_file("decoder0")["model"]
    theirs = write_half(read_half({"model": dict(original)}, "decoder"), "huggingface")
    table, other = theirs["model.shared.weight"], original["decoder_frontend.embed.weight"]
    for row, place in enumerate((2, 0, 3, 1)):  # <s> <pad> </s> <unk> out of <pad> <unk> <s> </s>
        assert torch.equal(table[row], other[place])
    assert torch.equal(table[4:], other[4:])
    layer = "model.decoder.layers.1."
    assert torch.equal(theirs[f"{layer}fc1.bias"], original["decoder.layers.1.ffn.inner_proj.bias"])
    assert torch.equal(
        theirs[f"{layer}encoder_attn.k_proj.weight"], original["decoder.layers.1.encoder_decoder_attn.k_proj.weight"]
    )
    assert torch.equal(theirs[f"{layer}final_layer_norm.weight"], original["decoder.layers.1.ffn_layer_norm.weight"])


def test_06_a_file_is_not_changed_by_reading_it():
    """The table lies under two names; reading and writing leave it alone."""
    data = sonar_original.half_file("decoder0")
    before = data["model"]["final_proj.weight"].clone()
    theirs = write_half(read_half(data, "decoder"), "huggingface")
    read_half(theirs, "decoder", layout="huggingface")
    assert torch.equal(data["model"]["final_proj.weight"], before)
    assert data["model"]["final_proj.weight"] is data["model"]["decoder_frontend.embed.weight"]


@pytest.mark.parametrize("prefix", ["encoder", "decoder0"])
def test_06_the_other_layouts_give_the_same_network(prefix):
    half = "encoder" if prefix == "encoder" else "decoder"
    ours = sonar_original.read(prefix)
    for layout in ("fairseq", "huggingface", "fairseq2"):
        found = read_half(write_half(ours, layout), half, layout=layout)
        assert set(found.live) == set(ours.live)
        assert all(torch.equal(found.live[name], tensor) for name, tensor in ours.live.items()), layout


# ------------------------------------------------------------------ 7


def test_07_embeddings(encoder, way):
    torch.testing.assert_close(encoder(IO["tokens"], IO["lengths"]), IO["embeddings"], rtol=0, atol=2e-6)


def test_07_states_of_all_tokens(encoder, way):
    length = int(IO["lengths"][1])
    states = encoder.states(IO["tokens"][1:2, :length], None)[0]
    torch.testing.assert_close(states, IO["states"], rtol=0, atol=2e-6)


def test_07_logits(decoder, way):
    close(decoder.logits(decoder(IO["concepts"], IO["texts"])), IO["logits"], 2e-6)


def test_07_no_weight_is_unused():
    """Each parameter has an effect: a network that forgot one would pass where the weight is neutral."""
    encoder, decoder = sonar_original.encoder(), sonar_original.decoder.__wrapped__()
    for network, answer in (
        (encoder, lambda: encoder(IO["tokens"], IO["lengths"])),
        (decoder, lambda: decoder.logits(decoder(IO["concepts"], IO["texts"]))),
    ):
        before = answer()
        for name, parameter in network.named_parameters():
            if name.endswith("k_proj.bias"):
                continue  # adds the same to all scores of a query
            kept = parameter.data.clone()
            parameter.data.mul_(1.5)
            assert not torch.allclose(answer(), before, atol=1e-4), name
            parameter.data.copy_(kept)


# ------------------------------------------------------------------ 15


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_15_sixteen_bits(encoder, dtype):
    ours = sonar_original.encoder().to(dtype)
    got = ours(IO["tokens"], IO["lengths"])
    assert got.dtype == torch.float32
    cosine = F.cosine_similarity(got, IO["embeddings"], dim=1)
    assert float(cosine.min()) > 0.999, cosine


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_15_positions_are_not_rounded(dtype):
    """With 16-bit weights the table of positions stays float32: a zero embedding gets it rounded once, at the sum."""
    network = sonar_original.encoder().to(dtype)
    seen = []
    network.embed_tokens.weight.data.zero_()
    network.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(torch.full((1, 64), 5), None)
    exact = sine_positions(torch.arange(2, 66), 32)
    assert torch.equal(seen[0][0], exact.to(dtype))
    assert not torch.equal(exact.to(dtype).float(), exact)
