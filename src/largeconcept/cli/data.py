"""``largeconcept data``: build, inspect, affixes, fetch and corpus debian."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from largeconcept.cli.common import Codec, InputLang, Json, echo, echo_json, key_values, log, progress, table
from largeconcept.errors import ConfigError

if TYPE_CHECKING:
    from largeconcept.data.debian import CorpusReport


def build(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help="Text, Markdown or JSON lines; globs too.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the dataset.")],
    codec: Codec = "starter",
    split: Annotated[str, typer.Option("--split", help="Name of the split.")] = "train",
    lang: InputLang = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="keep: keep the summary or target of the documents that have one. summary, target_sentences: build "
            "source and target rows of these alone. none: keep no targets.",
        ),
    ] = "keep",
    plan: Annotated[
        str | None,
        typer.Option("--plan", help="Plan each paragraph: first_sentence, title, or given (a field plans)."),
    ] = None,
    max_paragraph: Annotated[int, typer.Option(min=1, help="With --plan: cut longer paragraphs.")] = 9,
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
            target=None if target == "none" else target,  # type: ignore[arg-type]
            plan=plan,  # type: ignore[arg-type]
            max_paragraph=max_paragraph,
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
    if report.plan is not None:
        totals = ", ".join(f"{name} {one.plan_concepts:,}" for name, one in report.splits.items())
        echo(
            f"plans ({report.plan.get('kind')}, paragraphs of up to {report.plan['max_paragraph']} sentences): {totals}"
        )
    rows = []
    for name, one in report.splits.items():
        lengths = f"{one.min_length} / {one.median_length:g} / {one.max_length}"
        norms = f"{one.min_norm:.3g} / {one.mean_norm:.3g} / {one.max_norm:.3g}"
        counts = [f"{value:,}" for value in (one.documents, one.concepts, one.targets, one.target_concepts, one.shards)]
        rows.append([name, *counts, lengths, norms])
    header = ["split", "documents", "concepts", "with target", "target concepts", "shards"]
    header += ["sentences min/median/max", "norm min/mean/max"]
    for line in table(header, rows):
        echo(line)
    for name, one in report.splits.items():
        if one.languages:
            echo(f"{name}: " + ", ".join(f"{lang} {count:,}" for lang, count in one.languages.items()))


def affixes(
    path: Annotated[str, typer.Argument(help="Folder of a concept dataset.")],
    add: Annotated[
        list[str] | None, typer.Option("--add", help="A text to encode and keep with the dataset; may be repeated.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", "-c", help="The codec of the dataset. Default: as noted in it.")
    ] = None,
    json: Json = False,
) -> None:
    """List or add sentences that stand around documents."""
    from largeconcept.data.affixes import add_affixes, read_affixes

    found = read_affixes(path)
    if add:
        from largeconcept.codec import load_codec
        from largeconcept.data.reader import ConceptDataset, splits

        name = codec or ConceptDataset(path, (splits(path) or ["train"])[0]).metadata.codec_id
        found = add_affixes(path, add, load_codec(name))
    texts = sorted(found.concepts)
    if json:
        echo_json(texts)
        return
    for text in texts:
        echo(text)


def fetch(
    name: Annotated[
        str | None, typer.Argument(help="A set by name, any set of the hub (org/name), or a folder. Without: the list.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="The file, .jsonl.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the set.")] = "test",
    lang: Annotated[str | None, typer.Option("--lang", "-l", help="Language, for sets with several.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Documents at most, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", help="text=, summary=, id= or title=COLUMN, where it is not known; may be repeated."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="Configuration of the set, if not the known one.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit or branch, if not the known one.")] = None,
    json: Json = False,
) -> None:
    """Fetch texts with summaries from the Hugging Face hub.

    Writes JSON lines that eval run --documents and data build read. Needs the extra datasets and, once, the network.
    """
    from largeconcept.data.hub_sets import SETS, fetch_summaries

    if name is None:
        if json:
            echo_json({key: asdict(one) for key, one in SETS.items()})
            return
        for line in table(["set", "what", "licence"], [[key, one.about, one.licence] for key, one in SETS.items()]):
            echo(line)
        return
    if out is None:
        raise ConfigError("where to?", where="--out", expected="FILE.jsonl")
    chosen = {key: str(value) for key, value in key_values(columns).items()}
    with progress("fetch") as update:
        report = fetch_summaries(
            name,
            out,
            split=split,
            lang=lang,
            limit=limit,
            seed=seed,
            columns=chosen,
            config=config,
            revision=revision,
            progress=update,
        )
    if json:
        echo_json(asdict(report))
        return
    echo(f"{report.path}: {report.documents:,} documents" + (f"; licence: {report.licence}" if report.licence else ""))
    for reason, count in report.counts.items():
        echo(f"  {reason.replace('_', ' ')}: {count:,}")


def debian(
    out: Annotated[str, typer.Argument(help="Folder of the corpus.")],
    cache: Annotated[str | None, typer.Option("--cache", help="Folder for downloads. Default: cache in OUT.")] = None,
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="A Debian suite; may be repeated. Default: bookworm, trixie.")
    ] = None,
    part: Annotated[list[str] | None, typer.Option("--part", help="Only this part; may be repeated.")] = None,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", "-l", help="A language wanted; may be repeated. Default: 18.")
    ] = None,
    every_part: Annotated[bool, typer.Option("--all", help="Also parts with little text for their size.")] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out parts whose tools or packages are missing.")
    ] = False,
    mirror: Annotated[
        str | None, typer.Option("--mirror", help="Address of a Debian mirror. Default: apt's own.")
    ] = None,
    keyring: Annotated[str | None, typer.Option("--keyring", help="File with the keys that sign the suites.")] = None,
    pin: Annotated[
        str | None, typer.Option("--pin", help="manifest.json of an earlier build to repeat exactly.")
    ] = None,
    json: Json = False,
) -> None:
    """Rebuild the multilingual corpus from Debian packages.

    Downloads with apt into the cache; nothing is installed and no root is needed. A build that was stopped goes on
    where it was when it is called again.
    """
    from largeconcept.data.debian import build_corpus

    with progress("corpus") as update:
        report = build_corpus(
            out,
            cache=cache,
            suites=suite or ("bookworm", "trixie"),
            parts=part or None,
            languages=lang or None,
            lean=not every_part,
            progress=update,
            mirror=mirror,
            keyring=keyring,
            skip_missing=skip_missing,
            pin=pin,
        )
    for name, reason in report.skipped.items():
        log(f"left out: {name}: {reason}")
    if json:
        echo_json(report.to_dict())
        return
    for line in corpus_lines(report):
        echo(line)


def corpus_lines(report: CorpusReport) -> list[str]:
    """Return the totals and the tables by part and by language, for people."""
    parts = [
        [name, *(f"{value:,}" for value in (one.documents, one.sentences, one.pairs, one.packages))]
        for name, one in report.parts.items()
    ]
    columns = ("documents", "sentences", "pairs", "summaries")
    languages = [[lang, *(f"{counts.get(name, 0):,}" for name in columns)] for lang, counts in report.languages.items()]
    return [
        *table(["part", "documents", "sentences", "pairs", "packages"], parts),
        "",
        *table(["language", *columns], languages),
        "",
        f"{report.out}: {report.documents:,} documents, {report.sentences:,} sentences, {report.pairs:,} pairs, "
        f"{report.summaries:,} summaries in {report.seconds:,.0f} s",
    ]
