"""``largeconcept recipes ls`` and ``recipes show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from largeconcept.cli.common import Json, echo, echo_json
from largeconcept.cli.train import Data, Overrides, Start

if TYPE_CHECKING:
    from largeconcept.config import Config


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
    start: Start = None,
    json: Json = False,
) -> None:
    """Print the complete configuration of a recipe.

    The YAML can be saved, edited and trained from.
    """
    from largeconcept.cli.train import recipe_config
    from largeconcept.recipes import CODEC_RECIPES, get_codec_recipe

    config: Config
    config = get_codec_recipe(recipe)() if recipe in CODEC_RECIPES else recipe_config(recipe, data, start)
    config = config.override(*(overrides or []))
    if json:
        echo_json(config.to_dict())
    else:
        echo(config.to_yaml().rstrip("\n"))
