"""Text files to versioned concept datasets, and datasets to batches.

Names are imported when first used; only the loader and the reader need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BuildReport": "largeconcept.data.build",
    "build_concepts": "largeconcept.data.build",
    "ReadReport": "largeconcept.data.documents",
    "read_documents": "largeconcept.data.documents",
    "ConceptDataset": "largeconcept.data.reader",
    "ConceptDocument": "largeconcept.data.reader",
    "ConceptLoader": "largeconcept.data.loader",
    "LoaderConfig": "largeconcept.data.loader",
    "SourceConfig": "largeconcept.data.loader",
    "InspectReport": "largeconcept.data.inspect",
    "inspect_dataset": "largeconcept.data.inspect",
}
__all__ = [
    "BuildReport",
    "ConceptDataset",
    "ConceptDocument",
    "ConceptLoader",
    "InspectReport",
    "LoaderConfig",
    "ReadReport",
    "SourceConfig",
    "build_concepts",
    "inspect_dataset",
    "read_documents",
]

if TYPE_CHECKING:
    from largeconcept.data.build import BuildReport, build_concepts
    from largeconcept.data.documents import ReadReport, read_documents
    from largeconcept.data.inspect import InspectReport, inspect_dataset
    from largeconcept.data.loader import ConceptLoader, LoaderConfig, SourceConfig
    from largeconcept.data.reader import ConceptDataset, ConceptDocument


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'largeconcept.data' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
