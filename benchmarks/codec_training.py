"""Codec training speed on a processor: our loop against the naive one, in one run.

    python benchmarks/codec_training.py [--quick] [--size 21m|9m] [--threads N]

Counts target tokens a second (tokens the decoder learns to write; the encoder reads as many again) on sentence lengths
as they are in text, bf16 autocast where the processor has it. Loops: ``naive`` (benchmarks/naive_codec.py, sentences
in random order padded to the longest, whole vocabulary, AdamW), then ours: eager; with the vocabulary sampled; and
compiled.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from naive_codec import NaiveCodec

from largeconcept.codec.network import AutoencoderConfig
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.train.codec_trainer import CodecTrainConfig, CodecTrainer
from largeconcept.train.precision import autocast, resolve_precision

SIZES = {
    "21m": AutoencoderConfig(
        dim=384, width=384, num_heads=6, encoder_layers=4, decoder_layers=4, vocab_size=16384, languages=("eng_Latn",)
    ),
    "9m": AutoencoderConfig(
        dim=384, width=256, num_heads=4, encoder_layers=3, decoder_layers=3, vocab_size=10240, languages=("eng_Latn",)
    ),
}


def sentence_table(vocab_size: int, rows: int = 20_000) -> SentenceTable:
    """Random sentences with the lengths (mean 25, spread as in text) and the word frequencies (Zipf) of real ones."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(4.0, 6.3, rows).astype(np.int64), 4, 100)
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    ranks = 1.0 / np.arange(1, vocab_size - 259 + 1)
    tokens = rng.choice(np.arange(260, vocab_size + 1), int(offsets[-1]), p=ranks / ranks.sum()).clip(
        max=vocab_size - 1
    )
    return SentenceTable(
        tokens.astype(np.uint16), offsets, np.zeros(rows, np.uint8), np.zeros((0, 2), np.int32), ("eng_Latn",)
    )


def measure(step: Callable[[], int], seconds: float) -> float:
    """Tokens a second over about ``seconds``, after two warm-up steps."""
    step(), step()
    began, tokens = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        tokens += step()
    return tokens / (time.perf_counter() - began)


def naive_step(config: AutoencoderConfig, table: SentenceTable, budget: int, precision: str) -> Callable[[], int]:
    torch.manual_seed(0)
    model = NaiveCodec(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rng = np.random.default_rng(1)

    def step() -> int:
        rows = rng.integers(0, len(table), budget // 25)
        tokens, lengths = table.rows(rows)
        optimizer.zero_grad()
        with autocast(precision, "cpu"):
            loss = model.loss(tokens, lengths, torch.zeros(len(rows), dtype=torch.long), 0.1)
        loss.backward()
        optimizer.step()
        return int(lengths.sum()) + len(rows)

    return step


def our_step(
    config: AutoencoderConfig, table: SentenceTable, budget: int, sampled: int, compiled: bool
) -> Callable[[], int]:
    run = CodecTrainConfig.from_dict(
        {
            "network": config.to_dict(),
            "objective": {"sampled_vocabulary": sampled},
            "out": tempfile.mkdtemp(),
            "micro_tokens": budget // 3,
            "micro_batches": 3,
            "max_steps": 1000,
            "compile": compiled,
        }
    )
    trainer = CodecTrainer(run, table)
    if compiled:
        trainer.compile()
    state = {"step": 0}

    def step() -> int:
        state["step"] += 1
        return int(trainer.train_step(state["step"], 0.1)["tokens"])

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="21m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="measuring time of each loop")
    parser.add_argument("--quick", action="store_true", help="5 seconds each, nothing compiled")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds = 5.0 if arguments.quick else arguments.seconds
    config, budget = SIZES[arguments.size], 9216
    table = sentence_table(config.vocab_size)
    precision = resolve_precision("auto", "cpu")
    results = {"naive": measure(naive_step(config, table, budget, precision), seconds)}
    print(f"{arguments.size}, {arguments.threads} threads, {precision}; target tokens a second")
    print(f"  {'naive':<22}{results['naive']:8.0f}")
    plans = {"ours, eager": (0, False), "ours, sampled softmax": (1024, False)}
    if not arguments.quick:
        plans["ours, compiled"] = (1024, True)
    for name, (sampled, compiled) in plans.items():
        results[name] = measure(our_step(config, table, budget, sampled, compiled), seconds)
        print(f"  {name:<22}{results[name]:8.0f}   {results[name] / results['naive']:.2f} times naive", flush=True)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
