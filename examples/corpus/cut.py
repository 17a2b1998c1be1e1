"""Cut the sample corpus from a full corpus: ``python examples/corpus/cut.py mix.jsonl.xz [--out FOLDER]``.

The full corpus is a file of documents, one a line, with ``src lang id title summary sents``, as ``largeconcept data
corpus debian`` writes it (``documents.jsonl.xz``). The same input gives the same bytes. Only the standard library is
needed.

A document is cut into runs of sentences that are neither very short nor long, each run becomes one line of the sample;
a sentence that a document repeats is kept once. Which documents are taken is decided by the hash of their
language-independent key alone, so that the same chapter or page is taken in every language, and a document is either in
the train part or in the test part, in all its languages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MIN_SENTENCES, MAX_SENTENCES = 8, 64
MIN_CHARS, MAX_CHARS = 12, 200
TEST_MODULUS, TEST_REMAINDER = 40, 13

WEB = "World English Bible"
HENRY = "Matthew Henry's Concise Commentary on the Whole Bible"
FLORES = {"en": "eng_Latn", "de": "deu_Latn", "fr": "fra_Latn", "es": "spa_Latn"}


@dataclass(frozen=True)
class Source:
    """A family of documents that is taken over, with what must be said about it."""

    name: str  # first part of the file name
    src: str  # family in the full corpus
    lang: str
    prefix: str | tuple[str, ...]  # documents of the family whose id starts so
    package: str  # Debian package and version the text came from
    work: str
    author: str
    licence: str
    url: str
    train_bytes: int
    test_bytes: int

    @property
    def file(self) -> str:
        return f"{self.name}.{FLORES[self.lang]}.jsonl"


PD = "public domain"
CC = "CC-BY-SA-3.0"
MPL = "MPL-2.0"
GNOME = (
    "GNOME Help",
    "Shaun McCance and the GNOME Documentation Project",
    CC,
    "https://help.gnome.org/users/gnome-help/",
)
LO = "1:7.4.7-1+deb12u14"
OFFICE = ("LibreOffice Help", "the LibreOffice contributors and Oracle", MPL, "https://help.libreoffice.org/")
SOURCES = (
    Source("bible", "bible", "en", "engWEB2015eb:", "sword-text-web 426.0-1", WEB,
           "the World English Bible contributors", PD, "https://ebible.org/web/", 240_000, 60_000),
    Source("bible", "bible", "es", "spaRV1909eb:", "sword-text-sparv 2.60-1", "La Santa Biblia, Reina-Valera 1909",
           "Casiodoro de Reina, Cipriano de Valera", PD, "https://ebible.org/details.php?id=spaRV1909",
           200_000, 40_000),
    Source("commentary", "commentary", "en", ("comm_mhcc", "mhcc:"), "sword-comm-mhcc 2.0-1", HENRY,
           "Matthew Henry", PD, "https://gitlab.com/crosswire-bible-society/mhcc", 130_000, 0),
    Source("novels", "austen", "en", "austen_", "r-cran-janeaustenr 1.0.0-1",
           "Sense and Sensibility, Pride and Prejudice, Mansfield Park, Emma, Northanger Abbey, Persuasion",
           "Jane Austen", PD, "https://cran.r-project.org/package=janeaustenr", 110_000, 0),
    Source("gnome-help", "gnome", "en", "gnome-help/", "gnome-user-docs 43.0-2", *GNOME, 75_000, 20_000),
    Source("gnome-help", "gnome", "de", "gnome-help/", "gnome-user-docs 43.0-2", *GNOME, 85_000, 20_000),
    Source("gnome-help", "gnome", "fr", "gnome-help/", "gnome-user-docs 43.0-2", *GNOME, 85_000, 20_000),
    Source("gnome-help", "gnome", "es", "gnome-help/", "gnome-user-docs 43.0-2", *GNOME, 75_000, 20_000),
    Source("libreoffice-help", "lohelp", "en", "", f"libreoffice-help-en-us {LO}", *OFFICE, 90_000, 32_000),
    Source("libreoffice-help", "lohelp", "de", "", f"libreoffice-help-de {LO}", *OFFICE, 190_000, 32_000),
    Source("libreoffice-help", "lohelp", "fr", "", f"libreoffice-help-fr {LO}", *OFFICE, 190_000, 32_000),
    Source("libreoffice-help", "lohelp", "es", "", f"libreoffice-help-es {LO}", *OFFICE, 130_000, 32_000),
)  # fmt: skip

_VERSE_RANGE = re.compile(r"^\*\s*(?:Verses?|Chapter)\b[^*]*\*\s*")
_GLUED = re.compile(r"[^\W\d_][a-záéíóú][A-ZÁÉÍÓÚ][a-záéíóú]")
_SPACE = re.compile(r"\s+")
# Titles of two psalms that a Bible reader repeats before the verses of other books; the psalms themselves are left out.
_STRAY_TITLES = (
    "A praise psalm by David.",
    "This Psalm is a genuine one of David, though extra, composed when he fought in single combat with Goliath.",
)
_CLOSING_MARKS = re.compile(r"[”’\"')\]]+")


@dataclass
class Entry:
    """All windows of one document of one source, in the order of the full corpus."""

    title: str | None = None
    summary: str | None = None
    windows: list[list[str]] = field(default_factory=list)


def key_of(src: str, document_id: str) -> str:
    """Return the key of a document that all its windows, languages and Bible translations share."""
    return f"{src}/{document_id.split(':', 1)[-1] if src == 'bible' else document_id}"


def hash_of(key: str) -> int:
    """Return the SHA-1 of the key as a number; it decides part and order."""
    return int(hashlib.sha1(key.encode()).hexdigest(), 16)


def is_test(key: str) -> bool:
    """Return whether a document belongs to the test part."""
    return hash_of(key) % TEST_MODULUS == TEST_REMAINDER


def clean(sentence: str, src: str) -> str:
    """Drop what is not text: stray psalm titles, verse ranges of a commentary, underscores for italics in novels."""
    if src == "bible":
        for title in _STRAY_TITLES:
            sentence = sentence.replace(title, " ")
    if src == "commentary":
        sentence = _VERSE_RANGE.sub("", sentence).replace("*", " ")
    if src == "austen":
        sentence = sentence.replace("_", "")
    return _SPACE.sub(" ", sentence).strip()


def usable(sentence: str, src: str) -> bool:
    """Return whether a sentence may be part of a run; any other sentence ends the run."""
    if not MIN_CHARS <= len(sentence) <= MAX_CHARS:
        return False
    if src in {"bible", "commentary"} and _GLUED.search(sentence):  # a footnote mark glued two words together
        return False
    return src != "lohelp" or sum(c.isalpha() for c in sentence) > 0.6 * len(sentence)


def runs_of(windows: list[list[str]], src: str) -> Iterator[list[str]]:
    """Yield the runs of usable sentences that are long enough."""
    seen: set[str] = set()
    for window in windows:
        run: list[str] = []
        for raw in [*window, ""]:
            sentence = clean(raw, src)
            if run and _CLOSING_MARKS.fullmatch(sentence):  # was cut off by a stray title
                if len(run[-1]) + len(sentence) <= MAX_CHARS:
                    run[-1] += sentence
                continue
            if raw and (not sentence or sentence in seen):
                continue
            seen.add(sentence)
            if sentence and usable(sentence, src):
                run.append(sentence)
                continue
            if MIN_SENTENCES <= len(run) <= MAX_SENTENCES:
                yield run
            run = []


def read(path: Path) -> dict[Source, dict[str, Entry]]:
    """Read the documents of the wanted sources: source -> key -> entry."""
    wanted: dict[tuple[str, str], list[Source]] = defaultdict(list)
    for source in SOURCES:
        wanted[source.src, source.lang].append(source)
    found: dict[Source, dict[str, Entry]] = {source: {} for source in SOURCES}
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            for source in wanted.get((row["src"], row["lang"]), ()):
                if row["id"].startswith(source.prefix) and ":Psalms " not in row["id"]:
                    entry = found[source].setdefault(key_of(row["src"], row["id"]), Entry())
                    entry.title = entry.title or row.get("title")
                    entry.summary = entry.summary or row.get("summary")
                    entry.windows.append(row["sents"])
    return found


def lines_of(source: Source, key: str, entry: Entry) -> list[str]:
    """Return the JSON lines of one document; a second and later run has ``#2``, ``#3`` … after its id."""
    lines = []
    for number, sentences in enumerate(runs_of(entry.windows, source.src), 1):
        row = {"id": key if number == 1 else f"{key}#{number}", "lang": FLORES[source.lang]}
        row |= {"title": entry.title} if entry.title else {}
        row |= {"summary": entry.summary} if entry.summary and number == 1 else {}
        row |= {"source": source.package.split()[0], "sentences": sentences}
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def spread(lines: list[str], limit: int, key: str) -> list[str]:
    """Return at most ``limit`` bytes of one long document's lines, spread by hash, in their order."""
    order = sorted(range(len(lines)), key=lambda i: hash_of(f"{key}#{i}"))
    kept, total = [], 0
    for index in order:
        total += len(lines[index].encode()) + 1
        if total > limit:
            break
        kept.append(index)
    return [lines[i] for i in sorted(kept)]


