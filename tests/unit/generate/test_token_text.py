"""Sentences from a token model: it can learn a text by heart, and a text's result depends on that text only."""

import pytest
import torch
from letter_tokenizer import LetterTokenizer
from variants import small_batch, small_model

from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.token_lm import TokenOptions, continue_sentences, predict_next_sentences
from largeconcept.models import TokenLM, TokenLMConfig, build_model
from largeconcept.models.token_lm import document_tokens
from largeconcept.objectives.token_lm import TokenLMObjective, TokenLMObjectiveConfig

LETTERS = LetterTokenizer()
STORIES = [["Tim had a ball.", "It was red.", "It rolled away."], ["Ann sat.", "She ate.", "She slept.", "She woke."]]


@pytest.fixture(scope="module")
def learned():
    """A small model that knows two stories by heart."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "model_dim": 32, "num_heads": 2, "num_layers": 2, "dropout": 0.0}
    model = TokenLM(TokenLMConfig(**sizes))
    objective = TokenLMObjective(TokenLMObjectiveConfig(), tokenizer=LETTERS)
    batch = small_batch(torch.zeros(2, 5, 4), torch.tensor([4, 5]), torch.arange(2))
    batch.sentences = [[*story, "End of text."] for story in STORIES]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = objective(model, batch, StepRandom(0, 0))
        optimizer.zero_grad()
        (loss.sum / loss.count).backward()
        optimizer.step()
    assert float(loss.sum.detach() / loss.count) < 0.1
    return model


def test_what_was_learnt_by_heart_is_written(learned):
    got = continue_sentences(learned, LETTERS, [STORIES[0][:1], STORIES[1][:2]])
    assert got == [STORIES[0][1:], STORIES[1][2:]]  # and then the document ends
    one = continue_sentences(learned, LETTERS, [STORIES[1][:1]], TokenOptions(max_sentences=1))
    assert one == [STORIES[1][1:2]]
    assert learned.training


def test_the_next_sentence_at_every_place(learned):
    assert predict_next_sentences(learned, LETTERS, STORIES) == [STORIES[0][1:], STORIES[1][1:]]
    for budget in (1, 60):
        again = predict_next_sentences(learned, LETTERS, STORIES, batch_tokens=budget)
        assert again == [STORIES[0][1:], STORIES[1][1:]]
    ended = predict_next_sentences(learned, LETTERS, [[*STORIES[0], "more"]])[0]
    assert len(ended) == 3 and ended[2]  # where the document would end, a sentence is written all the same
    assert predict_next_sentences(learned, LETTERS, [["alone"], []]) == [[], []]


def uncached(model, tokens, options, id):
    """Write one sentence, reading everything again for each token."""
    sentence = []
    while len(sentence) < options.max_tokens:
        with torch.no_grad():
            scores = model.logits(model(torch.tensor([tokens + sentence])))[0, -1]
        scores[[0, 1, 3]] = -torch.inf
        if not sentence:
            scores[2] = -torch.inf
        if options.temperature:
            cumulative = (scores / options.temperature).softmax(-1).double().cumsum(0)
            place = len(tokens) + len(sentence)
            uniform = StepRandom(options.seed, place).uniform("token", torch.tensor([id])).double()
            token = int((cumulative <= uniform * cumulative[-1]).sum())
        else:
            token = int(scores.argmax())
        if token == 2:
            break
        sentence.append(token)
    return LETTERS.decode([sentence])[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_equals_uncached(temperature):
    model = small_model("token_lm")
    options = TokenOptions(max_tokens=12, temperature=temperature, seed=3)
    documents = [["ab", "c", "defg"], ["hi there", "you"]]
    got = predict_next_sentences(model, LETTERS, documents, options, sample_ids=[4, 9])
    for document, id, sentences in zip(documents, (4, 9), got):
        for i, sentence in enumerate(sentences):
            assert sentence == uncached(model, document_tokens(LETTERS.encode(document[: i + 1])), options, id)


def test_a_text_does_not_depend_on_its_neighbours():
    model = small_model("token_lm")
    options = TokenOptions(max_sentences=3, max_tokens=9, temperature=1.0, top_p=0.9)
    prompts = [["ab", "c"], [], ["hi there you", "x", "y"], ["ab", "c"]]
    together = continue_sentences(model, LETTERS, prompts, options, sample_ids=[0, 0, 0, 1])
    apart = [continue_sentences(model, LETTERS, [p], options, sample_ids=[i])[0] for p, i in zip(prompts, (0, 0, 0, 1))]
    assert (
        together == apart == continue_sentences(model, LETTERS, prompts, options, sample_ids=[0, 0, 0, 1], batch_size=2)
    )
    assert together[0] != together[3]
    assert together != continue_sentences(model, LETTERS, prompts, options.override("seed=1"), sample_ids=[0, 0, 0, 1])
    assert all(len(text) <= 3 and all(0 < len(s) <= 9 for s in text) for text in together)


def test_draws_follow_the_distribution_and_its_cuts():
    model = small_model("token_lm")
    with torch.no_grad():
        scores = model.logits(model(torch.tensor([[1]])))[0, -1]
    scores[[0, 2, 3]] = -torch.inf  # 1 ends the document
    wanted = scores.softmax(-1)

    def draw(**settings):
        options = TokenOptions(max_sentences=1, max_tokens=1, temperature=1.0, **settings)
        texts = continue_sentences(model, LETTERS, [[]] * 3000, options, sample_ids=range(3000), batch_size=3000)
        found = torch.tensor([LETTERS.encode(text)[0][0] if text else 1 for text in texts])
        return torch.bincount(found, minlength=100) / 3000

    assert float((draw() - wanted).abs().sum()) < 0.2
    best = wanted.topk(3)
    cut = draw(top_k=3)
    assert set(cut.nonzero().flatten().tolist()) == set(best.indices.tolist())
    torch.testing.assert_close(cut[best.indices], best.values / best.values.sum(), atol=0.04, rtol=0)
    kept = int((wanted.sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1
    assert int((draw(top_p=0.5) > 0).sum()) <= kept < 60


def test_what_does_not_fit_is_named():
    model = small_model("token_lm")
    with pytest.raises(DataError, match=r"sample_ids: .*expected 1; got 2"):
        continue_sentences(model, LETTERS, [["a"]], sample_ids=[1, 2])
    with pytest.raises(DataError, match="sample_ids"):
        predict_next_sentences(model, LETTERS, [["a", "b"]], sample_ids=[])
    other = build_model({**model.config.to_dict(), "vocab_size": 90})
    with pytest.raises(ConfigError, match="tokenizer is not the model's; expected 90 tokens; got 100"):
        continue_sentences(other, LETTERS, [["a"]])
    with pytest.raises(ConfigError, match="top_p"):
        TokenOptions(top_p=0.0)
