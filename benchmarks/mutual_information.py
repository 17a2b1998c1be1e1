"""What mutual information costs: contexts read once for all predictors, against once for each of their sentences.

    python benchmarks/mutual_information.py                # six documents of the sample corpus; a minute on one core
    python benchmarks/mutual_information.py --documents 20 --predictors 8

A token model of the demo's size (random weights; they change no cost) judges what several predictors say in every place
of some documents, by turns in both ways. Printed are processor times, their ratio in the same run, and the greatest
difference of what was found.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from largeconcept.codec import load_codec
from largeconcept.data.documents import read_documents
from largeconcept.demo import find_corpus
from largeconcept.eval.metrics.likelihood import CONTEXT_SENTENCES, TokenScorer, mutual_informations
from largeconcept.models.token_lm import TokenLM, TokenLMConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--length", type=int, default=20, help="sentences of a document (default 20)")
    parser.add_argument("--predictors", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = load_codec("starter").tokenizer  # type: ignore[attr-defined]
    config = TokenLMConfig(vocab_size=tokenizer.vocab_size, num_layers=6, model_dim=256, num_heads=4)
    judge = TokenScorer(TokenLM(config).eval(), tokenizer)
    found = read_documents([str(find_corpus() / "test" / "*.jsonl")])
    texts = [list(one.sentences[: arguments.length]) for one in found if len(one.sentences) >= arguments.length]
    texts = texts[: arguments.documents]
    contexts = [text[max(i - CONTEXT_SENTENCES, 0) : i] for text in texts for i in range(1, len(text))]
    said = [[text[i - 1 - k] for text in texts for i in range(1, len(text))] for k in range(arguments.predictors)]

    def each() -> list[torch.Tensor]:
        gains = []
        for sentences in said:
            alone, _ = judge.nats([[one] for one in sentences])
            after, _ = judge.nats([[one] for one in sentences], contexts)
            gains.append(alone - after)
        return gains

    def together() -> list[torch.Tensor]:
        named = {str(number): sentences for number, sentences in enumerate(said)}
        return [one.gains for one in mutual_informations(judge, named, contexts).values()]

    ways: dict[str, Callable[[], list[torch.Tensor]]] = {"each by itself": each, "contexts once": together}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gains: dict[str, list[torch.Tensor]] = {}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            began = time.process_time()
            gains[name] = way()
            seconds[name].append(time.process_time() - began)
    print(
        f"{len(contexts)} places of {len(texts)} documents, {len(said)} predictors, {torch.get_num_threads()} threads"
    )
    for name, times in seconds.items():
        print(f"{name:16} {statistics.median(times):7.2f} s ({min(times):.2f} to {max(times):.2f})")
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    apart = max(float((one - two).abs().max()) for one, two in zip(*gains.values(), strict=True))
    print(f"greatest difference {apart:.1e} nats a sentence")


if __name__ == "__main__":
    main()
