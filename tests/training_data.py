"""A toy dataset and a toy run, for the tests of training."""

import json
import random
from pathlib import Path

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts

DIM = 16
WORDS = ("red", "ball", "rolls", "over", "the", "old", "bridge", "and", "a", "small", "dog", "runs", "rain", "falls")


class Whole:
    """A segmenter for documents that come with their sentences."""

    def segment(self, text, lang=None):
        raise AssertionError("the documents here have sentences")

    def describe(self):
        return {"type": "whole"}


def build_toy_dataset(
    folder: Path, documents: int = 60, dim: int = DIM, seed: int = 0, plan: str | None = None
) -> Path:
    """Build splits ``train`` and ``validation`` of random sentences; return the dataset folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "validation")):
        draw = random.Random(f"{seed} {split}")
        lines = []
        for index in range(documents if number == 0 else 12):
            sentences = [" ".join(draw.choices(WORDS, k=6)) + "." for _ in range(draw.randint(3, 9))]
            lines.append(json.dumps({"id": f"{split}{index}", "sentences": sentences}))
        source = folder / f"{split}.jsonl"
        source.write_text("\n".join(lines) + "\n")
        build_concepts([source], folder / "data", codec=ToyCodec(dim), segmenter=Whole(), split=split, plan=plan)
    return folder / "data"


def toy_run(data: Path, out: Path, family: str = "two_tower", **changes) -> dict:
    """Return the plain data of a RunConfig that trains in a second or two; ``changes`` are ``group__key=value``."""
    sizes = {"num_layers": 1} if family == "mse" else {"num_context_layers": 1, "num_denoiser_layers": 1}
    config = {
        "model": {"type": family, "concept_dim": DIM, "model_dim": 16, "num_heads": 2, "ffn_dim": 32, **sizes},
        "data": {
            "sources": [{"path": str(data)}],
            "batch_concepts": 48,
            "max_length": 12,
            "micro_batches": 2,
            "shuffle_window": 200,
        },
        "optim": {"lr": 3e-3},
        "schedule": {"warmup_steps": 3},
        "train": {
            "out": str(out),
            "max_steps": 12,
            "log_every": 1,
            "save_every": 4,
            "precision": "fp32",
            "device": "cpu",
            "tensorboard": False,
        },
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            config.setdefault(group, {})[name] = value
        else:
            config[group] = value
    return config
