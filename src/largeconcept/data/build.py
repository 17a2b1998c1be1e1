"""Text files to a concept dataset: read, segment, encode, write shards; a killed build resumes where it stopped.

The build runs over its input twice. The first pass reads everything without encoding, so a bad line is known before
hours of encoding, and the total is known to a progress bar. The second pass segments, encodes and writes one shard
after another. A shard is a function of the input and the settings alone: groups of sentences that are encoded together
never reach over its border, so a resumed build has the bits of an undisturbed one.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from largeconcept.data.affixes import DEFAULT_AFFIXES, Affixes, encode_affixes, read_affixes, write_affixes
from largeconcept.data.affixes import FILE as AFFIX_FILE
from largeconcept.data.documents import (
    OnError,
    ReadReport,
    Skipped,
    display,
    read_documents,
    resolve_inputs,
    skipped_from,
)
from largeconcept.data.manifest import BuildFolder, ShardFacts, locked
from largeconcept.data.plans import END_OF_PARAGRAPH, MAX_PARAGRAPH, PlanKind, check_kind, plan_paragraphs
from largeconcept.data.schema import MANIFEST, DatasetMetadata
from largeconcept.data.writer import Half, Row, write_shard
from largeconcept.errors import ConceptLMError, ConfigError, DataError
from largeconcept.segment.base import one_line
from largeconcept.types import Segmenter

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec, Document

Progress = Callable[[int, int, str], None]
Target = Literal["keep", "summary", "target_sentences"]
_FLOAT16_MAX = 65504.0


@dataclass(slots=True)
class BuildReport:
    """What a build did with its input.

    Attributes:
        path: the folder of the split.
        documents, concepts, shards: what the split holds.
        skipped: every document or file that is not in it, with the reason.
        counts: repairs and omissions by name: ``nul_characters``, ``lone_surrogates``, ``blank_lines``,
            ``empty_sentences``, ``long_sentences_cut``, ``long_plans_cut``, ``renamed_ids``, ``with_target`` (kept),
            ``without_target`` (left out).
        resumed_shards: shards that an earlier, interrupted build had finished.
    """

    path: str
    documents: int = 0
    concepts: int = 0
    shards: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    resumed_shards: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def build_concepts(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    codec: str | Path | ConceptCodec = "starter",
    segmenter: Any = None,
    split: str = "train",
    lang: str | None = None,
    *,
    target: Target | None = "keep",
    plan: PlanKind | None = None,
    max_paragraph: int = MAX_PARAGRAPH,
    documents_per_shard: int = 4096,
    sentences_per_shard: int = 65536,
    group_sentences: int = 16384,
    batch_tokens: int = 8192,
    max_sentence_chars: int = 500,
    affixes: Sequence[str] = DEFAULT_AFFIXES,
    on_error: OnError = "raise",
    encoding: str = "utf-8",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Build one split of a concept dataset (schema: :mod:`largeconcept.data.schema`).

    Called again after a kill with the same input and settings it goes on at the first missing shard; called again on a
    finished split it does nothing. Memory holds one shard.

    Args:
        inputs: files or glob patterns (:func:`~largeconcept.data.documents.read_documents` says what they may hold).
        out: the dataset folder; the split becomes a folder in it.
        codec: name or folder of a codec, or a codec object.
        segmenter: a segmenter object or its configuration; used where a document comes without sentences. A line
            break inside a segmented sentence becomes a space; given sentences stay as they are.
        split: name of the split.
        lang: language of documents that do not say theirs.
        target: ``"keep"`` keeps the target that a document has (its ``target_sentences``, else its ``summary``,
            segmented) beside it; documents without one stay, with an empty target, and training reads all of them as
            plain texts unless its loader is told ``targets: true``. ``"summary"`` or ``"target_sentences"`` builds
            source and target rows: documents without that one are left out and counted. ``None`` keeps no targets; so
            does a build with ``plan``.
        plan: also write plans, one sentence for each paragraph: its ``first_sentence``, the ``title`` above it, or one
            that is ``given`` in the document's ``plans``; see :mod:`largeconcept.data.plans`.
        max_paragraph: with plans, longer paragraphs are cut.
        documents_per_shard, sentences_per_shard: a shard is closed when it has reached one of them.
        group_sentences: sentences handed to the codec at once (it sorts them by length); equal ones are encoded once.
        batch_tokens: the codec's own budget a batch.
        max_sentence_chars: a given sentence longer than this is cut by the segmenter, and counted: codecs cut silently.
        affixes: texts to encode once for the whole dataset.
        on_error: ``"raise"`` at the first document that cannot be built, or ``"report"`` them all and go on.
        encoding: of input without a byte order mark.
        overwrite: discard what an earlier build with other settings or input left in this split.
        progress: called with (done, total, unit); the unit is ``"bytes"`` in the first pass, then ``"documents"``.

    Raises:
        DataError: bad input (see ``on_error``), a folder of another build or concept space, no document left.
        ConfigError: a setting out of range, or another build is writing into the folder.
    """
    numbers = {
        "documents_per_shard": documents_per_shard,
        "sentences_per_shard": sentences_per_shard,
        "group_sentences": group_sentences,
        "batch_tokens": batch_tokens,
        "max_sentence_chars": max_sentence_chars,
    }
    if plan is not None:
        numbers["max_paragraph"] = max_paragraph
        if target not in (None, "keep"):
            raise ConfigError("plans and targets exclude each other", where="plan", got=plan, hint="leave one out")
        target = None
        affixes = [*affixes, END_OF_PARAGRAPH]
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError("out of range", where=name, got=number, expected="at least 1")
    if target not in (None, *get_args(Target)):
        raise ConfigError("unknown target", where="target", got=target, expected="keep, summary or target_sentences")
    if not split or split != Path(split).name or split.startswith("."):
        raise ConfigError("not a name for a folder", where="split", got=split, expected="for example train")
    files = resolve_inputs(inputs)
    codec_id, codec = _codec(codec)
    segmenter = _segmenter(segmenter)
    planned = None if plan is None else {"kind": check_kind(plan), "max_paragraph": max_paragraph}
    metadata = DatasetMetadata(codec_id, codec.fingerprint, codec.dim, segmenter.describe(), planned)
    settings = {
        "codec": codec_id,
        "codec_fingerprint": codec.fingerprint,
        "dim": codec.dim,
        "segmenter": metadata.segmenter,
        "lang": lang,
        "encoding": encoding,
        "target": target,
        **numbers,
        **({} if planned is None else {"plan": planned["kind"]}),  # builds without plans keep the settings they had
        "inputs": [{"name": display(path.name), "sha256": _digest(path)} for path in files],
    }
    folder = BuildFolder(Path(out) / split, settings)
    with locked(folder.folder):
        finished = folder.open(overwrite)
        if finished is not None:
            data = finished["report"]
            skipped = [Skipped(**item) for item in data["skipped"]]
            return BuildReport(str(folder.folder), **{**data, "skipped": skipped, "resumed_shards": data["shards"]})
        with locked(folder.folder.parent, wait=True):
            _affixes(folder.folder, codec, affixes)
        scan = _scan(files, on_error, progress, lang, encoding)
        documents = read_documents(files, lang, on_error, encoding=encoding)
        if target == "keep":
            target = "keep" if scan.targets else None
            metadata = replace(metadata, partial_targets=target is not None)
        build = _Build(folder, codec, segmenter, metadata, target, on_error, progress)
        return build.run(documents, scan, display(files[0]))


