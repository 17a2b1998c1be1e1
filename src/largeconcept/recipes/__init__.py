"""Recipes: functions that return the complete configuration of a training run.

``recipes.tiny.two_tower(data="data/mine")`` is an ordinary call; :func:`get_recipe` finds a function by name for the
command line. To make a recipe of one's own, call one and ``override`` what differs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from largeconcept.recipes import baseline, default, default_cpu, paper, tiny
    from largeconcept.train.codec_trainer import CodecTrainConfig
    from largeconcept.train.config import RunConfig

    Recipe = Callable[..., RunConfig]

RECIPES: dict[str, str] = {
    "default.pretrain": "largeconcept.recipes.default:pretrain",
    "default.finetune": "largeconcept.recipes.default:finetune",
    "default_cpu.pretrain": "largeconcept.recipes.default_cpu:pretrain",
    "default_cpu.finetune": "largeconcept.recipes.default_cpu:finetune",
    "tiny.mse": "largeconcept.recipes.tiny:mse",
    "tiny.energy": "largeconcept.recipes.tiny:energy",
    "tiny.flow": "largeconcept.recipes.tiny:flow",
    "tiny.one_tower": "largeconcept.recipes.tiny:one_tower",
    "tiny.planning": "largeconcept.recipes.tiny:planning",
    "tiny.two_tower": "largeconcept.recipes.tiny:two_tower",
    "tiny.through_decoder": "largeconcept.recipes.tiny:through_decoder",
    "tiny.quantized": "largeconcept.recipes.tiny:quantized",
    "tiny.quantized_continuous": "largeconcept.recipes.tiny:quantized_continuous",
    "paper.base_1_6b": "largeconcept.recipes.paper:base_1_6b",
    "paper.one_tower_1_6b": "largeconcept.recipes.paper:one_tower_1_6b",
    "paper.two_tower_1_6b": "largeconcept.recipes.paper:two_tower_1_6b",
    "paper.two_tower_7b": "largeconcept.recipes.paper:two_tower_7b",
    "paper.quantized_1_6b": "largeconcept.recipes.paper:quantized_1_6b",
    "paper.quantized_continuous_1_6b": "largeconcept.recipes.paper:quantized_continuous_1_6b",
    "paper.planning_1_6b": "largeconcept.recipes.paper:planning_1_6b",
    "paper.sonar_llm_39m": "largeconcept.recipes.paper:sonar_llm_39m",
    "paper.sonar_llm_100m": "largeconcept.recipes.paper:sonar_llm_100m",
    "paper.sonar_llm_300m": "largeconcept.recipes.paper:sonar_llm_300m",
    "paper.sonar_llm_600m": "largeconcept.recipes.paper:sonar_llm_600m",
    "paper.sonar_llm_900m": "largeconcept.recipes.paper:sonar_llm_900m",
    "paper.sonar_llm_1_3b": "largeconcept.recipes.paper:sonar_llm_1_3b",
}
CODEC_RECIPES: dict[str, str] = {
    "default.codec": "largeconcept.recipes.default:codec",
    "default_cpu.codec": "largeconcept.recipes.default_cpu:codec",
}
"""Codecs: their configurations are those of ``largeconcept codec train``."""
_MODULES = ("baseline", "default", "default_cpu", "paper", "tiny")
__all__ = [
    "CODEC_RECIPES",
    "RECIPES",
    "baseline",
    "default",
    "default_cpu",
    "get_codec_recipe",
    "get_recipe",
    "list_recipes",
    "paper",
    "tiny",
]


def list_recipes() -> dict[str, str]:
    """Return name -> what it trains, in one line, for every recipe."""
    found = {**{name: get_codec_recipe(name) for name in CODEC_RECIPES}, **{name: get_recipe(name) for name in RECIPES}}
    return {name: (recipe.__doc__ or "").strip().splitlines()[0] for name, recipe in found.items()}


def get_codec_recipe(name: str) -> Callable[..., CodecTrainConfig]:
    """Return the codec recipe of a name.

    Raises:
        ConfigError: there is no such recipe; the message names the nearest.
    """
    if name not in CODEC_RECIPES:
        raise ConfigError("unknown recipe of a codec", where=name, hint=did_you_mean(name, CODEC_RECIPES))
    module, _, function = CODEC_RECIPES[name].partition(":")
    recipe: Callable[..., CodecTrainConfig] = getattr(import_module(module), function)
    return recipe


def get_recipe(name: str) -> Recipe:
    """Return the recipe of a name; the part before the dot may be left out where no other one is called so.

    Raises:
        ConfigError: there is no such recipe; the message names the nearest.
    """
    if name in CODEC_RECIPES:
        hint = f"train it with: largeconcept codec train FILE... --config {name}"
        raise ConfigError("the recipe is one of a codec", where=name, hint=hint)
    names = [full.rpartition(".")[2] for full in RECIPES]
    short = {one: full for one, full in zip(names, RECIPES) if names.count(one) == 1}
    full = name if name in RECIPES else short.get(name)
    if full is None:
        raise ConfigError("unknown recipe", where=name, hint=did_you_mean(name, [*RECIPES, *short]))
    module, _, function = RECIPES[full].partition(":")
    recipe: Recipe = getattr(import_module(module), function)
    return recipe


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"largeconcept.recipes.{name}")
    raise AttributeError(f"module 'largeconcept.recipes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
