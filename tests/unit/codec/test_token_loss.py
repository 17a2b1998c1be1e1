"""Token likelihoods of sentences given concepts: against formulas, finite differences and the codec's training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from largeconcept.codec.token_loss import token_cross_entropy
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import DataError, LanguageError
from largeconcept.objectives.codec import CodecBatch, CodecObjectiveConfig, codec_loss
from largeconcept.types import DifferentiableDecoder

TEXTS = ["The old tower stands.", "Rain.", "Nobody speaks of winter any more near a river.", "Seven boats wait."]
QUIET = CodecObjectiveConfig(encoder_mask=0, decoder_mask=0, noise=0, concept_dropout=0)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_token_cross_entropy_is_that_of_torch_with_its_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(30, 6, dtype=torch.float64, requires_grad=True)
    targets, scale = torch.randint(0, 30, (11,)), torch.rand(11)
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    nats, correct = token_cross_entropy(hidden, weight, targets, chunk)
    assert torch.allclose(nats.double(), expected, atol=1e-5)
    assert torch.equal(correct, (hidden @ weight.T).argmax(1) == targets)
    wanted = torch.autograd.grad((expected * scale).sum(), (hidden, weight))
    for a, b in zip(torch.autograd.grad((nats * scale).sum(), (hidden, weight)), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    frozen = token_cross_entropy(hidden, weight.detach(), targets, chunk)[0]
    assert torch.allclose(torch.autograd.grad((frozen * scale).sum(), hidden)[0], wanted[0], atol=1e-5)


def test_it_is_the_loss_the_codec_was_trained_with(codec) -> None:
    codec_ids = codec.tokenizer.encode(TEXTS)
    lengths = torch.tensor([len(row) for row in codec_ids])
    tokens = torch.tensor([row + [0] * (int(lengths.max()) - len(row)) for row in codec_ids])
    lang = torch.tensor([0, 1, 2, 1])
    batch = CodecBatch(tokens, lengths, torch.arange(4), lang, paired=False)
    _, metrics = codec_loss(codec.network, batch, QUIET, torch.Generator())
    with torch.no_grad():
        scored = codec.token_loss(codec.encode(TEXTS), TEXTS, [codec.languages[i] for i in lang.tolist()])
    assert float(scored.nats.sum()) == pytest.approx(float(metrics["nats"]), rel=1e-5)
    assert scored.num_tokens.tolist() == (lengths + 1).tolist()
    assert int(scored.num_tokens.sum()) == int(metrics["tokens"])


def test_gradient_agrees_with_finite_differences(codec) -> None:
    codec.network.double()
    torch.manual_seed(1)
    concepts = torch.randn(4, codec.dim, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(codec.token_loss(concepts, TEXTS, "eng_Latn").nats[1:3].sum(), concepts)
    assert not gradient[[0, 3]].any()
    for row, channel in ((1, 3), (2, 0), (2, 15)):
        step = torch.zeros_like(concepts)
        step[row, channel] = 1e-2
        with torch.no_grad():
            up, down = (codec.token_loss(concepts + s, TEXTS, "eng_Latn").nats[row] for s in (step, -step))
        assert float((up - down) / 2e-2) == pytest.approx(float(gradient[row, channel]), rel=5e-3, abs=2e-3)


def test_sentences_do_not_disturb_each_other(codec) -> None:
    concepts = codec.encode(TEXTS)
    together = codec.token_loss(concepts, TEXTS, "eng_Latn")
    apart = codec.token_loss(concepts, TEXTS, "eng_Latn", batch_tokens=1)
    assert torch.allclose(together.nats, apart.nats, atol=1e-4)
    for i, text in enumerate(TEXTS):
        one = codec.token_loss(concepts[i : i + 1], [text], ["eng_Latn"])
        assert torch.allclose(one.nats, together.nats[i : i + 1], atol=1e-4)
        assert one.num_tokens == together.num_tokens[i] and one.num_correct == together.num_correct[i]


def test_correct_tokens_are_counted(codec) -> None:
    concepts = torch.randn(4, codec.dim, generator=torch.Generator().manual_seed(3))
    written = codec.decode(concepts, "eng_Latn", method="greedy", max_length=5)  # so that some tokens are right
    scored = codec.token_loss(concepts, written, "eng_Latn")
    for row, text in enumerate(written):
        ids = codec.tokenizer.encode([text])[0]
        states = codec.network.decode_hidden(concepts[row : row + 1], torch.tensor([ids]), torch.tensor([0]))
        hits = codec.network.logits(states)[0].argmax(-1) == torch.tensor([*ids, 2])
        assert int(scored.num_correct[row]) == int(hits.sum())
    assert 0 < int(scored.num_correct.sum()) < int(scored.num_tokens.sum())


def test_long_sentences_are_cut_and_have_no_end(codec) -> None:
    long = " ".join(["rain and boats"] * 30)
    scored = codec.token_loss(codec.encode(["Rain."]), [long], "eng_Latn")
    assert scored.num_tokens.tolist() == [codec.config.max_tokens]


def test_only_weights_of_decoding_are_offered(codec) -> None:
    own = codec.decoder_parameters()
    before = codec.encode(TEXTS)
    loss = codec.token_loss(before.clone(), TEXTS, "eng_Latn").nats.sum()
    gradients = torch.autograd.grad(loss, own, allow_unused=True)
    used = [g is not None and bool(g.abs().sum() > 0) for g in gradients]
    assert all(used) and len(own) == len({id(p) for p in own})
    with torch.no_grad():
        for parameter in own:
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(codec.encode(TEXTS), before)
    assert float(codec.token_loss(before, TEXTS, "eng_Latn").nats.sum()) != pytest.approx(float(loss))


def test_protocol_and_complaints(codec) -> None:
    assert isinstance(codec, DifferentiableDecoder)
    assert not isinstance(ToyCodec(), DifferentiableDecoder)  # it recalls sentences and has no likelihood
    concepts = codec.encode(TEXTS)
    empty = codec.token_loss(concepts[:0], [], "eng_Latn")
    assert empty.nats.shape == empty.num_tokens.shape == (0,)
    for call, error, message in (
        (lambda: codec.token_loss(concepts[:2], TEXTS, "eng_Latn"), DataError, r"expected \(4, 16\); got \(2, 16\)"),
        (lambda: codec.token_loss(concepts, [*TEXTS[:3], " "], "eng_Latn"), DataError, r"sentences\[3\]: an empty"),
        (lambda: codec.token_loss(concepts, TEXTS, "jpn_Jpan"), LanguageError, "cannot write"),
        (lambda: codec.token_loss(concepts, TEXTS, ["eng_Latn"]), LanguageError, "one language per row"),
    ):
        with pytest.raises(error, match=message):
            call()
