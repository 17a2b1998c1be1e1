"""What the verbs print and write when all is well."""

from __future__ import annotations

import json
import lzma

import pytest
import torch

from largeconcept.codec.toy import ToyCodec
from largeconcept.generate.pipeline import ConceptPipeline

TEXT = "Tim had a red ball. The ball rolled away.\n\nTim was sad.\n"


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_segment(cli, tmp_path):
    assert cli("segment", stdin=TEXT).ok() == "Tim had a red ball.\nThe ball rolled away.\n\nTim was sad.\n"
    assert cli("segment", "-", stdin=TEXT).ok() == cli("segment", "--text", TEXT).ok()
    (tmp_path / "a.txt").write_text(TEXT)
    two = cli("segment", tmp_path / "a.txt", "--text", "One line.").ok()
    assert two == "One line.\n\nTim had a red ball.\nThe ball rolled away.\n\nTim was sad.\n"


def test_segment_json_has_offsets_of_the_input(cli):
    found = objects(cli("segment", "--json", stdin=TEXT).ok())
    assert [TEXT[one["start"] : one["end"]] for one in found] == [one["text"] for one in found]
    assert [one["paragraph"] for one in found] == [0, 0, 1]


def test_segment_wrapped_sentence_is_one_line(cli):
    wrapped = (
        "The ball that his mother had found for Tim in the garden of the house\nwas as red as it had ever been before."
    )
    assert cli("segment", stdin=wrapped).ok() == wrapped.replace("\n", " ") + "\n"


def test_segment_setting(cli):
    lines = cli("segment", "-o", "max_chars=40", stdin="word " * 40).ok().splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "jsonl"])
def test_encode_and_decode_give_the_sentences_back(cli, toy_codec, tmp_path, suffix):
    target = tmp_path / f"z.{suffix}"
    result = cli("encode", "--codec", toy_codec, "--text", TEXT, "--out", target)
    assert result.ok() == ""
    assert result.err == f"{target}: 3 concepts of 16 channels\n"
    assert cli("decode", target, "--codec", toy_codec).ok() == TEXT.replace(". ", ".\n").replace("\n\n", "\n")
    found = objects(cli("decode", target, "--codec", toy_codec, "--json", "--to", "de").ok())
    assert found[0] == {"text": "Tim had a red ball.", "lang": "deu_Latn", "source": "Tim had a red ball."}
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_encode_prints_exact_numbers_that_decode_reads(cli, toy_codec):
    lines = cli("encode", "--codec", toy_codec, stdin=TEXT).ok()
    found = objects(lines)
    expected = ToyCodec(16).encode([one["sentence"] for one in found])
    assert torch.equal(torch.tensor([one["concept"] for one in found]), expected)
    assert {one["codec"] for one in found} == {ToyCodec(16).fingerprint}
    assert cli("decode", "--codec", toy_codec, stdin=lines).ok().splitlines()[1] == "The ball rolled away."


def test_encode_lines_are_not_segmented(cli, toy_codec):
    text = "Tim was sad. The dog ran home.\n\nThey played again.\n"
    found = objects(cli("encode", "--codec", toy_codec, "--lines", stdin=text).ok())
    assert [one["sentence"] for one in found] == ["Tim was sad. The dog ran home.", "They played again."]


def test_encode_with_the_codec_of_a_pipeline(cli, saved_pipeline, toy_codec):
    assert cli("encode", "-p", saved_pipeline, stdin=TEXT).ok() == cli("encode", "-c", toy_codec, stdin=TEXT).ok()


def test_translate(cli, toy_codec, saved_pipeline):
    expected = "Tim had a red ball. The ball rolled away.\n\nTim was sad.\n"
    assert cli("translate", "--to", "de", "--codec", toy_codec, stdin=TEXT).ok() == expected
    assert cli("translate", "-l", "deu_Latn", "-p", saved_pipeline, stdin=TEXT).ok() == expected
    found = objects(cli("translate", "--codec", toy_codec, "--json", "-t", "Tim was sad.", "-t", "Tim ran.").ok())
    assert [one["document"] for one in found] == ["text", "text 1"]


def test_generate_is_the_pipeline(cli, saved_pipeline):
    result = cli("generate", "-p", saved_pipeline, "-n", "2", "--seed", "4", "--lang", "de", "--json", stdin=TEXT)
    found = objects(result.ok())[0]
    out = ConceptPipeline.from_pretrained(saved_pipeline, device="cpu")(TEXT, max_concepts=2, seed=4, lang="de")
    assert found == {
        "document": "stdin",
        "prompt_sentences": list(out.prompt_sentences),
        "sentences": list(out.sentences),
        "text": out.text,
        "lang": "deu_Latn",
        "stop_reason": "length",
    }
    assert result.err == ""


