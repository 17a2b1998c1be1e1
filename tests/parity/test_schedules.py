"""Schedules against the tables of the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest

from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig

GOLDEN = Path(__file__).parent / "golden"
CONFIGS = json.loads((GOLDEN / "index.json").read_text())["schedules.npz"]["configs"]
TYPES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid"}


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


def close(ours, golden, bound=1e-5):
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    finite = np.isfinite(golden)
    assert finite.any()
    assert np.abs(ours - golden)[finite].max() <= bound * max(np.abs(golden[finite]).max(), 1e-30)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_tables_equal_the_reference(name):
    golden = np.load(GOLDEN / "schedules.npz")
    schedule = schedule_of(CONFIGS[name])
    close(schedule.betas, golden[f"{name}/betas"])
    close(schedule.alphas_cumprod, golden[f"{name}/alphas_cumprod"])
    close(schedule.cumprod_at(-1), golden[f"{name}/final_alpha_cumprod"])
    close([schedule.variance_at(t, t - 1) for t in range(schedule.num_timesteps)], golden[f"{name}/variances"])
    # The SNR spans many orders of magnitude: it is compared as alphas_cumprod = snr / (1 + snr), and near 0 as itself.
    snr = golden[f"{name}/snrs"].astype(np.float64)
    ours = schedule.snr.double().numpy()
    finite = np.isfinite(snr)
    close(ours[finite] / (1 + ours[finite]), snr[finite] / (1 + snr[finite]))
    assert np.allclose(ours[finite & (snr < 1)], snr[finite & (snr < 1)], rtol=2e-4, atol=1e-5)
    if CONFIGS[name]["rescale_betas_zero_snr"]:
        assert schedule.alphas_cumprod[-1] == 0.0 == schedule.snr[-1]
