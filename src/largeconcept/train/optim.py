"""Optimisers: AdamW with decay on matrices only, and Muon for the hidden matrices with AdamW for the rest.

Sources: AdamW, Loshchilov & Hutter 2019 (arXiv:1711.05101); Muon, Jordan et al. 2024
(kellerjordan.github.io/posts/muon); the update scale that makes
Muon's steps as large as AdamW's, Liu et al. 2025 (arXiv:2502.16982, eq. 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.train.precision import has_bf16

# Odd quintic of the Newton-Schulz iteration: steep at zero, so five rounds lift small singular values to about one.
_QUINTIC = (3.4445, -4.7750, 2.0315)
# Linear maps that are not "hidden": from and to concept space, embeddings, the first layer of the timestep embedding.
DEFAULT_MUON_EXCLUDE = (
    "*embed*",
    "*position*",
    "*input*",
    "*output_proj*",
    "*initial_proj*",
    "*final_proj*",
    "*frontend*",
    "*postnet*",
    "*head*",
)


class OptimConfig(Config):
    """Which optimiser, and its constants.

    Attributes:
        type: ``adamw``, or ``muon`` (hidden matrices by Muon, everything else by AdamW).
        lr: peak learning rate; the schedule multiplies it.
        betas, eps: AdamW's constants. Losses are summed over the channels of a concept, so gradients are large and
            ``eps`` matters little.
        weight_decay: decoupled decay, applied to matrices only (no bias, norm or embedding table).
        muon_lr: peak rate of Muon's matrices; ``None`` takes ``lr`` (the update scale is matched to AdamW's).
        muon_momentum, muon_steps: momentum and Newton-Schulz iterations of Muon.
        muon_exclude: name patterns of matrices that AdamW keeps under ``type=muon``.
    """

    type: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0.0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-6, gt=0.0)
    weight_decay: float = Field(default=0.1, ge=0.0)
    muon_lr: float | None = Field(default=None, gt=0.0)
    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    muon_steps: int = Field(default=5, ge=1)
    muon_exclude: tuple[str, ...] = DEFAULT_MUON_EXCLUDE


def orthogonalize(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Return the nearest semi-orthogonal matrices, approximately: singular values land in about [0.7, 1.2].

    Args:
        matrices: (..., rows, columns).
        steps: Newton-Schulz iterations.
        dtype: type to compute in; ``None`` is bfloat16 where the hardware multiplies it, else float32.

    Note: the polynomial trades exactness for speed, as published; the singular vectors are kept.
    """
    compute = dtype or (torch.bfloat16 if has_bf16(matrices.device) else torch.float32)
    a, b, c = _QUINTIC
    wide = bool(matrices.shape[-2] <= matrices.shape[-1])
    x: Tensor = (matrices if wide else matrices.mT).float()
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)).to(compute)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for two-dimensional hidden weights.

    A matrix of shape (rows, columns) moves by ``lr · 0.2 · √max(rows, columns)`` times the orthogonalised Nesterov
    momentum, so that an entry's root-mean-square update is about 0.2 · lr, as with AdamW: one learning rate fits both.
    Matrices of one shape are orthogonalised together.

    Args:
        params: two-dimensional parameters, or groups of them.
        lr: learning rate.
        momentum: decay of the running gradient.
        weight_decay: decoupled decay.
        steps: Newton-Schulz iterations.
        dtype: type of the iteration; see :func:`orthogonalize`.

    Raises:
        ValueError: a parameter is not a matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
        dtype: torch.dtype | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        super().__init__(params, defaults)
        self._dtype = dtype
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices only; got a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault((parameter.shape, parameter.device, parameter.dtype), []).append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            buffers.append(state["momentum_buffer"])
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1.0 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
        updates = orthogonalize(torch.stack(list(nesterov)), group["steps"], self._dtype).unbind(0)
        rate = group["lr"]
        weights: list[Tensor] = list(parameters)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1.0 - rate * group["weight_decay"])
        scale = 0.2 * max(parameters[0].shape) ** 0.5
        torch._foreach_add_(weights, list(updates), alpha=-rate * scale)


class Optimizers:
    """One or two optimisers that act as one, with the learning rate given at each step.

    Attributes:
        parts: the torch optimisers, for checkpoints.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """Make one update with every peak rate multiplied by ``factor``."""
        for part, peaks in zip(self.parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def build_optimizers(model: nn.Module, config: OptimConfig) -> Optimizers:
    """Return the optimisers of ``config`` over the trainable parameters of ``model``."""
    muon: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter, is_matrix in _parameters(model):
        excluded = any(fnmatchcase(name, pattern) for pattern in config.muon_exclude)
        if is_matrix and parameter.ndim == 2 and config.type == "muon" and not excluded:
            muon.append(parameter)
        else:
            (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if parameters
    ]
    parts: list[torch.optim.Optimizer] = []
    if groups:
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in decayed + plain)
        parts.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused))
    if muon:
        parts.append(
            Muon(
                muon,
                lr=config.muon_lr or config.lr,
                momentum=config.muon_momentum,
                weight_decay=config.weight_decay,
                steps=config.muon_steps,
            )
        )
    return Optimizers(parts)


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yield (name, parameter, whether it is a matrix that decays): tables of embeddings are not."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, parameter.ndim >= 2 and id(parameter) not in tables
