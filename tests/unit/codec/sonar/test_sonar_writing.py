from __future__ import annotations

import itertools

import pytest
import torch
from sonar_small import TEXT, small_decoder, small_tokenizer

from largeconcept.codec import decoding
from largeconcept.codec.decoding import SamplingOptions, beam_hypotheses, draw, truncate, write_tokens
from largeconcept.codec.sonar.network import SonarDecoder
from largeconcept.codec.sonar.tokenizer import BOS, EOS, PAD, UNK
from largeconcept.codec.sonar.writing import WritingOptions, WritingState, writable, write, write_hypotheses
from largeconcept.errors import ConfigError, DataError

LENGTH = 20


@pytest.fixture(scope="module")
def decoder() -> SonarDecoder:
    return small_decoder(4)


@pytest.fixture(scope="module")
def concepts() -> torch.Tensor:
    return 0.7 * torch.randn(10, 32, generator=torch.Generator().manual_seed(1))


LANGUAGES = [small_tokenizer().language_id(code) for code in ("en", "de", "fr", "zul", "ace_Arab")] * 2
GREEDY = WritingOptions("greedy", max_length=LENGTH)


def options(**changes: object) -> WritingOptions:
    return WritingOptions(**{"max_length": LENGTH, **changes})


@torch.no_grad()
def log_probability(decoder: SonarDecoder, concept: torch.Tensor, language: int, ids: list[int]) -> torch.Tensor:
    """Of the language, each token and the end, under teacher forcing."""
    sequence = torch.tensor([[EOS, language, *ids]])
    logp = decoder.logits(decoder(concept[None], sequence))[0].log_softmax(dim=-1)
    return logp[torch.arange(len(ids) + 2), torch.tensor([language, *ids, EOS])]


