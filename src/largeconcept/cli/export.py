"""``largeconcept export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from largeconcept.cli.common import Json, echo, echo_json, key_values, progress, table


def export(
    run: Annotated[str, typer.Argument(help="Folder of a finished training run; with --ship also a saved pipeline.")],
    out: Annotated[str, typer.Argument(help="Folder of the saved pipeline to make.")],
    codec: Annotated[
        str | None, typer.Option("--codec", "-c", help="The codec of the data: a name or folder. Default: as noted.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Store the codec's name and fingerprint instead of a copy.")
    ] = False,
    title: Annotated[str | None, typer.Option("--title", help="For the model card.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Of the weights, for the model card.")] = None,
    training_data: Annotated[
        list[str] | None, typer.Option("--training-data", help="A line for the model card; may be repeated.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="What pairs without a task trained the model for; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A default of generation, as guidance_scale=3.")
    ] = None,
    ship: Annotated[
        bool, typer.Option("--ship", help="Small files: int8 weights, float16 where these would hurt.")
    ] = False,
    limit: Annotated[float, typer.Option("--limit", min=0, help="With --ship: most MiB of all files; 0: any.")] = 32.0,
    measure: Annotated[
        str | None,
        typer.Option("--measure", help="With --ship: a concept dataset on whose split test the loss is measured."),
    ] = None,
    documents: Annotated[
        int, typer.Option("--documents", min=2, help="With --measure: most documents, and sentences of a language.")
    ] = 200,
    json: Json = False,
) -> None:
    """Turn a training run into a saved pipeline.

    With --ship into one that is small enough to be part of the library; a saved pipeline can be made smaller, too.
    """
    from largeconcept.errors import ConfigError
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.hub import RECORD, folder_size
    from largeconcept.train.export import export_run, ship_pipeline

    generation = key_values(option)
    GenerationOptions.from_dict(generation, where="--option")
    card = {"title": title, "licence": licence, "training_data": tuple(training_data or ())}
    if measure is not None and not ship:
        raise ConfigError("needs --ship", where="--measure")
    if not ship:
        export_run(run, out, codec=codec, card=card, tasks=task or (), generation=generation, reference=reference)
        _tell(out, folder_size(out), json, {})
        return
    if reference:
        raise ConfigError("what ships holds its codec", where="--reference", hint="leave it out")
    given: dict[str, Any] = {"codec": codec, "tasks": tuple(task or ()), "generation": generation}
    keywords = {name: value for name, value in given.items() if value} if (Path(run) / RECORD).is_file() else given
    ship_pipeline(run, out, max_bytes=round(limit * 2**20) or None, card=card, **keywords)
    figures: dict[str, Any] = {}
    if measure is not None:
        figures = _measure(run, out, measure, documents, given, json)
    _tell(out, folder_size(out), json, figures)


def _tell(out: str, size: int, json: bool, figures: dict[str, Any]) -> None:
    if json:
        echo_json({"out": out, "bytes": size, **figures})
    else:
        echo(f"{out}: {size / 2**20:,.1f} MiB; try: largeconcept generate --pipeline {out} --text 'A sentence.'")


def _measure(run: str, out: str, data: str, documents: int, given: dict[str, Any], json: bool) -> dict[str, Any]:
    """Compare what ships with the pipeline before rounding; a run is exported for that, and thrown away again."""
    import tempfile

    from largeconcept.eval.shipping import compare_pipelines
    from largeconcept.hub import RECORD
    from largeconcept.train.export import export_run

    with tempfile.TemporaryDirectory() as folder, progress("measure") as update:
        whole = Path(run) if (Path(run) / RECORD).is_file() else export_run(run, Path(folder) / "whole", **given)
        reports = compare_pipelines(
            {"before": whole, "shipped": out}, data, limit=documents, sentences=min(documents, 100), progress=update
        )
    if not json:
        columns = ["MiB", "seconds to open", "l2", "contrastive accuracy", *reports["shipped"].auto_bleu]
        rows = []
        for name, one in reports.items():
            bleu = [f"{value:.1f}" for value in one.auto_bleu.values()]
            figures = [f"{one.bytes / 2**20:.1f}", f"{one.seconds:.2f}", f"{one.l2:.3f}"]
            rows.append([name, *figures, f"{one.contrastive_accuracy:.4f}", *bleu])
        for line in table(["", *columns], rows):
            echo(line)
    return {"measured": {name: one.to_dict() for name, one in reports.items()}}
