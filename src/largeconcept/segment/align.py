"""Where the sentences that some other library returned lie in the text they came from."""

from __future__ import annotations

from collections.abc import Iterable


def starts_of(sentences: Iterable[str], text: str) -> list[int]:
    """Return where sentences begin in ``text``, ascending, without the first.

    Libraries drop or change white space, lose text, and change characters. A sentence that cannot be found as it is
    behind the one before it is passed over, so that its text goes with its neighbour: nothing is ever lost.
    """
    starts: list[int] = []
    position = 0
    for sentence in sentences:
        core = sentence.strip()
        at = text.find(core, position) if core else -1
        if at < 0:
            continue
        starts.append(at)
        position = at + len(core)
    return starts[1:] if starts and not text[: starts[0]].strip() else starts


__all__ = ["starts_of"]
