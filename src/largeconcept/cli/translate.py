"""``largeconcept translate``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import (
    Beams,
    Codec,
    InputLang,
    Inputs,
    Json,
    PipelinePath,
    Texts,
    echo,
    echo_json,
    read_inputs,
)


def translate(
    inputs: Inputs = None,
    to: Annotated[str, typer.Option("--to", "--lang", "-l", help="Language to write, as deu_Latn or de.")] = "eng_Latn",
    text: Texts = None,
    input_lang: InputLang = None,
    codec: Codec = "starter",
    pipeline: PipelinePath = None,
    beams: Beams = 4,
    json: Json = False,
) -> None:
    """Write texts in another language through their concepts.

    Needs a codec only; with --pipeline its codec and segmenter are used.
    """
    from largeconcept.generate.texts import translate as translate_texts

    documents = read_inputs(inputs, text, input_lang)
    if pipeline is not None:
        from largeconcept.hub import load_pipeline

        parts = load_pipeline(pipeline)
        segmenter, space = parts.segmenter, parts.codec
    else:
        from largeconcept.codec import load_codec
        from largeconcept.segment import build_segmenter

        segmenter, space = build_segmenter(None), load_codec(codec)
    results = translate_texts(documents, to, segmenter=segmenter, codec=space, decoding={"num_beams": beams})
    for number, (document, result) in enumerate(zip(documents, results)):
        if json:
            echo_json({"document": document.id, "text": result})
        else:
            echo(("\n" if number else "") + result)
