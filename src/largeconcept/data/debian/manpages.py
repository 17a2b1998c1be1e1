"""Manual pages (roff with the ``man`` or ``mdoc`` macros) as paragraphs of running text."""

from __future__ import annotations

import re

from largeconcept.data.debian.text import Page, tidy

_SPECIAL = {
    "-": "-", "aq": "'", "em": "—", "en": "–", "hy": "-", "bu": "•", "lq": "“", "rq": "”", "oq": "‘", "cq": "’",
    "dq": '"', "co": "©", "rg": "®", "tm": "™", "ga": "`", "ha": "^", "ti": "~", "rs": "\\", "Fo": "«", "Fc": "»",
    "->": "→", "<-": "←", ">=": "≥", "<=": "≤", "mu": "×", "ss": "ß", "ae": "æ", "AE": "Æ", "Bq": "„", "sq": "'",
    ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "'e": "é", "`e": "è", "'a": "á", "`a": "à",
    "'o": "ó", "'u": "ú", "'i": "í", "~n": "ñ", ",c": "ç", "^e": "ê", "^a": "â", "^o": "ô", "^u": "û", "^i": "î",
}  # fmt: skip
_GROUP = re.compile(r"\\[(](..)|\\\[([^\]]*)\]")
_UNICODE = re.compile(r"u([0-9A-Fa-f]{4,6})$")
_FONT = re.compile(
    r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[+-]?\d{1,2}|\\[&|^%:,/)!a]|\\[*n](?:\[[^\]]*\]|\(..|.)|\\[mF]\[[^\]]*\]"
)
_COMMENT = re.compile(r'\\["#].*$')
_REQUEST = re.compile(r"^[.']\s*([A-Za-z]+)\s*(.*)$")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_NAME_LINE = re.compile(r"^[\w.,:+@ /-]{1,120}?\s[-—–]+\s(.{3,})$")

_BREAKS_NAMES = """
PP P LP TP IP SH SS Sh Ss RS RE Pp It TQ HP sp br TE El Bl D1 Dl UR MT
"""
_BREAKS = frozenset(_BREAKS_NAMES.split())
_VERBATIM = {"nf": "fi", "EX": "EE", "TS": "TE", "Bd": "Ed", "EQ": "EN", "PS": "PE", "de": ".", "ig": "."}
_JOINED_NAMES = """
BR IR RB RI BI IB
"""
_JOINED = frozenset(_JOINED_NAMES.split())
_SPACED_NAMES = """
B I SM SB Nm Ar Fl Cm Xr Em Li Va Fn Pa Ev Sy Dv Er Nd Dq Sq Ql
"""
_SPACED = frozenset(_SPACED_NAMES.split())


def unescape(text: str) -> str:
    """Return a line of roff as plain text: fonts and spacing dropped, named characters replaced."""
    text = _COMMENT.sub("", text)
    text = text.replace("\\\\", "\\e").replace("\\-", "-").replace("\\~", " ").replace("\\ ", " ").replace("\\0", " ")
    text = _FONT.sub("", text)
    text = _GROUP.sub(_named, text)
    text = text.replace("\\'", "´").replace("\\`", "`")
    return re.sub(r"\\(.?)", lambda m: "\\" if m.group(1) == "e" else m.group(1), text)


def _named(match: re.Match[str]) -> str:
    name = match.group(1) or match.group(2) or ""
    point = _UNICODE.match(name)
    if point is not None:
        code = int(point.group(1), 16)
        return chr(code) if code < 0x110000 else ""
    return _SPECIAL.get(name, "")


def _arguments(rest: str) -> list[str]:
    return [unescape(quoted.replace('""', '"') if quoted else bare) for quoted, bare in _ARGUMENT.findall(rest)]


def parse_man(text: str) -> Page:
    """Return the running text of a manual page; the summary is what follows the dash in the NAME section.

    Tables, examples without filling and displays are dropped, because they are not running text.
    """
    paragraphs: list[str] = []
    current: list[str] = []
    until: str | None = None  # the request that ends a verbatim block

    def flush() -> None:
        said = tidy(" ".join(current))
        current.clear()
        if said:
            paragraphs.append(said)

    title: str | None = None
    for line in text.splitlines():
        match = _REQUEST.match(line) if line[:1] in {".", "'"} else None
        if until is not None:
            if (match is not None and match.group(1) == until) or (until == "." and line.startswith("..")):
                until = None
            continue
        if match is None:
            if line[:1] in {".", "'"}:
                continue
            if line.strip():
                current.append(unescape(line))
            else:
                flush()
            continue
        name, rest = match.groups()
        if name in _VERBATIM:
            flush()
            until = _VERBATIM[name]
        elif name in {"TH", "Dt"}:
            arguments = _arguments(rest)
            title = tidy(arguments[0]).lower() if arguments else None
        elif name in _BREAKS:
            flush()
        elif name in _JOINED:
            current.append("".join(_arguments(rest)))
        elif name in _SPACED:
            current.append(" ".join(_arguments(rest)))
    flush()
    return Page(title or None, _summary(paragraphs), tuple(paragraphs))


def _summary(paragraphs: list[str]) -> str | None:
    for said in paragraphs[:3]:
        match = _NAME_LINE.match(said) if len(said) < 240 else None
        if match is not None:
            return match.group(1)
    return None
