"""Training: one process or several, resumable bit for bit. Names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Callbacks": "largeconcept.train.loop",
    "EvalContext": "largeconcept.train.loop",
    "LRConfig": "largeconcept.train.schedule",
    "LoopConfig": "largeconcept.train.config",
    "Muon": "largeconcept.train.optim",
    "OptimConfig": "largeconcept.train.optim",
    "RunConfig": "largeconcept.train.config",
    "TrainResult": "largeconcept.train.loop",
    "Trainer": "largeconcept.train.loop",
}
__all__ = [
    "Callbacks",
    "EvalContext",
    "LRConfig",
    "LoopConfig",
    "Muon",
    "OptimConfig",
    "RunConfig",
    "TrainResult",
    "Trainer",
]

if TYPE_CHECKING:
    from largeconcept.train.config import LoopConfig, RunConfig
    from largeconcept.train.loop import Callbacks, EvalContext, Trainer, TrainResult
    from largeconcept.train.optim import Muon, OptimConfig
    from largeconcept.train.schedule import LRConfig


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'largeconcept.train' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
