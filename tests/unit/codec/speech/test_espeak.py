"""eSpeak NG: every voice of the table speaks, and no text ends this process."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.codec.speech import espeak
from largeconcept.codec.speech.espeak import VOICES, EspeakSynthesizer, speakable
from largeconcept.errors import ConceptLMError, DataError, DependencyError, LanguageError
from largeconcept.languages import FLORES_200

espeakng_loader = pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def synthesizer() -> EspeakSynthesizer:
    return EspeakSynthesizer()


def test_words_take_their_time_and_are_heard(synthesizer):
    short, long = (synthesizer.speak(text, "en") for text in ("Tim.", "Tim had a red ball, and it rolled away."))
    assert short.rate == long.rate == 22050
    assert long.samples.dtype == np.float32
    assert 0.1 < short.seconds < 1.0 < 1.5 < long.seconds < 5.0
    assert 0.1 < np.abs(long.samples).max() <= 1.0


def test_the_same_text_gives_the_same_sound(synthesizer):
    first, second = (synthesizer.speak("It rolled away.", "eng_Latn").samples for _ in range(2))
    assert np.array_equal(first, second)


def test_languages_sound_different(synthesizer):
    sounds = [synthesizer.speak("Paris 1984", lang).samples for lang in ("eng_Latn", "fra_Latn", "deu_Latn")]
    assert len({len(one) for one in sounds}) == 3


HELLO = {"Latn": "mama", "Cyrl": "мама", "Arab": "سلام", "Deva": "नमस्ते", "Grek": "μαμα", "Hans": "你好", "Hant": "你好"}
HELLO |= {"Jpan": "ありがとう", "Hang": "안녕", "Hebr": "שלום", "Thai": "สวัสดี", "Beng": "নমস্কার", "Geor": "დედა"}
HELLO |= {"Armn": "մայր", "Ethi": "ሰላም", "Gujr": "નમસ્તે", "Guru": "ਸਤਿ", "Knda": "ನಮಸ್ಕಾರ", "Mlym": "നമസ്കാരം"}
HELLO |= {"Mymr": "မင်္ဂလာပါ", "Orya": "ନମସ୍କାର", "Sinh": "ආයුබෝවන්", "Taml": "வணக்கம்", "Telu": "నమస్కారం"}


@pytest.mark.parametrize("lang", sorted(VOICES))
def test_every_voice_of_the_table_speaks_its_script(synthesizer, lang):
    assert lang in FLORES_200
    audio = synthesizer.speak(HELLO[lang[-4:]], lang)
    assert 0.15 < audio.seconds < 7.0
    assert np.abs(audio.samples).max() > 0.05


def test_languages_without_a_voice(synthesizer):
    assert len(synthesizer.languages) == len(VOICES) == 92
    with pytest.raises(LanguageError, match=r"no voice.*got zul_Latn \(Zulu\).*--voice"):
        synthesizer.speak("Sawubona", "zu")
    with pytest.raises(LanguageError, match="unknown language"):
        synthesizer.speak("nuqneH", "tlh")


# --- odd texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n\t", "\0", "\ud800", "...", "—“”", "\u200d\ufeff", "\U000e0001"])
def test_nothing_to_say(synthesizer, text):
    audio = synthesizer.speak(text, "eng_Latn")
    assert (len(audio.samples), audio.rate) == (0, 22050)


@pytest.mark.parametrize("text", ["a\0b", "a \udcff b", "😀", "👩‍👩‍👧 and 🏳️‍🌈", "e\u0301" * 300, "12" * 400, "$€%&<>"])
def test_odd_texts_are_spoken(synthesizer, text):
    assert synthesizer.speak(text, "eng_Latn").seconds > 0.1


def test_text_is_no_markup_and_no_command(synthesizer):
    """Neither SSML, nor phonemes in brackets, nor the library's own commands behind a control character."""
    plain = synthesizer.speak("200s b", "eng_Latn").samples
    assert np.array_equal(synthesizer.speak("\x01200s b", "eng_Latn").samples, plain)
    assert synthesizer.speak("a <break time='9s'/> b", "eng_Latn").seconds > 1.5
    assert synthesizer.speak("<break time='9s'/>", "eng_Latn").seconds < 5
    bracketed, bare = (synthesizer.speak(text, "eng_Latn").samples for text in ("[[mAm]]", "mAm"))
    assert len(bracketed) >= len(bare)


def test_a_word_that_ends_the_library_as_it_comes(synthesizer):
    """One of many: without a break inside the word, eSpeak NG 1.52 writes beyond a buffer and is ended."""
    word = "dfusadevcpxznraddqeqdfjotcfsiurljkecaautfgqvporzfgglrkqpwouprwomsqqzcyfiqvazynoatncmrwsiicquanbgkagy"
    word = f"{word}gdcurjhhxjjekpawjjxkdujjkuwx'" * 3
    assert synthesizer.speak(word, "dan_Latn").seconds > 5


