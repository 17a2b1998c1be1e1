"""Models with the reference implementation's weights, and its recorded inputs and outputs."""

import json
from pathlib import Path

import numpy as np
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.convert.meta_lcm import ImportedModel, load
from largeconcept.models import MSEConceptModel, TwoTowerConceptModel

FOLDER = Path(__file__).parent / "golden"
INDEX = json.loads((FOLDER / "index.json").read_text())
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def arrays(name: str) -> dict[str, torch.Tensor]:
    loaded = np.load(FOLDER / name)
    return {key: torch.from_numpy(loaded[key]) for key in loaded.files if loaded[key].dtype.kind not in "US"}


def imported(name: str) -> ImportedModel:
    return load(FOLDER / name, INDEX[name]["config"])


def base_lcm() -> MSEConceptModel:
    found = imported("base_lcm_default.safetensors")
    assert not found.dead and found.normalizer is None
    return found.model


def two_tower() -> TwoTowerConceptModel:
    found = imported("two_tower_default.safetensors")
    assert len(found.dead) == 4 * found.model.config.num_denoiser_layers  # weight and bias of queries and keys
    return found.model


def two_tower_normalizer() -> ConceptNormalizer:
    return imported("two_tower_default.safetensors").normalizer
