"""Text files in, documents out: ``.txt`` and ``.md`` (one document a file), ``.jsonl`` (one a line), also compressed.

Nothing is lost without a word: what cannot be read is refused with file and line, what is repaired is counted.

Policies
    * Text is UTF-8. A byte order mark of UTF-8, UTF-16 or UTF-32 is honoured; other encodings must be named.
    * A byte sequence that is not valid is refused (guessing turns an accent into another letter without a word).
    * A lone surrogate (the JSON escape ``\\ud800``) becomes U+FFFD, a NUL becomes a space; both are counted. A text
      with more than a tenth of NULs is refused: it is UTF-16 without a mark, or no text.
    * Blank lines and empty sentences are left out and counted; a document without a sentence is refused.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import glob
import gzip
import io
import itertools
import json
import lzma
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from largeconcept.errors import ConceptLMError, ConfigError, DataError, LanguageError, shorten
from largeconcept.types import Document

OnError = Literal["raise", "report"]
MAX_DOCUMENT_BYTES = 64 * 2**20
"""A line of JSONL or a text file larger than this is refused: a document must fit into memory several times over."""

_TEXT_SUFFIXES = (".txt", ".md")
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_COMPRESSIONS = (".gz", ".xz")
_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_VERSION = re.compile("#[a-z]{3}_[A-Z][a-z]{3}$")
_PART = re.compile(r"#\d+$")
_SOURCE_LANGUAGE = re.compile(r"(?P<family>.+?)[-_.](?P<tag>(?P<primary>[a-z]{2,3})([-_]([A-Za-z]{2}|[A-Z][a-z]{3}))?)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BROKEN_STREAM = (EOFError, OSError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not in the result: where it stood, why it was left out, and its document id where known."""

    where: str
    reason: str
    id: str | None = None


@dataclass(slots=True)
class ReadReport:
    """What reading did.

    Attributes:
        files: files opened.
        documents: documents read.
        skipped: what was refused, in reading order.
        counts: repairs and omissions by name (``nul_characters``, ``lone_surrogates``, ``blank_lines``, …).
    """

    files: int = 0
    documents: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def refuse(self, error: ConceptLMError, id: str | None = None) -> None:
        """Note a refused document or file."""
        self.skipped.append(skipped_from(error, id))


def skipped_from(error: ConceptLMError, id: str | None = None) -> Skipped:
    """Return the entry of a report that says what ``error`` says."""
    where = display(error.where) if error.where is not None else ""
    message = str(error)
    return Skipped(where, message.removeprefix(f"{where}: "), id)


def display(path: object) -> str:
    """Return a path as text that can be printed and stored, whatever bytes the file name holds."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def version_of(id: str) -> str:
    """Return the id that the versions of a document in several languages share.

    Documents as read have it. In one dataset every id is there once, so there a version that came later is
    ``id#LANGUAGE``.
    """
    return _VERSION.sub("", id)


def name_of(id: str) -> str:
    """Return what versions and parts of a document have in common; parts of ``x`` are ``x#2``, ``x#3``, …"""
    return _PART.sub("", version_of(id))


def family_of(document: Document) -> str | None:
    """Return a document's source without the language that its name may end with: packages of one work in several
    languages (``libreoffice-help-de``, ``libreoffice-help-en-us``) are one family.
    """
    source = document.source
    found = None if source is None or document.lang is None else _SOURCE_LANGUAGE.fullmatch(source)
    if found is None:
        return source
    for tag in (found["tag"], found["primary"]):
        with contextlib.suppress(LanguageError):
            if _flores(tag.replace("_", "-")) == document.lang:
                return found["family"]
    return source


