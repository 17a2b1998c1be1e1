"""Gradients do not depend on the number of processes nor on how a step is cut."""

import pytest
import torch
from distributed_workers import (
    agree,
    documents,
    fit,
    make_stepper,
    merged,
    run_processes,
    sum_small_buckets,
    train_and_save,
)
from training_data import build_toy_dataset, toy_run

from largeconcept.io import read_json, read_safetensors
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Trainer
from largeconcept.train.meters import read_lines
from largeconcept.train.parallel import Parallel


def alone(type_="adamw", cut=True):
    stepper = make_stepper(Parallel.start("none", "cpu"), clip_norm=0.5, type_=type_)
    results = []
    for step in range(2):
        batches = documents(step)
        result = stepper(batches if cut else [merged(batches)], seed=3, step=step, factor=1.0)
        results.append((result.loss, result.count, result.grad_norm, result.skipped))
    return {"model": stepper.model.state_dict(), "results": results}


def assert_same(one, two):
    for (a, count_a, norm_a, skipped_a), (b, count_b, norm_b, skipped_b) in zip(
        one["results"], two["results"], strict=True
    ):
        assert (count_a, skipped_a) == (count_b, skipped_b) == (count_a, False)
        assert a == pytest.approx(b, rel=1e-5) and norm_a == pytest.approx(norm_b, rel=1e-4)
    for name, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][name], rtol=1e-4, atol=1e-6, msg=name)


def test_cutting_a_step_into_micro_batches_changes_nothing():
    one = alone()
    assert one["results"][0][2] > 0.5, "the gradient must be clipped, or clipping is not tested"
    assert_same(one, alone(cut=False))


def settings(data):
    held_out = {"sources": [{"path": str(data), "split": "validation"}], "batch_concepts": 24, "max_length": 12}
    return {"train__save_every": 3, "schedule__steps": 12, "train__eval_every": 6, "validation": held_out}


SHARES = {"even": [[0, 2, 4], [1, 3, 5]], "one process without work": [[0, 1, 2, 3, 4, 5], []]}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Everything that needs two processes, in one start of them (a start takes seconds)."""
    out = tmp_path_factory.mktemp("ranks")
    data = build_toy_dataset(out / "toy")
    runs = [(train_and_save, str(out / name), shares) for name, shares in SHARES.items()]
    half = toy_run(data, out / "half", **settings(data), train__max_steps=6)
    run_processes(2, (sum_small_buckets,), (agree,), *runs, (fit, half))
    return out


@pytest.mark.parametrize("name", SHARES)
def test_two_processes_equal_one(two_processes, name):
    ranks = [torch.load(two_processes / name / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    for key, value in ranks[0]["model"].items():
        assert torch.equal(value, ranks[1]["model"][key]), f"{key} differs between the processes"
    assert_same(alone(), ranks[0])


def test_a_run_saved_by_two_processes_goes_on_in_one(two_processes, tmp_path):
    """Six steps by two processes and six by one are the same run as twelve by one."""
    data, half = two_processes / "toy" / "data", two_processes / "half"
    assert read_json(half / "step-00000006" / "state.json")["world_size"] == 2
    alone = Trainer(RunConfig.from_dict(toy_run(data, tmp_path, **settings(data))), progress=False).fit()
    resumed = Trainer(RunConfig.from_dict(toy_run(data, half, **settings(data))), progress=False).fit()
    assert len(resumed.losses) == 6
    assert resumed.losses == pytest.approx(alone.losses[6:], rel=1e-4)
    one, two = read_lines(tmp_path / "metrics.jsonl"), read_lines(half / "metrics.jsonl")
    assert len(one) == len(two) == 14
    for line, other in zip(one, two):
        assert line.keys() == other.keys()
        for name in line.keys() - {"time", "concepts_per_second"}:
            assert other[name] == pytest.approx(line[name], rel=1e-3), (line["step"], name)
    for name, value in read_safetensors(tmp_path / "model" / "model.safetensors").items():
        other = read_safetensors(half / "model" / "model.safetensors")[name]
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-5, msg=name)
