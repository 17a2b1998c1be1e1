"""The exported encoder; all but the messages needs the extra ``onnx``."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sonar_small import TEXT, small_codec, small_decoder, small_encoder, small_tokenizer

from largeconcept import load_codec
from largeconcept.codec.sonar import loading
from largeconcept.codec.sonar.codec import SonarCodec
from largeconcept.codec.sonar.onnx import SonarOnnxEncoder, export_onnx
from largeconcept.errors import CheckpointError, ConfigError, DependencyError


def need_extra() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def codec() -> Any:
    return small_codec(5)


@pytest.fixture(scope="module")
def exported(codec: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_extra()
    folder = tmp_path_factory.mktemp("onnx") / "plain"
    export_onnx(codec, folder)
    return folder


@pytest.mark.slow
def test_the_same_concepts(codec: Any, exported: Path) -> None:
    sentences = [text[:cut] for text in TEXT for cut in (1, 7, 30, 60)]
    found = load_codec("sonar", encoder=exported)
    expected = codec.encode(sentences, "eng_Latn")
    for budget in (8192, 60, 1):  # many sentences, some, and one by one without padding
        assert (found.encode(sentences, "eng_Latn", batch_tokens=budget) - expected).abs().max() < 1e-5
    assert found.encode([], "eng_Latn").shape == (0, codec.dim)
    longest = "a " * 1000
    with pytest.warns(UserWarning, match="cut"):
        torch.testing.assert_close(found.encode([longest]), codec.encode([longest]), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_int8(codec: Any, exported: Path, tmp_path: Path) -> None:
    config = export_onnx(codec, tmp_path / "int8", int8=True)
    assert config["weights"] == "int8"
    expected = codec.encode(TEXT, "eng_Latn")
    found = load_codec(f"sonar:{tmp_path / 'int8'}").encode(TEXT, "eng_Latn")
    assert torch.cosine_similarity(found, expected).min() > 0.999
    assert (found - expected).abs().max() > 1e-5  # it is quantised


@pytest.mark.slow
def test_in_the_place_of_the_encoder(codec: Any, exported: Path, tmp_path: Path) -> None:
    encoder = SonarOnnxEncoder(exported, threads=1)
    both = SonarCodec(encoder, codec.decoder, small_tokenizer())
    assert both.fingerprint == codec.fingerprint
    concepts = both.encode(TEXT[:3], "eng_Latn")
    assert both.decode(concepts, "fra_Latn", max_length=8) == codec.decode(concepts, "fra_Latn", max_length=8)
    codec.save_pretrained(tmp_path / "whole")
    loaded = load_codec("sonar", path=tmp_path / "whole", encoder=exported)
    assert isinstance(loaded.encoder, SonarOnnxEncoder)
    assert loaded.decoder is not None
    assert loaded.fingerprint == codec.fingerprint
    with pytest.raises(ConfigError, match="cannot be saved"):
        loaded.save_pretrained(tmp_path / "again")
    with pytest.warns(UserWarning, match="compiled already"):
        SonarCodec(encoder, None, small_tokenizer(), compile=True)


@pytest.mark.slow
def test_from_bfloat16_and_over_an_older_one(exported: Path, tmp_path: Path, codec: Any) -> None:
    rounded = SonarCodec(small_encoder(5).bfloat16(), None, small_tokenizer(), space="the space")
    export_onnx(codec, tmp_path / "one")
    assert export_onnx(rounded, tmp_path / "one")["space"] == "the space"
    found = SonarOnnxEncoder(tmp_path / "one")
    assert found.space == "the space"
    tokens = torch.tensor([[300, 5, 6, 3]])
    with torch.inference_mode():
        assert (found(tokens, None) - rounded.encoder.float()(tokens, None)).abs().max() < 1e-5
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "config.json",
        "encoder.onnx",
        "encoder.onnx.data",
        "tokenizer.model",
    ]


@pytest.mark.slow
def test_damaged_files(exported: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in exported.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "encoder.onnx").write_bytes((exported / "encoder.onnx").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load"):
        load_codec("sonar", encoder=broken)
    data = json.loads((exported / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(data | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="newer"):
        SonarOnnxEncoder(broken)


def test_without_the_extra(codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(DependencyError, match=r"largeconcept\[onnx\]"):
        export_onnx(codec, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "config.json").write_text(
        json.dumps({"type": "sonar-onnx", "format_version": 1, "encoder": codec.encoder.config.to_dict()})
    )
    with pytest.raises(DependencyError, match=r"largeconcept\[onnx\]"):
        SonarOnnxEncoder(tmp_path)


def test_what_cannot_be_exported_or_read(codec: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no encoder"):
        export_onnx(SonarCodec(None, small_decoder(), small_tokenizer()), tmp_path / "new")
    (tmp_path / "config.json").write_text('{"type": "sonar"}')
    with pytest.raises(CheckpointError, match="not an exported"):
        SonarOnnxEncoder(tmp_path)
    with pytest.raises(CheckpointError):
        SonarOnnxEncoder(tmp_path / "nowhere")


def test_another_folder_is_not_overwritten(codec: Any, tmp_path: Path) -> None:
    need_extra()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else"):
        export_onnx(codec, tmp_path)
    with pytest.raises(ConfigError, match="in the way"):
        export_onnx(codec, tmp_path / "thesis.txt")


def test_loading_knows_both_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, codec: Any) -> None:
    """What the loader makes of an exported folder, without onnxruntime."""
    (tmp_path / "config.json").write_text(
        json.dumps({"type": "sonar-onnx", "encoder": codec.encoder.config.to_dict(), "space": "s"})
    )
    (tmp_path / "tokenizer.model").write_bytes(codec.tokenizer.model)
    monkeypatch.setattr("largeconcept.codec.sonar.onnx._session", lambda model, threads: None)
    for found in (loading.load_sonar(tmp_path), loading.load_sonar(encoder=tmp_path)):
        assert isinstance(found.encoder, SonarOnnxEncoder)
        assert found.decoder is None
        assert found.fingerprint == "s"


@pytest.mark.slow
def test_the_command(codec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_extra()
    from largeconcept.cli.convert import sonar_onnx

    codec.save_pretrained(tmp_path / "whole")
    sonar_onnx(str(tmp_path / "whole"), str(tmp_path / "exported"))
    assert codec.fingerprint in capsys.readouterr().out
    found = load_codec(tmp_path / "whole", encoder=tmp_path / "exported")
    assert isinstance(found.encoder, SonarOnnxEncoder)
    expected = codec.encode(TEXT[:2], "eng_Latn")
    torch.testing.assert_close(found.encode(TEXT[:2], "eng_Latn"), expected, rtol=0, atol=1e-5)
    assert len({path.stat().st_mode for path in (tmp_path / "exported").glob("encoder*")}) == 1
