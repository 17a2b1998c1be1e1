"""``largeconcept data build``, ``data inspect`` and ``data corpus debian``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from largeconcept.cli.common import Codec, InputLang, Json, echo, echo_json, key_values, log, progress


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
