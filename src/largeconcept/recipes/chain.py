"""From a corpus to a pipeline that ships, in one call: corpus → prepared → codec → data → pretrain → finetune → ship.

Every stage leaves its result in a folder of its own and is left alone when that is there, so a chain that was stopped
goes on where it was. As soon as a model has learnt anything there is a pipeline to ship: after pre-training one that
goes on with texts, after tuning one that summarises and expands too; ``ship_now`` takes the newest checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from largeconcept.errors import CheckpointError, ConfigError, did_you_mean
from largeconcept.io import atomic_path, read_json, write_json
from largeconcept.recipes.default import MIXTURE

if TYPE_CHECKING:
    from largeconcept.data.prepare import PrepareConfig
    from largeconcept.train.codec_trainer import CodecTrainConfig
    from largeconcept.train.config import RunConfig

Size = Literal["cpu", "gpu"]
STAGES = ("corpus", "prepare", "codec", "data", "pretrain", "finetune", "ship", "eval")
EVAL_TASKS = ("next_concept", "summarize", "summarize_into", "expand", "codec_round_trip")
LICENCE = "Apache-2.0"
LIMITS = (
    "A small model: it keeps to the subject of a text better than to its facts. Do not rely on what it writes.",
    "It has read technical documentation, descriptions of programs, scripture and a few novels, and knows little else.",
    "It writes the languages of its codec only.",
)


class Reporter(Protocol):
    """Where the chain tells what it does."""

    def section(self, title: str) -> None:
        """Begin a stage."""
        ...

    def line(self, text: str = "") -> None:
        """Say something."""
        ...

    def progress(self, what: str) -> AbstractContextManager[Callable[..., None]]:
        """Give a function ``update(done, total, unit)`` for a piece of work."""
        ...


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What a chain has made so far.

    Attributes:
        out: its folder.
        done: stages whose result is there, in order.
        pipeline: the pipeline that ships, if there is one yet.
        interrupted: whether a signal stopped a training; called again, the chain goes on.
    """

    out: Path
    done: tuple[str, ...]
    pipeline: Path | None
    interrupted: bool = False


def train_default(
    out: str | Path,
    reporter: Reporter,
    *,
    size: Size = "cpu",
    kind: str = "two_tower",
    corpus: str | Path | Sequence[str | Path] | None = None,
    pairs: Sequence[str | Path] = (),
    languages: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    until: str | None = None,
    ship_now: bool = False,
) -> ChainResult:
    """Train what ships, from text to a pipeline in ``out/pipeline``.

    Args:
        out: folder of everything that is made.
        reporter: where to tell.
        size: ``cpu`` (:mod:`~largeconcept.recipes.default_cpu`) or ``gpu`` (:mod:`~largeconcept.recipes.default`).
        kind: ``two_tower`` or ``mse``.
        corpus: folder of a corpus, or files of documents; ``None`` builds that of Debian packages.
        pairs: tables of translation pairs beside those of a corpus folder.
        languages: of the concept model's training; ``None``: all of the codec's. With English alone all that it does
            in other languages it does zero-shot.
        settings: changes, as ``pretrain.train.max_steps=100``; the first word is a stage (``prepare``, ``codec``,
            ``pretrain``, ``finetune``), or ``generation`` for options of the pipeline, or ``eval`` (``limit``).
        until: last stage to run.
        ship_now: train no further: take the newest checkpoints and ship.

    Raises:
        ConfigError: an unknown size, stage or setting.
        DataError: the corpus cannot be read or is too small.
        CheckpointError: ``ship_now``, and nothing has been trained yet.
    """
    chain = _Chain(Path(out), reporter, size, kind, corpus, pairs, languages, settings, ship_now)
    return chain.run(until)


