"""``largeconcept recipes ls`` and ``recipes show``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import Json, echo, echo_json
from largeconcept.cli.train import Data, Overrides


def ls(json: Json = False) -> None:
    """List the recipes."""
    from largeconcept.recipes import list_recipes

    recipes = list_recipes()
    if json:
        echo_json(recipes)
        return
    width = max(len(name) for name in recipes)
    for name, about in recipes.items():
        echo(f"{name.ljust(width)}  {about}")


def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name.")],
    overrides: Overrides = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Print the complete configuration of a recipe.

    The YAML can be saved, edited and trained from.
    """
    from largeconcept.cli.train import recipe_config

    config = recipe_config(recipe, data).override(*(overrides or []))
    if json:
        echo_json(config.to_dict())
    else:
        echo(config.to_yaml().rstrip("\n"))
