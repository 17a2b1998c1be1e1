"""HTML that cannot be broken from inside: whatever is not :class:`Markup` is escaped.

Texts of a report come from corpora and models, so any of them may hold tags, quotes, control characters or half a
surrogate pair.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})
_EMPTY_SVG = frozenset({"path", "line", "rect", "circle", "polyline"})
_NOT_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]
"""What an element may hold; plain text is escaped, ``None`` is nothing."""


def plain(text: object) -> str:
    """Return text without characters that HTML forbids: each becomes a replacement character."""
    return _NOT_SHOWN.sub("\ufffd", str(text))


def escape(text: object) -> Markup:
    """Return text as HTML, safe inside elements and quoted attributes."""
    return Markup(html.escape(plain(text), quote=True))


def join(children: Child, separator: str = "") -> Markup:
    """Return the HTML of one child or many."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str | int):
        return escape(children)
    return Markup(separator.join(join(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        children: texts, other elements, or lists of them.
        attributes: ``class_`` stands for ``class``, ``_`` for ``-``; ``None`` and ``False`` are left out, ``True`` is
            an attribute without value.
    """
    words = [name]
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        words.append(label if value is True else f'{label}="{escape(_number(value))}"')
    opening = " ".join(words)
    if name in _VOID:
        return Markup(f"<{opening}>")
    if name in _EMPTY_SVG and not children:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def _number(value: object) -> str:
    """Coordinates need a tenth of a pixel and no more."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


__all__ = ["Child", "Markup", "escape", "join", "plain", "tag"]
