"""Everything that writes text, behind one small protocol: concept models, token models, and what needs no model.

A predictor is asked for a batch of items at a time. It says beforehand whether it can do a task, and describes what its
outputs depend on, so that outputs can be kept and used again (see :mod:`largeconcept.eval.records`).

Shape letters: n concepts, C concept dimension.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.eval.records import digest
from largeconcept.generate.texts import join_sentences
from largeconcept.types import Document

if TYPE_CHECKING:
    from torch import Tensor, nn

    from largeconcept.generate.options import GenerationOptions
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.generate.token_lm import TokenOptions
    from largeconcept.models.token_lm import TokenLM
    from largeconcept.objectives.token_lm import TextTokenizer
    from largeconcept.types import ConceptCodec

ZERO_SHOT = "zero_shot"
"""Note of an output that was asked for by the item's question."""
Mode = Literal["continue", "summarize", "expand", "plan"]
"""What is asked of a predictor: to go on, to shorten, to make longer, or to go on with a plan for each paragraph."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to write.

    Attributes:
        id: of the document; with ``lang`` and ``target_lang`` unique in a task.
        lang: FLORES-200 code of the source, if known.
        target_lang: of what is to be written.
        source: the text that is read, with its sentences.
        reference: the sentences that a person wrote.
        max_concepts: most sentences to write.
        question: what a model that was not tuned to the task reads after the source, in the language that is to be
            written; ``None`` where it is not to be asked so, or not known how.
    """

    id: str
    lang: str | None
    target_lang: str
    source: Document
    reference: tuple[str, ...]
    max_concepts: int
    question: str | None = None

    @property
    def cross_lingual(self) -> bool:
        """Whether another language than the source's is to be written."""
        return self.lang is not None and self.lang != self.target_lang

    def describe(self) -> dict[str, Any]:
        """Return what an output may depend on; the reference is not shown to predictors."""
        return {
            "id": self.id,
            "lang": self.lang,
            "target_lang": self.target_lang,
            "source": list(self.source.sentences),
            "paragraph_starts": list(self.source.paragraph_starts),
            "title": self.source.title,
            "plans": None if self.source.plans is None else list(self.source.plans),
            "max_concepts": self.max_concepts,
            "question": self.question,
        }

    @property
    def asked(self) -> Document:
        """The source with the question after it."""
        read = self.source.sentences if self.question is None else (*self.source.sentences, self.question)
        return replace(self.source, sentences=read, concepts=None, times=None)


@dataclass(frozen=True, slots=True)
class Output:
    """What was written for an item.

    Attributes:
        sentences: in order.
        text: the same, joined.
        lang: FLORES-200 code.
        seconds: wall-clock time, that of a batch divided by its items.
        notes: what else is known, such as ``stop_reason`` or ``plans``; plain data.
        concepts: (n, C) float32 concepts of a concept model, before decoding; not kept on disk.
    """

    sentences: tuple[str, ...]
    text: str
    lang: str
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)
    concepts: Tensor | None = field(default=None, compare=False, repr=False)


class Predictor(Protocol):
    """Something that writes.

    ``whole`` is true where an output depends on the other items too, so that all of them are given at once.
    """

    name: str
    whole: bool

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on besides the item and the seed, as plain data."""
        ...

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why the predictor cannot do this, or ``None`` if it can."""
        ...

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write something for each item."""
        ...


def written(sentences: Iterable[str], lang: str, **more: Any) -> Output:
    """Return sentences as an output."""
    kept = tuple(sentences)
    return Output(kept, join_sentences(kept, lang), lang, **more)


def grouped(items: Sequence[Item], *keys: str) -> dict[tuple[Any, ...], list[int]]:
    """Return the places of items that are equal in some attributes."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(tuple(getattr(item, key) for key in keys), []).append(place)
    return groups


