"""SONAR with speech encoders: loaded from files by language, used, saved, replaced."""

import pytest
import torch
from sonar_small import small_codec
from speech_small import chirp, small_speech_encoder, voice

from largeconcept.codec import load_codec
from largeconcept.codec.sonar.codec import SonarCodec
from largeconcept.codec.speech.encoder import encode_audio
from largeconcept.codec.speech.files import SpeechEncoder
from largeconcept.codec.speech.layouts import to_published
from largeconcept.errors import CheckpointError, ConfigError, LanguageError

pytestmark = pytest.mark.filterwarnings("ignore:.*weights.*not for commercial use")


def write(path, seed, **changes):
    torch.save({"model": to_published(small_speech_encoder(seed, **changes).state_dict())}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spenc")
    return {"eng": write(folder / "spenc.eng.pt", 1), "fra": write(folder / "spenc.v3ap.fra.pt", 2)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sonar")
    small_codec(0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audio():
    return [voice(0.5), chirp(0.4)]


def test_speech_goes_where_text_goes(saved, files, audio):
    codec = load_codec("sonar", path=saved, speech=files)
    assert isinstance(codec, SonarCodec)
    assert codec.speech.languages == ("eng_Latn", "fra_Latn")
    heard = codec.encode_speech(audio, "en")
    assert heard.shape == (2, codec.dim)
    torch.testing.assert_close(heard, encode_audio(small_speech_encoder(1), audio))
    mixed = codec.encode_speech(audio, ["fr", "en"])
    torch.testing.assert_close(mixed[1], heard[1], atol=2e-5, rtol=1e-4)
    assert (mixed[0] - heard[0]).abs().max() > 0.1
    texts = codec.decode(heard, "eng_Latn", max_length=8)
    assert len(texts) == 2
    with pytest.raises(LanguageError, match=r"no speech encoder for the language.*eng_Latn, fra_Latn"):
        codec.encode_speech(audio, "deu_Latn")


def test_files_beside_the_text_weights_are_found(tmp_path, saved, files, audio):
    """Published files lie beside Meta's others; one that is given takes the place of the one that is found."""
    codec = load_codec("sonar", path=saved, speech=files)
    codec.save_pretrained(tmp_path / "with")
    assert (tmp_path / "with/speech/fra/config.json").is_file()
    again = load_codec(tmp_path / "with")
    assert sorted(again.speech) == ["eng", "fra"]
    torch.testing.assert_close(again.encode_speech(audio, "fr"), codec.encode_speech(audio, "fr"))
    other = load_codec("sonar", path=tmp_path / "with", speech={"fr_FR": files["eng"]})
    torch.testing.assert_close(other.encode_speech(audio, "fra"), codec.encode_speech(audio, "eng"))


def test_encoders_of_an_older_codec_in_the_same_folder_are_not_heard_with(tmp_path, saved, files):
    load_codec("sonar", path=saved, speech=files).save_pretrained(tmp_path)
    load_codec("sonar", path=saved, speech={"eng": files["eng"]}).save_pretrained(tmp_path)
    assert list(load_codec(tmp_path).speech) == ["eng"]


def test_loaded_encoders_are_saved_too(tmp_path, saved, audio):
    codec = load_codec("sonar", path=saved, speech={"eng": SpeechEncoder(small_speech_encoder(1))})
    codec.save_pretrained(tmp_path)
    torch.testing.assert_close(load_codec(tmp_path).encode_speech(audio, "eng"), codec.encode_speech(audio, "eng"))


def test_an_encoder_of_another_size(tmp_path, saved, audio):
    narrow = write(tmp_path / "spenc.eng.pt", 0, concept_dim=16)
    codec = load_codec("sonar", path=saved, speech={"eng": narrow})
    with pytest.raises(CheckpointError, match=r"speech: eng.*another size; expected 32; got 16"):
        codec.encode_speech(audio, "eng")


def test_wrong_files(tmp_path, saved, files):
    with pytest.raises(ConfigError, match="speech: not a mapping"):
        load_codec("sonar", path=saved, speech=str(files["eng"]))
    with pytest.raises(CheckpointError, match="speech: eng: no such file"):
        load_codec("sonar", path=saved, speech={"eng": tmp_path / "none.pt"})
    codec = load_codec("sonar", path=saved, speech={"eng": saved / "encoder.safetensors"})
    with pytest.raises(CheckpointError, match=r"not a speech encoder of SONAR.*of text"):
        codec.encode_speech([voice(0.5)], "eng")
