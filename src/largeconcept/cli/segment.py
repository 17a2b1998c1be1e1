"""``largeconcept segment``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import InputLang, Inputs, Json, Texts, echo, echo_json, key_values, read_inputs


def segment(
    inputs: Inputs = None,
    text: Texts = None,
    lang: InputLang = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A setting of the segmenter, as max_chars=200.")
    ] = None,
    json: Json = False,
) -> None:
    """Cut texts into sentences.

    Prints one sentence a line, with an empty line between paragraphs. With --json one object a sentence: document,
    start and end (characters of the input), paragraph, text.
    """
    from largeconcept.generate.texts import check_text, input_language
    from largeconcept.segment import build_segmenter

    segmenter = build_segmenter(key_values(option) or None)
    for number, document in enumerate(read_inputs(inputs, text, lang)):
        check_text(document.text, document.id)
        previous = 0
        for index, span in enumerate(segmenter.segment(document.text, input_language(lang, document))):
            sentence = span.of(document.text)
            if json:
                place = {"document": document.id, "start": span.start, "end": span.end, "paragraph": span.paragraph}
                echo_json({**place, "text": sentence})
                continue
            if (index and span.paragraph != previous) or (number and not index):
                echo("")
            echo(" ".join(sentence.split("\n")) if "\n" in sentence else sentence)
            previous = span.paragraph
