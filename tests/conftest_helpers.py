"""Small tools and texts several test files share."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, RenderableType

SENTENCES = (
    "Tim had a red ball.",
    "The ball rolled away.",
    "Tim ran after it.",
    "A dog took the ball.",
    "The dog ran home.",
    "Tim was sad.",
    "His mother found the ball.",
    "They played again.",
)


def truncate_file(path: Path, share: float = 0.6) -> None:
    """Cut a file as a broken download would."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def shown(renderable: RenderableType, width: int = 250) -> str:
    """Return what a terminal of that width shows of a table."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()
