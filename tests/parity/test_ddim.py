"""Single DDIM steps, noising and conversions, and a whole recorded trajectory, against the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from largeconcept.diffusion.parameterization import add_noise, target, to_eps
from largeconcept.diffusion.samplers import DDIMOptions, ddim_coefficients, ddim_sample, ddim_step
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig

GOLDEN = Path(__file__).parent / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text())
STEPS = np.load(GOLDEN / "ddim_steps.npz")
GENERATED = np.load(GOLDEN / "two_tower_default_generate.npz")
TYPES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid"}
KINDS = {"sample": "x_0", "epsilon": "eps", "v_prediction": "v"}


def schedule_of(reference: dict) -> NoiseSchedule:
    return NoiseSchedule(
        NoiseScheduleConfig(
            type=TYPES[reference["beta_schedule"]],
            num_timesteps=reference["num_diffusion_train_steps"],
            beta_start=reference["beta_start"],
            beta_end=reference["beta_end"],
            exponent=reference["scaled_linear_exponent"],
            sigmoid_gamma=reference["sigmoid_schedule_alpha"],
            sigmoid_delta=reference["sigmoid_schedule_beta"],
            zero_terminal_snr=reference["rescale_betas_zero_snr"],
            set_alpha_to_one=reference["set_alpha_to_one"],
        )
    )


def close(ours: torch.Tensor, golden: np.ndarray, bound: float) -> None:
    reference = torch.from_numpy(np.asarray(golden)).double()
    assert ours.shape == reference.shape
    assert float((ours.double() - reference).abs().max()) <= bound * float(reference.abs().max())


@pytest.mark.parametrize("case", INDEX["ddim_steps.npz"]["cases"], ids=lambda case: f"{case['id']:03d}")
def test_one_step(case):
    config = case["config"]
    t = case["t"]
    previous = t - config["num_diffusion_train_steps"] // case["S"]
    options = DDIMOptions(
        num_inference_steps=case["S"],
        eta=case.get("eta", 0.0),
        epsilon_scaling=case.get("epsilon_scaling"),
        clip_sample=config["clip_sample_range"] if config["clip_sample"] else None,
        threshold_ratio=config["dynamic_thresholding_ratio"] if config["thresholding"] else None,
        threshold_max=config["sample_max_value"],
        rederive_eps=case.get("use_clipped_model_output", False),
    )
    step = ddim_coefficients(schedule_of(config), t, previous, options.eta)
    x_previous, x_0 = ddim_step(
        torch.from_numpy(STEPS["model_output"]),
        torch.from_numpy(STEPS["sample"]),
        step,
        KINDS[case["step_prediction_type"] or config["prediction_type"]],
        options,
        torch.from_numpy(STEPS["variance_noise"]),
    )
    key = f"case{case['id']:03d}"
    close(x_0, STEPS[f"{key}/pred_original_sample"], 3e-4)
    golden = STEPS[f"{key}/prev_sample"]
    if np.isfinite(golden).all():
        close(x_previous, golden, 3e-4)
    else:  # the reference takes the root of a negative rounding error; ours must not
        assert f"{key}/prev_sample" in INDEX["ddim_steps.npz"]["non_finite_keys"]
        assert torch.isfinite(x_previous).all()


@pytest.mark.parametrize("name", ["cosine_T100", "quadratic_T1000_no_rescale", "sigmoid_T100_0.8_-1"])
def test_noising_and_conversions(name):
    schedule = schedule_of(INDEX["schedules.npz"]["configs"][name])
    clean, noise = torch.from_numpy(STEPS["clean"]), torch.from_numpy(STEPS["variance_noise"])
    timesteps = torch.from_numpy(STEPS[f"vec/{name}/timesteps"])
    alpha, sigma = schedule.alpha_sigma(timesteps)
    if alpha.ndim < clean.ndim:
        alpha, sigma = alpha.unsqueeze(-1), sigma.unsqueeze(-1)
    close(add_noise(clean, noise, alpha, sigma), STEPS[f"vec/{name}/add_noise"], 1e-5)
    close(target(clean, noise, alpha, sigma, "v"), STEPS[f"vec/{name}/get_velocity"], 1e-5)
    found = [key for key in STEPS.files if key.startswith(f"vec/{name}/get_epsilon_")]
    assert len(found) == 3
    for key in found:
        kind, t = key.removeprefix(f"vec/{name}/get_epsilon_").rsplit("_t", 1)
        step = ddim_coefficients(schedule, int(t), -1)
        output, sample = torch.from_numpy(STEPS["model_output"]), torch.from_numpy(STEPS["sample"])
        close(to_eps(output, sample, step.alpha_t, step.sigma_t, KINDS[kind]), STEPS[key], 1e-5)


@pytest.mark.parametrize("name", ["plain_S10", "eta_eps_scaling"])
def test_recorded_trajectory(name):
    """The sampler visits the recorded states when the denoiser answers with the recorded outputs."""
    case = INDEX["two_tower_default_generate.npz"]["generate"][name]
    get = lambda key: torch.from_numpy(GENERATED[f"gen/{name}/{key}"])  # noqa: E731
    states, outputs = get("first_concept/step_sample"), get("first_concept/step_model_output")
    visited = []

    def denoise(x_t, index, timestep):
        assert timestep == int(get("first_concept/timesteps")[index])
        visited.append(x_t)
        return outputs[index]

    eta = case["options"].get("ddim_eta", 0.0)
    options = DDIMOptions(
        num_inference_steps=case["options"]["inference_timesteps"],
        timestep_spacing="meta",
        eta=eta,
        epsilon_scaling=case["options"].get("epsilon_scaling"),
    )
    x_0 = ddim_sample(
        denoise,
        schedule_of(case["scheduler"]),
        options,
        get("initial_latents0"),
        prediction_type="eps",
        noise=get("variance_noise0") if eta else None,
    )
    assert len(visited) == 10
    for ours, golden in zip(visited, states, strict=True):
        close(ours, golden.numpy(), 3e-4)
    close(x_0, get("first_concept/step_pred_original")[-1].numpy(), 3e-4)
