"""The parts of a measurement: what each is called, what it depends on, and who measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from results_parts import codec_parts, model_parts
from results_parts.inputs import Inputs
from results_parts.store import Piece


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        measure: function of inputs and pieces.
        uses: options it depends on.
        limits: fields of :class:`~results_parts.inputs.Limits` it depends on.
        needs: options without which it is left out.
        beside: options of another part's figures that are shown beside its own.
        version: raised whenever its figures change.
    """

    measure: Callable[[Inputs, Piece], Any]
    uses: tuple[str, ...]
    limits: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("prepared",)
    beside: tuple[str, ...] = ()
    version: int = 1


def held_out(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Count what is judged on."""
    found = {}
    for lang in inputs.languages:
        rows = inputs.texts[lang]
        found[lang] = {
            "documents": len(rows),
            "sentences": sum(len(one.sentences) for one in rows),
            "summaries": sum(bool(one.summary or one.target_sentences) for one in rows),
            "translations": sum(lang in one for one in inputs.pairs.values()),
        }
    return {"split": inputs.split, "languages": found}


PARTS: dict[str, Part] = {
    "held_out": Part(held_out, ("codec", "prepared")),
    "round_trip": Part(codec_parts.round_trip, ("codec", "prepared"), ("sentences", "noisy", "samples", "beams")),
    "noise": Part(codec_parts.noise, ("codec", "prepared"), ("noisy", "beams")),
    "translation": Part(codec_parts.translation, ("codec", "prepared"), ("translated", "samples", "beams")),
    "search": Part(codec_parts.search, ("codec", "prepared"), ("searched",)),
    "next_concept": Part(model_parts.next_concept, ("pipeline", "data", "token_lm"), ("documents",), needs=("data",)),
    "writing": Part(model_parts.writing, ("pipeline", "prepared", "data", "token_lm"), ("texts", "samples")),
    "zero_shot": Part(
        model_parts.zero_shot,
        ("english_only", "prepared"),
        ("texts", "samples"),
        needs=("prepared", "english_only"),
        beside=("data", "token_lm"),
    ),
    "shipping": Part(model_parts.shipping, ("pipeline", "float_pipeline", "data"), ("documents", "noisy"), needs=()),
}
"""In the order in which they are measured."""
