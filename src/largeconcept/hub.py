"""Saved pipelines: a folder that holds everything that turns text into text, and says what it is.

::

    pipeline.json        parts, format_version, library and torch versions, the codec's fingerprint, generation defaults
    segmenter/           config.json
    codec/               config.json + weights; absent when the codec is stored as a reference (id + fingerprint)
    normalizer/          config.json + model.safetensors
    model/               config.json + model.safetensors
    README.md            model card, written from what is known

Only JSON, safetensors and the codec's own vocabulary file are read: nothing is unpickled. A model is tied to the
concept space it was trained in; loading it on another one fails and names both fingerprints.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from largeconcept.config import Config
from largeconcept.errors import (
    CheckpointError,
    ConceptLMError,
    ConfigError,
    DependencyError,
    shorten,
)
from largeconcept.io import (
    atomic_write_text,
    fetch_from_hub,
    is_hub_id,
    read_json,
    require_folder,
    sync_folder,
    write_json,
)
from largeconcept.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.types import ConceptCodec, Segmenter

FORMAT_VERSION = 1
RECORD = "pipeline.json"
PARTS = ("segmenter", "codec", "normalizer", "model")
DEFAULT_PIPELINE = "pipeline"
"""Name of the folder inside ``largeconcept/assets`` that ``ConceptPipeline.from_pretrained()`` opens."""

Storage = Literal["as_is", "int8"]

_T = TypeVar("_T")


class CodecRecord(Config):
    """Which concept space a model belongs to, and where its codec is.

    Attributes:
        fingerprint: of weights and vocabulary; the codec that is loaded must have the same.
        dim: C, the number of channels.
        stored: the codec's files are in ``codec/``; otherwise ``id`` names it.
        id: name or path that ``load_codec`` understands.
    """

    fingerprint: str
    dim: int = Field(ge=1)
    stored: bool = True
    id: str | None = None


class PromptRecord(Config):
    """Sentences put around a document to ask an instruction-tuned model for something."""

    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()


class ModelCard(Config):
    """What is known about a model. Whatever is empty is left out of the card.

    Attributes:
        title: one line; the name of the folder when not given.
        description: a paragraph.
        licence: an SPDX identifier or a sentence, of the weights.
        languages: FLORES-200 codes the model was trained on.
        training_data: one line a corpus, with its licence where known.
        recipe: the name of the recipe or the resolved configuration as YAML.
        metrics: name -> number, or name -> {column -> number} for a table.
        training_cost: one line a stage: how long on what.
        limits: what the model is known not to do.
    """

    title: str | None = None
    description: str | None = None
    licence: str | None = None
    languages: tuple[str, ...] = ()
    training_data: tuple[str, ...] = ()
    recipe: str | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    training_cost: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


class PipelineRecord(Config):
    """The content of ``pipeline.json``."""

    format_version: int = FORMAT_VERSION
    library_version: str = __version__
    torch_version: str = ""
    codec: CodecRecord
    generation: dict[str, Any] = Field(default_factory=dict)
    decoding: dict[str, Any] = Field(default_factory=dict)
    prompts: dict[str, PromptRecord] = Field(default_factory=dict)
    stop_text: str | None = "End of text."
    max_length: int | None = Field(None, ge=1)
    card: ModelCard = Field(default_factory=ModelCard)


@dataclass(slots=True)
class PipelineParts:
    """The parts of a pipeline in memory, between the disk and :class:`~largeconcept.generate.ConceptPipeline`.

    Attributes:
        segmenter, codec, normalizer, model: the four parts.
        codec_id: the name the codec was loaded by, if any.
        generation, decoding: defaults of the options for making concepts and for writing them, as plain data.
        prompts: name of a task -> sentences around its document.
        stop_text: the sentence that ends a document, encoded by the codec; ``None`` for models without one.
        max_length: longest document in concepts that the model was trained on, if known.
        card: what is known about the model.
    """

    segmenter: Segmenter
    codec: ConceptCodec
    normalizer: ConceptNormalizer
    model: nn.Module
    codec_id: str | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, PromptRecord] = field(default_factory=dict)
    stop_text: str | None = "End of text."
    max_length: int | None = None
    card: ModelCard = field(default_factory=ModelCard)


def save_pipeline(
    path: str | Path,
    parts: PipelineParts,
    *,
    card: ModelCard | None = None,
    codec_reference: str | None = None,
    storage: Storage = "as_is",
    max_bytes: int | None = None,
) -> Path:
    """Write a pipeline as a folder; it is complete or not there.

    Everything is written to a temporary folder beside ``path``, which is then renamed. A folder at ``path`` is replaced
    when it is empty or a saved pipeline, and refused otherwise.

    Args:
        path: the folder to make.
        parts: what to save.
        card: what to say in the model card; ``parts.card`` when not given.
        codec_reference: store this name (for ``load_codec``) and the fingerprint instead of a copy of the codec.
        storage: ``int8`` rounds the matrices of model and codec to int8 rows with scales (a quarter of the size). The
            codec keeps its fingerprint: it stands for the same concept space, to within the rounding.
        max_bytes: most bytes of all files together.

    Raises:
        ConfigError: ``path`` holds something else, the parts do not fit one another, or the files are too large.
        CheckpointError: a part cannot be written.
    """
    import torch

    from largeconcept.models import save_model

    target = Path(path)
    card = parts.card if card is None else card
    check_dims(parts, where=target)
    record = PipelineRecord(
        torch_version=str(torch.__version__),
        codec=CodecRecord(
            fingerprint=parts.codec.fingerprint,
            dim=parts.codec.dim,
            stored=codec_reference is None,
            # A copy remembers the name of its original for people, not where it was on this machine.
            id=codec_reference or (Path(parts.codec_id).name if parts.codec_id else None),
        ),
        generation=parts.generation,
        decoding=parts.decoding,
        prompts=parts.prompts,
        stop_text=parts.stop_text,
        max_length=parts.max_length,
        card=card,
    )
    with new_folder(target) as folder:
        (folder / "segmenter").mkdir()
        write_json(folder / "segmenter" / "config.json", parts.segmenter.describe())
        if codec_reference is None:
            save = getattr(parts.codec, "save_pretrained", None)
            if save is None:
                raise ConfigError(
                    f"a {type(parts.codec).__name__} cannot be saved",
                    where=target,
                    hint="store it as a reference: codec_reference=<name for load_codec>",
                )
            save_codec = save if storage == "as_is" else _rounding(parts.codec, target)
            save_codec(folder / "codec")
        parts.normalizer.save_pretrained(folder / "normalizer")
        save_model(parts.model, folder / "model", storage)
        atomic_write_text(folder / "README.md", render_card(record, parts, title=card.title or target.resolve().name))
        write_json(folder / RECORD, record.to_dict())
        if max_bytes is not None:
            _check_size(folder, max_bytes, target)
    return target


def _rounding(codec: ConceptCodec, where: object) -> Callable[[Path], object]:
    """Return a function that writes a codec with int8 weights under its own fingerprint.

    Raises:
        ConfigError: a codec that cannot be written so.
    """
    from largeconcept.codec.autoencoder import AutoencoderCodec
    from largeconcept.codec.external import ExternalCodec

    if isinstance(codec, AutoencoderCodec):
        if codec.is_rounded:
            return codec.save_pretrained
        same = AutoencoderCodec(codec.network, codec.tokenizer, codec.metadata, space=codec.fingerprint)
        return lambda folder: same.save_pretrained(folder, "int8")
    if isinstance(codec, ExternalCodec):
        return lambda folder: codec.save_pretrained(folder, "int8")
    raise ConfigError(
        f"a {type(codec).__name__} cannot be saved with int8 weights",
        where=where,
        hint="store it as a reference: codec_reference=<name for load_codec>",
    )


def _check_size(folder: Path, max_bytes: int, where: object) -> None:
    sizes = {part: folder_size(folder / part) for part in PARTS if (folder / part).is_dir()}
    total = folder_size(folder)
    if total > max_bytes:
        parts = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in sizes.items())
        raise ConfigError(
            "the files are too large",
            where=where,
            got=f"{total / 2**20:.1f} MiB ({parts})",
            expected=f"at most {max_bytes / 2**20:.1f} MiB",
            hint="train a smaller model, or allow more",
        )


def folder_size(folder: str | Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def load_pipeline(path: str | Path | None = None, *, codec: ConceptCodec | str | Path | None = None) -> PipelineParts:
    """Read a saved pipeline.

    Args:
        path: a folder, a hub id (``org/name``), or ``None`` for the pipeline that ships with the library.
        codec: use this codec (or the one ``load_codec`` finds by this name) instead of the one stored or referred to;
            it must have the same fingerprint.

    Raises:
        CheckpointError: no such folder, a missing or damaged part, a later format, or another concept space.
        DependencyError: a hub id was given and huggingface_hub is not installed.
    """
    from largeconcept.codec import load_codec
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.models import load_model
    from largeconcept.segment import build_segmenter

    folder = require_folder(resolve(path), "pipeline")
    record = read_record(folder)
    for name in PARTS:
        if not (folder / name).is_dir() and (name != "codec" or (record.codec.stored and codec is None)):
            raise CheckpointError(
                f"the part {name!r} is missing", where=folder, hint="copy the whole folder, or export it again"
            )
    segmenter = _read(folder / "segmenter", lambda: build_segmenter(_mapping(folder / "segmenter" / "config.json")))
    codec_id = record.codec.id
    loaded: ConceptCodec
    if codec is None and record.codec.stored:
        loaded = _read(folder / "codec", lambda: load_codec(folder / "codec"))
    elif codec is None:
        if codec_id is None:
            raise CheckpointError("neither holds a codec nor names one", where=folder / RECORD)
        loaded = load_codec(codec_id)
    elif isinstance(codec, str | Path):
        codec_id = str(codec)
        loaded = load_codec(codec)
    else:
        loaded = codec
    check_fingerprint(loaded, record.codec.fingerprint, where=folder, dim=record.codec.dim)
    parts = PipelineParts(
        segmenter=segmenter,
        codec=loaded,
        normalizer=_read(folder / "normalizer", lambda: ConceptNormalizer.from_pretrained(folder / "normalizer")),
        model=_read(folder / "model", lambda: load_model(folder / "model")),
        codec_id=codec_id,
        generation=dict(record.generation),
        decoding=dict(record.decoding),
        prompts=dict(record.prompts),
        stop_text=record.stop_text,
        max_length=record.max_length,
        card=record.card,
    )
    check_dims(parts, where=folder)
    return parts


def read_record(folder: str | Path) -> PipelineRecord:
    """Read and check ``pipeline.json``.

    Raises:
        CheckpointError: missing, not JSON, of a later format, or not a pipeline's.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise CheckpointError(
            f"not a saved pipeline: it has no {RECORD}", where=folder, hint="make one with: largeconcept export RUN OUT"
        )
    data = read_json(path)
    if not isinstance(data, Mapping):
        raise CheckpointError("not a pipeline record", where=path, expected="a mapping", got=type(data).__name__)
    version = data.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError("no valid format_version", where=path, expected=f"1 to {FORMAT_VERSION}", got=version)
    if version > FORMAT_VERSION:
        raise CheckpointError(
            "the pipeline was written by a later version of largeconcept",
            where=path,
            expected=f"format_version up to {FORMAT_VERSION}",
            got=f"{version} (largeconcept {shorten(data.get('library_version', '?'), 20)})",
            hint="run: pip install --upgrade largeconcept",
        )
    return _read(path, lambda: PipelineRecord.from_dict(data))


