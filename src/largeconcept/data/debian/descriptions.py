"""Package descriptions (``Translation-*``) and AppStream catalogues (DEP-11): text in, records out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from largeconcept.data.debian.text import is_cjk, language_of, tidy

_FIELD = re.compile(r"^Description-([A-Za-z_]+): ?(.*)$")
_ITEM = re.compile(r"^(?:[*\-+o•·]|\d+[.)])\s")
_BLOCK = re.compile(r"<(p|li)\b[^>]*>(.*?)</\1\s*>", re.DOTALL)
_TAGS = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class Description:
    """A package description in one language; ``md5`` identifies the English text it translates."""

    package: str
    md5: str
    lang: str
    synopsis: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """An AppStream component: per language a summary and the paragraphs of its description; English is ``en``."""

    id: str
    package: str
    summaries: dict[str, str]
    paragraphs: dict[str, tuple[str, ...]]


def join_description(lines: Iterable[str], lang: str) -> tuple[str, ...]:
    """Return the paragraphs of a long description written as Debian policy says.

    One leading space is running text, two or more is a list or verbatim (list items are kept as paragraphs of their
    own, with the lines that continue them), a lone ``.`` ends a paragraph. Lines are joined with a space, but without
    one where the language writes none. U+22C5, which translators type for a no-break space, becomes a space.
    """
    glue = "" if is_cjk(lang) else " "
    out: list[str] = []
    current: list[str] = []
    in_list = False

    def flush() -> None:
        text = tidy(glue.join(current).replace("\u22c5", " "))
        current.clear()
        if text:
            out.append(text)

    for line in lines:
        content = line.strip()
        if content in {".", ""}:
            flush()
            in_list = False
        elif line.startswith("  "):
            if not in_list or _ITEM.match(content):
                flush()
            current.append(_ITEM.sub("", content))
            in_list = True
        else:
            if in_list:
                flush()
            in_list = False
            current.append(content)
    flush()
    return tuple(out)


def parse_translations(lines: Iterable[str]) -> Iterator[Description]:
    """Yield the descriptions of a ``Translation-*`` file; incomplete records are passed over."""
    package = md5 = lang = synopsis = ""
    body: list[str] = []
    inside = False

    def record() -> Iterator[Description]:
        language = language_of(lang) if lang else None
        if package and md5 and language:
            yield Description(package, md5, language, tidy(synopsis), join_description(body, language))

    for raw in lines:
        line = raw.rstrip("\r\n")
        if not line:
            yield from record()
            package = md5 = lang = synopsis = ""
            body, inside = [], False
        elif line.startswith(" "):
            if inside:
                body.append(line)
        elif line.startswith("Package: "):
            package, inside = line[9:].strip(), False
        elif line.startswith("Description-md5: "):
            md5, inside = line[17:].strip(), False
        elif (match := _FIELD.match(line)) is not None:
            lang, synopsis = match.groups()
            body, inside = [], True
        else:
            inside = False
    yield from record()


def parse_appstream(text: str) -> Iterator[Component]:
    """Yield the components of a DEP-11 catalogue; documents of the stream that are not valid YAML are passed over."""
    for block in re.split(r"(?m)^---[ \t]*$", text):
        try:
            data = yaml.load(block, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe loaders
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
            continue
        if isinstance(data, dict) and isinstance(data.get("ID"), str):
            yield _component(data)


def _component(data: dict[Any, Any]) -> Component:
    return Component(
        id=data["ID"],
        package=str(data.get("Package") or ""),
        summaries={lang: tidy(text) for lang, text in _by_language(data.get("Summary")) if tidy(text)},
        paragraphs={lang: found for lang, text in _by_language(data.get("Description")) if (found := _blocks(text))},
    )


def _by_language(value: object) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    if isinstance(value, dict):
        for tag, text in value.items():
            lang = language_of(tag) if isinstance(tag, str) else None
            if lang is not None and lang not in seen and isinstance(text, str):
                seen.add(lang)
                yield lang, text


def _blocks(markup: str) -> tuple[str, ...]:
    found = (tidy(html.unescape(_TAGS.sub(" ", match.group(2)))) for match in _BLOCK.finditer(markup))
    return tuple(text for text in found if text)
