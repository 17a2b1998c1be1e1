"""Small tools and texts several test files share."""

from __future__ import annotations

from pathlib import Path

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
