"""The concept model: next concepts, the texts it writes, what it does in languages it was not tuned on; its size."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from largeconcept.eval.harness import evaluate
from largeconcept.eval.records import RAW, raw_path, read_raw
from results_parts.inputs import Inputs
from results_parts.store import Piece

TASKS = ("summarize", "expand", "continuation")
PREDICTORS = ("lead_1", "lead_3", "copy_last", "shuffled", "reference")
ITEM_METRICS = ("rouge_l", "chrf")
SHOWN = ("model", "token_lm", "nearest_train", "lead_1")
"""Whose texts are shown as samples."""


def next_concept(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Predict each concept of held-out documents from the true ones before it."""
    inputs.need("data")
    token = [] if inputs.token_predictor is None else [inputs.token_predictor]

    def measure() -> dict[str, Any]:
        result = evaluate(
            inputs.model,
            "next_concept",
            **_data(inputs),
            predictors=token or "none",
            metrics="none",
            limit=inputs.limits.documents,
            seed=inputs.seed,
        ).to_dict()
        return {"task": result["tasks"].get("next_concept"), "left_out": result["left_out"]}

    return dict(piece("all", measure))


def writing(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Summarise, expand and continue held-out texts of each language, and summarise them in another one."""
    found = {lang: piece(lang, lambda: _write(inputs, lang, TASKS, piece.folder(lang))) for lang in inputs.languages}  # noqa: B023
    into = piece("into", lambda: _write(inputs, None, ("summarize_into",), piece.folder("into")))
    return {"languages": found, "into": into}


def _write(inputs: Inputs, lang: str | None, tasks: Sequence[str], folder: Path) -> dict[str, Any]:
    predictors: list[Any] = list(PREDICTORS)
    data = _data(inputs, lang) if inputs.data is not None else {}
    if data.get("train_split"):
        predictors.insert(3, "nearest_train")
    if inputs.token_predictor is not None:
        predictors.append(inputs.token_predictor)
    result = evaluate(
        inputs.model,
        tasks,
        **data,
        documents=[str(path) for path in inputs.document_files(lang)],
        predictors=predictors,
        metrics="none",
        limit=inputs.limits.texts,
        seed=inputs.seed,
        out=folder,
    ).to_dict()
    return {
        "tasks": result["tasks"],
        "left_out": result["left_out"],
        "items": {task: items(folder, task, one["scores"]) for task, one in result["tasks"].items()},
        "samples": {
            task: samples(folder, task, one["scores"], inputs.limits.samples, inputs.seed)
            for task, one in result["tasks"].items()
        },
    }


def zero_shot(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Let a model that was tuned on English alone summarise texts of the other languages in their own."""
    inputs.need("english_only")
    from largeconcept.eval.predictors import open_pipeline

    opened: list[Any] = []

    def measure(lang: str) -> dict[str, Any]:
        if not opened:
            opened.append(open_pipeline(str(inputs.english_only)))
        folder = piece.folder(lang)
        result = evaluate(
            opened[0],
            "summarize",
            documents=[str(path) for path in inputs.document_files(lang)],
            predictors="lead_1",
            metrics="none",
            limit=inputs.limits.texts,
            seed=inputs.seed,
            out=folder,
        ).to_dict()
        task = result["tasks"].get("summarize")
        if task is None:
            return {"left_out": result["left_out"]}
        rows = samples(folder, "summarize", task["scores"], inputs.limits.samples, inputs.seed)
        return {"task": task, "items": items(folder, "summarize", task["scores"]), "samples": rows}

    return {lang: piece(lang, lambda: measure(lang)) for lang in inputs.languages}  # noqa: B023


def items(folder: Path, task: str, predictors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of each item, for differences over several languages."""
    found: dict[str, Any] = {}
    for name in predictors:
        rows = read_raw(raw_path(folder, RAW, task, name))
        found.setdefault("ids", [row["id"] for row in rows])
        found[name] = {metric: [row["metrics"].get(metric) for row in rows] for metric in ITEM_METRICS}
    return found


def samples(folder: Path, task: str, predictors: Mapping[str, Any], number: int, seed: int) -> list[dict[str, Any]]:
    """Return items drawn by the seed, with what some of the predictors wrote."""
    rows = {name: read_raw(raw_path(folder, RAW, task, name)) for name in SHOWN if name in predictors}
    count = len(rows["model"])
    chosen = sorted(random.Random(seed).sample(range(count), min(number, count)))
    return [
        {
            **{name: rows["model"][i][name] for name in ("id", "lang", "target_lang", "source", "reference")},
            "outputs": {name: one[i]["output"] for name, one in rows.items()},
            "rouge_l": {name: one[i]["metrics"].get("rouge_l") for name, one in rows.items()},
        }
        for i in chosen
    ]


def _data(inputs: Inputs, lang: str | None = None) -> dict[str, Any]:
    """Return what tells :func:`evaluate` where held-out concepts and training texts are; nothing without the first."""
    from largeconcept.data.reader import splits

    assert inputs.data is not None
    there = splits(inputs.data)
    held_out = next((name for name in (inputs.split, "test", "validation") if name in there), None)
    if held_out is None:
        return {"documents": [str(path) for path in inputs.document_files()]} if lang is None else {}
    return {"data": inputs.data, "split": held_out, "train_split": inputs.train_split(lang)}


# ---------------------------------------------------------------------- what ships


def shipping(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Measure size and time to open, and, where the weights before rounding are there, what rounding costs."""
    from largeconcept.hub import folder_size

    found: dict[str, Any] = {
        "bytes": folder_size(inputs.pipeline),
        "parts": {
            path.name: folder_size(path) if path.is_dir() else path.stat().st_size
            for path in sorted(inputs.pipeline.iterdir())
        },
        "parameters": piece("parameters", lambda: _parameters(inputs)),
        "opened": piece("opened", lambda: _opened(inputs.pipeline)),
    }
    if inputs.float_pipeline is not None and inputs.data is not None:
        found["rounding"] = piece("rounding", lambda: _rounding(inputs))
    return found


def _parameters(inputs: Inputs) -> dict[str, Any]:
    pipe = inputs.model
    network = getattr(pipe.codec, "network", None)
    config = getattr(pipe.model, "config", None)
    return {
        "model": sum(one.numel() for one in pipe.model.parameters()),
        "codec": 0 if network is None else sum(one.numel() for one in network.parameters()),
        "family": str(getattr(config, "type", type(pipe.model).__name__)),
        "dim": pipe.codec.dim,
        "languages": list(inputs.languages),
    }


def _opened(folder: Path) -> list[list[float]]:
    """Return wall-clock and processor seconds of opening the pipeline, three times, each in a new process."""
    from loading import OPEN

    found = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True, check=True)
        found.append([float(one) for one in run.stdout.split()])
    return found


def _rounding(inputs: Inputs) -> dict[str, Any]:
    from largeconcept.eval.shipping import compare_pipelines

    assert inputs.float_pipeline is not None
    given = _data(inputs)
    if "data" not in given:
        return {}
    pipelines: dict[str, str | Path] = {"float": inputs.float_pipeline, "int8": inputs.pipeline}
    found = compare_pipelines(
        pipelines,
        given["data"],
        split=given["split"],
        limit=inputs.limits.documents,
        sentences=inputs.limits.noisy,
        seed=inputs.seed,
    )
    return {name: report.to_dict() for name, report in found.items()}
