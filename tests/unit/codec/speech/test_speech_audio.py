"""Sound files: what is read has the frequency, level and length of what was recorded; broken files say so."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from largeconcept.codec.speech.audio import Audio, is_sound, read_audio, write_wav
from largeconcept.errors import ConfigError, DataError, DependencyError

sf = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def tone(frequency: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def decibels(samples: np.ndarray) -> float:
    """Power beside that of ``tone``, away from the ends."""
    middle = samples[1600:-1600].astype(np.float64)
    return float(10 * np.log10(np.mean(middle**2) / 0.125 + 1e-30))


def test_16_khz_comes_back_bit_by_bit(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 16001).astype(np.float32)
    sf.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    audio = read_audio(tmp_path / "a.wav")
    assert audio.rate == 16000 and audio.samples.dtype == np.float32
    assert np.array_equal(audio.samples, samples)
    assert audio.seconds == 16001 / 16000


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 1 / 128),
        ("a.wav", "PCM_16", 1 / 32768),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.wav", "ULAW", 0.02),
        ("a.flac", "PCM_16", 1 / 32768),
        ("a.flac", "PCM_24", 1e-6),
        ("a.ogg", "VORBIS", 0.05),
        ("a.wav.txt", "PCM_16", 1 / 32768),
    ],
)
def test_every_width_has_the_same_level(tmp_path, name, subtype, error):
    """No factor of 2 ** 15 or 2 ** 23 is lost, and the content counts, not the name."""
    expected = tone(440, 16000)
    container = "FLAC" if name.endswith("flac") else "OGG" if name.endswith("ogg") else "WAV"
    sf.write(tmp_path / name, expected, 16000, subtype=subtype, format=container)
    samples = read_audio(tmp_path / name).samples[:16000]
    assert len(samples) == 16000
    assert np.abs(samples - expected).max() <= error


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000, 192000])
def test_resampled_tones_keep_frequency_level_and_phase(tmp_path, rate):
    for frequency in (50, 440, 3000, 7000):
        if frequency < 0.45 * rate:
            sf.write(tmp_path / "a.wav", tone(frequency, rate), rate, subtype="FLOAT")
            samples = read_audio(tmp_path / "a.wav").samples
            assert len(samples) == 16000
            assert decibels(samples - tone(frequency, 16000)) < -60


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_what_16_khz_cannot_hold_does_not_come_back_as_another_tone(tmp_path, rate):
    for frequency in (8200, 9500, 10900, 15000, 20000):
        if frequency < 0.49 * rate:
            sf.write(tmp_path / "a.wav", tone(frequency, rate), rate, subtype="FLOAT")
            assert decibels(read_audio(tmp_path / "a.wav").samples) < -60


def test_blocks_leave_no_seam(tmp_path):
    """Many blocks of 8192 frames: a click at a border would show as noise."""
    sf.write(tmp_path / "a.wav", tone(997, 44100, 5.0), 44100, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav").samples
    assert len(samples) == 80000
    assert np.abs(samples - tone(997, 16000, 5.0))[1600:-1600].max() < 1e-5


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
    rng = np.random.default_rng(1)
    samples = rng.uniform(-1, 1, (20000, channels)).astype(np.float32)
    sf.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert np.allclose(read_audio(tmp_path / "a.wav").samples, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "container", "subtype"),
    [("a.mp3", "MP3", None), ("a.opus", "OGG", "OPUS"), ("a.ogg", "OGG", "VORBIS"), ("a.flac", "FLAC", "PCM_16")],
)
def test_blocks_of_a_compressed_file_are_those_of_the_whole(tmp_path, name, container, subtype):
    """Decoders that begin anew with each block would lose 2 dB of an mp3 file."""
    if container not in sf.available_formats() or (subtype and subtype not in sf.available_subtypes(container)):
        pytest.skip(f"this libsndfile does not write {name}")
    sf.write(tmp_path / name, tone(440, 48000, 2.0), 48000, format=container, subtype=subtype)
    whole = sf.read(tmp_path / name, dtype="float32")[0]
    sf.write(tmp_path / "whole.wav", whole, 48000, subtype="FLOAT")
    samples = read_audio(tmp_path / name).samples
    assert np.abs(samples - read_audio(tmp_path / "whole.wav").samples).max() < 1e-6
    assert len(samples) == pytest.approx(32000, abs=1500)


def test_silence_is_sound_of_zeros(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    assert not read_audio(tmp_path / "a.wav").samples.any()


# --- files that are wrong -------------------------------------------------------------------------------------------


def test_missing_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"no\.wav: file not found"):
        read_audio(tmp_path / "no.wav")
    with pytest.raises(DataError, match="cannot be read"):
        read_audio(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_audio("a\0b.wav")


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text", b"RIFF", b"\0" * 5000, b"fLaC" + b"\xff" * 99, b"OggS" + b"x" * 99]
)
@pytest.mark.parametrize("suffix", ["wav", "raw", "flac"])
def test_not_sound(tmp_path, content, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{suffix}: (not a sound file that can be read|holds no sound)"):
        read_audio(path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_no_samples(tmp_path, name):
    sf.write(tmp_path / name, np.zeros(0), 16000)
    with pytest.raises(DataError, match=r"holds no sound|not a sound file"):
        read_audio(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_numbers_that_are_none(tmp_path, value, rate):
    samples = np.zeros((2 * rate, 2), np.float32)
    samples[rate, 1] = value
    sf.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a sample is not finite, at 1\.000 s"):
        read_audio(tmp_path / "a.wav")


def test_huge_numbers_are_refused_not_made_infinite(tmp_path):
    samples = np.tile(np.array([3.4e38, -3.4e38], np.float32), 5000)
    sf.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    with np.errstate(all="ignore"), pytest.raises(DataError, match="too large"):
        read_audio(tmp_path / "a.wav")


def test_rate_too_low(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros(100), 1000)
    with pytest.raises(DataError, match=r"sample rate is too low.*at least 4000 Hz; got 1000 Hz"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path, name):
    path, samples = tmp_path / name, np.random.default_rng(2).uniform(-0.5, 0.5, 80000)
    sf.write(path, samples, 16000, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    with pytest.warns(UserWarning, match=r"is cut off or damaged: read [23]\.\d\d s of 5\.00 s"):
        audio = read_audio(path)
    assert 2.0 < audio.seconds <= 3.0
    assert np.allclose(audio.samples, samples[: len(audio.samples)], atol=1e-4)


def test_a_header_alone(tmp_path):
    sf.write(tmp_path / "a.wav", tone(440, 16000), 16000)
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44])
    with pytest.raises(DataError, match=r"b\.wav: holds no sound"):
        read_audio(tmp_path / "b.wav")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_recorder_that_did_not_know_the_length(tmp_path, recwarn, size):
    """Streams carry a placeholder as their size; that is no damage."""
    sf.write(tmp_path / "a.wav", tone(440, 16000), 16000, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav").samples) == 16000
    assert not [one for one in recwarn if one.category is UserWarning]


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_without_the_extra(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        DependencyError, match=rf"'{missing}' is not installed; run: pip install 'largeconcept\[speech\]'"
    ):
        read_audio(tmp_path / "a.wav")


# --- writing --------------------------------------------------------------------------------------------------------


def test_written_sound_is_16_bit_mono_and_comes_back(tmp_path):
    samples = np.random.default_rng(3).uniform(-1, 1, 22050).astype(np.float32)
    write_wav(tmp_path / "deep" / "a.wav", Audio(samples, 22050))
    with wave.open(str(tmp_path / "deep" / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (
            1,
            2,
            22050,
            22050,
        )
    back, rate = sf.read(tmp_path / "deep" / "a.wav")
    assert rate == 22050 and np.abs(back - samples).max() < 1e-4
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.wav"]


def test_too_loud_is_clipped_not_wrapped(tmp_path):
    write_wav(tmp_path / "a.wav", Audio(np.array([2.0, -2.0, 1.0, -1.0, 0.0], np.float32), 16000))
    assert sf.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [32767, -32767, 32767, -32767, 0]


def test_nothing_half_written(tmp_path):
    write_wav(tmp_path / "a.wav", Audio(np.ones(4, np.float32), 16000))
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(DataError, match=r"a sample is not finite; got sample 2"):
        write_wav(tmp_path / "a.wav", Audio(np.array([0, 0, np.nan], np.float32), 16000))
    with pytest.raises(ConfigError, match=r"sound is written as wav.*got \.mp3"):
        write_wav(tmp_path / "a.mp3", Audio(np.ones(4, np.float32), 16000))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_wav(tmp_path / "file" / "a.wav", Audio(np.ones(4, np.float32), 16000))
    assert (tmp_path / "a.wav").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "file"]


def test_too_long_for_the_format(tmp_path):
    endless = np.broadcast_to(np.float32(0), (2**31,))
    with pytest.raises(DataError, match="too long for a wav file"):
        write_wav(tmp_path / "a.wav", Audio(endless, 16000))


def test_names_of_sound():
    assert all(map(is_sound, ["a.wav", "B.WAV", "c.d.flac", Path("x/y.ogg"), "talk.m4a"]))
    assert not any(map(is_sound, ["a.txt", "wav", "a.wav.txt", "-"]))
