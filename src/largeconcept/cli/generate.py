"""``largeconcept generate``, ``summarize`` and ``expand``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.cli.common import (
    Beams,
    Device,
    InputLang,
    Inputs,
    Json,
    PipelinePath,
    Texts,
    echo,
    echo_json,
    key_values,
    read_inputs,
)
from largeconcept.cli.speech import Speak, Voice, listener, speaker

if TYPE_CHECKING:
    from largeconcept.generate.pipeline import ConceptPipeline, GenerationOutput, PlannedText
    from largeconcept.types import Document

Lang = Annotated[
    str | None, typer.Option("--lang", "-l", help="Language to write. Default: the input's, else English.")
]
MaxConcepts = Annotated[int | None, typer.Option("--max-concepts", "-n", min=1, help="Sentences to write at most.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of the noise; equal seeds give equal texts.")]
OtherCodec = Annotated[
    str | None,
    typer.Option("--codec", "-c", help="A codec to use instead of the stored one, of the same concept space."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A generation option, as guidance_scale=3; may be repeated."),
]


def generate(
    inputs: Inputs = None,
    text: Texts = None,
    pipeline: PipelinePath = None,
    codec: OtherCodec = None,
    max_concepts: MaxConcepts = None,
    lang: Lang = None,
    input_lang: InputLang = None,
    seed: Seed = None,
    option: Options = None,
    beams: Beams = 4,
    device: Device = None,
    speak: Speak = None,
    voice: Voice = None,
    with_prompt: Annotated[
        bool, typer.Option("--with-prompt", help="Print the sentences that were read, too.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Write paragraphs, each under its plan; needs a planning model.")
    ] = False,
    plans: Annotated[
        list[str] | None,
        typer.Option("--plans", help="A plan to write a paragraph for; may be repeated. Implies --plan."),
    ] = None,
    json: Json = False,
) -> None:
    """Continue texts, concept by concept; with --plan, paragraph by paragraph."""
    options = {**key_values(option), "max_concepts": max_concepts, "lang": lang, "seed": seed}
    work = _Work(inputs, text, input_lang, lang, _opener(pipeline, codec, device), beams, speak, voice)
    if plan or plans:
        given = [plans] * len(work.documents) if plans else None
        planned = work.pipeline.plan(work.documents, plans=given, decoding=work.decoding, **options)
        _print_planned(work.documents, planned, json, with_prompt)
        work.say([one.text for one in planned], [one.lang for one in planned])
        return
    work.finish(work.pipeline(work.documents, decoding=work.decoding, **options), json, with_prompt)


def summarize(
    inputs: Inputs = None,
    text: Texts = None,
    pipeline: PipelinePath = None,
    codec: OtherCodec = None,
    ratio: Annotated[float, typer.Option("--ratio", help="Sentences of the summary for one of the text.")] = 0.2,
    max_concepts: MaxConcepts = None,
    lang: Lang = None,
    input_lang: InputLang = None,
    seed: Seed = None,
    option: Options = None,
    beams: Beams = 4,
    device: Device = None,
    speak: Speak = None,
    voice: Voice = None,
    json: Json = False,
) -> None:
    """Shorten texts with an instruction-tuned model."""
    options = {**key_values(option), "max_concepts": max_concepts, "lang": lang, "seed": seed}
    work = _Work(inputs, text, input_lang, lang, _opener(pipeline, codec, device), beams, speak, voice)
    work.finish(work.pipeline.summarize(work.documents, ratio=ratio, decoding=work.decoding, **options), json)


def expand(
    inputs: Inputs = None,
    text: Texts = None,
    pipeline: PipelinePath = None,
    codec: OtherCodec = None,
    ratio: Annotated[float, typer.Option("--ratio", help="Sentences to write for one of the summary.")] = 4.0,
    max_concepts: MaxConcepts = None,
    lang: Lang = None,
    input_lang: InputLang = None,
    seed: Seed = None,
    option: Options = None,
    beams: Beams = 4,
    device: Device = None,
    speak: Speak = None,
    voice: Voice = None,
    json: Json = False,
) -> None:
    """Write longer texts from summaries with an instruction-tuned model."""
    options = {**key_values(option), "max_concepts": max_concepts, "lang": lang, "seed": seed}
    work = _Work(inputs, text, input_lang, lang, _opener(pipeline, codec, device), beams, speak, voice)
    work.finish(work.pipeline.expand(work.documents, ratio=ratio, decoding=work.decoding, **options), json)


class _Work:
    """What the three verbs have in common: their inputs, read or heard; the pipeline; and where to speak.

    Raises:
        ConceptLMError: whatever is wrong with the inputs, the languages or the voice, before the pipeline runs.
    """

    def __init__(
        self,
        inputs: list[str] | None,
        texts: list[str] | None,
        input_lang: str | None,
        lang: str | None,
        load: Callable[[], ConceptPipeline],
        beams: int,
        speak: str | None,
        voice: str | None,
    ) -> None:
        self.decoding = {"num_beams": beams}
        self._speaker = speaker(speak, voice, [lang])
        self._load = load
        listen = listener(lambda: self.pipeline.codec, input_lang, beams)
        self.documents = read_inputs(inputs, texts, input_lang, listen)
        if self._speaker is not None and lang is None:
            from largeconcept.generate.texts import DEFAULT_LANGUAGE

            self._speaker.check(one.lang or DEFAULT_LANGUAGE for one in self.documents)

    @property
    def pipeline(self) -> ConceptPipeline:
        return self._load()

    def say(self, texts: list[str] | list[tuple[str, ...]], languages: list[str]) -> None:
        if self._speaker is not None:
            self._speaker.write(texts, languages)

    def finish(self, outputs: list[GenerationOutput], as_json: bool, with_prompt: bool = False) -> None:
        _print(self.documents, outputs, as_json, with_prompt)
        self.say([one.sentences for one in outputs], [one.lang for one in outputs])


def _opener(path: str | None, codec: str | None, device: str | None) -> Callable[[], ConceptPipeline]:
    """Return a function that opens the pipeline the first time that it is called."""

    @cache
    def load() -> ConceptPipeline:
        from largeconcept.generate.pipeline import ConceptPipeline

        return ConceptPipeline.from_pretrained(path, codec=codec, device=device)

    return load


def _print(
    documents: list[Document], outputs: list[GenerationOutput], as_json: bool, with_prompt: bool = False
) -> None:
    for number, (document, output) in enumerate(zip(documents, outputs)):
        if as_json:
            echo_json(
                {
                    "document": document.id,
                    "prompt_sentences": list(output.prompt_sentences),
                    "sentences": list(output.sentences),
                    "text": output.text,
                    "lang": output.lang,
                    "stop_reason": output.stop_reason,
                    **_times(document, len(output.prompt_sentences)),
                }
            )
            continue
        lead = "\n" if number else ""
        if with_prompt:
            lead += " ".join(output.prompt_sentences) + "\n\n"
        echo(lead + output.text)


def _times(document: Document, number: int) -> dict[str, Any]:
    """When the last sentences of a document were said, where it was heard."""
    times = document.times
    return {} if times is None else {"prompt_times": [list(one) for one in times[len(times) - number :]]}


def _print_planned(documents: list[Document], outputs: list[PlannedText], as_json: bool, with_prompt: bool) -> None:
    from largeconcept.generate.texts import join_sentences

    for number, (document, output) in enumerate(zip(documents, outputs)):
        if as_json:
            echo_json(
                {
                    "document": document.id,
                    "prompt_sentences": list(output.prompt_sentences),
                    "plans": list(output.plans),
                    "paragraphs": [list(paragraph) for paragraph in output.paragraphs],
                    "text": output.text,
                    "lang": output.lang,
                    "stop_reason": output.stop_reason,
                }
            )
            continue
        blocks = [" ".join(output.prompt_sentences)] if with_prompt else []
        for plan, paragraph in zip(output.plans, output.paragraphs):
            body = join_sentences(paragraph, output.lang)
            blocks.append(f"## {plan}" + (f"\n{body}" if body else ""))
        echo(("\n" if number else "") + "\n\n".join(blocks))