@torch.no_grad()
def test_greedy_takes_the_best_token_each_time(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    written = write(decoder, concepts, LANGUAGES, GREEDY)
    lengths = {len(ids) for ids in written}
    assert len(lengths) > 3, "finished rows are not tested"
    for concept, language, ids in zip(concepts, LANGUAGES, written, strict=True):
        scores = decoder.logits(decoder(concept[None], torch.tensor([[EOS, language, *ids]])))[0]
        scores[:, [PAD, UNK]] = -torch.inf
        best = scores.argmax(dim=-1).tolist()[1:]
        assert best[: len(ids)] == ids
        assert best[len(ids)] == EOS or len(ids) == LENGTH


def test_one_beam_is_greedy(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    greedy = write(decoder, concepts, LANGUAGES, GREEDY)
    assert write(decoder, concepts, LANGUAGES, options(num_beams=1)) == greedy
    assert [one[0].tokens for one in write_hypotheses(decoder, concepts, LANGUAGES, options(num_beams=1))] == greedy


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_rows_do_not_interact(decoder: SonarDecoder, concepts: torch.Tensor, method: str) -> None:
    chosen = options(method=method, num_beams=3, seed=2, top_k=40, top_p=0.9)
    together = write(decoder, concepts, LANGUAGES, chosen)
    assert write(decoder, concepts, LANGUAGES, chosen, batch_tokens=3 * LENGTH) == together
    assert write(decoder, concepts[:4], LANGUAGES[:4], chosen) == together[:4]
    if method != "sample":  # there the number of a sentence decides its draws
        alone = [write(decoder, concepts[i : i + 1], LANGUAGES[i : i + 1], chosen)[0] for i in range(10)]
        assert alone == together


def test_one_concept_in_many_languages(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    written = write(decoder, concepts[:1].expand(5, -1), LANGUAGES[:5], options(num_beams=2))
    assert len({tuple(ids) for ids in written}) > 1
    assert written[3] == write(decoder, concepts[:1], LANGUAGES[3:4], options(num_beams=2))[0]


def test_scores_are_those_of_the_whole_sentence(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    for penalty in (1.0, 0.0, 1.7):
        found = write_hypotheses(decoder, concepts[:4], LANGUAGES[:4], options(num_beams=4, length_penalty=penalty))
        for concept, language, hypotheses in zip(concepts, LANGUAGES, found, strict=False):
            assert len(hypotheses) == 4
            assert hypotheses == sorted(hypotheses, key=lambda one: -one.score)
            for one in hypotheses:
                total = float(log_probability(decoder, concept, language, one.tokens).sum())
                assert one.score == pytest.approx(total / (len(one.tokens) + 2) ** penalty, rel=1e-5)


@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_sentences(concepts: torch.Tensor) -> None:
    decoder = small_decoder(2, vocab_size=9)
    pieces, language, length = [BOS, 4, 5, 6, 7, 8], 8, 3
    everything = [ids for n in range(length + 1) for ids in itertools.product(pieces, repeat=n)]
    for concept in concepts[:4]:
        scores = {
            ids: float(log_probability(decoder, concept, language, list(ids)).sum()) / (len(ids) + 2)
            for ids in everything
        }
        best = sorted(scores, key=lambda ids: -scores[ids])
        wide = options(num_beams=len(everything), max_length=length)
        found = write_hypotheses(decoder, concept[None], [language], wide)[0]
        assert [tuple(one.tokens) for one in found] == best
        narrow = write_hypotheses(decoder, concept[None], [language], options(num_beams=2, max_length=length))[0]
        assert narrow[0].score <= found[0].score + 1e-6


def test_the_end_comes_at_the_bound(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    with torch.no_grad():
        endless = small_decoder(4)
        endless.embed_tokens.weight[EOS] = 0
        endless.embed_tokens.weight[EOS, :] -= 20 * endless.layer_norm.bias
    for hypotheses in write_hypotheses(endless, concepts, LANGUAGES, options(num_beams=3, max_length=4)):
        assert len(hypotheses) == 3
    written = write(endless, concepts, LANGUAGES, options(num_beams=3, max_length=4))
    assert max(map(len, written)) == 4
    # More than there are positions for: three of them are the language's and the end marks'.
    longest = write(endless, concepts, LANGUAGES, WritingOptions("greedy", max_length=10_000))
    assert max(map(len, longest)) == decoder.config.max_tokens - 3


def test_padding_never_and_unknown_pieces_only_if_allowed(concepts: torch.Tensor) -> None:
    loud = small_decoder(4)
    with torch.no_grad():
        loud.embed_tokens.weight[[PAD, UNK]] = 5 * loud.layer_norm.bias  # their scores are mostly high
    for method in ("greedy", "beam", "sample"):
        strict = write(loud, concepts, LANGUAGES, options(method=method, seed=0))
        open_ = write(loud, concepts, LANGUAGES, options(method=method, seed=0, forbid_unknown=False))
        assert not {PAD, UNK} & {i for ids in strict for i in ids}
        assert {i for ids in open_ for i in ids} & {PAD, UNK} == {UNK}


# ------------------------------------------------------------------ sampling


def test_samples_follow_their_seed(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    def sample(seed: int | None) -> list[list[int]]:
        return write(decoder, concepts, LANGUAGES, options(method="sample", seed=seed))

    assert sample(3) == sample(3)
    assert sample(3) != sample(4)
    assert sample(None) != sample(None)
    assert sample(-1) == sample(-1)
    again = write(decoder, concepts[:1].expand(6, -1), LANGUAGES[:1] * 6, options(method="sample", seed=0))
    assert len({tuple(ids) for ids in again}) > 3, "equal concepts have equal draws"
    cold = options(method="sample", temperature=1e-4, seed=0)
    assert write(decoder, concepts, LANGUAGES, cold) == write(decoder, concepts, LANGUAGES, GREEDY)
    assert write(decoder, concepts, LANGUAGES, options(method="sample", top_k=1)) == write(
        decoder, concepts, LANGUAGES, GREEDY
    )


@pytest.mark.parametrize(
    "chosen",
    [
        SamplingOptions(),
        SamplingOptions(temperature=0.6),
        SamplingOptions(top_k=3),
        SamplingOptions(top_p=0.7),
        SamplingOptions(1.4, 4, 0.8),
    ],
)
def test_draws_have_the_distribution_they_should(chosen: SamplingOptions) -> None:
    scores = torch.tensor([[0.1, 2.0, -1.0, 1.2, 0.7, -torch.inf]])
    count = 4000
    line = (torch.arange(count) + 0.5) / count  # evenly, so the shares are exact
    drawn = draw(scores.expand(count, -1), chosen, line)
    shares = torch.bincount(drawn, minlength=6) / count
    expected = truncate(scores, chosen)[0]
    torch.testing.assert_close(shares, expected / expected.sum(), atol=1.5 / count, rtol=0)


def test_draws_from_many_tokens_are_those_from_all_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = 2 * torch.randn(60, 900, generator=torch.Generator().manual_seed(0))
    scores[7] = 0  # flat: the first 256 tokens are not enough
    line = torch.rand(60, generator=torch.Generator().manual_seed(1))
    for chosen in (SamplingOptions(top_p=0.6), SamplingOptions(top_p=0.99), SamplingOptions(top_k=500, top_p=0.9)):
        few = draw(scores, chosen, line)
        monkeypatch.setattr(decoding, "_IN_CACHE", 7 * 900)
        assert torch.equal(draw(scores, chosen, line), few)
        monkeypatch.setattr(decoding, "_LIKELY", 900)
        assert torch.equal(draw(scores[:7], chosen, line[:7]), few[:7])
        assert (truncate(scores, chosen).gather(1, few[:, None]) > 0).all()
        monkeypatch.undo()


def test_draws_at_the_edges_stay_inside() -> None:
    scores = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf]]).expand(2, -1)
    edge = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert set(draw(scores, SamplingOptions(), edge).tolist()) == {0, 1}


# ------------------------------------------------------------------ parts of the vocabulary


def test_a_vocabulary_is_that_of_its_texts() -> None:
    tokenizer = small_tokenizer()
    ids = writable(tokenizer, TEXT[:3])
    assert ids[0] == EOS
    assert set(ids) >= {i for row in tokenizer.pieces(TEXT[:3]) for i in row}
    assert set(ids) >= set(tokenizer.pieces(["1984:9 was"])[0])
    assert not {PAD, UNK, BOS} & set(ids)
    assert max(ids) <= tokenizer.num_pieces
    assert set(writable(tokenizer, TEXT[12:14])) - set(ids)
    with pytest.raises(ConfigError, match="no text"):
        writable(tokenizer, ["", " "])


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_all_ids_in_another_order_change_nothing(decoder: SonarDecoder, concepts: torch.Tensor, method: str) -> None:
    size = decoder.config.vocab_size
    ids = (EOS, *(i for i in range(size) if i not in (PAD, UNK, EOS)))
    # Cut draws go by rank, others by the order of the columns.
    closed = options(method=method, seed=1, num_beams=3, top_p=0.97)
    expected = write(decoder, concepts, LANGUAGES, closed)
    assert write(decoder, concepts, LANGUAGES, closed, vocabularies=dict.fromkeys(LANGUAGES, ids)) == expected
    some = {LANGUAGES[0]: ids, LANGUAGES[2]: ids}
    assert write(decoder, concepts, LANGUAGES, closed, vocabularies=some) == expected


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_each_language_keeps_to_its_vocabulary(decoder: SonarDecoder, concepts: torch.Tensor, method: str) -> None:
    own = {language: (EOS, *range(5 + 40 * i, 30 + 50 * i)) for i, language in enumerate(LANGUAGES[:4])}
    written = write(decoder, concepts, LANGUAGES, options(method=method, seed=1, num_beams=3), vocabularies=own)
    for language, ids in zip(LANGUAGES, written, strict=True):
        if language in own:
            assert set(ids) <= set(own[language])
    assert any(set(ids) - set().union(*own.values()) for ids in written), "the free language is not tested"
    if method != "sample":
        rows = [i for i, language in enumerate(LANGUAGES) if language == LANGUAGES[1]]
        alone = write(
            decoder,
            concepts[rows],
            [LANGUAGES[1]] * 2,
            options(method=method, num_beams=3),
            vocabularies={LANGUAGES[1]: own[LANGUAGES[1]]},
        )
        assert alone == [written[i] for i in rows]


def test_a_tiny_vocabulary_is_enough_for_a_beam(decoder: SonarDecoder, concepts: torch.Tensor) -> None:
    for ids in [(EOS, 7), (EOS,)]:
        own = dict.fromkeys(LANGUAGES, ids)
        found = write_hypotheses(decoder, concepts, LANGUAGES, options(num_beams=5, max_length=6), vocabularies=own)
        for hypotheses in found:
            assert len(hypotheses) == (5 if len(ids) == 2 else 1)
            assert all(one.tokens == [7] * len(one.tokens) for one in hypotheses)


# ------------------------------------------------------------------ mistakes


def test_nothing_to_write(decoder: SonarDecoder) -> None:
    for method in ("greedy", "beam", "sample"):
        assert write(decoder, torch.empty(0, 32), [], options(method=method)) == []
    state = WritingState(decoder, torch.empty(0, 32), torch.empty(0, dtype=torch.long), 4)
    assert write_tokens(state, 0, 4) == beam_hypotheses(state, 0, 4, 2) == []


@pytest.mark.parametrize(
    "changes",
    [{"num_beams": 0}, {"max_length": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}],
)
def test_settings_are_checked(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        options(**changes)


def test_methods_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown decoding method"):
        options(method="beams")


def test_scores_that_are_not_numbers_are_an_error(decoder: SonarDecoder) -> None:
    with pytest.raises(DataError, match="not numbers"):
        write(decoder, torch.full((1, 32), torch.nan), LANGUAGES[:1], options())
