"""From a corpus to training data: splits, filters, the codec's table and vocabulary, documents for ``data build``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from largeconcept.data.debian.apt import sha256_of
from largeconcept.data.debian.build import gzip_text
from largeconcept.data.documents import read_documents, resolve_inputs
from largeconcept.data.manifest import locked
from largeconcept.data.pairs import SourcedPair, read_sourced_pairs
from largeconcept.data.prepare.filters import clean_sentence, draw, pair_fault, pieces_of
from largeconcept.data.prepare.selection import Collector, Counts, Entry
from largeconcept.data.prepare.settings import PrepareConfig
from largeconcept.data.prepare.splits import checksum
from largeconcept.data.prepare.teacher import cosines_of
from largeconcept.errors import CheckpointError, DataError
from largeconcept.io import atomic_path, atomic_write_text, read_json, write_json

if TYPE_CHECKING:
    from largeconcept.codec.encoders import Encode, ExternalEncoder

Progress = Callable[[int, int | None, str], object]
"""Called with (done, total, unit)."""

FORMAT_VERSION = 1
REPORT = "report.json"
PARTS = ("train", "validation", "test")
ENGLISH = "eng_Latn"
_FOLDERS = ("documents", "pairs", "codec", "splits")
_OUTSIDE_NAMES = re.compile(r"[^\w.+-]+")


@dataclass(slots=True)
class PrepareReport:
    """What was made, and what each filter left.

    Attributes:
        out: the folder.
        documents, sentences, pairs: source -> language -> step -> number. ``read`` is what the corpus has; ``train``,
            ``validation`` and ``test`` is what came out (of sentences: in documents); ``table`` are the codec's
            sentences; other steps name what was left out.
        splits: ``test`` and ``validation`` to the number of their keys and the checksum of the list.
        table: rows, pairs and tokens of the codec's table, and its rows by language.
        teacher: name, fingerprint, pairs judged, mean cosine and share kept by source; ``None`` without one.
        seconds: wall time.
    """

    out: Path
    documents: dict[str, dict[str, dict[str, int]]]
    sentences: dict[str, dict[str, dict[str, int]]]
    pairs: dict[str, dict[str, dict[str, int]]]
    splits: dict[str, dict[str, Any]]
    table: dict[str, Any]
    teacher: dict[str, Any] | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**dataclasses.asdict(self), "out": str(self.out)}

    def totals(self, what: str, by: str = "") -> dict[str, Counter[str]]:
        """Return ``source`` or ``lang`` (or ``""`` for all) -> step -> number, of documents, sentences or pairs."""
        result: dict[str, Counter[str]] = defaultdict(Counter)
        for source, langs in getattr(self, what).items():
            for lang, steps in langs.items():
                result[{"source": source, "lang": lang}.get(by, "")].update(steps)
        return dict(result)


def prepare_corpus(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    pairs: Sequence[str | Path] = (),
    teacher: Encode | ExternalEncoder | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Make the training data of a codec and of a Large Concept Model from a corpus.

    The same input and settings give the same files. A folder that holds just these is left as it is; a call that was
    stopped begins again, but goes on with the teacher's work where it was.

    Args:
        inputs: the folder of a corpus (``documents.jsonl.xz`` and ``pairs.tsv.xz``, as
            :func:`largeconcept.data.debian.build_corpus` writes it), or files of documents with sentences.
        out: folder of the result.
        config: every choice; see :class:`PrepareConfig`.
        pairs: tables of translation pairs besides those of a corpus folder.
        teacher: an encoder in place of ``config.pairs.teacher``.
        overwrite: replace what another call made in ``out``.
        progress: called with (done, total, unit).

    Raises:
        DataError: the input cannot be read or holds nothing in the languages wanted; ``out`` holds something else.
        ConfigError: the vocabulary is too large for the text; no such teacher.
        DependencyError: the teacher's package is not installed.
    """
    return _Job(inputs, Path(out), config or PrepareConfig(), pairs, teacher, progress).run(overwrite)


