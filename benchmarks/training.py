"""Concepts per second of training: base and two-tower models, float32 and bfloat16, eager and compiled, in one run.

    python benchmarks/training.py            # the full table (some minutes: compilation)
    python benchmarks/training.py --quick    # smaller models, no compilation
    python benchmarks/training.py --json     # one JSON object a line

A step is what the trainer does without its files: noise, forward, backward, clipping, AdamW, average. Every concept of
the batch counts; batches are full. The best of the timed rounds is shown, since other work on the machine only slows.
Rates with "fwd+bwd" leave out what follows the gradients. The naive two-tower (naive_two_tower.py here: modulators for
every row, dead queries and keys, masks in every layer) has the same weights and the same loss; factors are of
"fwd+bwd", against the naive model, or where there is none against the first row.
"""

import argparse
import json
import time

import torch
from naive_two_tower import NaiveTwoTower

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.models import build_model, model_config
from largeconcept.objectives import build_objective, default_objective
from largeconcept.train.ema import EMA
from largeconcept.train.optim import OptimConfig, build_optimizers
from largeconcept.train.parallel import Parallel
from largeconcept.train.precision import autocast, has_bf16, measure_matmul
from largeconcept.train.step import Stepper
from largeconcept.types import ConceptBatch

FULL = {"model_dim": 512, "num_heads": 8, "concept_dim": 1024, "dropout": 0.1}
QUICK = {"model_dim": 256, "num_heads": 4, "concept_dim": 384, "dropout": 0.1}


def models(quick: bool) -> dict[str, dict]:
    style = QUICK if quick else FULL
    base, context, denoiser = (4, 2, 3) if quick else (12, 4, 8)
    return {
        f"base {base} layers": {"type": "mse", "num_layers": base, **style},
        f"two-tower {context} + {denoiser} layers": {
            "type": "two_tower",
            "num_context_layers": context,
            "num_denoiser_layers": denoiser,
            **style,
        },
    }


def measure(
    settings: dict, precision: str, compiled: bool, optimizer: str, naive: bool, args: argparse.Namespace
) -> dict:
    """Return the rate of one model in one mode."""
    torch.manual_seed(0)
    parallel = Parallel.start("none", args.device)
    config = model_config(settings)
    model = build_model(config).to(parallel.device)
    normalizer = ConceptNormalizer.identity(config.concept_dim).to(parallel.device)
    objective = build_objective(default_objective(config), normalizer)
    if naive:
        model = NaiveTwoTower(model)
    if compiled:
        model.compile()
    optimizers = build_optimizers(model, OptimConfig(type=optimizer))
    stepper = Stepper(model, objective, optimizers, parallel, precision, 25.0, EMA(model, 0.999))
    batch = ConceptBatch(
        torch.randn(args.documents, args.length, config.concept_dim),
        torch.full((args.documents,), args.length),
        torch.arange(args.documents),
    )
    start = time.perf_counter()
    for step in range(2):
        stepper([batch], seed=0, step=step, factor=1.0)
    warm = time.perf_counter() - start
    best = float("inf")
    for number in range(args.rounds):
        start = time.perf_counter()
        for step in range(args.steps):
            result = stepper([batch], seed=0, step=2 + number * args.steps + step, factor=1.0)
        best = min(best, (time.perf_counter() - start) / args.steps)
    gradients = float("inf")
    for step in range(args.rounds * args.steps):
        start = time.perf_counter()
        with autocast(precision, parallel.device):
            loss = objective(model, batch, StepRandom(0, step))
        loss.sum.backward()
        gradients = min(gradients, time.perf_counter() - start)
        model.zero_grad()
    assert not result.skipped, "the benchmark must train, not skip steps"
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "concepts_per_second": args.documents * args.length / best,
        "forward_backward_per_second": args.documents * args.length / gradients,
        "milliseconds_per_step": 1000 * best,
        "first_two_steps_seconds": warm,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models, no compilation")
    parser.add_argument("--eager", action="store_true", help="no compilation")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--length", type=int, default=64, help="concepts of a document")
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device = Parallel.start("none", args.device).device
    rates = measure_matmul(device)
    about = {
        "torch": torch.__version__,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "bf16_hardware": has_bf16(device),
        "matmul_gmacs_fp32": round(rates["fp32"], 1),
        "matmul_gmacs_bf16": round(rates["bf16"], 1),
        "batch": [args.documents, args.length],
    }
    print(json.dumps(about) if args.json else "  ".join(f"{k} {v}" for k, v in about.items()))
    modes = [("fp32", False, "adamw"), ("bf16", False, "adamw"), ("bf16", False, "muon")]
    if not (args.quick or args.eager):
        modes += [("fp32", True, "adamw"), ("bf16", True, "adamw")]
    for name, settings in models(args.quick).items():
        baseline = None
        plain = [("fp32", False, "adamw", True)] if settings["type"] == "two_tower" else []
        for precision, compiled, optimizer, naive in plain + [(*mode, False) for mode in modes]:
            found = measure(settings, precision, compiled, optimizer, naive, args)
            gradients = found["forward_backward_per_second"]
            baseline = baseline or gradients
            whole = found["concepts_per_second"]
            rates = f"{whole:8,.0f} concepts/s  fwd+bwd {gradients:8,.0f} x{gradients / baseline:.2f}"
            mode = f"{precision} {'naive' if naive else 'compiled' if compiled else 'eager'} {optimizer}"
            if args.json:
                print(json.dumps({"model": name, "mode": mode, **found}))
                continue
            print(
                f"{name:28}{found['parameters'] / 1e6:7.1f}M  {mode:22}"
                f"{rates}  start {found['first_two_steps_seconds']:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