def test_generate_plain(cli, saved_pipeline):
    text = cli("generate", "-p", saved_pipeline, "-n", "1", "--seed", "4", "-t", TEXT, "-t", "Tim was sad.").ok()
    assert len(text.splitlines()) == 3
    prompted = cli("generate", "-p", saved_pipeline, "-n", "1", "--seed", "4", "-t", TEXT, "--with-prompt").ok()
    assert prompted.splitlines() == ["Tim had a red ball. The ball rolled away. Tim was sad.", "", text.splitlines()[0]]


def test_generate_options_reach_the_model(cli, saved_pipeline, monkeypatch):
    seen = []
    original = ConceptPipeline._generate
    monkeypatch.setattr(
        ConceptPipeline,
        "_generate",
        lambda self, prompts, options: seen.append(options) or original(self, prompts, options),
    )
    cli("generate", "-p", saved_pipeline, "-o", "guidance_scale=1.5", "-o", "num_inference_steps=2", stdin=TEXT).ok()
    assert (seen[0].guidance_scale, seen[0].num_inference_steps, seen[0].max_concepts) == (1.5, 2, 3)


def test_generate_reads_documents_of_json_lines(cli, saved_pipeline, tmp_path):
    path = tmp_path / "d.jsonl.xz"
    lines = [{"id": "a", "text": TEXT, "lang": "fr"}, {"id": "b", "sentences": ["Tim was sad."]}]
    path.write_bytes(lzma.compress("\n".join(map(json.dumps, lines)).encode()))
    found = objects(cli("generate", "-p", saved_pipeline, path, "--json", "-n", "1").ok())
    assert [(one["document"], one["lang"], len(one["prompt_sentences"])) for one in found] == [
        ("a", "fra_Latn", 3),
        ("b", "eng_Latn", 1),
    ]


def test_long_prompt_warns(cli, saved_pipeline):
    result = cli("generate", "-p", saved_pipeline, stdin="A sentence stands here. " * 40)
    assert result.ok()
    assert result.err == "warning: stdin has 40 sentences; the model reads the last 9 of them\n"


@pytest.mark.parametrize("verb", ["summarize", "expand"])
def test_tasks(cli, make_pipeline, tmp_path, verb):
    from largeconcept.hub import PromptRecord

    make_pipeline(prompts={verb: PromptRecord(suffix=("[MODEL]:",))}).save_pretrained(tmp_path / "p")
    found = objects(cli(verb, "-p", tmp_path / "p", "--json", "--ratio", "0.67", stdin=TEXT).ok())
    assert len(found[0]["sentences"]) == 2


def test_codec_eval(cli, toy_codec, tmp_path):
    path = tmp_path / "d.jsonl"
    lines = [
        {"id": "1", "sentences": ["Tim was sad.", "He ran."], "lang": "eng_Latn"},
        {"id": "1", "sentences": ["Tim war traurig.", "Er lief."], "lang": "deu_Latn"},
        {"id": "2", "text": "Ο Τιμ.", "lang": "ell_Grek"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    result = cli("codec", "eval", path, "--codec", toy_codec, "--json")
    report = json.loads(result.ok())
    assert [(one["lang"], one["num_sentences"], one["exact"]) for one in report["round_trips"]] == [
        ("eng_Latn", 2, 1.0),
        ("deu_Latn", 2, 1.0),
    ]
    assert list(report["xsim"]) == ["eng_Latn → deu_Latn"]
    assert "left out: ell_Grek" in result.err
    text = cli("codec", "eval", path, "--codec", toy_codec, "--no-noise").ok()
    assert "auto-BLEU" in text
    assert "noise" not in text
    assert "eng_Latn → deu_Latn" in text


def test_recipes(cli):
    names = json.loads(cli("recipes", "ls", "--json").ok())
    assert "tiny.two_tower" in names
    assert [line.split()[0] for line in cli("recipes", "ls").ok().splitlines()] == list(names)


def test_doctor(cli):
    report = json.loads(cli("doctor", "--json", "--no-measure").ok())
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0] or report["versions"]["torch"]
    assert report["cpu"]["threads"] == torch.get_num_threads()
    assert report["devices"][0]["name"] == "cpu"
    assert report["devices"][0]["precision"] in ("bf16", "fp32")
    assert {"sat", "speech", "speak", "hub"} <= set(report["extras"])
    text = cli("doctor").ok()
    for word in ("versions", "processor", "device", "extra", "shipped", "use precision", "multiply-adds/s"):
        assert word in text


def test_doctor_names_what_is_missing_and_for_what(cli, monkeypatch):
    from largeconcept.cli import doctor

    monkeypatch.setitem(doctor.EXTRAS, "nothing", ({"no_such_module_anywhere": "nothing-at-all"}, "seeing this line"))
    text = cli("doctor", "--no-measure").ok()
    line = next(line for line in text.splitlines() if "seeing this line" in line)
    assert "missing nothing-at-all; pip install 'largeconcept[nothing]'" in line


def test_extras_of_doctor_are_those_of_the_package():
    from importlib import metadata

    from largeconcept.cli.doctor import EXTRAS

    declared = set(metadata.metadata("largeconcept").get_all("Provides-Extra") or ()) - {"dev"}
    assert set(EXTRAS) == declared
