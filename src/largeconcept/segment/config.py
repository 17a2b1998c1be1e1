"""Settings of the segmenters."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from largeconcept.config import Config

_SAT_ONLY = ("model", "tokenizer", "threshold", "device")


class SegmenterConfig(Config):
    """How a text is cut into sentences.

    Attributes:
        type: ``rule`` (rules for many languages, the default), ``pysbd`` (rules, slower, 23 languages; extra ``pysbd``)
            or ``sat`` (the neural "Segment any Text" models of wtpsplit; extra ``sat``).
        max_chars: longest sentence in characters; longer ones are cut at the best place. ``None`` never cuts. The LCM
            paper uses 200 (arXiv 2412.08821, section 2.3).
        join_wrapped_lines: recognise hard-wrapped prose, where a line break is only a space; else every line is a
            paragraph.
        model: ``sat`` only: name of a SaT model, or a folder that holds one; ``None`` is ``sat-3l-sm``.
        tokenizer: ``sat`` only: name or folder of its tokenizer; ``None`` is the one wtpsplit picks.
        threshold: ``sat`` only: boundaries above this probability count; ``None`` is the model's own.
        device: ``sat`` only: where the model runs, ``cpu`` or ``cuda``; ``None`` is the CPU.
    """

    type: Literal["rule", "pysbd", "sat"] = "rule"
    max_chars: int | None = Field(default=200, ge=1)
    join_wrapped_lines: bool = True
    model: str | None = Field(default=None, min_length=1)
    tokenizer: str | None = Field(default=None, min_length=1)
    threshold: float | None = Field(default=None, gt=0.0, lt=1.0)
    device: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _settings_fit_the_type(self) -> Self:
        given = [name for name in _SAT_ONLY if getattr(self, name) is not None]
        if given and self.type != "sat":
            raise ValueError(f"{given[0]} is a setting of type sat, not of {self.type}")
        return self


__all__ = ["SegmenterConfig"]
