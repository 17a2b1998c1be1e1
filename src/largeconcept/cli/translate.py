"""``largeconcept translate``."""

from __future__ import annotations

from functools import cache
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
    segmenter_and_codec,
)
from largeconcept.cli.speech import Speak, Voice, listener, speaker


def translate(
    inputs: Inputs = None,
    to: Annotated[str, typer.Option("--to", "--lang", "-l", help="Language to write, as deu_Latn or de.")] = "eng_Latn",
    text: Texts = None,
    input_lang: InputLang = None,
    codec: Codec = "starter",
    pipeline: PipelinePath = None,
    beams: Beams = 4,
    speak: Speak = None,
    voice: Voice = None,
    json: Json = False,
) -> None:
    """Write texts in another language through their concepts.

    Needs a codec only; with --pipeline its codec and segmenter are used.
    """
    from largeconcept.generate.texts import translate as translate_texts

    mouth = speaker(speak, voice, [to])
    parts = cache(lambda: segmenter_and_codec(pipeline, codec))
    documents = read_inputs(inputs, text, input_lang, listener(lambda: parts()[1], input_lang, beams))
    segmenter, space = parts()
    results = translate_texts(documents, to, segmenter=segmenter, codec=space, decoding={"num_beams": beams})
    for number, (document, result) in enumerate(zip(documents, results)):
        if json:
            echo_json({"document": document.id, "text": result})
        else:
            echo(("\n" if number else "") + result)
    if mouth is not None:
        mouth.write(results, [to] * len(results))
