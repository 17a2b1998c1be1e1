"""Train every variant for the same time on the sample corpus and print the paper's table, a token model beside them.

    python examples/compare_variants.py                       # a minute each, about twenty minutes on two cores
    python examples/compare_variants.py --minutes 5           # more time
    python examples/compare_variants.py --only mse flow       # some of them
    python examples/compare_variants.py --recipe-steps        # the steps of each recipe instead of equal time

Each is the recipe ``tiny.<variant>`` with as many steps as fit into the time; the machine's pace is measured first.
The table has the metrics of the paper (arXiv:2412.08821, section 2.4.2 and table 3), on the test part of the corpus:
l2 and contrastive accuracy of the predicted next concept, round-trip l2 (after decoding and encoding again), and
paraphrase. The token model (``recipes.baseline.token_lm_like``) has the size, data, tokenizer and time of the two-tower
model; it writes the next sentence, which is then encoded. Called again with the same --out, finished runs are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from largeconcept import load_codec
from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.data.build import build_concepts
from largeconcept.data.reader import ConceptDataset
from largeconcept.data.sequences import planned_documents
from largeconcept.eval.next_concept import NextConceptReport, mean_concept, score_next_concept, through_text
from largeconcept.generate.loop import predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.token_lm import TokenOptions, predict_next_sentences
from largeconcept.io import write_json
from largeconcept.models import load_model
from largeconcept.recipes import baseline, tiny
from largeconcept.train import Trainer
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Callbacks

CORPUS = Path(__file__).parent / "corpus"
VARIANTS = (
    "mse",
    "one_tower",
    "two_tower",
    "quantized",
    "quantized_continuous",
    "flow",
    "energy",
    "through_decoder",
    "planning",
)
WARM_UP, TIMED = 3, 6  # steps to measure the pace of a recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", default="runs/compare", help="folder for data, runs and results (default runs/compare)"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="training time of each variant (default 1)")
    parser.add_argument("--recipe-steps", action="store_true", help="train each recipe for its own number of steps")
    parser.add_argument("--only", nargs="+", choices=(*VARIANTS, "token_lm"), help="these variants alone")
    parser.add_argument("--documents", type=int, help="test documents to judge on (default: all)")
    parser.add_argument("--steps", type=int, help="train each for this many steps, to try the script out")
    arguments = parser.parse_args()
    out, console = Path(arguments.out), Console()
    codec = load_codec("starter")
    plain, planned = out / "data", out / "data-planned"
    for folder, plan in ((plain, None), (planned, "first_sentence")):
        for split in ("train", "test"):
            if not (folder / split).is_dir():
                build_concepts(str(CORPUS / split / "*.jsonl"), folder, codec="starter", split=split, plan=plan)
    names = arguments.only or [*VARIANTS, "token_lm"]
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        config = recipe(name, plain, planned, out)
        steps = arguments.steps or (None if arguments.recipe_steps else affordable(config, arguments.minutes, out))
        if steps is not None:
            config = config.override(f"train.max_steps={steps}")
        console.print(f"{name}: {config.train.max_steps} steps")
        start = time.perf_counter()
        Trainer(config).fit()
        row: dict[str, Any] = {"steps": config.train.max_steps, "minutes": (time.perf_counter() - start) / 60}
        judged = planned if name == "planning" else plain
        start = time.perf_counter()
        report, row["parameters"] = judge(name, config, judged, codec, arguments.documents)
        row["judging_seconds"] = time.perf_counter() - start
        row |= report.to_dict()
        rows[name] = row
        write_json(out / "results.json", rows)
    console.print(table(rows))
    (out / "results.md").write_text(markdown(rows))
    console.print(f"Also in {out / 'results.json'} and {out / 'results.md'}.")


def recipe(name: str, plain: Path, planned: Path, out: Path) -> RunConfig:
    if name == "token_lm":
        # A concept is two dozen tokens: with as many concepts a step as the others it would get a handful of steps.
        two_tower = tiny.two_tower(plain, out / "two_tower")
        return baseline.token_lm_like(two_tower, out=out / "token_lm", concepts_per_step=64)
    made: RunConfig = getattr(tiny, name)(planned if name == "planning" else plain, out / name)
    return made


def affordable(config: RunConfig, minutes: float, out: Path) -> int:
    """Return how many steps fit into the time, from the pace of a few."""
    if (Path(config.train.out) / "config.yaml").is_file():  # begun before: its number of steps stays
        return RunConfig.from_yaml(Path(config.train.out) / "config.yaml").train.max_steps
    trial, times = out / "pace", []
    changes = [f"train.max_steps={WARM_UP + TIMED}", f"train.out={json.dumps(str(trial))}", "train.eval_every=1000000"]
    shutil.rmtree(trial, ignore_errors=True)
    Trainer(config.override(*changes), Callbacks(on_step=lambda *_: times.append(time.perf_counter()))).fit()
    shutil.rmtree(trial)
    pace = (times[-1] - times[WARM_UP - 1]) / TIMED
    return max(int(60 * minutes / pace), 10)


def judge(name: str, config: RunConfig, data: Path, codec: Any, limit: int | None) -> tuple[NextConceptReport, int]:
    """Score a trained variant; also return its number of parameters, a token model's tables of tokens not counted."""
    run = Path(config.train.out)
    model = load_model(run / "model")
    dataset = ConceptDataset(data, "test")
    documents = list(planned_documents(dataset)) if name == "planning" else list(dataset)
    documents = [document for document in documents if len(document.concepts) >= 2][:limit]
    settings = {"training_mean": mean_concept(ConceptDataset(data, "train")), "max_length": 100_000}
    if name == "token_lm":
        normalizer = ConceptNormalizer.identity(dataset.dim)
        written = predict_next_sentences(
            model, codec.tokenizer, [document.sentences for document in documents], TokenOptions(max_tokens=64)
        )
        vectors = [
            codec.encode([text or "." for text in texts], document.lang)
            for texts, document in zip(written, documents, strict=True)
        ]

        def predict(x: Tensor, lengths: Tensor, places: list[int]) -> Tensor:
            predicted = torch.zeros_like(x)
            for row, place in enumerate(places):
                predicted[row, 1 : 1 + len(vectors[place])] = vectors[place]
            return predicted

        round_trip = None  # what it writes is text already
        size = sum(p.numel() for key, p in model.named_parameters() if "embed" not in key)
    else:
        normalizer = ConceptNormalizer.from_pretrained(run / "normalizer")
        options = GenerationOptions.from_dict(tiny.SAMPLERS.get(config.model.type, {}))

        def predict(x: Tensor, lengths: Tensor, places: list[int]) -> Tensor:
            return predict_teacher_forced(model, x, lengths, options, sample_ids=places)

        round_trip = through_text(codec)
        size = sum(p.numel() for p in model.parameters())
    return score_next_concept(predict, documents, normalizer, round_trip=round_trip, **settings), size


