"""Sound in, sound out on the command line, with a small random SONAR that hears; and sound that is none."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from largeconcept.codec import load_codec
from largeconcept.codec.speech.audio import Audio, read_audio, write_wav
from largeconcept.codec.speech.silences import cut
from largeconcept.generate.speech import speak

for package in ("soundfile", "soxr", "espeakng_loader"):
    pytest.importorskip(package)

pytestmark = pytest.mark.filterwarnings("ignore:The weights of")
SPOKEN = ["Tim had a very red ball.", "It rolled away from him.", "A dog took it and ran home."]


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Path:
    """Three English sentences, spoken by eSpeak NG."""
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    write_wav(path, speak(SPOKEN, "eng_Latn", pause=0.7))
    return path


@pytest.fixture(scope="module")
def sonar(tmp_path_factory) -> Path:
    """A saved small SONAR that hears English and French, from a file as published."""
    from sonar_small import small_codec
    from speech_small import small_speech_encoder

    from largeconcept.codec.speech.layouts import to_published

    folder = tmp_path_factory.mktemp("sonar")
    speech = {}
    for seed, (code, file) in enumerate({"eng": "spenc.eng.pt", "fra": "spenc.v3ap.fra.pt"}.items(), 2):
        torch.save({"model": to_published(small_speech_encoder(seed).state_dict())}, folder / file)
        speech[code] = folder / file
    small_codec(2, speech=speech).save_pretrained(folder / "codec")
    return folder / "codec"


@pytest.fixture(scope="module")
def pipeline(sonar, make_pipeline, tmp_path_factory) -> Path:
    from largeconcept.hub import PromptRecord

    codec: Any = load_codec(sonar)
    pipe = make_pipeline(
        "mse",
        dim=32,
        codec=codec,
        stop_text=None,
        decoding={"max_length": 12},
        prompts={name: PromptRecord(suffix=("Sum it up.",)) for name in ("summarize", "expand")},
    )
    return Path(pipe.save_pretrained(tmp_path_factory.mktemp("saved") / "pipeline"))


def seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getnframes() / file.getframerate()


VERBS: dict[str, Callable[[Path, Path], list[object]]] = {
    "generate": lambda pipeline, codec: ["-p", pipeline],
    "summarize": lambda pipeline, codec: ["-p", pipeline, "--ratio", "0.7"],
    "expand": lambda pipeline, codec: ["-p", pipeline, "--ratio", "1"],
    "translate": lambda pipeline, codec: ["--codec", codec],
}


@pytest.mark.parametrize("verb", VERBS)
def test_sound_to_sound(cli, talk, sonar, pipeline, tmp_path, verb):
    out = tmp_path / "out.wav"
    arguments = [*VERBS[verb](pipeline, sonar), "--input-lang", "eng", "--lang", "spa_Latn", "--beams", 1]
    result = cli(verb, talk, *arguments, "--speak", out)
    assert result.ok().strip()
    lines = [line for line in result.err.splitlines() if not line.startswith("warning")]
    assert len(lines) == 4, "what was understood of three sentences, and what was written"
    assert all(line.startswith(f"{talk} ") and " s:" in line for line in lines[:3])
    assert lines[3].startswith(f"{out}: ") and lines[3].endswith(" s of speech")
    assert 0.2 < seconds(out) < 600
    assert cut(read_audio(out).samples)


def test_what_was_heard_decides_what_is_written(cli, talk, pipeline, tmp_path):
    """Another recording, and another speech encoder, give another text; the same one gives the same."""
    other = tmp_path / "other.wav"
    write_wav(other, speak(["Nobody was there.", "Nobody came."], "eng_Latn", pause=0.7))
    arguments = ["-p", pipeline, "--beams", 1, "--json"]
    texts = [
        json.loads(cli("generate", path, *arguments, "--input-lang", lang, "--lang", "eng_Latn").ok())["sentences"]
        for path, lang in ((talk, "eng"), (talk, "eng"), (other, "eng"), (talk, "fra"))
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2] and texts[0] != texts[3]


def test_json_says_when_what_was_said(cli, talk, pipeline):
    arguments = ["-p", pipeline, "--input-lang", "en", "--beams", 1, "--json"]
    text, heard = map(json.loads, cli("generate", talk, "-t", "It rains.", *arguments).ok().splitlines())
    assert "prompt_times" not in text
    times = np.array(heard["prompt_times"])
    assert times.shape == (3, 2) and (np.diff(times.ravel()) > 0).all()
    assert len(heard["prompt_sentences"]) == 3 and heard["lang"] == "eng_Latn"


def test_encode_writes_what_the_codec_hears(cli, talk, sonar, tmp_path):
    from largeconcept.generate.files import read_concepts

    cli("encode", talk, "--codec", sonar, "--input-lang", "en", "--out", tmp_path / "a.npz").ok()
    content = read_concepts(tmp_path / "a.npz")
    codec: Any = load_codec(sonar)
    samples = read_audio(talk).samples
    expected = codec.encode_speech([torch.from_numpy(piece.of(samples).copy()) for piece in cut(samples)], "eng")
    torch.testing.assert_close(content.concepts.float(), expected, atol=2e-3, rtol=2e-3)
    assert len(content.sentences) == 3
    cli("decode", tmp_path / "a.npz", "--codec", sonar, "--beams", 1).ok()


def test_several_texts_get_a_file_each(cli, talk, pipeline, tmp_path):
    arguments = ["-p", pipeline, "--input-lang", "en", "--beams", 1, "--speak", tmp_path / "out.wav"]
    cli("generate", talk, "-t", "It rains.", *arguments).ok()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-1.wav", "out-2.wav"]
    assert all(seconds(path) > 0.2 for path in tmp_path.iterdir())


def test_one_text_without_a_word_does_not_keep_the_others_silent(cli, toy_codec, tmp_path, monkeypatch):
    from largeconcept.codec.toy import ToyCodec

    monkeypatch.setattr(ToyCodec, "decode", lambda self, concepts, lang, **_: ["It rains.", "…", "Tim ran."])
    texts = ["-t", "One.", "-t", "Two.", "-t", "Three."]
    result = cli("translate", "--codec", toy_codec, *texts, "--speak", tmp_path / "a.wav")
    assert result.status == 2 and "there is nothing to speak" in result.err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.wav", "a-3.wav"]


def test_text_can_be_spoken_too(cli, saved_pipeline, toy_codec, tmp_path):
    result = cli("generate", "-p", saved_pipeline, "-t", "Tim had a red ball.", "--speak", tmp_path / "a.wav")
    assert seconds(tmp_path / "a.wav") > 1, result
    cli("translate", "--codec", toy_codec, "-t", "Tim had a red ball. The ball rolled away.", "--to", "deu_Latn",
        "--speak", tmp_path / "b.wav").ok()  # fmt: skip
    assert seconds(tmp_path / "b.wav") > 1


def test_one_language_need_not_be_named(cli, talk, sonar, pipeline, tmp_path):
    """``generate talk.wav --lang spa_Latn --speak out.wav`` where the codec hears one language."""
    from speech_small import small_speech_encoder

    from largeconcept.codec.sonar.codec import SonarCodec
    from largeconcept.codec.speech.layouts import to_published

    torch.save({"model": to_published(small_speech_encoder(2).state_dict())}, tmp_path / "spenc.eng.pt")
    codec: Any = load_codec(sonar)
    one = SonarCodec(codec.encoder, codec.decoder, codec.tokenizer, speech={"eng": tmp_path / "spenc.eng.pt"})
    one.save_pretrained(tmp_path / "one")
    out = tmp_path / "out.wav"
    cli("generate", talk, "--lang", "spa_Latn", "--speak", out, "-p", pipeline, "-c", tmp_path / "one").ok()
    assert seconds(out) > 0.2


# --- what is wrong ----------------------------------------------------------------------------------------------------

HEARING = [*VERBS, "encode"]


@pytest.fixture
def hearing(pipeline, sonar):
    """Return the options of a verb that hears English."""

    def options(verb: str) -> list[object]:
        parts = ["--codec", sonar] if verb == "encode" else VERBS[verb](pipeline, sonar)
        return [*parts, "--input-lang", "eng_Latn"]

    return options


@pytest.mark.parametrize("verb", HEARING)
def test_files_that_are_no_sound(cli, hearing, tmp_path, verb):
    cli(verb, tmp_path / "no.wav", *hearing(verb)).error("no.wav", "file not found")
    cli(verb, tmp_path / "no.wav", "-p", tmp_path / "nor this").error("no.wav", "file not found")
    (tmp_path / "dir.wav").mkdir()
    cli(verb, tmp_path / "dir.wav", *hearing(verb)).error("dir.wav", "cannot be read")
    for name, content in {
        "empty.wav": b"",
        "text.flac": b"Tim had a ball.",
        "a.m4a": b"\0\0\0\x20ftypM4A ",
        "zeros.ogg": bytes(9999),
    }.items():
        (tmp_path / name).write_bytes(content)
        cli(verb, tmp_path / name, *hearing(verb)).error(name, "not a sound file that can be read", "ffmpeg")


@pytest.mark.parametrize("verb", HEARING)
def test_sound_without_speech(cli, hearing, tmp_path, verb):
    write_wav(tmp_path / "silent.wav", Audio(np.zeros(48000, np.float32), 16000))
    cli(verb, tmp_path / "silent.wav", *hearing(verb)).error("silent.wav", "no speech is heard", "3.0 s of silence")
    write_wav(tmp_path / "none.wav", Audio(np.zeros(0, np.float32), 16000))
    cli(verb, tmp_path / "none.wav", *hearing(verb)).error("none.wav", "holds no sound")


def test_numbers_that_are_none(cli, hearing, tmp_path):
    import soundfile

    samples = np.ones((9000, 2), np.float32)
    samples[4000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 8000, subtype="FLOAT")
    cli("generate", tmp_path / "nan.wav", *hearing("generate")).error("nan.wav", "not finite", "0.500 s")


def test_sound_that_is_cut_off_is_heard_as_far_as_it_goes(cli, hearing, talk, tmp_path):
    data = talk.read_bytes()
    (tmp_path / "half.wav").write_bytes(data[: len(data) // 2])
    result = cli("generate", tmp_path / "half.wav", *hearing("generate"), "--beams", 1)
    assert result.ok()
    assert "half.wav is cut off or damaged: read" in result.err and "Traceback" not in result.err


def test_old_telephones(cli, hearing, tmp_path, talk):
    """Eight bits, stereo, 8 kHz."""
    import soundfile

    samples = read_audio(talk).samples[::2]
    soundfile.write(tmp_path / "old.wav", np.stack((samples, samples), 1), 8000, subtype="PCM_U8")
    result = cli("generate", tmp_path / "old.wav", *hearing("generate"), "--beams", 1)
    assert result.ok() and result.err.count(" s:") == 3


def test_languages_that_are_not_heard_or_not_named(cli, talk, pipeline, saved_pipeline, toy_codec):
    cli("generate", talk, "-p", pipeline, "--input-lang", "spa").error(
        "does not hear", "spa_Latn", "eng_Latn, fra_Latn"
    )
    cli("generate", talk, "-p", pipeline).error("which language is spoken?", "eng_Latn, fra_Latn", "--input-lang")
    cli("generate", talk, "-p", pipeline, "--input-lang", "tlh").error("unknown language")
    cli("generate", talk, "-p", saved_pipeline, "--input-lang", "en").error(
        "no speech encoder", "convert sonar --speech"
    )
    cli("translate", talk, "--codec", toy_codec, "--input-lang", "en").error("no speech encoder")
    cli("segment", talk).error("talk.wav", "sound, where text is read")


def test_speaking_is_checked_before_anything_else(cli, talk, pipeline, tmp_path):
    arguments = ["generate", talk, "-p", pipeline, "--input-lang", "en"]
    cli(*arguments, "--speak", tmp_path / "out.mp3").error("out.mp3", "written as wav")
    cli(*arguments, "--speak", tmp_path / "out.wav", "--lang", "zul_Latn").error("no voice", "zul_Latn", "--voice")
    cli(*arguments, "--voice", "a.onnx").error("--voice", "has no effect", "--speak")
    cli(*arguments, "--speak", tmp_path / "out.wav", "--voice", "a.onnx").error("a.onnx: file not found")
    cli("generate", "-p", pipeline, "-t", "Sawubona.", "--input-lang", "zu", "--speak", tmp_path / "out.wav").error(
        "no voice", "zul_Latn"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "extra"), [("soundfile", "speech"), ("soxr", "speech"), ("espeakng_loader", "speak")]
)
def test_missing_extras(cli, talk, hearing, monkeypatch, tmp_path, package, extra):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    result = cli("generate", talk, *hearing("generate"), "--speak", tmp_path / "out.wav")
    result.error("is not installed", f"pip install 'largeconcept[{extra}]'")


def test_a_place_that_cannot_be_written(cli, pipeline, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("generate", "-p", pipeline, "-t", "It rains.", "--speak", tmp_path / "file" / "out.wav")
    assert result.status == 2 and "cannot be written" in result.err and "Traceback" not in result.err
    assert result.out.strip(), "what was written is not lost"