def check_fingerprint(codec: ConceptCodec, expected: str, *, where: object, dim: int | None = None) -> None:
    """Refuse a codec whose concept space is not the expected one.

    Raises:
        CheckpointError: the fingerprints differ; the message holds both.
    """
    if codec.fingerprint == expected:
        return
    sizes = "" if dim is None or dim == codec.dim else f" and {dim} channels"
    raise CheckpointError(
        "the codec is of another concept space",
        where=where,
        expected=f"fingerprint {expected}{sizes}",
        got=f"fingerprint {codec.fingerprint}" + (f" and {codec.dim} channels" if sizes else ""),
        hint="use the codec that the model was trained with",
    )


def check_dims(parts: PipelineParts, where: object) -> None:
    """Refuse parts whose concepts have different numbers of channels.

    Raises:
        CheckpointError: names the part that differs from the codec.
    """
    model_dim = concept_dim(parts.model)
    for name, dim in (("normalizer", parts.normalizer.dim), ("model", model_dim)):
        if dim is not None and dim != parts.codec.dim:
            raise CheckpointError(
                f"the {name} does not fit the codec",
                where=where,
                expected=f"{parts.codec.dim} channels",
                got=f"{dim} channels",
            )


def concept_dim(model: nn.Module) -> int | None:
    """Return C as the model's configuration states it, or ``None`` when it does not."""
    value = getattr(getattr(model, "config", None), "concept_dim", None)
    return value if isinstance(value, int) else None


