"""Noise schedules of the variance-preserving process, and the timesteps that a sampler visits.

``x_t = alpha_t * x_0 + sigma_t * eps`` with ``alpha_t = sqrt(alphas_cumprod[t])``, ``sigma_t = sqrt(1 -
alphas_cumprod[t])`` and integer timesteps ``0 … T - 1`` (little noise … only noise). LCM paper (arXiv:2412.08821),
section 2.3.1 and table 5.

Shape letters: T timesteps of training.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, model_validator

from largeconcept.config import Config
from largeconcept.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ScheduleType = Literal["cosine", "linear", "quadratic", "scaled_linear", "sigmoid"]
TimestepSpacing = Literal["requested", "trailing", "meta", "leading", "linspace", "log_snr"]

_MAX_BETA = 0.999
_FAR = 4.5  # |λ| beyond which even steps are wasted: 1 % of the state is signal, or noise


class NoiseScheduleConfig(Config):
    """Which noise schedule.

    Attributes:
        type: ``cosine`` (Nichol & Dhariwal, arXiv:2102.09672), ``linear`` in beta (DDPM), ``quadratic`` in beta,
            ``scaled_linear`` (any power: beta^(1/exponent) is linear), or ``sigmoid`` (LCM paper, section 2.3.1).
        num_timesteps: T, the number of timesteps of training.
        beta_start, beta_end: first and last beta of ``linear``, ``quadratic`` and ``scaled_linear``.
        exponent: the power of ``scaled_linear``; ``quadratic`` is the power 2.
        sigmoid_gamma, sigmoid_delta: steepness and centre of ``sigmoid``:
            ``alphas_cumprod(u) = sigmoid(delta - gamma * logit(u))`` relative to its start. The paper studied
            (1.5, -1), (1.5, -2), (0.8, -1) and (3.5, 0).
        zero_terminal_snr: rescale so that the last timestep is pure noise (Lin et al., arXiv:2305.08891, algorithm 1).
        set_alpha_to_one: the state before timestep 0 is clean data (the default); otherwise it is timestep 0 itself.
    """

    type: ScheduleType = "cosine"
    num_timesteps: int = Field(default=100, ge=2, le=100_000)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    exponent: float = Field(default=2.0, gt=0)
    sigmoid_gamma: float = Field(default=1.5, gt=0)
    sigmoid_delta: float = 0.0
    zero_terminal_snr: bool = True
    set_alpha_to_one: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> NoiseScheduleConfig:
        if self.beta_end < self.beta_start:
            raise ValueError("beta_end must not be smaller than beta_start")
        if self.type == "quadratic" and self.exponent != 2.0:
            raise ValueError("quadratic means exponent 2; use type scaled_linear for another exponent")
        return self


def paper_schedule(name: str, num_timesteps: int = 100) -> NoiseScheduleConfig:
    """Return a schedule of the LCM paper by its name in table 5, rescaled to a zero terminal signal as all are there.

    Raises:
        ConfigError: the paper has no such schedule.
    """
    if name not in PAPER_SCHEDULES:
        raise ConfigError("unknown schedule", where="schedule", got=name, hint=did_you_mean(name, PAPER_SCHEDULES))
    return NoiseScheduleConfig.from_dict({**PAPER_SCHEDULES[name], "num_timesteps": num_timesteps})


PAPER_SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"type": "cosine"},
    "quadratic-1": {"type": "quadratic", "beta_start": 0.001, "beta_end": 0.0012},
    "quadratic-2": {"type": "quadratic", "beta_start": 0.02, "beta_end": 0.022},
    **{
        f"sigmoid({gamma:g},{delta:g})": {"type": "sigmoid", "sigmoid_gamma": gamma, "sigmoid_delta": delta}
        for gamma, delta in ((1.5, -1.0), (1.5, -2.0), (0.8, -1.0), (3.5, 0.0))
    },
}
"""The paper's names (table 5, sigmoids as (gamma, delta)), and the settings that give its schedules."""


