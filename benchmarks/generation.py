"""Milliseconds for each generated concept: Base-LCM, two-tower, and a naive two-tower loop in the same run.

    python benchmarks/generation.py            # batches 1 and 8, contexts of 16, 128 and 512 concepts; five minutes
    python benchmarks/generation.py --quick    # one concept, contexts of 16 and 128, batch 1

Width 512, 8 heads, concepts of 1024 channels, float32, random weights; Base-LCM of 12 layers, two-tower of 4 + 8
layers, T = 100, 40 steps, guidance 3 with rescale 0.7. Times include reading the prompt and are divided by batch and
number of concepts. The naive loop (benchmarks/naive_two_tower.py) makes as many concepts from the same noise, and both
must give the same; the ratio is its time over the library's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from naive_two_tower import naive_generate
from torch import Tensor, nn

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.generate.loop import GenerationOptions, generate_concepts
from largeconcept.models import MSEConceptModel, MSEConfig, TwoTowerConceptModel, TwoTowerConfig

DIM = 1024
SIZES = {"concept_dim": DIM, "model_dim": 512, "num_heads": 8}


def base() -> MSEConceptModel:
    return MSEConceptModel(MSEConfig(**SIZES, num_layers=12)).eval()


def two_tower() -> TwoTowerConceptModel:
    model = TwoTowerConceptModel(TwoTowerConfig(**SIZES, num_context_layers=4, num_denoiser_layers=8)).eval()
    for layer in model.denoiser.layers:  # a fresh denoiser ignores its context
        nn.init.normal_(layer.modulator.fc.weight, std=0.02)
        nn.init.normal_(layer.modulator.fc.bias, std=0.1)
    return model


def seconds(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Best of ``repeats``."""
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        work()
        best = min(best, clock() - start)
    return best


def options(concepts: int) -> GenerationOptions:
    return GenerationOptions(
        max_concepts=concepts,
        stop_threshold=None,
        num_inference_steps=40,
        guidance_scale=3.0,
        guidance_rescale=0.7,
        initial_noise_scale=0.6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--concepts", type=int, default=4, help="concepts to generate (default 4)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--cpu-time", action="store_true", help="count this process's CPU time, for a busy machine")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    contexts = (16, 128) if arguments.quick else (16, 128, 512)
    batches = (1,) if arguments.quick else (1, 8)
    concepts = 1 if arguments.quick else arguments.concepts
    repeats = 1 if arguments.quick else 2
    clock = time.process_time if arguments.cpu_time else time.perf_counter

    models: dict[str, nn.Module] = {"base": base(), "two_tower": two_tower()}
    normalizer = ConceptNormalizer.identity(DIM)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, {concepts} concepts"
        + (", CPU time" if arguments.cpu_time else "")
    )
    names = f"{'base':>10} {'two-tower':>10} {'naive':>10} {'ratio':>7}"
    print(f"{'context':>8} {'batch':>6} {names}   ms/concept")
    rows = []
    for context in contexts:
        for batch in batches:
            x = torch.randn(batch, context, DIM)
            row: dict[str, float | int | None] = {"context": context, "batch": batch}

            def run(name: str, number: int, x: Tensor = x) -> Tensor:
                results = generate_concepts(models[name], list(x), normalizer, options(number), noise=recorded(x))
                return torch.stack([result.concepts for result in results])

            for name in models:
                run(name, 1)  # weights are rearranged at the first call
                row[f"{name}_ms"] = 1e3 * seconds(lambda n=name: run(n, concepts), repeats, clock) / (batch * concepts)
            row["naive_ms"] = row["ratio"] = None
            if batch * context <= 1024:  # beyond that the naive loop takes minutes
                noise = recorded(x)
                scale = options(1).initial_noise_scale

                def naive(x: Tensor = x, noise: Callable[..., Tensor] = noise, scale: float = scale) -> Tensor:
                    rows = list(range(len(x)))
                    return naive_generate(
                        models["two_tower"],
                        x,
                        concepts,
                        options(concepts),
                        lambda p: scale * noise("initial", rows, [p] * len(rows)),
                    )

                plain = naive()
                difference = ((plain - run("two_tower", concepts)).norm() / plain.norm()).item()
                if difference > 1e-4:
                    raise SystemExit(f"the naive loop gives other concepts: {difference:.2g} apart")
                row["naive_ms"] = 1e3 * seconds(naive, 1, clock) / (batch * concepts)
                row["ratio"] = row["naive_ms"] / row["two_tower_ms"]
            rows.append(row)
            shown = [f"{row[key]:.1f}" if row[key] is not None else "-" for key in ("naive_ms", "ratio")]
            print(
                f"{context:>8} {batch:>6} {row['base_ms']:>10.1f} {row['two_tower_ms']:>10.1f} "
                f"{shown[0]:>10} {shown[1]:>7}",
                flush=True,
            )
    if arguments.json:
        with open(arguments.json, "w") as file:  # noqa: PTH123
            json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}, file, indent=1)


def recorded(x: Tensor) -> Callable[..., Tensor]:
    """Fixed noise, so that drawing it costs neither side anything."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))[:, 0]

    def draw(stream: str, rows: list[int], positions: list[int]) -> Tensor:
        return noise[rows]

    return draw


if __name__ == "__main__":
    main()
