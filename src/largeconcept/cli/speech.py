"""What the verbs share about sound: files that are heard, and files that are spoken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from largeconcept.cli.common import log
from largeconcept.errors import ConfigError, DataError

if TYPE_CHECKING:
    from largeconcept.codec.speech.synthesis import Synthesizer
    from largeconcept.types import ConceptCodec, Document

Speak = Annotated[
    str | None,
    typer.Option(
        "--speak", help="Speak what is written into this .wav file; of several texts into NAME-1.wav, NAME-2.wav, …"
    ),
]
Voice = Annotated[
    str | None,
    typer.Option("--voice", help="Piper voice: an .onnx file, or joe (English). Default: eSpeak NG."),
]


def listener(codec: Callable[[], ConceptCodec], lang: str | None, beams: int) -> Callable[[str], Document]:
    """Return a function that reads a sound file as a Document and logs what was understood, with its times.

    Args:
        codec: loads the codec; called when there is a sound file.
        lang: the language spoken.
        beams: width of the beam when writing what was understood.
    """

    def listen(name: str) -> Document:
        from largeconcept.generate.speech import hear

        document = hear(name, codec(), lang, decoding={"num_beams": beams})
        for sentence, (start, end) in zip(document.sentences, document.times or ()):
            log(f"{name} {start:.1f}-{end:.1f} s: {' '.join(sentence.split())}".rstrip())
        return document

    return listen


def speaker(path: str | None, voice: str | None, languages: Iterable[str | None]) -> Speaker | None:
    """Return what speaks into ``path``, or ``None`` where nothing is to be spoken; complains before any work is done.

    Args:
        path: of the wav file.
        voice: a Piper voice.
        languages: those to be spoken, as far as they are known.

    Raises:
        CheckpointError: the voice is missing, or no Piper voice.
        ConfigError: a voice but nothing to write, or a file of another kind.
        DependencyError: an extra is not installed.
        LanguageError: a language is unknown, or has no voice.
    """
    if path is None:
        if voice is not None:
            raise ConfigError("has no effect", where="--voice", hint="say where to: --speak out.wav")
        return None
    from largeconcept.codec.speech.audio import wav_path
    from largeconcept.codec.speech.synthesis import load_synthesizer

    result = Speaker(wav_path(path), load_synthesizer(voice))
    result.check(languages)
    return result


class Speaker:
    """Speaks texts into wav files.

    Args:
        path: of the file, or what the names of several are made of.
        synthesizer: what speaks.
    """

    def __init__(self, path: Path, synthesizer: Synthesizer) -> None:
        self.path = path
        self.synthesizer = synthesizer

    def check(self, languages: Iterable[str | None]) -> None:
        """Raise a LanguageError for a language without a voice."""
        for lang in languages:
            if lang is not None:
                self.synthesizer.check_language(lang)

    def write(self, texts: Sequence[str | Sequence[str]], languages: Sequence[str]) -> None:
        """Speak texts (or their sentences), each in its language, and log the files.

        Raises:
            DataError: there is nothing to speak in a text, or a file cannot be written; the others are written first.
        """
        from largeconcept.codec.speech.audio import write_wav
        from largeconcept.generate.speech import speak

        failed: DataError | None = None
        for number, (text, lang) in enumerate(zip(texts, languages, strict=True), 1):
            path = self.path.with_stem(f"{self.path.stem}-{number}") if len(texts) > 1 else self.path
            try:
                audio = speak(text, lang, synthesizer=self.synthesizer)
                write_wav(path, audio)
            except DataError as error:
                failed = failed or error
            else:
                log(f"{path}: {audio.seconds:.1f} s of speech")
        if failed is not None:
            raise failed