class _Job:
    """One call of :func:`prepare_corpus`."""

    def __init__(
        self,
        inputs: str | Path | Sequence[str | Path],
        out: Path,
        config: PrepareConfig,
        pairs: Sequence[str | Path],
        teacher: Encode | ExternalEncoder | None,
        progress: Progress | None,
    ) -> None:
        self.documents, self.pairs = corpus_files(inputs, pairs)
        self.out, self.config, self._progress = out, config, progress
        self.teacher = self._open(teacher)
        self.counts = Counts()
        self.collector = Collector(config, self.counts)

    def run(self, overwrite: bool) -> PrepareReport:
        """Do everything; the report is written last."""
        start = time.monotonic()
        with locked(self.out):
            settings = self._settings()
            finished = self._finished(settings, overwrite)
            if finished is not None:
                return finished
            self._clear()
            self._read()
            self._tell(0, 1, "near-duplicates")
            self.collector.select()
            self._tell(1, 1, "near-duplicates")
            self._write_documents()
            splits = self._write_splits()
            linked, teacher = self._select_pairs()
            table = self._write_tables(linked)
            report = PrepareReport(
                self.out,
                documents=self.counts.table("documents"),
                sentences=self.counts.table("sentences"),
                pairs=self.counts.table("pairs"),
                splits=splits,
                table=table,
                teacher=teacher,
                seconds=round(time.monotonic() - start, 1),
            )
            plain = {name: value for name, value in report.to_dict().items() if name != "out"}
            write_json(self.out / REPORT, {"format_version": FORMAT_VERSION, "settings": settings, **plain})
        return report

    def _open(self, teacher: Encode | ExternalEncoder | None) -> ExternalEncoder | None:
        wanted = self.config.pairs.teacher if teacher is None else teacher
        if wanted is None or not self.pairs:
            return None
        from largeconcept.codec.encoders import open_encoder

        return open_encoder(wanted)

    def _tell(self, done: int, total: int | None, unit: str) -> None:
        if self._progress is not None:
            self._progress(done, total, unit)

    def _settings(self) -> dict[str, Any]:
        def hashed(paths: Sequence[Path]) -> list[list[str]]:
            return [[path.name, sha256_of(path)] for path in paths]

        model = self.config.vocabulary.model
        settings = {
            "config": self.config.to_dict(),
            "documents": hashed(self.documents),
            "pairs": hashed(self.pairs),
            "teacher": None if self.teacher is None else self.teacher.fingerprint,
            "vocabulary": None if model is None else sha256_of(self._model(model)),
        }
        return dict(json.loads(json.dumps(settings)))

    @staticmethod
    def _model(name: str) -> Path:
        if not Path(name).is_file():
            raise CheckpointError("cannot read the tokenizer", where=name, got="no such file")
        return Path(name)

    def _finished(self, settings: dict[str, Any], overwrite: bool) -> PrepareReport | None:
        path = self.out / REPORT
        if not path.exists():
            strangers = [p.name for p in self.out.iterdir() if p.name not in {*_FOLDERS, "teacher", "mixture.json"}]
            strangers = [name for name in strangers if not name.endswith(".tmp")]
            if strangers and not overwrite:
                raise DataError("the folder holds other files", where=self.out, got=strangers[0], hint=_OTHER)
            return None
        data = read_json(path)
        if data.get("settings") == settings and data.get("format_version") == FORMAT_VERSION:
            names = [f.name for f in dataclasses.fields(PrepareReport) if f.name != "out"]
            return PrepareReport(out=self.out, **{name: data[name] for name in names})
        if not overwrite:
            old = data.get("settings") or {}
            name = next((n for n in settings if old.get(n) != settings[n]), "format_version")
            raise DataError("the folder was made with other settings", where=f"{self.out}: {name}", hint=_OTHER)
        return None

    def _clear(self) -> None:
        """Take away what an earlier call made, its report first: then it is no finished folder."""
        (self.out / REPORT).unlink(missing_ok=True)
        (self.out / "mixture.json").unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.out / name, ignore_errors=True)

    def _read(self) -> None:
        for number, document in enumerate(read_documents(self.documents)):
            if not number % 1000:
                self._tell(number, None, "documents")
            if not document.sentences:
                raise DataError(
                    "a document without sentences",
                    where=document.where,
                    hint="a corpus has sents or sentences; cut plain text with largeconcept segment",
                )
            self.collector.add(document)
        if not self.collector.entries:
            expected = ", ".join(self.config.languages)
            raise DataError("no document in the languages wanted", where=self.documents[0], expected=expected)

    def _write_documents(self) -> None:
        """Write one file for each part, source and language, and the weights with which to mix those of training."""
        files: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
        for entry in self.collector.entries:
            if entry.split in PARTS:
                step = entry.fate or entry.split
                self.counts.add("documents", step, entry.source, entry.lang)
                if not entry.fate:
                    self.counts.add("sentences", entry.split, entry.source, entry.lang, len(entry.sentences))
                    files[entry.split, _file_name(entry.source), entry.lang].append(entry)
            else:
                self.counts.add("documents", "reserved", entry.source, entry.lang)
        if not any(split == "train" for split, _, _ in files):
            raise DataError("no document is left to train on", where=self.documents[0])
        for number, ((split, name, lang), entries) in enumerate(sorted(files.items())):
            self._tell(number, len(files), "files")
            path = self.out / "documents" / split / f"{name}.{lang}.jsonl.gz"
            with atomic_path(path) as temporary, gzip_text(temporary) as file:
                write_documents(file, entries)
        write_json(self.out / "mixture.json", mixture(files, self.config))

    def _write_splits(self) -> dict[str, dict[str, Any]]:
        result: dict[str, dict[str, Any]] = {}
        for split in ("test", "validation"):
            keys = {entry.key for entry in self.collector.entries if entry.split == split}
            atomic_write_text(self.out / "splits" / f"{split}.txt", "".join(f"{key}\n" for key in sorted(keys)))
            result[split] = {"documents": len(keys), "sha256": checksum(keys)}
        fates = {f"{e.key}\t{e.lang}\t{e.fate}\n" for e in self.collector.entries if e.split in PARTS and e.fate}
        atomic_write_text(self.out / "splits" / "removed.tsv", "".join(sorted(fates)))
        return result

    def _select_pairs(self) -> tuple[dict[str, list[SourcedPair]], dict[str, Any] | None]:
        """Filter the pairs, judge those of training by the teacher, and write them."""
        chosen: dict[str, list[SourcedPair]] = {part: [] for part in PARTS}
        seen: set[bytes] = set()
        for number, pair in enumerate(read_sourced_pairs(self.pairs, self._wrong_line)):
            if not number % 10000:
                self._tell(number, None, "pairs")
            if pair.lang not in self.config.languages or ENGLISH not in self.config.languages:
                continue
            self.counts.add("pairs", "read", pair.source, pair.lang)
            english, other = (clean_sentence(text, pair.source) for text in (pair.english, pair.other))
            found = SourcedPair(pair.source, pair.lang, english, other)
            fate = self._fate_of(found)
            if fate in PARTS:
                digest = hashlib.blake2b("\t".join(found[1:]).encode("utf-8", "replace"), digest_size=8).digest()
                if digest in seen:
                    fate = "repeated"
                seen.add(digest)
            if fate in PARTS:
                chosen[fate].append(found)
            if fate != "train":
                self.counts.add("pairs", fate, pair.source, pair.lang)
        teacher = None
        if self.teacher is not None:
            chosen["train"], teacher = self._judge(chosen["train"], self.teacher)
        for pair in chosen["train"]:
            self.counts.add("pairs", "train", pair.source, pair.lang)
        for part, some in chosen.items() if self.pairs else ():
            with atomic_path(self.out / "pairs" / f"{part}.tsv.gz") as temporary, gzip_text(temporary) as file:
                file.writelines("\t".join(pair) + "\n" for pair in some)
        return chosen, teacher

    def _wrong_line(self, columns: list[str]) -> None:
        """Count a line of a table with a tab inside a sentence."""
        self.counts.add("pairs", "wrong_line", columns[0], "")

    def _fate_of(self, pair: SourcedPair) -> str:
        if pair.source in self.config.pairs.exclude:
            return "excluded_source"
        low, high = self.config.min_chars, self.config.max_chars
        fault = pair_fault(pair.english, pair.other, pair.lang, pair.source, low, high)
        if fault is not None:
            return fault
        places = {self.collector.place_of(pair.english), self.collector.place_of(pair.other)}
        # Both sides of one part, or it would carry a sentence of one part to another.
        if len(places) == 1:
            return places.pop()
        return "dropped" if places == {"dropped", "train"} else "held_out"

    def _judge(self, pairs: list[SourcedPair], encoder: ExternalEncoder) -> tuple[list[SourcedPair], dict[str, Any]]:
        """Return the pairs that the teacher finds near enough, and what it said by source."""
        values = cosines_of(encoder, pairs, self.out / "teacher", lambda n, of: self._tell(n, of, "pairs judged"))
        options = self.config.pairs
        kept: list[SourcedPair] = []
        by_source: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        for pair, value in zip(pairs, values.tolist(), strict=True):
            if np.isnan(value):
                kept.append(pair)
                self.counts.add("pairs", "not_judged", pair.source, pair.lang)
                continue
            good = value >= options.min_cosine_of.get(pair.source, options.min_cosine)
            by_source[pair.source].append((value, good))
            if good:
                kept.append(pair)
            else:
                self.counts.add("pairs", "teacher", pair.source, pair.lang)
        sources = {
            source: {
                "pairs": len(found),
                "mean_cosine": round(sum(value for value, _ in found) / len(found), 4),
                "kept": round(sum(good for _, good in found) / len(found), 4),
            }
            for source, found in sorted(by_source.items())
        }
        return kept, {"name": encoder.name, "fingerprint": encoder.fingerprint, "sources": sources}

    def _write_tables(self, pairs: dict[str, list[SourcedPair]]) -> dict[str, Any]:
        """Write vocabulary and sentence tables, training's last."""
        from largeconcept.codec.tokenizer import Tokenizer
        from largeconcept.data.sentence_table import SentenceTable

        sentences = {part: self._sentences(part) for part in PARTS}
        links = {part: [(ENGLISH, p.english, p.lang, p.other) for p in pairs[part]] for part in PARTS}
        self._tell(0, 1, "vocabulary")
        if self.config.vocabulary.model is not None:
            tokenizer = Tokenizer.from_file(self.config.vocabulary.model)
        else:
            tokenizer = Tokenizer.train(self._sample(sentences["train"], links["train"]), self.config.vocabulary.size)
        self._tell(1, 1, "vocabulary")
        tokenizer.save(self.out / "codec" / "tokenizer.model")
        facts: dict[str, Any] = {"vocabulary": tokenizer.vocab_size}
        for part in reversed(PARTS):
            if not sentences[part] and not links[part]:
                continue
            self._tell(0, 1, f"sentences ({part})")
            table = SentenceTable.build(
                tokenizer.encode,
                sentences.pop(part),
                links.pop(part),
                languages=self.config.languages,
                max_tokens=self.config.max_tokens,
            )
            table.save(self.out / "codec" / ("sentences.npz" if part == "train" else f"{part}.npz"))
            rows = np.bincount(table.langs, minlength=len(table.languages)).tolist()
            facts[part] = {
                "rows": len(table),
                "pairs": len(table.pairs),
                "tokens": int(table.offsets[-1]),
                "languages": dict(zip(table.languages, rows, strict=True)),
            }
        return facts

    def _sentences(self, part: str) -> list[tuple[str, str]]:
        """Return the distinct (language, text) of a part that the codec is to see, in the order of the corpus."""
        config, collector = self.config, self.collector
        found: dict[tuple[str, str], bool] = {}
        for entry in collector.entries:
            if entry.split != part or entry.fate:
                continue
            share = config.shares.get(entry.source, 1.0) if part == "train" else 1.0
            for sentence in entry.sentences:
                for text in pieces_of(sentence, config.max_chars):
                    if len(text) < config.min_chars or (entry.lang, text) in found:
                        continue
                    if collector.place_of(text) != part:
                        self.counts.add("sentences", "held_out_in_table", entry.source, entry.lang)
                        continue
                    taken = share == 1.0 or draw(text) < share
                    found[entry.lang, text] = taken
                    self.counts.add("sentences", "table" if taken else "thinned", entry.source, entry.lang)
        return [key for key, taken in found.items() if taken]

    def _sample(self, sentences: list[tuple[str, str]], links: list[tuple[str, str, str, str]]) -> list[str]:
        """Return the sentences that the vocabulary is trained on: as many of each language, drawn by hash."""
        options = self.config.vocabulary
        by_lang: dict[str, dict[str, None]] = defaultdict(dict)
        for lang, text in sentences:
            by_lang[lang][text] = None
        for english, one, lang, other in links:
            by_lang[english][one] = None
            by_lang[lang][other] = None
        sample: list[str] = []
        for lang, texts in sorted(by_lang.items()):
            number = options.sentences_of.get(lang, options.sentences)
            sample += sorted(texts, key=lambda text: (draw(text, "vocabulary"), text))[:number]
        return sample


