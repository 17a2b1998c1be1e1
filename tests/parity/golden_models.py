"""Models with the reference implementation's weights, and its recorded inputs and outputs."""

import json
from pathlib import Path

import numpy as np
import torch
from meta_names import from_meta

from largeconcept.io import load_strict, read_safetensors
from largeconcept.models import MSEConceptModel, MSEConfig, TwoTowerConceptModel, TwoTowerConfig

FOLDER = Path(__file__).parent / "golden"
INDEX = json.loads((FOLDER / "index.json").read_text())
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
_PREDICTION = {"sample": "x_0", "epsilon": "eps", "v_prediction": "v"}
_SCHEDULE = {"squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid", "linear": "linear", "scaled_linear": "scaled_linear"}


def arrays(name: str) -> dict[str, torch.Tensor]:
    loaded = np.load(FOLDER / name)
    return {key: torch.from_numpy(loaded[key]) for key in loaded.files if loaded[key].dtype.kind not in "US"}


def _style(config: dict, stack: dict) -> dict:
    return {
        "concept_dim": config["sonar_embed_dim"],
        "model_dim": config["model_dim"],
        "num_heads": stack["num_attn_heads"],
        "ffn_dim": stack["ffn_inner_dim"],
        "norm": {"standard": "layer", "rms": "rms"}[stack["layer_normalization_style"]],
        "mlp": "swiglu" if stack["use_swiglu"] else "relu",
        "positions": stack["pos_embedding_style"],
        "rope_theta": stack["rope_theta"],
        "max_positions": config["max_seq_len"],
        "attention_output_bias": stack["mha_output_proj_bias"],
        "dropout": stack["dropout_p"],
        "final_dropout": stack["final_dropout_p"],
    }


def base_lcm() -> MSEConceptModel:
    config = INDEX["base_lcm_default.safetensors"]["config"]
    model = MSEConceptModel(
        MSEConfig.from_dict({**_style(config, config["lcm"]), "num_layers": config["lcm"]["num_layers"]})
    )
    ours, dead = from_meta(read_safetensors(FOLDER / "base_lcm_default.safetensors"))
    assert not dead
    load_strict(model, ours, "base_lcm_default")
    return model.eval()


def two_tower() -> TwoTowerConceptModel:
    config = INDEX["two_tower_default.safetensors"]["config"]
    noise = config["noise_scheduler"]
    model = TwoTowerConceptModel(
        TwoTowerConfig.from_dict(
            {
                **_style(config, config["context_encoder"]),
                "num_context_layers": config["context_encoder"]["num_layers"],
                "num_denoiser_layers": config["denoiser"]["num_layers"],
                "prediction_type": _PREDICTION[noise["prediction_type"]],
                "noise_schedule": {
                    "type": _SCHEDULE[noise["beta_schedule"]],
                    "num_timesteps": noise["num_diffusion_train_steps"],
                    "beta_start": noise["beta_start"],
                    "beta_end": noise["beta_end"],
                    "sigmoid_gamma": noise["sigmoid_schedule_alpha"],
                    "sigmoid_delta": noise["sigmoid_schedule_beta"],
                    "zero_terminal_snr": noise["rescale_betas_zero_snr"],
                },
            }
        )
    )
    ours, dead = from_meta(read_safetensors(FOLDER / "two_tower_default.safetensors"))
    assert len(dead) == 4 * model.config.num_denoiser_layers  # weight and bias of queries and keys
    load_strict(model, ours, "two_tower_default")
    return model.eval()


def two_tower_center_scale() -> tuple[torch.Tensor, torch.Tensor]:
    weights = read_safetensors(FOLDER / "two_tower_default.safetensors")
    return weights["sonar_normalizer.center"], weights["sonar_normalizer.scale"]
