"""Long paragraphs in windows, so that a backend that is slow on long text stays linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def windowed(body: str, find: Callable[[str], Sequence[int]], window: int = 1000, margin: int = 150) -> list[int]:
    """Return where the sentences of ``body`` begin, ascending, without the first.

    Args:
        body: a paragraph of any length.
        find: gives the same for a short text; a sentence that the end of a window cuts is looked at again.
        window: characters that ``find`` sees at once.
        margin: a boundary this near the end of a window is not trusted if there is an earlier one.
    """
    starts: list[int] = []
    position = 0
    while len(body) - position > window:
        found = find(body[position : position + window])
        trusted = [start for start in found if start <= window - margin] or list(found[:1])
        starts.extend(position + start for start in trusted)
        # A sentence that is longer than half a window is gone on with in its middle, so that no text is read often.
        position += trusted[-1] if trusted and trusted[-1] >= window // 2 else window - margin
    starts.extend(position + start for start in find(body[position:]))
    return starts


__all__ = ["windowed"]
