"""Building, saving and loading a model of any family by the ``type`` of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from largeconcept.config import Config
from largeconcept.devices import without_values
from largeconcept.errors import CheckpointError, ConfigError, did_you_mean
from largeconcept.int8 import SCALE, dequantize_rows, quantize_rows
from largeconcept.io import load_strict, read_json, read_safetensors, require_folder, write_json, write_safetensors
from largeconcept.models import MODELS
from largeconcept.models.energy import EnergyConfig
from largeconcept.models.flow import FlowConfig
from largeconcept.models.mse import MSEConfig
from largeconcept.models.one_tower import OneTowerConfig
from largeconcept.models.planning import PlanningConfig
from largeconcept.models.quantized import QuantizedConfig
from largeconcept.models.through_decoder import ThroughDecoderConfig
from largeconcept.models.token_lm import TokenLMConfig
from largeconcept.models.two_tower import TwoTowerConfig

AnyModelConfig = (
    MSEConfig
    | TwoTowerConfig
    | OneTowerConfig
    | PlanningConfig
    | QuantizedConfig
    | ThroughDecoderConfig
    | TokenLMConfig
    | FlowConfig
    | EnergyConfig
)
ModelConfig = Annotated[AnyModelConfig, Field(discriminator="type")]
"""The configuration of any model; its ``type`` says which family."""

Storage = Literal["as_is", "int8"]
_MAX_ERROR = 0.02
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def _model_class(family: object) -> type[nn.Module]:
    if not isinstance(family, str) or family not in MODELS:
        raise ConfigError("unknown model type", where="type", got=family, hint=did_you_mean(str(family), MODELS))
    module, _, name = MODELS[family].partition(":")
    cls: type[nn.Module] = getattr(import_module(module), name)
    return cls


def model_config(data: Mapping[str, Any], where: str = "model") -> AnyModelConfig:
    """Return the typed configuration of plain data with a ``type``.

    Raises:
        ConfigError: an unknown type, an unknown key, or an invalid value.
    """
    family: Any = _model_class(data.get("type"))
    config: AnyModelConfig = family.config_class.from_dict(data, where)
    return config


def build_model(config: AnyModelConfig | Mapping[str, Any]) -> nn.Module:
    """Return a freshly initialised model of the family that ``config.type`` names; it has ``.config``.

    Weights are drawn from torch's global generator: seed it first for a reproducible start.

    Raises:
        ConfigError: an unknown type, an unknown key, or an invalid value.
    """
    typed = model_config(config) if isinstance(config, Mapping) else config
    return _model_class(typed.type)(typed)


def save_model(model: nn.Module, folder: str | Path, storage: Storage = "as_is") -> None:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``, each atomically, the configuration last.

    Args:
        model: has ``.config``.
        folder: made if it is missing.
        storage: ``as_is`` writes the weights as they are; ``int8`` rounds matrices to int8 rows with scales, and those
            that this would move by more than 2 % of their norm to float16 (:mod:`largeconcept.int8`).
    """
    folder = Path(folder)
    config = model.config
    assert isinstance(config, Config)
    weights = model.state_dict()
    write_safetensors(
        folder / WEIGHTS_FILE, weights if storage == "as_is" else quantize_rows(weights, max_error=_MAX_ERROR)
    )
    write_json(folder / CONFIG_FILE, config.to_dict())


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Read a model that :func:`save_model` wrote, in evaluation mode.

    Raises:
        CheckpointError: a file is missing, truncated or foreign, or the weights do not fit the configuration.
    """
    folder = require_folder(folder, "model")
    path = folder / CONFIG_FILE
    data = read_json(path)
    if not isinstance(data, dict):
        raise CheckpointError("not a model configuration", where=path, got=type(data).__name__)
    try:
        config = model_config(data, str(path))
    except ConfigError as error:
        raise CheckpointError(
            error.problem, where=error.where, got=error.got, expected=error.expected, hint=error.hint
        ) from None
    with without_values():  # no time is spent on initial values that are overwritten
        model = build_model(config)
    weights = read_safetensors(folder / WEIGHTS_FILE)
    if any(name.endswith(SCALE) for name in weights):
        weights = {name: tensor.float() for name, tensor in dequantize_rows(weights).items()}
    types = {tensor.dtype for tensor in weights.values()}
    model = model.to_empty(device="cpu").to(types.pop() if len(types) == 1 else torch.float32)
    load_strict(model, weights, folder / WEIGHTS_FILE)
    return model.to(device).eval()
