"""What the verbs share: reading texts, printing results, progress on a terminal and log lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.errors import ConfigError, DataError

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec, Document, Segmenter

_OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Text files, or - for standard input (the default); sound (.wav, .flac, .ogg) where a codec is at work.",
    ),
]
Texts = Annotated[list[str] | None, typer.Option("--text", "-t", help="A text itself; may be repeated.")]
InputLang = Annotated[
    str | None, typer.Option("--input-lang", help="Language of the input, written or spoken, as eng_Latn or en.")
]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON lines.")]
PipelinePath = Annotated[
    str | None,
    typer.Option("--pipeline", "-p", help="A saved pipeline: folder or hub id. Default: the one that ships."),
]
Codec = Annotated[
    str,
    typer.Option("--codec", "-c", help="A codec: starter, the folder of a saved one, sonar:FOLDER or external:NAME."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, … Default: an accelerator if there is one.")]
Beams = Annotated[int, typer.Option("--beams", min=1, help="Width of the beam when writing sentences; 1 is greedy.")]


def echo(text: str) -> None:
    """Print a line of output."""
    typer.echo(text)


def log(text: str) -> None:
    """Print a line about the work on standard error."""
    typer.echo(text, err=True)


def echo_json(value: Any) -> None:
    """Print ``value`` as one line of JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def read_bytes(name: str) -> bytes:
    """Read a file, or standard input for ``-``.

    Raises:
        DataError: missing, a folder, or not readable.
    """
    if name == "-":
        buffer: IO[bytes] | None = getattr(sys.stdin, "buffer", None)
        return buffer.read() if buffer is not None else sys.stdin.read().encode()
    path = Path(name)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("file not found", where=name, hint="to give the text itself, use --text") from None
    except OSError as error:
        raise DataError("cannot be read", where=name, got=error.strerror or error) from None


def read_text(name: str) -> str:
    """Read UTF-8 text from a file or standard input.

    Raises:
        DataError: missing, or not UTF-8; names the byte.
    """
    data = read_bytes(name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}",
            where="standard input" if name == "-" else name,
            hint="convert it, for example with iconv",
        ) from None


def read_inputs(
    inputs: Sequence[str] | None,
    texts: Sequence[str] | None,
    lang: str | None,
    listen: Callable[[str], Document] | None = None,
) -> list[Document]:
    """Return what the user named: texts given as such, files of one text, .jsonl files of many, or sound.

    Args:
        inputs: names of files.
        texts: texts themselves.
        lang: their language.
        listen: reads a sound file; without it they are refused.

    Raises:
        DataError: no input at all, or one that cannot be read.
    """
    from largeconcept.codec.speech.audio import is_sound
    from largeconcept.types import Document

    documents = [Document(id=f"text {i}" if i else "text", text=text, lang=lang) for i, text in enumerate(texts or ())]
    names = list(inputs or ())
    if not names and not documents:
        if sys.stdin.isatty():
            raise DataError("nothing to read", expected="a file, - for standard input, or --text TEXT")
        names = ["-"]
    for name in names:
        suffixes = Path(name).suffixes
        if name != "-" and {".jsonl", ".gz", ".xz"} & set(suffixes):
            from largeconcept.data.documents import read_documents

            read_bytes(name) if not Path(name).is_file() else None
            documents += read_documents([name], lang=lang)
        elif name != "-" and is_sound(name):
            read_bytes(name) if not Path(name).is_file() else None
            if listen is None:
                raise DataError("sound, where text is read", where=name, hint="generate, translate and encode hear it")
            documents.append(listen(name))
        else:
            documents.append(Document(id="stdin" if name == "-" else name, text=read_text(name), lang=lang))
    return documents


def segmenter_and_codec(pipeline: str | None, codec: str) -> tuple[Segmenter, ConceptCodec]:
    """Return the two parts that turn texts into concepts: a saved pipeline's, or the codec named.

    Raises:
        CheckpointError: missing, damaged, or of a later format.
    """
    if pipeline is not None:
        from largeconcept.hub import load_pipeline

        parts = load_pipeline(pipeline)
        return parts.segmenter, parts.codec
    from largeconcept.codec import load_codec
    from largeconcept.segment import build_segmenter

    return build_segmenter(None), load_codec(codec)


def key_values(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Return ``key=value`` options as data; values are read as YAML.

    Raises:
        ConfigError: no ``=``.
    """
    from largeconcept.config import parse_yaml

    result = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError("not an option", got=pair, expected="key=value")
        result[key.strip()] = parse_yaml(value, key)
    return result


class Progress:
    """Progress of one piece of work: a bar on a terminal, a line every few seconds otherwise.

    Args:
        what: a few words.
        total: number of units, if known.
        unit: their name.
        every: seconds between log lines.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "", every: float = 10.0) -> None:
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[note]}"),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None = None, unit: str | None = None, note: str = "") -> None:
        """Report that ``done`` units are finished; another unit than before begins another phase."""
        now = time.monotonic()
        if unit is not None and unit != self.unit:
            if self.unit:
                self._start = self._last = now
                if self._bar is not None:
                    self._bar.reset(self._task)
            self.unit = unit
        self.total = self.total if total is None else total
        elapsed = now - self._start
        rate = done / elapsed if elapsed > 0.2 else 0.0  # the first moment of a phase says nothing
        if self._bar is not None:
            note = "  ".join(part for part in (f"{self.unit} {rate:,.0f}/s" if rate else self.unit, note) if part)
            self._bar.update(self._task, completed=done, total=self.total, note=note)
        elif now - self._last >= self.every:
            self._last = now
            of = f" of {self.total:,}" if self.total else ""
            left = f", {max(self.total - done, 0) / rate:,.0f} s left" if self.total and rate > 0 else ""
            log(f"{self.what}: {done:,}{of} {self.unit}, {rate:,.0f}/s{left}{'  ' + note if note else ''}")


@contextlib.contextmanager
def progress(what: str, total: int | None = None, unit: str = "") -> Iterator[Callable[..., None]]:
    """Yield ``update(done, total=None, unit=None, note="")`` for a piece of work."""
    with Progress(what, total, unit) as bar:
        yield bar.update


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate names of files from ``key.path=value`` settings; what exists as a file is a file."""
    overrides = [one for one in arguments if _OVERRIDE.match(one) and not Path(one).exists()]
    return [one for one in arguments if one not in overrides], overrides


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in [header, *rows]
    ]
