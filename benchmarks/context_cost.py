"""What a longer context costs: concept models against a token model of the same size, counted and measured.

    python benchmarks/context_cost.py                 # 256 … 16384 tokens of context; some minutes on two cores
    python benchmarks/context_cost.py --quick         # small models, up to 1024 tokens: to see that it runs
    python benchmarks/context_cost.py --out cost      # writes cost/cost.json and cost/cost.svg
    python benchmarks/context_cost.py --paper         # the paper's 1.6B two-tower with SONAR, counted

The comparison of the LCM paper's figure 13, which is counted there alone: a text of N tokens in sentences of 27 is read
and four sentences are written. A concept model's share of the codec (encoding the context, decoding the new sentences)
is in all its figures. The token model has the parameters of the two-tower within 5 %, not counting its table of
tokens. Weights are random; they change no cost. The models take turns, several times (--repeats): seconds are the
median of the runs, with how far they are apart; ratios are medians of those of each turn, so a machine that is now
quicker and now slower hardly matters to them. Memory is the peak beyond what was there before a run, so without
weights. Absolute times are this machine's: pin a core (taskset -c 1) and name the threads. `largeconcept eval report
cost` draws the same figures as a page.
"""

from __future__ import annotations

import argparse
import statistics
import time
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import nn

from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.eval.cost import text_flops
from largeconcept.eval.measure import Measured, cost_record, measure_context, median_run
from largeconcept.eval.report.charts import Axis, log_ticks, short
from largeconcept.generate.options import GenerationOptions
from largeconcept.io import write_json
from largeconcept.models import MSEConfig, TwoTowerConfig
from largeconcept.models.registry import build_model
from largeconcept.recipes.baseline import count_parameters, matched_size

CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16384)
QUICK_CONTEXTS = (256, 512, 1024)
COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce")


def configurations(quick: bool, codec: AutoencoderConfig) -> dict[str, Any]:
    width, heads, base, towers = (128, 4, 4, (1, 2)) if quick else (512, 8, 12, (3, 5))
    sizes = {"concept_dim": codec.dim, "model_dim": width, "num_heads": heads}
    two_tower = TwoTowerConfig(**sizes, num_context_layers=towers[0], num_denoiser_layers=towers[1])
    return {
        "Base-LCM": MSEConfig(**sizes, num_layers=base),
        "two-tower": two_tower,
        "token LM": matched_size(two_tower, codec.vocab_size),
    }


def paper() -> dict[str, Any]:
    """The paper's models of 1.6 billion parameters, and a token model as large with the table of Llama 2."""
    two_tower = TwoTowerConfig()
    return {"Base-LCM": MSEConfig(), "two-tower": two_tower, "token LM": matched_size(two_tower, 32_000)}


