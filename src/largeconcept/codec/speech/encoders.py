"""Speech encoders by language, each read from its file when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from largeconcept.codec.sonar.files import Dtype
from largeconcept.codec.speech.encoder import MAX_SECONDS, SonarSpeechEncoderConfig, check_list, encode_audio
from largeconcept.codec.speech.files import SpeechEncoder, load_speech_encoder
from largeconcept.codec.speech.languages import LANGUAGES, speech_language
from largeconcept.errors import CheckpointError, ConfigError, LanguageError

Sources = Mapping[str, "str | Path | SpeechEncoder"]


def by_code(sources: Sources | None) -> dict[str, str | Path | SpeechEncoder]:
    """Return files, folders or encoders by SONAR's code of three letters, whichever codes they were given by.

    Raises:
        LanguageError: SONAR has no speech encoder for a language.
        ConfigError: not a mapping, two entries are of one language, or one is nothing that can be loaded.
    """
    if sources is not None and not isinstance(sources, Mapping):
        expected = "a language and a file for each, as {'eng': 'spenc.eng.pt'}"
        raise ConfigError("not a mapping", where="speech", got=type(sources).__name__, expected=expected)
    found: dict[str, str | Path | SpeechEncoder] = {}
    for lang, source in (sources or {}).items():
        code = speech_language(lang).code
        if code in found:
            raise ConfigError("two speech encoders for one language", where=f"speech: {lang}", got=code)
        if not isinstance(source, str | Path | SpeechEncoder):
            expected = "a file or folder, or a loaded encoder"
            raise ConfigError("not a file", where=f"speech: {lang}", got=type(source).__name__, expected=expected)
        found[code] = source
    return found


class SpeechEncoders(Mapping[str, SpeechEncoder]):
    """Which encoder hears which language; keys are SONAR's codes of three letters (``eng``, ``cmn``).

    Args:
        sources: for each language (any code that :func:`largeconcept.codec.speech.languages.speech_language` knows) a
            published file, a folder of a saved speech encoder, or an encoder that is loaded already.
        dtype: of the weights, see :func:`largeconcept.codec.speech.files.load_speech_encoder`.
        device: where encoders are put.
        dim: C, the channels that their concepts must have; not checked when left out.

    Raises:
        LanguageError: SONAR has no speech encoder for a language.
        ConfigError: not a mapping, two entries are of one language, or one is nothing that can be loaded.
        CheckpointError: no such file or folder. What is in it is looked at when it is needed.
    """

    def __init__(
        self,
        sources: Sources | None = None,
        *,
        dtype: Dtype = "auto",
        device: str | torch.device = "cpu",
        dim: int | None = None,
    ) -> None:
        self._dtype: Dtype = dtype
        self._device = device
        self._dim = dim
        self._sources: dict[str, Path] = {}
        self._loaded: dict[str, SpeechEncoder] = {}
        for code, source in by_code(sources).items():
            if isinstance(source, SpeechEncoder):
                self._loaded[code] = self._checked(source.to(device), code)
            elif Path(source).exists():
                self._sources[code] = Path(source)
            else:
                raise CheckpointError("no such file or folder", where=f"speech: {code}", got=source)

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes of the languages that can be heard."""
        return tuple(LANGUAGES[code].flores for code in self)

    @property
    def sources(self) -> dict[str, str | Path | SpeechEncoder]:
        """What the encoders are from, by code: files and folders, or themselves where they were given loaded."""
        return {code: self._sources.get(code) or self._loaded[code] for code in self}

    def __iter__(self) -> Iterator[str]:
        return iter([*self._sources, *(code for code in self._loaded if code not in self._sources)])

    def __len__(self) -> int:
        return len(self._sources.keys() | self._loaded.keys())

    def __contains__(self, lang: object) -> bool:
        """Return whether a language, in any code, can be heard."""
        try:
            code = speech_language(lang).code if isinstance(lang, str) else None
        except LanguageError:
            return False
        return code in self._sources or code in self._loaded

    def __getitem__(self, lang: str) -> SpeechEncoder:
        """Return the encoder of a language, loading it the first time.

        Raises:
            LanguageError: there is no encoder for it here.
            CheckpointError: its file is damaged or of another network.
        """
        language = speech_language(lang)
        if language.code not in self:
            have = ", ".join(self.languages) or "none"
            raise LanguageError(
                "no speech encoder for the language",
                got=f"{lang} ({language.name})",
                expected=have,
                hint=f"give speech={{'{language.code}': FILE}}; Meta publishes {language.address}",
            )
        if language.code not in self._loaded:
            path = self._sources[language.code]
            loaded = load_speech_encoder(path, lang=language.code, dtype=self._dtype, device=self._device)
            self._loaded[language.code] = self._checked(loaded, language.code)
        return self._loaded[language.code]

    def is_loaded(self, lang: str) -> bool:
        """Return whether the encoder of a language is in memory."""
        return speech_language(lang).code in self._loaded

    def encode(
        self,
        audio: Sequence[Tensor],
        lang: str | Sequence[str],
        *,
        batch_frames: int = 4096,
        max_seconds: float = MAX_SECONDS,
        on_long: Literal["warn", "error"] = "warn",
    ) -> Tensor:
        """Return concepts (N, C) float32 of N utterances.

        Args:
            audio: as of :func:`largeconcept.codec.speech.encoder.encode_audio`, with the options that follow.
            lang: the language of all utterances, or of each; SONAR has one encoder for each language, so it must be
                known.

        Raises:
            DataError: see :func:`encode_audio`.
            LanguageError: no encoder for a language, or not as many languages as utterances.
            CheckpointError: an encoder cannot be loaded, or they make concepts of different sizes.
        """
        check_list(audio)
        if not isinstance(lang, str) and not isinstance(lang, Sequence):
            got, hint = type(lang).__name__, "each language has its own encoder"
            raise LanguageError("which language is spoken?", where="lang", got=got, hint=hint)
        rows = [lang] * len(audio) if isinstance(lang, str) else list(lang)
        if len(rows) != len(audio):
            raise LanguageError(
                "one language per utterance is needed", where="lang", expected=len(audio), got=len(rows)
            )
        codes = [speech_language(row).code for row in rows]
        parts: list[tuple[list[int], Tensor]] = []
        for code in dict.fromkeys(codes):
            chosen = [i for i, other in enumerate(codes) if other == code]
            heard = encode_audio(
                self[code].network,
                [audio[i] for i in chosen],
                batch_frames=batch_frames,
                max_seconds=max_seconds,
                on_long=on_long,
                numbers=chosen,
            )
            parts.append((chosen, heard))
        widths = sorted({heard.shape[1] for _, heard in parts})
        if len(widths) > 1:
            raise CheckpointError("speech encoders make concepts of different sizes", where="speech", got=widths)
        released = SonarSpeechEncoderConfig().concept_dim
        concepts = torch.empty(len(audio), widths[0] if widths else self._dim or released)
        for chosen, heard in parts:
            concepts[torch.tensor(chosen)] = heard
        return concepts

    def to(self, device: str | torch.device) -> SpeechEncoders:
        """Move what is loaded, and whatever will be, to a device."""
        self._device = device
        for encoder in self._loaded.values():
            encoder.to(device)
        return self

    def _checked(self, encoder: SpeechEncoder, code: str) -> SpeechEncoder:
        if self._dim is not None and encoder.dim != self._dim:
            raise CheckpointError(
                "the speech encoder makes concepts of another size",
                where=f"speech: {code}",
                expected=self._dim,
                got=encoder.dim,
            )
        return encoder


__all__ = ["Sources", "SpeechEncoders", "by_code"]
