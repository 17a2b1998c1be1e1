"""The whole path on real text, in minutes on two cores: text → concepts → models → concepts → text.

``largeconcept demo`` runs it and prints; this file is also the map of the library: every room is used once, in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from largeconcept.errors import DataError
from largeconcept.io import atomic_write_bytes, write_json

if TYPE_CHECKING:
    from largeconcept.codec.metrics import RoundTrip
    from largeconcept.eval.next_concept import NextConceptReport
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.types import ConceptCodec, Document

SCRATCH_CODEC: dict[str, Any] = {
    "network": {
        "dim": 192,
        "width": 192,
        "num_heads": 3,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "vocab_size": 4096,
        "max_tokens": 128,
    },
    "objective": {"sampled_vocabulary": 1024, "noise": 0.15, "decoder_mask": 0.1},
    "micro_tokens": 2048,
    "micro_batches": 2,
    "max_steps": 500,
    "save_every": 100,
}
"""The codec that ``make tiny`` trains from nothing: too small and too short to write well, enough to see it work."""

TOKEN_CONCEPTS = 64
"""Concepts of a step of the token model: small steps, since its share of computation is soon used up."""
VALIDATION_MODULUS = 15
CODEC_SENTENCES = 60  # per language, for the round-trip figures
PROMPT_SENTENCES = 8
NEW_CONCEPTS = 4


class Reporter(Protocol):
    """Where the demo tells what it does."""

    def section(self, title: str) -> None:
        """Begin a part."""
        ...

    def line(self, text: str = "") -> None:
        """Say something."""
        ...

    def show(self, renderable: Any) -> None:
        """Show a table."""
        ...

    def progress(self, what: str) -> AbstractContextManager[Callable[..., None]]:
        """Give a function ``update(done, total, unit)`` for a piece of work."""
        ...


@dataclass(slots=True)
class DemoResult:
    """What the demo found; also written to ``results.json``.

    Attributes:
        seconds: wall-clock time.
        round_trips: auto-BLEU and chrF of the codec per language.
        reports: next-concept figures of each model.
        samples: prompts with what the model wrote.
        pipeline: folder of the saved two-tower pipeline.
    """

    seconds: float = 0.0
    round_trips: list[RoundTrip] = field(default_factory=list)
    reports: dict[str, NextConceptReport] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    pipeline: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "seconds": self.seconds,
            "round_trips": {r.lang: {"auto_bleu": r.auto_bleu, "chrf": r.chrf} for r in self.round_trips},
            "models": {name: report.to_dict() for name, report in self.reports.items()},
            "samples": self.samples,
            "pipeline": self.pipeline,
        }


def find_corpus(corpus: str | Path | None = None) -> Path:
    """Return the folder of the sample corpus: the one given, ``examples/corpus`` here, or beside the source tree.

    Raises:
        DataError: none of them holds ``train`` and ``test``.
    """
    beside = Path(__file__).resolve().parents[2] / "examples" / "corpus"
    places = [Path(corpus)] if corpus is not None else [Path("examples/corpus"), beside]
    for place in places:
        if (place / "train").is_dir() and (place / "test").is_dir():
            return place
    raise DataError(
        "no sample corpus here",
        where=", ".join(map(str, places)),
        expected="folders train and test with .jsonl files",
        hint="run it in a clone of the repository, or give --corpus FOLDER",
    )


def run_demo(
    out: str | Path,
    reporter: Reporter,
    *,
    codec: str = "starter",
    corpus: str | Path | None = None,
    steps: int | None = None,
    codec_steps: int | None = None,
) -> DemoResult:
    """Run the whole path; called again it goes on where it was stopped.

    Args:
        out: folder for everything the demo makes.
        reporter: where to tell.
        codec: ``starter``, the folder of a codec, or ``scratch`` to train a small one first.
        corpus: folder with ``train`` and ``test``; the sample corpus by default.
        steps: training steps of each model, for tests; the recipes' own by default.
        codec_steps: training steps of a codec from scratch.

    Raises:
        DataError: no corpus.
    """
    from largeconcept.recipes import tiny

    began = time.monotonic()
    folder, source = Path(out), find_corpus(corpus)
    result = DemoResult()
    space, name = _codec(codec, folder, source, reporter, codec_steps)
    data = _dataset(space, name, folder, source, reporter)
    documents = _documents(source / "test")
    reporter.section("3. How well the concepts keep the text")
    result.round_trips = _round_trips(space, documents, reporter)
    pipelines: dict[str, ConceptPipeline] = {}
    recipes = {"mse": tiny.mse, "two_tower": tiny.two_tower}
    for number, (kind, recipe) in enumerate(recipes.items(), start=4):
        reporter.section(f"{number}. Train a {'Base-LCM (regression)' if kind == 'mse' else 'two-tower diffusion LCM'}")
        config = recipe(data, folder / kind)
        if steps is not None:
            config = config.override(f"train.max_steps={steps}")
        pipelines[kind] = _train(config, space, name, folder / f"pipeline-{kind}")
    reporter.section("6. Train a token model with as many parameters and as much computation, to compare with")
    _token_model(config, space, name, folder, reporter)
    reporter.section("7. Predict the next concept of held-out documents")
    result.reports = _judge(pipelines, data, reporter)
    result.pipeline = str(folder / "pipeline-two_tower")
    reporter.section("8. Continue held-out documents in words")
    result.samples = _continue(pipelines["two_tower"], documents, reporter)
    result.seconds = time.monotonic() - began
    write_json(folder / "results.json", result.to_dict())
    reporter.line()
    reporter.line(f"Done in {result.seconds / 60:.1f} minutes. Everything is in {folder}; go on with, for example:")
    reporter.line(
        f"  largeconcept eval run {result.pipeline} --data {data} --tasks all --limit 50 --out {folder / 'eval'}"
    )
    reporter.line(
        f'  largeconcept generate --pipeline {result.pipeline} --text "It was a dark night. The door opened."'
    )
    return result


def _codec(
    codec: str, folder: Path, corpus: Path, reporter: Reporter, codec_steps: int | None
) -> tuple[ConceptCodec, str]:
    from largeconcept.codec import load_codec

    if codec != "scratch":
        reporter.section("1. The concept space")
        space = load_codec(codec)
        reporter.line(f"{codec}: {space.dim} channels, writes {', '.join(space.languages)}")
        return space, codec
    reporter.section("1. Train a small concept space from nothing")
    from largeconcept.train.codec_job import train_codec
    from largeconcept.train.codec_trainer import CodecTrainConfig

    config = CodecTrainConfig.from_dict({**SCRATCH_CODEC, "out": str(folder / "codec-run")})
    if codec_steps is not None:
        config = config.override(f"max_steps={codec_steps}")
    saved = folder / "codec-run" / "codec"
    if not (saved / "config.json").is_file():
        train_codec([split_corpus(corpus, folder / "corpus")["train"]], config)
    return load_codec(saved), str(saved)


def _dataset(space: ConceptCodec, name: str, folder: Path, corpus: Path, reporter: Reporter) -> Path:
    from largeconcept.data.build import build_concepts

    reporter.section("2. Turn sentences into concepts")
    data = folder / "data"
    for split, inputs in split_corpus(corpus, folder / "corpus").items():
        with reporter.progress(f"encode {split}") as update:
            # Given by name, not as the object at hand: the name is noted, and a run finds its codec by it.
            report = build_concepts(inputs, data, codec=name, split=split, progress=update)
        reporter.line(f"{split}: {report.documents:,} documents, {report.concepts:,} concepts of {space.dim} channels")
    return data


def split_corpus(corpus: Path, out: Path) -> dict[str, str]:
    """Return the files of each split; without one for validation, some of the training documents become it.

    Which ones is decided by the hash of their id alone, without what is behind a ``#`` (the number of a part), so that
    a document is in one split in all its parts and languages, whatever else the corpus holds. Settings of generation
    are chosen on them; figures on the test split stay honest.

    Raises:
        DataError: a line that is no document.
    """
    found = {split: str(corpus / split / "*.jsonl") for split in ("train", "validation", "test")}
    if (corpus / "validation").is_dir():
        return found
    lines: dict[str, dict[str, list[bytes]]] = {"train": {}, "validation": {}}
    for file in sorted((corpus / "train").glob("*.jsonl")):
        for number, line in enumerate(file.read_bytes().splitlines(keepends=True), 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError("not JSON", where=f"{file}:{number}", got=error) from None
            name = str(row.get("id", f"{file.name}:{number}")) if isinstance(row, dict) else f"{file.name}:{number}"
            held_out = is_validation(name)
            lines["validation" if held_out else "train"].setdefault(file.name, []).append(line)
    if not all(lines.values()):  # a corpus of a few documents
        return {split: inputs for split, inputs in found.items() if split != "validation"}
    for split, files in lines.items():
        for name, kept in files.items():
            atomic_write_bytes(out / split / name, b"".join(kept))
        found[split] = str(out / split / "*.jsonl")
    return found


def is_validation(document_id: str) -> bool:
    """Return whether a training document is held out to choose settings on: about one in fifteen."""
    key = document_id.split("#", 1)[0]
    return int(hashlib.sha1(key.encode()).hexdigest(), 16) % VALIDATION_MODULUS == 0


def _documents(folder: Path) -> list[Document]:
    from largeconcept.data.documents import read_documents

    return list(read_documents([str(folder / "*.jsonl")]))


def _round_trips(space: ConceptCodec, documents: Sequence[Document], reporter: Reporter) -> list[RoundTrip]:
    """Encode and decode held-out sentences of each language."""
    from rich.table import Table

    from largeconcept.codec.metrics import round_trip

    sentences: dict[str, list[str]] = {}
    for document in documents:
        if document.lang in space.languages:
            sentences.setdefault(document.lang or "", []).extend(document.sentences)
    table = Table(title="Sentence → concept → sentence, held-out text")
    table.add_column("language")
    for column in ("sentences", "auto-BLEU", "chrF", "word for word"):
        table.add_column(column, justify="right")
    found = []
    with reporter.progress("write back") as update:
        for i, (lang, texts) in enumerate(sentences.items()):
            update(i, len(sentences), "languages")
            spread = texts[:: max(1, len(texts) // CODEC_SENTENCES)][:CODEC_SENTENCES]
            one = round_trip(space, spread, lang)
            found.append(one)
            table.add_row(lang, str(one.num_sentences), f"{one.auto_bleu:.1f}", f"{one.chrf:.1f}", f"{one.exact:.0%}")
        update(len(sentences), len(sentences), "languages")
    reporter.show(table)
    return found


def _train(config: Any, space: ConceptCodec, name: str, out: Path) -> ConceptPipeline:
    """Train (or finish training) a model, export it with its codec, and open the result."""
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.recipes.tiny import SAMPLERS
    from largeconcept.train.export import export_run
    from largeconcept.train.loop import Trainer

    if not (out / "pipeline.json").is_file():
        Trainer(config).fit()
        export_run(config.train.out, out, codec=name, generation=SAMPLERS[config.model.type])
    return ConceptPipeline.from_pretrained(out, codec=space)


def _token_model(config: Any, space: ConceptCodec, name: str, folder: Path, reporter: Reporter) -> None:
    """Train the token model that ``eval run`` finds beside the pipelines; it needs the codec's tokenizer."""
    from largeconcept.io import read_json
    from largeconcept.recipes.baseline import token_lm_like
    from largeconcept.train.loop import Trainer

    if getattr(space, "tokenizer", None) is None:
        reporter.line("left out: the codec has no tokenizer")
        return
    out = folder / "token_lm"
    if not (out / "run.json").is_file():
        # What it reads it reads once, so that there is nothing to guard against by dropout.
        matched = token_lm_like(config, codec=name, out=out, concepts_per_step=TOKEN_CONCEPTS, dropout=0.0)
        Trainer(matched.override("validation=null")).fit()
    record = read_json(out / "run.json")
    said = record.get("notes", {}).get("matched")
    if said is None:  # of a version that did not count
        return
    reporter.line(
        f"{said['parameters'] / 1e6:.2f} M parameters beside {said['model_parameters'] / 1e6:.2f} M of the "
        f"{said['model'].replace('_', '-')} model, tables of tokens not counted; {record['step']} steps of "
        f"{said['training_flops'] / 1e12:.2f} TFLOP together, beside {said['model_training_flops'] / 1e12:.2f} TFLOP "
        f"of training and {said['model_encoding_flops'] / 1e12:.2f} TFLOP of encoding its data"
    )


