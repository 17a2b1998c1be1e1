from itertools import pairwise

import pytest

from largeconcept.errors import ConfigError
from largeconcept.train.schedule import LRConfig, lr_factor

TYPES = ["cosine", "wsd", "constant", "inverse_sqrt", "polynomial"]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt", "exponential"])
def test_continuous_and_monotone_after_the_warmup(type_, shape):
    steps, warmup = 2000, 100
    config = LRConfig(type=type_, warmup_steps=warmup, decay_shape=shape, final_ratio=0.1)
    factors = [lr_factor(config, t, steps) for t in range(steps + 50)]
    assert factors[0] == 0.0 and factors[warmup] == pytest.approx(1.0)
    rises = [b - a for a, b in pairwise(factors[: warmup + 1])]
    assert min(rises) > 0 and max(rises) == pytest.approx(1 / warmup)
    falls = [a - b for a, b in pairwise(factors[warmup:])]
    assert min(falls) >= 0
    # 1 - sqrt starts steeply by nature: its first of 400 steps falls by 0.9/20
    assert max(falls) < (0.05 if shape == "sqrt" else 0.01)


@pytest.mark.parametrize("type_", ["cosine", "wsd", "polynomial"])
def test_ends_at_the_final_ratio_and_holds_it(type_):
    config = LRConfig(type=type_, warmup_steps=5, final_ratio=0.2)
    assert lr_factor(config, 99, 100) == pytest.approx(0.2, abs=0.12)
    assert lr_factor(config, 101, 100) == pytest.approx(0.2)
    assert lr_factor(config, 5000, 100) == pytest.approx(0.2)


def test_wsd_is_flat_until_the_decay():
    config = LRConfig(type="wsd", warmup_steps=10, decay_fraction=0.25, decay_shape="linear", final_ratio=0.0)
    assert {lr_factor(config, t, 100) for t in range(10, 76)} == {1.0}
    assert lr_factor(config, 88, 100) == pytest.approx(12 / 25)


def test_automatic_warmup_is_a_share_of_the_run():
    assert LRConfig().warmup(200) == 6
    assert LRConfig().warmup(10**6) == 1000
    assert LRConfig(warmup_steps=0).warmup(200) == 0
    assert lr_factor(LRConfig(warmup_steps=0), 0, 200) == 1.0


def test_a_warmup_longer_than_the_run_never_divides_by_zero():
    for type_ in TYPES:
        config = LRConfig(type=type_, warmup_steps=50)
        assert all(0 <= lr_factor(config, t, 10) <= 1 for t in range(100))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="final_ratio"):
        LRConfig.from_dict({"type": "wsd", "decay_shape": "exponential", "final_ratio": 0})
    with pytest.raises(ConfigError, match="restart"):
        LRConfig.from_dict({"type": "wsd", "after_end": "restart"})
    with pytest.raises(ConfigError, match="warmup_steps"):
        LRConfig.from_dict({"warmup_step": 3})


def test_its_own_length_does_not_move_with_the_run():
    config = LRConfig(steps=100)
    assert [lr_factor(config, t, 30) for t in range(30)] == [lr_factor(LRConfig(), t, 100) for t in range(30)]
