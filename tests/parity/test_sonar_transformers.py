"""Tests 1, 2, 3 and 9: SONAR's text networks in the classes of transformers. (12 and 13 are in test_speech_peer.py.)

pip install transformers && pytest -m peer tests/parity
"""

import warnings

import pytest
import sonar_original
import torch

from largeconcept import load_codec
from largeconcept.codec.sonar.layouts import HalfWeights, read_half, write_half
from largeconcept.codec.sonar.network import FIRST_POSITION
from largeconcept.codec.sonar.writing import WritingOptions, write
from largeconcept.nn.positions import sine_positions

pytestmark = pytest.mark.peer

IO = sonar_original.tensors("network")
TO_HF = {0: 1, 1: 3, 2: 0, 3: 2}  # <pad> <unk> <s> </s>


@pytest.fixture(scope="module")
def modeling():
    pytest.importorskip("transformers")
    return pytest.importorskip("transformers.models.m2m_100.modeling_m2m_100")


def theirs(ids):
    """Our ids as those of Hugging Face."""
    mapped = torch.arange(sonar_original.encoder().config.vocab_size)
    for own, other in TO_HF.items():
        mapped[own] = other
    return mapped[ids]


def config(attention="eager", vocab=97, layers=2):
    from transformers import M2M100Config

    return M2M100Config(
        vocab_size=vocab,
        d_model=32,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=sonar_original.HEADS,
        decoder_attention_heads=sonar_original.HEADS,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=1024,
        scale_embedding=True,
        activation_function="relu",
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        attn_implementation=attention,
    )


def their_encoder(modeling, attention="eager"):
    peer = modeling.M2M100Encoder(config(attention)).eval()
    missing, unexpected = peer.load_state_dict(write_half(sonar_original.read("encoder"), "huggingface"), strict=False)
    assert not missing and not unexpected
    return peer


def their_decoder(modeling, number=0, attention="eager"):
    peer = modeling.M2M100ForConditionalGeneration(config(attention)).eval()
    state = write_half(sonar_original.read(f"decoder{number}"), "huggingface")
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert not unexpected
    tied = ("model.encoder.", "model.decoder.embed_tokens.", "lm_head.")  # the first is not used, the others are shared
    assert all(name.startswith(tied) for name in missing), missing
    peer.tie_weights()
    table = state["model.shared.weight"]
    assert torch.equal(peer.lm_head.weight, table) and torch.equal(peer.model.decoder.embed_tokens.weight, table)
    return peer


def memory(concepts):
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=concepts[:, None].clone())  # generate() changes it


def test_01_positions(modeling):
    table = modeling.M2M100SinusoidalPositionalEmbedding(512, 1024, padding_idx=1).weights
    assert torch.equal(table[2:], sine_positions(torch.arange(FIRST_POSITION, len(table)), 1024))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_02_encoder_and_mean(modeling, attention):
    real = torch.arange(IO["tokens"].shape[1]) < IO["lengths"][:, None]
    with torch.no_grad():
        states = their_encoder(modeling, attention)(theirs(IO["tokens"]), attention_mask=real.long()).last_hidden_state
    mean = (states * real[..., None]).sum(dim=1) / IO["lengths"][:, None]
    got = sonar_original.encoder()(IO["tokens"], IO["lengths"])
    torch.testing.assert_close(got, mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", range(4))
def test_03_logits(modeling, number):
    ours = sonar_original.decoder(number)
    got = ours.logits(ours(IO["concepts"], IO["texts"]))
    with torch.no_grad():
        peer = their_decoder(modeling, number)
        want = peer(encoder_outputs=memory(IO["concepts"]), decoder_input_ids=theirs(IO["texts"])).logits
    torch.testing.assert_close(got, want[..., theirs(torch.arange(97))], rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("max_length", [4, 20])
def test_09_greedy(modeling, number, max_length):
    peer, ours = their_decoder(modeling, number), sonar_original.decoder(number)
    concepts = 0.7 * torch.randn(8, 32, generator=torch.Generator().manual_seed(number))
    for language in (60, 80):
        options = WritingOptions(method="greedy", max_length=max_length)
        mine = write(ours, concepts, [language] * len(concepts), options)
        with torch.no_grad():
            answer = peer.generate(
                encoder_outputs=memory(concepts),
                forced_bos_token_id=language,
                num_beams=1,
                do_sample=False,
                max_new_tokens=max_length + 1,  # the language counts
                bad_words_ids=[[TO_HF[0]], [TO_HF[1]]],
            )
        for row, tokens in zip(answer.tolist(), mine, strict=True):
            text = row[2:]
            text = text[: text.index(2)] if 2 in text else text
            back = {other: own for own, other in TO_HF.items()}
            assert [back.get(i, i) for i in text[:max_length]] == tokens
    if (number, max_length) == (0, 20):
        assert len({len(tokens) for tokens in mine}) > 1  # the ends are compared too


def test_06_a_saved_model_of_theirs_is_read_back(modeling, tmp_path):
    """Weights that transformers itself wrote come back as ours, bit for bit, and as fairseq2's."""
    from safetensors.torch import load_file

    their_decoder(modeling).save_pretrained(tmp_path)
    found = read_half(load_file(tmp_path / "model.safetensors"), "decoder", layout="huggingface")
    want = sonar_original.half_file("decoder0")["model"]
    again = write_half(HalfWeights("decoder", "fairseq2", found.live, found.dead), "fairseq2")["model"]
    assert set(again) == set(want)
    assert all(torch.equal(again[name], tensor) for name, tensor in want.items())


def test_folders_of_theirs_are_a_codec(modeling, tmp_path):
    """Both halves as transformers saves them, loaded by name, read and write as the original's pipelines do."""
    pipelines, records = sonar_original.tensors("pipelines"), sonar_original.records("pipelines")
    sizes = config(vocab=526, layers=1)
    for half, cls in (("encoder", modeling.M2M100Encoder), ("decoder", modeling.M2M100ForConditionalGeneration)):
        state = write_half(read_half(sonar_original.half_file(half, "pipelines"), half), "huggingface")
        peer = cls(sizes)
        peer.load_state_dict(state, strict=False)
        peer.tie_weights()
        peer.save_pretrained(tmp_path / half)
    (tmp_path / "tokenizer.model").write_bytes(sonar_original.tokenizer_model())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codec = load_codec(
            "sonar", encoder=tmp_path / "encoder", decoder=tmp_path / "decoder", spm=tmp_path / "tokenizer.model"
        )
    got = codec.encode(records["texts"][:-1], "eng_Latn")
    torch.testing.assert_close(got, pipelines["embeddings/eng_Latn"][:-1], rtol=0, atol=5e-6)
    one = records["written"][-1]
    written = codec.decode(
        pipelines["embeddings/eng_Latn"][[one["row"]]],
        one["language"],
        num_beams=one["beams"],
        max_length=one["max_total"] - 3,
    )
    assert written == [one["text"]]
