"""Sound to Documents, and texts to sound: the two ends of a pipeline that hears and speaks.

A codec that hears maps speech and text to one concept space, so that what was heard is continued, summarised or
translated by its concepts, without a transcript in between. The transcript is for people.

Shape letters: N pieces, C concept dimension, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from largeconcept.codec.rows import check_concepts
from largeconcept.codec.speech.audio import Audio, read_audio
from largeconcept.codec.speech.silences import cut
from largeconcept.codec.speech.synthesis import PAUSE, Synthesizer, load_synthesizer, speak_sentences
from largeconcept.errors import ConfigError, DataError, LanguageError
from largeconcept.generate.texts import DecodingOptions, as_config
from largeconcept.languages import flores, language_name
from largeconcept.types import ConceptCodec, Document

if TYPE_CHECKING:
    from torch import Tensor


class HearingCodec(ConceptCodec, Protocol):
    """A codec with speech encoders."""

    @property
    def speech(self) -> Mapping[str, Any]:
        """The speech encoders by language, as ``eng`` or ``eng_Latn``."""
        ...

    def encode_speech(self, audio: Sequence[Tensor], lang: str) -> Tensor:
        """Return (N, C) concepts of N utterances, each (S,) float32, mono at 16 kHz."""
        ...


def hear(
    path: str | Path,
    codec: ConceptCodec,
    lang: str | None = None,
    *,
    transcribe: bool = True,
    decoding: DecodingOptions | Mapping[str, Any] | None = None,
    **lengths: float,
) -> Document:
    """Read a sound file as a Document with concepts.

    The recording is cut at its silences, and each piece is encoded in the language spoken.

    Args:
        path: wav, flac or ogg.
        codec: one that has a speech encoder for the language.
        lang: the language spoken; may be left out where the codec hears one only.
        transcribe: write what was understood, in the language spoken, into the Document's sentences; else, or if the
            codec cannot write it, they are empty.
        decoding: options for writing it.
        lengths: of the pieces, as :func:`~largeconcept.codec.speech.silences.cut` takes them.

    Returns:
        A Document whose ``concepts`` are (N, C) float32 on the CPU, with as many ``sentences`` and ``times``.

    Raises:
        ConfigError: the codec has no speech encoder, or several and no language was given.
        DataError: not a sound file, a damaged one, or one that is silent.
        DependencyError: the extra ``speech`` is not installed.
        LanguageError: the language is unknown, or the codec does not hear it.
    """
    import torch

    options = as_config(DecodingOptions, decoding, "decoding")
    key, code = heard_language(codec, lang)
    audio = read_audio(path)
    pieces = cut(audio.samples, **lengths)
    if not pieces:
        raise DataError(
            "no speech is heard",
            where=path,
            got=f"{audio.seconds:.1f} s of silence",
            expected="at least a tenth of a second of sound",
        )
    utterances = [torch.from_numpy(piece.of(audio.samples)) for piece in pieces]
    concepts = cast(HearingCodec, codec).encode_speech(utterances, key).detach().float().cpu()
    check_concepts(concepts, codec.dim)
    sentences = [""] * len(pieces)
    writes = code in codec.languages and getattr(codec, "decoder", codec) is not None
    if transcribe and writes:
        sentences = codec.decode(concepts, code, **options.model_dump())
    return Document(
        id=str(path),
        sentences=tuple(sentences),
        lang=code,
        where=str(path),
        concepts=concepts,
        times=tuple((piece.start, piece.end) for piece in pieces),
    )


def heard_language(codec: ConceptCodec, lang: str | None) -> tuple[str, str]:
    """Return the codec's name for a language spoken, and its FLORES-200 code.

    Raises:
        ConfigError: the codec has no speech encoder, or several and no language was given.
        LanguageError: the language is unknown, or the codec does not hear it.
    """
    encoders: Mapping[str, Any] = getattr(codec, "speech", None) or {}
    if not encoders:
        raise ConfigError(
            "this codec has no speech encoder, so it cannot hear",
            where=getattr(codec, "name_or_path", None) or type(codec).__name__,
            hint="use SONAR with one: largeconcept convert sonar --speech LANGUAGE=FILE",
        )
    keys = {flores(key): key for key in encoders}
    listed = ", ".join(sorted(keys))
    if lang is None:
        if len(keys) > 1:
            raise ConfigError(
                "which language is spoken?", where="input_lang", expected=f"one of {listed}", hint="give --input-lang"
            )
        return next((key, code) for code, key in keys.items())
    code = flores(lang)
    for known, key in keys.items():
        if known[:3] == code[:3]:  # a script is nothing to hear
            return key, code
    raise LanguageError(
        "this codec does not hear the language",
        where="input_lang",
        got=f"{code} ({language_name(code)})",
        expected=f"one of {listed}",
        hint="convert its speech encoder, too: largeconcept convert sonar --speech LANGUAGE=FILE",
    )


def speak(
    sentences: str | Sequence[str],
    lang: str,
    *,
    synthesizer: Synthesizer | None = None,
    voice: str | Path | None = None,
    pause: float = PAUSE,
) -> Audio:
    """Return sentences (or one text, which is cut into sentences) as sound.

    Args:
        sentences: what to say.
        lang: its language.
        synthesizer: what speaks; by default eSpeak NG, or the Piper ``voice``.
        voice: ``.onnx`` file of a Piper voice.
        pause: seconds between two sentences.

    Raises:
        DataError: there is nothing to say.
        DependencyError: the extra ``speak``, or ``piper`` for a voice, is not installed.
        LanguageError: the language is unknown, or has no voice.
    """
    if isinstance(sentences, str):
        sentences = spoken_sentences(sentences, lang)
    return speak_sentences(synthesizer or load_synthesizer(voice), sentences, lang, pause=pause)


def spoken_sentences(text: str, lang: str) -> list[str]:
    """Return the sentences of a text."""
    from largeconcept.segment import build_segmenter

    return [span.of(text) for span in build_segmenter(None).segment(text, flores(lang))]


__all__ = ["HearingCodec", "hear", "heard_language", "speak", "spoken_sentences"]
