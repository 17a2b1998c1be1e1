"""From packages and indexes to rows: which file is read with which parser. Everything that is not pure lives here."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from largeconcept.data.debian import games, novels, sword
from largeconcept.data.debian.apt import IndexFile, need_tool, read_deb, run
from largeconcept.data.debian.descriptions import parse_appstream, parse_translations
from largeconcept.data.debian.manpages import parse_man
from largeconcept.data.debian.markup import parse_html, parse_xml
from largeconcept.data.debian.parts import Part
from largeconcept.data.debian.text import Page, Pair, Row, decode, language_of
from largeconcept.errors import DataError

_LARGEST_TEXT = 64 * 2**20
_STRINGTABLE_LANGUAGES = {"cz": "cs"}
_ENGLISH_BIBLE, _FIRST_TO_LAST = "sword-text-web", "Genesis-Revelation of John"


@dataclass(frozen=True, slots=True)
class Material:
    """What a reader gets.

    Attributes:
        debs: (package, file) in a fixed order.
        indexes: index files of the kind the part asked for.
        languages: BCP-47 tags to read; others are passed over as early as possible.
        folder: a scratch folder for programs that want files.
    """

    debs: Sequence[tuple[str, Path]]
    indexes: Sequence[IndexFile]
    languages: frozenset[str]
    folder: Path


def read_part(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Yield what the packages or indexes of a part hold.

    Raises:
        DataError: a package or a file cannot be read.
        DependencyError: a tool is missing.
    """
    return READERS[part.reader](part, material)


def inflate(name: str, data: bytes) -> bytes:
    """Return the content of a file that may be compressed (by its suffix), at most 64 MiB of it; empty if damaged."""
    opener: Callable[[], bytes]
    if name.endswith(".gz"):
        decoder = zlib.decompressobj(wbits=31)
        opener = lambda: decoder.decompress(data, _LARGEST_TEXT)  # noqa: E731
    elif name.endswith(".bz2"):
        opener = lambda: bz2.BZ2Decompressor().decompress(data, _LARGEST_TEXT)  # noqa: E731
    elif name.endswith(".xz"):
        opener = lambda: lzma.LZMADecompressor().decompress(data, _LARGEST_TEXT)  # noqa: E731
    else:
        return data
    try:
        return opener()
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        return b""


def _files(part: Part, material: Material) -> Iterator[tuple[str, str, str, str]]:
    """Yield (package, language, id, text) of the files of a part in languages that are wanted."""
    pattern = re.compile(part.files)
    for package, path in material.debs:
        found = []
        for name, data in read_deb(path, lambda name: pattern.match(name) is not None):
            match = pattern.match(name)
            assert match is not None
            groups = match.groupdict()
            lang = language_of(groups["lang"]) if groups.get("lang") else part.lang
            if lang in material.languages and lang is not None:
                found.append((groups.get("id") or name, lang, inflate(name, data)))
        for document_id, lang, data in sorted(found):
            yield package, lang, document_id, decode(data)


def _rows(part: Part, material: Material, parse: Callable[[str], Page]) -> Iterator[Row | Pair]:
    for package, lang, document_id, text in _files(part, material):
        page = parse(text)
        if page.paragraphs:
            yield Row(package, lang, document_id, page.paragraphs, page.title, page.summary)


