"""What models are trained on. An objective maps (model, batch, random numbers) to a :class:`~largeconcept.types.Loss`.

``default_objective`` names the one that belongs to a family of models, ``build_objective`` makes it. Codecs have an
objective of their own in :mod:`largeconcept.objectives.codec`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from largeconcept.config import Config
from largeconcept.errors import ConfigError
from largeconcept.objectives.base import Objective
from largeconcept.objectives.diffusion import DiffusionConfig
from largeconcept.objectives.energy import EnergyObjectiveConfig
from largeconcept.objectives.flow import FlowObjectiveConfig
from largeconcept.objectives.planning import PlanningObjectiveConfig
from largeconcept.objectives.quantized import QuantizedObjectiveConfig
from largeconcept.objectives.regression import RegressionConfig
from largeconcept.objectives.through_decoder import ThroughDecoderObjectiveConfig
from largeconcept.objectives.token_lm import TokenLMObjectiveConfig

if TYPE_CHECKING:
    from largeconcept.codec.normalizer import ConceptNormalizer

AnyObjectiveConfig = (
    RegressionConfig
    | DiffusionConfig
    | PlanningObjectiveConfig
    | QuantizedObjectiveConfig
    | ThroughDecoderObjectiveConfig
    | TokenLMObjectiveConfig
    | FlowObjectiveConfig
    | EnergyObjectiveConfig
)
ObjectiveConfig = Annotated[AnyObjectiveConfig, Field(discriminator="type")]

OBJECTIVES = {
    "energy": "largeconcept.objectives.energy:EnergyObjective",
    "flow": "largeconcept.objectives.flow:FlowObjective",
    "regression": "largeconcept.objectives.regression:RegressionObjective",
    "diffusion": "largeconcept.objectives.diffusion:DiffusionObjective",
    "planning": "largeconcept.objectives.planning:PlanningObjective",
    "quantized": "largeconcept.objectives.quantized:QuantizedObjective",
    "through_decoder": "largeconcept.objectives.through_decoder:ThroughDecoderObjective",
    "token_lm": "largeconcept.objectives.token_lm:TokenLMObjective",
}
DEFAULTS: dict[str, type[AnyObjectiveConfig]] = {
    "mse": RegressionConfig,
    "energy": EnergyObjectiveConfig,
    "flow": FlowObjectiveConfig,
    "one_tower": DiffusionConfig,
    "two_tower": DiffusionConfig,
    "planning": PlanningObjectiveConfig,
    "quantized": QuantizedObjectiveConfig,
    "through_decoder": ThroughDecoderObjectiveConfig,
    "token_lm": TokenLMObjectiveConfig,
}


def default_objective(model_config: Config) -> AnyObjectiveConfig:
    """Return the objective that a family of models is meant for.

    Raises:
        ConfigError: a family without one.
    """
    family = getattr(model_config, "type", None)
    if family not in DEFAULTS:
        raise ConfigError(
            "no objective is known for this model", where="model.type", got=family, expected=list(DEFAULTS)
        )
    return DEFAULTS[family]()


def build_objective(config: AnyObjectiveConfig, normalizer: ConceptNormalizer) -> Objective:
    """Make the objective that a configuration describes.

    Raises:
        ConfigError: an unknown type of objective.
    """
    if config.type not in OBJECTIVES:
        raise ConfigError("unknown objective", where="objective.type", got=config.type, expected=list(OBJECTIVES))
    module, _, name = OBJECTIVES[config.type].partition(":")
    made: Any = getattr(import_module(module), name)(config, normalizer)
    objective: Objective = made
    return objective


__all__ = [
    "DiffusionConfig",
    "EnergyObjectiveConfig",
    "FlowObjectiveConfig",
    "Objective",
    "ObjectiveConfig",
    "PlanningObjectiveConfig",
    "QuantizedObjectiveConfig",
    "RegressionConfig",
    "ThroughDecoderObjectiveConfig",
    "TokenLMObjectiveConfig",
    "build_objective",
    "default_objective",
]