def _judge(pipelines: dict[str, ConceptPipeline], data: Path, reporter: Reporter) -> dict[str, NextConceptReport]:
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.eval.next_concept import evaluate_next_concept, mean_concept

    mean = mean_concept(ConceptDataset(data, "train"))
    reports = {}
    for kind, pipeline in pipelines.items():
        with reporter.progress(f"predict with {kind}") as update:
            reports[kind] = evaluate_next_concept(
                pipeline.model,
                ConceptDataset(data, "test"),
                pipeline.normalizer,
                training_mean=mean,
                options=pipeline.options,
                progress=partial(_concepts_done, update),
            )
        reporter.show(reports[kind].table(f"Next concept, {kind}"))
    return reports


def _concepts_done(update: Callable[..., None], done: int, total: int) -> None:
    update(done, total, "concepts")


def _continue(pipeline: ConceptPipeline, documents: Sequence[Document], reporter: Reporter) -> list[dict[str, Any]]:
    """Continue three held-out documents, the last one in another language than its own."""
    samples = []
    for document, lang in choose_prompts(documents, pipeline.codec.languages):
        prompt = list(document.sentences[:PROMPT_SENTENCES])
        shortened = replace(document, sentences=tuple(prompt), text="", paragraph_starts=(0,))
        output = pipeline(shortened, max_concepts=NEW_CONCEPTS, min_concepts=2, lang=lang, seed=1)
        truth = list(document.sentences[PROMPT_SENTENCES : PROMPT_SENTENCES + NEW_CONCEPTS])
        reporter.line()
        reporter.line(f"{document.source or ''} {document.title or document.id} ({document.lang}), …")
        for sentence in prompt[-3:]:
            reporter.line(f"    {sentence}")
        other = "" if lang == document.lang else ", in another language than the text"
        reporter.line(f"  the model goes on ({lang}{other}):")
        for sentence in output.sentences:
            reporter.line(f"  » {sentence}")
        reporter.line("  the author went on:")
        for sentence in truth[:2]:
            reporter.line(f"    {sentence}")
        samples.append(
            {
                "id": document.id,
                "lang": document.lang,
                "prompt": prompt,
                "written_lang": lang,
                "truth": truth,
                "written": list(output.sentences),
                "stop_reason": output.stop_reason,
            }
        )
    return samples


