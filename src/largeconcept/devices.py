"""Where networks run: the device to take when none is named, and moving parts to one that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from largeconcept.errors import ConfigError

if TYPE_CHECKING:
    import torch


def default_device() -> str:
    """Return the accelerator's device name, or ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def move(device: str | torch.device, *parts: object) -> None:
    """Put everything that can be moved (whatever has ``to``) on a device, in place.

    Raises:
        ConfigError: there is no such device here.
    """
    for part in parts:
        if hasattr(part, "to"):
            try:
                part.to(device)
            except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch says so with any of them
                raise ConfigError("cannot be used", where=f"device {device}", got=error) from None
