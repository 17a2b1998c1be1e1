"""Configurations of Meta's Large Concept Models (github.com/facebookresearch/large_concept_model), and ours for them.

Field names and defaults are those of the reference implementation; its defaults are the ``toy`` style. A configuration
is the name of an architecture (``two_tower_diffusion_lcm_1_6B``), a mapping of fields, or both: ``{"model_arch":
name}`` beside the fields that differ. Settings with which the reference computes something that the models here do not
are refused; those that only say how weights were drawn are kept and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from largeconcept.config import Config, parse_yaml
from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.models.mse import MSEConfig
from largeconcept.models.two_tower import TwoTowerConfig

NormName = Literal["standard", "fp32", "rms", "unit"]
_NORMS = {"standard": "layer", "fp32": "layer_weight", "unit": "layer_plain", "rms": "rms"}
_SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid"}
_PREDICTIONS = {"sample": "x_0", "epsilon": "eps", "v_prediction": "v"}


class MetaFrontend(Config):
    """``frontend``: the linear map from concepts to the model's width, and its positions."""

    dropout_p: float = 0.0
    embedding_std: float | None = None
    pre_linear_bias: Literal[True] = True
    pre_linear_init_fn: str | None = "kaiming_uniform"
    scale_embeddings: Literal[False] = False
    weight_normalization: Literal[False] = False


class MetaProjection(Config):
    """``postnet``, ``pre_denoiser``, ``post_denoiser``: one linear map.

    Dropout and norm are in the reference's configuration, but its module ignores them.
    """

    activation_name: None = None
    dropout_p: float = 0.0
    layer_normalization_style: str | None = "standard"
    linear_bias: Literal[True] = True
    linear_init_fn: str | None = "kaiming_uniform"
    weight_normalization: Literal[False] = False


class MetaTransformer(Config):
    """``lcm``, ``context_encoder`` and most of ``denoiser``: a stack of layers."""

    num_layers: int = Field(default=2, ge=1)
    num_attn_heads: int = Field(default=8, ge=1)
    ffn_inner_dim: int = Field(default=4096, ge=1)
    ffn_inner_activation_name: str | None = "relu"
    use_swiglu: bool = False
    layer_normalization_style: NormName = "standard"
    norm_order_style: Literal["pre"] = "pre"
    final_norm_order_style: Literal["pre"] | None = None
    pos_embedding_style: Literal["rope", "learned", "sine", "none"] = "learned"
    rope_theta: float = 10_000.0
    dropout_p: float = 0.1
    final_dropout_p: float = 0.1
    attention_dropout_p: float = 0.0
    attention_output_init_fn: str | None = "xavier"
    mha_output_proj_bias: bool = False
    enable_qk_layernorm: Literal[False] = False
    mha_qkv_weight_normalization: Literal[False] = False
    mha_output_weight_normalization: Literal[False] = False
    scale_residual: None = None


class MetaDenoiser(MetaTransformer):
    """``denoiser``: as above, with a timestep embedding (as wide as the model) and a linear map at each end."""

    pos_embedding_style: Literal["none"] = "none"
    timestep_embed_dim: int | None = None
    pre_denoiser: MetaProjection = MetaProjection()
    post_denoiser: MetaProjection = MetaProjection()


class MetaNoiseScheduler(Config):
    """``noise_scheduler``: schedule and prediction type, and settings of the reference's sampler."""

    num_diffusion_train_steps: int = 1000
    beta_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear", "sigmoid"] = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    scaled_linear_exponent: float = 2.0
    sigmoid_schedule_alpha: float = 1.5
    sigmoid_schedule_beta: float = 0.0
    rescale_betas_zero_snr: bool = True
    set_alpha_to_one: bool = True
    prediction_type: Literal["sample", "epsilon", "v_prediction"] = "sample"
    timestep_spacing: Literal["trailing", "leading", "linspace"] = "trailing"
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0


class _MetaModel(Config):
    max_seq_len: int = Field(default=2048, ge=1)
    model_dim: int = Field(default=1024, ge=1)
    sonar_embed_dim: int = Field(default=1024, ge=1)
    sonar_normalizer_name: str | None = None
    frontend: MetaFrontend = MetaFrontend()


