"""Saved pipelines: round trips, what is refused and in which words, and that nothing half-written is left."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

from largeconcept import hub
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import CheckpointError, ConfigError, DependencyError
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.hub import ModelCard, load_pipeline, read_record
from largeconcept.models import build_model, load_model
from largeconcept.segment import build_segmenter
from largeconcept.train.export import ship_pipeline

TEXT = "Tim had a red ball. The ball rolled away."


@pytest.fixture(scope="module")
def saved(make_pipeline, tmp_path_factory) -> Path:
    return make_pipeline().save_pretrained(tmp_path_factory.mktemp("hub") / "saved")


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize("family", ["mse", "two_tower"])
def test_round_trip_writes_the_same_text(make_pipeline, tmp_path, family):
    first = make_pipeline(family, stop_text="End of text.", max_length=12, options={"max_concepts": 4})
    first.save_pretrained(tmp_path / "p")
    second = ConceptPipeline.from_pretrained(tmp_path / "p", device="cpu")
    assert second.options == first.options
    assert second.max_length == 12
    assert torch.equal(first(TEXT, seed=3).concepts, second(TEXT, seed=3).concepts)
    assert first(TEXT, seed=3).text == second(TEXT, seed=3).text
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_folder_holds_no_pickle_and_no_leftovers(saved):
    names = sorted(str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file())
    assert names == [
        "README.md",
        "codec/config.json",
        "model/config.json",
        "model/model.safetensors",
        "normalizer/config.json",
        "normalizer/model.safetensors",
        "pipeline.json",
        "segmenter/config.json",
    ]
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]


def test_record_says_what_is_needed(saved):
    record = read_record(saved)
    assert record.format_version == hub.FORMAT_VERSION
    assert record.codec.fingerprint == ToyCodec(16).fingerprint
    assert record.codec.dim == 16
    assert record.torch_version == torch.__version__
    assert record.generation["num_inference_steps"] == 4


@pytest.mark.parametrize("part", hub.PARTS)
def test_missing_part(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointError, match=f"part '{part}' is missing"):
        load_pipeline(copy)


@pytest.mark.parametrize("part", ["model", "normalizer"])
def test_truncated_weights(copy, part):
    path = copy / part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="safetensors") as caught:
        load_pipeline(copy)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["pipeline.json", *(f"{part}/config.json" for part in hub.PARTS)])
@pytest.mark.parametrize("content", ["{", "[1]", '{"type": "nothing of the kind"}', '"text"', "null"])
def test_wrong_json_is_one_clear_error(copy, name, content):
    (copy / name).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        load_pipeline(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_model_weights_of_another_shape(copy, make_pipeline, tmp_path):
    other = make_pipeline(model={"model_dim": 32}).save_pretrained(tmp_path / "other")
    shutil.copy(other / "model" / "model.safetensors", copy / "model" / "model.safetensors")
    with pytest.raises(CheckpointError, match="another shape"):
        load_pipeline(copy)


def test_model_of_another_dimension(copy, make_pipeline, tmp_path):
    other = make_pipeline(dim=8).save_pretrained(tmp_path / "other")
    shutil.rmtree(copy / "model")
    shutil.copytree(other / "model", copy / "model")
    with pytest.raises(CheckpointError, match=r"the model does not fit the codec.*16 channels.*8 channels"):
        load_pipeline(copy)


def test_later_format(copy):
    data = json.loads((copy / "pipeline.json").read_text())
    data["format_version"] = hub.FORMAT_VERSION + 1
    data["a_key_of_the_future"] = 1
    (copy / "pipeline.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"later version of largeconcept.*--upgrade"):
        load_pipeline(copy)


@pytest.mark.parametrize("version", [None, 0, -1, "1", True, 1.5])
def test_no_format_version(copy, version):
    data = json.loads((copy / "pipeline.json").read_text())
    data["format_version"] = version
    (copy / "pipeline.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="format_version"):
        load_pipeline(copy)


def test_another_concept_space_names_both_fingerprints(saved):
    other = ToyCodec(8)
    with pytest.raises(CheckpointError) as caught:
        load_pipeline(saved, codec=other)
    message = str(caught.value)
    assert other.fingerprint in message
    assert ToyCodec(16).fingerprint in message
    assert "another concept space" in message


def test_stored_codec_that_was_exchanged(copy):
    ToyCodec(8, ["A."]).save_pretrained(copy / "codec")
    with pytest.raises(CheckpointError, match="another concept space"):
        load_pipeline(copy)


def test_codec_as_reference(make_pipeline, tmp_path):
    ToyCodec(16, ["Elsewhere."]).save_pretrained(tmp_path / "space")
    target = make_pipeline().save_pretrained(tmp_path / "p", codec_reference=str(tmp_path / "space"))
    assert not (target / "codec").exists()
    parts = load_pipeline(target)
    assert parts.codec.decode(parts.codec.encode(["Elsewhere."]), "eng_Latn") == ["Elsewhere."]
    ToyCodec(8, ["Elsewhere."]).save_pretrained(tmp_path / "space")
    with pytest.raises(CheckpointError, match="another concept space"):
        load_pipeline(target)


def test_a_codec_that_cannot_be_saved(make_pipeline, tmp_path):
    class Bare(ToyCodec):
        save_pretrained = None  # type: ignore[assignment]

    pipeline = make_pipeline(codec=Bare(16))
    with pytest.raises(ConfigError, match="codec_reference"):
        pipeline.save_pretrained(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_failed_save_leaves_the_old_pipeline(make_pipeline, tmp_path, monkeypatch):
    target = make_pipeline().save_pretrained(tmp_path / "p")
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}

    def broken(*_: object) -> None:
        raise OSError("disk full")

    pipeline = make_pipeline("mse")
    monkeypatch.setattr(pipeline.normalizer, "save_pretrained", broken)
    with pytest.raises(OSError, match="disk full"):
        pipeline.save_pretrained(target)
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_failed_rename_brings_the_old_pipeline_back(make_pipeline, tmp_path, monkeypatch):
    target = make_pipeline().save_pretrained(tmp_path / "p")
    rename, calls = Path.rename, []

    def fails_once(self: Path, other: Path) -> Path:
        calls.append(other)
        if len(calls) == 1:
            raise OSError("device is gone")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="device is gone"):
        make_pipeline("mse").save_pretrained(target)
    assert calls == [target, target]
    assert load_pipeline(target).model.config.type == "two_tower"
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_save_replaces_a_pipeline_and_nothing_else(make_pipeline, tmp_path):
    target = make_pipeline().save_pretrained(tmp_path / "p")
    make_pipeline("mse").save_pretrained(target)
    assert load_pipeline(target).model.config.type == "mse"
    (tmp_path / "empty").mkdir()
    make_pipeline().save_pretrained(tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(ConfigError, match="something else"):
        make_pipeline().save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "three years"
    with pytest.raises(ConfigError, match="not a folder"):
        make_pipeline().save_pretrained(tmp_path / "mine" / "thesis.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "mine", "p"]


def test_not_a_pipeline(tmp_path):
    with pytest.raises(CheckpointError, match=r"no pipeline\.json"):
        load_pipeline(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_pipeline(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="not a folder"):
        load_pipeline(tmp_path / "file")


def starter_pipeline(type_="mse", **sizes):
    """A random model on the codec that ships."""
    from largeconcept.codec import load_codec
    from largeconcept.codec.normalizer import ConceptNormalizer

    codec = load_codec("starter")
    shape = {"num_layers": 2, "model_dim": 64, "num_heads": 4, **sizes}
    model = build_model({"type": type_, "concept_dim": codec.dim, **shape})
    return ConceptPipeline(build_segmenter(), codec, ConceptNormalizer.identity(codec.dim), model, device="cpu")


def test_int8_pipelines_are_small_and_say_the_same(tmp_path):
    torch.manual_seed(0)
    pipe = starter_pipeline(model_dim=256)
    whole, small = tmp_path / "whole", tmp_path / "small"
    pipe.save_pretrained(whole)
    out = ship_pipeline(whole, small, card={"limits": ("It is random.",), "training_cost": ("None.",)})
    sizes = [(folder / "model" / "model.safetensors").stat().st_size for folder in (whole, small)]
    assert out == small and sizes[1] < 0.3 * sizes[0]
    again = ConceptPipeline.from_pretrained(small, device="cpu")
    assert again.codec.fingerprint == pipe.codec.fingerprint
    assert again.card.limits == ("It is random.",) and "## Training cost" in (small / "README.md").read_text()
    x = torch.randn(2, 5, pipe.codec.dim)
    with torch.no_grad():
        before, after = pipe.model(x), again.model(x)
    assert 0 < (after - before).norm() < 0.03 * before.norm()
    ship_pipeline(small, tmp_path / "again")  # rounding what is rounded changes nothing
    files = [folder / "model" / "model.safetensors" for folder in (small, tmp_path / "again")]
    assert torch.equal(*(load_model(file.parent)(x) for file in files))


def test_a_float_codec_keeps_its_space_when_it_is_rounded(tmp_path):
    from largeconcept.codec.autoencoder import AutoencoderCodec

    pipe = starter_pipeline()
    shipped = pipe.codec
    pipe.codec = AutoencoderCodec(shipped.network, shipped.tokenizer)  # as a training leaves it
    space = pipe.codec.fingerprint
    assert space != shipped.fingerprint
    pipe.save_pretrained(tmp_path / "whole")
    ship_pipeline(tmp_path / "whole", tmp_path / "small")
    again = ConceptPipeline.from_pretrained(tmp_path / "small", device="cpu")
    assert again.codec.fingerprint == space and again.codec.is_rounded
    sizes = [(tmp_path / name / "codec" / "model.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.3 * sizes[0]


def test_what_is_too_large_does_not_ship(tmp_path):
    starter_pipeline().save_pretrained(tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"too large; expected at most 1\.0 MiB; got .* \(segmenter 0\.0, codec \d"):
        ship_pipeline(tmp_path / "whole", tmp_path / "small", max_bytes=2**20)
    assert not (tmp_path / "small").exists()
    with pytest.raises(ConfigError, match="is for runs"):
        ship_pipeline(tmp_path / "whole", tmp_path / "small", codec="starter")


def test_a_codec_that_cannot_be_rounded(make_pipeline, tmp_path):
    make_pipeline().save_pretrained(tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"cannot be saved with int8.*codec_reference"):
        ship_pipeline(tmp_path / "whole", tmp_path / "small")


def test_nothing_shipped(monkeypatch):
    monkeypatch.setattr(hub, "DEFAULT_PIPELINE", "no-such-pipeline")
    with pytest.raises(CheckpointError, match="largeconcept export"):
        load_pipeline(None)


def test_shipped_pipeline_is_the_default(saved, monkeypatch):
    monkeypatch.setattr(hub, "shipped_pipeline", lambda: saved)
    assert hub.resolve(None) == saved


def test_hub_id_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"no folder 'org/name'.*largeconcept\[hub\]"):
        load_pipeline("org/name")


def test_hub_offline_and_found(saved, monkeypatch):
    fake = types.ModuleType("huggingface_hub")
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if name == "org/gone":
            raise ConnectionError("Network is unreachable\nsecond line")
        return str(saved)

    fake.snapshot_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    with pytest.raises(CheckpointError, match=r"cannot be fetched from the hub.*Network is unreachable"):
        load_pipeline("org/gone")
    assert load_pipeline("org/name").codec.dim == 16
    assert not any("bin" in pattern or "pt" in pattern.split(".") or "pkl" in pattern for pattern in asked[0][1])


@pytest.mark.parametrize("name", ["./org/name", "/org/name", "a/b/c", "name", "../name", "org/.name"])
def test_what_is_never_asked_of_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_download", lambda _: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="no such folder"):
        load_pipeline(name)


def test_an_existing_folder_wins_over_the_hub(saved, monkeypatch):
    monkeypatch.chdir(saved.parent.parent)
    monkeypatch.setattr(hub, "_download", lambda _: pytest.fail("asked the hub"))
    assert load_pipeline(f"{saved.parent.name}/{saved.name}").codec.dim == 16


def test_card_without_facts_has_no_empty_heading(saved):
    text = (saved / "README.md").read_text()
    assert "## Parts" in text
    assert ToyCodec(16).fingerprint in text
    for heading in ("Training data", "Metrics", "Licence", "Limits", "Recipe"):
        assert heading not in text
    lines = [line for line in text.splitlines() if line.strip()]
    assert not any(a.startswith("## ") and b.startswith("#") for a, b in zip(lines, [*lines[1:], "#"]))


def test_card_tells_what_is_known_and_survives_the_round_trip(make_pipeline, tmp_path):
    card = ModelCard(
        title="Small stories",
        licence="CC0-1.0",
        languages=("eng_Latn", "deu_Latn"),
        training_data=("Austen, public domain",),
        recipe="model:\n  type: two_tower\n",
        metrics={"l2": {"model": 0.51234567, "copy_last": 1.2}, "documents": 7},
        limits=("knows nothing",),
    )
    target = make_pipeline().save_pretrained(tmp_path / "p", card=card)
    text = (target / "README.md").read_text()
    for part in (
        "# Small stories",
        "license: cc0-1.0",
        "- deu_Latn",
        "- Austen, public domain",
        "```yaml\nmodel:",
        "| l2 | 0.5123 | 1.2 |",
        "| documents | 7 |",
        "- knows nothing",
        "## Licence",
    ):
        assert part in text
    assert load_pipeline(target).card == card
    again = ConceptPipeline.from_pretrained(target, device="cpu").save_pretrained(tmp_path / "q")
    assert (again / "README.md").read_text() == text
