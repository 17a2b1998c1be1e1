"""Functions that gloo processes run in the distributed tests, and what starts them."""

import os
import socket
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import nn

from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Trainer
from largeconcept.train.optim import OptimConfig, build_optimizers
from largeconcept.train.parallel import GradientSum, Parallel
from largeconcept.train.step import Stepper, gather_metrics
from largeconcept.types import ConceptBatch, Loss

DIM = 5


def run_processes(world_size, *tasks):
    """Run ``function(parallel, *arguments)`` for every (function, *arguments) of ``tasks`` in gloo processes.

    An exception in one process fails the test.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_enter, (world_size, port, tasks), nprocs=world_size)


def _enter(rank, world_size, port, tasks):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    parallel = Parallel.start("auto", "cpu")
    assert (parallel.strategy, parallel.world_size) == ("ddp", world_size)
    try:
        for function, *arguments in tasks:
            function(parallel, *arguments)
    finally:
        parallel.close()


class Regressor(nn.Module):
    """Predicts the next concept from the last; ``spare`` never has a gradient, ``rare`` only on rows with an odd id."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(DIM, 16)
        self.second = nn.Linear(16, DIM)
        self.spare = nn.Linear(3, 3)
        self.rare = nn.Parameter(torch.zeros(DIM))

    def forward(self, x, odd):
        y = self.second(torch.tanh(self.first(x)))
        return y + odd.float()[:, None, None] * self.rare if bool(odd.any()) else y


def regression(model, batch, rng):
    """Squared error of the next concept, plus noise that depends on (seed, step, sample id) only."""
    prediction = model(batch.concepts[:, :-1], batch.sample_ids % 2 == 1)
    target = batch.concepts[:, 1:] + 0.1 * rng.normal("noise", batch.sample_ids, batch.concepts.shape[1:])[:, 1:]
    positions = torch.arange(target.shape[1])
    mask = positions[None, :] < (batch.lengths - 1)[:, None]
    error = (prediction - target).square().sum(-1)
    total = (error * mask).sum()
    return Loss(total, mask.sum(), {"error": (total.detach(), mask.sum())})


def documents(step, count=6):
    """The documents of a step, of different lengths, each a batch of its own."""
    batches = []
    for row in range(count):
        generator = torch.Generator().manual_seed(100 * step + row)
        length = 3 + (row * 5) % 7
        concepts = torch.randn(1, length, DIM, generator=generator)
        batches.append(ConceptBatch(concepts, torch.tensor([length]), torch.tensor([100 * step + row])))
    return batches


def merged(batches):
    """One padded batch of several."""
    longest = max(b.concepts.shape[1] for b in batches)
    concepts = torch.zeros(len(batches), longest, DIM)
    for row, batch in enumerate(batches):
        concepts[row, : batch.concepts.shape[1]] = batch.concepts[0]
    return ConceptBatch(concepts, torch.cat([b.lengths for b in batches]), torch.cat([b.sample_ids for b in batches]))


def make_stepper(parallel, clip_norm=None, type_="adamw", start_seed=0):
    torch.manual_seed(start_seed)
    model = Regressor()
    gradients = parallel.prepare(model)
    optimizers = build_optimizers(model, OptimConfig(type=type_, lr=1e-2))
    return Stepper(model, regression, optimizers, parallel, clip_norm=clip_norm, gradients=gradients)


def train_and_save(parallel, out, shares, type_="adamw"):
    """Make two steps; rank r takes the documents of ``shares[r]`` in each. Save weights and what steps reported."""
    # Other ranks start from other weights: the first broadcast must make them equal.
    stepper = make_stepper(parallel, clip_norm=0.5, type_=type_, start_seed=parallel.rank)
    results = []
    for step in range(2):
        every = documents(step)
        batches = [every[i] for i in shares[parallel.rank]]
        result = stepper(batches, seed=3, step=step, factor=1.0)
        results.append((result.loss, result.count, result.grad_norm, result.skipped))
    Path(out).mkdir(exist_ok=True)
    torch.save({"model": stepper.model.state_dict(), "results": results}, Path(out) / f"rank{parallel.rank}.pt")


def sum_small_buckets(parallel):
    """Buckets of one or two tensors, two rounds with the same hooks, two passes each: the sum of all gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)])
    parameters = list(model.parameters())
    gradients = GradientSum(parameters, bucket_bytes=64)
    for _ in range(2):
        for last in (False, True):
            if last:
                gradients.arm()
            model(torch.full((1, 4), 1.0 + parallel.rank)).sum().backward()
        gradients.finish()
        summed = [p.grad.clone() for p in parameters]
        model.zero_grad()
        for rank in range(parallel.world_size):
            for _ in range(2):  # not armed, so the hooks leave these alone
                model(torch.full((1, 4), 1.0 + rank)).sum().backward()
        for parameter, value in zip(parameters, summed):
            torch.testing.assert_close(parameter.grad, value)
        model.zero_grad()


def agree(parallel):
    """A signal or a loss that is not finite on one process stops or skips the step on both."""
    stepper = make_stepper(parallel)
    before = [p.detach().clone() for p in stepper.model.parameters()]
    batches = documents(0)[parallel.rank :: 2]
    if parallel.rank == 1:
        batches[0].concepts[0, 0, 0] = float("nan")
    result = stepper(batches, seed=0, step=0, factor=1.0)
    assert result.skipped and not result.stop
    assert all(torch.equal(a, b) for a, b in zip(before, stepper.model.parameters()))
    result = stepper(documents(1)[parallel.rank :: 2], seed=0, step=1, factor=1.0, stop=parallel.rank == 1)
    assert result.stop and not result.skipped
    assert not all(torch.equal(a, b) for a, b in zip(before, stepper.model.parameters()))
    gathered = gather_metrics({f"only{parallel.rank}": (torch.tensor(2.0), torch.tensor(1.0))}, parallel)
    assert gathered == {"only0": (2.0, 1.0), "only1": (2.0, 1.0)}


def fit(parallel, plain):
    """Train as a configuration says, in this process group."""
    result = Trainer(RunConfig.from_dict(plain), progress=False).fit()
    assert result.steps == plain["train"]["max_steps"]
