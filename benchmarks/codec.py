"""Codec speed: sentences a second encoded and decoded with the shipped codec.

    python benchmarks/codec.py [--codec starter] [--sentences 512] [--threads N]

The baseline in the same run is one sentence at a time, as one would call it first.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from largeconcept import load_codec

CORPUS = Path(__file__).parent.parent / "examples" / "corpus" / "test"


def sentences(count: int) -> list[str]:
    found: list[str] = []
    for path in sorted(CORPUS.glob("*.eng_Latn.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found += json.loads(line)["sentences"]
    return (found * (1 + count // len(found)))[:count]


def timed(work, *arguments, **keywords):
    began = time.perf_counter()
    value = work(*arguments, **keywords)
    return value, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="starter")
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    codec = load_codec(arguments.codec)
    texts = sentences(arguments.sentences)
    few = texts[:32]
    codec.encode(few)
    concepts, seconds = timed(codec.encode, texts)
    _, single = timed(lambda: [codec.encode([text]) for text in few])
    rate, baseline = len(texts) / seconds, len(few) / single
    print(
        f"{arguments.codec}, {arguments.threads} threads, float32, {len(texts)} English sentences; sentences a second"
    )
    print(f"  encode             {rate:8.0f}   {rate / baseline:5.1f} times one at a time ({baseline:.0f})")
    for name, keywords in {"greedy": {"method": "greedy"}, "beam 4": {"num_beams": 4}}.items():
        _, seconds = timed(codec.decode, concepts, "eng_Latn", **keywords)
        _, single = timed(lambda kw=keywords: [codec.decode(row[None], "eng_Latn", **kw) for row in concepts[:8]])
        rate, baseline = len(texts) / seconds, 8 / single
        print(f"  decode, {name:<10} {rate:8.0f}   {rate / baseline:5.1f} times one at a time ({baseline:.0f})")


if __name__ == "__main__":
    main()
