"""Text to sentences, with exact character offsets.

>>> segmenter = build_segmenter()
>>> [span.of(text) for span in segmenter.segment(text, lang="en")]
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from largeconcept.segment.config import SegmenterConfig

if TYPE_CHECKING:
    from largeconcept.segment.base import BaseSegmenter

SEGMENTERS = {
    "rule": "largeconcept.segment.rule:RuleSegmenter",
    "pysbd": "largeconcept.segment.pysbd_rules:PysbdSegmenter",
    "sat": "largeconcept.segment.sat:SatSegmenter",
}


def build_segmenter(config: SegmenterConfig | Mapping[str, Any] | None = None) -> BaseSegmenter:
    """Build a segmenter.

    Args:
        config: its settings, also as plain data (what ``describe`` returns); ``None`` for the default rules.

    Raises:
        ConfigError: an unknown key or an invalid value.
        DependencyError: the package of an optional type is not installed.
    """
    if not isinstance(config, SegmenterConfig):
        config = SegmenterConfig.from_dict({} if config is None else config, where="segmenter")
    module, _, name = SEGMENTERS[config.type].partition(":")
    return cast("BaseSegmenter", getattr(import_module(module), name)(config))


__all__ = ["SEGMENTERS", "SegmenterConfig", "build_segmenter"]
