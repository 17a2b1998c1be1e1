from __future__ import annotations

import pytest
import torch

from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.errors import ConfigError

FORM = {"dim": 56, "form_dim": 40}
REACH = {**FORM, "form_reach": 6}


@pytest.fixture(params=[{}, FORM, REACH], ids=["meaning", "meaning-and-form", "form-reach"])
def network(tiny_config: AutoencoderConfig, request: pytest.FixtureRequest) -> AutoencoderNetwork:
    torch.manual_seed(1)
    return AutoencoderNetwork(AutoencoderConfig(**{**tiny_config.to_dict(), **request.param})).eval()


def tokens(rows: int, steps: int) -> torch.Tensor:
    return torch.randint(4, 320, (rows, steps), generator=torch.Generator().manual_seed(2))


def test_concepts_have_variance_one_and_ignore_padding(network: AutoencoderNetwork) -> None:
    ids = tokens(3, 9)
    lengths = torch.tensor([9, 4, 6])
    together = network.encode(ids, lengths)
    assert torch.allclose(together.square().mean(dim=1), torch.ones(3), atol=1e-4)
    for row, length in enumerate(lengths.tolist()):
        alone = network.encode(ids[row : row + 1, :length], lengths[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    changed = ids.clone()
    changed[1, 4:] = 7
    assert torch.allclose(network.encode(changed, lengths)[1], together[1], atol=1e-6)
    changed[1, 0] = 5 if ids[1, 0] != 5 else 6
    assert not torch.allclose(network.encode(changed, lengths)[1], together[1], atol=1e-3)


def test_encoder_sees_the_order_of_words(network: AutoencoderNetwork) -> None:
    ids = tokens(1, 6)
    lengths = torch.tensor([6])
    assert not torch.allclose(network.encode(ids, lengths), network.encode(ids.flip(1), lengths), atol=1e-2)


def test_decoder_is_causal_and_reads_concept_and_language(network: AutoencoderNetwork) -> None:
    ids, concepts = tokens(2, 7), torch.randn(2, network.config.dim)
    lang = torch.tensor([0, 1])
    base = network.decode_hidden(concepts, ids, lang)
    changed = ids.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 300 + 4
    moved = (network.decode_hidden(concepts, changed, lang) - base).abs().amax(dim=(0, 2)) > 1e-5
    assert moved.tolist() == [False] * 4 + [True] * 4  # input 3 is state 4: the language stands in front
    assert not torch.allclose(network.decode_hidden(concepts + 0.5, ids, lang)[:, 0], base[:, 0], atol=1e-3)
    assert not torch.allclose(network.decode_hidden(concepts, ids, lang.flip(0))[:, 0], base[:, 0], atol=1e-3)


def test_cached_steps_equal_the_full_pass(network: AutoencoderNetwork) -> None:
    ids, concepts, lang = tokens(3, 8), torch.randn(3, network.config.dim), torch.tensor([0, 2, 3])
    full = network.decode_hidden(concepts, ids, lang)
    keys, values, guide, taken = network.start(concepts, 9)
    entering = [network.language(lang), *network.embedding(ids).unbind(1)]
    for t, embedded in enumerate(entering):
        state = network.step(embedded, guide, keys, values, t, taken)
        assert torch.allclose(state, full[:, t], atol=1e-5), t


def test_shape_is_checked(network: AutoencoderNetwork) -> None:
    with pytest.raises(ConfigError, match="too many tokens"):
        network.encode(tokens(1, 25), torch.tensor([25]))
    with pytest.raises(ConfigError, match="num_heads"):
        AutoencoderConfig.from_dict({"width": 100, "num_heads": 3})
    with pytest.raises(ConfigError, match="form_dim"):
        AutoencoderConfig(dim=64, width=32, num_heads=2, form_dim=64)
    for wrong in ({"form_reach": 4}, {**FORM, "width": 32, "num_heads": 2, "form_reach": 129}):
        with pytest.raises(ConfigError, match="form_reach"):
            AutoencoderConfig(**wrong)
    with pytest.raises(ConfigError, match="unit_variance"):
        AutoencoderConfig(dim=64, width=32, num_heads=2, form_dim=32, bottleneck="kl")
    with pytest.raises(ConfigError, match="did you mean memory_tokens"):
        AutoencoderConfig.from_dict({"memory_token": 3})


def test_kl_bottleneck_gives_mean_and_log_variance(tiny_config: AutoencoderConfig) -> None:
    network = AutoencoderNetwork(AutoencoderConfig(**{**tiny_config.to_dict(), "bottleneck": "kl"}))
    assert network.encode(tokens(2, 5), torch.tensor([5, 3])).shape == (2, 32)


def test_both_parts_of_a_concept_have_variance_one(tiny_config: AutoencoderConfig) -> None:
    network = AutoencoderNetwork(AutoencoderConfig(**{**tiny_config.to_dict(), "dim": 56, "form_dim": 40}))
    meaning, form = network.encode(tokens(3, 9), torch.tensor([9, 4, 6])).split([16, 40], dim=1)
    for part in (meaning, form):
        assert torch.allclose(part.square().mean(dim=1), torch.ones(3), atol=1e-4)


def test_the_decoder_finds_a_token_of_the_form_at_another_place(tiny_config: AutoencoderConfig) -> None:
    """A form in which one token moves: only a decoder that reads elsewhere can know in its first states."""
    for settings, knows in ((FORM, False), (REACH, True)):
        torch.manual_seed(1)
        network = AutoencoderNetwork(AutoencoderConfig(**{**tiny_config.to_dict(), **settings})).eval()
        assert network.binding is not None
        with torch.no_grad():
            network.binding.scale.weight.zero_()
            # Keys of five channels each: places do not disturb each other.
            network.binding.keys[:8] = (torch.arange(40) // 5 == torch.arange(8)[:, None]).float()
            form = torch.randn(1, 40)
            moved = torch.where(torch.arange(40) // 5 == 4, -form, form)  # what stands at place 4
            meaning, ids, lang = torch.randn(1, 16), tokens(1, 3), torch.tensor([0])
            states = [network.decode_hidden(torch.cat([meaning, f], dim=1), ids, lang) for f in (form, moved)]
        assert bool((states[0] - states[1]).abs().max() > 1e-4) is knows


def test_reading_in_the_form_starts_quietly(tiny_config: AutoencoderConfig) -> None:
    """Adding it to a trained decoder changes its states little, and leaves the encoder and the language alone."""
    torch.manual_seed(1)
    network = AutoencoderNetwork(AutoencoderConfig(**{**tiny_config.to_dict(), **FORM})).eval()
    ids, concepts, lang = tokens(3, 7), torch.randn(3, 56), torch.tensor([0, 1, 2])
    before, encoded = network.decode_hidden(concepts, ids, lang), network.encode(ids, torch.tensor([7, 5, 3]))
    network.set_form_reach(6)
    after = network.decode_hidden(concepts, ids, lang)
    assert float((after * before).mean().detach()) > 0.9
    assert torch.equal(network.encode(ids, torch.tensor([7, 5, 3])), encoded)
    network.set_form_reach(0)
    assert network.reader is None and torch.equal(network.decode_hidden(concepts, ids, lang), before)
