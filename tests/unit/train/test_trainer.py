import json
import os
import signal

import pytest
import torch
from training_data import DIM, toy_run

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError, DataError, TrainingError
from largeconcept.io import read_json, read_safetensors
from largeconcept.models import load_model
from largeconcept.train import loop
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Callbacks, Trainer
from largeconcept.train.meters import read_lines
from largeconcept.types import Loss

TIMES = ("time", "concepts_per_second")


def fit(data, out, callbacks=None, **changes):
    return Trainer(RunConfig.from_dict(toy_run(data, out, **changes)), callbacks, progress=False).fit()


def metrics(out):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_lines(out / "metrics.jsonl")]


def weights(out):
    return read_safetensors(out / "model" / "model.safetensors")


@pytest.mark.parametrize("family", ["mse", "two_tower"])
def test_a_run_learns_and_leaves_what_it_promises(toy_dataset, tmp_path, family):
    changes = {"train__max_steps": 40, "optim__lr": 1e-2, "train__save_every": 20}
    validation = {
        "sources": [{"path": str(toy_dataset), "split": "validation"}],
        "batch_concepts": 48,
        "max_length": 12,
    }
    result = fit(toy_dataset, tmp_path, family=family, validation=validation, **changes)
    assert (result.steps, result.skipped, result.interrupted) == (40, 0, False)
    first, last = sum(result.losses[:8]) / 8, sum(result.losses[-8:]) / 8
    assert last < 0.9 * first
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000020", "step-00000040"]
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 41))
    assert lines[-1] == {"step": 40, **result.metrics}
    assert {"validation/ema/loss", "validation/raw/loss"} <= set(result.metrics)
    model, normalizer = load_model(tmp_path / "model"), ConceptNormalizer.from_pretrained(tmp_path / "normalizer")
    assert model.config.type == family and normalizer.dim == DIM
    run = read_json(tmp_path / "run.json")
    assert run["weights"] == "ema" and run["step"] == 40 and len(run["codec_fingerprint"]) == 16
    assert (tmp_path / "affixes.safetensors").is_file()
    assert RunConfig.from_yaml(tmp_path / "config.yaml").hash() == run["config_hash"]


@pytest.mark.parametrize("type_", ["adamw", "muon"])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(toy_dataset, tmp_path, type_):
    # Logging every 5 and saving every 4 steps puts checkpoints into the middle of a reported mean.
    changes = {"optim__type": type_, "train__log_every": 5, "train__eval_every": 6, "model": None}
    validation = {
        "sources": [{"path": str(toy_dataset), "split": "validation"}],
        "batch_concepts": 48,
        "max_length": 12,
    }
    changes = {k: v for k, v in changes.items() if v is not None} | {"validation": validation}
    one, two = tmp_path / "one", tmp_path / "two"
    undisturbed = fit(toy_dataset, one, **changes)

    def stop(step, result):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(toy_dataset, two, Callbacks(on_step=stop), **changes)
    assert [p.name for p in two.glob("step-*")] == ["step-00000004"]
    resumed = fit(toy_dataset, two, **changes)
    assert resumed.losses == undisturbed.losses[4:]
    assert metrics(two) == metrics(one)
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(two).values(), strict=True))


def test_dropout_is_part_of_what_is_repeated(toy_dataset, tmp_path):
    config = toy_run(toy_dataset, tmp_path / "a", family="mse")
    config["model"]["dropout"] = 0.3
    a = Trainer(RunConfig.from_dict(config), progress=False).fit().losses
    config["train"]["out"] = str(tmp_path / "b")
    torch.manual_seed(99)  # the surrounding generator has no say
    torch.rand(7)
    assert Trainer(RunConfig.from_dict(config), progress=False).fit().losses == a
    config["model"]["dropout"] = 0.0
    config["train"]["out"] = str(tmp_path / "c")
    assert Trainer(RunConfig.from_dict(config), progress=False).fit().losses != a


def test_a_finished_run_only_exports_and_a_longer_one_goes_on(toy_dataset, tmp_path):
    fit(toy_dataset, tmp_path, train__max_steps=4)
    before = weights(tmp_path)
    again = fit(toy_dataset, tmp_path, train__max_steps=4)
    assert again.losses == [] and again.steps == 4
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(tmp_path).values()))
    longer = fit(toy_dataset, tmp_path, train__max_steps=6, train__log_every=2, train__keep_last=5)
    assert len(longer.losses) == 2 and longer.steps == 6


