"""``largeconcept train-default``: from a corpus to the pipeline that ships."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import Json, echo, echo_json
from largeconcept.cli.demo import Terminal


def train_default(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STAGE.KEY=VALUE]...", help="Settings to change, as pretrain.train.max_steps=100."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder of all. Default: runs/default_SIZE.")] = None,
    size: Annotated[str, typer.Option("--size", help="cpu: two cores, under three hours. gpu: one GPU.")] = "cpu",
    kind: Annotated[str, typer.Option("--kind", help="The model: two_tower or mse.")] = "two_tower",
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", help="Folder of a corpus, or files; may be repeated. Default: Debian's is built."),
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--pairs", help="Translations beside those of the corpus; may be repeated.")
    ] = None,
    lang: Annotated[
        list[str] | None,
        typer.Option("--lang", "-l", help="Train the model on this language alone; may be repeated."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Last stage: corpus, prepare, codec, data, pretrain, finetune, ship or eval."),
    ] = None,
    ship_now: Annotated[
        bool, typer.Option("--ship-now", help="Train no further: ship what the newest checkpoints hold.")
    ] = False,
    json: Json = False,
) -> None:
    """Train codec and model and write the pipeline that ships.

    Called again it goes on where it was stopped.
    """
    from largeconcept.languages import flores
    from largeconcept.recipes.chain import train_default as run

    result = run(
        out or f"runs/default_{size}",
        Terminal(),
        size=size,  # type: ignore[arg-type]
        kind=kind,
        corpus=(corpus[0] if len(corpus) == 1 else corpus) if corpus else None,
        pairs=pairs or (),
        languages=[flores(code) for code in lang] if lang else None,
        settings=settings or (),
        until=until,
        ship_now=ship_now,
    )
    if json:
        pipeline = None if result.pipeline is None else str(result.pipeline)
        echo_json({"out": str(result.out), "done": list(result.done), "pipeline": pipeline})
    elif result.pipeline is not None and not result.interrupted:
        echo(f"try: largeconcept summarize --pipeline {result.pipeline} FILE")
    if result.interrupted:
        raise typer.Exit(130)
