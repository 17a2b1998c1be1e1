"""The searches over a decoder that is only a table, against the same searches written plainly for one sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from largeconcept.codec import decoding
from largeconcept.codec.decoding import SamplingOptions, beam_hypotheses, beam_search, write_tokens
from largeconcept.errors import DataError

SIZE, END = 11, 3


class TableState:
    """Scores depend on the sentence, the step and the last token: (N, steps, V, V)."""

    end = END

    def __init__(self, tables: Tensor) -> None:
        self.rows = torch.arange(len(tables))
        self.last = torch.zeros(len(tables), dtype=torch.long)
        self.tables, self.step = tables, 0
        self.sizes: list[int] = []

    def scores(self) -> Tensor:
        assert len(self.rows) == len(self.last)
        self.sizes.append(len(self.rows))
        return self.tables[self.rows, self.step, self.last].clone()

    def feed(self, tokens: Tensor) -> None:
        assert not (tokens == END).any()
        self.last = tokens
        self.step += 1

    def select(self, rows: Tensor) -> None:
        self.rows, self.last = self.rows[rows], self.last[rows]


def tables(sentences: int, steps: int, seed: int, ending: float = 0.0) -> Tensor:
    made = 2 * torch.randn(sentences, steps + 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    made[..., END] += ending
    return made


def plain_beam_search(
    table: Tensor,
    beams: int,
    max_length: int,
    penalty: float = 1.0,
    prompt: int = 0,
    start: float = 0.0,
    forbidden: tuple[int, ...] = (),
) -> list[tuple[list[int], float]]:
    logp = table.log_softmax(dim=-1)
    going: list[tuple[list[int], float]] = [([], start)]
    finished: list[tuple[list[int], float]] = []
    for length in range(max_length + 1):
        candidates = []
        for ids, score in going:
            row = logp[length, ids[-1] if ids else 0]
            for token in range(SIZE) if length < max_length else [END]:
                if token not in forbidden:
                    candidates.append((score + float(row[token]), ids, token))
        candidates.sort(key=lambda one: -one[0])
        for score, ids, token in candidates[:beams]:
            if token == END and len(finished) < beams:
                finished.append((ids, score / (length + 1 + prompt) ** penalty))
        if len(finished) == beams or length == max_length:
            break
        going = [([*ids, token], score) for score, ids, token in candidates[: 2 * beams] if token != END][:beams]
    return sorted(finished, key=lambda one: -one[1])


@pytest.mark.parametrize("beams", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("ending", [-2.0, 0.5, 3.0])
def test_all_hypotheses_are_those_of_the_plain_search(beams: int, ending: float) -> None:
    for seed, max_length in enumerate((1, 4, 9)):
        made = tables(6, max_length, seed, ending)
        found = beam_hypotheses(TableState(made), 6, max_length, beams)
        for table, hypotheses in zip(made, found, strict=True):
            expected = plain_beam_search(table, beams, max_length)
            assert [one.tokens for one in hypotheses] == [ids for ids, _ in expected]
            assert [one.score for one in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_options_are_those_of_the_plain_search() -> None:
    made, start = tables(5, 8, 7, 0.5), torch.tensor([-0.5, -3.0, -9.0, 0.0, -1.0])
    plain = [[ids for ids, _ in plain_beam_search(table, 3, 8)] for table in made]
    different = 0
    for penalty, prompt, forbidden in [(1.0, 1, ()), (0.0, 0, ()), (2.0, 1, (0, 5)), (0.6, 4, (1,))]:
        found = beam_hypotheses(
            TableState(made), 5, 8, 3, penalty, prompt_length=prompt, start_scores=start, forbidden=forbidden
        )
        for i, hypotheses in enumerate(found):
            expected = plain_beam_search(made[i], 3, 8, penalty, prompt, float(start[i]), forbidden)
            assert [one.tokens for one in hypotheses] == [ids for ids, _ in expected]
            assert [one.score for one in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-5)
            different += [one.tokens for one in hypotheses] != plain[i]
    assert different > 5, "the options change nothing"


def test_finished_sentences_leave() -> None:
    state = TableState(tables(8, 12, 0, 1.0))
    beam_hypotheses(state, 8, 12, 3)
    assert state.sizes[:2] == [8, 24]
    assert state.sizes[-1] < 24
    assert state.sizes[1:] == sorted(state.sizes[1:], reverse=True)
    state = TableState(tables(8, 12, 0, 1.0))
    write_tokens(state, 8, 12)
    assert state.sizes[0] == 8
    assert state.sizes[-1] < 8


def test_groups_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tables(7, 9, 3, 0.5)
    beams, greedy = beam_hypotheses(TableState(made), 7, 9, 3), write_tokens(TableState(made), 7, 9)
    monkeypatch.setattr(decoding, "_IN_CACHE", 4 * SIZE)
    assert beam_hypotheses(TableState(made), 7, 9, 3) == beams
    assert write_tokens(TableState(made), 7, 9) == greedy


def test_greedy_and_samples_on_a_table() -> None:
    made = tables(6, 9, 2)
    greedy = write_tokens(TableState(made), 6, 9)
    for table, ids in zip(made, greedy, strict=True):
        last, expected = 0, []
        for step in range(9):
            last = int(table[step, last].argmax())
            if last == END:
                break
            expected.append(last)
        assert ids == expected
    banned = {i for ids in greedy for i in ids[:1]}
    again = write_tokens(TableState(made), 6, 9, forbidden=tuple(banned))
    assert not banned & {i for ids in again for i in ids}
    uniforms = torch.rand(6, 9, generator=torch.Generator().manual_seed(1))
    together = write_tokens(TableState(made), 6, 9, options=SamplingOptions(), uniforms=uniforms)
    assert together != greedy
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    shuffled = write_tokens(TableState(made[order]), 6, 9, options=SamplingOptions(), uniforms=uniforms[order])
    assert shuffled == [together[i] for i in order]


def test_a_decoder_that_cannot_end_still_gives_a_sentence() -> None:
    made = tables(2, 4, 1)
    made[..., END] = -torch.inf
    assert [len(ids) for ids in beam_search(TableState(made), 2, 4, 3)] == [4, 4]


def test_scores_that_are_not_numbers_name_the_sentence() -> None:
    made = tables(3, 4, 1)
    made[1] = torch.nan
    with pytest.raises(DataError, match="sentence 1"):
        beam_search(TableState(made), 3, 4, 2)
    with pytest.raises(DataError, match="sentence 1"):
        write_tokens(TableState(made), 3, 4)
    with pytest.raises(DataError, match="sentence 1"):
        write_tokens(TableState(made), 3, 4, options=SamplingOptions(), uniforms=torch.rand(3, 4))
