"""``largeconcept eval blaser`` and ``largeconcept eval mutox``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import Device, Json, echo, echo_json, log, read_text
from largeconcept.devices import default_device, move
from largeconcept.errors import DataError

SonarPath = Annotated[str, typer.Option("--codec", "-c", help="SONAR: sonar:FOLDER, or the folder of a saved one.")]


def blaser(
    weights: Annotated[str, typer.Option("--weights", help="model.pt of BLASER 2.0, with reference or without.")],
    source: Annotated[str, typer.Option("--source", help="File of the sources, a sentence a line; - is stdin.")],
    translation: Annotated[str, typer.Option("--translation", help="File of the translations, line by line.")],
    codec: SonarPath,
    reference: Annotated[
        str | None, typer.Option("--reference", help="File of reference translations, for the kind that compares.")
    ] = None,
    source_lang: Annotated[str | None, typer.Option("--source-lang", help="Language of the sources.")] = None,
    lang: Annotated[str | None, typer.Option("--lang", "-l", help="Language of translations and references.")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Judge translations with BLASER 2.0, on concepts of SONAR.

    Scores say how well a translation keeps the meaning of its source, from about 1 to 5. The weights with a reference
    (blaser-2.0-ref) need --reference, those for quality estimation (blaser-2.0-qe) take none. Prints a score a line,
    and the mean to standard error.
    """
    from largeconcept.codec import load_codec
    from largeconcept.eval.blaser import Blaser

    texts = [read_sentences(source), read_sentences(translation)]
    if reference is not None:
        texts.append(read_sentences(reference))
    for name, lines in zip((translation, reference), texts[1:]):
        if len(lines) != len(texts[0]):
            expected = f"{len(texts[0])} lines, as {source} has"
            raise DataError("not a line for each source", where=name, expected=expected, got=len(lines))
    judge, space = Blaser.from_pretrained(weights), load_codec(codec)
    if (reference is None) == (judge.kind == "ref"):
        found = "compares with references" if judge.kind == "ref" else "judges without references"
        raise DataError(
            f"this BLASER {found}", where=weights, hint=f"{'give' if reference is None else 'leave out'} --reference"
        )
    move(device or default_device(), judge, space)
    scores = judge.score_texts(space, *texts, source_lang=source_lang, target_lang=lang).tolist()
    show({"judge": "blaser", "kind": judge.kind}, scores, json)


def mutox(
    file: Annotated[str, typer.Argument(help="File of sentences, one a line; - is standard input.")],
    weights: Annotated[str, typer.Option("--weights", help="mutox.pt.")],
    codec: SonarPath,
    lang: Annotated[str | None, typer.Option("--lang", "-l", help="Language of the sentences.")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Judge how toxic sentences are, on concepts of SONAR.

    MuTox reads any language that the codec does. Prints a probability a line, and the mean to standard error.
    """
    from largeconcept.codec import load_codec
    from largeconcept.eval.mutox import MuTox

    sentences = read_sentences(file)
    judge, space = MuTox.from_pretrained(weights), load_codec(codec)
    move(device or default_device(), judge, space)
    logits = judge.score_texts(space, sentences, lang)
    show({"judge": "mutox", "logits": logits.tolist()}, logits.sigmoid().tolist(), json)


def read_sentences(name: str) -> list[str]:
    """Return the lines of a file.

    Raises:
        DataError: it cannot be read, is empty, or a line holds no sentence.
    """
    text = read_text(name).removesuffix("\n")
    if not text.strip():
        raise DataError("no sentence", where=name, expected="one a line")
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # other line breaks stay in their sentence
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(
                "no sentence in the line", where=f"{name}:{number}", hint="lines stand for each other by number"
            )
    return lines


def show(about: dict[str, object], scores: list[float], json: bool) -> None:
    """Print one number for each line, and their mean."""
    mean = sum(scores) / len(scores)
    if json:
        echo_json({**about, "count": len(scores), "mean": mean, "scores": scores})
        return
    for score in scores:
        echo(f"{score:.4f}")
    log(f"mean {mean:.4f} over {len(scores):,} lines")
