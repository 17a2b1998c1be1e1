"""Where networks run: the device to take when none is named, and moving parts to one that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError

if TYPE_CHECKING:
    import torch


def default_device() -> str:
    """Return the accelerator's device name, or ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def without_values() -> Iterator[None]:
    """Build networks inside without memory and without first values, for weights that are read from a file.

    On torch's device ``meta`` alone the first values would still be asked for, and asking for random ones imports
    torch's compiler: two seconds of processor time for nothing.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class _NoDraws(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            named = kwargs or {}
            if getattr(func, "__name__", "") in _DRAWS:
                return named["tensor"] if "tensor" in named else args[0]
            return func(*args, **named)

    with torch.device("meta"), _NoDraws():
        yield


_DRAWS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "xavier_normal_"})


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
