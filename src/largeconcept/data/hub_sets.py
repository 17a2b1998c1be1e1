"""Public sets of texts with summaries, fetched through the package ``datasets`` and written as JSON lines.

The files are what :func:`~largeconcept.data.documents.read_documents` reads, so a set can be judged on (``eval run
--documents``), built into a dataset of pairs (``data build --target summary``), looked at and kept. Nothing is fetched
but by :func:`fetch_summaries`.

Revisions are pinned where a set is kept as Parquet. XSum and XLSum came with a loading script, which ``datasets`` no
longer runs; their automatic conversion to Parquet is read instead, a branch that cannot be pinned.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from largeconcept.errors import ConfigError, DataError, did_you_mean, missing_extra
from largeconcept.io import atomic_path
from largeconcept.languages import flores
from largeconcept.types import Document

CONVERTED = "refs/convert/parquet"
"""Branch of the hub's own conversion of a set to Parquet."""
COLUMNS = ("text", "summary", "id", "title")
SHUFFLED = 10_000
"""Rows among which is drawn where only some are wanted; they are held in memory."""


@dataclass(frozen=True, slots=True)
class SummarySet:
    """A public set.

    Attributes:
        path: its name on the hub, or a folder.
        about, licence: for people.
        columns: what a document is made of (``text`` and ``summary``, and if there are such ``id`` and ``title``) ->
            column.
        languages: FLORES-200 code -> name of the configuration.
        revision: commit, or a branch.
        lines: each line of a summary is a sentence.
    """

    path: str
    about: str
    licence: str
    columns: Mapping[str, str]
    languages: Mapping[str, str | None] = field(default_factory=lambda: {"eng_Latn": None})
    revision: str | None = None
    lines: bool = False


_XLSUM = (
    "amh_Ethi amharic arb_Arab arabic azj_Latn azerbaijani ben_Beng bengali mya_Mymr burmese "
    "zho_Hans chinese_simplified zho_Hant chinese_traditional eng_Latn english fra_Latn french guj_Gujr gujarati "
    "hau_Latn hausa hin_Deva hindi ibo_Latn igbo ind_Latn indonesian jpn_Jpan japanese run_Latn kirundi "
    "kor_Hang korean kir_Cyrl kyrgyz mar_Deva marathi npi_Deva nepali gaz_Latn oromo pbt_Arab pashto pes_Arab persian "
    "por_Latn portuguese pan_Guru punjabi rus_Cyrl russian gla_Latn scottish_gaelic srp_Cyrl serbian_cyrillic "
    "sin_Sinh sinhala som_Latn somali spa_Latn spanish swh_Latn swahili tam_Taml tamil tel_Telu telugu tha_Thai thai "
    "tir_Ethi tigrinya tur_Latn turkish ukr_Cyrl ukrainian urd_Arab urdu vie_Latn vietnamese cym_Latn welsh "
    "yor_Latn yoruba"
)
"""Language and configuration, in turn. Three are left out: FLORES-200 has no Pidgin and no Serbian in Latin script, and
writes Uzbek in Latin script."""

SETS: dict[str, SummarySet] = {
    "cnn_dailymail": SummarySet(
        "abisee/cnn_dailymail",
        "News with their highlights, English (version 3.0.0; arXiv:1602.06023).",
        "Apache-2.0, as its card says; the articles are their publishers'",
        {"text": "article", "summary": "highlights", "id": "id"},
        {"eng_Latn": "3.0.0"},
        revision="96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
        lines=True,
    ),
    "xsum": SummarySet(
        "EdinburghNLP/xsum",
        "BBC news with one sentence each, English (arXiv:1808.08745).",
        "unknown, as its card says",
        {"text": "document", "summary": "summary", "id": "id"},
        revision=CONVERTED,
    ),
    "xlsum": SummarySet(
        "csebuetnlp/xlsum",
        "BBC news with summaries in 42 languages (ACL 2021 findings, 413), those of arXiv:2412.08821, section 4.3.",
        "CC-BY-NC-SA-4.0",
        {"text": "text", "summary": "summary", "id": "id", "title": "title"},
        dict(zip(_XLSUM.split()[::2], _XLSUM.split()[1::2], strict=True)),
        revision=CONVERTED,
    ),
    "lcfo": SummarySet(
        "facebook/LCFO",
        "Long texts with summaries of 20, 10 and 5 %, English (arXiv:2412.08268); most sources are not in it.",
        "CC-BY-NC-4.0; for evaluation only",
        {"text": "source"},  # its summaries are of three lengths: which one is meant must be said
        {"eng_Latn": "source_data"},
        revision="9109c9f66e74a0b78b82aba2b54ffeecf3b57c44",
    ),
}
"""Sets by name."""


