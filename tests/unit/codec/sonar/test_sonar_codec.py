"""SONAR behind the interface of a codec, with small random weights."""

import itertools
import math
import warnings

import pytest
import torch
from sonar_small import TEXT, small_codec, small_decoder, small_encoder, small_tokenizer

from largeconcept.codec.sonar.codec import SonarCodec
from largeconcept.codec.sonar.tokenizer import EOS
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError
from largeconcept.types import ConceptCodec, DifferentiableDecoder

SHORT = ["Tim had a red ball.", "La balle a roulé.", "x", "Der Ball rollte weg, und Tim lief ihm nach."]


@pytest.fixture(scope="module")
def codec():
    return small_codec()


def test_it_is_a_codec(codec):
    assert isinstance(codec, ConceptCodec) and isinstance(codec, DifferentiableDecoder)
    assert codec.dim == 32 and len(codec.languages) == 202 and len(codec.fingerprint) == 16
    assert codec.fingerprint == small_codec().fingerprint != small_codec(1).fingerprint


# -------------------------------------------------------------------- encoding


def test_encoding_is_the_network_on_the_tokens(codec):
    concepts = codec.encode(SHORT, ["eng_Latn", "fra_Latn", "eng_Latn", "deu_Latn"])
    assert concepts.shape == (4, 32) and concepts.dtype == torch.float32
    for i, lang in enumerate(["eng_Latn", "fra_Latn", "eng_Latn", "deu_Latn"]):
        [ids] = codec.tokenizer.encode([SHORT[i]], lang)
        with torch.no_grad():
            expected = codec.encoder(torch.tensor([ids]), None)[0]
        torch.testing.assert_close(concepts[i], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch_tokens", [1, 30, 8192])
def test_batches_change_nothing(codec, batch_tokens):
    torch.testing.assert_close(
        codec.encode(TEXT, "en", batch_tokens=batch_tokens), codec.encode(TEXT, "en"), atol=2e-6, rtol=0
    )


def test_languages_of_the_source(codec):
    one = codec.encode(SHORT, "eng_Latn")
    assert torch.equal(one, codec.encode(SHORT, "en-US"))
    assert not torch.equal(one, codec.encode(SHORT, "fra_Latn"))
    assert torch.equal(codec.encode(SHORT), codec.encode(SHORT, "ell_Grek"))
    mixed = codec.encode(SHORT, ["en", None, "fr", "de"])
    torch.testing.assert_close(mixed[1], codec.encode(SHORT, "el")[1], atol=1e-6, rtol=0)
    with pytest.raises(LanguageError, match=r"one language per row"):
        codec.encode(SHORT, ["en", "fr"])
    with pytest.raises(LanguageError, match=r"does not know the language"):
        codec.encode(SHORT, "arb_Latn")


def test_gradients_may_start_at_encoded_concepts(codec):
    assert codec.encode(SHORT, "en").requires_grad_().is_leaf


@pytest.mark.parametrize("text", ["", "  \n", "\x00", "​"])
def test_nothing_to_encode(codec, text):
    with pytest.raises(DataError, match=r"sentences\[1\]: an empty sentence"):
        codec.encode(["Tim.", text], "en")


def test_odd_sentences(codec):
    nul, replaced = codec.encode(["a\x00b", "a\ud800b"], "en")
    assert torch.equal(nul, codec.encode(["a b"], "en")[0])
    torch.testing.assert_close(replaced, codec.encode(["a�b"], "en")[0], atol=1e-6, rtol=0)
    with pytest.raises(DataError, match=r"sentences\[0\]: not a string"):
        codec.encode([3], "en")
    with pytest.raises(DataError, match=r"one string"):
        codec.encode("Tim.", "en")
    assert codec.encode([], "en").shape == (0, 32)


def test_long_sentences_are_cut_before_the_end_mark(codec):
    long = " ".join(TEXT[:6])
    [ids] = codec.tokenizer.encode([long], "en")
    assert len(ids) > 64
    with pytest.warns(UserWarning, match=r"2 sentence.* more than 64 tokens and were cut; the first is number 1"):
        concepts = codec.encode(["Tim.", long, long], "en")
    with torch.no_grad():
        expected = codec.encoder(torch.tensor([[*ids[:63], EOS]]), None)[0]
    torch.testing.assert_close(concepts[1], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(concepts[0], codec.encode(["Tim."], "en")[0], atol=1e-6, rtol=0)


def test_long_sentences_are_refused_when_asked(codec):
    with pytest.raises(DataError, match=r"sentences\[1\]: a sentence is too long.*≤ 64"):
        codec.encode(["Tim.", " ".join(TEXT)], "en", on_long="error")
    with pytest.raises(ConfigError, match=r"on_long"):
        codec.encode(["Tim."], "en", on_long="drop")


def test_long_sentences_are_split_into_equal_parts(codec):
    [pieces] = codec.tokenizer.pieces([" ".join(TEXT[:6])])
    count = math.ceil(len(pieces) / 62)
    assert count > 1
    bounds = [round(len(pieces) * part / count) for part in range(count + 1)]
    start = codec.tokenizer.language_id("en")
    rows = [[start, *pieces[a:b], EOS] for a, b in itertools.pairwise(bounds)]
    with torch.no_grad():
        parts = torch.cat([codec.encoder(torch.tensor([row]), None) for row in rows])
    weights = torch.tensor([float(len(row)) for row in rows])
    concepts = codec.encode(["Tim.", " ".join(TEXT[:6]), "x"], "en", on_long="split")
    torch.testing.assert_close(concepts[1], (parts * weights[:, None]).sum(0) / weights.sum(), atol=1e-6, rtol=0)
    torch.testing.assert_close(concepts[[0, 2]], codec.encode(["Tim.", "x"], "en"), atol=1e-6, rtol=0)


def test_a_hundred_thousand_characters(codec):
    text = ("Tim ran. " * 12000)[:100_000]
    with pytest.warns(UserWarning, match=r"were cut"):
        assert torch.isfinite(codec.encode([text], "en")).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(codec.encode([text], "en", on_long="split")).all()


def test_weights_that_overflow():
    codec = small_codec()
    with torch.no_grad():
        codec.encoder.embed_tokens.weight[codec.tokenizer.language_id("fr")] = math.inf
    with pytest.raises(DataError, match=r"sentences\[1\]: the encoder gave values that are not finite.*dtype="):
        codec.encode(SHORT, ["en", "fr", "en", "fr"])


# -------------------------------------------------------------------- decoding


def test_decoding_writes_each_row_in_its_language(codec):
    concepts = codec.encode(SHORT, "en")
    for settings in ({"method": "greedy"}, {"num_beams": 3}, {"method": "sample", "seed": 3}):
        settings["max_length"] = 12
        rows = codec.decode(concepts, ["eng_Latn", "fr", "de", "zh-TW"], **settings)
        alone = [codec.decode(concepts, lang, **settings)[i] for i, lang in enumerate(["en", "fr", "de", "zho_Hant"])]
        assert rows == alone and len(set(rows)) > 1


def test_decoding_bounds(codec):
    concepts = codec.encode(SHORT, "en")
    ids = codec.tokenizer.pieces(codec.decode(concepts, "en", method="greedy", max_length=5))
    assert all(len(row) <= 8 for row in ids)
    assert codec.decode(concepts, "en", max_length=10_000, method="greedy")  # as many as there are positions
    assert codec.decode(torch.zeros(0, 32), "en") == []
    assert codec.decode(concepts.double(), "en", max_length=4) == codec.decode(concepts, "en", max_length=4)


def test_decoding_refuses(codec):
    concepts = codec.encode(SHORT, "en")
    with pytest.raises(DataError, match=r"expected \(N, 32\); got \(4, 31\)"):
        codec.decode(concepts[:, :31], "en")
    concepts[2, 5] = math.nan
    with pytest.raises(DataError, match=r"concepts, row 2: a value is not finite"):
        codec.decode(concepts, "en")
    with pytest.raises(LanguageError):
        codec.decode(concepts[:2], ["en", "klingon"])
    with pytest.raises(LanguageError, match=r"a language to write in"):
        codec.decode(concepts[:2], ["en", None])
    with pytest.raises(ConfigError, match=r"decoding method"):
        codec.decode(concepts[:2], "en", method="magic")


def test_a_restricted_language(codec):
    codec = small_codec()
    concepts = codec.encode(SHORT, "en")
    free = codec.decode(concepts, ["en", "fr", "en", "fr"], method="greedy", max_length=8)
    size = codec.restrict("en", TEXT[:3])
    assert 50 < size < codec.tokenizer.vocab_size
    allowed = {i for row in codec.tokenizer.pieces([*TEXT[:3], *map(chr, range(33, 127))]) for i in row}
    bound = codec.decode(concepts, ["en", "fr", "en", "fr"], method="greedy", max_length=8)
    assert bound[1::2] == free[1::2] and bound[::2] != free[::2]
    assert {i for row in codec.tokenizer.pieces(bound[::2]) for i in row} <= allowed
    with pytest.raises(ConfigError, match=r"no text"):
        codec.restrict("en", [""])
    codec.restrict("en", [])
    assert codec.decode(concepts, ["en", "fr", "en", "fr"], method="greedy", max_length=8) == free
    given = small_codec(vocabulary={"eng_Latn": TEXT[:3]})
    assert given.decode(concepts, ["en", "fr", "en", "fr"], method="greedy", max_length=8) == bound


def test_the_unknown_piece():
    codec = small_codec(forbid_unknown=False)
    with torch.no_grad():
        codec.decoder.embed_tokens.weight[1] = 100 * codec.decoder.layer_norm.bias
    concepts = codec.encode(SHORT[:1], "en")
    assert "⁇" in codec.decode(concepts, "en", method="greedy", max_length=4)[0]
    codec.forbid_unknown = True
    assert "⁇" not in codec.decode(concepts, "en", method="greedy", max_length=4)[0]


# -------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("score_language", [False, True])
def test_token_loss_is_cross_entropy(codec, score_language):
    concepts = codec.encode(SHORT, "en")
    langs = ["eng_Latn", "fr", "en", "deu_Latn"]
    loss = codec.token_loss(concepts, SHORT, langs, batch_tokens=30, score_language=score_language)
    for i, (text, lang) in enumerate(zip(SHORT, langs, strict=True)):
        [ids] = codec.tokenizer.encode([text], lang)
        row = [EOS, *ids]
        with torch.no_grad():
            scores = codec.decoder.logits(codec.decoder(concepts[i : i + 1], torch.tensor([row[:-1]])))[0]
        skip = 0 if score_language else 1
        expected = torch.nn.functional.cross_entropy(scores[skip:], torch.tensor(row[1 + skip :]), reduction="sum")
        torch.testing.assert_close(loss.nats[i], expected, atol=1e-4, rtol=1e-5)
        assert loss.num_tokens[i] == len(row) - 1 - skip
        assert loss.num_correct[i] == (scores[skip:].argmax(-1) == torch.tensor(row[1 + skip :])).sum()


def test_token_loss_has_gradients(codec):
    concepts = codec.encode(SHORT, "en").requires_grad_()
    codec.token_loss(concepts, SHORT, "en").nats.sum().backward()
    before = concepts.grad.clone()
    assert (before.abs().sum(1) > 0).all()
    step = concepts.detach() - 1e-3 * before
    after = codec.token_loss(step, SHORT, "en").nats.sum()
    assert after < codec.token_loss(concepts.detach(), SHORT, "en").nats.sum()


def test_token_loss_of_long_and_of_wrong_sentences(codec):
    loss = codec.token_loss(torch.zeros(1, 32), [" ".join(TEXT)], "en")
    assert loss.num_tokens.tolist() == [63]  # 64 positions read </s>, the language and 62 tokens
    with pytest.raises(DataError, match=r"expected \(1, 32\)"):
        codec.token_loss(torch.zeros(2, 32), ["x"], "en")
    with pytest.raises(DataError, match=r"empty sentence"):
        codec.token_loss(torch.zeros(1, 32), [" "], "en")
    assert codec.token_loss(torch.zeros(0, 32), [], "en").nats.shape == (0,)


def test_only_the_decoder_is_trained():
    codec = small_codec()
    before = codec.encode(SHORT, "en")
    with torch.no_grad():
        for parameter in codec.decoder_parameters():
            parameter.add_(1.0)
    assert torch.equal(codec.encode(SHORT, "en"), before)
    assert len(codec.decoder_parameters()) == len(list(codec.decoder.parameters()))


# -------------------------------------------------------------------- parts


def test_half_a_codec():
    whole = small_codec()
    reader, writer = (
        SonarCodec(small_encoder(), None, small_tokenizer()),
        SonarCodec(None, small_decoder(), small_tokenizer()),
    )
    concepts = reader.encode(SHORT, "en")
    assert torch.equal(concepts, whole.encode(SHORT, "en")) and reader.fingerprint == whole.fingerprint
    assert writer.decode(concepts, "fr", max_length=9) == whole.decode(concepts, "fr", max_length=9)
    assert writer.dim == reader.dim == 32
    with pytest.raises(ConfigError, match=r"decoding needs SONAR's decoder; load it too: decoder=FILE"):
        reader.decode(concepts, "en")
    with pytest.raises(ConfigError, match=r"encoding needs SONAR's encoder"):
        writer.encode(SHORT, "en")
    with pytest.raises(ConfigError, match=r"fingerprint"):
        _ = writer.fingerprint
    with pytest.raises(ConfigError, match=r"token_loss needs"):
        reader.token_loss(concepts, SHORT, "en")
    with pytest.raises(ConfigError, match=r"neither"):
        SonarCodec(None, None, small_tokenizer())


def test_parts_that_do_not_fit():
    with pytest.raises(CheckpointError, match=r"tokenizer and encoder have different vocabularies.*526 rows.*got 500"):
        SonarCodec(small_encoder(vocab_size=500), small_decoder(), small_tokenizer())
    with pytest.raises(CheckpointError, match=r"different sizes.*expected 32 channels; got 20"):
        SonarCodec(small_encoder(), small_decoder(input_dim=20), small_tokenizer())


def test_a_decoder_of_wider_concepts():
    codec = SonarCodec(small_encoder(width=48), small_decoder(input_dim=48), small_tokenizer())
    assert codec.dim == 48
    assert len(codec.decode(codec.encode(SHORT, "en"), "fr", max_length=4)) == 4


def test_half_precision():
    exact = small_codec()
    concepts = exact.encode(TEXT, "en")
    for dtype, closeness in ((torch.bfloat16, 0.999), (torch.float16, 0.99999)):
        codec = small_codec()
        codec.network.to(dtype)
        rounded = codec.encode(TEXT, "en")
        assert rounded.dtype == torch.float32
        assert float(torch.cosine_similarity(rounded, concepts).min()) > closeness
        loss = codec.token_loss(concepts, TEXT, "en")
        assert loss.nats.dtype == torch.float32
        torch.testing.assert_close(loss.nats, exact.token_loss(concepts, TEXT, "en").nats, rtol=0.02, atol=0)
        assert len(codec.decode(concepts, "en", max_length=6)) == len(TEXT)
