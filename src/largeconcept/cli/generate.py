"""``largeconcept generate``, ``summarize`` and ``expand``."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from largeconcept.generate.pipeline import GenerationOutput, PlannedText
    from largeconcept.types import Document

Lang = Annotated[
    str | None, typer.Option("--lang", "-l", help="Language to write. Default: the input's, else English.")
]
MaxConcepts = Annotated[int | None, typer.Option("--max-concepts", "-n", min=1, help="Sentences to write at most.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of the noise; equal seeds give equal texts.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A generation option, as guidance_scale=3; may be repeated."),
]


def generate(
    inputs: Inputs = None,
    text: Texts = None,
    pipeline: PipelinePath = None,
    max_concepts: MaxConcepts = None,
    lang: Lang = None,
    input_lang: InputLang = None,
    seed: Seed = None,
    option: Options = None,
    beams: Beams = 4,
    device: Device = None,
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
    documents = read_inputs(inputs, text, input_lang)
    options = {**key_values(option), "max_concepts": max_concepts, "lang": lang, "seed": seed}
    if plan or plans:
        given = [plans] * len(documents) if plans else None
        planned = _pipeline(pipeline, device).plan(documents, plans=given, decoding={"num_beams": beams}, **options)
        _print_planned(documents, planned, json, with_prompt)
        return
    outputs = _pipeline(pipeline, device)(documents, decoding={"num_beams": beams}, **options)
    _print(documents, outputs, json, with_prompt)


def summarize(
    inputs: Inputs = None,
    text: Texts = None,
    pipeline: PipelinePath = None,
    ratio: Annotated[float, typer.Option("--ratio", help="Sentences of the summary for one of the text.")] = 0.2,
    max_concepts: MaxConcepts = None,
    lang: Lang = None,
    input_lang: InputLang = None,
    seed: Seed = None,
    option: Options = None,
    beams: Beams = 4,
    device: Device = None,
    json: Json = False,
) -> None:
    """Shorten texts with an instruction-tuned model."""
    documents = read_inputs(inputs, text, input_lang)
    options = {**key_values(option), "max_concepts": max_concepts, "lang": lang, "seed": seed}
    outputs = _pipeline(pipeline, device).summarize(documents, ratio=ratio, decoding={"num_beams": beams}, **options)
    _print(documents, outputs, json)


def expand(
    inputs: Inputs = None,
    text: Texts = None,
    pipeline: PipelinePath = None,
    ratio: Annotated[float, typer.Option("--ratio", help="Sentences to write for one of the summary.")] = 4.0,
    max_concepts: MaxConcepts = None,
    lang: Lang = None,
    input_lang: InputLang = None,
    seed: Seed = None,
    option: Options = None,
    beams: Beams = 4,
    device: Device = None,
    json: Json = False,
) -> None:
    """Write longer texts from summaries with an instruction-tuned model."""
    documents = read_inputs(inputs, text, input_lang)
    options = {**key_values(option), "max_concepts": max_concepts, "lang": lang, "seed": seed}
    outputs = _pipeline(pipeline, device).expand(documents, ratio=ratio, decoding={"num_beams": beams}, **options)
    _print(documents, outputs, json)


def _pipeline(path: str | None, device: str | None) -> Any:
    from largeconcept.generate.pipeline import ConceptPipeline

    return ConceptPipeline.from_pretrained(path, device=device)


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
                }
            )
            continue
        lead = "\n" if number else ""
        if with_prompt:
            lead += " ".join(output.prompt_sentences) + "\n\n"
        echo(lead + output.text)


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
