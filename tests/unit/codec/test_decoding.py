from __future__ import annotations

import pytest
import torch

from largeconcept.codec.decoding import SamplingOptions, beam_search, truncate, write_tokens
from largeconcept.codec.network import EOS, AutoencoderConfig, AutoencoderNetwork, WritingState

FORBIDDEN = [0, 1, 3]


@pytest.fixture
def network() -> AutoencoderNetwork:
    torch.manual_seed(3)
    made = AutoencoderNetwork(
        AutoencoderConfig(
            dim=8,
            width=16,
            num_heads=2,
            vocab_size=260,
            max_tokens=12,
            encoder_layers=1,
            decoder_layers=1,
            pooling_heads=2,
            memory_tokens=2,
        )
    ).eval()
    with torch.no_grad():
        made.embedding.weight[EOS] *= 12  # sentences end now and then
    return made


def state(network: AutoencoderNetwork, concepts: torch.Tensor, lang: torch.Tensor) -> WritingState:
    return WritingState(network, concepts, lang, 12)


def log_probability(network: AutoencoderNetwork, concept: torch.Tensor, lang: int, ids: list[int]) -> float:
    inputs = torch.tensor([ids], dtype=torch.long)
    scores = network.logits(network.decode_hidden(concept[None], inputs, torch.tensor([lang])))[0]
    scores[:, FORBIDDEN] = -torch.inf
    scores[0, EOS] = -torch.inf
    logp = scores.log_softmax(dim=-1)
    return float(logp[torch.arange(len(ids) + 1), torch.tensor([*ids, EOS])].sum())


@torch.no_grad()
def test_greedy_takes_the_best_token_each_time(network: AutoencoderNetwork) -> None:
    concepts, lang = torch.randn(12, 8), torch.arange(12) % 4
    written = write_tokens(state(network, concepts, lang), len(concepts), 10)
    assert len({len(w) for w in written}) > 1, "all sentences have one length: finished rows are not tested"
    for row, ids in enumerate(written):
        scores = network.logits(
            network.decode_hidden(concepts[row : row + 1], torch.tensor([ids]), lang[row : row + 1])
        )[0]
        scores[:, FORBIDDEN] = -torch.inf
        scores[0, EOS] = -torch.inf
        best = scores.argmax(dim=-1).tolist()
        assert best[: len(ids)] == ids
        assert best[len(ids)] == EOS or len(ids) == 10


@torch.no_grad()
def test_one_beam_is_greedy_and_rows_do_not_interact(network: AutoencoderNetwork) -> None:
    concepts, lang = torch.randn(9, 8), torch.arange(9) % 4
    assert beam_search(state(network, concepts, lang), len(concepts), 10, 1) == write_tokens(
        state(network, concepts, lang), len(concepts), 10
    )
    together = beam_search(state(network, concepts, lang), len(concepts), 10, 3)
    alone = [
        beam_search(state(network, concepts[i : i + 1], lang[i : i + 1]), len(concepts[i : i + 1]), 10, 3)[0]
        for i in range(9)
    ]
    assert together == alone


@torch.no_grad()
def test_full_beam_finds_the_best_sentence_of_all(network: AutoencoderNetwork) -> None:
    allowed = list(range(4, 260))
    concepts = torch.randn(3, 8)
    found = beam_search(state(network, concepts, torch.tensor([0, 1, 2])), len(concepts), 1, len(allowed))
    for row in range(3):
        scores = {i: log_probability(network, concepts[row], row, [i]) for i in allowed}
        assert found[row] == [max(scores, key=lambda i: scores[i])]


@torch.no_grad()
def test_more_beams_do_not_lower_the_score(network: AutoencoderNetwork) -> None:
    concepts, lang = torch.randn(16, 8), torch.zeros(16, dtype=torch.long)
    totals = []
    for beams in (1, 6):
        written = beam_search(state(network, concepts, lang), len(concepts), 12, beams)
        totals.append(
            sum(log_probability(network, concepts[i], 0, ids) / (len(ids) + 1) for i, ids in enumerate(written))
        )
    assert totals[1] >= totals[0] - 1e-3


def test_truncation_keeps_what_it_should() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert torch.allclose(truncate(scores, SamplingOptions()), scores.exp())
    assert truncate(scores, SamplingOptions(top_k=2)).gt(0).tolist() == [[True, True, False, False]]
    assert truncate(scores, SamplingOptions(top_p=0.7)).gt(0).tolist() == [[True, True, False, False]]
    assert truncate(scores, SamplingOptions(top_p=0.05)).gt(0).tolist() == [[True, False, False, False]]
    cold = truncate(scores, SamplingOptions(temperature=0.1))
    assert cold[0, 0] > 0.99


@torch.no_grad()
def test_sampling_follows_its_seed(network: AutoencoderNetwork) -> None:
    concepts, lang = torch.randn(6, 8), torch.zeros(6, dtype=torch.long)

    def draw(seed: int) -> list[list[int]]:
        return write_tokens(
            state(network, concepts, lang), len(concepts), 8, torch.Generator().manual_seed(seed), SamplingOptions(1.5)
        )

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
