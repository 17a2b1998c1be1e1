"""Segmenter on the neural "Segment any Text" models (arXiv 2406.16678) of wtpsplit. Needs the extra ``sat``.

Note: the LCM paper cuts with SaT capped at 200 characters (arXiv 2412.08821, section 2.3.2); this is that, with the cap
of this library, which also keeps graphemes whole and prefers punctuation to an even division.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from largeconcept.errors import CheckpointError, missing_extra
from largeconcept.segment.align import starts_of
from largeconcept.segment.base import BaseSegmenter
from largeconcept.segment.config import SegmenterConfig

DEFAULT_MODEL = "sat-3l-sm"


class SatSegmenter(BaseSegmenter):
    """Sentence boundaries by a SaT model, which needs no language and no punctuation.

    Raises:
        DependencyError: the package is not installed.
        CheckpointError: the model or its tokenizer cannot be loaded.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        try:
            from wtpsplit import SaT
        except ImportError:
            raise missing_extra("wtpsplit", "sat") from None
        name = config.model or DEFAULT_MODEL
        extra = {} if config.tokenizer is None else {"tokenizer_name_or_path": config.tokenizer}
        try:
            self._model: Any = SaT(name, **extra)
            if config.device not in (None, "cpu"):
                self._model.half().to(config.device)
        except Exception as error:  # a hub, a file, a device: each fails in its own way
            raise CheckpointError(
                "cannot load the SaT model",
                where=name,
                got=error,
                hint="give a folder that holds the model as `model`, and its tokenizer as `tokenizer`",
            ) from error

    def _starts(self, bodies: Sequence[str], lang: str) -> Iterator[list[int]]:
        if not bodies:
            return
        found = self._model.split(list(bodies), threshold=self.config.threshold, split_on_input_newlines=False)
        for body, sentences in zip(bodies, found, strict=True):
            yield starts_of(sentences, body)


__all__ = ["DEFAULT_MODEL", "SatSegmenter"]
