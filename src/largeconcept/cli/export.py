"""``largeconcept export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from largeconcept.cli.common import echo, key_values


def export(
    run: Annotated[str, typer.Argument(help="Folder of a finished training run.")],
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
        typer.Option("--task", help="What pairs trained the model for, as summarize; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A default of generation, as guidance_scale=3.")
    ] = None,
) -> None:
    """Turn a training run into a saved pipeline."""
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.train.export import export_run

    generation = key_values(option)
    GenerationOptions.from_dict(generation, where="--option")
    card = {"title": title, "licence": licence, "training_data": tuple(training_data or ())}
    target = export_run(run, out, codec=codec, card=card, tasks=task or (), generation=generation, reference=reference)
    size = sum(path.stat().st_size for path in Path(target).rglob("*") if path.is_file())
    echo(f"{target}: {size / 2**20:,.1f} MiB; try: largeconcept generate --pipeline {target} --text 'A sentence.'")
