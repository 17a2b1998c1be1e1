"""From text files to a continued text, by the command line alone: build, inspect, fit, train, export, generate."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from largeconcept.codec.toy import ToyCodec
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.hub import load_pipeline

WORDS = ["Tim", "Anna", "dog", "ball", "house", "tree", "runs", "sees", "finds", "red", "old", "happy"]
TINY = (
    "model.model_dim=16",
    "model.num_heads=2",
    "train.max_steps=3",
    "train.log_every=1",
    "data.batch_concepts=64",
    "data.max_length=16",
    "train.tensorboard=false",
    "train.device=cpu",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for name, number in (("train", 24), ("test", 4)):
        lines = [
            {"id": f"{name}-{i}", "lang": "eng_Latn", "text": " ".join(sentence(draw) for _ in range(6))}
            for i in range(number)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=5)).capitalize() + "."


@pytest.mark.parametrize(("recipe", "family"), [("tiny.two_tower", "two_tower"), ("mse", "mse")])
def test_text_to_text(cli, corpus, tmp_path, recipe, family):
    codec, data, run, out = (tmp_path / name for name in ("codec", "data", "run", "pipeline"))
    ToyCodec(16, ["A sentence to recall."]).save_pretrained(codec)
    for split in ("train", "test"):
        arguments = ["--out", data, "--codec", codec, "--split", split]
        text = cli("data", "build", corpus / f"{split}.jsonl", *arguments).ok()
        assert f"{24 if split == 'train' else 4} documents" in text
    again = json.loads(
        cli("data", "build", corpus / "test.jsonl", "--out", data, "-c", codec, "--split", "test", "--json").ok()
    )
    assert again["resumed_shards"] == again["shards"] == 1
    report = json.loads(cli("data", "inspect", data, "--json").ok())
    assert report["splits"]["train"]["concepts"] == 144
    assert "144" in cli("data", "inspect", data, "--split", "train").ok()

    assert "16 channels of 144 concepts" in cli("normalizer", "fit", data, "--out", tmp_path / "normalizer").ok()
    layers = (
        ["model.num_layers=1"] if family == "mse" else ["model.num_context_layers=1", "model.num_denoiser_layers=1"]
    )
    settings = [*TINY, *layers, f"normalizer={tmp_path / 'normalizer'}"]
    shown = cli("recipes", "show", recipe, "--data", data, *settings).ok()
    (tmp_path / "mine.yaml").write_text(shown)
    trained = json.loads(cli("train", tmp_path / "mine.yaml", "--out", run, "--quiet", "--json").ok())
    assert (trained["steps"], trained["out"], trained["interrupted"]) == (3, str(run), False)
    again = json.loads(cli("train", recipe, "--data", data, "--out", run, "-q", "--json", *settings).ok())
    assert (again["steps"], again["loss"]) == (3, None)

    codec = codec.rename(tmp_path / "moved")
    cli("export", run, out).error("codec", "--codec FOLDER")
    assert (
        str(out)
        in cli("export", run, out, "-c", codec, "--title", "Words", "--licence", "CC0-1.0", "-o", "seed=7").ok()
    )
    parts = load_pipeline(out)
    assert parts.max_length == 16
    assert parts.generation == {"seed": 7}
    card = (out / "README.md").read_text()
    for part in ("# Words", "license: cc0-1.0", "model_dim: 16", str(data), "optimiser steps | 3"):
        assert part in card

    shutil.rmtree(codec)
    prompt = "Anna sees tim. Tim runs."
    result = cli(
        "generate", "-p", out, "-n", "2", "--json", "--device", "cpu", "-o", "stop_threshold=null", "-t", prompt
    )
    found = json.loads(result.ok())
    pipe = ConceptPipeline.from_pretrained(out, device="cpu")
    expected = pipe(prompt, max_concepts=2, stop_threshold=None)
    assert found["sentences"] == list(expected.sentences)
    assert len(found["sentences"]) == 2


def test_export_by_reference(cli, corpus, tmp_path):
    codec, data, run, out = (tmp_path / name for name in ("codec", "data", "run", "pipeline"))
    ToyCodec(16).save_pretrained(codec)
    cli("data", "build", corpus / "train.jsonl", "--out", data, "--codec", codec).ok()
    cli("train", "tiny.mse", "--data", data, "--out", run, "-q", *TINY, "model.num_layers=1").ok()
    cli("export", run, out, "--codec", codec, "--reference", "--task", "summarize").ok()
    assert not (out / "codec").exists()
    assert load_pipeline(out).prompts["summarize"].suffix == ("[MODEL]:",)
    ToyCodec(8).save_pretrained(codec)
    cli("generate", "-p", out, "-t", "Tim runs.").error(ToyCodec(8).fingerprint, ToyCodec(16).fingerprint)
    cli("export", run, tmp_path / "other", "--codec", codec).error(ToyCodec(8).fingerprint, ToyCodec(16).fingerprint)


def test_evaluation_of_a_pipeline_and_of_a_run(cli, saved_pipeline, corpus, tmp_path):
    codec, data, run = (tmp_path / name for name in ("codec", "data", "run"))
    ToyCodec(16).save_pretrained(codec)
    for split in ("train", "test"):
        cli("data", "build", corpus / f"{split}.jsonl", "--out", data, "--codec", codec, "--split", split).ok()
    arguments = ["--data", data, "--device", "cpu", "-o", "num_inference_steps=3"]
    report = json.loads(cli("eval", "run", saved_pipeline, *arguments, "--json", "--out", tmp_path / "r.json").ok())
    assert set(report["scores"]) == {"model", "copy_last", "training_mean"}
    assert (report["num_documents"], report["num_predictions"]) == (4, 20)
    assert report["options"]["num_inference_steps"] == 3
    assert json.loads((tmp_path / "r.json").read_text()) == report
    without = cli("eval", "run", saved_pipeline, *arguments, "--train-split", "none", "--limit", "3").ok()
    assert "training mean" not in without
    assert "15 predictions in 3 documents" in without
    cli("train", "tiny.mse", "--data", data, "--out", run, "-q", *TINY, "model.num_layers=1").ok()
    assert "model - training mean" in cli("eval", "run", run, *arguments).ok()


def test_codec_from_text_to_evaluation(cli, corpus, tmp_path):
    small = ["network.dim=8", "network.width=16", "network.num_heads=2", "network.encoder_layers=1"]
    small += [
        "network.decoder_layers=1",
        "network.vocab_size=300",
        "network.languages=[eng_Latn]",
        "network.max_tokens=64",
    ]
    small += [
        "max_steps=2",
        "micro_tokens=128",
        "micro_batches=1",
        "network.pooling_heads=2",
        "network.memory_tokens=2",
    ]
    lines = [json.loads(line) for line in (corpus / "train.jsonl").read_text().splitlines()]
    rows = [
        {"id": one["id"], "lang": one["lang"], "sentences": [s + "." for s in one["text"].split(". ")]} for one in lines
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = cli("codec", "train", tmp_path / "in.jsonl", "--out", tmp_path / "run", "--int8", *small).ok()
    assert "8 channels" in text
    report = cli(
        "codec", "eval", tmp_path / "in.jsonl", "-c", tmp_path / "run" / "codec", "--limit", "3", "--json"
    ).ok()
    assert json.loads(report)["round_trips"][0]["num_sentences"] == 3
    translated = cli("translate", "--to", "en", "-c", tmp_path / "run" / "codec", "-t", "Tim runs. Anna sees.").ok()
    assert translated.endswith("\n")
