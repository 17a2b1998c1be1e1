"""A finished run becomes a saved pipeline: its model and normalizer, the segmenter of its data, and the codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError
from largeconcept.hub import (
    RECORD,
    ModelCard,
    PipelineParts,
    PromptRecord,
    Storage,
    check_fingerprint,
    load_pipeline,
    save_pipeline,
)
from largeconcept.io import read_json, require_folder
from largeconcept.train.config import RunConfig
from largeconcept.train.start import MODEL_FOLDER, NORMALIZER_FOLDER, RUN_FILE

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

MAX_BYTES = 32 * 2**20
"""Most bytes of a pipeline inside the library."""


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    codec: ConceptCodec | str | Path | None = None,
    card: ModelCard | Mapping[str, Any] | None = None,
    tasks: Sequence[str] = (),
    generation: Mapping[str, Any] | None = None,
    reference: bool = False,
    storage: Storage = "as_is",
    max_bytes: int | None = None,
) -> Path:
    """Write a saved pipeline from a finished run; see :func:`largeconcept.hub.save_pipeline`.

    Args:
        run: the run folder.
        out: the folder to make.
        codec: the codec the data was built with, or its name or folder; by default the name noted in the run.
        card: what to say in the model card; recipe, training data and metrics are filled in where it is silent.
        tasks: what a model trained on pairs of sources without a task was trained for, as ``summarize``; the tasks of
            the sources, and their prompts, are known and need not be named.
        generation: defaults of the generation options.
        reference: store the codec's name and fingerprint instead of a copy.
        storage, max_bytes: see :func:`largeconcept.hub.save_pipeline`.

    Raises:
        CheckpointError: not a run, not finished, damaged, or a codec of another concept space.
        ConfigError: the run's model is no concept model.
    """
    from largeconcept.codec import load_codec
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.models import load_model
    from largeconcept.segment import build_segmenter

    folder = require_folder(run, "training run")
    config, facts = read_run(folder)
    if getattr(config.model, "concept_dim", None) is None:
        raise ConfigError(
            "only concept models make pipelines",
            where=folder,
            got=config.model.type,
            hint=f"its model is in {folder / MODEL_FOLDER}; for text see largeconcept.generate.token_lm",
        )
    name = codec if isinstance(codec, str | Path) else (facts["codec"] if codec is None else None)
    if codec is None or isinstance(codec, str | Path):
        try:
            space = load_codec(str(name))
        except ConceptLMError as error:
            if codec is not None:
                raise
            raise CheckpointError(
                f"the run's codec {name!r} cannot be loaded by its name",
                where=folder,
                got=error,
                hint="name its folder: --codec FOLDER",
            ) from None
    else:
        space = codec
    check_fingerprint(space, facts["codec_fingerprint"], where=folder, dim=facts["dim"])
    segmenter = _segmenter_of(config)
    data = config.data
    prompts = {task: PromptRecord(suffix=(data.prompt_text,) if data.prompt_text else ()) for task in tasks}
    prompts |= {task: PromptRecord(suffix=(text,)) for task, text in data.tasks.items()}
    parts = PipelineParts(
        segmenter=build_segmenter(segmenter),
        codec=space,
        normalizer=ConceptNormalizer.from_pretrained(folder / NORMALIZER_FOLDER),
        model=load_model(folder / MODEL_FOLDER),
        codec_id=None if name is None else str(name),
        generation=dict(generation or {}),
        prompts=prompts,
        stop_text=data.end_text if data.append_end else None,
        max_length=data.max_length,
    )
    reference_name = str(name) if reference and name is not None else None
    if reference and reference_name is None:
        raise CheckpointError("a codec without a name cannot be referred to", where=out, hint="give its name or folder")
    given = card if isinstance(card, ModelCard) else ModelCard.from_dict(dict(card or {}), where="card")
    whole = complete_card(given, config, facts)
    return save_pipeline(out, parts, card=whole, codec_reference=reference_name, storage=storage, max_bytes=max_bytes)


def ship_pipeline(
    source: str | Path,
    out: str | Path,
    *,
    max_bytes: int | None = MAX_BYTES,
    card: ModelCard | Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Path:
    """Write a pipeline as it ships: int8 weights (float16 where these would hurt), with its codec, of limited size.

    Args:
        source: a finished run, or a saved pipeline.
        out: the folder to make; as ``largeconcept/assets/pipeline`` it is what ``from_pretrained()`` opens.
        max_bytes: most bytes of all files together; ``None`` for no limit.
        card: what to say in the model card beside what is known.
        keywords: for a run, those of :func:`export_run`.

    Raises:
        ConfigError: the files are too large, the codec cannot be stored so, or ``keywords`` for a pipeline.
        CheckpointError: neither a finished run nor a pipeline.
    """
    given = card if isinstance(card, ModelCard) else ModelCard.from_dict(dict(card or {}), where="card")
    if not (Path(source) / RECORD).is_file():
        return export_run(source, out, card=given, storage="int8", max_bytes=max_bytes, **keywords)
    if keywords:
        raise ConfigError("is for runs; a pipeline has its own", where=next(iter(keywords)), got=source)
    parts = load_pipeline(source)
    known = {name: value for name, value in given.to_dict().items() if value}
    whole = ModelCard.from_dict({**parts.card.to_dict(), **known})
    return save_pipeline(out, parts, card=whole, storage="int8", max_bytes=max_bytes)


def read_run(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Return the configuration of a finished run and what it noted at its end.

    Raises:
        CheckpointError: not a run, not finished, or damaged.
    """
    if not (folder / "config.yaml").is_file():
        raise CheckpointError("not a training run: it has no config.yaml", where=folder)
    if not (folder / RUN_FILE).is_file():
        raise CheckpointError(
            "the run is not finished", where=folder, hint=f"go on with: largeconcept train {folder / 'config.yaml'}"
        )
    facts = read_json(folder / RUN_FILE)
    needed = {"step": int, "dim": int, "codec": str, "codec_fingerprint": str}
    for key, kind in needed.items():
        if not isinstance(facts, dict) or not isinstance(facts.get(key), kind):
            raise CheckpointError(f"no valid {key!r}", where=folder / RUN_FILE)
    return RunConfig.from_yaml(folder / "config.yaml"), facts


def complete_card(card: ModelCard, config: RunConfig, facts: Mapping[str, Any]) -> ModelCard:
    """Fill in what the run knows where the card is silent."""
    known: dict[str, Any] = {}
    if not card.training_data:
        known["training_data"] = tuple(
            f"{source.path} (split {source.split})"
            + (f", task {source.task}" if source.task else "")
            + (f", weight {source.weight:g}" if source.weight != 1 else "")
            for source in config.data.sources
        )
    if card.recipe is None:
        known["recipe"] = config.to_yaml()
    metrics = {name: value for name, value in facts.get("metrics", {}).items() if isinstance(value, int | float)}
    if not card.metrics:
        known["metrics"] = {"optimiser steps": facts["step"], **metrics}
    return card.model_copy(update=known)


def _segmenter_of(config: RunConfig) -> dict[str, Any] | None:
    """Return the segmenter of the first dataset, if it is still there and was segmented; else the default."""
    source = config.data.sources[0]
    try:
        return ConceptDataset(source.path, source.split).metadata.segmenter
    except ConceptLMError:
        return None


__all__ = ["MAX_BYTES", "export_run", "read_run", "ship_pipeline"]