class MetaBaseLCM(_MetaModel):
    """``base_lcm``: the causal transformer that regresses; ours is ``mse``."""

    model_type: Literal["base_lcm"] = "base_lcm"
    model_output_dim: int | None = None
    lcm: MetaTransformer = MetaTransformer()
    postnet: MetaProjection = MetaProjection()


class MetaTwoTower(_MetaModel):
    """``two_tower_diffusion_lcm``; ours is ``two_tower``."""

    model_type: Literal["two_tower_diffusion_lcm"] = "two_tower_diffusion_lcm"
    context_encoder: MetaTransformer = MetaTransformer()
    denoiser: MetaDenoiser = MetaDenoiser()
    noise_scheduler: MetaNoiseScheduler = MetaNoiseScheduler()
    trained_with_cf_guidance: bool = False


MetaConfig = MetaBaseLCM | MetaTwoTower
_FAMILIES: dict[str, type[MetaBaseLCM] | type[MetaTwoTower]] = {
    "base_lcm": MetaBaseLCM,
    "two_tower_diffusion_lcm": MetaTwoTower,
}


def _recipe_stack(num_layers: int, model_dim: int) -> dict[str, Any]:
    return {
        "num_layers": num_layers,
        "num_attn_heads": model_dim // 128,
        "ffn_inner_dim": 4 * model_dim,
        "use_swiglu": True,
        "layer_normalization_style": "rms",
        "pos_embedding_style": "rope",
        "final_dropout_p": 0.0,
        "mha_output_proj_bias": True,
    }


def _recipe_two_tower(model_dim: int, denoiser_layers: int) -> dict[str, Any]:
    return {
        "model_type": "two_tower_diffusion_lcm",
        "model_dim": model_dim,
        "max_seq_len": 4096,
        "context_encoder": _recipe_stack(5, model_dim),
        "denoiser": {**_recipe_stack(denoiser_layers, model_dim), "pos_embedding_style": "none"},
        "noise_scheduler": {"num_diffusion_train_steps": 100},
        "sonar_normalizer_name": "dummy_sonar_normalizer",
        "trained_with_cf_guidance": True,
    }


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "toy_base_lcm": {"model_type": "base_lcm"},
    "base_lcm_1_6B": {
        "model_type": "base_lcm",
        "model_dim": 2048,
        "max_seq_len": 4096,
        "lcm": _recipe_stack(32, 2048),
        "sonar_normalizer_name": "dummy_sonar_normalizer",
    },
    "toy_two_tower_diffusion_lcm": {
        "model_type": "two_tower_diffusion_lcm",
        "sonar_normalizer_name": "dummy_sonar_normalizer",
    },
    "two_tower_diffusion_lcm_1_6B": _recipe_two_tower(2048, 13),
    "two_tower_diffusion_lcm_7B": _recipe_two_tower(4096, 14),
}
"""The reference's registered architectures; the normalizer's name is a placeholder there."""


def meta_config(config: MetaConfig | Mapping[str, Any] | str) -> MetaConfig:
    """Return the typed configuration of an architecture's name, of a mapping, or of a mapping on top of a name.

    Raises:
        ConfigError: an unknown architecture, family, key or value, or one that the models here cannot follow.
    """
    if isinstance(config, MetaBaseLCM | MetaTwoTower):
        return config
    data: dict[str, Any] = {"model_arch": config} if isinstance(config, str) else dict(config)
    name = data.pop("model_arch", None)
    if name is not None:
        if name not in ARCHITECTURES:
            hint = did_you_mean(str(name), ARCHITECTURES)
            raise ConfigError("unknown architecture", where="model_arch", got=name, hint=hint)
        data = _merged(ARCHITECTURES[name], data)
    family = data.get("model_type")
    if family is None:  # the reference's blocks tell the families apart
        family = "two_tower_diffusion_lcm" if "denoiser" in data or "context_encoder" in data else "base_lcm"
        if family == "base_lcm" and "lcm" not in data:
            raise ConfigError(
                "a required key is missing",
                where="model_type",
                expected=f"one of {', '.join(_FAMILIES)}, or a model_arch",
                hint=f"known architectures: {', '.join(ARCHITECTURES)}",
            )
    if not isinstance(family, str) or family not in _FAMILIES:
        hint = did_you_mean(str(family), _FAMILIES)
        raise ConfigError("unknown family of models", where="model_type", got=family, hint=hint)
    return _FAMILIES[family].from_dict(data, "Meta's configuration")


