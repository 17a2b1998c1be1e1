import pytest
import torch
from torch import nn

from largeconcept.config import Config
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.train import checkpoint
from largeconcept.train.ema import EMA
from largeconcept.train.optim import OptimConfig, build_optimizers
from largeconcept.train.parallel import Parallel


class Run:
    """A model that is trained on noise of its own, enough to have a state in every part."""

    def __init__(self, type_="adamw", width=6):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 4))
        self.optimizers = build_optimizers(self.model, OptimConfig(type=type_))
        self.ema = EMA(self.model, 0.9)

    def train(self, steps, start=0):
        for step in range(start, start + steps):
            torch.manual_seed(step)
            self.model(torch.randn(8, 4)).square().sum().backward()
            self.optimizers.step(1.0 / (1 + step))
            self.ema.update()
            self.optimizers.zero_grad()

    def save(self, out, step, **options):
        state = {"ema_updates": self.ema.updates}
        return checkpoint.save(out, step, self.model, self.optimizers, self.ema, state, Parallel.start(), **options)

    def load(self, path):
        checkpoint.load(path, self.model, self.optimizers, self.ema)
        self.ema.updates = checkpoint.read_state(path)["ema_updates"]

    def weights(self):
        return [*self.model.state_dict().values(), *self.ema.state_dict().values()]


@pytest.mark.parametrize("type_", ["adamw", "muon"])
def test_training_goes_on_bit_for_bit(tmp_path, type_):
    one, two = Run(type_), Run(type_)
    one.train(3)
    path = one.save(tmp_path, 3)
    two.load(path)
    assert all(torch.equal(a, b) for a, b in zip(one.weights(), two.weights()))
    one.train(3, start=3)
    two.train(3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(one.weights(), two.weights()))
    assert len(one.optimizers.parts) == (2 if type_ == "muon" else 1)


def test_only_whole_checkpoints_count_and_the_oldest_go(tmp_path):
    run = Run()
    for step in (1, 2, 3):
        run.save(tmp_path, step, keep_last=2)
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    (tmp_path / "step-00000004.tmp").mkdir()
    assert checkpoint.latest(tmp_path).name == "step-00000003"
    checkpoint.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert checkpoint.latest(tmp_path / "nothing") is None


def test_a_failing_write_leaves_no_checkpoint(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        Run().save(tmp_path, 1)
    assert checkpoint.latest(tmp_path) is None


def test_damage_is_named(tmp_path):
    run = Run()
    run.train(1)
    path = run.save(tmp_path, 1)
    shard = max(path.glob("*.distcp"), key=lambda p: p.stat().st_size)
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"step-00000001.*delete this folder"):
        run.load(path)
    (path / "state.json").write_text('{"step": 1, "format_version": 99}')
    with pytest.raises(CheckpointError, match="unknown checkpoint format"):
        checkpoint.read_state(path)
    (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read JSON"):
        checkpoint.read_state(path)


def test_another_models_checkpoint_is_refused(tmp_path):
    path = Run(width=6).save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        Run(width=8).load(path)


class Shape(Config):
    type: str = "mse"
    width: int = 64
    later: int = 0


class Settings(Config):
    model: Shape = Shape()
    max_steps: int = 10
    seed: int = 0


def test_a_changed_setting_is_named_with_both_values():
    old, allowed = {"model": {"width": 64, "type": "mse"}, "max_steps": 10, "seed": 0}, frozenset({"max_steps"})
    checkpoint.check_same_config(old, Settings(max_steps=20), allowed, "step-1")
    new = Settings().override("model.width=128")
    with pytest.raises(ConfigError, match=r"model\.width changed.*expected 64; got 128"):
        checkpoint.check_same_config(old, new, allowed, "step-1")
    checkpoint.check_same_config(old, new, allowed | {"model"}, "step-1")


def test_settings_that_came_after_a_checkpoint_are_at_their_defaults():
    old = {"model": {"width": 64, "type": "mse"}, "max_steps": 10, "seed": 0}
    checkpoint.check_same_config(old, Settings(), frozenset(), "step-1")
    with pytest.raises(ConfigError, match=r"model\.later changed.*expected 0; got 3"):
        checkpoint.check_same_config(old, Settings().override("model.later=3"), frozenset(), "step-1")
    with pytest.raises(ConfigError, match="gone"):
        checkpoint.check_same_config({**old, "gone": 1}, Settings(), frozenset(), "step-1")