def resolve(path: str | Path | None) -> Path:
    """Return the folder that ``path`` means: a folder, a download from the hub, or what ships with the library.

    Raises:
        CheckpointError: nothing ships, or the hub cannot be reached or does not have it.
        DependencyError: a hub id, and huggingface_hub is not installed.
    """
    if path is None:
        shipped = shipped_pipeline()
        if shipped is None:
            raise CheckpointError(
                "no pipeline ships with this installation",
                hint="name a folder; to make one: largeconcept train two_tower …, then largeconcept export RUN OUT",
            )
        return shipped
    local = Path(path).expanduser()
    if local.exists() or not is_hub_id(path):
        return local
    return _download(str(path))


def shipped_pipeline() -> Path | None:
    """Return the folder of the pipeline in ``largeconcept/assets``, if there is one."""
    folder = Path(str(resources.files("largeconcept"))) / "assets" / DEFAULT_PIPELINE
    return folder if (folder / RECORD).is_file() else None


def _download(name: str) -> Path:
    # Weights in other formats than safetensors are not even fetched.
    return fetch_from_hub(name, ["*.json", "*.safetensors", "*.model", "*.md", "*.txt"])


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``, renamed to ``target`` on success and removed on failure.

    Raises:
        ConfigError: ``target`` is a file, or a folder with something other than a saved pipeline in it.
    """
    if target.is_dir():
        if any(target.iterdir()) and not (target / RECORD).is_file():
            raise ConfigError("the folder holds something else", where=target, expected="a new or empty folder")
    elif target.exists() or target.is_symlink():
        raise ConfigError("is not a folder", where=target, expected="a new or empty folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise ConfigError("cannot write there", where=target, got=error) from None
    try:
        yield temporary
        temporary.chmod(0o755)
        sync_folder(temporary)
        if target.is_dir():
            # Two renames: whoever looks sees the old folder, none, or the new one, never a mixture.
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old.tmp", dir=target.parent))
            target.replace(old)
            try:
                temporary.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def render_card(record: PipelineRecord, parts: PipelineParts, *, title: str) -> str:
    """Return the model card as Markdown: front matter, use, parts, and what the card knows; no empty heading."""
    card = record.card
    config = getattr(parts.model, "config", None)
    kind = str(getattr(config, "type", type(parts.model).__name__))
    size = sum(p.numel() for p in parts.model.parameters())
    front = ["---", "library_name: largeconcept", "tags:", "- large-concept-model"]
    if card.licence and re.fullmatch(r"[\w.+-]+", card.licence):
        front.append(f"license: {card.licence.lower()}")
    if card.languages:
        front += ["language:", *(f"- {code}" for code in card.languages)]
    lines = [*front, "---", "", f"# {title}", ""]
    lines += [
        card.description or f"A Large Concept Model of type `{kind}`: it reads sentences and writes the next ones."
    ]
    lines += ["", "## Use", "", "```python", "from largeconcept import ConceptPipeline", ""]
    lines += [f'pipe = ConceptPipeline.from_pretrained("{title}")', 'print(pipe("A first sentence.").text)', "```"]
    codec = record.codec
    where = "stored in `codec/`" if codec.stored else f"by reference: `{codec.id}`"
    lines += ["", "## Parts", "", "| Part | What |", "|---|---|"]
    lines.append(f"| segmenter | `{parts.segmenter.describe().get('type', type(parts.segmenter).__name__)}` |")
    lines.append(f"| codec | {codec.dim} channels, fingerprint `{codec.fingerprint}`, {where} |")
    licence = getattr(parts.codec, "metadata", {}).get("licence")
    if licence:
        lines.append(f"| licence of the codec | {licence} |")
    lines.append(f"| model | `{kind}`, {size:,} parameters |")
    lines.append(f"| written by | largeconcept {record.library_version}, torch {record.torch_version} |")
    sections: list[tuple[str, list[str]]] = [
        ("Training data", [f"- {line}" for line in card.training_data]),
        ("Training cost", [f"- {line}" for line in card.training_cost]),
        ("Metrics", _metric_lines(card.metrics)),
        ("Recipe", _recipe_lines(card.recipe)),
        ("Limits", [f"- {line}" for line in card.limits]),
        ("Licence", [card.licence] if card.licence else []),
    ]
    for heading, body in sections:
        if body:
            lines += ["", f"## {heading}", "", *body]
    return "\n".join(lines) + "\n"


def _recipe_lines(recipe: str | None) -> list[str]:
    if not recipe:
        return []
    return ["```yaml", recipe.rstrip("\n"), "```"] if "\n" in recipe else [f"`{recipe}`"]


def _metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """One table of plain numbers, then one of the metrics that have columns (a model beside its baselines)."""

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    plain = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    tables = {name: value for name, value in metrics.items() if isinstance(value, Mapping) and value}
    lines: list[str] = []
    if plain:
        lines += ["| Metric | Value |", "|---|---|"]
        lines += [f"| {name} | {cell(value)} |" for name, value in plain.items()]
    if tables:
        columns = list(dict.fromkeys(column for row in tables.values() for column in row))
        lines += [""] if lines else []
        lines += ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for name, row in tables.items():
            cells = " | ".join(cell(row[column]) if column in row else "" for column in columns)
            lines.append(f"| {name} | {cells} |")
    return lines


def _mapping(path: Path) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise CheckpointError("not a configuration", where=path, expected="a mapping", got=type(data).__name__)
    return data


def _read(where: Path, reader: Callable[[], _T]) -> _T:
    """Call ``reader``; whatever it complains about becomes one :class:`CheckpointError` that names the part."""
    try:
        return reader()
    except DependencyError:
        raise
    except ConceptLMError as error:
        if isinstance(error, CheckpointError) and str(where) in str(error.where):
            raise
        place = where if error.where is None or str(where) in str(error.where) else f"{where}: {error.where}"
        raise CheckpointError(
            error.problem, where=place, got=error.got, expected=error.expected, hint=error.hint
        ) from error
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError("the part cannot be read", where=where, got=error) from error


__all__ = [
    "FORMAT_VERSION",
    "CodecRecord",
    "ModelCard",
    "PipelineParts",
    "PipelineRecord",
    "PromptRecord",
    "check_fingerprint",
    "folder_size",
    "load_pipeline",
    "read_record",
    "render_card",
    "resolve",
    "save_pipeline",
    "shipped_pipeline",
]
