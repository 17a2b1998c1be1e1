"""Models of concepts: each predicts the next concept vectors of a document, in normalised space.

A family is one file, found through :data:`MODELS`; nothing registers itself by being imported. Names are loaded when
first used, so importing this package does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

MODELS: dict[str, str] = {
    "mse": "largeconcept.models.mse:MSEConceptModel",
    "energy": "largeconcept.models.energy:EnergyConceptModel",
    "flow": "largeconcept.models.flow:FlowConceptModel",
    "one_tower": "largeconcept.models.one_tower:OneTowerConceptModel",
    "two_tower": "largeconcept.models.two_tower:TwoTowerConceptModel",
    "planning": "largeconcept.models.planning:PlanningConceptModel",
    "quantized": "largeconcept.models.quantized:QuantizedConceptModel",
    "through_decoder": "largeconcept.models.through_decoder:ThroughDecoderConceptModel",
    "token_lm": "largeconcept.models.token_lm:TokenLM",
}

_LAZY = {
    "ModelConfig": "largeconcept.models.registry",
    "build_model": "largeconcept.models.registry",
    "load_model": "largeconcept.models.registry",
    "model_config": "largeconcept.models.registry",
    "save_model": "largeconcept.models.registry",
    "OneTowerConceptModel": "largeconcept.models.one_tower",
    "OneTowerConfig": "largeconcept.models.one_tower",
    "FlowConceptModel": "largeconcept.models.flow",
    "FlowConfig": "largeconcept.models.flow",
    "EnergyConceptModel": "largeconcept.models.energy",
    "EnergyConfig": "largeconcept.models.energy",
    "MSEConceptModel": "largeconcept.models.mse",
    "MSEConfig": "largeconcept.models.mse",
    "PlanningConceptModel": "largeconcept.models.planning",
    "PlanningConfig": "largeconcept.models.planning",
    "QuantizedConceptModel": "largeconcept.models.quantized",
    "QuantizedConfig": "largeconcept.models.quantized",
    "ThroughDecoderConceptModel": "largeconcept.models.through_decoder",
    "ThroughDecoderConfig": "largeconcept.models.through_decoder",
    "TokenLM": "largeconcept.models.token_lm",
    "TokenLMConfig": "largeconcept.models.token_lm",
    "TwoTowerConceptModel": "largeconcept.models.two_tower",
    "TwoTowerConfig": "largeconcept.models.two_tower",
}
__all__ = [
    "MODELS",
    "EnergyConceptModel",
    "EnergyConfig",
    "FlowConceptModel",
    "FlowConfig",
    "MSEConceptModel",
    "MSEConfig",
    "ModelConfig",
    "OneTowerConceptModel",
    "OneTowerConfig",
    "PlanningConceptModel",
    "PlanningConfig",
    "QuantizedConceptModel",
    "QuantizedConfig",
    "ThroughDecoderConceptModel",
    "ThroughDecoderConfig",
    "TokenLM",
    "TokenLMConfig",
    "TwoTowerConceptModel",
    "TwoTowerConfig",
    "build_model",
    "load_model",
    "model_config",
    "save_model",
]

if TYPE_CHECKING:
    from largeconcept.models.energy import EnergyConceptModel, EnergyConfig
    from largeconcept.models.flow import FlowConceptModel, FlowConfig
    from largeconcept.models.mse import MSEConceptModel, MSEConfig
    from largeconcept.models.one_tower import OneTowerConceptModel, OneTowerConfig
    from largeconcept.models.planning import PlanningConceptModel, PlanningConfig
    from largeconcept.models.quantized import QuantizedConceptModel, QuantizedConfig
    from largeconcept.models.registry import ModelConfig, build_model, load_model, model_config, save_model
    from largeconcept.models.through_decoder import ThroughDecoderConceptModel, ThroughDecoderConfig
    from largeconcept.models.token_lm import TokenLM, TokenLMConfig
    from largeconcept.models.two_tower import TwoTowerConceptModel, TwoTowerConfig


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'largeconcept.models' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