class ConceptModelPredictor:
    """A pipeline around a concept model of any family.

    It continues texts; it summarises and expands where it was tuned to (``prompts`` in ``pipeline.json``), also into
    languages that the tuning did not have, and else goes on after the item's question, if there is one; it plans where
    its model does.

    Args:
        pipeline: the model with its codec.
        options: generation options, those of the pipeline by default; budgets and seed are taken from the items.
        name: in results.
    """

    whole = False

    def __init__(
        self, pipeline: ConceptPipeline, options: GenerationOptions | None = None, name: str = "model"
    ) -> None:
        self.pipeline, self.name = pipeline, name
        self.options = options if options is not None else pipeline.options

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights of model and normalizer."""
        return weights_fingerprint(self.pipeline.model, self.pipeline.normalizer)

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on; see :class:`Predictor`."""
        pipe = self.pipeline
        settings = self.options.to_dict()
        del settings["seed"], settings["max_batch"], settings["max_concepts"]
        config: Any = pipe.model.config
        return {
            "kind": "concept_model",
            "family": config.type,
            "weights": self.fingerprint,
            "config": config.to_dict(),
            "codec": pipe.codec.fingerprint,
            "generation": settings,
            "decoding": pipe.decoding.to_dict(),
            "prompts": {task: record.to_dict() for task, record in pipe.prompts.items()},
            "stop_text": pipe.stop_text,
            "max_length": pipe.max_length,
            "device": next(pipe.model.parameters()).device.type,  # devices round differently
        }

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not; see :class:`Predictor`."""
        from largeconcept.models.planning import PlanningConceptModel

        if self._zero_shot(mode) and any(item.question is None for item in items):
            return f"not tuned to {mode}: its pipeline.json has no such prompt"
        if mode == "plan" and not isinstance(self.pipeline.model, PlanningConceptModel):
            return "does not plan"
        unwritable = {item.target_lang for item in items} - set(self.pipeline.codec.languages)
        return f"its codec does not write {', '.join(sorted(unwritable))}" if unwritable else None

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write; equal items and seeds give equal texts in any batch."""
        outputs: list[Output | None] = [None] * len(items)
        plain = self.options.to_dict()
        for (lang, budget), places in grouped(items, "target_lang", "max_concepts").items():
            began = time.perf_counter()
            settings = {**plain, "max_concepts": budget, "min_concepts": min(plain["min_concepts"], budget)}
            keywords = {**settings, "seed": seed, "lang": lang}
            asked = self._zero_shot(mode)
            documents = [items[place].asked if asked else items[place].source for place in places]
            made = self._plan(documents, keywords) if mode == "plan" else self._write(documents, mode, keywords)
            seconds = (time.perf_counter() - began) / len(places)
            for place, output in zip(places, made, strict=True):
                notes = {**output.notes, **({ZERO_SHOT: True} if asked else {})}
                outputs[place] = replace(output, seconds=seconds, notes=notes)
        return [output for output in outputs if output is not None]

    def _zero_shot(self, mode: Mode) -> bool:
        return mode in ("summarize", "expand") and mode not in self.pipeline.prompts

    def _write(self, documents: list[Document], mode: Mode, keywords: dict[str, Any]) -> list[Output]:
        verb: Any = self.pipeline
        if mode in self.pipeline.prompts:
            verb = {"summarize": self.pipeline.summarize, "expand": self.pipeline.expand}.get(mode, verb)
        return [
            Output(one.sentences, one.text, one.lang, notes={"stop_reason": one.stop_reason}, concepts=one.concepts)
            for one in verb(documents, **keywords)
        ]

    def _plan(self, documents: list[Document], keywords: dict[str, Any]) -> list[Output]:
        first = getattr(getattr(self.pipeline.model, "config", None), "plan", None) in (None, "first_sentence")
        outputs = []
        for one in self.pipeline.plan(documents, **keywords):
            paragraphs = [
                ([plan] if first else []) + list(sentences)
                for plan, sentences in zip(one.plans, one.paragraphs, strict=True)
            ]
            sentences = tuple(sentence for paragraph in paragraphs for sentence in paragraph)
            notes = {"stop_reason": one.stop_reason, "plans": list(one.plans), "paragraphs": paragraphs}
            outputs.append(Output(sentences, one.text, one.lang, notes=notes))
        return outputs


