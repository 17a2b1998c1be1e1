"""Speed of the linear layer's paths against torch's own product: training of 512 rows, generation with 1 to 32 rows.

    python benchmarks/linear.py [--threads N] [--cpu-time]

Layers of width 512 as in the other benchmarks, enough of them that the weights do not stay in the caches. Ratios are
torch's time over ours, in one run; each is the best of several rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.nn.linear import Linear

SHAPES = ((512, 512), (512, 3072), (1536, 512))
CACHE = 64 << 20


def best(work: Callable[[], object], clock: Callable[[], float], rounds: int = 7) -> float:
    work()
    found = float("inf")
    for _ in range(rounds):
        start = clock()
        work()
        found = min(found, clock() - start)
    return found


def train(product: Callable[[Linear, Tensor], Tensor], layers: list[Linear], x: Tensor) -> None:
    for layer in layers:
        product(layer, x).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--cpu-time", action="store_true", help="count this process's CPU time, for a busy machine")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    print(f"{'D → F':>12} {'work':>16} {'torch':>10} {'ours':>10} {'ratio':>7}")
    for inputs, outputs in SHAPES:
        layers = [Linear(inputs, outputs) for _ in range(2 + CACHE // (4 * inputs * outputs))]
        own = Linear.forward

        def plain(layer: Linear, x: Tensor) -> Tensor:
            return F.linear(x, layer.weight, layer.bias)

        for rows in (512, 1, 2, 4, 16, 32):
            x = torch.randn(rows, inputs, requires_grad=rows == 512)
            if rows == 512:
                few = layers[:4]
                theirs, ours = (best(lambda p=p: train(p, few, x), clock) for p in (plain, own))  # noqa: B023
                unit, factor, what = "GMAC/s", 3e-9 * rows * inputs * outputs * len(few), "training, 512"
            else:
                with torch.no_grad():
                    theirs, ours = (best(lambda p=p: [p(layer, x) for layer in layers], clock) for p in (plain, own))  # noqa: B023
                unit, factor, what = "GB/s", 4e-9 * inputs * outputs * len(layers), f"rows {rows}"
            name = f"{inputs} → {outputs}"
            rates = f"{factor / theirs:10.1f} {factor / ours:10.1f}"
            print(f"{name:>12} {what:>16} {rates} {theirs / ours:>7.2f}  {unit}", flush=True)


if __name__ == "__main__":
    main()
