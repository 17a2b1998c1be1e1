"""``largeconcept train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.cli.common import Json, echo, echo_json

if TYPE_CHECKING:
    from largeconcept.train.config import RunConfig

Data = Annotated[str | None, typer.Option("--data", help="Folder of a concept dataset; recipes need it.")]
Out = Annotated[str | None, typer.Option("--out", help="Run folder. Default: what the recipe or file says.")]
Start = Annotated[
    str | None,
    typer.Option("--from", help="A finished run or a saved pipeline to start from: its model, weights and normalizer."),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings to change, as train.max_steps=200.")
]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|CONFIG.YAML", help="A recipe's name, or a saved configuration.")
    ],
    overrides: Overrides = None,
    data: Data = None,
    out: Out = None,
    start: Start = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Json = False,
) -> None:
    """Train a concept model from a recipe or a configuration file.

    A run that was stopped goes on where it was when it is called again. For several processes start it with torchrun.
    """
    config = run_config(recipe, data, out, overrides or [], start)
    from largeconcept.train.loop import Trainer

    result = Trainer(config, progress=not quiet).fit()
    if os.environ.get("RANK", "0") == "0":
        if json:
            last = result.losses[-1] if result.losses else None
            echo_json(
                {
                    "out": str(result.out),
                    "steps": result.steps,
                    "loss": last,
                    "metrics": result.metrics,
                    "skipped": result.skipped,
                    "interrupted": result.interrupted,
                }
            )
        elif not result.interrupted:
            echo(f"{result.out}: {result.steps:,} steps; next: largeconcept export {result.out} PIPELINE")
    if result.interrupted:
        raise typer.Exit(130)


def run_config(
    recipe: str, data: str | None, out: str | None, overrides: list[str], start: str | None = None
) -> RunConfig:
    """Return the configuration that a command line means.

    Raises:
        CheckpointError: there is nothing to start from.
        ConfigError: an unknown recipe or key, an invalid value, a missing file, or a recipe without its data.
        DataError: the dataset is missing or damaged.
    """
    from largeconcept.errors import ConfigError

    if _is_file(recipe):
        from largeconcept.train.config import RunConfig

        if data is not None:
            raise ConfigError("is for recipes", where="--data", hint="set data.sources=[FOLDER] instead")
        config = RunConfig.from_yaml(recipe)
    else:
        config = recipe_config(recipe, data, start)
    if start is not None and config.train.init_from != start:
        from largeconcept.train.start import started

        config = started(config, start)
    if out is not None:
        # The path is data, not YAML: it is quoted so that a folder named 1e3 stays a name.
        overrides = [*overrides, f"train.out={_quoted(out)}"]
    return config.override(*overrides)


def recipe_config(name: str, data: str | None, start: str | None = None) -> RunConfig:
    """Call a recipe.

    Raises:
        ConfigError: an unknown recipe, or one without its data or without what it starts from.
    """
    import inspect

    from largeconcept.errors import ConfigError
    from largeconcept.recipes import get_recipe

    function = get_recipe(name)
    parameters = inspect.signature(function).parameters
    keywords: dict[str, Any] = {}
    if "data" in parameters:
        if data is None and parameters["data"].default is inspect.Parameter.empty:
            raise ConfigError("the recipe needs a dataset", where=name, hint="add: --data FOLDER (see: data build)")
        if data is not None:
            keywords["data"] = data
    if "start" in parameters:
        if start is None and parameters["start"].default is inspect.Parameter.empty:
            raise ConfigError("the recipe needs a model to start from", where=name, hint="add: --from RUN")
        if start is not None:
            keywords["start"] = start
    return function(**keywords)


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in (".yaml", ".yml", ".json") or os.sep in name or Path(name).is_file()


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)