def cells(row: dict[str, Any], predictor: str = "model") -> list[str]:
    found = row["scores"][predictor]
    accuracy = found["contrastive_accuracy"]
    trip = found.get("round_trip_l2", {}).get("mean")
    return [
        f"{found['l2']['mean']:.1f}",
        "–" if trip is None else f"{trip:.1f}",
        f"{found['paraphrase']['mean']:.2f}",
        f"{accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]",
    ]


HEADINGS = (
    "variant",
    "parameters",
    "steps",
    "l2",
    "round-trip l2",
    "PAR",
    "contrastive accuracy",
    "more than copy-last",
)


def lines(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    first = rows.get("two_tower") or next(iter(rows.values()))
    found = [["copy the last concept", "–", "–", *cells(first, "copy_last"), "–"]]
    found.append(["mean concept", "–", "–", *cells(first, "training_mean"), "–"])
    for name, row in rows.items():
        gain = row["differences"]["copy_last"]["contrastive_accuracy"]
        more = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        found.append([name, f"{row['parameters'] / 1e6:.1f} M", str(row["steps"]), *cells(row), more])
    return found


def table(rows: dict[str, dict[str, Any]]) -> Table:
    made = Table(title="Next concept on held-out texts")
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading == "variant" else "right")
    for line in lines(rows):
        made.add_row(*line)
    return made


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    head = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines(rows))]) + "\n"


if __name__ == "__main__":
    main()