def read_meta_config(path: str | Path) -> MetaConfig:
    """Read a JSON or YAML file that holds a configuration, or the name of an architecture where no such file is.

    Raises:
        ConfigError: neither, or a content that :func:`meta_config` refuses.
    """
    name, path = str(path), Path(path)
    if not path.is_file() and name in ARCHITECTURES:
        return meta_config(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = f"a JSON or YAML file, or one of {', '.join(ARCHITECTURES)}"
        raise ConfigError("cannot read the configuration", where=path, got=error, hint=hint) from None
    data = parse_yaml(text, name)
    if not isinstance(data, Mapping | str):
        raise ConfigError("not a mapping", where=path, got=type(data).__name__)
    return meta_config(data)


def model_config(config: MetaConfig | Mapping[str, Any] | str) -> MSEConfig | TwoTowerConfig:
    """Return the configuration of our model that computes what Meta's computes.

    Note: dropout acts in training only, so it is not compared: that of the frontend has no counterpart and is ignored,
    and a two-tower takes that of its context encoder for both towers.

    Raises:
        ConfigError: as :func:`meta_config`; a two-tower whose towers differ in style, or another output dimension.
    """
    meta = meta_config(config)
    if isinstance(meta, MetaBaseLCM):
        if meta.model_output_dim not in (None, meta.sonar_embed_dim):
            raise ConfigError(
                "the output has another dimension than the concepts",
                where="model_output_dim",
                got=meta.model_output_dim,
                expected=meta.sonar_embed_dim,
            )
        return MSEConfig.from_dict(
            {**_style(meta, meta.lcm), "num_layers": meta.lcm.num_layers}, "Meta's configuration"
        )
    style = _style(meta, meta.context_encoder)
    other = {**_style(meta, meta.denoiser), "positions": style["positions"]}  # the denoiser never has positions
    for ours, theirs in _SHARED.items():
        if style[ours] != other[ours]:
            raise ConfigError(
                "both towers must have the same style",
                where=f"denoiser.{theirs}",
                got=getattr(meta.denoiser, theirs),
                expected=getattr(meta.context_encoder, theirs),
            )
    if meta.denoiser.timestep_embed_dim not in (None, meta.model_dim):
        raise ConfigError(
            "the timestep embedding must be as wide as the model",
            where="denoiser.timestep_embed_dim",
            got=meta.denoiser.timestep_embed_dim,
            expected=meta.model_dim,
        )
    noise = meta.noise_scheduler
    return TwoTowerConfig.from_dict(
        {
            **style,
            "num_context_layers": meta.context_encoder.num_layers,
            "num_denoiser_layers": meta.denoiser.num_layers,
            "prediction_type": _PREDICTIONS[noise.prediction_type],
            "noise_schedule": {
                "type": _SCHEDULES[noise.beta_schedule],
                "num_timesteps": noise.num_diffusion_train_steps,
                "beta_start": noise.beta_start,
                "beta_end": noise.beta_end,
                "exponent": noise.scaled_linear_exponent,
                "sigmoid_gamma": noise.sigmoid_schedule_alpha,
                "sigmoid_delta": noise.sigmoid_schedule_beta,
                "zero_terminal_snr": noise.rescale_betas_zero_snr,
                "set_alpha_to_one": noise.set_alpha_to_one,
            },
        },
        "Meta's configuration",
    )


def sampler_options(config: MetaConfig | Mapping[str, Any] | str) -> dict[str, Any]:
    """Return what Meta's configuration says about sampling, as options of generation; empty for a ``base_lcm``.

    ``meta`` is the reference's "trailing": asked for 40 of 100 steps, it takes 50.
    """
    meta = meta_config(config)
    if isinstance(meta, MetaBaseLCM):
        return {}
    noise = meta.noise_scheduler
    options: dict[str, Any] = {
        "timestep_spacing": "meta" if noise.timestep_spacing == "trailing" else noise.timestep_spacing
    }
    if noise.thresholding:
        options |= {"threshold_ratio": noise.dynamic_thresholding_ratio, "threshold_max": noise.sample_max_value}
    elif noise.clip_sample:
        options["clip_sample"] = noise.clip_sample_range
    return options


def to_meta_config(config: MSEConfig | TwoTowerConfig, normalizer_name: str | None = None) -> MetaConfig:
    """Return Meta's configuration of one of our models.

    Raises:
        ConfigError: a noise schedule that Meta's code does not have.
    """
    stack: dict[str, Any] = {
        "num_attn_heads": config.num_heads,
        "ffn_inner_dim": config.inner_dim,
        "use_swiglu": config.mlp == "swiglu",
        "layer_normalization_style": {ours: theirs for theirs, ours in _NORMS.items()}[config.norm],
        "pos_embedding_style": config.positions,
        "rope_theta": config.rope_theta,
        "dropout_p": config.dropout,
        "final_dropout_p": config.final_dropout,
        "attention_dropout_p": config.attention_dropout,
        "mha_output_proj_bias": config.attention_output_bias,
    }
    common: dict[str, Any] = {
        "model_dim": config.model_dim,
        "max_seq_len": config.max_positions,
        "sonar_embed_dim": config.concept_dim,
        "sonar_normalizer_name": normalizer_name,
    }
    if isinstance(config, MSEConfig):
        frontend = {"embedding_std": 0.006}
        return MetaBaseLCM.from_dict(
            {**common, "frontend": frontend, "lcm": {**stack, "num_layers": config.num_layers}}
        )
    schedule = config.noise_schedule
    names = {ours: theirs for theirs, ours in _SCHEDULES.items()} | {"quadratic": "scaled_linear"}
    if schedule.type not in names:
        raise ConfigError(
            "Meta's code has no such schedule", where="noise_schedule.type", got=schedule.type, expected=list(names)
        )
    noise = {
        "num_diffusion_train_steps": schedule.num_timesteps,
        "beta_schedule": names[schedule.type],
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "scaled_linear_exponent": schedule.exponent,
        "sigmoid_schedule_alpha": schedule.sigmoid_gamma,
        "sigmoid_schedule_beta": schedule.sigmoid_delta,
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
        "set_alpha_to_one": schedule.set_alpha_to_one,
        "prediction_type": {ours: theirs for theirs, ours in _PREDICTIONS.items()}[config.prediction_type],
    }
    denoiser = {
        **stack,
        "num_layers": config.num_denoiser_layers,
        "pos_embedding_style": "none",
        "timestep_embed_dim": config.model_dim,
    }
    return MetaTwoTower.from_dict(
        {
            **common,
            "frontend": {"embedding_std": 1.0},
            "context_encoder": {**stack, "num_layers": config.num_context_layers},
            "denoiser": denoiser,
            "noise_scheduler": noise,
            "trained_with_cf_guidance": True,
        }
    )


_SHARED = {
    "num_heads": "num_attn_heads",
    "ffn_dim": "ffn_inner_dim",
    "norm": "layer_normalization_style",
    "mlp": "use_swiglu",
    "attention_output_bias": "mha_output_proj_bias",
}


def _style(meta: MetaConfig, stack: MetaTransformer) -> dict[str, Any]:
    if not stack.use_swiglu and stack.ffn_inner_activation_name != "relu":
        raise ConfigError(
            "an activation that the models here do not have",
            where="ffn_inner_activation_name",
            got=stack.ffn_inner_activation_name,
            expected="relu, or use_swiglu",
        )
    return {
        "concept_dim": meta.sonar_embed_dim,
        "model_dim": meta.model_dim,
        "num_heads": stack.num_attn_heads,
        "ffn_dim": stack.ffn_inner_dim,
        "norm": _NORMS[stack.layer_normalization_style],
        "mlp": "swiglu" if stack.use_swiglu else "relu",
        "positions": stack.pos_embedding_style,
        "rope_theta": stack.rope_theta,
        "max_positions": meta.max_seq_len,
        "attention_output_bias": stack.mha_output_proj_bias,
        "dropout": stack.dropout_p,
        "final_dropout": stack.final_dropout_p,
        "attention_dropout": stack.attention_dropout_p,
    }


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
