"""Training killed with SIGKILL at random moments, five times, ends as if nothing had happened."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_data import build_toy_dataset, toy_run

from largeconcept.io import read_json, read_safetensors
from largeconcept.train.config import RunConfig
from largeconcept.train.meters import read_lines

KILLS = 5
STEPS = 120

# Loads the library once; then, for each configuration on standard input, forks a process that trains, kills it the
# given seconds after it wrote its first checkpoint (or, for a negative number, after its start), and says how it ended.
NURSERY = """
import os, sys, time
from largeconcept.train.checkpoint import latest
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Trainer
print("ready", flush=True)
for line in sys.stdin:
    path, delay = line.rstrip("\\n").split("\\t")
    out = RunConfig.from_yaml(path).train.out
    before = latest(out)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            Trainer(RunConfig.from_yaml(path), progress=False).fit()
            status = 0
        finally:
            os._exit(status)
    if delay:
        while float(delay) >= 0 and latest(out) == before:
            time.sleep(0.001)
        time.sleep(abs(float(delay)))
        os.kill(child, 9)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def nursery():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def train(nursery, config: Path, kill_after: float | None = None) -> tuple[bool, float]:
    """Train in a fresh process; return whether it was killed, and how long it lived."""
    start = time.monotonic()
    nursery.stdin.write(f"{config}\t{'' if kill_after is None else kill_after}\n")
    nursery.stdin.flush()
    status = int(nursery.stdout.readline())
    assert status in (0, 9), status
    return status == 9, time.monotonic() - start


def state_of(out: Path):
    lines = read_lines(out / "metrics.jsonl")
    for line in lines:
        line.pop("time", None)
        line.pop("concepts_per_second", None)
    state = read_json(out / f"step-{STEPS:08d}" / "state.json")
    del state["config"], state["config_hash"]
    return lines, state, read_safetensors(out / "model" / "model.safetensors")


def test_killed_five_times(tmp_path, nursery):
    data = build_toy_dataset(tmp_path / "toy")
    configs = {}
    for name in ("undisturbed", "killed"):
        plain = toy_run(data, tmp_path / name, train__max_steps=STEPS, train__save_every=3, train__log_every=2)
        configs[name] = tmp_path / f"{name}.yaml"
        configs[name].write_text(RunConfig.from_dict(plain).to_yaml())
    killed, duration = train(nursery, configs["undisturbed"])
    assert not killed
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    resumed_from = []
    for kill in range(KILLS):
        # The first kill may come before anything is saved; each later run first saves something of its own.
        delay = -draw.uniform(0.02, 0.1) * duration if kill == 0 else draw.uniform(0.0, 0.06)
        killed, _ = train(nursery, configs["killed"], kill_after=delay)
        assert killed, f"the run ended before it could be killed (seed {seed})"
        resumed_from.append(len(list((tmp_path / "killed").glob("step-*"))))
    killed, _ = train(nursery, configs["killed"])
    assert not killed
    lines, state, weights = state_of(tmp_path / "undisturbed")
    lines_killed, state_killed, weights_killed = state_of(tmp_path / "killed")
    assert sum(map(bool, resumed_from)) >= KILLS - 1, "no kill came after a checkpoint, so nothing was resumed"
    assert lines_killed == lines, f"seed {seed}"
    assert state_killed == state
    assert weights.keys() == weights_killed.keys()
    assert all(torch.equal(weights[name], weights_killed[name]) for name in weights), f"seed {seed}"
    assert not list((tmp_path / "killed").glob("*.tmp"))
