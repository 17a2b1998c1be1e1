"""Text to text: segment, encode, predict the next concepts, decode.

Whatever the number of texts, all their sentences are encoded in one call, all documents are continued in one batch and
all new concepts are decoded in one call.

Shape letters: S concepts of a prompt, n new concepts, C concept dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from largeconcept.codec.avoiding import with_avoided
from largeconcept.codec.rows import check_concepts, meaning_dim
from largeconcept.devices import default_device, move
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import concept_limit, generate_concepts
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.planned_texts import (
    PlannedText,
    given_plans,
    planned_text,
    planning_model,
    prompt_paragraphs,
    with_breaks,
)
from largeconcept.generate.planning import generate_planned
from largeconcept.generate.stopping import until_end
from largeconcept.generate.texts import (
    DEFAULT_LANGUAGE,
    DecodingOptions,
    TextInput,
    as_config,
    as_document,
    as_documents,
    encode_documents,
    input_language,
    join_sentences,
    split,
    translate,
    writable,
)
from largeconcept.hub import ModelCard, PipelineParts, PromptRecord, check_dims, load_pipeline, save_pipeline
from largeconcept.types import Document

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.generate.contexts import ContextStore
    from largeconcept.generate.loop import GeneratedConcepts
    from largeconcept.types import ConceptCodec, Segmenter


@dataclass(frozen=True, slots=True)
class GenerationOutput:
    """What a model wrote after a text.

    Attributes:
        text: the new sentences, joined.
        sentences: the new sentences.
        concepts: (n, C) float32 on the CPU, the new concepts, in the codec's own space.
        prompt_sentences: the sentences that the model read (of a prompt that was too long only the last ones, or for
            a task the first ones).
        stop_reason: why it ended, as :func:`~largeconcept.generate.loop.generate_concepts` says.
        lang: FLORES-200 code of ``text``.
    """

    text: str
    sentences: tuple[str, ...]
    concepts: Tensor
    prompt_sentences: tuple[str, ...]
    stop_reason: str
    lang: str


class ConceptPipeline:
    """A segmenter, a codec, a normalizer and a concept model that together continue texts.

    Args:
        segmenter: cuts texts into sentences.
        codec: sentences to concepts and back.
        normalizer: between the codec's space and the one the model was trained in.
        model: predicts concepts; moved to ``device`` and put in evaluation mode.
        options: defaults of the generation options.
        decoding: defaults of the decoding options.
        stop_text: the sentence that ended every training document; ``None`` for a model trained without one.
        prompts: task -> sentences around its document, for instruction-tuned models.
        max_length: longest document in concepts that the model was trained on; longer prompts lose their beginning,
            those of tasks their end.
        codec_id: name by which ``load_codec`` finds the codec, noted when the pipeline is saved.
        card: what is known about the model, for the model card.
        device: of the model; ``None`` means an accelerator when there is one.

    Raises:
        CheckpointError: the parts have different numbers of channels.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        codec: ConceptCodec,
        normalizer: ConceptNormalizer,
        model: nn.Module,
        options: GenerationOptions | Mapping[str, Any] | None = None,
        *,
        decoding: DecodingOptions | Mapping[str, Any] | None = None,
        stop_text: str | None = "End of text.",
        prompts: Mapping[str, PromptRecord] | None = None,
        max_length: int | None = None,
        codec_id: str | None = None,
        card: ModelCard | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.codec = codec
        self.normalizer = normalizer
        self.model = model
        self.options = as_config(GenerationOptions, options, "generation")
        self.decoding = as_config(DecodingOptions, decoding, "decoding")
        self.stop_text = stop_text
        self.prompts = dict(prompts or {})
        self.max_length = max_length
        self.codec_id = codec_id
        self.card = card or ModelCard()
        self.contexts: ContextStore | None = None  # set it where the same prompts are continued again and again
        self._stop: Tensor | None = None
        check_dims(self._parts(), where=type(self).__name__)
        self.to(default_device() if device is None else device)
        self.model.eval()

    # --- reading and writing -----------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        codec: ConceptCodec | str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """Open a saved pipeline.

        Args:
            path: a folder, a hub id (``org/name``), or ``None`` for the one that ships with the library.
            codec: used instead of the stored one; its fingerprint must be the same.
            device: of the model; ``None`` means an accelerator when there is one.

        Raises:
            CheckpointError: missing, damaged, of a later format, or of another concept space.
            DependencyError: a hub id, and huggingface_hub is not installed.
        """
        parts = load_pipeline(path, codec=codec)
        return cls(
            parts.segmenter,
            parts.codec,
            parts.normalizer,
            parts.model,
            parts.generation,
            decoding=parts.decoding,
            stop_text=parts.stop_text,
            prompts=parts.prompts,
            max_length=parts.max_length,
            codec_id=parts.codec_id,
            card=parts.card,
            device=device,
        )

    def save_pretrained(
        self,
        path: str | Path,
        *,
        card: ModelCard | Mapping[str, Any] | None = None,
        codec_reference: str | None = None,
    ) -> Path:
        """Write the pipeline as a folder, complete or not at all; see :func:`largeconcept.hub.save_pipeline`."""
        card = None if card is None else as_config(ModelCard, card, "card")
        return save_pipeline(path, self._parts(), card=card, codec_reference=codec_reference)

    def _parts(self) -> PipelineParts:
        return PipelineParts(
            segmenter=self.segmenter,
            codec=self.codec,
            normalizer=self.normalizer,
            model=self.model,
            codec_id=self.codec_id,
            generation=self.options.to_dict(),
            decoding=self.decoding.to_dict(),
            prompts=self.prompts,
            stop_text=self.stop_text,
            max_length=self.max_length,
            card=self.card,
        )

    def to(self, device: str | torch.device) -> Self:
        """Move model, normalizer and (if it can be moved) codec to ``device``."""
        move(device, self.model, self.normalizer, self.codec)
        return self

    # --- text to text ------------------------------------------------------------------------------------------------

    @overload
    def __call__(self, text: str | Document, **keywords: Any) -> GenerationOutput: ...
    @overload
    def __call__(self, text: Sequence[TextInput], **keywords: Any) -> list[GenerationOutput]: ...
    def __call__(
        self,
        text: str | Document | Sequence[TextInput],
        *,
        max_concepts: int | None = None,
        lang: str | None = None,
        input_lang: str | None = None,
        seed: int | None = None,
        decoding: DecodingOptions | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> GenerationOutput | list[GenerationOutput]:
        """Continue one text or many.

        Args:
            text: a string or a :class:`Document`; or a list whose items are strings, Documents or lists of sentences.
            max_concepts: how many sentences to write at most.
            lang: language to write. Without it: ``input_lang``, else the Document's own, else English.
            input_lang: language of the input, for a segmenter or codec that wants to know.
            seed: of the noise; equal seeds give equal texts.
            decoding: fields of :class:`DecodingOptions` that differ from the pipeline's.
            options: any other field of :class:`GenerationOptions`.

        Returns:
            One output, or a list of them when a list was given.

        Raises:
            DataError: a text without a sentence, or with characters that are no text.
            LanguageError: an unknown language, or one that the codec cannot write.
            ConfigError: an unknown or invalid option.
        """
        return self._write(
            text,
            PromptRecord(),
            None,
            max_concepts=max_concepts,
            lang=lang,
            input_lang=input_lang,
            seed=seed,
            decoding=decoding,
            **options,
        )

    @overload
    def summarize(self, text: str | Document, **keywords: Any) -> GenerationOutput: ...
    @overload
    def summarize(self, text: Sequence[TextInput], **keywords: Any) -> list[GenerationOutput]: ...
    def summarize(
        self, text: str | Document | Sequence[TextInput], *, ratio: float = 0.2, **keywords: Any
    ) -> GenerationOutput | list[GenerationOutput]:
        """Write a summary of at most ``ratio`` times as many sentences; needs a model tuned for it.

        Keywords are those of :meth:`__call__`; ``max_concepts`` wins over ``ratio``.

        Raises:
            ConfigError: the pipeline declares no prompt for this task.
        """
        return self._task("summarize", text, ratio, **keywords)

    @overload
    def expand(self, text: str | Document, **keywords: Any) -> GenerationOutput: ...
    @overload
    def expand(self, text: Sequence[TextInput], **keywords: Any) -> list[GenerationOutput]: ...
    def expand(
        self, text: str | Document | Sequence[TextInput], *, ratio: float = 4.0, **keywords: Any
    ) -> GenerationOutput | list[GenerationOutput]:
        """Write a longer text from a summary, at most ``ratio`` times its sentences; needs a model tuned for it.

        Raises:
            ConfigError: the pipeline declares no prompt for this task.
        """
        return self._task("expand", text, ratio, **keywords)

    def translate(
        self,
        text: str | Document | Sequence[str | Document],
        lang: str,
        *,
        input_lang: str | None = None,
        decoding: DecodingOptions | Mapping[str, Any] | None = None,
    ) -> str | list[str]:
        """Write a text in another language through its concepts alone, without the model; see :func:`translate`."""
        return translate(
            text,
            lang,
            segmenter=self.segmenter,
            codec=self.codec,
            input_lang=input_lang,
            decoding=self._decoding(decoding),
        )

    @overload
    def plan(self, text: str | Document | None = None, **keywords: Any) -> PlannedText: ...
    @overload
    def plan(self, text: Sequence[TextInput], **keywords: Any) -> list[PlannedText]: ...
    def plan(
        self,
        text: str | Document | Sequence[TextInput] | None = None,
        *,
        plans: Sequence[str] | Sequence[Sequence[str] | None] | None = None,
        max_concepts: int | None = None,
        lang: str | None = None,
        input_lang: str | None = None,
        seed: int | None = None,
        decoding: DecodingOptions | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> PlannedText | list[PlannedText]:
        """Write plans and their paragraphs after one text or many; needs a planning model.

        Args:
            text: as in :meth:`__call__`; ``None`` begins a text.
            plans: sentences to write a paragraph for each, as the model's own edited; for many texts a list of such
                lists, ``None`` where the model is to plan. Without it the model writes the plans.
            max_concepts: plans and sentences to write at most; by default as many as the paragraphs may have.
            lang, input_lang, seed, decoding: as in :meth:`__call__`.
            options: any other field of :class:`GenerationOptions`, such as ``max_paragraphs``.

        Returns:
            One text with its ``plans`` and ``paragraphs``, or a list of them when a list was given.

        Raises:
            ConfigError: not a planning model, or an unknown or invalid option.
            DataError: a text without a sentence, or with characters that are no text; or plans that are none.
            LanguageError: an unknown language, or one that the codec cannot write.
        """
        model, writing = planning_model(self.model), self._decoding(decoding)
        documents, many = ([None], False) if text is None else as_documents(text)
        given = given_plans(plans, len(documents), many)
        chosen = self._options(max_concepts, seed, options)
        number = max([len(one) or chosen.max_paragraphs for one in given], default=1)
        if max_concepts is None:
            chosen = self._options(number * (chosen.max_paragraph_concepts + 1), seed, options)
        none = Document("text")
        languages = [self._output_language(lang, input_lang, document or none) for document in documents]
        names = [document.where or document.id if document else "text" for document in documents]
        kind = model.config.plan
        room = self._room(chosen.max_concepts + number, 1)
        prompts = [
            prompt_paragraphs(document, kind, self.segmenter, input_lang, name, room)
            for document, name in zip(documents, names, strict=True)
        ]
        if not documents:
            return []
        rows = [*([s for paragraph in one for s in paragraph] for one in prompts), *given]
        codes = [input_language(input_lang, document or none) for document in documents]
        encoded = encode_documents(self.codec, [*documents, *[None] * len(given)], rows, [*codes, *codes])
        pause = self.normalizer.denormalize(model.break_concept).float().cpu()
        starts = [with_breaks(*one, pause) for one in zip(encoded, prompts)]
        stop = self.stop_vector
        results = generate_planned(
            model,
            starts,
            self.normalizer,
            chosen,
            plans=[one if len(one) else None for one in encoded[len(starts) :]],
            stop_vector=stop,
            meaning_dim=meaning_dim(self.codec),
        )
        results = [one.cpu() for one in results]
        written = self._decode_all([one.flat() for one in results], languages, writing)
        outputs = [
            planned_text(one, new, own, read, kind, code)
            for one, new, own, read, code in zip(results, written, given, prompts, languages, strict=True)
        ]
        return outputs if many else outputs[0]

    # --- concepts ----------------------------------------------------------------------------------------------------

    def encode_text(self, text: str | Document, input_lang: str | None = None) -> tuple[list[str], Tensor]:
        """Return the sentences of a text and their (S, C) concepts.

        Raises:
            DataError: a text without a sentence, or with characters that are no text.
        """
        document = as_document(text, "text")
        sentences = self._sentences(document, "text", input_lang)
        code = input_language(input_lang, document)
        return sentences, encode_documents(self.codec, [document], [sentences], [code])[0]

    def decode(
        self,
        concepts: Tensor,
        lang: str | Sequence[str] = DEFAULT_LANGUAGE,
        *,
        decoding: DecodingOptions | Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Return a sentence for each of the (n, C) concepts, in one language or in one per row.

        Raises:
            DataError: a wrong shape or a value that is not finite.
            LanguageError: an unknown language, or one that the codec cannot write.
        """
        check_concepts(concepts, self.codec.dim)
        codes = self.writable(lang) if isinstance(lang, str) else [self.writable(code) for code in lang]
        return self.codec.decode(concepts, codes, **self._decoding(decoding).model_dump()) if len(concepts) else []

    def continue_concepts(
        self, concepts: Tensor, *, max_concepts: int | None = None, seed: int | None = None, **options: Any
    ) -> GeneratedConcepts:
        """Continue (S, C) concepts, for instance edited ones, by new ones.

        Returns:
            ``.concepts`` (n, C) float32 on the CPU and ``.stop_reason``.

        Raises:
            DataError: a wrong shape, no concept, or a value that is not finite.
        """
        check_concepts(concepts, self.codec.dim)
        if not len(concepts):
            raise DataError("there is no concept to continue", where="concepts")
        chosen = self._options(max_concepts, seed, options)
        kept = concepts[-self._room(chosen.max_concepts, 0) :]
        _warn_if_cut(len(concepts), len(kept), "the prompt")
        return self._generate([kept.float()], chosen)[0]

    @property
    def stop_vector(self) -> Tensor | None:
        """(C,) concept of ``stop_text``, which the model was trained to end documents with; encoded once."""
        if self._stop is None and self.stop_text is not None:
            # By itself and in this language, as datasets encode it.
            lang = DEFAULT_LANGUAGE if DEFAULT_LANGUAGE in self.codec.languages else None
            self._stop = self.codec.encode([self.stop_text], lang)[0]
        return self._stop

    def writable(self, lang: str) -> str:
        """Return the FLORES-200 code of ``lang`` if the codec can write it.

        Raises:
            LanguageError: unknown, or not among the codec's languages.
        """
        return writable(self.codec, lang)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _task(
        self, task: str, text: str | Document | Sequence[TextInput], ratio: float, **keywords: Any
    ) -> GenerationOutput | list[GenerationOutput]:
        prompt = self.prompts.get(task)
        if prompt is None:
            declared = ", ".join(sorted(self.prompts)) or "none"
            raise ConfigError(
                f"this model was not tuned to {task}",
                where="prompts",
                expected=f"a prompt named {task!r} in pipeline.json",
                got=declared,
                hint=f"use a pipeline whose model was trained on {task} pairs",
            )
        if not ratio > 0:
            raise ConfigError("must be above 0", where="ratio", got=ratio)
        return self._write(text, prompt, ratio, **keywords)

    def _write(
        self,
        text: str | Document | Sequence[TextInput],
        prompt: PromptRecord,
        ratio: float | None,
        *,
        max_concepts: int | None = None,
        lang: str | None = None,
        input_lang: str | None = None,
        seed: int | None = None,
        decoding: DecodingOptions | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> GenerationOutput | list[GenerationOutput]:
        """Encode everything in one call, continue everything in one batch, decode everything in one call."""
        writing = self._decoding(decoding)
        self._options(max_concepts, seed, options)  # complains before any work is done
        documents, many = as_documents(text)
        languages = [self._output_language(lang, input_lang, document) for document in documents]
        names = [document.where or document.id for document in documents]
        sentences = [self._sentences(*one, input_lang) for one in zip(documents, names)]
        if not documents:
            return []
        budgets: list[int] | None = None
        if ratio is not None and max_concepts is None:
            budgets = [max(1, round(ratio * len(one))) for one in sentences]
            max_concepts = max(budgets)
        chosen = self._options(max_concepts, seed, options)
        room = self._room(chosen.max_concepts, len(prompt.prefix) + len(prompt.suffix))
        # What goes on needs its end; a text that a task is asked of is read from its beginning, as in training.
        kept = [one[-room:] if ratio is None else one[:room] for one in sentences]
        for name, whole, part in zip(names, sentences, kept):
            _warn_if_cut(len(whole), len(part), name, "last" if ratio is None else "first")
        codes = [input_language(input_lang, document) for document in documents]
        concepts = encode_documents(self.codec, documents, kept, codes, prompt.prefix, prompt.suffix)
        generated = self._generate(concepts, chosen)
        if budgets is not None:
            generated = [
                one
                if len(one.concepts) <= budget
                else replace(one, concepts=one.concepts[:budget], stop_reason="length")
                for one, budget in zip(generated, budgets)
            ]
        written = self._decode_all([one.concepts for one in generated], languages, writing)
        outputs = []
        for new, code, one, read in zip(written, languages, generated, kept):
            end = new.index(self.stop_text) if self.stop_text in new else None  # of codecs that cannot avoid it
            outputs.append(
                GenerationOutput(
                    text=join_sentences(new[:end], code),
                    sentences=tuple(new[:end]),
                    concepts=one.concepts[:end],
                    prompt_sentences=tuple(read),
                    stop_reason=one.stop_reason if end is None else "stop_concept",
                    lang=code,
                )
            )
        return outputs if many else outputs[0]

    def _generate(self, prompts: list[Tensor], options: GenerationOptions) -> list[GeneratedConcepts]:
        device = next(self.model.parameters()).device
        stop = self.stop_vector
        results = generate_concepts(
            self.model,
            [prompt.to(device) for prompt in prompts],
            self.normalizer,
            options,
            stop_vector=None if stop is None else stop.to(device),
            meaning_dim=meaning_dim(self.codec),
            contexts=self.contexts,
        )
        results = [replace(one, concepts=one.concepts.detach().float().cpu()) for one in results]
        return until_end(self.codec, results, self.stop_text, DEFAULT_LANGUAGE, options.min_concepts)

    def _decode_all(self, concepts: list[Tensor], languages: list[str], decoding: DecodingOptions) -> list[list[str]]:
        import torch

        counts = [len(one) for one in concepts]
        if not sum(counts):
            return [[] for _ in concepts]
        codes = [code for code, count in zip(languages, counts) for _ in range(count)]
        options = with_avoided(self.codec, decoding.model_dump(), self.stop_text)
        flat = iter(self.codec.decode(torch.cat(concepts), codes, **options))
        return [[next(flat) for _ in range(count)] for count in counts]

    def _sentences(self, document: Document, where: str, input_lang: str | None) -> list[str]:
        return [text for text, _ in split(document, self.segmenter, input_lang, where)]

    def _options(self, max_concepts: int | None, seed: int | None, options: dict[str, Any]) -> GenerationOptions:
        given = dict(options)
        if max_concepts is not None:
            given["max_concepts"] = max_concepts
        if seed is not None:
            given["seed"] = seed
        return GenerationOptions.from_dict({**self.options.to_dict(), **given}) if given else self.options

    def _decoding(self, given: DecodingOptions | Mapping[str, Any] | None) -> DecodingOptions:
        if given is None or isinstance(given, DecodingOptions):
            return given or self.decoding
        return DecodingOptions.from_dict({**self.decoding.to_dict(), **given})

    def _room(self, max_concepts: int, affixes: int) -> int:
        """How many sentences of a prompt are read, beside the new concepts and the prompt's affixes."""
        room = 2**62
        if self.max_length is not None:
            # Beyond what it was trained on a model without a table of positions still works, if badly.
            room = max(self.max_length - max_concepts - affixes, self.max_length // 2, 1)
        limit = concept_limit(self.model)
        if limit is not None:
            room = min(room, limit - max_concepts - affixes)
        if room < 1:
            size = getattr(self.model.config, "max_positions", None)
            raise ConfigError(
                "leaves no room for the prompt",
                where="max_concepts",
                got=max_concepts,
                expected=f"at most {(limit or 0) - 1 - affixes}, as the model has {size} positions",
            )
        return room

    def _output_language(self, lang: str | None, input_lang: str | None, document: Document) -> str:
        return self.writable(lang or input_lang or document.lang or DEFAULT_LANGUAGE)


def _warn_if_cut(whole: int, kept: int, what: str, end: str = "last") -> None:
    if kept < whole:
        warnings.warn(
            f"{what} has {whole} sentences; the model reads the {end} {kept} of them", UserWarning, stacklevel=3
        )


__all__ = [
    "DEFAULT_LANGUAGE",
    "ConceptPipeline",
    "DecodingOptions",
    "GenerationOutput",
    "PlannedText",
    "join_sentences",
    "translate",
    "writable",
]