def choose(source: Source, entries: dict[str, Entry], part: str) -> list[str]:
    """Return the lines of one file: documents in the order of their hash until the part's budget is spent."""
    budget = source.test_bytes if part == "test" else source.train_bytes
    keys = sorted((k for k in entries if is_test(k) == (part == "test")), key=hash_of)
    chosen: dict[str, list[str]] = {}
    for position, key in enumerate(keys):
        lines = lines_of(source, key, entries[key])
        if len(keys) < 20:  # a few long books: an even share of each
            lines = spread(lines, budget // (len(keys) - position), key)
        size = sum(len(line.encode()) + 1 for line in lines)
        if lines and size <= budget:
            chosen[key] = lines
            budget -= size
    return [line for key in sorted(chosen) for line in chosen[key]]


def main() -> int:
    """Write ``train/``, ``test/`` and ``sources.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="documents of the full corpus, .jsonl or .jsonl.xz")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args()
    if not options.corpus.is_file():
        print(f"{options.corpus}: no such file; give the documents file of a full corpus", file=sys.stderr)
        return 2
    found = read(options.corpus)
    described = {}
    for part in ("train", "test"):
        (options.out / part).mkdir(parents=True, exist_ok=True)
        for old in (options.out / part).glob("*.jsonl"):
            old.unlink()
        for source in SOURCES:
            lines = choose(source, found[source], part)
            if not lines:
                continue
            data = "".join(line + "\n" for line in lines).encode()
            (options.out / part / source.file).write_bytes(data)
            described[f"{part}/{source.file}"] = {
                "work": source.work,
                "author": source.author,
                "licence": source.licence,
                "url": source.url,
                "package": source.package,
                "documents": len(lines),
                "sentences": sum(len(json.loads(line)["sentences"]) for line in lines),
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
    text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    (options.out / "sources.json").write_text(text, encoding="utf-8")
    for name, about in described.items():
        print(f"{name:42} {about['documents']:5} documents {about['sentences']:6} sentences {about['bytes']:8} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