def _codec(codec: Any) -> tuple[str, ConceptCodec]:
    if isinstance(codec, str | Path):
        from largeconcept.codec import load_codec

        return str(codec), load_codec(str(codec))  # as given, so that a run can load it again
    return str(getattr(codec, "id", None) or type(codec).__name__), codec


def _segmenter(segmenter: Any) -> Segmenter:
    if isinstance(segmenter, Segmenter):
        return segmenter
    from largeconcept.segment import build_segmenter

    return build_segmenter(segmenter)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError("cannot read the file", where=display(path), got=error.strerror) from None


def _affixes(folder: Path, codec: ConceptCodec, texts: Sequence[str]) -> None:
    """Encode the affixes that the dataset has not got yet.

    Raises:
        DataError: another split of the dataset has concepts of another codec.
    """
    dataset = folder.parent
    known: dict[str, Any] = {}
    others = [path for path in dataset.glob(f"*/{MANIFEST}") if path.parent != folder]
    if (dataset / AFFIX_FILE).exists() and others:
        old = read_affixes(dataset)
        if old.codec_fingerprint != codec.fingerprint:
            raise DataError(
                "the dataset has another concept space; one dataset holds one",
                where=dataset,
                expected=f"codec fingerprint {old.codec_fingerprint}",
                got=codec.fingerprint,
                hint="choose another folder",
            )
        known = dict(old.concepts)
    for path in dataset.glob(f".{AFFIX_FILE}.*.tmp"):  # left by a build that was killed just here
        path.unlink(missing_ok=True)
    fresh = encode_affixes(codec, [text for text in dict.fromkeys(texts) if text not in known])
    try:
        write_affixes(dataset, Affixes(fresh.codec_fingerprint, {**known, **fresh.concepts}))
    except OSError as error:
        raise DataError("cannot write into the folder", where=dataset, got=error.strerror) from None


