"""Rebuild the multilingual corpus from Debian packages, reproducibly and resumably.

Stages, each of which is skipped when its result is in the cache: indexes (``apt-get update`` in a private tree),
download (checked against the signed index), extraction (one file of rows a part), assembly (sorted documents and pairs,
then the manifest). A stage writes to a temporary file and renames it: nothing is ever half-written.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import lzma
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from largeconcept.data.debian.apt import AptTree, IndexFile, Package, find_mirror, need_tool, sha256_of
from largeconcept.data.debian.assemble import Assembler, Counts, read_split, split_row
from largeconcept.data.debian.manifest import (
    FORMAT_VERSION,
    check_pin,
    copyright_of,
    describe,
    licences_in,
    tool_versions,
)
from largeconcept.data.debian.parts import Part, choose_parts
from largeconcept.data.debian.readers import Material, read_part
from largeconcept.data.debian.text import DEFAULT_LANGUAGES, language_of
from largeconcept.errors import ConceptLMError, ConfigError, DataError, DependencyError, LanguageError, missing_extra
from largeconcept.io import atomic_path, atomic_write_text, read_json, write_json
from largeconcept.languages import flores

Progress = Callable[[int, int, str], object]
"""Called with (done, total, unit): packages, then parts."""

EXTRACTION = 1
"""Raised when a reader or a parser changes its result: rows in an older cache are then made again."""
_ROOM = 1.3
"""Free disk space wanted, as a multiple of what is to be downloaded."""
_PYTHON_TOOLS = frozenset({"lxml", "rdata"})
_TWO_SPELLINGS = {"por_Latn": ("pt", "pt-BR"), "zho_Hans": ("zh-CN",), "zho_Hant": ("zh-TW",)}


@dataclass(slots=True)
class PartReport:
    """Counts of one part."""

    documents: int = 0
    sentences: int = 0
    pairs: int = 0
    packages: int = 0
    absent: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CorpusReport:
    """What a build made.

    Attributes:
        out: the folder, with ``documents.jsonl.xz``, ``pairs.tsv.xz``, ``manifest.json`` and ``licences/``.
        documents, sentences, pairs, summaries: totals.
        parts: counts by part; ``absent`` names packages that the suites do not have.
        languages: counts by language: documents, sentences, pairs, summaries.
        skipped: parts left out because the user allowed it, with the reason.
        seconds: wall time.
    """

    out: Path
    documents: int
    sentences: int
    pairs: int
    summaries: int
    parts: dict[str, PartReport]
    languages: dict[str, dict[str, int]]
    skipped: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**dataclasses.asdict(self), "out": str(self.out)}


def build_corpus(
    out: str | Path,
    *,
    cache: str | Path | None = None,
    suites: Sequence[str] = ("bookworm", "trixie"),
    parts: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    lean: bool = True,
    progress: Progress | None = None,
    mirror: str | None = None,
    keyring: str | None = None,
    skip_missing: bool = False,
    pin: str | Path | None = None,
) -> CorpusReport:
    """Build the corpus in ``out``; a build that was stopped goes on where it was when called again.

    Args:
        out: folder of the result; files of an earlier build in it are replaced when the new ones are complete.
        cache: folder for indexes, packages and rows; by default ``out/cache``. It may be deleted afterwards.
        suites: Debian suites. Books and programs come from the first that has them, descriptions from all.
        parts: names of :data:`~largeconcept.data.debian.parts.PARTS`; by default all.
        languages: BCP-47 or FLORES-200 codes of the documents wanted; by default 18 languages. English is read in any
            case, to align the others with it.
        lean: leave out parts with little text for their size; has no effect when ``parts`` are named.
        progress: called with (done, total, unit).
        mirror: address of a Debian mirror; by default the one in this machine's own apt sources.
        keyring: file with the keys that sign the suites; by default Debian's own keyring, where installed.
        skip_missing: leave out parts whose tools or packages are missing, instead of refusing.
        pin: manifest of an earlier build whose packages must be met exactly.

    Raises:
        ConfigError: an unknown part, language, suite; no mirror for the suites; a name that cannot be used.
        DependencyError: a tool is missing; names the part and what to install.
        DataError: an index, a package or a file of it cannot be had or read; a pinned package differs.
    """
    start = time.monotonic()
    build = _Build(Path(out), Path(cache) if cache is not None else Path(out) / "cache", suites, languages, progress)
    chosen = build.usable(choose_parts(parts, lean), skip_missing)
    build.update(find_mirror(suites, mirror, keyring), chosen)
    packages = build.plan(chosen, skip_missing)
    if pin is not None:
        check_pin(pin, packages)
    chosen = [part for part in chosen if part.name in packages]
    debs = build.download(packages)
    rows = {part.name: build.extract(part, packages[part.name], debs, rank, len(chosen))
            for rank, part in enumerate(chosen)}  # fmt: skip
    report = build.assemble(chosen, packages, debs, rows)
    report.seconds = time.monotonic() - start
    return report


def normalise_languages(languages: Sequence[str] | None) -> tuple[str, ...]:
    """Return sorted BCP-47 tags, English first, for BCP-47 or FLORES-200 codes.

    Raises:
        LanguageError: a code is not a language; suggests one.
        ConfigError: none was given.
    """
    if languages is None:
        return DEFAULT_LANGUAGES
    if isinstance(languages, str):
        languages = [name for name in languages.replace(",", " ").split() if name]
    if not languages:
        raise ConfigError("no languages", where="languages", expected="at least one code")
    found: set[str] = set()
    for code in languages:
        full = flores(code)
        if code == full:
            from largeconcept.languages import bcp47

            tags: tuple[str | None, ...] = _TWO_SPELLINGS.get(full) or (language_of(bcp47(full)),)
        else:
            tags = (language_of(code),)
        for tag in tags:
            if tag is None:
                raise LanguageError("not a language of the corpus", where="languages", got=code)
            found.add(tag)
    return tuple(sorted(found, key=lambda tag: (tag != "en", tag)))


class _Build:
    """One call of :func:`build_corpus`."""

    def __init__(
        self,
        out: Path,
        cache: Path,
        suites: Sequence[str],
        languages: Sequence[str] | None,
        progress: Progress | None,
    ) -> None:
        if isinstance(suites, str) or not suites:
            raise ConfigError("not a list of suites", where="suites", got=suites, expected="for example ['bookworm']")
        for folder in (out, cache):
            if folder.exists() and not folder.is_dir():
                raise ConfigError("is a file, not a folder", where=folder)
        self.out, self.cache = out.absolute(), cache.absolute()
        self.suites = tuple(dict.fromkeys(suites))
        self.languages = normalise_languages(languages)
        self.reading = frozenset({"en", *self.languages})
        self.skipped: dict[str, str] = {}
        self.absent: dict[str, list[str]] = {}
        self._progress = progress
        self._tree: AptTree | None = None
        self._indexes: list[IndexFile] = []

    def _tell(self, done: int, total: int, unit: str) -> None:
        if self._progress is not None:
            self._progress(done, total, unit)

    def usable(self, parts: list[Part], skip_missing: bool) -> list[Part]:
        """Return the parts whose tools are there."""
        need_tool("apt-get", "apt")
        need_tool("dpkg-deb", "dpkg")
        kept = []
        for part in parts:
            try:
                for tool in part.tools:
                    if tool not in _PYTHON_TOOLS:
                        need_tool(tool, tool, part.name)
                    elif importlib.util.find_spec(tool) is None:
                        error = missing_extra(tool, "corpus")
                        raise DependencyError(error.problem, where=f"part {part.name}", hint=error.hint)
                kept.append(part)
            except DependencyError as error:
                if not skip_missing:
                    raise DependencyError(
                        error.problem,
                        where=error.where,
                        hint=f"{error.hint}; or leave out what cannot be built (--skip-missing)",
                    ) from None
                self.skipped[part.name] = error.problem
        if not kept:
            raise DependencyError("no part can be built", got="; ".join(self.skipped.values()))
        return kept

    def update(self, mirror: Any, parts: Sequence[Part]) -> None:
        """Fetch the indexes, unless this cache has them for the same settings."""
        wants = {part.indexes for part in parts}
        translations = sorted(tag.replace("-", "_") for tag in self.reading) if "Translations" in wants else []
        settings = [self.suites, translations, "DEP-11" in wants, EXTRACTION]
        folder = self.cache / f"apt-{_key(settings)}"
        self._tree = AptTree(folder, mirror, self.suites, translations, "DEP-11" in wants)
        done = folder / "updated"
        self._tell(0, 1, "indexes")
        if not done.is_file():
            self._tree.update()
            atomic_write_text(done, "")
        self._indexes = self._tree.indexes()
        self._tell(1, 1, "indexes")

    def plan(self, parts: Sequence[Part], skip_missing: bool) -> dict[str, list[Package]]:
        """Return part -> packages."""
        assert self._tree is not None
        index = self._tree.packages()
        planned: dict[str, list[Package]] = {}
        for part in parts:
            packages = part.select(self.suites, index, self.reading)
            has = bool(packages) or any(i.kind == part.indexes for i in self._indexes)
            if has:
                planned[part.name] = packages
                self.absent[part.name] = part.absent(packages)
                continue
            problem = "the suites have none of its packages" if part.packages else "the mirror has no such index"
            if not skip_missing:
                raise DataError(
                    problem,
                    where=f"part {part.name}",
                    got=", ".join(self.suites),
                    expected=", ".join(part.packages[:4]) or part.indexes,
                    hint="name another suite, or leave out what cannot be built (--skip-missing)",
                )
            self.skipped[part.name] = problem
        if not planned:
            raise DataError("no part can be built", got="; ".join(self.skipped.values()))
        return planned

    def download(self, packages: dict[str, list[Package]]) -> dict[str, Path]:
        """Download what is missing; return package name -> file."""
        assert self._tree is not None
        wanted = list({p.name: p for some in packages.values() for p in some}.values())
        folder = self.cache / "debs"
        folder.mkdir(parents=True, exist_ok=True)
        here = sum(path.stat().st_size for path in folder.glob("*.deb"))
        need = max(0, sum(p.size for p in wanted) - here)
        free = shutil.disk_usage(folder).free
        if free < need * _ROOM:
            raise DataError(
                "not enough disk space", where=folder,
                expected=f"{need * _ROOM / 2**20:,.0f} MiB", got=f"{free / 2**20:,.0f} MiB",
            )  # fmt: skip
        return self._tree.download(wanted, folder, lambda done, total: self._tell(done, total, "packages"))

    def extract(self, part: Part, packages: list[Package], debs: dict[str, Path], rank: int, total: int) -> Path:
        """Return the file with the part's rows, cut into sentences; made unless the cache has it."""
        indexes = [i for i in self._indexes if i.kind == part.indexes]
        source = [[p.name, p.sha256] for p in packages] + [[i.path.name, sha256_of(i.path)] for i in indexes]
        settings = [EXTRACTION, part.name, part.files, source, sorted(self.reading), tool_versions().get("sentencex")]
        path = self.cache / "rows" / f"{part.name}-{_key(settings)}.jsonl.gz"
        self._tell(rank, total, "parts read")
        if not path.is_file():
            material = Material([(p.name, debs[p.name]) for p in packages], indexes, self.reading, self.cache / "files")
            try:
                with atomic_path(path) as temporary, gzip_text(temporary) as file:
                    for row in read_part(part, material):
                        file.write(json.dumps(split_row(row), ensure_ascii=False) + "\n")
            except ConceptLMError as error:
                if error.where is not None:
                    raise
                raise type(error)(
                    error.problem, where=f"part {part.name}", got=error.got, expected=error.expected, hint=error.hint
                ) from None
            finally:
                shutil.rmtree(self.cache / "files", ignore_errors=True)
        self._tell(rank + 1, total, "parts read")
        return path

    def assemble(
        self, parts: Sequence[Part], packages: dict[str, list[Package]], debs: dict[str, Path], rows: dict[str, Path]
    ) -> CorpusReport:
        """Write documents, pairs, licences and, last, the manifest."""
        assembler = Assembler(self.languages)
        counts: dict[str, Counts] = {}
        self.out.mkdir(parents=True, exist_ok=True)
        names = ("documents.jsonl.xz", "pairs.tsv.xz")
        with ExitStack() as stack:
            temporary = [stack.enter_context(atomic_path(self.out / name)) for name in names]
            with lzma.open(temporary[0], "wt", encoding="utf-8", preset=6, newline="\n") as documents, lzma.open(
                temporary[1], "wt", encoding="utf-8", preset=6, newline="\n"
            ) as pairs:  # fmt: skip
                for rank, part in enumerate(parts):
                    self._tell(rank, len(parts), "parts written")
                    counts[part.name] = Counts()
                    records = map(read_split, _read_rows(rows[part.name]))
                    for kind, line in assembler.assemble(part, records, counts[part.name]):
                        (documents if kind == "document" else pairs).write(line)
            self._tell(len(parts), len(parts), "parts written")
            (self.out / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not a finished build
        described = self._licences(parts, packages, debs)
        report = self._report(parts, packages, counts)
        write_json(
            self.out / "manifest.json",
            {
                "format_version": FORMAT_VERSION,
                "suites": list(self.suites),
                "languages": list(self.languages),
                "tools": tool_versions(),
                "parts": {
                    part.name: {
                        "src": part.src,
                        "licence": part.licence,
                        "packages": described[part.name],
                        "indexes": [
                            {"kind": i.kind, "suite": i.suite, "lang": i.lang, "sha256": sha256_of(i.path)}
                            for i in self._indexes
                            if i.kind == part.indexes
                        ],
                        "absent": self.absent.get(part.name, []),
                        "documents": dict(sorted(counts[part.name].documents.items())),
                        "sentences": dict(sorted(counts[part.name].sentences.items())),
                        "pairs": dict(sorted(counts[part.name].pairs.items())),
                    }
                    for part in parts
                },
                "skipped": self.skipped,
                "outputs": {
                    name: {"bytes": (self.out / name).stat().st_size, "sha256": sha256_of(self.out / name)}
                    for name in names
                },
            },
        )
        return report

    def _licences(
        self, parts: Sequence[Part], packages: dict[str, list[Package]], debs: dict[str, Path]
    ) -> dict[str, list[dict[str, Any]]]:
        described: dict[str, list[dict[str, Any]]] = {}
        for part in parts:
            described[part.name] = []
            for package in packages[part.name]:
                known = self.cache / "copyright" / f"{package.sha256}.json"
                if not known.is_file():
                    write_json(known, copyright_of(package.name, debs[package.name]))
                text = str(read_json(known))
                if text:
                    atomic_write_text(self.out / "licences" / f"{package.name}.txt", text)
                described[part.name].append(describe(package, licences_in(text)))
        return described

    def _report(
        self, parts: Sequence[Part], packages: dict[str, list[Package]], counts: dict[str, Counts]
    ) -> CorpusReport:
        by_part, total = {}, Counts()
        for part in parts:
            one = counts[part.name]
            by_part[part.name] = PartReport(
                one.documents.total(), one.sentences.total(), one.pairs.total(), len(packages[part.name]),
                self.absent.get(part.name, []),
            )  # fmt: skip
            for name in ("documents", "sentences", "pairs", "summaries"):
                counter: Counter[str] = getattr(total, name)
                counter.update(getattr(one, name))
        languages = {
            lang: {name: getattr(total, name)[lang] for name in ("documents", "sentences", "pairs", "summaries")}
            for lang in self.languages
        }
        return CorpusReport(
            self.out, total.documents.total(), total.sentences.total(), total.pairs.total(), total.summaries.total(),
            by_part, languages, dict(self.skipped), 0.0,
        )  # fmt: skip


def _key(settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def gzip_text(path: Path) -> Iterator[TextIO]:
    """Open a gzip file for writing text; its bytes depend on the content alone (no time, no name)."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=3, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
    ):
        yield text


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise DataError("cannot read the cached rows", where=path, got=error, hint="delete the file") from None