class _Chain:
    def __init__(
        self,
        out: Path,
        reporter: Reporter,
        size: str,
        kind: str,
        corpus: str | Path | Sequence[str | Path] | None,
        pairs: Sequence[str | Path],
        languages: Sequence[str] | None,
        settings: Sequence[str],
        ship_now: bool,
    ) -> None:
        modules = {"cpu": "largeconcept.recipes.default_cpu", "gpu": "largeconcept.recipes.default"}
        if size not in modules:
            raise ConfigError("unknown size", where="size", got=size, expected="cpu or gpu")
        self.recipes: Any = import_module(modules[size])
        if kind not in ("two_tower", "mse"):
            raise ConfigError("unknown kind of model", where="kind", got=kind, expected="two_tower or mse")
        self.out, self.reporter, self.size, self.kind = out, reporter, size, kind
        self.corpus, self.pairs, self.languages, self.ship_now = corpus, pairs, languages, ship_now
        self.settings = _by_stage(settings)
        self.pipeline = out / "pipeline"
        self.interrupted = False

    def run(self, until: str | None) -> ChainResult:
        if until is not None and until not in STAGES:
            raise ConfigError("unknown stage", where="until", got=until, hint=did_you_mean(until, STAGES))
        done: list[str] = []
        for stage in STAGES:
            if self.ship_now and stage in ("corpus", "prepare", "data"):
                continue
            self.reporter.section(f"{len(done) + 1}. {_TITLES[stage]}")
            getattr(self, f"_{stage}")()
            if self.interrupted:
                break
            done.append(stage)
            if stage == until:
                break
        found = self.pipeline if (self.pipeline / "pipeline.json").is_file() else None
        return ChainResult(self.out, tuple(done), found, self.interrupted)

    # --- text --------------------------------------------------------------------------------------------------------

    def _corpus(self) -> None:
        if self.corpus is not None:
            self.reporter.line(f"given: {self.corpus}")
            return
        from largeconcept.data.debian import build_corpus

        folder = self.out / "corpus"
        self.corpus = folder
        if list(folder.glob("documents.jsonl*")):
            self.reporter.line(f"there already: {folder}")
            return
        with self.reporter.progress("corpus") as update:
            report = build_corpus(folder, languages=self._prepare_config().languages, progress=update)
        self.reporter.line(f"{report.documents:,} documents, {report.pairs:,} translation pairs")

    def _prepare(self) -> None:
        from largeconcept.data.prepare import prepare_corpus

        assert self.corpus is not None
        config = self._prepare_config()
        with self.reporter.progress("prepare") as update:
            report = prepare_corpus(self.corpus, self._prepared, config, pairs=self.pairs, progress=update)
        totals = report.totals("documents")[""]
        self.reporter.line(", ".join(f"{totals[part]:,} for {part}" for part in ("train", "validation", "test")))

    def _prepare_config(self) -> PrepareConfig:
        from largeconcept.data.prepare import PrepareConfig

        return PrepareConfig().override(*self.settings["prepare"])

    @property
    def _prepared(self) -> Path:
        return self.out / "prepared"

    # --- concepts ----------------------------------------------------------------------------------------------------

    def _codec(self) -> None:
        from largeconcept.train.codec_job import export_codec, train_codec

        run = self.out / "codec"
        if (self._codec_folder / "config.json").is_file():
            self.reporter.line(f"there already: {self._codec_folder}")
            return
        about = {"licence": LICENCE, "recipe": f"train-default --size {self.size}"}
        if self.ship_now:
            export_codec(run, self._codec_folder, storage="int8", metadata=about)
            return
        for name in ("tokenizer.model", "sentences.npz"):
            if not (run / name).is_file():
                run.mkdir(parents=True, exist_ok=True)
                with atomic_path(run / name) as temporary:
                    shutil.copyfile(self._prepared / "codec" / name, temporary)
        # Rounded before the data is built: the concepts of the data are then those of the codec that ships.
        codec = train_codec([], self._codec_config(run), storage="int8", metadata=about)
        self.reporter.line(f"{codec.dim} channels, writes {', '.join(codec.languages)}")

    def _codec_config(self, run: Path) -> CodecTrainConfig:
        from largeconcept.codec.tokenizer import Tokenizer
        from largeconcept.data.sentence_table import SentenceTable

        config: CodecTrainConfig = self.recipes.codec(run).override(*self.settings["codec"])
        table = SentenceTable.load(run / "sentences.npz")
        size = Tokenizer.from_file(run / "tokenizer.model").vocab_size
        network = config.network.model_copy(update={"vocab_size": size, "languages": tuple(table.languages)})
        return config.model_copy(update={"network": network})

    @property
    def _codec_folder(self) -> Path:
        return self.out / "codec" / "codec"

    def _data(self) -> None:
        from largeconcept.data.build import build_concepts

        documents, data = self._prepared / "documents", self.out / "data"
        mixture = read_json(self._prepared / MIXTURE)
        if not isinstance(mixture, dict):
            raise CheckpointError("the mixture is damaged", where=self._prepared / MIXTURE, hint="prepare it again")
        jobs: dict[str, str] = {
            name.removesuffix(".jsonl.gz"): str(documents / "train" / name) for name in sorted(mixture)
        }
        jobs |= {
            split: str(documents / split / "*.jsonl.gz")
            for split in ("validation", "test")
            if list((documents / split).glob("*.jsonl.gz"))
        }
        concepts = 0
        for number, (split, files) in enumerate(jobs.items(), start=1):
            with self.reporter.progress(f"encode {number}/{len(jobs)}: {split}") as update:
                built = build_concepts(
                    files, data, codec=str(self._codec_folder), split=split, on_error="report", progress=update
                )
            concepts += built.concepts
        kept = ("weight", "lang", "summaries")
        rows = {
            name.removesuffix(".jsonl.gz"): {key: row[key] for key in kept} for name, row in sorted(mixture.items())
        }
        write_json(data / MIXTURE, rows)
        self.reporter.line(f"{concepts:,} concepts")

    # --- models ------------------------------------------------------------------------------------------------------

    def _pretrain(self) -> None:
        make = self.recipes.pretrain
        run = self.out / "pretrain"
        self._train(run, lambda: make(self.out / "data", run, kind=self.kind, languages=self.languages), "pretrain")
        if _finished_steps(self.out / "finetune") is None:
            self._write_pipeline(run)

    def _finetune(self) -> None:
        from largeconcept.train import checkpoint

        make, start = self.recipes.finetune, self.out / "pretrain"
        run = self.out / "finetune"
        if self.ship_now and checkpoint.latest(run) is None:
            self.reporter.line("not begun: the pre-trained model ships")
            return
        self._train(run, lambda: make(self.out / "data", start, run, languages=self.languages), "finetune")
        self._write_pipeline(run)

    def _train(self, run: Path, make: Callable[[], RunConfig], stage: str) -> None:
        from largeconcept.train.config import RunConfig
        from largeconcept.train.loop import Trainer

        if self.ship_now:
            config = _as_far_as_it_is(RunConfig.from_yaml(run / "config.yaml"), run)
        else:
            config = make().override(*self.settings[stage])
        if _finished_steps(run) == config.train.max_steps:
            self.reporter.line(f"there already: {run}")
            return
        result = Trainer(config).fit()
        self.interrupted = result.interrupted
        self.reporter.line(f"{result.steps:,} steps")

    def _write_pipeline(self, run: Path) -> None:
        """Export a finished run as the pipeline that ships; one that was stopped keeps what shipped before."""
        from largeconcept.recipes.tiny import SAMPLERS
        from largeconcept.train.export import MAX_BYTES, ship_pipeline

        if self.interrupted or _finished_steps(run) is None:
            return
        generation = {**SAMPLERS[self.kind], **_plain(self.settings["generation"])}
        limit = MAX_BYTES if self.size == "cpu" else None
        own = run / "codec"  # of a run that has trained the decoder, too
        ship_pipeline(
            run,
            self.pipeline,
            max_bytes=limit,
            codec=own if (own / "config.json").is_file() else self._codec_folder,
            generation=generation,
            card=self._card(),
        )

    def _card(self) -> dict[str, Any]:
        report = self._prepared / "report.json"
        facts = read_json(report) if report.is_file() else {}
        sources = sorted((facts.get("documents") or {}).keys()) if isinstance(facts, dict) else []
        about = read_json(self._codec_folder / "config.json")
        known = about.get("metadata", {}) if isinstance(about, dict) else {}
        network = about.get("network", {}) if isinstance(about, dict) else {}
        costs = [f"codec: {known.get('minutes', 0):g} minutes of training"]
        costs += [
            f"{name}: {steps:,} steps in {self._minutes(name):.1f} minutes"
            for name in ("pretrain", "finetune")
            if (steps := _finished_steps(self.out / name)) is not None
        ]
        return {
            "title": "largeconcept default",
            "description": "A Large Concept Model with its own concept space: it goes on with texts, summarises and "
            "expands them, and writes the result in any language of its codec.",
            "licence": LICENCE,
            "languages": network.get("languages", ()),
            "training_data": [
                "free-licence and public-domain texts from Debian packages; the licence of every source is in "
                "docs/corpus.md of the library: " + ", ".join(sources)
            ]
            if sources
            else [],
            "recipe": f"largeconcept train-default --size {self.size}",
            "training_cost": costs,
            "limits": LIMITS,
        }

    def _minutes(self, stage: str) -> float:
        """Return the time between the first and the last report of a run, pauses of stopped runs included."""
        import json

        path = self.out / stage / "metrics.jsonl"
        if not path.is_file():
            return 0.0
        times = [json.loads(line).get("time") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        known = [float(one) for one in times if one is not None]
        return (known[-1] - known[0]) / 60 if known else 0.0

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _ship(self) -> None:
        from largeconcept.hub import folder_size

        if not (self.pipeline / "pipeline.json").is_file():
            raise CheckpointError("nothing has been trained yet that could ship", where=self.out)
        self.reporter.line(f"{self.pipeline}: {folder_size(self.pipeline) / 2**20:.1f} MiB")

    def _eval(self) -> None:
        from largeconcept.data.reader import splits
        from largeconcept.eval.harness import evaluate
        from largeconcept.hub import load_pipeline, save_pipeline

        if "test" not in splits(self.out / "data"):
            self.reporter.line("left out: the corpus has no held-out documents")
            return
        given = _plain(self.settings["eval"])
        tasks = given.pop("tasks", ",".join(EVAL_TASKS))
        limit = given.pop("limit", 100)
        if given:
            raise ConfigError("unknown setting", where=f"eval.{next(iter(given))}", expected="tasks or limit")
        with self.reporter.progress("evaluate") as update:
            result = evaluate(
                self.pipeline,
                tasks,
                data=self.out / "data",
                train_split=self._richest(),
                limit=limit,
                out=self.out / "eval",
                progress=update,
            )
        parts = load_pipeline(self.pipeline)
        metrics = {
            f"{task}: {metric}": {name: group[metric].value for name, group in one.scores.items() if metric in group}
            for task, one in result.tasks.items()
            for metric in CARD_METRICS.get(task, ())
        }
        card = parts.card.model_copy(update={"metrics": {n: row for n, row in metrics.items() if row}})
        save_pipeline(self.pipeline, parts, card=card, storage="int8")
        for name, row in metrics.items():
            self.reporter.line(f"{name}: " + ", ".join(f"{who} {value:.3g}" for who, value in row.items()))

    def _richest(self) -> str:
        """Return the training split with the most summaries, in which baselines look up the nearest text."""
        from largeconcept.recipes.default import read_mixture

        rows = read_mixture(self.out / "data")
        return max(rows, key=lambda name: rows[name].summaries)


CARD_METRICS: Mapping[str, tuple[str, ...]] = {
    "next_concept": ("l2", "contrastive_accuracy"),
    "summarize": ("rouge_l", "chrf"),
    "summarize_into": ("rouge_l", "chrf"),
    "expand": ("rouge_l", "chrf"),
    "codec_round_trip": ("auto_bleu", "chrf"),
}
_TITLES = {
    "corpus": "Corpus",
    "prepare": "Splits, filters, vocabulary",
    "codec": "Train the concept space",
    "data": "Turn sentences into concepts",
    "pretrain": "Train the model on documents",
    "finetune": "Teach it to summarise and to expand",
    "ship": "What ships",
    "eval": "Judge it on held-out documents",
}


def _by_stage(settings: Sequence[str]) -> dict[str, list[str]]:
    """Return stage -> settings without its name.

    Raises:
        ConfigError: a setting of no stage.
    """
    names = ("prepare", "codec", "pretrain", "finetune", "generation", "eval")
    result: dict[str, list[str]] = {name: [] for name in names}
    for setting in settings:
        stage, dot, rest = setting.partition(".")
        if stage not in result or not dot:
            raise ConfigError("not a setting of a stage", got=setting, hint=did_you_mean(stage, names))
        result[stage].append(rest)
    return result


def _plain(settings: Sequence[str]) -> dict[str, Any]:
    from largeconcept.config import parse_yaml

    pairs = [setting.partition("=") for setting in settings]
    return {key: parse_yaml(value, key) for key, _, value in pairs}


def _finished_steps(run: Path) -> int | None:
    """Return the steps of a run that has left its model, ``None`` for one that has not."""
    facts = read_json(run / "run.json") if (run / "run.json").is_file() else None
    return facts.get("step") if isinstance(facts, dict) else None


def _as_far_as_it_is(config: RunConfig, run: Path) -> RunConfig:
    """Return a run that ends at its newest checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    from largeconcept.train import checkpoint

    newest = checkpoint.latest(run)
    if newest is None:
        raise CheckpointError("no checkpoint yet", where=run)
    return config.override(f"train.max_steps={checkpoint.read_state(newest)['step']}")