@dataclass(slots=True)
class _Scan:
    """What the first pass found.

    Attributes:
        report: the reader's.
        hashes: of the ids, sorted.
        repeated: those that came more than once.
        targets: documents with a summary or target sentences.
    """

    report: ReadReport
    hashes: np.ndarray[Any, np.dtype[np.uint64]]
    repeated: frozenset[int]
    targets: int


def _id_hash(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _scan(files: list[Path], on_error: OnError, progress: Progress | None, lang: str | None, encoding: str) -> _Scan:
    report = ReadReport()
    hashes = array("Q")
    targets = 0
    sizes = {path: path.stat().st_size for path in files}
    done = 0

    def file_read(path: Path) -> None:
        nonlocal done
        done += sizes[path]
        if progress is not None:
            progress(done, sum(sizes.values()), "bytes")

    for document in read_documents(files, lang, on_error, encoding=encoding, report=report, on_file=file_read):
        hashes.append(_id_hash(document.id))
        targets += bool(document.target_sentences or (document.summary or "").strip())
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_counts=True)
    return _Scan(report, values, frozenset(values[counts > 1].tolist()), targets)


def _unique(documents: Iterator[Document], scan: _Scan, counts: Counter[str]) -> Iterator[tuple[str, Document]]:
    """Yield (id, document), each id once, passing over ids in use.

    The first document of an id keeps it. A version in another language becomes ``id#LANGUAGE``
    (:func:`~largeconcept.data.documents.version_of` undoes that), any other one ``id#2``, and so on.
    """
    seen: Counter[str] = Counter()
    known: set[tuple[str, str | None]] = set()

    def taken(id: str) -> bool:
        value = np.uint64(_id_hash(id))
        place = int(np.searchsorted(scan.hashes, value))
        return place < len(scan.hashes) and bool(scan.hashes[place] == value)

    for document in documents:
        id = document.id
        if _id_hash(id) in scan.repeated:
            seen[id] += 1
            version = (id, document.lang)
            translated = document.lang is not None and version not in known
            known.add(version)
            if seen[id] > 1 and translated and not taken(f"{id}#{document.lang}"):
                id = f"{id}#{document.lang}"
                counts["renamed_ids"] += 1
            elif seen[id] > 1:
                while taken(f"{id}#{seen[id]}"):
                    seen[id] += 1
                id = f"{id}#{seen[id]}"
                counts["renamed_ids"] += 1
        yield id, document