def test_a_resume_with_another_setting_names_it(toy_dataset, tmp_path):
    fit(toy_dataset, tmp_path, train__max_steps=4)
    with pytest.raises(ConfigError, match=r"optim\.lr changed.*expected 0\.003; got 0\.5.*new run"):
        fit(toy_dataset, tmp_path, train__max_steps=4, optim__lr=0.5)
    with pytest.raises(ConfigError, match=r"data\.batch_concepts changed"):
        fit(toy_dataset, tmp_path, data__batch_concepts=50)


def test_a_moved_dataset_is_the_same_dataset(toy_dataset, tmp_path):
    fit(toy_dataset, tmp_path / "run", train__max_steps=2)
    moved = tmp_path / "moved"
    moved.symlink_to(toy_dataset)
    assert fit(moved, tmp_path / "run", train__max_steps=3).steps == 3


def test_settings_that_do_not_fit_the_data(toy_dataset, tmp_path):
    config = toy_run(toy_dataset, tmp_path)
    config["model"]["concept_dim"] = 24
    with pytest.raises(ConfigError, match=r"model\.concept_dim: .*16.*got 24; set model\.concept_dim=16"):
        Trainer(RunConfig.from_dict(config), progress=False).fit()
    with pytest.raises(DataError, match="no such dataset"):
        fit(tmp_path / "nothing", tmp_path)
    with pytest.raises(ConfigError, match="neither a method nor the folder"):
        fit(toy_dataset, tmp_path, normalizer="robbust")
    with pytest.raises(CheckpointError):
        fit(toy_dataset, tmp_path, train__init_from=str(tmp_path / "no-model"))
    with pytest.raises(ConfigError, match="unknown device"):
        fit(toy_dataset, tmp_path, train__device="tpuu")
    assert not (tmp_path / "model").exists()


def test_an_unknown_key_names_the_nearest(toy_dataset, tmp_path):
    config = toy_run(toy_dataset, tmp_path)
    config["train"]["max_stepz"] = 3
    with pytest.raises(ConfigError, match=r"train\.max_stepz: unknown key; did you mean train\.max_steps\?"):
        RunConfig.from_dict(config)
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        RunConfig.from_dict(toy_run(toy_dataset, tmp_path)).override("optim.lrr=1")


def test_normalizer_by_method_by_folder_and_fitted(toy_dataset, tmp_path):
    fit(toy_dataset, tmp_path / "fit", train__max_steps=1)
    fit(toy_dataset, tmp_path / "standard", train__max_steps=1, normalizer="standard")
    fit(toy_dataset, tmp_path / "path", train__max_steps=1, normalizer=str(tmp_path / "standard" / "normalizer"))
    fitted, standard, given = (
        ConceptNormalizer.from_pretrained(tmp_path / name / "normalizer") for name in ("fit", "standard", "path")
    )
    assert fitted.config.method == "robust" and standard.config.method == "standard"
    assert torch.equal(standard.center, given.center) and not torch.equal(standard.center, fitted.center)


def test_a_mixture_fits_its_normalizer_by_weight(toy_dataset, tmp_path):
    from training_data import build_toy_dataset

    from largeconcept.data.reader import ConceptDataset
    from largeconcept.train.setup import fit_normalizer

    small = ConceptDataset(build_toy_dataset(tmp_path, documents=5, seed=7))
    large = ConceptDataset(toy_dataset)
    mixed = fit_normalizer([small, large], [3.0, 1.0], "standard").center
    alone = [fit_normalizer([d], [1.0], "standard").center for d in (small, large)]
    torch.testing.assert_close(mixed, 0.75 * alone[0] + 0.25 * alone[1], atol=0.12, rtol=0)
    assert float((alone[0] - alone[1]).abs().max()) > 0.2, "equal means would make this test vacuous"


