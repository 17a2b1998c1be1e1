"""Small tools several test files share."""

from __future__ import annotations

from pathlib import Path


def truncate_file(path: Path, share: float = 0.6) -> None:
    """Cut a file as a broken download would."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
