"""Wrong inputs to every verb: one clear line on standard error, exit status 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from largeconcept.codec.toy import ToyCodec
from largeconcept.generate.files import ConceptFile, write_concepts

TEXT = "Tim had a red ball. The ball rolled away."
TINY = ("model.model_dim=16", "model.num_heads=2", "model.num_layers=1", "train.max_steps=1", "train.device=cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset of 16 channels with a train split of six documents."""
    from largeconcept.data.build import build_concepts

    folder = tmp_path_factory.mktemp("data")
    lines = [{"id": str(i), "sentences": [f"This is {i}.", "It is here.", "Good."]} for i in range(6)]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_concepts(folder / "in.jsonl", folder / "data", codec=ToyCodec(16))
    return folder / "data"


@pytest.fixture(scope="module")
def dataset8(tmp_path_factory) -> Path:
    """The like of ``dataset`` with 8 channels."""
    from largeconcept.data.build import build_concepts

    folder = tmp_path_factory.mktemp("data8")
    lines = [{"id": str(i), "sentences": [f"This is {i}.", "It is here."]} for i in range(4)]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_concepts(folder / "in.jsonl", folder / "data", codec=ToyCodec(8))
    return folder / "data"


class OtherToy(ToyCodec):
    """As many channels, but another space."""

    fingerprint = "0123456789abcdef"  # type: ignore[assignment]


@pytest.fixture(scope="module")
def other_space(tmp_path_factory) -> Path:
    from largeconcept.data.build import build_concepts

    folder = tmp_path_factory.mktemp("other")
    (folder / "in.jsonl").write_text('{"sentences": ["One.", "Two."]}\n{"sentences": ["Three.", "Four."]}\n')
    build_concepts(folder / "in.jsonl", folder / "data", codec=OtherToy(16))
    return folder / "data"


@pytest.fixture
def codec8(tmp_path) -> Path:
    ToyCodec(8, ["Eight."]).save_pretrained(tmp_path / "codec8")
    return tmp_path / "codec8"


def truncated(folder: Path, part: str, target: Path) -> Path:
    shutil.copytree(folder, target)
    path = target / part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    return target


# --- texts ----------------------------------------------------------------------------------------------------------

TEXT_VERBS = ["segment", "encode", "translate", "generate", "summarize", "expand"]


@pytest.fixture
def with_parts(saved_pipeline, toy_codec):
    """Return the options that a verb needs to find its parts."""

    def find(verb: str) -> list[object]:
        if verb == "segment":
            return []
        return ["--codec", toy_codec] if verb in ("encode", "translate", "decode") else ["--pipeline", saved_pipeline]

    return find


@pytest.mark.parametrize("verb", TEXT_VERBS)
def test_missing_file(cli, with_parts, verb):
    cli(verb, "nowhere.txt", *with_parts(verb)).error("nowhere.txt", "file not found", "--text")
    cli(verb, "nowhere.jsonl", *with_parts(verb)).error("nowhere.jsonl", "file not found")


@pytest.mark.parametrize("verb", TEXT_VERBS)
def test_folder_instead_of_a_file(cli, with_parts, tmp_path, verb):
    cli(verb, tmp_path, *with_parts(verb)).error(str(tmp_path))


@pytest.mark.parametrize("verb", TEXT_VERBS)
def test_not_utf8(cli, with_parts, tmp_path, verb):
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    cli(verb, tmp_path / "latin.txt", *with_parts(verb)).error("latin.txt", "not UTF-8", "byte 2 is 0xfc")
    cli(verb, *with_parts(verb), stdin=b"\xff\xfe\x00").error("standard input", "not UTF-8")


@pytest.mark.parametrize("verb", [one for one in TEXT_VERBS if one not in ("segment", "summarize", "expand")])
@pytest.mark.parametrize("text", ["", " \n\t"])
def test_empty_text(cli, with_parts, verb, text):
    cli(verb, *with_parts(verb), stdin=text).error("stdin", "the text is empty")
    cli(verb, *with_parts(verb), "--text", text).error("text: the text is empty")


@pytest.mark.parametrize("verb", [one for one in TEXT_VERBS if one not in ("summarize", "expand")])
def test_nul(cli, with_parts, verb):
    cli(verb, *with_parts(verb), stdin="a\0b").error("stdin", "NUL character at position 1")


