"""What a run is made of, built from its configuration, and what it leaves for others to load."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerMethod
from largeconcept.data.affixes import read_affixes, write_affixes
from largeconcept.data.loader import ConceptLoader, LoaderConfig
from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import ConceptLMError, ConfigError, DataError, TrainingError
from largeconcept.io import write_json
from largeconcept.models.planning import PlanningConceptModel
from largeconcept.models.registry import save_model
from largeconcept.objectives.base import NeedsCodec, Objective, TrainsCodec
from largeconcept.train.config import RunConfig
from largeconcept.train.parallel import Parallel
from largeconcept.train.start import MODEL_FOLDER, NORMALIZER_FOLDER, RUN_FILE, start_normalizer
from largeconcept.types import ConceptBatch

CODEC_FOLDER = "codec"


def open_loader(config: LoaderConfig, parallel: Parallel) -> ConceptLoader:
    """Open the datasets of a loader configuration.

    Raises:
        ConfigError: the micro-batches of a step cannot be shared out among the processes.
        DataError: a dataset is missing, damaged or empty, or two are of different concept spaces.
    """
    loader = ConceptLoader(config, parallel.rank, parallel.world_size)
    for dataset in loader.datasets:
        if not dataset.num_concepts:
            raise DataError("the dataset holds no concepts", where=dataset.folder, hint="build it from more text")
    return loader


def open_validation(config: LoaderConfig, parallel: Parallel) -> ConceptLoader:
    """Open held-out data, which is read batch by batch: the number of micro-batches of a step means nothing."""
    return open_loader(config.model_copy(update={"micro_batches": parallel.world_size}), parallel)


def loader_configs(config: RunConfig, needs_sentences: bool) -> tuple[LoaderConfig, LoaderConfig | None]:
    """Return the settings of training and validation data, with the text where the objective needs it and the settings
    leave it open."""

    def settled(loader: LoaderConfig) -> LoaderConfig:
        return loader if loader.sentences is not None else loader.model_copy(update={"sentences": needs_sentences})

    return settled(config.data), None if config.validation is None else settled(config.validation)


class TrainedTogether(nn.Module):
    """A model and weights of its objective's codec, as one module to optimise, average and save.

    Args:
        model: called when this is called.
        codec: weights of the codec, shared with it.
    """

    def __init__(self, model: nn.Module, codec: list[nn.Parameter]) -> None:
        super().__init__()
        self.module = model
        self.codec = nn.ParameterList(codec)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the model."""
        return self.module(*arguments, **keywords)


def trained_together(model: nn.Module, objective: Objective) -> nn.Module:
    """Return what a run trains: the model itself unless the objective trains a part of the codec too."""
    codec = objective.trained_parameters() if isinstance(objective, TrainsCodec) else []
    return TrainedTogether(model, codec) if codec else model


def open_objective(objective: Objective, loader: ConceptLoader, parallel: Parallel) -> Objective:
    """Give an objective that needs the codec the one that the data was built with.

    Raises:
        ConfigError: the codec cannot be loaded, or does not fit the objective.
    """
    if isinstance(objective, NeedsCodec):
        objective.open_codec(loader.metadata.codec_id, loader.metadata.codec_fingerprint, parallel.device)
    return objective


def check_dim(config: RunConfig, loader: ConceptLoader) -> None:
    """Refuse a model for concepts of another dimension than the data's; one that reads no concepts fits any.

    Raises:
        ConfigError: names both dimensions.
    """
    dim = getattr(config.model, "concept_dim", None)
    if dim is not None and dim != loader.dim:
        raise ConfigError(
            "the model is for concepts of another dimension than the data",
            where="model.concept_dim",
            got=dim,
            expected=f"{loader.dim}, the dimension of {loader.datasets[0].path}",
            hint=f"set model.concept_dim={loader.dim}, or build the data with another codec",
        )


def fit_normalizer(
    datasets: list[ConceptDataset], weights: list[float], method: str, max_samples: int = 200_000, seed: int = 0
) -> ConceptNormalizer:
    """Fit a normalizer on the concepts of a mixture, without affixes.

    A weight of a mixture counts here as it does in training: a dataset gives concepts in proportion to it, and gives
    them more than once only when it is too small for its share.
    """
    stream = concept_stream(datasets, weights, max_samples)
    return ConceptNormalizer.fit(stream, method=cast(NormalizerMethod, method), max_samples=max_samples, seed=seed)


def concept_stream(datasets: list[ConceptDataset], weights: list[float], max_samples: int) -> Iterator[Tensor]:
    """Yield (N, C) float32 concepts of a mixture, in the codec's space.

    A single dataset is yielded whole; of several, about ``max_samples`` concepts in proportion to the weights.
    """
    if len(datasets) == 1:
        yield from _concepts(datasets[0], 1)
        return
    total = min(max_samples, sum(dataset.num_concepts for dataset in datasets))
    for dataset, weight in zip(datasets, weights, strict=True):
        yield from _share(dataset, max(1, round(total * weight / sum(weights))))


def _concepts(dataset: ConceptDataset, stride: int) -> Iterator[Tensor]:
    """Yield (N, C) float32: every ``stride``-th concept of each row group, targets of pairs included."""
    for group in range(len(dataset.row_groups)):
        table = dataset.vectors(group, targets=dataset.paired)
        for half in (table.concepts, table.target_concepts):
            if half is not None and len(half):
                yield torch.from_numpy(half[::stride].astype("float32"))


