"""Pages of HTML, Mallard and DocBook as title, summary and paragraphs. Pure; hostile input gives few paragraphs.

Both readers walk the tree once, without recursion, and collect inline text until a block begins or ends. Code, tables
of references, navigation and everything else that is not running text is passed over.
"""

from __future__ import annotations

import html
import html.entities
import re
from collections.abc import Mapping
from typing import Any

from largeconcept.data.debian.text import Page, tidy
from largeconcept.errors import missing_extra

_EMPTY = Page(None, None, ())
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_DOCTYPE = re.compile(r"<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", re.DOTALL)
_ENTITY_DEFINITION = re.compile(r'<!ENTITY\s+([\w.-]+)\s+"([^"<]*)"')
_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);|#)([A-Za-z0-9._-]+);")
_NUMBER = re.compile(r"&#(?:[xX]([0-9A-Fa-f]+)|([0-9]+));?")
_ENTITIES = {
    "kde": "KDE", "Linux": "Linux", "UNIX": "UNIX", "Qt": "Qt", "Windows": "Windows", "plasma": "Plasma",
    "eg": "e.g.", "ie": "i.e.", "etc": "etc.", "LMB": "left mouse button", "RMB": "right mouse button",
    "MMB": "middle mouse button", "Ctrl": "Ctrl", "Alt": "Alt", "Shift": "Shift", "Enter": "Enter",
}  # fmt: skip

_PARAGRAPHS = frozenset({"p", "para", "simpara"})
_SKIPPED_NAMES = """
programlisting screen synopsis cmdsynopsis funcsynopsis indexterm remark comment footnote media mediaobject figure
informaltable table simplelist screenshot screenshots legalnotice revhistory authorgroup copyright credit license
years keyword keywordset
"""
_SKIPPED = frozenset(_SKIPPED_NAMES.split())
_HEADS = frozenset({"info", "bookinfo", "articleinfo"})
_INLINE_CODE = frozenset({"code"})
_SEQUENCES = {"menuchoice": " ▸ ", "guiseq": " ▸ ", "keyseq": "+", "keycombo": "+"}

_HTML_DROPPED = (
    "//script|//style|//pre|//nav|//header|//footer|//aside|//noscript|//form|//svg|//*[@hidden and @class]"
    "|//*[contains(concat(' ', @class, ' '), ' debug ') or contains(concat(' ', @class, ' '), ' navheader ')"
    " or contains(concat(' ', @class, ' '), ' navfooter ') or contains(concat(' ', @class, ' '), ' toc ')"
    " or contains(concat(' ', @class, ' '), ' noteicon ') or contains(concat(' ', @class, ' '), ' programlisting ')"
    " or contains(concat(' ', @class, ' '), ' headerlink ') or contains(concat(' ', @class, ' '), ' sphinxsidebar ')"
    " or contains(concat(' ', @class, ' '), ' related ') or contains(concat(' ', @class, ' '), ' highlight ')]"
)
_HTML_BLOCKS_NAMES = """
address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure h1 h2 h3 h4 h5
h6 hr li main ol p section table tbody td tfoot th thead tr ul
"""
_HTML_BLOCKS = frozenset(_HTML_BLOCKS_NAMES.split())
_HTML_TEXT = frozenset({"p", "li", "dd", "blockquote", "div", "section", "body", "article", "main", "center"})
_HTML_HEADS = frozenset({"h1", "h2", "h3", "h4"})


def _lxml() -> Any:
    try:
        from lxml import etree
    except ImportError:
        raise missing_extra("lxml", "corpus") from None
    return etree


def parse_xml(text: str, entities: Mapping[str, str] | None = None) -> Page:
    """Return the running text of a Mallard page or a DocBook file.

    Args:
        text: the file.
        entities: names that the file's unread external definitions would resolve, with their text.
    """
    etree = _lxml()
    known = {**_ENTITIES, **dict(_ENTITY_DEFINITION.findall(text)), **(entities or {})}
    text = _DOCTYPE.sub("", _DECLARATION.sub("", text), count=1)
    text = _ENTITY.sub(lambda m: html.escape(_resolve(m.group(1), known)), text)
    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(_sound_numbers(text).encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError):
        return _EMPTY
    return _EMPTY if root is None else _XmlWalk(etree).read(root)


def _sound_numbers(text: str) -> str:
    """Return text whose character references all name characters (a surrogate's would break the tree's text)."""

    def check(match: re.Match[str]) -> str:
        hexadecimal, decimal = match.groups()
        digits = (hexadecimal or decimal).lstrip("0")
        code = int(digits or "0", 16 if hexadecimal else 10) if len(digits) < 8 else 0
        return match.group() if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else " "

    return _NUMBER.sub(check, text)


