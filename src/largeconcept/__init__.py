"""Large Concept Models: language models that think in sentences instead of tokens.

Names are imported when first used, so ``import largeconcept`` is quick and does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from largeconcept.version import __version__

_LAZY = {
    "ConceptPipeline": "largeconcept.generate.pipeline",
    "ConceptNormalizer": "largeconcept.codec.normalizer",
    "load_codec": "largeconcept.codec",
    "build_concepts": "largeconcept.data.build",
    "Trainer": "largeconcept.train.loop",
    "evaluate": "largeconcept.eval.harness",
    "recipes": "largeconcept.recipes",
    "ConceptLMError": "largeconcept.errors",
}
__all__ = ["__version__", *_LAZY]

if TYPE_CHECKING:
    from largeconcept import recipes
    from largeconcept.codec import load_codec
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.data.build import build_concepts
    from largeconcept.errors import ConceptLMError
    from largeconcept.eval.harness import evaluate
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.train.loop import Trainer


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'largeconcept' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    value = module if _LAZY[name].rpartition(".")[2] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