def _share(dataset: ConceptDataset, share: int) -> Iterator[Tensor]:
    """Yield ``share`` concepts, spread over the dataset; a small dataset is gone through again."""
    left = share
    while left > 0:
        for concepts in _concepts(dataset, max(1, dataset.num_concepts // share)):
            yield concepts[:left]
            left -= len(concepts[:left])
            if left == 0:
                return


def prepare_normalizer(
    config: RunConfig, datasets: list[ConceptDataset], out: Path, parallel: Parallel, resumed: bool
) -> ConceptNormalizer:
    """Return the run's normalizer on this process's device, and leave it in ``out/normalizer``.

    A run that starts from another one, or from a pipeline, keeps the normalizer of that unless it asks for another.

    Raises:
        ConfigError: neither a method nor a folder, or a normalizer of another dimension.
    """
    folder = out / NORMALIZER_FOLDER
    choice = config.normalizer
    if not resumed and parallel.is_main:
        started = start_normalizer(config)
        method = "robust" if choice == "fit" else choice
        if started is not None:
            fitted = ConceptNormalizer.from_pretrained(started)
        elif method in get_args(NormalizerMethod):
            weights = [float(source.weight) for source in config.data.sources]
            fitted = fit_normalizer(datasets, weights, method, seed=config.train.seed)
        elif Path(choice).is_dir():
            fitted = ConceptNormalizer.from_pretrained(choice)
        else:
            raise ConfigError(
                "neither a method nor the folder of a saved normalizer",
                where="normalizer",
                got=choice,
                expected=f"fit, {', '.join(get_args(NormalizerMethod))}, or a folder",
            )
        if fitted.dim != datasets[0].dim:
            raise ConfigError(
                "the normalizer is for concepts of another dimension",
                where=f"normalizer: {choice}",
                expected=datasets[0].dim,
                got=fitted.dim,
            )
        fitted.save_pretrained(folder)
    parallel.barrier()
    return ConceptNormalizer.from_pretrained(folder).to(parallel.device)


def tell_breaks(model: nn.Module, loader: ConceptLoader, normalizer: ConceptNormalizer) -> None:
    """Give a planning model the break concept of the data; other models need nothing.

    Raises:
        ConfigError: the data has no plans, or plans of another kind than the model's.
    """
    if not isinstance(model, PlanningConceptModel):
        return
    if loader.break_concept is None:
        hint = "build it with --plan, and leave data.plans unset"
        raise ConfigError("a planning model needs planned data", where="data", got="no plans", hint=hint)
    if model.config.plan not in (None, loader.plan_kind):
        raise ConfigError(
            "the plans of the data are of another kind than the model's",
            where="model.plan",
            got=model.config.plan,
            expected=loader.plan_kind,
        )
    model.set_break(normalizer.normalize(loader.break_concept.to(model.break_concept.device)))


class StepSource:
    """Reads optimiser steps of data, ahead of their use in a thread, each with the position after it.

    Args:
        loader: what reads.
        depth: steps to read ahead; 0 reads when asked.
    """

    def __init__(self, loader: ConceptLoader, depth: int) -> None:
        self._loader = loader
        self._queue: queue.Queue[tuple[list[ConceptBatch], dict[str, Any]] | Exception] = queue.Queue(max(depth, 1))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="data", daemon=True) if depth else None
        if self._thread is not None:
            self._thread.start()

    def next(self) -> tuple[list[ConceptBatch], dict[str, Any]]:
        """Return the micro-batches of the next step and the loader's position after it."""
        if self._thread is None:
            return self._read()
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def _read(self) -> tuple[list[ConceptBatch], dict[str, Any]]:
        return self._loader.next_step(), self._loader.state_dict()

    def _work(self) -> None:
        while not self._closed.is_set():
            item: tuple[list[ConceptBatch], dict[str, Any]] | Exception
            try:
                item = self._read()
            except ConceptLMError as error:
                item = error
            except Exception as error:
                item = TrainingError("reading the data failed", got=f"{type(error).__name__}: {error}")
                item.__cause__ = error
            while not self._closed.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, Exception):
                return


def validation_batches(config: LoaderConfig, number: int, parallel: Parallel) -> Iterator[ConceptBatch]:
    """Yield this process's share of the first ``number`` batches of held-out data, the same at every evaluation."""
    loader = open_validation(config, parallel)
    yield from islice(loader.epoch(), len(range(parallel.rank, number, parallel.world_size)))


def export(
    out: Path,
    config: RunConfig,
    model: nn.Module,
    datasets: list[ConceptDataset],
    step: int,
    weights: str,
    metrics: dict[str, float],
    objective: Objective | None = None,
) -> None:
    """Write ``model/`` (the weights the model has now), the affix concepts, and ``run.json``, which says what it is.

    A codec that was trained beside the model goes into ``codec/``, and is the run's codec from then on.
    """
    metadata = datasets[0].metadata
    codec = metadata.codec_id
    if isinstance(objective, TrainsCodec) and objective.trained_parameters():
        codec = str(out / CODEC_FOLDER)
        objective.save_codec(codec)
    save_model(model, out / MODEL_FOLDER)
    if (datasets[0].path / "affixes.safetensors").is_file():
        write_affixes(out, read_affixes(datasets[0].path))
    write_json(
        out / RUN_FILE,
        {
            "step": step,
            "weights": weights,
            "config_hash": config.hash(),
            "dim": metadata.dim,
            "codec": codec,
            "codec_fingerprint": metadata.codec_fingerprint,
            "data": [str(dataset.folder) for dataset in datasets],
            "metrics": metrics,
            **({"notes": config.notes} if config.notes else {}),
        },
    )
