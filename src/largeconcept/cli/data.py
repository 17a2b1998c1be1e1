"""``largeconcept data build``, ``data inspect`` and ``data corpus debian``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import Codec, InputLang, Json, echo, echo_json, key_values, log, progress, table


def build(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help="Text, Markdown or JSON lines; globs too.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the dataset.")],
    codec: Codec = "starter",
    split: Annotated[str, typer.Option("--split", help="Name of the split.")] = "train",
    lang: InputLang = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Build source and target rows: summary or target_sentences.")
    ] = None,
    segmenter: Annotated[
        list[str] | None, typer.Option("--segmenter", "-s", help="A setting of the segmenter, as max_chars=200.")
    ] = None,
    documents_per_shard: Annotated[int, typer.Option(min=1, help="Documents in a shard at most.")] = 4096,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out documents that cannot be read, and list them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier build of this split.")] = False,
    json: Json = False,
) -> None:
    """Encode documents to a concept dataset.

    A build that was stopped goes on where it was when it is called again with the same input and settings.
    """
    from largeconcept.data.build import build_concepts

    with progress("build") as update:
        report = build_concepts(
            inputs,
            out,
            codec,
            key_values(segmenter) or None,
            split,
            lang,
            target=target,  # type: ignore[arg-type]
            documents_per_shard=documents_per_shard,
            on_error="report" if keep_going else "raise",
            overwrite=overwrite,
            progress=update,
        )
    for one in report.skipped:
        log(f"left out: {one.where}: {one.reason}")
    if json:
        echo_json(report.to_dict())
        return
    echo(f"{report.path}: {report.documents:,} documents, {report.concepts:,} concepts, {report.shards} shards")
    if report.resumed_shards:
        echo(f"  {report.resumed_shards} of the shards were there already")
    for name, count in report.counts.items():
        if count:
            echo(f"  {name.replace('_', ' ')}: {count:,}")


def inspect(
    path: Annotated[str, typer.Argument(help="Folder of a concept dataset.")],
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
    json: Json = False,
) -> None:
    """Check every promise of a concept dataset.

    The first one that is broken ends it, with shard, row and column.
    """
    from largeconcept.data.inspect import inspect_dataset

    report = inspect_dataset(path, split)
    if json:
        echo_json(report.to_dict())
        return
    echo(f"{report.path}: {report.dim} channels, codec {report.codec_id} ({report.codec_fingerprint})")
    if report.affixes:
        echo("affixes: " + ", ".join(repr(text) for text in report.affixes))
    rows = []
    for name, one in report.splits.items():
        lengths = f"{one.min_length} / {one.median_length:g} / {one.max_length}"
        norms = f"{one.min_norm:.3g} / {one.mean_norm:.3g} / {one.max_norm:.3g}"
        counts = [f"{value:,}" for value in (one.documents, one.concepts, one.target_concepts, one.shards)]
        rows.append([name, *counts, lengths, norms])
    header = ["split", "documents", "concepts", "targets", "shards", "sentences min/median/max", "norm min/mean/max"]
    for line in table(header, rows):
        echo(line)
    for name, one in report.splits.items():
        if one.languages:
            echo(f"{name}: " + ", ".join(f"{lang} {count:,}" for lang, count in one.languages.items()))