def choose_prompts(documents: Sequence[Document], languages: Sequence[str]) -> list[tuple[Document, str]]:
    """Pick three documents: two to go on in their own language, the last one in another.

    Raises:
        DataError: fewer than three documents are long enough.
    """
    enough = PROMPT_SENTENCES + 2
    usable = [d for d in documents if len(d.sentences) >= enough and d.lang in languages]
    chosen: list[Document] = []
    for wanted in ("eng_Latn", *[code for code in languages if code != "eng_Latn"], *languages):
        match = next((d for d in usable if d.lang == wanted and d.id not in {c.id for c in chosen}), None)
        if match is not None and len(chosen) < 3:
            chosen.append(match)
    chosen += [d for d in usable if d not in chosen][: 3 - len(chosen)]
    if len(chosen) < 3:
        raise DataError("too few documents to continue", got=len(usable), expected=f"3 of ≥ {enough} sentences")
    last = chosen[2].lang
    other = "eng_Latn" if last != "eng_Latn" and "eng_Latn" in languages else next(c for c in languages if c != last)
    return [(chosen[0], str(chosen[0].lang)), (chosen[1], str(chosen[1].lang)), (chosen[2], other)]


@contextlib.contextmanager
def _silent(_: str) -> Iterator[Callable[..., None]]:
    yield lambda *_: None


class LogReporter:
    """Collects what is told, for tests and notebooks."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        """Begin a part."""
        self.lines.append(title)

    def line(self, text: str = "") -> None:
        """Say something."""
        self.lines.append(text)

    def show(self, renderable: Any) -> None:
        """Keep a table's text."""
        from rich.console import Console

        text = io.StringIO()
        Console(width=120, file=text).print(renderable)
        self.lines.append(text.getvalue())

    def progress(self, what: str) -> AbstractContextManager[Callable[..., None]]:
        """Tell nothing."""
        return _silent(what)
