"""``largeconcept eval run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.cli.common import Device, Json, echo, echo_json, key_values, progress, table

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.eval.next_concept import NextConceptReport


def run(
    model: Annotated[str, typer.Argument(help="A saved pipeline, or the folder of a finished training run.")],
    data: Annotated[str, typer.Option("--data", help="Folder of a concept dataset of the same concept space.")],
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
    out: Annotated[str | None, typer.Option("--out", help="Also write the report as JSON to this file.")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure next-concept prediction beside its baselines.

    Metrics (arXiv:2412.08821, section 2.4.2): l2, and contrastive accuracy, the share of concepts of other documents
    that are farther from the prediction than the truth is; paraphrase, how much closer predictions come to the context
    than the truth does; with --round-trip, l2 after decoding and encoding. Baselines: the last concept, and the mean of
    the training data.
    """
    from largeconcept.codec import load_codec
    from largeconcept.data.reader import ConceptDataset, splits
    from largeconcept.devices import default_device, move
    from largeconcept.eval.next_concept import evaluate_next_concept, mean_concept, through_text
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.hub import check_fingerprint
    from largeconcept.io import write_json

    network, normalizer, fingerprint, defaults = open_model(model)
    options = GenerationOptions.from_dict({**defaults, "seed": seed, **key_values(option)})
    dataset = ConceptDataset(data, split, fingerprint=fingerprint, dim=normalizer.dim)
    mean = None
    if train_split is not None and train_split != split and train_split in splits(data):
        mean = mean_concept(ConceptDataset(data, train_split, fingerprint=fingerprint, dim=normalizer.dim))
    codec = None if round_trip is None else load_codec(round_trip)
    if codec is not None:
        check_fingerprint(codec, fingerprint, where=round_trip, dim=normalizer.dim)
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
    result = {"model": model, "data": data, "split": split, "options": options.to_dict(), **report.to_dict()}
    if out is not None:
        write_json(out, result)
    if json:
        echo_json(result)
        return
    for line in lines_of(report):
        echo(line)


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