def html_pages(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Books and help as HTML pages."""
    return _rows(part, material, lambda text: parse_html(text, part.root_id))


def xml_pages(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Help as Mallard pages or DocBook files; the name of the application stands for the entity ``&kappname;``."""
    for package, lang, document_id, text in _files(part, material):
        application = document_id.split("/")[0]
        page = parse_xml(text, {"kappname": application, "app": application})
        if page.paragraphs:
            yield Row(package, lang, document_id, page.paragraphs, page.title, page.summary)


def manuals(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Manual pages."""
    return _rows(part, material, parse_man)


def descriptions(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Package descriptions; translations are joined to the English text by its hash, which all suites share."""
    seen: set[tuple[str, str]] = set()
    names: dict[str, str] = {}
    for index in sorted(material.indexes, key=lambda i: i.lang != "en"):
        if language_of(index.lang) not in material.languages:
            continue
        with index.path.open(encoding="utf-8", errors="replace") as lines:
            for found in parse_translations(lines):
                if found.lang not in material.languages or (found.lang, found.md5) in seen:
                    continue
                seen.add((found.lang, found.md5))
                package = names.setdefault(found.md5, found.package)
                document_id = f"{package}:{found.md5[:8]}"
                yield Row(package, found.lang, document_id, found.paragraphs, package, found.synopsis or None)


def components(part: Part, material: Material) -> Iterator[Row | Pair]:
    """AppStream components; a later suite adds components that an earlier one lacks."""
    seen: set[str] = set()
    for index in material.indexes:
        data = index.path.read_bytes()
        text = decode(gzip.decompress(data) if index.path.suffix == ".gz" else data)
        for found in parse_appstream(text):
            if found.id in seen:
                continue
            seen.add(found.id)
            for lang, paragraphs in found.paragraphs.items():
                if lang in material.languages:
                    yield Row(found.package, lang, found.id, paragraphs, None, found.summaries.get(lang))


def campaigns(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Wesnoth campaigns: prose in scenario order, each message looked up in the catalogues of the languages."""
    pattern = re.compile(part.files)
    for package, path in material.debs:
        scenarios: dict[str, list[str]] = {}
        catalogues: dict[str, dict[str, str]] = {}
        for name, data in read_deb(path, lambda name: pattern.match(name) is not None):
            match = pattern.match(name)
            assert match is not None
            if match["id"]:
                messages = parse_messages(data)
                if messages:
                    scenarios[match["id"]] = messages
            else:
                lang = language_of(match["lang"])
                if lang in material.languages and lang is not None:
                    catalogues.setdefault(lang, {}).update(games.read_catalogue(data))
        for document_id, messages in sorted(scenarios.items()):
            yield Row(package, "en", document_id, tuple(games.clean_message(m) for m in messages))
            for lang, catalogue in sorted(catalogues.items()):
                translated = tuple(games.clean_message(catalogue.get(m, "")) for m in messages)
                if 2 * sum(map(bool, translated)) >= len(messages):
                    yield Row(package, lang, document_id, translated)


def parse_messages(data: bytes) -> list[str]:
    """Return the messages of a campaign file."""
    return games.parse_campaign(decode(data))


def crawl(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Descriptions of Dungeon Crawl: one document an entry."""
    for package, lang, name, text in _files(part, material):
        for key, paragraphs in games.parse_crawl(text):
            yield Row(package, lang, f"{name}:{key}", paragraphs, key)


def stringtables(part: Part, material: Material) -> Iterator[Row | Pair]:
    """String tables of FreeOrion: one document an entry."""
    pattern = re.compile(part.files)
    for package, path in material.debs:
        for name, data in read_deb(path, lambda name: pattern.match(name) is not None):
            stem = Path(name).stem
            lang = language_of(_STRINGTABLE_LANGUAGES.get(stem, stem))
            if lang is not None and lang in material.languages:
                for key, paragraphs in games.parse_stringtable(decode(data)):
                    yield Row(package, lang, key, paragraphs)


@dataclass(frozen=True, slots=True)
class Module:
    """A SWORD module that lies in a folder of its own."""

    name: str
    lang: str
    folder: Path


def install_module(part: Part, package: str, path: Path, folder: Path) -> Module:
    """Unpack the SWORD module of a package into ``folder`` and correct its driver if need be.

    Raises:
        DataError: the package holds no module.
    """
    shutil.rmtree(folder, ignore_errors=True)
    pattern = re.compile(part.files)
    for name, data in read_deb(path, lambda name: pattern.match(name) is not None):
        target = folder / name.removeprefix("usr/share/sword/")
        if folder not in target.resolve().parents:
            raise DataError("a file name leaves the folder", where=package, got=name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    confs = sorted(folder.glob("mods.d/*.conf"))
    if len(confs) != 1:
        raise DataError("expected one SWORD module", where=package, got=len(confs))
    text = corrected_driver(decode(confs[0].read_bytes()), [p.stat().st_size for p in folder.rglob("*.[bcv]zv")])
    confs[0].write_text(text, encoding="utf-8")
    title = re.search(r"(?m)^\[([^\]]+)\]", text)
    lang = re.search(r"(?m)^Lang=(\S+)", text)
    return Module(title[1] if title else "", language_of(lang[1] if lang else "en") or "en", folder)


def corrected_driver(conf: str, index_sizes: Sequence[int]) -> str:
    """Return a module's configuration with the driver that its verse index has.

    One commentary says ``zCom4`` (12 bytes an entry) but holds an index of ``zCom`` (10 bytes an entry); read as it
    says, every note becomes 64 KiB of the notes that follow it.
    """
    if index_sizes and all(size % 10 == 0 for size in index_sizes) and any(size % 12 for size in index_sizes):
        return re.sub(r"(?m)^(ModDrv=z(?:Com|Text))4[ \t]*$", r"\1", conf)
    return conf


def module_output(module: Module, part: Part) -> str:
    """Return the whole module in its own mark-up, as ``diatheke`` prints it."""
    diatheke = need_tool("diatheke", "diatheke", part.name)
    command = [diatheke, "-b", module.name, "-f", "internal", "-k", _FIRST_TO_LAST]
    return run(command, env={"SWORD_PATH": str(module.folder)}).decode("utf-8", "replace")


def bibles(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Bible translations: one document a chapter; verses of the English and another translation as pairs."""
    texts: dict[str, tuple[str, Mapping[tuple[str, int, int], str]]] = {}
    for package, path in material.debs:
        module = install_module(part, package, path, material.folder / package)
        if module.lang not in material.languages:
            continue
        found = sword.parse_verses(module_output(module, part))
        texts[package] = (module.lang, found)
        for chapter, paragraphs in sword.chapters_of(found):
            yield Row(package, module.lang, f"{module.name}:{chapter}", paragraphs, chapter)
    english = texts.get(_ENGLISH_BIBLE, ("en", {}))[1]
    for _, (lang, verses) in sorted(texts.items()):
        if lang != "en":
            for key, verse in verses.items():
                if key in english:
                    yield Pair(lang, english[key], verse)


def commentaries(part: Part, material: Material) -> Iterator[Row | Pair]:
    """Bible commentaries: one document a chapter."""
    for package, path in material.debs:
        module = install_module(part, package, path, material.folder / package)
        for chapter, paragraphs in sword.parse_commentary(module_output(module, part)):
            yield Row(package, module.lang, f"{module.name.lower()}:{chapter}", paragraphs, chapter)


def novel_rows(part: Part, material: Material) -> Iterator[Row | Pair]:
    """The novels of Jane Austen: one document a novel."""
    pattern = re.compile(part.files)
    for package, path in material.debs:
        files = {name[-3:]: data for name, data in read_deb(path, lambda name: pattern.match(name) is not None)}
        if set(files) != {"rdb", "rdx"}:
            raise DataError("the package holds no data", where=package, expected="Rdata.rdb and Rdata.rdx")
        for name, lines in novels.read_lazyload(files["rdx"], files["rdb"], package):
            yield Row(package, part.lang or "en", f"austen_{name}.txt", novels.paragraphs_of(lines))


READERS: dict[str, Callable[[Part, Material], Iterator[Row | Pair]]] = {
    "html_pages": html_pages,
    "xml_pages": xml_pages,
    "manuals": manuals,
    "descriptions": descriptions,
    "components": components,
    "campaigns": campaigns,
    "crawl": crawl,
    "stringtables": stringtables,
    "bibles": bibles,
    "commentaries": commentaries,
    "novels": novel_rows,
}
"""Explicit: the reader a part names."""