@dataclass(slots=True)
class FetchReport:
    """What was fetched.

    Attributes:
        path: the file.
        documents: in it.
        counts: rows that are not, by reason: ``without_text``, ``without_summary``.
        licence: of the set, where it is known.
    """

    path: str
    documents: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    licence: str = ""


def fetch_summaries(
    name: str,
    out: str | Path,
    *,
    split: str = "test",
    lang: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    config: str | None = None,
    revision: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> FetchReport:
    """Write a set as JSON lines; the file is whole or not there.

    Args:
        name: of :data:`SETS`, the name of any other set on the hub, or the folder of one.
        out: the file, ``.jsonl``.
        split: of the set.
        lang: language, for sets with several; and that of texts of a set that is not in :data:`SETS`.
        limit: documents at most, drawn with ``seed``.
        seed: of the draw.
        columns: ``text``, ``summary``, ``id``, ``title`` -> column, where they differ from what is known.
        config: of the set, where it differs from what is known.
        revision: commit or branch; the known one by default.
        progress: called with (documents, wanted or 0, unit).

    Raises:
        DependencyError: ``datasets`` is not installed.
        DataError: no such set, split or column, no network, or no document; the file cannot be written.
        ConfigError: a setting out of range, or a file of another kind.
        LanguageError: an unknown language.
    """
    path = Path(out)
    if path.suffix != ".jsonl":
        raise ConfigError("unknown kind of file", where="out", got=out, expected="FILE.jsonl")
    counts: Counter[str] = Counter()
    report = FetchReport(str(path), licence=SETS[name].licence if name in SETS else "")
    documents = read_summaries(
        name,
        split,
        lang=lang,
        limit=limit,
        seed=seed,
        columns=columns,
        config=config,
        revision=revision,
        counts=counts,
    )
    first = next(documents, None)  # what is wrong with the set is known before a file is opened
    if first is None:
        reasons = ", ".join(f"{reason.replace('_', ' ')}: {number}" for reason, number in counts.items())
        raise DataError("no document with a summary", where=f"{name}: {split}", got=reasons or "an empty split")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for document in itertools.chain([first], documents):
                file.write(json.dumps(_plain(document), ensure_ascii=False) + "\n")
                report.documents += 1
                if progress is not None:
                    progress(report.documents, limit or 0, "documents")
    except OSError as error:
        raise DataError("cannot write the file", where=path, got=error.strerror or error) from None
    report.counts = dict(counts)
    return report


def read_summaries(
    name: str,
    split: str = "test",
    *,
    lang: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    config: str | None = None,
    revision: str | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Document]:
    """Yield the documents of a set that have a text and a summary; see :func:`fetch_summaries`.

    Args:
        counts: rows that are left out are counted there.

    Raises:
        DataError, DependencyError, ConfigError, LanguageError: see :func:`fetch_summaries`.
    """
    if limit is not None and limit < 1:
        raise ConfigError("out of range", where="limit", got=limit, expected="at least 1 document")
    chosen, code = _choose(name, lang)
    named = config if config is not None else chosen.languages.get(code or "")
    known = {**chosen.columns, **(columns or {})}
    for column in known:
        if column not in COLUMNS:
            raise ConfigError("unknown part of a document", where="columns", got=column, expected=", ".join(COLUMNS))
    where = f"{chosen.path}: {split}"
    rows = _open(chosen.path, named, split, revision or chosen.revision)
    left_out = counts if counts is not None else Counter()
    if limit is not None:
        rows = rows.shuffle(seed=seed, buffer_size=SHUFFLED)
    found = 0
    for number, row in enumerate(_rows(rows, where)):
        if number == 0:
            _check_columns(known, row, where)
        text, summary = (_text(row[known[part]]) for part in ("text", "summary"))
        if not text or not summary:
            left_out["without_text" if not text else "without_summary"] += 1
            continue
        own = str(row[known["id"]]) if "id" in known else str(number)
        prefix = f"{name}/{named}" if len(chosen.languages) > 1 else name  # one id is one text in one language
        yield Document(
            f"{prefix}/{own}",
            text,
            lang=code,
            title=_text(row[known["title"]]) or None if "title" in known else None,
            summary=None if chosen.lines else summary,
            target_sentences=_highlights(summary) if chosen.lines else None,
            source=name,
        )
        found += 1
        if found == limit:
            return


def _choose(name: str, lang: str | None) -> tuple[SummarySet, str | None]:
    """Return the set of a name, and the language that is meant."""
    code = None if lang is None else flores(lang)
    if name not in SETS:
        if "/" not in name and not Path(name).is_dir():
            raise DataError("unknown set", where="data fetch", got=name, hint=did_you_mean(name, SETS))
        return SummarySet(name, "", "", {}, {}), code
    chosen = SETS[name]
    if code is None and len(chosen.languages) > 1:
        raise ConfigError("which language?", where=f"{name}: lang", expected=", ".join(chosen.languages))
    code = code or next(iter(chosen.languages))
    if code not in chosen.languages:
        expected = ", ".join(chosen.languages)
        raise DataError("the set has no such language", where=name, got=code, expected=expected)
    return chosen, code


def _open(path: str, config: str | None, split: str, revision: str | None) -> Any:
    """Open a split as a stream: only what is read is fetched."""
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "datasets") from None
    datasets.disable_progress_bars()
    local = Path(path).is_dir()
    try:
        return datasets.load_dataset(path, config, split=split, revision=None if local else revision, streaming=True)
    except Exception as error:  # whatever is wrong with the hub, the network or the set
        raise _failed(error, f"{path}: {split}", local) from None