def resolve_inputs(inputs: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files that ``inputs`` (files or glob patterns) name, each once, patterns in sorted order.

    Raises:
        DataError: a file is missing, a folder, not a regular file or of an unknown kind, or a pattern matches nothing.
    """
    items = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not items:
        raise DataError("no input files", expected="at least one file or pattern")
    found: dict[Path, Path] = {}
    for item in items:
        text = os.fspath(item)
        if "\0" in text or not text:
            raise DataError("not a path", where="inputs", got=repr(text))
        if os.path.lexists(text) or not glob.has_magic(text):
            matches = [text]
        else:
            matches = [m for m in _expand(text) if not Path(m).is_dir()]
            if not matches:
                raise DataError("no file matches", where=display(text))
        for match in matches:
            _check_input(Path(match))
            found.setdefault(Path(match).absolute(), Path(match))
    return list(found.values())


def _expand(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a Path refuses absolute patterns


def _check_input(path: Path) -> None:
    where = display(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError("file not found", where=where) from None
    except OSError as error:
        raise DataError("cannot read the file", where=where, got=error.strerror) from None
    if stat.S_ISDIR(mode):
        raise DataError("is a folder", where=where, expected="a file or a pattern", hint=f"try '{where}/*.jsonl'")
    if not stat.S_ISREG(mode):
        raise DataError("is not a regular file", where=where, hint="input is read more than once: save it to a file")
    if _kind(path)[0] is None:
        listed = " ".join((*_TEXT_SUFFIXES, *_LINE_SUFFIXES))
        raise DataError("unknown kind of file", where=where, expected=f"{listed}, also with .gz or .xz")


def _kind(path: Path) -> tuple[str | None, str | None]:
    """Return (``"text"`` | ``"lines"`` | None, compression)."""
    suffixes = [s.lower() for s in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else None
    last = suffixes[-1] if suffixes else ""
    kind = "text" if last in _TEXT_SUFFIXES else "lines" if last in _LINE_SUFFIXES else None
    return kind, compression


def read_documents(
    inputs: str | Path | Sequence[str | Path],
    lang: str | None = None,
    on_error: OnError = "raise",
    *,
    encoding: str = "utf-8",
    report: ReadReport | None = None,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    on_file: Callable[[Path], None] | None = None,
) -> Iterator[Document]:
    """Read documents in a fixed order: files as given (patterns sorted), lines in order. Memory holds one document.

    A JSONL line is an object with ``sentences`` (or ``sents``), or else ``text``; optional ``id``, ``lang``, ``title``,
    ``summary``, ``source`` (or ``src``), ``paragraph_starts``, ``target_sentences``, ``plans`` (a sentence
    for each paragraph). Other fields are not read.

    Args:
        inputs: files or glob patterns.
        lang: language of documents that do not say theirs.
        on_error: ``"raise"`` stops at the first thing that cannot be read; ``"report"`` notes it in ``report`` and
            goes on.
        encoding: of files without a byte order mark.
        report: is filled while reading.
        max_document_bytes: a longer line (or text file) is refused.
        on_file: called with each file after it was read.

    Raises:
        DataError: with file and line; always for missing or unknown files, else as ``on_error`` says.
        ConfigError: an unknown encoding or ``on_error``.
        LanguageError: ``lang`` is unknown.
    """
    if on_error not in ("raise", "report"):
        raise ConfigError("unknown choice", where="on_error", got=on_error, expected="raise or report")
    try:
        utf8 = codecs.lookup(encoding).name in ("utf-8", "ascii")
    except LookupError:
        raise ConfigError("unknown encoding", where="encoding", got=encoding, hint="for example latin-1") from None
    if lang is not None:
        lang = _flores(lang)
    reader = _Reader(lang, on_error, "utf-8" if utf8 else encoding, report or ReadReport(), max_document_bytes)
    for path in resolve_inputs(inputs):
        yield from reader.read(path)
        if on_file is not None:
            on_file(path)


@functools.lru_cache(maxsize=1024)
def _flores(code: str) -> str:
    from largeconcept.languages import flores

    return flores(code)


class _Reader:
    def __init__(self, lang: str | None, on_error: OnError, encoding: str, report: ReadReport, limit: int) -> None:
        self.lang, self.on_error, self.encoding, self.report, self.limit = lang, on_error, encoding, report, limit

    def read(self, path: Path) -> Iterator[Document]:
        """Yield the documents of one file; errors go where ``on_error`` says."""
        kind, compression = _kind(path)
        where = display(path)
        self.report.files += 1
        line = 0
        try:
            with _open(path, compression) as stream:
                if not stream.peek(1):
                    raise DataError("the file is empty", where=where)
                documents = self._text(stream, path) if kind == "text" else self._lines(stream, path)
                for line, item in documents:  # noqa: B007 - the handlers below name the line
                    if isinstance(item, DataError):
                        self._refuse(item)
                    elif item is not None:
                        self.report.documents += 1
                        yield item
        except DataError as error:
            self._refuse(error)
        except UnicodeError as error:
            place = f"{where}:{line + 1}" if kind == "lines" else where
            self._refuse(DataError(f"not valid text ({_short(error)}); the rest of the file is not read", where=place))
        except _BROKEN_STREAM as error:
            place = f"{where}:{line + 1}" if kind == "lines" else where
            self._refuse(_broken(error, place, compression))

    def _refuse(self, error: DataError) -> None:
        if self.on_error == "raise":
            raise error from None
        self.report.refuse(error)

    def _encoding(self, stream: io.BufferedReader) -> str:
        head = stream.peek(4)[:4]
        for mark, name in _MARKS:
            if head.startswith(mark):
                return name
        return self.encoding

    def _text(self, stream: io.BufferedReader, path: Path) -> Iterator[tuple[int, Document | DataError | None]]:
        where = display(path)
        encoding = self._encoding(stream)
        data = stream.read(self.limit + 1)
        if len(data) > self.limit:
            yield 1, _too_long(where, self.limit)
            return
        try:
            text = data.decode(encoding)
        except UnicodeError as error:
            yield 1, _not_text(f"{where}:{_line_of(data, error)}", encoding, error)
            return
        try:
            text = self._clean(text, where)
            if not text.strip():
                raise DataError("the document has no text", where=where)
            yield 1, Document(id=display(path.name), text=text, lang=self.lang, where=where)
        except DataError as error:
            yield 1, error

    def _lines(self, stream: io.BufferedReader, path: Path) -> Iterator[tuple[int, Document | DataError | None]]:
        encoding = self._encoding(stream)
        where = display(path)
        found = False
        for number, line in _split(stream, encoding, self.limit):
            place = f"{where}:{number}"
            if line is None:
                found = True
                yield number, _too_long(place, self.limit)
                continue
            try:
                text = line if isinstance(line, str) else line.decode("utf-8")
                if not text.strip():
                    self.report.counts["blank_lines"] += 1
                    yield number, None
                    continue
                found = True
                yield number, self._document(text, place, f"{display(path.name)}:{number}")
            except UnicodeDecodeError as error:
                yield number, _not_text(place, "utf-8", error)
                found = True
            except DataError as error:
                yield number, error
        if not found:
            raise DataError("the file has no documents", where=where)

    def _document(self, line: str, where: str, default_id: str) -> Document:
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            if line.count("\0") * 10 > len(line):
                raise _binary(where) from None
            problem = f"not valid JSON ({error.msg} at column {error.colno})"
            raise DataError(problem, where=where, got=line[max(0, error.pos - 20) : error.pos + 20]) from None
        except (ValueError, RecursionError) as error:
            raise DataError("not valid JSON", where=where, got=type(error).__name__) from None
        if not isinstance(data, dict):
            raise DataError("not a JSON object", where=where, expected="an object a line", got=type(data).__name__)
        sentences, starts, alive = self._sentences(data, where)
        text = self._string(data, "text", where)
        if not sentences and (text is None or not text.strip()):
            names = [n for n in ("sentences", "sents", "text") if data.get(n) is not None]
            if names:
                raise DataError("the document has no sentence", where=where)
            known = shorten(", ".join(map(str, data)) or "no field")
            raise DataError("the document has no text", where=where, expected="text, sents or sentences", got=known)
        target = self._string_list(data, "target_sentences", where)
        if target is not None:
            target = [s for s in target if s.strip()]
        plans = self._string_list(data, "plans", where)
        if plans is not None and len(plans) == len(alive):
            plans = [plan for plan, kept in zip(plans, alive) if kept]
        lang = self._string(data, "lang", where)
        return Document(
            id=self._id(data, where) or default_id,
            text="" if sentences else text or "",
            sentences=tuple(sentences),
            lang=self._language(lang, where) if lang else self.lang,
            paragraph_starts=starts,
            target_sentences=tuple(target) if target else None,
            title=self._string(data, "title", where),
            summary=self._string(data, "summary", where),
            source=self._string(data, "source", where) or self._string(data, "src", where),
            plans=None if plans is None else tuple(plans),
            where=where,
        )

    def _sentences(self, data: dict[str, Any], where: str) -> tuple[list[str], tuple[int, ...], list[bool]]:
        """Return the sentences that are not empty, paragraph starts that fit them, and which paragraphs are left."""
        given = self._string_list(data, "sentences", where)
        other = self._string_list(data, "sents", where)
        if given is not None and other is not None and given != other:
            raise DataError("sents and sentences differ", where=where, hint="keep one of them")
        sentences = given if given is not None else other
        if sentences is None:
            return [], (0,), []
        starts = data.get("paragraph_starts")
        if starts is None:
            starts = [0]
        elif (
            not isinstance(starts, list)
            or not all(type(s) is int for s in starts)
            or starts[:1] != [0]
            or any(a >= b for a, b in itertools.pairwise(starts))
            or (len(starts) > 1 and starts[-1] >= len(sentences))
        ):
            expected = "rising indices of sentences, the first one 0"
            raise DataError("wrong paragraph_starts", where=where, expected=expected, got=starts)
        kept = [s for s in sentences if s.strip()]
        dropped = len(sentences) - len(kept)
        alive = [True] * len(starts)
        if dropped:
            self.report.counts["empty_sentences"] += dropped
            before = [0]  # number of kept sentences before each index
            for sentence in sentences:
                before.append(before[-1] + bool(sentence.strip()))
            ends = [*starts[1:], len(sentences)]
            alive = [before[start] < before[end] for start, end in zip(starts, ends)]
            starts = [before[start] for start, kept in zip(starts, alive) if kept] or [0]
        return kept, tuple(starts), alive

    def _string(self, data: dict[str, Any], name: str, where: str) -> str | None:
        value = data.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise DataError("wrong type", where=f"{where}: {name}", expected="a string", got=type(value).__name__)
        return self._clean(value, f"{where}: {name}")

    def _string_list(self, data: dict[str, Any], name: str, where: str) -> list[str] | None:
        value = data.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            got = type(value).__name__
            raise DataError("wrong type", where=f"{where}: {name}", expected="a list of strings", got=got)
        for index, item in enumerate(value):
            if not isinstance(item, str):
                place, got = f"{where}: {name}[{index}]", type(item).__name__
                raise DataError("wrong type", where=place, expected="a string", got=got)
        return [self._clean(item, f"{where}: {name}") for item in value]

    def _id(self, data: dict[str, Any], where: str) -> str | None:
        value = data.get("id")
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                return str(value)
            except ValueError:
                raise DataError("the number is too long", where=f"{where}: id") from None
        text = self._string(data, "id", where)
        return text if text is not None and text.strip() else None

    def _language(self, code: str, where: str) -> str:
        try:
            return _flores(code)
        except LanguageError as error:
            raise DataError("unknown language", where=f"{where}: lang", got=code, hint=error.hint) from None

    def _clean(self, text: str, where: str) -> str:
        """Replace what no encoder and no file format can hold, and count it."""
        if "\0" in text:
            count = text.count("\0")
            if count * 10 > len(text):
                raise _binary(where)
            self.report.counts["nul_characters"] += count
            text = text.replace("\0", " ")
        if text.isascii():
            return text
        text, count = _SURROGATE.subn("\ufffd", text)
        if count:
            self.report.counts["lone_surrogates"] += count
        return text


def _open(path: Path, compression: str | None) -> io.BufferedReader:
    if compression == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"))
    if compression == ".xz":
        return io.BufferedReader(lzma.open(path, "rb"))
    return path.open("rb")


def _split(stream: IO[bytes], encoding: str, limit: int) -> Iterator[tuple[int, str | bytes | None]]:
    """Yield (line number from 1, line); a line over ``limit`` gives ``None``.

    UTF-8 stays bytes: a newline is found without decoding, so one bad line costs that line alone.
    """
    source: IO[Any] = stream
    end: str | bytes = b"\n"
    if encoding == "utf-8-sig":
        stream.read(len(codecs.BOM_UTF8))
    elif encoding != "utf-8":
        source = io.TextIOWrapper(stream, encoding, newline="\n")
        end = "\n"
    number = 0
    while line := source.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            yield number, line
            continue
        while line and not line.endswith(end):
            line = source.readline(2**20)
        yield number, None


def _too_long(where: str, limit: int) -> DataError:
    return DataError("the document is too long", where=where, expected=f"at most {limit} bytes", hint="split it")


def _binary(where: str) -> DataError:
    return DataError(
        "more than a tenth of the characters are NUL", where=where, hint="UTF-16 without a mark? convert it to UTF-8"
    )


def _line_of(data: bytes, error: UnicodeError) -> int:
    return data.count(b"\n", 0, error.start) + 1 if isinstance(error, UnicodeDecodeError) else 1


def _short(error: UnicodeError) -> str:
    return f"{error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)


def _not_text(where: str, encoding: str, error: UnicodeError) -> DataError:
    problem = f"not valid {encoding.upper().removesuffix('-SIG')} ({_short(error)})"
    return DataError(problem, where=where, hint="convert the file, or name its encoding (for example latin-1)")


def _broken(error: Exception, where: str, compression: str | None) -> DataError:
    if compression is None or (isinstance(error, OSError) and error.errno is not None):
        return DataError("cannot read the file", where=where, got=getattr(error, "strerror", None) or error)
    problem = f"the {compression} stream is truncated or damaged; what follows is not read"
    return DataError(problem, where=where, got=error, hint="fetch the file again")
