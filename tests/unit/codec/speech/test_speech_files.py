"""Speech encoders from files and folders, by language, and audio through them."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from speech_small import chirp, small_speech_encoder, voice

from largeconcept.codec.speech.encoder import encode_audio
from largeconcept.codec.speech.encoders import SpeechEncoders
from largeconcept.codec.speech.features import log_mel
from largeconcept.codec.speech.files import (
    SpeechEncoder,
    convert_speech_encoder,
    export_speech_encoder,
    load_speech_encoder,
)
from largeconcept.codec.speech.layouts import to_published
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError

pytestmark = pytest.mark.filterwarnings("ignore:The weights of SONAR")


def write(path, seed=0, layout="fairseq2", **changes):
    torch.save({"model": to_published(small_speech_encoder(seed, **changes).state_dict(), layout=layout)}, path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("published") / "spenc.v3ap.fra.pt")


@pytest.fixture(scope="module")
def audio():
    return [voice(0.6), chirp(0.3), voice(0.4, pitch=200.0)]


# ---------------------------------------------------------------- audio


def test_encode_audio_is_features_through_the_network(audio):
    encoder = small_speech_encoder()
    assert not encode_audio(encoder, audio).is_inference()
    with torch.no_grad():
        expected = torch.cat([encoder(log_mel(row)[None]) for row in audio])
    for budget in (1, 60, 4096):
        torch.testing.assert_close(encode_audio(encoder, audio, batch_frames=budget), expected, atol=2e-5, rtol=1e-4)
    assert encode_audio(encoder, []).shape == (0, 32)


def test_batches_stay_within_the_budget(audio, monkeypatch):
    encoder = small_speech_encoder()
    sizes = []
    encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[:2])))
    encode_audio(encoder, [*audio, *audio], batch_frames=60)
    assert sum(rows for rows, _ in sizes) == 6
    assert all(rows * frames <= 60 for rows, frames in sizes)
    assert len(sizes) < 6


def test_long_audio():
    encoder, long = small_speech_encoder(), voice(1.0)
    with pytest.warns(UserWarning, match=r"1 utterance\(s\) are longer than 0.8 s; the first is audio\[1\] with 1.0 s"):
        got = encode_audio(encoder, [voice(0.5), long], max_seconds=0.8)
    assert torch.isfinite(got).all()
    with pytest.raises(DataError, match=r"audio\[1\]: too long; expected at most 0.8 seconds; got 1.0 s; cut"):
        encode_audio(encoder, [voice(0.5), long], max_seconds=0.8, on_long="error")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(8000), r"audio\[1\]: the audio is silent"),
        (torch.zeros(100), r"audio\[1\]: the audio is too short"),
        (torch.zeros(2, 8000), r"audio\[1\]: wrong shape"),
        (torch.tensor(0.0), r"audio\[1\]: wrong shape"),
        ([0.0] * 8000, r"audio\[1\]: not a tensor"),
        (torch.full((8000,), float("nan")), r"audio\[1\]: sample 0 is not finite"),
    ],
)
def test_the_message_names_the_utterance(audio, bad, message):
    with pytest.raises(DataError, match=message):
        encode_audio(small_speech_encoder(), [audio[0], bad])


def test_settings_out_of_range(audio):
    with pytest.raises(ConfigError, match=r"on_long: unknown choice.*truncate"):
        encode_audio(small_speech_encoder(), audio, on_long="truncate")
    with pytest.raises(ConfigError, match="batch_frames: out of range"):
        encode_audio(small_speech_encoder(), audio, batch_frames=0)


def test_one_tensor_is_not_a_list(audio):
    with pytest.raises(DataError, match=r"list of utterances.*use \[samples\]"):
        encode_audio(small_speech_encoder(), audio[0])


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("layout", ["fairseq2", "fairseq"])
def test_published_file(tmp_path, audio, layout):
    loaded = load_speech_encoder(write(tmp_path / "spenc.v5ap.cmn.pt", layout=layout))
    assert (loaded.language.flores, loaded.licence, loaded.dim) == ("zho_Hans", "CC-BY-NC-4.0", 32)
    assert not loaded.network.training
    torch.testing.assert_close(loaded.encode(audio), encode_audio(small_speech_encoder(), audio))
    assert loaded.title == "SONAR's speech encoder for Mandarin Chinese"


def test_the_licence_is_told_once(tmp_path, file):
    """Of weights that are not free for every use, and of each language by itself."""
    told = {"match": r"SONAR's speech encoder for Lithuanian are licensed CC-BY-NC-4\.0: not for commercial use"}
    with pytest.warns(UserWarning, **told):
        load_speech_encoder(write(tmp_path / "spenc.v5ap.lit.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_speech_encoder(tmp_path / "spenc.v5ap.lit.pt")
        load_speech_encoder(file)  # MIT


def test_licence_and_language_follow_the_name(file, tmp_path):
    loaded = load_speech_encoder(file)
    assert (loaded.language.code, loaded.licence) == ("fra", "MIT")
    renamed = load_speech_encoder(write(tmp_path / "mine.pt"))
    assert (renamed.language, renamed.licence) == (None, "CC-BY-NC-4.0")
    assert load_speech_encoder(tmp_path / "mine.pt", lang="de").language.code == "deu"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the list of mapped files")
def test_weights_of_a_file_are_mapped_and_not_copied(file):
    loaded = load_speech_encoder(file)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines if line[-1] == str(file)]
    copied = [
        name
        for name, tensor in loaded.network.state_dict().items()
        if not any(start <= tensor.data_ptr() < stop for start, stop in mapped)
    ]
    assert copied == ["pooler.token"]  # one row of a table that is not kept


def test_safetensors_with_published_names(tmp_path, audio):
    save_file(to_published(small_speech_encoder().state_dict()), tmp_path / "spenc.eng.safetensors")
    loaded = load_speech_encoder(tmp_path / "spenc.eng.safetensors")
    assert loaded.language.code == "eng"
    torch.testing.assert_close(loaded.encode(audio), encode_audio(small_speech_encoder(), audio))


@pytest.mark.parametrize("layout", ["fairseq2", "fairseq"])
def test_folder_and_back(tmp_path, audio, layout):
    source = write(tmp_path / "spenc.v3ap.deu.pt", layout=layout)
    known = convert_speech_encoder(source, tmp_path / "deu")
    assert sorted(p.name for p in (tmp_path / "deu").iterdir()) == [
        "README.md",
        "config.json",
        "dead.safetensors",
        "model.safetensors",
    ]
    assert "license: mit" in (tmp_path / "deu/README.md").read_text()
    loaded = load_speech_encoder(tmp_path / "deu")
    assert (loaded.language.code, loaded.licence, loaded.fingerprint) == ("deu", "MIT", known["fingerprint"])
    torch.testing.assert_close(loaded.encode(audio), encode_audio(small_speech_encoder(), audio))
    export_speech_encoder(tmp_path / "deu", tmp_path / "back.pt")
    before, after = torch.load(source)["model"], torch.load(tmp_path / "back.pt")["model"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit(file, tmp_path, audio, dtype):
    expected = load_speech_encoder(file).encode(audio)
    convert_speech_encoder(file, tmp_path / "half", dtype=dtype)
    size = (tmp_path / "half/model.safetensors").stat().st_size
    convert_speech_encoder(file, tmp_path / "full")
    assert size < 0.7 * (tmp_path / "full/model.safetensors").stat().st_size
    for source in (file, tmp_path / "half"):
        loaded = load_speech_encoder(source, dtype=dtype if source == file else "auto")
        assert loaded.network.pooler.token.dtype == getattr(torch, dtype)
        assert all(buffer.dtype == torch.float32 for buffer in loaded.network.buffers())
        got = loaded.encode(audio)
        assert got.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(got, expected).min() > 0.999
    half, full = (json.loads((tmp_path / n / "config.json").read_text()) for n in ("half", "full"))
    assert half["fingerprint"] == full["fingerprint"]  # the same published weights
    assert load_speech_encoder(tmp_path / "half", dtype="float32").network.pooler.token.dtype == torch.float32


def test_types_that_are_mixed_or_not_computed_with(tmp_path, audio):
    """The network computes in one type; converting keeps every tensor as it was published."""
    tensors = to_published(small_speech_encoder().state_dict())
    expected = encode_audio(small_speech_encoder(), audio)
    first = "encoder_frontend.model_dim_proj.weight"
    for changed, wanted in (
        ({name: t.half() for name, t in tensors.items() if "ffn1" in name}, torch.float32),
        ({name: t.double() for name, t in tensors.items() if t.is_floating_point()}, torch.float32),
        ({first: tensors[first].bfloat16()}, torch.bfloat16),
    ):
        torch.save({"model": tensors | changed}, tmp_path / "spenc.eng.pt")
        loaded = load_speech_encoder(tmp_path / "spenc.eng.pt")
        assert {p.dtype for p in loaded.network.parameters()} == {wanted}
        assert {b.dtype for b in loaded.network.buffers()} == {torch.float32}
        assert torch.nn.functional.cosine_similarity(loaded.encode(audio), expected).min() > 0.999
        convert_speech_encoder(tmp_path / "spenc.eng.pt", tmp_path / "folder")
        back = export_speech_encoder(tmp_path / "folder", tmp_path / "back.pt")
        assert {name: t.dtype for name, t in back.items()} == {n: t.dtype for n, t in (tensors | changed).items()}


def test_a_folder_becomes_another_or_itself_in_16_bits(file, tmp_path, audio):
    first = convert_speech_encoder(file, tmp_path / "full")
    second = convert_speech_encoder(tmp_path / "full", tmp_path / "other", lang="swe")
    assert second == {**first, "lang": "swe"}
    third = convert_speech_encoder(tmp_path / "full", tmp_path / "full", dtype="bfloat16")
    assert third == first
    loaded = load_speech_encoder(tmp_path / "full")
    assert loaded.network.pooler.token.dtype == torch.bfloat16
    assert loaded.licence == "MIT"
    for name in ("model", "dead"):
        before = (tmp_path / f"other/{name}.safetensors").stat().st_size
        assert ((tmp_path / f"full/{name}.safetensors").stat().st_size < before) == (name == "model")


def test_a_loaded_encoder_is_saved_without_what_is_dead(file, tmp_path, audio):
    convert_speech_encoder(file, tmp_path / "fra")
    loaded = load_speech_encoder(file)
    known = convert_speech_encoder(loaded, tmp_path / "fra")
    assert known["fingerprint"] is None
    assert not (tmp_path / "fra/dead.safetensors").exists()
    again = load_speech_encoder(tmp_path / "fra")
    assert torch.equal(again.encode(audio), loaded.encode(audio))
    export_speech_encoder(tmp_path / "fra", tmp_path / "spenc.v3ap.fra.pt")
    assert torch.equal(load_speech_encoder(tmp_path / "spenc.v3ap.fra.pt").encode(audio), loaded.encode(audio))


def test_language_is_needed_to_convert(tmp_path):
    source = write(tmp_path / "mine.pt")
    with pytest.raises(ConfigError, match=r"which language.*spenc\.v3ap\.fra\.pt"):
        convert_speech_encoder(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert convert_speech_encoder(source, tmp_path / "out", lang="swh_Latn")["lang"] == "swh"


def test_bad_files(tmp_path, file):
    with pytest.raises(CheckpointError, match="file not found"):
        load_speech_encoder(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_speech_encoder(tmp_path / "text.pt")
    (tmp_path / "half.pt").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"half.pt: not a checkpoint"):
        load_speech_encoder(tmp_path / "half.pt")
    torch.save({"model": {"encoder_frontend.embed.weight": torch.zeros(3, 2)}}, tmp_path / "text_encoder.pt")
    with pytest.raises(CheckpointError, match=r"text_encoder.pt: not a speech encoder.*of text"):
        load_speech_encoder(tmp_path / "text_encoder.pt")
    with pytest.raises(ConfigError, match=r"dtype: unknown.*int8"):
        load_speech_encoder(file, dtype="int8")
    with pytest.raises(ConfigError, match=r"ends in \.pt"):
        export_speech_encoder(tmp_path, tmp_path / "out.bin")


def test_bad_folders(tmp_path, file):
    with pytest.raises(CheckpointError, match=r"config.json: file not found"):
        load_speech_encoder(tmp_path)
    folder = tmp_path / "fra"
    known = convert_speech_encoder(file, folder)
    for change, message in (
        ({"type": "sonar"}, "not a saved speech encoder"),
        ({"format_version": 99}, "newer version"),
        ({"lang": "xxx"}, "not a language"),
        ({"layout": 3}, "layout: damaged"),
        ({"network": {**known["network"], "ffn_dim": 47}}, "another shape"),
        ({"network": {**known["network"], "num_layers": 10**9}}, "num_layers: the configuration does not belong"),
        ({"network": {**known["network"], "model_dim": 2**40}}, "model_dim: the configuration does not belong"),
        ({"network": {**known["network"], "num_layers": 3}}, "weights are missing"),
    ):
        (folder / "config.json").write_text(json.dumps({**known, **change}))
        with pytest.raises(CheckpointError, match=message):
            load_speech_encoder(folder)


# ---------------------------------------------------------------- several languages


def test_encoders_are_loaded_when_they_are_needed(file, tmp_path, audio):
    other = write(tmp_path / "spenc.v5ap.cmn.pt", seed=1)
    encoders = SpeechEncoders({"fr": file, "zho_Hans": other}, dim=32)
    assert list(encoders) == ["fra", "cmn"]
    assert encoders.languages == ("fra_Latn", "zho_Hans")
    assert "fra_Latn" in encoders
    assert "zh-TW" in encoders
    assert "eng" not in encoders
    assert not encoders.is_loaded("fra")
    french = encoders.encode(audio, "fra_Latn")
    assert encoders.is_loaded("fra")
    assert not encoders.is_loaded("cmn")
    torch.testing.assert_close(french, encode_audio(small_speech_encoder(0), audio))
    mixed = encoders.encode(audio, ["cmn", "fr", "zh"])
    chinese = encode_audio(small_speech_encoder(1), audio)
    torch.testing.assert_close(mixed, torch.stack([chinese[0], french[1], chinese[2]]), atol=2e-5, rtol=1e-4)
    assert encoders["fra"] is encoders["fr-CA"]


def test_encoders_that_are_loaded_already(audio):
    encoders = SpeechEncoders({"eng": SpeechEncoder(small_speech_encoder())})
    assert len(encoders) == 1
    assert encoders.sources == {"eng": encoders["eng"]}
    assert encoders.encode(audio, "en").shape == (3, 32)
    assert encoders.encode([], "en").shape == (0, 1024)


def test_wrong_use_of_encoders(file, tmp_path, audio):
    with pytest.raises(CheckpointError, match="speech: eng: no such file"):
        SpeechEncoders({"eng": tmp_path / "none.pt"})
    with pytest.raises(ConfigError, match="two speech encoders"):
        SpeechEncoders({"fra": file, "fr": file})
    with pytest.raises(LanguageError, match="SONAR has no speech encoder"):
        SpeechEncoders({"dzo": file})
    with pytest.raises(ConfigError, match="not a mapping"):
        SpeechEncoders(str(file))
    with pytest.raises(ConfigError, match="speech: fra: not a file"):
        SpeechEncoders({"fra": 3})
    encoders = SpeechEncoders({"fra": file}, dim=1024)
    with pytest.raises(CheckpointError, match=r"another size; expected 1024; got 32"):
        encoders.encode(audio, "fra")
    encoders = SpeechEncoders({"fra": file})
    with pytest.raises(LanguageError, match=r"eng \(English\).*spenc\.eng\.pt"):
        encoders.encode(audio, "eng")
    with pytest.raises(LanguageError, match="which language is spoken"):
        encoders.encode(audio, None)
    with pytest.raises(DataError, match="list of utterances"):
        encoders.encode(audio[0], "fra")
    with pytest.raises(LanguageError, match=r"one language per utterance.*3.*2"):
        encoders.encode(audio, ["fra", "fra"])
    mixed = SpeechEncoders({"fra": file, "eng": SpeechEncoder(small_speech_encoder())})
    with pytest.raises(DataError, match=r"audio\[2\]: the audio is silent"):
        mixed.encode([audio[0], audio[1], torch.zeros(9000)], ["eng", "fra", "eng"])
    narrow = SpeechEncoder(small_speech_encoder(concept_dim=16))
    uneven = SpeechEncoders({"fra": file, "eng": narrow})
    with pytest.raises(CheckpointError, match=r"different sizes; got \[16, 32\]"):
        uneven.encode(audio, ["fra", "eng", "fra"])