def _rows(rows: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield rows; a connection that is lost on the way is told like one that was never there."""
    stream = iter(rows)
    while True:
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:  # see above
            raise _failed(error, where, False) from None
        yield row


def _failed(error: Exception, where: str, local: bool) -> DataError:
    lines = str(error).strip().splitlines()
    offline = any(os.environ.get(name) for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    hint = "it needs the network once" + ("; HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set" if offline else "")
    return DataError(
        "the set cannot be read",
        where=where,
        got=lines[0] if lines else type(error).__name__,
        hint=None if local else hint,
    )


def _check_columns(known: Mapping[str, str], row: Mapping[str, Any], where: str) -> None:
    there = ", ".join(row)
    for part in ("text", "summary"):
        if part not in known:
            hint = f"name it: --columns {part}=COLUMN"
            raise DataError(f"which column is the {part}?", where=where, expected=f"one of {there}", hint=hint)
    for part, column in known.items():
        if column not in row:
            hint = f"name it: --columns {part}=COLUMN"
            raise DataError(f"no such column for the {part}", where=where, got=column, expected=there, hint=hint)


def _text(value: Any) -> str:
    """Return a text, or one of several paragraphs."""
    if isinstance(value, list):
        return "\n\n".join(part for part in map(_text, value) if part)
    return value.strip() if isinstance(value, str) else ""


def _highlights(summary: str) -> tuple[str, ...]:
    """Return the lines of a summary as sentences; CNN/DailyMail parts the full stop from the last word."""
    lines = (" ".join(line.split()) for line in summary.splitlines())
    return tuple(line.removesuffix(" .") + "." if line.endswith(" .") else line for line in lines if line)


def _plain(document: Document) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": document.id,
        "lang": document.lang,
        "title": document.title,
        "summary": document.summary,
        "target_sentences": None if document.target_sentences is None else list(document.target_sentences),
        "source": document.source,
        "text": document.text,
    }
    return {name: value for name, value in record.items() if value is not None}


__all__ = ["COLUMNS", "SETS", "FetchReport", "SummarySet", "fetch_summaries", "read_summaries"]