def poisoned(monkeypatch, steps):
    """Make the loss of some steps not a number."""
    build = loop.build_objective

    def build_poisoned(*arguments):
        objective = build(*arguments)

        def call(model, batch, rng):
            loss = objective(model, batch, rng)
            return Loss(loss.sum * float("nan"), loss.count, loss.metrics) if rng.step in steps else loss

        return call

    monkeypatch.setattr(loop, "build_objective", build_poisoned)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(toy_dataset, tmp_path, monkeypatch):
    poisoned(monkeypatch, {2, 3, 6})
    seen = {}
    result = fit(toy_dataset, tmp_path, Callbacks(on_step=lambda step, r: seen.update({step: r.skipped})))
    assert result.skipped == 3 and result.steps == 12
    assert [step for step, skipped in seen.items() if skipped] == [3, 4, 7]
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())
    assert metrics(tmp_path)[-1]["skipped"] == 3
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and all(json.loads(line) for line in text.splitlines())


def test_training_gives_up_after_too_many_such_steps(toy_dataset, tmp_path, monkeypatch):
    poisoned(monkeypatch, set(range(5, 100)))
    with pytest.raises(TrainingError, match=r"step 8: 3 steps in a row were not finite.*lower optim\.lr"):
        fit(toy_dataset, tmp_path, train__max_bad_steps=3)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000004"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_goes_on_later(toy_dataset, tmp_path, number):
    undisturbed = fit(toy_dataset, tmp_path / "one")
    before = signal.getsignal(number)

    def interrupt(step, result):
        if step == 5:
            os.kill(os.getpid(), number)

    stopped = fit(toy_dataset, tmp_path / "two", Callbacks(on_step=interrupt))
    assert stopped.interrupted and stopped.steps == 6
    assert signal.getsignal(number) is before
    assert not (tmp_path / "two" / "model").exists()
    resumed = fit(toy_dataset, tmp_path / "two")
    assert stopped.losses + resumed.losses == undisturbed.losses and not resumed.interrupted


def test_callbacks_see_the_run(toy_dataset, tmp_path):
    evaluations, saved = [], []

    def on_eval(context):
        assert not context.model.training and not torch.is_grad_enabled()
        evaluations.append((context.step, context.weights))
        return {"mine": float(context.step)}

    callbacks = Callbacks(on_eval=on_eval, on_checkpoint=lambda path: saved.append(path.name))
    result = fit(toy_dataset, tmp_path, callbacks, train__eval_every=6)
    assert evaluations == [(6, "ema"), (6, "raw"), (12, "ema"), (12, "raw")]
    assert saved == ["step-00000004", "step-00000008", "step-00000012"]
    assert result.metrics["validation/raw/mine"] == 12.0


def test_training_goes_on_from_a_saved_models_weights(toy_dataset, tmp_path):
    fit(toy_dataset, tmp_path / "one", train__export_weights="raw")
    fit(
        toy_dataset,
        tmp_path / "two",
        train__init_from=str(tmp_path / "one" / "model"),
        train__max_steps=1,
        train__export_weights="raw",
        schedule__warmup_steps=5,  # the first update has rate 0
        optim__weight_decay=0.0,
    )
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(ConfigError, match="init_from"):
        config = toy_run(toy_dataset, tmp_path / "three", train__init_from=str(tmp_path / "one" / "model"))
        config["model"]["ffn_dim"] = 64
        Trainer(RunConfig.from_dict(config), progress=False).fit()


def test_bf16_trains_with_float32_weights(toy_dataset, tmp_path):
    result = fit(toy_dataset, tmp_path, train__precision="bf16")
    exact = fit(toy_dataset, tmp_path / "exact")
    assert result.losses != exact.losses
    assert result.losses == pytest.approx(exact.losses, rel=0.1)
    assert {w.dtype for w in weights(tmp_path).values()} == {torch.float32}


def test_a_damaged_dataset_is_one_error_also_from_the_reading_thread(toy_dataset, tmp_path, monkeypatch):
    from largeconcept.data.loader import ConceptLoader

    def fail(self):
        raise OSError("disk gone")

    monkeypatch.setattr(ConceptLoader, "next_step", fail)
    for prefetch in (0, 2):
        with pytest.raises((ConceptLMError, OSError), match="disk gone"):
            fit(toy_dataset, tmp_path / str(prefetch), train__prefetch=prefetch)


def test_reading_ahead_changes_nothing(toy_dataset, tmp_path):
    losses = [fit(toy_dataset, tmp_path / str(n), train__prefetch=n).losses for n in (0, 3)]
    assert losses[0] == losses[1]
