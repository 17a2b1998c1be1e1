"""Likelihood of documents under a token model: by hand, whatever the grouping, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from letter_tokenizer import LetterTokenizer
from variants import small_batch, small_model

from largeconcept.codec.toy import ToyCodec
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.models import TokenLM, TokenLMConfig, build_model
from largeconcept.objectives import build_objective
from largeconcept.objectives.token_lm import TokenLMObjective, TokenLMObjectiveConfig

RNG = StepRandom(0, 0)
TEXTS = [["I am.", "We are!"], ["No.", "Yes, it is so.", "End of text."], ["A longer one is here.", "b", "c"]]


def make(**settings):
    return TokenLMObjective(TokenLMObjectiveConfig(**settings), tokenizer=LetterTokenizer())


def batch(texts=TEXTS, sources=None):
    lengths = torch.tensor([len(row) for row in texts])
    made = small_batch(torch.zeros(len(texts), int(lengths.max()), 4), lengths, torch.arange(len(texts)))
    made.sentences = [list(row) for row in texts]
    made.source_lengths = None if sources is None else torch.tensor(sources)
    return made


def ids(text):
    return LetterTokenizer().encode([text])[0]


def test_an_even_distribution_costs_the_logarithm_of_the_vocabulary_a_token():
    """Exact: a model whose states are zero scores all 100 tokens alike."""
    model = small_model("token_lm")
    with torch.no_grad():
        model.decoder.norm.weight.zero_()
    with torch.no_grad():
        loss = make()(model, batch(), RNG)
    tokens = [len("I am.") + len("We are!") + 2, len("No.") + len("Yes, it is so.") + 3, len(TEXTS[2][0]) + 2 + 3]
    assert float(loss.count) == sum(tokens)
    assert float(loss.sum) == pytest.approx(sum(tokens) * math.log(100), rel=1e-5)
    later = {name: float(count) for name, (_, count) in loss.metrics.items()}
    assert later == {"token_nats": sum(tokens), "next_token_nats": sum(tokens) - 6 - 4 - 22}


@pytest.mark.parametrize("tied", [True, False])
def test_likelihood_is_the_sum_over_tokens_by_hand(tied):
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "model_dim": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.0}
    model = TokenLM(TokenLMConfig(**sizes, tie_embeddings=tied))
    rows = [
        [1, *ids("I am."), 2, *ids("We are!"), 2],
        [1, *ids("No."), 2, *ids("Yes, it is so."), 2, 1],  # the affix became the mark of the end
        [1, *ids("A longer one is here."), 2, *ids("b"), 2, *ids("c"), 2],
    ]
    total, following = 0.0, 0.0
    for row in rows:
        tokens = torch.tensor(row)
        nats = F.cross_entropy(model.logits(model(tokens[None]))[0, :-1], tokens[1:], reduction="none")
        total = total + nats.sum()
        following = following + nats[row.index(2) :].sum()
    for budget in (1, 60, 10_000):
        loss = make(batch_tokens=budget)(model, batch(), RNG)
        assert float(loss.sum.detach()) == pytest.approx(float(total.detach()), rel=1e-4)
        nats, count = loss.metrics["next_token_nats"]
        assert float(nats) == pytest.approx(float(following.detach()), rel=1e-4) and float(count) == 8 + 16 + 4
    wanted = torch.autograd.grad(total, list(model.parameters()))
    got = torch.autograd.grad(loss.sum, list(model.parameters()))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_source_of_a_pair_is_context():
    model = small_model("token_lm")
    loss = make()(model, batch(sources=[1, 2, 1]), RNG)
    assert float(loss.count) == len("We are!") + 1 + 1 + 4
    assert loss.metrics["token_nats"][0] == loss.metrics["next_token_nats"][0]


def test_later_sentences_and_padding_do_not_matter():
    model = small_model("token_lm")

    def of(texts):
        with torch.no_grad():
            return float(make()(model, batch(texts), RNG).sum)

    assert of([["I am."], ["No."]]) == pytest.approx(of([["I am."]]) + of([["No."]]), rel=1e-5)
    alone, longer = of([["I am.", "We are!"]]), of([["I am.", "We are!", "x" * 40]])
    assert longer > alone
    changed = of([["I am.", "We are!", "y" * 40]])
    assert longer != changed


def test_long_sentences_are_cut():
    loss = make(max_tokens=3)(small_model("token_lm"), batch([["abcdef", "gh"]]), RNG)
    assert float(loss.count) == 4 + 3


def test_what_does_not_fit_is_named():
    model = small_model("token_lm")
    silent = batch()
    silent.sentences = None
    with pytest.raises(DataError, match=r"no sentences.*data\.sentences=true"):
        make()(model, silent, RNG)
    with pytest.raises(ConfigError, match="no tokenizer"):
        TokenLMObjective(TokenLMObjectiveConfig())(model, batch(), RNG)
    other = build_model({**model.config.to_dict(), "vocab_size": 90})
    with pytest.raises(ConfigError, match=r"model\.vocab_size: .*expected 100; got 90"):
        make()(other, batch(), RNG)
    with pytest.raises(ConfigError, match=r"does not fit the model"):
        make()(small_model("mse"), batch(), RNG)
    objective = build_objective(TokenLMObjectiveConfig(), None)
    with pytest.raises(ConfigError, match=r"no tokenizer; got toy"):
        objective.open_codec("toy", ToyCodec().fingerprint)
