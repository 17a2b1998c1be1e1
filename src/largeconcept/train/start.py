"""Where a run's first weights come from: nowhere, a saved model, a finished run, or a saved pipeline.

Instruction tuning starts from a pre-trained run or pipeline: the weights are its, and so is the space that they were
trained in, which is that of its codec after its normalizer. Everything else is new: optimiser, schedule, step count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.hub import RECORD, read_record
from largeconcept.io import read_json, require_folder
from largeconcept.models.registry import CONFIG_FILE, build_model, load_model, model_config

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.train.config import RunConfig
    from largeconcept.train.parallel import Parallel

MODEL_FOLDER, NORMALIZER_FOLDER, RUN_FILE = "model", "normalizer", "run.json"


@dataclass(frozen=True, slots=True)
class Start:
    """A trained model to start from.

    Attributes:
        model: folder of the model.
        normalizer: folder of the normalizer it was trained with; ``None`` for a model by itself.
        fingerprint: of the codec of its concepts; ``None`` for a model by itself.
    """

    model: Path
    normalizer: Path | None = None
    fingerprint: str | None = None

    def config(self) -> dict[str, Any]:
        """Return the configuration of the model as plain data, whole.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        path = self.model / CONFIG_FILE
        data = read_json(path)
        try:
            return model_config(data, str(path)).to_dict()
        except (ConfigError, AttributeError) as error:
            raise CheckpointError("not a model configuration", where=path, got=error) from None


def find_start(folder: str | Path) -> Start:
    """Say what a folder holds: a finished run, a saved pipeline, or a model.

    Raises:
        CheckpointError: no such folder, or a run that is not finished.
    """
    path = require_folder(Path(folder).expanduser(), "run, pipeline or model")
    if (path / RECORD).is_file():
        return Start(path / MODEL_FOLDER, path / NORMALIZER_FOLDER, read_record(path).codec.fingerprint)
    if (path / RUN_FILE).is_file():
        facts = read_json(path / RUN_FILE)
        fingerprint = facts.get("codec_fingerprint") if isinstance(facts, dict) else None
        if not isinstance(fingerprint, str):
            raise CheckpointError("no valid 'codec_fingerprint'", where=path / RUN_FILE)
        return Start(path / MODEL_FOLDER, path / NORMALIZER_FOLDER, fingerprint)
    if (path / "config.yaml").is_file():
        raise CheckpointError("the run is not finished", where=path, hint="finish it, then start from it")
    return Start(path)


def started(config: RunConfig, folder: str | Path) -> RunConfig:
    """Return a run that starts from a run, a pipeline or a model: its model, from its weights.

    Raises:
        CheckpointError: there is none.
    """
    plain = config.to_dict()
    train = {**plain["train"], "init_from": str(folder)}
    return type(config).from_dict({**plain, "model": find_start(folder).config(), "train": train})


def prepare_model(config: RunConfig, parallel: Parallel, fingerprint: str, resumed: bool) -> nn.Module:
    """Return the model with its first weights, the same on every process whatever the device.

    Args:
        config: of the run.
        parallel: says where the model goes.
        fingerprint: of the codec of the run's data.
        resumed: the weights come from a checkpoint, so that nothing is read here.

    Raises:
        CheckpointError: ``train.init_from`` is no saved model, or one of another concept space.
        ConfigError: that model is another one (only its dropout may differ).
    """
    torch.manual_seed(config.train.seed)
    if config.train.init_from is None or resumed:
        return build_model(config.model).to(parallel.device)
    where = f"train.init_from: {config.train.init_from}"
    start = find_start(config.train.init_from)
    if start.fingerprint not in (None, fingerprint):
        raise CheckpointError(
            "the model was trained in another concept space than the data is of",
            where=where,
            expected=f"codec fingerprint {fingerprint}",
            got=start.fingerprint,
            hint="build the data with the model's codec",
        )
    model = load_model(start.model)
    if model.config != config.model:
        if _without_dropout(model.config.to_dict()) != _without_dropout(config.model.to_dict()):  # type: ignore[union-attr, operator]
            hint = "copy its config.json into model, or on the command line: largeconcept train RECIPE --from FOLDER"
            raise ConfigError("the saved model has another configuration", where=where, hint=hint)
        other = build_model(config.model)
        other.load_state_dict(model.state_dict())
        model = other
    return model.float().to(parallel.device)


def _without_dropout(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {name: _without_dropout(value) for name, value in config.items() if name != "dropout"}


def start_normalizer(config: RunConfig) -> Path | None:
    """Return the folder of the normalizer that a run starts with, when it starts from a run or pipeline and asks for
    no other."""
    if config.train.init_from is None or config.normalizer != "fit":
        return None
    return find_start(config.train.init_from).normalizer