@pytest.mark.parametrize("verb", [one for one in TEXT_VERBS if one not in ("summarize", "expand")])
def test_unknown_input_language(cli, with_parts, verb):
    cli(verb, *with_parts(verb), "--input-lang", "germann", "-t", TEXT).error("germann", "deu_Latn")


@pytest.mark.parametrize(("verb", "option"), [("translate", "--to"), ("generate", "--lang")])
def test_output_language(cli, with_parts, verb, option):
    cli(verb, *with_parts(verb), option, "germann", "-t", TEXT).error("germann", "deu_Latn")
    cli(verb, *with_parts(verb), option, "ell_Grek", "-t", TEXT).error("cannot write", "ell_Grek")


@pytest.mark.parametrize("verb", ["generate", "summarize", "expand"])
def test_unknown_option_names_the_nearest(cli, make_pipeline, tmp_path, verb):
    from largeconcept.hub import PromptRecord

    make_pipeline(prompts={"summarize": PromptRecord(), "expand": PromptRecord()}).save_pretrained(tmp_path / "p")
    run = [verb, "-p", tmp_path / "p", "-t", TEXT, "-o"]
    cli(*run, "guidance_scal=3").error("guidance_scal", "did you mean guidance_scale?")
    cli(*run, "eta=much").error("eta")
    cli(*run, "guidance_scale").error("guidance_scale", "key=value")
    cli(*run, "eta=[").error("eta", "not valid YAML")


def test_unknown_segmenter_setting(cli):
    cli("segment", "-o", "max_char=20", "-t", TEXT).error("max_char", "max_chars")


@pytest.mark.parametrize("verb", ["summarize", "expand"])
def test_untuned_model(cli, saved_pipeline, verb):
    cli(verb, "-p", saved_pipeline, "-t", TEXT).error(f"not tuned to {verb}", "pipeline.json")


