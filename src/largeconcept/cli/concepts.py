"""``largeconcept encode`` and ``decode``."""

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
    log,
    read_inputs,
    read_text,
    segmenter_and_codec,
)
from largeconcept.cli.speech import listener


def encode(
    inputs: Inputs = None,
    text: Texts = None,
    out: Annotated[
        str | None, typer.Option("--out", help="File to write: .npz, .safetensors or .jsonl. Default: JSON lines.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is a sentence; do not segment.")] = False,
    input_lang: InputLang = None,
    codec: Codec = "starter",
    pipeline: PipelinePath = None,
) -> None:
    """Turn texts into concepts.

    Prints one JSON object a sentence (sentence, codec, concept), or writes a file that decode reads.
    """
    from largeconcept.errors import DataError
    from largeconcept.generate.files import ConceptFile, file_format, json_lines, write_concepts
    from largeconcept.generate.texts import encode_documents, input_language, split

    if out is not None:
        file_format(out)
    parts = cache(lambda: segmenter_and_codec(pipeline, codec))
    documents = read_inputs(inputs, text, input_lang, listener(lambda: parts()[1], input_lang, beams=1))
    segmenter, space = parts()
    rows = []
    for document in documents:
        if lines and document.concepts is None:
            row = [line for line in document.text.splitlines() if line.strip()]
            if not row:
                raise DataError("the text is empty", where=document.id, expected="at least one line")
        else:
            row = [sentence for sentence, _ in split(document, segmenter, input_lang, document.id)]
        rows.append(row)
    import torch

    languages = [input_language(input_lang, document) for document in documents]
    concepts = torch.cat(encode_documents(space, documents, rows, languages))
    sentences = tuple(sentence for row in rows for sentence in row)
    if out is None:
        for line in json_lines(sentences, concepts, space.fingerprint):
            echo(line)
        return
    write_concepts(out, ConceptFile(concepts, sentences, space.fingerprint))
    log(f"{out}: {len(concepts)} concepts of {concepts.shape[1]} channels")


def decode(
    file: Annotated[
        str, typer.Argument(help="File of concepts (.npz, .safetensors, .jsonl), or - for JSON lines.")
    ] = "-",
    to: Annotated[str, typer.Option("--to", "--lang", "-l", help="Language to write, as deu_Latn or de.")] = "eng_Latn",
    codec: Codec = "starter",
    pipeline: PipelinePath = None,
    beams: Beams = 4,
    json: Json = False,
) -> None:
    """Turn concepts into sentences.

    Prints one sentence a line.
    """
    from largeconcept.codec.rows import check_concepts
    from largeconcept.generate.files import parse_json_lines, read_concepts
    from largeconcept.generate.texts import writable
    from largeconcept.hub import check_fingerprint

    if file == "-":
        content = parse_json_lines(read_text("-").splitlines(), "standard input")
    else:
        content = read_concepts(file)
    _, space = segmenter_and_codec(pipeline, codec)
    if content.codec is not None:
        check_fingerprint(space, content.codec, where=file, dim=content.concepts.shape[1])
    check_concepts(content.concepts, space.dim)
    code = writable(space, to)
    method = "beam" if beams > 1 else "greedy"
    for index, sentence in enumerate(space.decode(content.concepts, code, method=method, num_beams=beams)):
        if json:
            source = content.sentences[index] if content.sentences else None
            echo_json({"text": sentence, "lang": code, "source": source})
        else:
            echo(" ".join(sentence.splitlines()))