class NoiseSchedule:
    """The tables of a noise schedule, in float32.

    Attributes:
        config: what it was built from.
        num_timesteps: T.
        betas: (T,) float32.
        alphas_cumprod: (T,) float32, the product of ``1 - beta`` up to each timestep; the last one is exactly 0 with
            ``zero_terminal_snr``.
        snr: (T,) float32, ``alphas_cumprod / (1 - alphas_cumprod)``; infinite where ``alphas_cumprod`` rounds to 1.

    Note: the order and precision of the operations follow the reference, because a beta near 1 amplifies rounding.
    """

    def __init__(self, config: NoiseScheduleConfig | None = None) -> None:
        import torch

        self.config = config if config is not None else NoiseScheduleConfig()
        self.num_timesteps = self.config.num_timesteps
        betas = _betas(self.config)
        cumprod = torch.cumprod(1.0 - betas, dim=0)
        if self.config.zero_terminal_snr:
            betas = _zero_terminal(cumprod)
            cumprod = torch.cumprod(1.0 - betas, dim=0)
        self.betas: Tensor = betas
        self.alphas_cumprod: Tensor = cumprod
        wide = cumprod.double()
        self.snr: Tensor = (wide / (1.0 - wide)).to(torch.float32)
        # Plain floats for samplers: no tensor is read inside a denoising loop.
        self._cumprod: list[float] = wide.tolist()
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def inference_timesteps(self, num_inference_steps: int, spacing: TimestepSpacing = "requested") -> list[int]:
        """Return the timesteps that a sampler visits, in descending order.

        Spacings are those of :func:`inference_timesteps`, and ``log_snr``: the last timestep, then evenly in
        ``λ = log(alpha / sigma)`` between -4.5 and 4.5, as far as the schedule reaches and has timesteps.

        Raises:
            ConfigError: an unknown spacing, or a number of steps outside ``1 … T``.
        """
        if spacing == "log_snr":
            return _log_snr_timesteps(self._cumprod, num_inference_steps)
        return inference_timesteps(self.num_timesteps, num_inference_steps, spacing)

    def cumprod_at(self, timestep: int) -> float:
        """Return ``alphas_cumprod[timestep]`` as a Python float; negative timesteps are the state before 0."""
        if timestep < 0:
            return 1.0 if self.config.set_alpha_to_one else self._cumprod[0]
        return self._cumprod[timestep]

    def variance_at(self, timestep: int, previous: int) -> float:
        """Return the variance of the posterior ``q(x_previous | x_t, x_0)``.

        DDIM (arXiv:2010.02502), equation 16 with eta = 1.
        """
        now, before = self.cumprod_at(timestep), self.cumprod_at(previous)
        if before >= 1.0 or before <= 0.0:
            return 0.0
        return max((1.0 - before) / (1.0 - now) * (1.0 - now / before), 0.0)

    def alpha_sigma(self, timesteps: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(alpha_t, sigma_t)`` for integer timesteps of any shape ``(…)``.

        Both have shape ``(…, 1)``: they broadcast over the channels. ``dtype`` defaults to float32. The host is not
        synchronised.
        """
        import torch

        tables = self._tables.get(timesteps.device)
        if tables is None:
            wide = self.alphas_cumprod.double()
            tables = (
                wide.sqrt().to(torch.float32).to(timesteps.device),
                (1.0 - wide).sqrt().to(torch.float32).to(timesteps.device),
            )
            self._tables[timesteps.device] = tables
        alpha, sigma = tables[0][timesteps].unsqueeze(-1), tables[1][timesteps].unsqueeze(-1)
        return (alpha, sigma) if dtype is None else (alpha.to(dtype), sigma.to(dtype))


def inference_timesteps(
    num_timesteps: int, num_inference_steps: int, spacing: TimestepSpacing = "requested"
) -> list[int]:
    """Return the timesteps that a sampler visits, in descending order.

    Spacings:
        ``requested``: exactly ``num_inference_steps`` distinct timesteps, evenly spread, from ``T - 1`` on.
        ``trailing`` or ``meta``: from ``T - 1`` on with the stride ``T // S``, as the reference: 40 of 100 gives 50.
        ``leading``: multiples of ``T // S``, ending at 0; may also give more than asked for.
        ``linspace``: from ``T - 1`` to 0, both included, fractions cut.

    ``log_snr`` depends on the schedule: see :meth:`NoiseSchedule.inference_timesteps`.

    Raises:
        ConfigError: an unknown spacing, or a number of steps outside ``1 … T``.
    """
    T, S = num_timesteps, num_inference_steps
    _check_steps(T, S)
    if spacing == "requested":
        # floor(i * T / S + 1/2) in integers: strides of at least one can then never round to the same timestep.
        return [T - 1 - (2 * i * T + S) // (2 * S) for i in range(S)]
    if spacing in ("trailing", "meta"):
        return [t - 1 for t in range(T, 0, -(T // S))]
    if spacing == "leading":
        return list(range(0, T, T // S))[::-1]
    if spacing == "linspace":
        if S == 1:
            return [0]
        return [(i * (T - 1)) // (S - 1) for i in range(S)][::-1]
    hint = "it depends on the schedule: call NoiseSchedule.inference_timesteps"
    if spacing != "log_snr":
        hint = did_you_mean(spacing, get_args(TimestepSpacing))
    raise ConfigError("unknown spacing", where="timestep_spacing", got=spacing, hint=hint)


def _log_snr_timesteps(cumprods: Sequence[float], num_inference_steps: int) -> list[int]:
    """Return distinct timesteps nearest to even steps in log-SNR, for (T,) falling ``alphas_cumprod``."""
    T, S = len(cumprods), num_inference_steps
    _check_steps(T, S)
    # -λ rises with the timestep; it stays finite where there is no noise or no signal.
    rising = [0.5 * (math.log1p(-min(a, 1.0 - 1e-7)) - math.log(max(a, 1e-20))) for a in cumprods]
    chosen, left = [T - 1], S - 1
    high, low = min(rising[max(T - 2, 0)], _FAR), max(rising[0], -_FAR)
    for n in range(left):
        # A single step goes to the middle: at either end it would be hardly more than none.
        want = high + (low - high) * (n / (left - 1) if left > 1 else 0.5)
        above = bisect_left(rising, want)
        nearest = above if above == 0 or (above < T and rising[above] - want < want - rising[above - 1]) else above - 1
        # Leave a timestep for every step to come.
        chosen.append(max(min(nearest, chosen[-1] - 1), left - 1 - n))
    return chosen


def _check_steps(num_timesteps: int, num_inference_steps: int) -> None:
    if not 1 <= num_inference_steps <= num_timesteps:
        raise ConfigError(
            "out of range", where="num_inference_steps", got=num_inference_steps, expected=f"1 to {num_timesteps}"
        )


def _betas(config: NoiseScheduleConfig) -> Tensor:
    """Return (T,) float32 betas."""
    import torch

    T = config.num_timesteps
    if config.type in ("linear", "quadratic", "scaled_linear"):
        power = {"linear": 1.0, "quadratic": 2.0}.get(config.type, config.exponent)
        return torch.linspace(config.beta_start ** (1 / power), config.beta_end ** (1 / power), T) ** power
    u = torch.arange(T + 1, dtype=torch.float64) / T
    if config.type == "cosine":
        signal = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2
    else:
        # The odds are rounded to float32 because the reference does so: near u = 1 it decides the sixth digit of beta.
        # Odds of 0 and infinity are wanted: the signal goes from 1 to 0.
        odds = u.float() / (1.0 - u.float())
        signal = torch.sigmoid(config.sigmoid_delta - config.sigmoid_gamma * torch.log(odds.double()))
    return (1.0 - signal[1:] / signal[:-1]).clamp(max=_MAX_BETA).to(torch.float32)


def _zero_terminal(cumprod: Tensor) -> Tensor:
    """Return (T,) betas shifted and scaled so that the last ``sqrt(alphas_cumprod)`` is 0 and the first one is kept."""
    import torch

    # A float32 square root may be off by its last digit on some machines, and the subtraction below amplifies that.
    root = cumprod.double().sqrt().to(torch.float32)
    first, last = root[0].clone(), root[-1].clone()
    root = (root - last) * (first / (first - last))
    cumprod = root**2
    return 1.0 - torch.cat([cumprod[:1], cumprod[1:] / cumprod[:-1]])