def test_bad_json_lines(cli, saved_pipeline, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "Fine."}\n{"text": \n')
    cli("generate", "-p", saved_pipeline, tmp_path / "d.jsonl").error("d.jsonl:2")


# --- pipelines and codecs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["generate", "summarize", "expand", "translate", "encode"])
def test_no_such_pipeline(cli, tmp_path, verb):
    cli(verb, "-t", TEXT, "-p", tmp_path / "nowhere").error("nowhere", "no such folder")
    cli(verb, "-t", TEXT, "-p", tmp_path).error("pipeline.json")


@pytest.mark.parametrize("verb", ["generate", "summarize", "expand"])
def test_nothing_ships(cli, monkeypatch, verb):
    from largeconcept import hub

    monkeypatch.setattr(hub, "shipped_pipeline", lambda: None)
    cli(verb, "-t", TEXT).error("no pipeline ships", "largeconcept export")


def test_hub_id_without_the_package(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    cli("generate", "-t", TEXT, "-p", "org/name").error("org/name", "pip install 'largeconcept[hub]'")


@pytest.mark.parametrize("verb", ["generate", "eval run"])
@pytest.mark.parametrize("part", ["model", "normalizer"])
def test_truncated_weights(cli, saved_pipeline, dataset, tmp_path, verb, part):
    broken = truncated(saved_pipeline, part, tmp_path / "broken")
    arguments = ["-t", TEXT, "-p", broken] if verb == "generate" else [broken, "--data", dataset, "--split", "train"]
    cli(*verb.split(), *arguments).error(f"{part}/model.safetensors", "truncated")


def test_pipeline_with_another_codec(cli, saved_pipeline, codec8, tmp_path):
    mixed = Path(shutil.copytree(saved_pipeline, tmp_path / "mixed"))
    shutil.copy(codec8 / "config.json", mixed / "codec" / "config.json")
    for verb in ("generate", "translate", "encode"):
        cli(verb, "-t", TEXT, "-p", mixed).error(ToyCodec(8).fingerprint, ToyCodec(16).fingerprint)


def test_pipeline_of_the_future(cli, saved_pipeline, tmp_path):
    later = Path(shutil.copytree(saved_pipeline, tmp_path / "later"))
    record = json.loads((later / "pipeline.json").read_text())
    (later / "pipeline.json").write_text(json.dumps({**record, "format_version": 99}))
    cli("generate", "-t", TEXT, "-p", later).error("later version", "99", "--upgrade")


def test_unknown_device(cli, saved_pipeline):
    cli("generate", "-t", TEXT, "-p", saved_pipeline, "--device", "abacus").error("device abacus")


def test_unknown_device_of_an_evaluation(cli, saved_pipeline, toy_codec, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    cli("data", "build", tmp_path / "a.txt", "--out", tmp_path / "data", "--codec", toy_codec).ok()
    arguments = ["--data", tmp_path / "data", "--split", "train", "--device", "abacus"]
    cli("eval", "run", saved_pipeline, *arguments).error("device abacus")


@pytest.mark.parametrize("verb", ["encode", "translate", "codec eval", "data build"])
def test_unknown_codec(cli, tmp_path, verb):
    (tmp_path / "a.txt").write_text(TEXT)
    more = ["--out", tmp_path / "out"] if verb == "data build" else []
    cli(*verb.split(), tmp_path / "a.txt", *more, "--codec", "startr").error("startr", "did you mean starter?")
    cli(*verb.split(), tmp_path / "a.txt", *more, "--codec", "./nowhere").error("nowhere", "no such folder")
    cli(*verb.split(), tmp_path / "a.txt", *more, "--codec", tmp_path).error("config.json", "file not found")
    assert not (tmp_path / "out").exists()


# --- concepts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "jsonl"])
def test_concepts_of_another_codec(cli, toy_codec, tmp_path, suffix):
    path = tmp_path / f"z.{suffix}"
    codec = ToyCodec(8)
    write_concepts(path, ConceptFile(codec.encode(["A."]), ("A.",), codec.fingerprint))
    cli("decode", path, "--codec", toy_codec).error(codec.fingerprint, ToyCodec(16).fingerprint, "8 channels")
    write_concepts(path, ConceptFile(codec.encode(["A."])))
    cli("decode", path, "--codec", toy_codec).error("(N, 16)", "(1, 8)")


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "jsonl"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_concepts(cli, toy_codec, tmp_path, suffix, damage):
    path = tmp_path / f"z.{suffix}"
    write_concepts(path, ConceptFile(torch.ones(2, 16), ("A.", "B."), ToyCodec(16).fingerprint))
    data = path.read_bytes()
    path.write_bytes({"cut": data[: -len(data) // 3], "garbage": b"\x80\x04nonsense", "empty": b""}[damage])
    cli("decode", path, "--codec", toy_codec).error(str(path))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"concept": [1, 2}', "standard input:1: not JSON"),
        ('{"concept": [1]}\n{"concept": "no"}', "standard input:2: no concept"),
        ('{"concept": [1, 2]}\n\n{"concept": [1]}', "standard input:3: another number of channels"),
        ('{"concept": [1], "codec": "a"}\n{"concept": [1], "codec": "b"}', "several codecs"),
        ("", "there is no concept"),
        ('{"concept": [NaN, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]}', "row 0: a value is not finite"),
    ],
)
def test_bad_lines_of_concepts(cli, toy_codec, lines, message):
    cli("decode", "--codec", toy_codec, stdin=lines).error(message)


def test_decode_and_encode_files(cli, toy_codec, tmp_path):
    cli("decode", tmp_path / "no.npz", "--codec", toy_codec).error("file not found")
    cli("decode", tmp_path / "no.bin", "--codec", toy_codec).error("no.bin", ".npz")
    cli("encode", "--out", tmp_path / "z.pkl", "--codec", toy_codec, "-t", TEXT).error("z.pkl", ".safetensors")
    (tmp_path / "file").write_text("")
    cli("encode", "--out", tmp_path / "file" / "z.npz", "--codec", toy_codec, "-t", TEXT).error("z.npz")
    write_concepts(tmp_path / "z.npz", ConceptFile(torch.ones(1, 16)))
    cli("decode", tmp_path / "z.npz", "--codec", toy_codec, "--to", "klingon").error("klingon")


# --- data -----------------------------------------------------------------------------------------------------------


def test_data_build(cli, toy_codec, tmp_path):
    out = tmp_path / "out"
    build = ["data", "build", "--out", out, "--codec", toy_codec]
    cli(*build, tmp_path / "no.txt").error("no.txt")
    cli(*build, tmp_path / "*.txt").error("*.txt")
    (tmp_path / "a.txt").write_text(TEXT)
    cli(*build, tmp_path / "a.txt", "--input-lang", "germann").error("germann", "deu_Latn")
    cli(*build, tmp_path / "a.txt", "--target", "poem").error("target", "poem", "summary")
    cli(*build, tmp_path / "a.txt", "--split", "a/b").error("split", "a/b")
    cli(*build, tmp_path / "a.txt", "-s", "max_char=3").error("max_char", "max_chars")
    build[3] = tmp_path / "empty"
    (tmp_path / "empty.txt").write_text("")
    cli(*build, tmp_path / "empty.txt").error("empty.txt")
    build[3] = tmp_path / "bad"
    (tmp_path / "bad.jsonl").write_text('{"text": "Fine."}\n{"text": 3}\n')
    cli(*build, tmp_path / "bad.jsonl").error("bad.jsonl:2")


def test_data_build_into_another_space(cli, codec8, dataset, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    before = sorted(path.name for path in dataset.rglob("*"))
    result = cli("data", "build", tmp_path / "a.txt", "--out", dataset, "--codec", codec8, "--split", "train")
    result.error(str(dataset))
    assert sorted(path.name for path in dataset.rglob("*")) == before


def test_data_inspect(cli, dataset, tmp_path):
    cli("data", "inspect", tmp_path / "nowhere").error("nowhere")
    cli("data", "inspect", dataset, "--split", "tset").error("tset")
    broken = Path(shutil.copytree(dataset, tmp_path / "broken"))
    shard = next(broken.rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    cli("data", "inspect", broken).error(shard.name)


def test_data_corpus_debian(cli, tmp_path):
    cli("data", "corpus", "debian", tmp_path / "out", "--part", "novles").error("novles")
    cli("data", "corpus", "debian", tmp_path / "out", "--lang", "germann").error("germann", "deu_Latn")
    (tmp_path / "file").write_text("")
    cli("data", "corpus", "debian", tmp_path / "file").error("file")


def test_normalizer_fit(cli, dataset, tmp_path):
    cli("normalizer", "fit", tmp_path / "nowhere", "--out", tmp_path / "n").error("nowhere")
    cli("normalizer", "fit", dataset, "--out", tmp_path / "n", "--method", "robsut").error("robsut", "robust")
    cli("normalizer", "fit", dataset, "--out", tmp_path / "n", "--split", "tset").error("tset")
    assert not (tmp_path / "n").exists()


# --- training -------------------------------------------------------------------------------------------------------


def test_train(cli, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli("train", "tiny.two_towr", "--data", dataset).error("tiny.two_towr", "did you mean tiny.two_tower?")
    cli("train", "tiny.mse").error("tiny.mse", "--data FOLDER")
    cli("train", "tiny.mse", "--data", "nowhere").error("nowhere")
    cli("train", "nowhere.yaml").error("nowhere.yaml")
    cli("train", "tiny.mse", "--data", dataset, "train.max_stepz=3").error("train.max_stepz", "train.max_steps?")
    cli("train", "tiny.mse", "--data", dataset, "train.max_steps=soon").error("train.max_steps", "soon")
    cli("train", "tiny.mse", "--data", dataset, "max_steps").error("max_steps", "key.path=value")
    cli("train", "tiny.mse", "--data", dataset, *TINY, "model.concept_dim=8").error("model.concept_dim", "16")
    cli("train", "tiny.mse", "--data", dataset, *TINY, "normalizer=sometimes").error("normalizer", "sometimes")
    (tmp_path / "c.yaml").write_text("model: {type: mse}\ntrain: [\n")
    cli("train", "c.yaml").error("c.yaml:3")
    (tmp_path / "c.yaml").write_text("model: {type: mse}\ndata: {sources: [x], size: 3}\n")
    cli("train", "c.yaml").error("c.yaml", "data.size")
    cli("train", "c.yaml", "--data", dataset).error("--data", "data.sources")


def test_train_on_another_dimension(cli, dataset, dataset8, tmp_path):
    shown = cli("recipes", "show", "tiny.mse", "--data", dataset, *TINY).ok()
    (tmp_path / "c.yaml").write_text(shown)
    result = cli("train", tmp_path / "c.yaml", "--out", tmp_path / "run", f"data.sources=[{dataset8}]")
    result.error("model.concept_dim", "another dimension", "got 16")


def test_recipes_show(cli, dataset):
    cli("recipes", "show", "tinny.mse").error("tinny.mse", "did you mean")
    cli("recipes", "show", "tiny.mse").error("--data FOLDER")
    cli("recipes", "show", "tiny.mse", "--data", dataset, "modell.x=1").error("modell", "did you mean model?")


def test_export(cli, toy_codec, saved_pipeline, tmp_path):
    cli("export", tmp_path / "nowhere", tmp_path / "out").error("nowhere", "no such folder")
    cli("export", tmp_path, tmp_path / "out").error("not a training run")
    (tmp_path / "config.yaml").write_text("model: {}\n")
    cli("export", tmp_path, tmp_path / "out").error("not finished", "largeconcept train")
    (tmp_path / "run.json").write_text('{"step": 1}')
    cli("export", tmp_path, tmp_path / "out").error("run.json", "'dim'")
    (tmp_path / "run.json").write_text('{"step": 1, "dim": 16, "codec": "toy", "codec_fingerprint": "0"}')
    cli("export", tmp_path, tmp_path / "out").error("config.yaml", "model")
    cli("export", tmp_path, tmp_path / "out", "-o", "guidance_scal=3").error("did you mean guidance_scale?")
    assert not (tmp_path / "out").exists()


def test_eval_run(cli, saved_pipeline, dataset, dataset8, other_space, tmp_path):
    cli("eval", "run", tmp_path / "nowhere", "--data", dataset).error("nowhere", "no such folder")
    cli("eval", "run", saved_pipeline, "--data", tmp_path / "no-data").error("no-data")
    cli("eval", "run", saved_pipeline, "--data", dataset, "--split", "tset").error("tset")
    run = ["eval", "run", saved_pipeline, "--split", "train", "--data"]
    cli(*run, dataset8).error("another dimension", "expected 16", "got 8")
    cli(*run, other_space).error("another concept space", OtherToy(16).fingerprint, ToyCodec(16).fingerprint)
    cli("eval", "run", saved_pipeline, "--data", dataset, "--split", "train", "-o", "etta=1").error("did you mean eta?")


def test_codec_train(cli, tmp_path):
    train = ["codec", "train", "--out", tmp_path / "run"]
    cli(*train, tmp_path / "no.jsonl").error("no.jsonl")
    cli(*train, "max_steps=3").error("no files")
    cli(*train, tmp_path / "no.jsonl", "network.widht=64").error("network.widht", "network.width?")
    cli(*train, tmp_path / "no.jsonl", "--config", tmp_path / "no.yaml").error("no.yaml")
    (tmp_path / "a.jsonl").write_text('{"sentences": ["One.", "Two."], "lang": "ell_Grek"}\n')
    cli(*train, tmp_path / "a.jsonl").error("eng_Latn")
    cli(*train, tmp_path / "a.jsonl", "--pairs", tmp_path / "no.tsv").error()


def test_codec_eval(cli, toy_codec, tmp_path):
    run = ["codec", "eval", "--codec", toy_codec]
    cli(*run, tmp_path / "no.txt").error("no.txt")
    (tmp_path / "a.txt").write_text(TEXT)
    cli(*run, tmp_path / "a.txt").error("a.txt", "--input-lang")
    cli(*run, tmp_path / "a.txt", "--input-lang", "germann").error("germann", "deu_Latn")


# --- a real process -------------------------------------------------------------------------------------------------


def test_in_a_real_process(saved_pipeline, tmp_path):
    broken = truncated(saved_pipeline, "model", tmp_path / "broken")
    done = subprocess.run(
        [sys.executable, "-m", "largeconcept.cli.main", "generate", "-p", str(broken), "-t", TEXT],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "model.safetensors" in done.stderr