class TokenModelPredictor:
    """A token model of :mod:`largeconcept.models.token_lm`.

    It continues texts; it summarises and expands after the sentence that it was tuned to, or after the item's question
    if it was not, and always where another language is to be written: a prompt says nothing of languages.

    Args:
        model: the model.
        tokenizer: that of the codec it was trained with.
        options: greedy by default; number of sentences and seed are taken from the items.
        name: in results.
        prompts: mode -> the sentence between source and target in its training.
    """

    whole = False

    def __init__(
        self,
        model: TokenLM,
        tokenizer: TextTokenizer,
        options: TokenOptions | None = None,
        name: str = "token_lm",
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        from largeconcept.generate.token_lm import TokenOptions

        self.model, self.tokenizer, self.name, self.prompts = model, tokenizer, name, dict(prompts or {})
        self.options = options if options is not None else TokenOptions()

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights."""
        return weights_fingerprint(self.model)

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on; see :class:`Predictor`."""
        settings = self.options.to_dict()
        del settings["seed"], settings["max_sentences"]
        return {
            "kind": "token_lm",
            "weights": self.fingerprint,
            "config": self.model.config.to_dict(),
            # Two vocabularies of one size cut these letters differently.
            "tokenizer": digest(self.tokenizer.encode(["The quick brown fox, über naïve façade: ñandú 1984."])),
            "options": settings,
            "prompts": self.prompts,
            "device": self.model.embedding.weight.device.type,
        }

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not; see :class:`Predictor`."""
        if mode not in ("continue", "summarize", "expand"):
            return "does not plan"
        silent = [item for item in items if self._reads(item, mode) is None]
        if any(item.cross_lingual for item in silent):
            return "cannot be told in which language to write"
        return f"not tuned to {mode}, and not to be asked otherwise" if silent else None

    def _reads(self, item: Item, mode: Mode) -> tuple[str, ...] | None:
        """Return the sentences that the model goes on after; ``None`` if there is no way to ask."""
        if mode == "continue":
            return None if item.cross_lingual else item.source.sentences
        if mode in self.prompts and not item.cross_lingual:
            return (*item.source.sentences, self.prompts[mode])
        return None if item.question is None else item.asked.sentences

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write; equal items and seeds give equal texts in any batch."""
        from largeconcept.generate.token_lm import continue_sentences

        outputs: list[Output | None] = [None] * len(items)
        for (budget,), places in grouped(items, "max_concepts").items():
            began = time.perf_counter()
            options = self.options.model_copy(update={"max_sentences": budget, "seed": seed})
            prompts = [self._reads(items[place], mode) or () for place in places]
            texts = continue_sentences(self.model, self.tokenizer, prompts, options)
            seconds = (time.perf_counter() - began) / len(places)
            for place, text in zip(places, texts, strict=True):
                asked = mode != "continue" and (mode not in self.prompts or items[place].cross_lingual)
                notes = {ZERO_SHOT: True} if asked else {}
                outputs[place] = written(text, items[place].target_lang, seconds=seconds, notes=notes)
        return [output for output in outputs if output is not None]


def weights_fingerprint(*modules: nn.Module) -> str:
    """Return 16 hexadecimal digits that identify the weights of modules."""
    from largeconcept.io import fingerprint

    tensors = {f"{i}.{name}": value for i, module in enumerate(modules) for name, value in module.state_dict().items()}
    return fingerprint(tensors)


def open_pipeline(
    path: str | Path, *, codec: ConceptCodec | str | Path | None = None, device: str | None = None
) -> ConceptPipeline:
    """Open a saved pipeline, or put one together from the folder of a finished training run.

    Args:
        path: folder, or hub id of a saved pipeline.
        codec: instead of the stored one, or of the one that the run names.
        device: of the model; an accelerator by default.

    Raises:
        CheckpointError: neither of the two, damaged, or a codec of another concept space.
        ConfigError: the run of a token model.
    """
    from largeconcept.codec import load_codec
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.hub import RECORD, check_fingerprint, resolve
    from largeconcept.io import require_folder
    from largeconcept.models import load_model
    from largeconcept.segment import build_segmenter
    from largeconcept.train.export import read_run

    folder = require_folder(resolve(str(path)), "pipeline or training run")
    if (folder / RECORD).is_file() or not (folder / "config.yaml").is_file():
        return ConceptPipeline.from_pretrained(folder, codec=codec, device=device)
    config, facts = read_run(folder)
    if getattr(config.model, "concept_dim", None) is None:
        hint = "name it as a predictor beside a concept model: --predictors token_lm=FOLDER"
        raise ConfigError("not a concept model", where=folder, got=config.model.type, hint=hint)
    name = facts["codec"] if codec is None else codec
    space = load_codec(name) if isinstance(name, str | Path) else name
    check_fingerprint(space, facts["codec_fingerprint"], where=folder, dim=facts["dim"])
    data = config.data
    return ConceptPipeline(
        build_segmenter(None),
        space,
        ConceptNormalizer.from_pretrained(folder / "normalizer"),
        load_model(folder / "model"),
        stop_text=data.end_text if data.append_end else None,
        max_length=data.max_length,
        codec_id=str(name) if isinstance(name, str | Path) else None,
        device=device,
    )


def open_token_model(
    path: str | Path, codec: ConceptCodec, *, options: Mapping[str, Any] | None = None, device: str | None = None
) -> TokenModelPredictor:
    """Open the training run of a token model, or the folder of one.

    Args:
        path: the folder.
        codec: whose tokenizer the model was trained with; a run may name another one, which is then loaded.
        options: fields of :class:`~largeconcept.generate.token_lm.TokenOptions`.
        device: of the model; an accelerator by default.

    Raises:
        CheckpointError: no such model there, or damaged.
        ConfigError: a model of another family, a codec without or with another tokenizer.
    """
    from largeconcept.codec import load_codec
    from largeconcept.devices import default_device, move
    from largeconcept.generate.token_lm import TokenOptions
    from largeconcept.io import require_folder
    from largeconcept.models import load_model
    from largeconcept.models.token_lm import TokenLM
    from largeconcept.train.export import read_run

    folder = require_folder(path, "token model or its training run")
    space: Any = codec
    prompts: Mapping[str, str] = {}
    if (folder / "config.yaml").is_file():
        config, facts = read_run(folder)
        prompts = config.data.tasks
        named = getattr(config.objective, "codec", None)
        if named is not None or facts["codec_fingerprint"] != codec.fingerprint:
            space = load_codec(named or facts["codec"])
        folder = folder / "model"
    if not (folder / "config.json").is_file():
        raise CheckpointError("no model there", where=folder, expected="a token model or its finished training run")
    model = load_model(folder)
    if not isinstance(model, TokenLM):
        family = getattr(getattr(model, "config", None), "type", type(model).__name__)
        raise ConfigError("not a token model", where=path, got=family, hint="name a concept model with lcm=FOLDER")
    tokenizer = getattr(space, "tokenizer", None)
    if tokenizer is None or tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            "the codec has not the tokenizer that the token model was trained with",
            where=path,
            expected=f"{model.config.vocab_size} tokens",
            got="no tokenizer" if tokenizer is None else f"{tokenizer.vocab_size} tokens",
        )
    move(device or default_device(), model)
    model.eval()
    chosen = TokenOptions.from_dict(dict(options or {}), where="token_lm")
    return TokenModelPredictor(model, tokenizer, chosen, prompts=prompts)


__all__ = [
    "ConceptModelPredictor",
    "Item",
    "Mode",
    "Output",
    "Predictor",
    "TokenModelPredictor",
    "grouped",
    "open_pipeline",
    "open_token_model",
    "weights_fingerprint",
    "written",
]
