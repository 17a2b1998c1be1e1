"""What objectives have in common.

Shape letters: B batch, S concepts, C concept dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from largeconcept.errors import ConceptLMError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, ConceptCodec, Loss

RMSE_EPSILON = 1e-5


@runtime_checkable
class NeedsCodec(Protocol):
    """An objective that cannot work without a part of the codec; training opens it before the first step."""

    def open_codec(self, codec: str, fingerprint: str, device: torch.device | str = "cpu") -> None:
        """Load what is needed of the codec that the data was built with."""
        ...


@runtime_checkable
class TrainsCodec(Protocol):
    """An objective that trains weights of the codec beside the model; both are part of the training state."""

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the codec that are trained, once it is open; none if it stays as it is."""
        ...

    def save_codec(self, folder: str | Path) -> None:
        """Write the codec with the weights it has now; its concept space is what it was."""
        ...


def open_space(codec: str, fingerprint: str, device: torch.device | str = "cpu") -> ConceptCodec:
    """Load a codec and move it to a device.

    Args:
        codec: name or folder.
        fingerprint: of the concept space that it must be of.
        device: where it shall work.

    Raises:
        ConfigError: it cannot be loaded by this name, or is of another concept space.
    """
    from largeconcept.codec import load_codec

    try:
        space = load_codec(codec)
    except ConceptLMError as error:
        hint = "name its folder: objective.codec=FOLDER"
        raise ConfigError("the codec cannot be loaded", where="objective.codec", got=error, hint=hint) from None
    if space.fingerprint != fingerprint:
        raise ConfigError(
            "the codec is of another concept space than the data",
            where=f"objective.codec: {codec}",
            expected=f"fingerprint {fingerprint}",
            got=space.fingerprint,
            hint="name the codec that the data was built with",
        )
    network: nn.Module | None = getattr(space, "network", None)
    if network is not None:
        network.to(device)
    return space


class Objective(Protocol):
    """Says what a model is trained on: targets, weights and loss.

    The loss is a sum over target concepts; dividing by the number of all targets of an optimiser step is left to the
    training loop, so that the gradient does not depend on how a step is cut into micro-batches and processes.
    """

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Return the loss of a batch on the model's device; concepts are normalised inside."""
        ...


def squared_error(prediction: Tensor, target: Tensor, rmse: bool = False) -> Tensor:
    """Return (…,) float32: the squared error of (…, C) vectors *summed* over channels, or the root of it."""
    error = (prediction.float() - target.float()).square().sum(dim=-1)
    return (error + RMSE_EPSILON).sqrt() if rmse else error


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of ``values`` where ``mask`` is true; what stands elsewhere, even NaN, does not matter."""
    return values.masked_fill(~mask, 0.0).sum()


def target_weights(batch: ConceptBatch, size: int) -> Tensor | float:
    """Return the (B, T) weights of the targets as the batch gives them, or 1.0.

    ``size`` is T: the S positions of the batch, or with sources the targets alone, aligned to the left.
    """
    import torch

    if batch.weights is None or batch.source_lengths is None:
        return 1.0 if batch.weights is None else batch.weights[:, :size]
    index = batch.source_lengths[:, None] + torch.arange(size, device=batch.weights.device)
    return batch.weights.gather(1, index.clamp(max=batch.weights.shape[1] - 1))


def normalized(normalizer: ConceptNormalizer, concepts: Tensor) -> Tensor:
    """Normalise (B, S, C) concepts, moving the normaliser to their device when it is on another."""
    if normalizer.center.device != concepts.device:
        normalizer.to(concepts.device)
    return normalizer.normalize(concepts)


def config_of(model: nn.Module, *fields: str) -> Any:
    """Return the configuration of a model, also when it is wrapped (compiled, data parallel).

    Raises:
        ConfigError: no configuration with these fields is found: the objective does not fit the model.
    """
    inner: Any = model
    while inner is not None:
        config = getattr(inner, "config", None)
        if config is not None:
            missing = [name for name in fields if not hasattr(config, name)]
            if missing and hasattr(config, "body"):  # a planning model is trained as its body is
                config = config.body
                missing = [name for name in fields if not hasattr(config, name)]
            if not missing:
                return config
            raise ConfigError(
                "the objective does not fit the model",
                where=type(inner).__name__,
                expected=f"a model with {missing[0]}",
                hint="leave the objective out to get the model's own",
            )
        inner = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
    raise ConfigError("the model has no configuration", where=type(model).__name__)


def num_noisy(batch: ConceptBatch) -> int:
    """Return T, how many noisy rows a denoiser gets: S, or the longest target of supervised data."""
    if batch.source_lengths is None:
        return batch.concepts.shape[1]
    # One host synchronisation on an accelerator, for supervised data only: the width of the target tensor.
    return max(int((batch.lengths - batch.source_lengths).max()), 1)


def noised_targets(x: Tensor, batch: ConceptBatch, size: int) -> tuple[Tensor, Tensor]:
    """Return the (B, T, C) concepts of (B, S, C) that a denoiser is to find, and (B, T) bool: which of them are real.

    ``size`` is T. Targets of supervised data are aligned to the left.
    """
    import torch

    position = torch.arange(size, device=x.device)
    if batch.source_lengths is None:
        return x, position < batch.lengths[:, None]
    index = (batch.source_lengths[:, None] + position).clamp(max=x.shape[1] - 1)
    targets = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return targets, position < (batch.lengths - batch.source_lengths)[:, None]