def _resolve(name: str, known: Mapping[str, str]) -> str:
    if name in known:
        return known[name]
    return html.unescape(f"&{name};") if f"{name};" in html.entities.html5 else name


class _XmlWalk:
    """One pass over a Mallard or DocBook tree."""

    def __init__(self, etree: Any) -> None:
        self._etree = etree
        self._title: str | None = None
        self._summary: str | None = None
        self._out: list[str] = []
        self._buffer: list[str] = []
        self._depth = 0  # inside how many paragraphs

    def read(self, root: Any) -> Page:
        skipped: Any = None
        heads = 0
        for event, node in self._etree.iterwalk(root, events=("start", "end")):
            if skipped is not None:
                if event == "end" and node is skipped:
                    skipped = None
                    self._add(node.tail)
                continue
            if not isinstance(node.tag, str):
                if event == "end":
                    self._add(node.tail)
                continue
            name = node.tag.rpartition("}")[2]
            if event == "start":
                skipped = self._start(node, name, heads)
                heads += name in _HEADS and skipped is None
            else:
                heads -= name in _HEADS
                self._end(node, name)
        return Page(self._title, self._summary, tuple(self._out))

    def _start(self, node: Any, name: str, heads: int) -> Any:
        if name in {"title", "desc"}:
            if name == "title" and self._title is None:
                self._title = self._plain(node)
            if name == "desc" and self._summary is None and heads:
                self._summary = self._plain(node)
            return node
        if name in _SKIPPED or (name in _INLINE_CODE and not self._depth):
            return node
        if name in _PARAGRAPHS and not heads:
            self._flush()
            self._depth += 1
        parent = node.getparent()
        between = _SEQUENCES.get(parent.tag.rpartition("}")[2]) if parent is not None else None
        if between and node.getprevious() is not None and name not in {"shortcut"}:
            self._add(between)
        self._add(node.text)
        return None

    def _end(self, node: Any, name: str) -> None:
        if name in _PARAGRAPHS and self._depth:
            self._flush()
            self._depth -= 1
        parent = node.getparent()
        in_sequence = parent is not None and isinstance(parent.tag, str) and parent.tag.rpartition("}")[2] in _SEQUENCES
        if not in_sequence:  # white space between the items of a menu path is layout
            self._add(node.tail)

    def _plain(self, node: Any) -> str | None:
        return tidy("".join(t for t in node.itertext() if t)) or None

    def _add(self, text: str | None) -> None:
        if text and self._depth:
            self._buffer.append(text)

    def _flush(self) -> None:
        text = tidy("".join(self._buffer))
        self._buffer.clear()
        if text:
            self._out.append(text)


def parse_html(text: str, root_id: str | None = None) -> Page:
    """Return the running text of an HTML page.

    Args:
        text: the page.
        root_id: read only the element with this id, if the page has it.
    """
    etree = _lxml()
    from lxml import html as lxml_html

    text = _sound_numbers(_DECLARATION.sub("", text).replace("\x00", " "))
    try:
        root = lxml_html.document_fromstring(text.encode("utf-8", "replace"), parser=_html_parser(lxml_html))
    except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError):
        return _EMPTY
    for node in root.xpath(_HTML_DROPPED):
        if node.getparent() is not None:
            node.drop_tree()
    if root_id is not None:
        found = root.xpath("//*[@id=$id]", id=root_id)
        root = found[0] if found else root
    title: str | None = None
    out: list[str] = []
    buffer: list[str] = []
    blocks: list[str] = []

    def flush() -> None:
        nonlocal title
        said = tidy("".join(buffer))
        buffer.clear()
        block = blocks[-1] if blocks else "body"
        if block in _HTML_HEADS:
            title = title or said or None
        elif said and block in _HTML_TEXT:  # whatever its length, so that translations keep the same paragraphs
            out.append(said)

    for event, node in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        if not isinstance(node.tag, str):
            buffer.append(node.tail or "")
            continue
        if node.tag in {"head", "title"}:
            continue
        if node.tag == "br" and event == "start":
            buffer.append(" ")
        if node.tag in _HTML_BLOCKS:
            flush()
            if event == "start":
                blocks.append(node.tag)
            elif blocks:
                blocks.pop()
        if event == "start":
            buffer.append(node.text or "")
        elif node is not root:
            buffer.append(node.tail or "")
    flush()
    return Page(title, None, tuple(out))


def _html_parser(lxml_html: Any) -> Any:
    return lxml_html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False)
