"""Checks of HTML without a browser: balanced, self-contained, safe, accessible."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "br", "hr", "img", "link", "input"}
WITH_ADDRESS = {"src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction", "background"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    content: list[str | Element] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """Elements right below this one."""
        return [one for one in self.content if isinstance(one, Element)]

    @property
    def text(self) -> list[str]:
        """Texts right below this element."""
        return [one for one in self.content if isinstance(one, str)]

    def all(self, name: str, kind: str | None = None) -> list[Element]:
        """Elements of a name (and class) below this one, in order."""
        found = []
        for child in self.children:
            if child.name == name and (kind is None or kind in (child.attributes.get("class") or "").split()):
                found.append(child)
            found += child.all(name, kind)
        return found

    def words(self) -> str:
        """All text below this element."""
        return " ".join(" ".join(self._words()).split())

    def _words(self) -> list[str]:
        return [word for one in self.content for word in ([one] if isinstance(one, str) else one._words())]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.stack = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}: {attrs}"
        element = Element(tag, dict(attrs))
        self.stack[-1].content.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack[-1].content.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].name == tag, f"</{tag}> closes {self.stack[-1].name}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].content.append(data)


def parse(page: str) -> Element:
    """Return the tree; fails where elements are not balanced."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.stack) == 1, f"not closed: {[one.name for one in reader.stack[1:]]}"
    return reader.root


def everything(element: Element) -> list[Element]:
    """All elements below one."""
    return [one for child in element.children for one in (child, *everything(child))]


def check_safe(root: Element) -> None:
    """Nothing is fetched, nothing is run."""
    for one in everything(root):
        assert one.name not in {"script", "iframe", "object", "embed", "img", "link", "base", "form", "foreignobject"}
        for name, value in one.attributes.items():
            assert not name.startswith("on"), (one.name, name)
            if name in WITH_ADDRESS:
                assert one.name == "a" and (value or "").startswith("#"), (one.name, name, value)
            assert "url(" not in (value or "") or name in {"title", "aria-label"}, (one.name, name, value)
    for style in root.all("style"):
        text = "".join(style.text)
        assert "url(" not in text and "@import" not in text and "</" not in text
    policies = [m for m in root.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and "default-src 'none'" in (policies[0].attributes["content"] or "")


def check_accessible(root: Element) -> None:
    """Headings in order, tables with captions and scopes, drawings with texts, links that lead somewhere."""
    assert root.all("html")[0].attributes.get("lang")
    assert root.all("title")[0].words()
    levels = [int(one.name[1]) for one in everything(root) if re.fullmatch(r"h[1-6]", one.name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), levels
    for table in root.all("table"):
        assert len(table.all("caption")) == 1 and table.all("caption")[0].words()
        assert table.all("th") and all(th.attributes.get("scope") for th in table.all("th"))
    for drawing in root.all("svg"):
        hidden = drawing.attributes.get("aria-hidden") == "true"
        assert hidden or (drawing.attributes.get("role") == "img" and drawing.attributes.get("aria-label"))
        assert hidden or drawing.all("title")
    ids = [one.attributes["id"] for one in everything(root) if "id" in one.attributes]
    assert len(set(ids)) == len(ids)
    assert all((a.attributes["href"] or "")[1:] in ids for a in root.all("a"))