_OTHER = "choose another folder, or overwrite it"


def corpus_files(
    inputs: str | Path | Sequence[str | Path], pairs: Sequence[str | Path] = ()
) -> tuple[list[Path], list[Path]]:
    """Return the files of documents and of pairs that ``inputs`` (folders of corpora, files, patterns) name.

    Raises:
        DataError: a file is missing, or a folder is not a corpus.
    """
    items = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    documents: list[str | Path] = []
    tables: list[str | Path] = []
    for item in items:
        folder = Path(item)
        if not folder.is_dir():
            documents.append(item)
            continue
        found = sorted(folder.glob("documents.jsonl*"))
        if not found:
            raise DataError("not a corpus", where=folder, expected="documents.jsonl.xz in it")
        documents += found
        tables += sorted(folder.glob("pairs.tsv*"))
    for path in pairs:
        if not Path(path).is_file():
            raise DataError("file not found", where=path)
    return resolve_inputs(documents), [Path(path) for path in (*tables, *pairs)]


def write_documents(file: TextIO, entries: Sequence[Entry]) -> None:
    """Write documents as JSON lines that ``data build`` reads.

    The second and later window of a document has ``#2``, ``#3`` … after its id. Title and summary are of the whole
    document and stand with the first window only: of the others the summary would tell what is not in them.
    """
    for entry in entries:
        first = entry.window == 1
        id = f"{entry.source}/{entry.id}" if first else f"{entry.source}/{entry.id}#{entry.window}"
        row: dict[str, Any] = {"id": id, "lang": entry.lang, "source": entry.source}
        for name in ("title", "summary"):
            value = getattr(entry, name)
            if first and value:
                row[name] = value
        row["sentences"] = entry.sentences
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def mixture(files: dict[tuple[str, str, str], list[Entry]], config: PrepareConfig) -> dict[str, Any]:
    """Return what each training file holds, and the share of a mixture that it should have.

    The share is the file's number of sentences, times the weight of its source, times what brings its language to
    (sentences)^exponent. All shares add up to 1; they are what ``weight`` of a loader's sources takes.
    """
    masses: dict[tuple[str, str], tuple[int, float]] = {}
    of_lang: dict[str, float] = defaultdict(float)
    for (split, name, lang), entries in sorted(files.items()):
        if split == "train":
            number = sum(len(entry.sentences) for entry in entries)
            mass = number * config.weights.get(entries[0].source, 1.0)
            masses[name, lang] = (number, mass)
            of_lang[lang] += mass
    wanted = {lang: mass**config.language_exponent / mass for lang, mass in of_lang.items()}
    total = sum(mass * wanted[lang] for (_, lang), (_, mass) in masses.items())
    return {
        f"{name}.{lang}.jsonl.gz": {
            "source": name,
            "lang": lang,
            "documents": len(files["train", name, lang]),
            "sentences": number,
            "summaries": sum(bool(entry.summary) and entry.window == 1 for entry in files["train", name, lang]),
            "weight": round(mass * wanted[lang] / total, 6),
        }
        for (name, lang), (number, mass) in masses.items()
    }


def _file_name(source: str) -> str:
    return _OUTSIDE_NAMES.sub("_", source) or "unknown"
