"""The page: first what was wanted and reached, then each part with the command that prints it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from largeconcept.io import atomic_write_text
from results_parts import codec_sections, model_sections
from results_parts.codec_sections import Images
from results_parts.targets import summaries, targets
from results_parts.text import name, table

Found = Mapping[str, Mapping[str, Any]]
"""Part → its record: what was measured (``data``), and when, where and how long."""

GROUPS: dict[str, dict[str, str]] = {
    "The codec: sentences to vectors and back": {
        "round_trip": "Writing back what was read",
        "noise": "Noise",
        "translation": "Translation",
        "search": "Search across languages",
    },
    "The concept model": {
        "next_concept": "The next concept",
        "writing": "Texts",
        "zero_shot": "Other languages, tuned on English alone",
    },
    "What ships": {"shipping": "Size and rounding"},
}


def section(part: str, found: Found, images: Images) -> list[str]:
    """Return the body of a part's section."""
    data = found[part]["data"]
    if part == "held_out":
        return held_out(data)
    if part == "zero_shot":
        return model_sections.zero_shot(data, images, summaries(_data(found)))
    module = model_sections if hasattr(model_sections, part) else codec_sections
    draw: Callable[[Any, Images], list[str]] = getattr(module, part)
    return draw(data, images)


Command = Callable[[str | None], str]
"""Returns the command that prints a part, or the one that measures everything."""


def page(found: Found, command: Command) -> tuple[str, Images]:
    """Return the page and its drawings.

    Args:
        found: what was measured; parts that were not are said to be missing.
        command: see :data:`Command`.
    """
    images: Images = {}
    lines = ["# Results", "", *_about(found, command(None)), "## Targets", "", *_targets(found)]
    for group, parts in GROUPS.items():
        lines += [f"## {group}", ""]
        for part, title in parts.items():
            lines += [f"### {title}", "", "```", command(part), "```", ""]
            lines += section(part, found, images) if part in found else ["Not measured.", ""]
    return "\n".join(lines).rstrip() + "\n", images


def write(found: Found, command: Command, target: Path) -> list[Path]:
    """Write the page, and the drawings into the folder ``images`` beside it; return the files."""
    text, images = page(found, command)
    files = [target.parent / "images" / one for one in images]
    for path, drawing in zip(files, images.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, drawing)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(target, text)
    return [target, *files]


def _data(found: Found) -> dict[str, Any]:
    return {part: one["data"] for part, one in found.items()}


def _targets(found: Found) -> list[str]:
    rows = [[one.name, one.reached or "–", one.verdict] for one in targets(_data(found))]
    met = sum(one.verdict.startswith("met") for one in targets(_data(found)))
    return [
        "What was wanted before anything was trained, and what is reached on texts that nothing was trained on. "
        "Summaries are taken over all languages.",
        "",
        *table(["target", "reached", ""], rows, "---"),
        f"{met} of {len(rows)} targets are met.",
        "",
    ]


def _about(found: Found, command: str) -> list[str]:
    records = list(found.values())
    lines = [
        "How good the model that ships is, beside what needs no model, on held-out texts. Every figure on this page "
        "was printed by a command, which stands above it; sentences that conclude something are computed from the "
        "figures as well. All of it at once:",
        "",
        "```",
        command,
        "```",
        "",
    ]
    if records:
        days = sorted(one["created"][:10] for one in records)
        machine = records[0]["machine"]
        where = f"{machine.get('processor')}, {machine.get('cores')} cores"
        hours = sum(one["seconds"] for one in records) / 3600
        device = machine.get("accelerator")
        lines += [
            f"Measured {days[0] if days[0] == days[-1] else f'{days[0]} to {days[-1]}'} in {hours:.1f} hours on "
            f"{where}{f', {device}' if device else ''}; torch {machine.get('torch')}, largeconcept "
            f"{records[0]['library_version']}; seed {_seeds(records)}. Figures in brackets are 95 % intervals, over "
            "documents where nothing else is said: documents are drawn anew 1,000 times, and versions of one document "
            "in several languages count as one. Of translation pairs it is English sentences that are drawn.",
            "",
        ]
    return lines + (section("held_out", found, {}) if "held_out" in found else [])


def held_out(data: Mapping[str, Any]) -> list[str]:
    """Return how much is judged on."""
    counts = ("documents", "sentences", "summaries", "translations")
    return [
        f"Held-out texts (split `{data['split']}`):",
        "",
        *table(
            ["language", "documents", "sentences", "with a summary", "sentences with a translation"],
            [[name(lang), *(f"{one[key]:,}" for key in counts)] for lang, one in data["languages"].items()],
        ),
    ]


def _seeds(records: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(seed) for seed in sorted({one["seed"] for one in records}))