@pytest.mark.parametrize("times", [700, pytest.param(14286, marks=pytest.mark.slow)])
def test_long_texts(synthesizer, times):
    """Five thousand and a hundred thousand characters."""
    assert synthesizer.speak("It is. " * times, "eng_Latn").seconds > 0.25 * times


def test_a_failure_in_the_library_is_an_error_here(synthesizer, monkeypatch, tmp_path):
    monkeypatch.setattr(espeak, "_WORKER", tmp_path / "worker.py")
    for end in ("import ctypes; ctypes.string_at(1)", "import os; os.abort()", "import sys; sys.exit(5)", ""):
        (tmp_path / "worker.py").write_text(end)
        with pytest.raises(DataError, match=r"eSpeak NG could not speak the sentence \(exit status .*; got It is"):
            synthesizer.speak("It is.", "eng_Latn")


def test_what_the_other_process_writes(synthesizer, monkeypatch, tmp_path):
    monkeypatch.setattr(espeak, "_WORKER", tmp_path / "worker.py")
    write = "import sys; sys.stdout.buffer.write((8000).to_bytes(4, 'little') + bytes([0, 64, 0, 128])); sys.exit({})"
    (tmp_path / "worker.py").write_text(write.format(0))
    audio = synthesizer.speak("It is.", "eng_Latn")
    assert (audio.rate, audio.samples.tolist()) == (8000, [0.5, -1.0])
    (tmp_path / "worker.py").write_text(write.format(1))  # it was ended in the middle
    with pytest.raises(DataError, match=r"exit status 1"):
        synthesizer.speak("It is.", "eng_Latn")


def test_a_library_that_does_not_answer(synthesizer, monkeypatch):
    def stuck(*_, **keywords):
        raise subprocess.TimeoutExpired("espeak", keywords["timeout"])

    monkeypatch.setattr(subprocess, "run", stuck)
    with pytest.raises(DataError, match="takes too long"):
        synthesizer.speak("It is.", "eng_Latn")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.sampled_from(sorted(VOICES)))
def test_any_text_in_any_voice(text, lang):
    try:
        audio = EspeakSynthesizer().speak(text, lang)
    except ConceptLMError as error:
        assert "could not speak" in str(error)
    else:
        assert np.isfinite(audio.samples).all()


@given(st.text())
def test_what_is_spoken_is_text(text):
    result = speakable(text)
    result.encode()
    assert "\0" not in result and result == " ".join(result.split())
    assert max(map(len, result.split()), default=0) <= 50
    if len(text) < 40 and text.isascii() and text.isalnum():
        assert result == text


def test_letters_stay_together():
    assert speakable("می\u200cخواهم  \n है\u0000") == "می\u200cخواهم है"
    assert speakable("x" * 50 + " " + "y" * 51) == "x" * 50 + " " + "y" * 50 + " y"


def test_threads(synthesizer):
    expected = synthesizer.speak("It rolled away.", "eng_Latn").samples
    found: list[np.ndarray] = []
    work = [
        threading.Thread(target=lambda: found.append(synthesizer.speak("It rolled away.", "eng_Latn").samples))
        for _ in range(6)
    ]
    for one in work:
        one.start()
    for one in work:
        one.join()
    assert len(found) == 6 and all(np.array_equal(one, expected) for one in found)


# --- installations --------------------------------------------------------------------------------------------------


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DependencyError, match=r"'espeakng-loader' is not installed.*largeconcept\[speak\]"):
        EspeakSynthesizer()


def test_a_broken_installation(monkeypatch, tmp_path):
    (tmp_path / "library.so").write_bytes(b"no library")
    for name, path in (("get_library_path", tmp_path / "library.so"), ("get_data_path", tmp_path)):
        with monkeypatch.context() as patch:
            patch.setattr(espeakng_loader, name, lambda path=path: str(path))
            with pytest.raises(DependencyError, match=r"cannot be used.*reinstall"):
                EspeakSynthesizer().speak("It is.", "eng_Latn")


def test_an_installation_deep_in_the_file_system(monkeypatch, tmp_path):
    """The library keeps 160 bytes of the path of its data."""
    data = tmp_path / ("x" * 100) / ("ü" * 40) / ("y" * 60) / "espeak-ng-data"
    data.parent.mkdir(parents=True)
    data.symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(data))
    assert EspeakSynthesizer().speak("It is.", "eng_Latn").seconds > 0.1


def test_a_voice_that_a_later_version_dropped(monkeypatch):
    monkeypatch.setitem(VOICES, "eng_Latn", "gmw/none")
    with pytest.raises(DependencyError, match="gmw/none"):
        EspeakSynthesizer().speak("It is.", "eng_Latn")
