"""Tokens bound to places: what a form gives back before any training."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from largeconcept.codec.binding import FormReader, PositionBinding

WIDTH, PLACES = 16, 33


def binding(dim: int) -> PositionBinding:
    torch.manual_seed(dim)
    return PositionBinding(WIDTH, 2 * dim, dim, PLACES)


def states(rows: int, steps: int) -> torch.Tensor:
    return torch.randn(rows, steps, WIDTH, generator=torch.Generator().manual_seed(3))


def no_padding(hidden: torch.Tensor) -> torch.Tensor:
    return torch.zeros(hidden.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("dim", [64, 1024])
@pytest.mark.parametrize("length", [2, 32])
def test_noise_of_the_others_is_the_root_of_their_number_over_the_channels(dim: int, length: int) -> None:
    made, hidden = binding(dim), states(200, length)
    form = made(hidden, no_padding(hidden))
    back = made.unbind(form[:, None] * made.keys[:length]) / 2  # the start doubles the signal
    noise = (back - hidden).detach().square().mean().sqrt()
    assert float(noise) == pytest.approx(math.sqrt((length - 1) * WIDTH / dim), rel=0.15)


def test_one_token_comes_back_exactly_from_its_place_only() -> None:
    made, hidden = binding(64), states(5, 1)
    form = made(hidden, no_padding(hidden))
    assert torch.allclose(made.unbind(form * made.keys[0]) / 2, hidden[:, 0], atol=1e-5)
    elsewhere = made.unbind(form * made.keys[7]) / 2
    assert abs(float(F.cosine_similarity(elsewhere, hidden[:, 0]).detach().mean())) < 0.4


def test_padding_does_not_enter() -> None:
    made, hidden = binding(64), states(2, 6)
    padding = torch.arange(6) >= torch.tensor([4, 6])[:, None]
    changed = torch.where(padding[..., None], hidden + 5, hidden)
    assert torch.equal(made(hidden, padding), made(changed, padding))


def test_what_is_written_is_taken_off() -> None:
    """With the true size of the sum, the last token's hint has no noise at all."""
    made, hidden = binding(64), states(4, 12)
    raw = made(hidden, no_padding(hidden))
    size = raw.square().mean(dim=1, keepdim=True).sqrt()
    inputs = torch.cat([torch.randn(4, 1, WIDTH), hidden[:, :-1]], dim=1)
    for row in range(4):
        with torch.no_grad():
            made.scale.bias.fill_(math.log(math.expm1(float(1 / size[row]))))
        concept = torch.cat([torch.zeros(1, 64), (raw / size)[row : row + 1]], dim=1)
        hints = made.hints(concept, inputs[row : row + 1])[0] * size[row] / 2
        assert torch.allclose(hints[-1], hidden[row, -1], atol=1e-4)
        error = (hints - hidden[row]).detach().square().mean(dim=1)
        assert float(error[:4].mean()) > 10 * float(error[-1])


def test_steps_equal_the_whole_and_remember_what_was_written() -> None:
    made, inputs, concepts = binding(64), states(3, 9), torch.randn(3, 128)
    whole = made.hints(concepts, inputs)
    written = torch.zeros(3, 64)
    with torch.no_grad():
        for place in range(9):
            assert torch.allclose(made.hint(concepts, written, inputs[:, place], place), whole[:, place], atol=1e-5)
    assert float(written.abs().sum()) > 0


def test_a_reader_finds_what_followed_a_token_wherever_it_stands() -> None:
    """Before any training, and whatever the strength of the form; gain and the state of the decoder say nothing yet."""
    made, hidden = binding(1024), states(20, 12)
    reader = FormReader(made, 16)
    form = made(hidden, no_padding(hidden))
    for strength in (1.0, 0.1):
        here, keys = reader.take_out(strength * form, made)
        assert here.shape == (20, 16, WIDTH) and keys.shape[:2] == (20, 16)
        order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
        read = reader(hidden[:, order], torch.zeros(20, 11, WIDTH), here, keys)
        found = torch.cdist(read / reader.gain, here).argmin(dim=-1)
        assert float((found == order + 1).float().mean()) > 0.95