class _Build:
    """The second pass."""

    def __init__(
        self,
        folder: BuildFolder,
        codec: ConceptCodec,
        segmenter: Segmenter,
        metadata: DatasetMetadata,
        target: Target | None,
        on_error: OnError,
        progress: Progress | None,
    ) -> None:
        self.folder, self.settings, self.target = folder, folder.settings, target
        self.codec, self.segmenter, self.metadata = codec, segmenter, metadata
        self.on_error, self.progress = on_error, progress

    def run(self, source: Iterator[Document], scan: _Scan, where: str) -> BuildReport:
        """Make every shard that is not there yet, then finish the manifest."""
        total = scan.report.documents
        if not total:
            raise DataError("no document could be read", where=where, hint=_first(scan.report.skipped))
        report = BuildReport(str(self.folder.folder), skipped=list(scan.report.skipped))
        counts: Counter[str] = Counter(scan.report.counts)
        renamed: Counter[str] = Counter()
        documents = _unique(source, scan, renamed)
        names: list[dict[str, Any]] = []
        done = 0
        while done < total:
            path = self.folder.folder / f"shard-{len(names):05d}.parquet"
            shard = self.folder.finished_shard(path)
            if shard is not None:
                report.resumed_shards += 1
                for _ in itertools.islice(documents, shard.consumed):
                    pass
            else:
                shard = self._shard(documents, path, done, total)
            if not shard.consumed:
                raise DataError("the input changed while it was read", where=where, hint="build again")
            done += shard.consumed
            names.append({"name": path.name, "documents": shard.documents, "concepts": shard.concepts})
            report.documents += shard.documents
            report.concepts += shard.concepts
            report.skipped += shard.skipped
            counts += shard.counts
            if self.progress is not None:
                self.progress(done, total, "documents")
        if not report.documents:
            hint = _first(report.skipped) or f"no document has a {self.target}"
            raise DataError("no document is left to build", where=self.folder.folder, hint=hint)
        report.shards = len(names)
        report.counts = dict(sorted((counts + renamed).items()))
        saved = report.to_dict()
        del saved["resumed_shards"], saved["path"]
        self.folder.write_manifest({"status": "finished", "report": saved, "shards": names})
        return report

    def _shard(self, documents: Iterator[tuple[str, Document]], path: Path, done: int, total: int) -> ShardFacts:
        shard = ShardFacts()
        rows: list[Row] = []
        group: list[Row] = []
        waiting = sentences = 0

        def encode() -> None:
            if not group:
                return
            rows.extend(self._encode(group, shard))
            group.clear()
            if self.progress is not None:
                self.progress(done + shard.consumed, total, "documents")

        while (
            shard.consumed < self.settings["documents_per_shard"] and sentences < self.settings["sentences_per_shard"]
        ):
            item = next(documents, None)
            if item is None:
                break
            shard.consumed += 1
            row = self._row(*item, shard)
            if row is None:
                continue
            group.append(row)
            waiting += row.num_sentences
            sentences += row.num_sentences
            if waiting >= self.settings["group_sentences"]:
                encode()
                waiting = 0
        encode()
        if not shard.consumed:
            return shard
        shard.documents = len(rows)
        shard.concepts = sum(row.num_sentences for row in rows)
        write_shard(path, rows, self.metadata, self.target is not None, self.folder.metadata(shard))
        return shard

    def _row(self, id: str, document: Document, shard: ShardFacts) -> Row | None:
        """Segment one document; ``None`` if it is left out."""
        where = document.where or id
        targets: Sequence[str] | None = None
        try:
            if self.target in ("target_sentences", "keep"):
                targets, _ = self._cut(document.target_sentences or (), (0,), document.lang, shard)
            if self.target == "summary" or (self.target == "keep" and not targets):
                targets, _ = self._sentences(document.summary or "", document.lang)
            if self.target == "keep":
                shard.counts["with_target"] += bool(targets)
            elif self.target is not None and not targets:
                shard.counts["without_target"] += 1
                return None
            sentences: Sequence[str]
            starts: Sequence[int]
            if document.sentences:
                sentences, starts = self._cut(document.sentences, document.paragraph_starts, document.lang, shard)
            else:
                sentences, starts = self._sentences(document.text, document.lang)
            if not sentences:
                raise DataError("the document has no sentence")
            plans: list[str] | None = None
            if self.metadata.plan is not None:
                starts, plans = self._plan(document, sentences, starts, shard)
        except ConceptLMError as error:
            self._refuse(error, where, id, shard)
            return None
        return Row(id, sentences, document.lang, starts, targets, where, plans)

    def _plan(
        self, document: Document, sentences: Sequence[str], starts: Sequence[int], shard: ShardFacts
    ) -> tuple[list[int], list[str]]:
        """Return the paragraphs of a planned document and their plans."""
        settings = self.metadata.plan or {}
        paragraphs = plan_paragraphs(
            sentences,
            starts,
            settings["kind"],
            title=document.title,
            given=document.plans,
            limit=settings["max_paragraph"],
        )
        plans = []
        for paragraph in paragraphs:
            plan = paragraph.plan
            if plan != sentences[paragraph.start]:
                plan = one_line(plan)
                if len(plan) > self.settings["max_sentence_chars"]:
                    shard.counts["long_plans_cut"] += 1
                    plan = self._sentences(plan, document.lang)[0][0]
            plans.append(plan)
        return [paragraph.start for paragraph in paragraphs], plans

    def _sentences(self, text: str, lang: str | None) -> tuple[list[str], tuple[int, ...]]:
        sentences: list[str] = []
        starts: list[int] = []
        paragraph = -1
        for span in self.segmenter.segment(text, lang) if text.strip() else ():
            sentence = one_line(span.of(text))
            if not sentence:
                continue
            if span.paragraph != paragraph:
                paragraph = span.paragraph
                starts.append(len(sentences))
            sentences.append(sentence)
        return sentences, tuple(starts) or (0,)

    def _cut(
        self, sentences: Sequence[str], starts: Sequence[int], lang: str | None, shard: ShardFacts
    ) -> tuple[Sequence[str], Sequence[int]]:
        """Cut given sentences that are too long for a codec."""
        limit = self.settings["max_sentence_chars"]
        if all(len(sentence) <= limit for sentence in sentences):
            return sentences, starts
        result: list[str] = []
        moved: dict[int, int] = {}
        for index, sentence in enumerate(sentences):
            moved[index] = len(result)
            if len(sentence) <= limit:
                result.append(sentence)
            else:
                shard.counts["long_sentences_cut"] += 1
                result.extend(self._sentences(sentence, lang)[0])
        return result, [moved[start] for start in starts]

    def _refuse(self, error: ConceptLMError, where: str, id: str, shard: ShardFacts) -> None:
        place = f"{where}: document {id}"
        detail = error.problem if error.where is None else f"{error.problem} ({error.where})"
        located = DataError(detail, where=place, got=error.got, expected=error.expected, hint=error.hint)
        if self.on_error == "raise":
            raise located from None
        shard.skipped.append(skipped_from(located, id))

    def _encode(self, rows: Sequence[Row], shard: ShardFacts) -> list[Row]:
        """Fill in the concepts of the rows; return those that could be encoded."""
        try:
            vectors = self._vectors(rows)
        except ConceptLMError:
            vectors = None  # one document spoils the call: find it by encoding each alone
        good: list[Row] = []
        for row in rows:
            try:
                own = vectors if vectors is not None else self._vectors([row])
                row.concepts = self._take(own, row, row.sentences)
                if row.target_sentences is not None:
                    row.target_concepts = self._take(own, row, row.target_sentences)
                if row.plans is not None:
                    row.plan_concepts = self._take(own, row, row.plans)
            except ConceptLMError as error:
                self._refuse(error, row.where, row.id, shard)
            else:
                good.append(row)
        return good

    def _vectors(self, rows: Sequence[Row]) -> dict[tuple[str, str | None], Half | None]:
        """Return (C,) float16 for each distinct (sentence, language), ``None`` where float16 cannot hold the vector."""
        distinct = dict.fromkeys(
            (sentence, row.lang)
            for row in rows
            for sentence in (*row.sentences, *(row.target_sentences or ()), *(row.plans or ()))
        )
        table: dict[tuple[str, str | None], Half | None] = {}
        for keys in ([k for k in distinct if k[1] is not None], [k for k in distinct if k[1] is None]):
            if not keys:
                continue
            sentences = [sentence for sentence, _ in keys]
            langs = [lang for _, lang in keys if lang is not None] or None
            vectors = self.codec.encode(sentences, langs, batch_tokens=self.settings["batch_tokens"])
            if tuple(vectors.shape) != (len(keys), self.metadata.dim):
                expected = (len(keys), self.metadata.dim)
                raise DataError("the codec gives another shape", expected=expected, got=tuple(vectors.shape))
            values = vectors.detach().float().cpu().numpy()
            fits = (np.abs(values) <= _FLOAT16_MAX).all(axis=1)  # False for NaN too
            half = np.where(fits[:, None], values, 0).astype(np.float16)
            table.update((key, half[i] if fits[i] else None) for i, key in enumerate(keys))
        return table

    def _take(self, table: dict[tuple[str, str | None], Half | None], row: Row, sentences: Sequence[str]) -> Half:
        result = np.empty((len(sentences), self.metadata.dim), dtype=np.float16)
        for index, sentence in enumerate(sentences):
            vector = table[sentence, row.lang]
            if vector is None:
                expected = "finite numbers within ±65504"
                raise DataError("the codec gives a vector that float16 cannot hold", got=sentence, expected=expected)
            result[index] = vector
        return result


def _first(skipped: Sequence[Skipped]) -> str | None:
    return f"first reason: {skipped[0].where}: {skipped[0].reason}" if skipped else None
