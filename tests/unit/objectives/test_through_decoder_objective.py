"""Training through a decoder: the loss by hand, what is averaged over what, gradients, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from variants import LetterDecoder, concepts, small_batch, small_model

from largeconcept.codec import load_codec
from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.codec.tokenizer import Tokenizer
from largeconcept.codec.toy import ToyCodec
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.objectives import build_objective
from largeconcept.objectives.through_decoder import (
    ThroughDecoderObjective,
    ThroughDecoderObjectiveConfig,
    as_decoder,
    part_of,
)

RNG = StepRandom(0, 0)


@pytest.fixture
def normalizer():
    torch.manual_seed(1)
    normalizer = ConceptNormalizer.identity(16)
    normalizer.center.copy_(torch.randn(16))
    normalizer.scale.copy_(torch.rand(16) + 0.5)
    return normalizer


@pytest.fixture
def make(normalizer):
    def objective(**settings):
        return ThroughDecoderObjective(ThroughDecoderObjectiveConfig(**settings), normalizer, LetterDecoder())

    return objective


@pytest.fixture
def model():
    return small_model("through_decoder")


class NotingCodec(AutoencoderCodec):
    """An autoencoder with a form; notes what it scores."""

    @classmethod
    def small(cls):
        tokenizer = Tokenizer.train(
            ["one two three four five six seven eight nine. End of text too short"] * 50, vocab_size=280
        )
        torch.manual_seed(4)
        shape = {"dim": 16, "form_dim": 8, "width": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
        network = AutoencoderNetwork(AutoencoderConfig(**shape, vocab_size=280, pooling_heads=2, max_tokens=64))
        codec = cls(network, tokenizer)
        codec.asked = []
        return codec

    def token_loss(self, concepts, sentences, lang, **keywords):
        self.asked.append((concepts.detach().clone(), list(sentences), list(lang)))
        return super().token_loss(concepts, sentences, lang, **keywords)


def batch(lengths=(5, 2, 4)):
    return small_batch(concepts(len(lengths), max(lengths)), torch.tensor(lengths), torch.arange(len(lengths)) + 30)


def by_hand(model, normalizer, batch):
    """(nats, tokens, correct, squared error) of each target, sentence by sentence."""
    x = normalizer.normalize(batch.concepts)
    predicted = model(x, batch.lengths)
    found = []
    for row, n in enumerate(batch.lengths.tolist()):
        for i in range(1, n):
            concept = normalizer.denormalize(predicted[row, i - 1 : i])
            scored = LetterDecoder().token_loss(concept, [batch.sentences[row][i]], ["eng_Latn"])
            error = (predicted[row, i - 1] - x[row, i]).square().sum()
            found.append((*(float(part) for part in scored), float(error)))
    return torch.tensor(found).T


def test_loss_is_the_mean_over_tokens_of_the_next_sentences(make, model, normalizer):
    with torch.no_grad():
        nats, tokens, correct, error = by_hand(model, normalizer, batch())
        loss = make()(model, batch(), RNG)
        with_error = make(mse_weight=0.25)(model, batch(), RNG)
        by_sentence = make(normalize="sentence", mse_weight=0.5)(model, batch(), RNG)
    assert float(loss.sum) == pytest.approx(float(nats.sum()), rel=1e-4)
    assert float(loss.count) == float(tokens.sum())
    assert float(with_error.sum) == pytest.approx(float(nats.sum() + 0.25 * error.sum()), rel=1e-4)
    assert float(with_error.count) == float(tokens.sum())
    assert float(by_sentence.sum) == pytest.approx(float((nats / tokens + 0.5 * error).sum()), rel=1e-4)
    assert float(by_sentence.count) == 8
    means = {name: float(total / count) for name, (total, count) in loss.metrics.items()}
    assert means["token_nats"] == pytest.approx(float(nats.sum() / tokens.sum()), rel=1e-4)
    assert means["token_accuracy"] == pytest.approx(float(correct.sum() / tokens.sum()))
    assert means["mse"] == pytest.approx(float(error.mean()), rel=1e-4)


def test_round_trip_adds_the_same_sentences_from_their_own_concepts(make, model):
    given = batch()
    quiet = {"round_trip_noise": 0.0, "round_trip_fade": 0.0}
    own = torch.tensor([
        [float(part) for part in LetterDecoder().token_loss(given.concepts[row, i : i + 1], [text], ["eng_Latn"])]
        for row, n in enumerate(given.lengths.tolist())
        for i, text in enumerate(given.sentences[row][:n])
        if i
    ]).T  # fmt: skip
    with torch.no_grad():
        for normalize, expected in (("token", own[0].sum()), ("sentence", (own[0] / own[1]).sum())):
            plain = make(normalize=normalize)(model, given, RNG)
            both = make(normalize=normalize, round_trip=0.5, **quiet)(model, given, RNG)
            assert float(both.sum - plain.sum) == pytest.approx(0.5 * float(expected), rel=1e-3)
            assert float(both.count) == float(plain.count)
            total, count = both.metrics["round_trip_nats"]
            assert float(total / count) == pytest.approx(float(own[0].sum() / own[1].sum()), rel=1e-4)
        noisy = [make(round_trip=0.5)(model, given, StepRandom(0, step)).sum for step in (0, 0, 1)]
    assert float(noisy[0]) == float(noisy[1]) != float(noisy[2])


def test_a_share_of_the_round_trips_stands_for_all(make, model):
    settings = {"normalize": "sentence", "round_trip": 0.5, "round_trip_noise": 0.0}
    with torch.no_grad():
        plain = make(normalize="sentence")(model, batch(), RNG).sum
        whole = make(**settings)(model, batch(), RNG).sum - plain
        half = make(**settings, round_trip_share=0.4)
        asked = []
        inner = half.decoder.token_loss
        half.decoder.token_loss = lambda own, texts, langs: asked.append(len(texts)) or inner(own, texts, langs)
        sums = torch.stack([half(model, batch(), StepRandom(0, step)).sum - plain for step in range(400)])
    assert asked == [8, 4] * 400  # of eight sentences 0.4 are four, rounded up
    assert float(sums.std()) > 0
    assert float(sums.mean()) == pytest.approx(float(whole), rel=0.03)


def test_round_trip_fades_the_form_alone(make, model):
    objective = make(round_trip=1.0, round_trip_noise=0.0, round_trip_fade=1.0)
    objective.decoder.meaning_dim = 10
    own, ids = torch.randn(400, 16), torch.arange(400)
    disturbed = objective._disturbed(own, ids * 65_536, RNG)
    assert torch.equal(disturbed[:, :10], own[:, :10])
    assert not (disturbed[:, 10:] == own[:, 10:]).all(dim=1).any()
    gone = (disturbed[:, 10:] == 0).all(dim=1).float().mean()
    assert float(gone) == pytest.approx(0.25, abs=0.08)


@given(st.lists(st.text("abcé,.", min_size=1), min_size=4, max_size=30), *[st.floats(0, 1, exclude_max=True)] * 2)
def test_a_part_is_two_words_or_more_but_not_all(words, start, size):
    text = part_of("  ".join(words), start, size)
    part = text.split()
    assert 2 <= len(part) < len(words)
    assert any(part == words[i : i + len(part)] for i in range(len(words)))


def test_every_part_can_be_drawn():
    words = ["a", "b", "c", "d", "e"]
    drawn = {part_of(" ".join(words), start / 40, size / 40) for start in range(40) for size in range(40)}
    assert drawn == {" ".join(words[i:j]) for i in range(4) for j in range(i + 2, 6)} - {" ".join(words)}
    assert part_of("only three words", 0.0, 0.5) is None


def test_parts_are_asked_from_their_meaning_and_the_form_of_the_whole(make, model):
    """By hand: a codec that notes what it is asked for; without noise, forms are faded and nothing else."""
    codec = NotingCodec.small()
    settings = {"train_decoder": True, "round_trip": 0.5, "round_trip_noise": 0.0, "round_trip_fade": 0.0}
    objective = make(normalize="sentence", parts=2, **settings)
    plain = make(normalize="sentence", **settings)
    objective.decoder = plain.decoder = codec
    read = batch((5, 2, 4))
    read.sentences = [
        ["one two three four five."] * 5,
        ["too short"] * 2,
        ["End of text."] * 2 + ["six seven eight nine."] * 2,
    ]
    with torch.no_grad():
        for step in range(60):
            base, loss = (each(model, read, StepRandom(0, step)) for each in (plain, objective))
            concepts, texts, langs = codec.asked[-1]
            assert len(texts) <= 2 and set(langs) <= {"eng_Latn"}
            for concept, text in zip(concepts, texts):
                row = 0 if text.split()[0] in "one two three four" else 2
                assert text in read.sentences[row][-1]
                assert torch.allclose(concept[:8], codec.encode([text])[0, :8], atol=1e-5)
                forms = read.concepts[row, :, 8:]
                same = [torch.allclose(concept[8:], form * (concept[8] / form[0]), atol=1e-4) for form in forms]
                assert sum(same) == 1 and 0.3 <= float((concept[8:] / forms[same.index(True)]).mean()) <= 1
            _, count = loss.metrics["part_nats"]
            assert int(count) == sum(len(codec.tokenizer.encode([t])[0]) + 1 for t in texts)
            if texts:
                assert float(loss.sum) > float(base.sum)
            assert float(loss.count) == float(base.count)
    rows = {len(texts) for _, texts, _ in codec.asked[2::3]}
    assert rows >= {1, 2}


def test_what_parts_need(make):
    with pytest.raises(ConfigError, match="parts is for a decoder that learns"):
        ThroughDecoderObjectiveConfig.from_dict({"parts": 3})
    with pytest.raises(ConfigError, match="set round_trip"):
        ThroughDecoderObjectiveConfig.from_dict({"parts": 3, "train_decoder": True})
    objective = make(parts=3, train_decoder=True, round_trip=0.1)
    with pytest.raises(ConfigError, match=r"objective\.parts.*no channels of form"):
        objective.open_codec("starter", load_codec("starter").fingerprint)


def test_a_drawn_share_stands_for_all(make, model):
    with torch.no_grad():
        whole = make(normalize="sentence", mse_weight=0.5)(model, batch(), RNG)
        sampled = [make(normalize="sentence", mse_weight=0.5, max_sentences=3)] * 300
        drawn = [objective(model, batch(), StepRandom(0, step)) for step, objective in enumerate(sampled)]
        again = sampled[0](model, batch(), StepRandom(0, 0))
        tokens = [make(max_sentences=3)(model, batch(), StepRandom(0, step)) for step in range(300)]
    sums = torch.stack([loss.sum for loss in drawn])
    assert float(again.sum) == float(sums[0]) and float(sums.std()) > 0
    assert float(sums.mean()) == pytest.approx(float(whole.sum), rel=0.02)
    assert {float(loss.count) for loss in drawn} == {8.0}
    with torch.no_grad():
        full = make()(model, batch(), RNG)
    assert float(torch.stack([loss.sum for loss in tokens]).mean()) == pytest.approx(float(full.sum), rel=0.03)
    assert float(torch.stack([loss.count for loss in tokens]).mean()) == pytest.approx(float(full.count), rel=0.03)


def test_micro_batches_add_up(make, model):
    objective = make(mse_weight=0.3)
    with torch.no_grad():
        whole = objective(model, batch(), RNG)
        parts = []
        for row, n in enumerate((5, 2, 4)):
            one = batch()
            keep = slice(row, row + 1)
            part = small_batch(one.concepts[keep, :n], one.lengths[keep], one.sample_ids[keep])
            parts.append(objective(model, part, RNG))
    assert float(sum(p.sum for p in parts)) == pytest.approx(float(whole.sum), rel=1e-4)
    assert float(sum(p.count for p in parts)) == float(whole.count)


def test_gradient_goes_through_the_decoder_and_agrees_with_finite_differences(make, model):
    objective, name = make(), "output_proj.bias"
    loss = objective(model, batch(), RNG)
    (gradient,) = torch.autograd.grad(loss.sum, model.get_parameter(name))
    with torch.no_grad():
        for channel in (0, 7):
            values = []
            for step in (0.02, -0.02):
                model.get_parameter(name)[channel] += step
                values.append(float(objective(model, batch(), RNG).sum))
                model.get_parameter(name)[channel] -= step
            assert (values[0] - values[1]) / 0.04 == pytest.approx(float(gradient[channel]), rel=2e-2)


def test_targets_of_pairs_only(make, model):
    paired = batch()
    paired.source_lengths = torch.tensor([3, 1, 2])
    changed = batch()
    changed.source_lengths = paired.source_lengths
    changed.sentences[0][1:3] = ["something else entirely"] * 2
    with torch.no_grad():
        loss = make()(model, paired, RNG)
        assert float(loss.metrics["mse"][1]) == 2 + 1 + 2
        assert float(make()(model, changed, RNG).sum) == float(loss.sum)


@pytest.mark.parametrize("round_trip", [0.0, 1.0])
def test_a_batch_without_targets_has_a_gradient_of_zero(model, normalizer, round_trip):
    from largeconcept.codec.autoencoder import AutoencoderCodec

    objective = ThroughDecoderObjective(ThroughDecoderObjectiveConfig(round_trip=round_trip), normalizer)
    objective.decoder = SimpleNamespace(
        dim=16, token_loss=lambda c, s, lang: AutoencoderCodec.token_loss(EmptyCodec, c, s, lang)
    )
    loss = objective(model, batch((1, 1)), RNG)
    loss.sum.backward()
    assert float(loss.sum) == float(loss.count) == 0.0
    assert not model.output_proj.weight.grad.any()


EmptyCodec = SimpleNamespace(
    dim=16,
    config=SimpleNamespace(max_tokens=8),
    tokenizer=SimpleNamespace(encode=lambda texts: []),
    _language_indices=lambda lang, rows: torch.zeros(rows, dtype=torch.long),
)


def test_languages(make, model):
    seen = []

    class Listening(LetterDecoder):
        def token_loss(self, concepts, sentences, lang):
            seen.extend(zip(sentences, lang))
            return super().token_loss(concepts, sentences, lang)

    objective = make(lang="deu_Latn")
    objective.decoder = Listening()
    one = batch((3, 3))
    one.languages = ["fra_Latn", None]
    one.sentences = [["a", "b", "End of text."], ["c", "d", "e"]]
    objective(model, one, RNG)
    assert seen == [("b", "fra_Latn"), ("End of text.", "eng_Latn"), ("d", "deu_Latn"), ("e", "deu_Latn")]
    with pytest.raises(DataError, match=r"no language.*objective\.lang"):
        make()(model, one, RNG)


def test_the_codec_is_opened_frozen_and_checked(normalizer, tmp_path):
    from largeconcept.codec import load_codec

    config = ThroughDecoderObjectiveConfig()
    objective = build_objective(config, normalizer)
    starter = load_codec("starter")
    objective.open_codec("starter", starter.fingerprint)
    assert not any(p.requires_grad for p in objective.decoder.network.parameters())
    concept = torch.zeros(1, starter.dim, requires_grad=True)
    objective.decoder.token_loss(concept, ["It rains."], "eng_Latn").nats.sum().backward()
    assert concept.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match=r"another concept space.*fingerprint 123"):
        objective.open_codec("starter", "123")
    with pytest.raises(ConfigError, match=r"objective\.codec: the codec cannot be loaded.*objective\.codec=FOLDER"):
        objective.open_codec(str(tmp_path / "gone"), "123")
    with pytest.raises(ConfigError, match=r"no token likelihoods.*got toy"):
        objective.open_codec("toy", ToyCodec().fingerprint)
    assert as_decoder(LetterDecoder(), "letters").dim == 16


def test_what_is_missing_is_named(make, model, normalizer):
    silent = batch()
    silent.sentences = None
    with pytest.raises(DataError, match=r"no sentences.*data\.sentences=true"):
        make()(model, silent, RNG)
    with pytest.raises(ConfigError, match="no decoder"):
        ThroughDecoderObjective(ThroughDecoderObjectiveConfig(), normalizer)(model, batch(), RNG)