def codec_config(quick: bool) -> AutoencoderConfig:
    """The shape of the codec that ships, or a small one."""
    if not quick:
        return AutoencoderConfig()
    return AutoencoderConfig(dim=64, width=64, num_heads=2, encoder_layers=1, decoder_layers=1, vocab_size=1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and short contexts")
    parser.add_argument("--contexts", type=int, nargs="+", help="tokens of context")
    parser.add_argument("--new-tokens", type=int, default=108, help="tokens to write (default 108, four sentences)")
    parser.add_argument("--sentence-tokens", type=int, default=27, help="tokens of a sentence (default 27)")
    parser.add_argument("--steps", type=int, default=40, help="denoising steps of the two-tower (default 40)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each row, the median counts (default 3)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cpu-time", action="store_true", help="count this process's CPU time, for a busy machine")
    parser.add_argument("--count", action="store_true", help="count operations alone, run nothing")
    parser.add_argument("--paper", action="store_true", help="the paper's sizes, with SONAR; counted")
    parser.add_argument("--out", metavar="FOLDER", help="write cost.json and cost.svg there")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    contexts = arguments.contexts or (QUICK_CONTEXTS if arguments.quick else CONTEXTS)
    shape: Any = (SonarEncoderConfig(), SonarDecoderConfig()) if arguments.paper else codec_config(arguments.quick)
    chosen = paper() if arguments.paper else configurations(arguments.quick, shape)
    arguments.count |= arguments.paper
    options = GenerationOptions(num_inference_steps=arguments.steps)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    text = {"new_tokens": arguments.new_tokens, "sentence_tokens": arguments.sentence_tokens}
    parameters = {name: count_parameters(config) for name, config in chosen.items()}
    settings = {
        **text,
        "steps": arguments.steps,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "process time" if arguments.cpu_time else "wall clock",
        "repeats": arguments.repeats,
        "parameters": parameters,
        "models": {name: config.to_dict() for name, config in chosen.items()},
        "codec": [one.to_dict() for one in (shape if isinstance(shape, tuple) else (shape,))],
    }
    print(
        f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads, float32; "
        f"{arguments.new_tokens} tokens written, sentences of {arguments.sentence_tokens}"
    )
    print("; ".join(f"{name} {count / 1e6:.1f} M parameters" for name, count in parameters.items()))
    rows: dict[str, list[Measured]] = {name: [] for name in chosen}
    codec = None if arguments.count else AutoencoderNetwork(shape).eval().to(arguments.device)
    networks = {} if arguments.count else {name: prepared(config, arguments.device) for name, config in chosen.items()}
    for network in networks.values():  # weights are rearranged at the first call
        measure_context(network, 64, codec=codec, options=options, **text)
    for context in contexts:
        if arguments.count:
            for name, config in chosen.items():
                flops = text_flops(config, context, codec=shape, options=options, causal_half=True, **text)
                rows[name].append(Measured(context, arguments.new_tokens, flops))
            continue
        turns: dict[str, list[Measured]] = {name: [] for name in networks}
        for _ in range(arguments.repeats):
            for name, network in networks.items():
                turns[name].append(measure_context(network, context, codec=codec, options=options, clock=clock, **text))
        for name, runs in turns.items():
            rows[name].append(median_run(runs))
        times = (f"{name} {seconds_of(found[-1])}" for name, found in rows.items())
        print(f"  {context} tokens: {', '.join(times)}", flush=True)
    for line in table(rows):
        print(line)
    if arguments.out:
        folder = Path(arguments.out)
        write_json(folder / "cost.json", cost_record(rows, settings))
        (folder / "cost.svg").write_text(drawing(cost_record(rows, settings)["curves"]))
        print(f"written: {folder / 'cost.json'}, {folder / 'cost.svg'}")


def prepared(config: Any, device: str) -> nn.Module:
    model = build_model(config).eval().to(device)
    if config.type == "two_tower":
        for layer in model.denoiser.layers:  # a fresh denoiser ignores its context
            nn.init.normal_(layer.modulator.fc.weight, std=0.02)
    return model


def seconds_of(one: Measured) -> str:
    """Return the median, and the quickest and the slowest run."""
    if not one.seconds:
        return "–"
    return f"{one.total_seconds:.2f} ({min(one.runs):.2f} to {max(one.runs):.2f})"


def ratio_of(one: Measured, other: Measured) -> str:
    """Return the median of the ratios of each turn."""
    if not one.seconds:
        return "–"
    return f"{statistics.median(a / b for a, b in zip(one.runs, other.runs, strict=True)):.2f}"


def table(rows: dict[str, list[Measured]]) -> list[str]:
    names = list(rows)
    last = names[-1]
    heads = ["context", *(f"{name} {unit}" for unit in ("GFLOP", "s", "MB") for name in names)]
    heads += [f"{last} / {name} ({what})" for what in ("GFLOP", "s") for name in names[:-1]]
    lines = []
    for place, first in enumerate(rows[last]):
        here = {name: rows[name][place] for name in names}
        cells = [str(first.context_tokens)]
        cells += [f"{one.flops.total / 1e9:.1f}" for one in here.values()]
        cells += [seconds_of(one) for one in here.values()]
        cells += ["–" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}" for one in here.values()]
        cells += [f"{first.flops.total / here[name].flops.total:.2f}" for name in names[:-1]]
        cells += [ratio_of(first, here[name]) for name in names[:-1]]
        lines.append(cells)
    made = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    return made + ["| " + " | ".join(cells) + " |" for cells in lines]


def drawing(curves: dict[str, Any]) -> str:
    """Return an SVG with a panel for each plot, side by side, both axes logarithmic."""
    plots = [(title, plot) for title, plot in curves.items() if any(known(one) for one in plot["series"].values())]
    wide, high, left, right, top, bottom = 390, 330, 72, 14, 36, 84
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide * len(plots)} {high}" width="{wide * len(plots)}" '
        f'height="{high}" font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{wide * len(plots)}" height="{high}" fill="#fff"/>',
    ]
    for number, (title, plot) in enumerate(plots):
        points = {name: known(one) for name, one in plot["series"].items()}
        xs, ys = ([p[i] for group in points.values() for p in group] for i in (0, 1))
        across = Axis(min(xs), max(max(xs), min(xs) * 1.1), left, wide - right, True)
        up = Axis(min(ys) / 1.2, max(ys) * 1.2, high - bottom, top, True)
        parts.append(f'<g transform="translate({number * wide} 0)">')
        parts.append(f'<text x="{left}" y="20" font-weight="bold">{escape(title)}</text>')
        for tick in log_ticks(up.low, up.high):
            y = up.place(tick)
            parts.append(f'<line x1="{left}" x2="{wide - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
        for tick in sorted(set(xs)):
            x = across.place(tick)
            parts.append(f'<text x="{x:.1f}" y="{high - bottom + 17}" text-anchor="middle">{short(tick)}</text>')
        middle, base = (left + wide - right) / 2, high - bottom + 34
        parts.append(f'<text x="{middle}" y="{base}" text-anchor="middle">{escape(plot["x_label"])}</text>')
        parts.append(
            f'<text transform="translate(14 {(top + high - bottom) / 2}) rotate(-90)" text-anchor="middle">'
            f"{escape(plot['y_label'])}</text>"
        )
        for place, (name, group) in enumerate(points.items()):
            colour, dash = COLOURS[place % len(COLOURS)], ("", "6 3", "2 3", "8 3 2 3")[place % 4]
            path = " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in group)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
            )
            parts += [
                f'<circle cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r="3" fill="{colour}"/>' for x, y in group
            ]
            x, y = left + place * (wide - left - right) / len(points), high - 16
            parts.append(
                f'<line x1="{x:.1f}" x2="{x + 22:.1f}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2" '
                f'stroke-dasharray="{dash}"/>'
            )
            parts.append(f'<text x="{x + 27:.1f}" y="{y}">{escape(name)}</text>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def known(series: dict[str, Any]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(series["x"], series["y"], strict=True) if y is not None and y > 0]


if __name__ == "__main__":
    main()
