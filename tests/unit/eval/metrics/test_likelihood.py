"""Mutual information and perplexity: by hand with a table of probabilities, token by token with real models."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from letter_tokenizer import LetterTokenizer

from largeconcept.errors import CheckpointError, ConfigError, DataError, DependencyError
from largeconcept.eval.metrics.likelihood import (
    HuggingFaceScorer,
    Place,
    TokenScorer,
    _Framed,
    _windows,
    generative_perplexity,
    mutual_information,
    mutual_informations,
    word_entropy,
)
from largeconcept.models.token_lm import TokenLM, TokenLMConfig, document_tokens


class Table:
    """Gives each letter probability 1/2 where it stands in the prefix, else 1/8."""

    def __init__(self):
        self.prefixes = []

    def nats(self, texts, prefixes=None):
        before = ["".join(prefix) for prefix in prefixes or [""] * len(texts)]
        self.prefixes.append(before)
        letters = ["".join(text) for text in texts]
        nats = [
            sum(math.log(2 if letter in seen else 8) for letter in text)
            for text, seen in zip(letters, before, strict=True)
        ]
        return torch.tensor(nats, dtype=torch.float64), torch.tensor([len(text) for text in letters])


def test_mutual_information_by_hand():
    found = mutual_information(Table(), ["ab", "xyz", "aaaa"], [["a"], ["a", "b"], ["c", "a"]])
    # One of two letters is known, none of three, all of four; each known one gains log 8 − log 2.
    assert found.gains.tolist() == pytest.approx([math.log(4), 0, 4 * math.log(4)])
    assert found.tokens.tolist() == [2, 3, 4]
    assert found.mean == pytest.approx(5 * math.log(4) / 9)


def test_only_the_nearest_sentences_are_context():
    judge = Table()
    context = [chr(ord("a") + i) for i in range(15)]
    assert mutual_information(judge, ["o", "e"], [context, context]).gains.tolist() == pytest.approx([math.log(4), 0])
    assert judge.prefixes == [["", ""], ["fghijklmno"] * 2]
    assert mutual_information(judge, ["n", "m"], [context, context], most=2).gains.tolist() == pytest.approx(
        [math.log(4), 0]
    )


def test_a_copied_context_is_worth_more_than_a_shuffled_one():
    sentences, contexts = ["abc", "def", "ghi"], [["abc"], ["def"], ["ghi"]]
    right = mutual_information(Table(), sentences, contexts).mean
    wrong = mutual_information(Table(), sentences, contexts[1:] + contexts[:1]).mean
    assert right == pytest.approx(math.log(4)) and wrong == 0


def test_nothing_has_no_information():
    assert mutual_information(Table(), [], []).mean is None
    assert mutual_information(Table(), [""], [["a"]]).mean is None


def test_perplexity_stands_beside_entropy():
    found = generative_perplexity(Table(), ["ab", ["c", "d", "e", "f"], ""])
    assert found.perplexity == pytest.approx(8) and found.tokens == (2, 4, 0)
    assert found.entropies == (0.0, pytest.approx(math.log(4)), None)
    assert found.entropy == pytest.approx(math.log(4) / 2)
    nothing = generative_perplexity(Table(), [""])
    assert nothing.perplexity is None and nothing.entropy is None


def test_word_entropy_by_hand():
    assert word_entropy("the cat the dog", "eng_Latn") == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert word_entropy("na na na na") == 0
    assert word_entropy("今天今天", "zho_Hans") == pytest.approx(math.log(2))
    assert word_entropy("…") is None


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_entropy_is_bounded_and_does_not_see_order(letters):
    value = word_entropy(" ".join(letters))
    assert 0 <= value <= math.log(len(letters)) + 1e-12
    assert value == pytest.approx(word_entropy(" ".join(sorted(letters))))


# ------------------------------------------------------------------ token models


def token_model(**settings):
    torch.manual_seed(0)
    sizes = {"vocab_size": LetterTokenizer.vocab_size, "num_layers": 2, "model_dim": 16, "num_heads": 2}
    model = TokenLM(TokenLMConfig(**{**sizes, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that probabilities differ
    return model.eval()


def by_hand(model, prefix, text):
    """Nats of tokens one at a time."""
    tokens, nats = list(prefix), 0.0
    for token in text:
        scores = model.logits(model(torch.tensor([tokens])))[0, -1].double()
        nats -= float(scores.log_softmax(-1)[token])
        tokens.append(token)
    return nats


@torch.no_grad()
def test_token_scorer_is_the_model_token_by_token():
    model, tokenizer = token_model(), LetterTokenizer()
    texts = [["abc", "de"], ["fghij"], "k\n\nl", ["m"], ""]
    prefixes = [["xy", "z"], [], "u\nv", "", ["w"]]
    nats, tokens = TokenScorer(model, tokenizer, batch_tokens=20).nats(texts, prefixes)
    for i, (text, prefix) in enumerate(
        [(["abc", "de"], ["xy", "z"]), (["fghij"], []), (["k", "l"], ["u", "v"]), (["m"], [])]
    ):
        scored = document_tokens(tokenizer.encode(text))[1:-1]
        assert tokens[i] == len(scored)
        expected = by_hand(model, document_tokens(tokenizer.encode(prefix)), scored)
        assert float(nats[i]) == pytest.approx(expected, rel=1e-5)
    assert tokens.tolist() == [6, 5, 3, 1, 0] and float(nats[4]) == 0
    assert nats.dtype == torch.float64 and tokens.dtype == torch.int64


def test_a_score_does_not_depend_on_the_batch_and_dropout_is_off():
    model, texts = token_model(dropout=0.5).train(), [["abc"], ["defghijk", "l"], ["mn"]]
    together, _ = TokenScorer(model, LetterTokenizer()).nats(texts)
    alone = [float(TokenScorer(model, LetterTokenizer()).nats([text])[0]) for text in texts]
    assert together.tolist() == pytest.approx(alone, rel=1e-5) and model.training


@torch.no_grad()
def test_long_texts_are_scored_in_windows():
    model, tokenizer = token_model(), LetterTokenizer()
    scorer = TokenScorer(model, tokenizer, max_tokens=9)  # the mark and 8 tokens
    text = "abcdefghijklmnopqrst"
    ids = tokenizer.encode([text])[0]
    mark = document_tokens([])
    nats, tokens = scorer.nats([[text]])
    parts = [(0, 0, 8), (4, 8, 12), (8, 12, 16), (12, 16, 20)]  # from, first scored, end
    expected = sum(by_hand(model, mark + ids[a:b], ids[b:c]) for a, b, c in parts)
    assert tokens.item() == 20 and float(nats) == pytest.approx(expected, rel=1e-5)
    # Of a long prefix the nearest tokens stay.
    nats, _ = scorer.nats([["uvw"]], [[text]])
    kept = document_tokens(tokenizer.encode([text]))[-5:]
    assert float(nats) == pytest.approx(by_hand(model, mark + kept, tokenizer.encode(["uvw"])[0]), rel=1e-5)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2), st.integers(0, 30), st.integers(0, 60), st.integers(8, 20))
def test_windows_score_every_token_once_with_context(start, context, scored, size):
    context += start == 0  # something always stands in front
    text = list(range(100, 100 + scored))
    windows = _windows(7, _Framed([1] * start, [2] * context, text), size)
    assert [token for one in windows for token in one.tokens[len(one.tokens) - one.scored :]] == text
    for one in windows:
        assert one.row == 7 and one.scored < len(one.tokens) <= size and one.tokens[:start] == [1] * start
    for one in windows[1:]:
        assert len(one.tokens) - one.scored - start >= (size - start) // 2


READINGS = [["abc", "de", "fgh"], ["x\n\ny", " ", "zz"], []]
PLACES = [
    Place(0, 3, "hello"),
    Place(0, 1, ["ab", "cd"]),
    Place(1, 1, "q"),
    Place(1, 2, "q"),
    Place(0, 3, "h"),
    Place(1, 3, ""),
    Place(2, 0, "alone"),
    Place(0, 0, "begins"),
    Place(1, 3, "a longer one"),
]


@pytest.mark.parametrize("positions", ["rope", "learned", "sine"])
@pytest.mark.parametrize("batch_tokens", [12, 8192])
def test_texts_behind_one_reading_are_scored_as_if_alone(positions, batch_tokens):
    model = token_model(positions=positions, max_positions=24)
    scorer = TokenScorer(model, LetterTokenizer(), batch_tokens=batch_tokens)
    agrees(scorer)


def agrees(scorer):
    nats, tokens = scorer.nats_at(READINGS, PLACES)
    expected, count = scorer.nats([one.text for one in PLACES], [READINGS[one.reading][: one.lines] for one in PLACES])
    assert nats.tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-9)
    assert tokens.tolist() == count.tolist() and nats.dtype == torch.float64


def test_what_does_not_fit_is_cut_as_ever():
    agrees(TokenScorer(token_model(), LetterTokenizer(), max_tokens=12))


def test_a_context_is_read_once_for_all_predictors(monkeypatch):
    model, tokenizer = token_model(), LetterTokenizer()
    read, plain = [], TokenLM.read

    def reading(self, tokens, lengths=None, capacity=None):
        read.append(tokens.shape)
        return plain(self, tokens, lengths, capacity)

    monkeypatch.setattr(TokenLM, "read", reading)
    text = ["abc", "de", "fghi", "jk", "l"]
    contexts = [text[:i] for i in range(1, 5)]
    said = {"truth": text[1:], "copy": text[:-1], "same": ["abc"] * 4}
    found = mutual_informations(TokenScorer(model, tokenizer), said, contexts)
    assert read == [(1, 1 + len("abcdefghijk") + 4)]  # the mark, four sentences and their ends
    for name, sentences in said.items():
        nats, tokens = TokenScorer(model, tokenizer).nats([[one] for one in sentences])
        after, _ = TokenScorer(model, tokenizer).nats([[one] for one in sentences], contexts)
        assert found[name].gains.tolist() == pytest.approx((nats - after).tolist(), rel=1e-4, abs=1e-6)
        assert found[name].tokens.tolist() == tokens.tolist()
    read.clear()
    mutual_informations(TokenScorer(model, tokenizer), said, contexts, most=2)
    # One sentence, which the next two begin with, then two and two.
    assert sorted(read) == [(3, max(len(a + b) for a, b in pairwise(text[:4])) + 3)]


def test_learned_positions_bound_the_window():
    model = token_model(positions="learned", max_positions=12)
    scorer = TokenScorer(model, LetterTokenizer())
    assert scorer.max_tokens == 12
    assert scorer.nats([["abcdefghijklmnopqrstuvwxyz"]])[1].item() == 26


def test_refusals():
    model = token_model()
    with pytest.raises(ConfigError, match="not the model's"):
        TokenScorer(token_model(vocab_size=99), LetterTokenizer())
    with pytest.raises(ConfigError, match="max_tokens"):
        TokenScorer(model, LetterTokenizer(), max_tokens=2)
    with pytest.raises(DataError, match="wrong number of prefixes"):
        TokenScorer(model, LetterTokenizer()).nats(["a"], ["b", "c"])
    with pytest.raises(DataError, match="wrong number of contexts"):
        mutual_information(Table(), ["a"], [])
    with pytest.raises(ConfigError, match="most"):
        mutual_information(Table(), ["a"], [[]], most=0)


def test_without_transformers_the_command_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match=r"largeconcept\[transformers\]"):
        HuggingFaceScorer.from_pretrained("gpt2")


# ------------------------------------------------------------------ Hugging Face


@pytest.mark.peer
@torch.no_grad()
def test_hugging_face_scorer_is_the_model_token_by_token(tiny_gpt):
    scorer = HuggingFaceScorer.from_pretrained(str(tiny_gpt), batch_tokens=30)
    model, tokenizer = scorer.model, scorer.tokenizer
    nats, tokens = scorer.nats([["abc"], ["de", "f"], ""], [["xy"], [], ["z"]])
    for i, (before, text) in enumerate([("xy\n", "abc"), ("\n", "de\nf")]):
        ids = [tokenizer.bos_token_id, *tokenizer(before + text)["input_ids"]]
        logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        scored = range(len(ids) - len(text), len(ids))
        assert float(nats[i]) == pytest.approx(-sum(float(logs[j - 1, ids[j]]) for j in scored), rel=1e-4)
        assert tokens[i] == len(text)
    assert tokens[2] == 0 and float(nats[2]) == 0
    long, count = scorer.nats([["a" * 60]])
    assert count.item() == 60 and math.isfinite(float(long))
    gain = mutual_information(scorer, ["abc"], [["xyz"]])
    assert gain.gains.item() == pytest.approx(float(scorer.nats(["abc"])[0] - scorer.nats(["abc"], ["xyz"])[0]))


@pytest.mark.peer
@pytest.mark.parametrize("batch_tokens", [30, 4096])
def test_texts_behind_one_reading_of_hugging_face(tiny_gpt, batch_tokens):
    scorer = HuggingFaceScorer.from_pretrained(str(tiny_gpt), batch_tokens=batch_tokens)
    branches = []
    plain = scorer._branch
    scorer._branch = lambda *given: branches.append(given) or plain(*given)
    agrees(scorer)
    assert branches
    scorer._read = lambda *given: None  # a model without such a cache
    agrees(scorer)


@pytest.mark.peer
def test_a_folder_without_a_causal_model_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="cannot load the causal model"):
        HuggingFaceScorer.from_pretrained(str(tmp_path))
