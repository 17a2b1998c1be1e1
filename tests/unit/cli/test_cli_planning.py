"""The verbs of planned texts."""

from __future__ import annotations

import json

import pytest
import torch

from largeconcept.models import PlanningConfig, build_model

TEXT = "Tim had a red ball. The ball rolled away.\n\nTim was sad.\n"


@pytest.fixture
def planner(make_pipeline, tmp_path):
    pipe = make_pipeline()
    torch.manual_seed(0)
    pipe.model = build_model(PlanningConfig(body=pipe.model.config, plan="first_sentence")).eval()
    pipe.model.set_break(pipe.normalizer.normalize(pipe.codec.encode(["End of paragraph."])[0]))
    return pipe.save_pretrained(tmp_path / "planner")


def test_data_build_and_inspect_tell_of_plans(cli, toy_codec, tmp_path):
    (tmp_path / "in.txt").write_text(TEXT)
    out = tmp_path / "data"
    cli("data", "build", tmp_path / "in.txt", "--out", out, "--codec", toy_codec, "--plan", "first_sentence").ok()
    told = cli("data", "inspect", out).ok()
    assert "plans (first_sentence, paragraphs of up to 9 sentences): train 2" in told
    assert "'End of paragraph.'" in told
    report = json.loads(cli("data", "inspect", out, "--json").ok())
    assert report["splits"]["train"]["plan_concepts"] == 2
    wrong = cli("data", "build", tmp_path / "in.txt", "--out", tmp_path / "b", "--codec", toy_codec, "--plan", "titles")
    wrong.error("plan", "did you mean title")


def test_plans_are_printed_as_headings(cli, planner):
    settings = ["--pipeline", planner, "--text", TEXT, "-o", "max_paragraphs=2", "-o", "max_paragraph_concepts=2"]
    told = cli("generate", *settings, "--plan").ok()
    found = json.loads(cli("generate", *settings, "--plan", "--json").ok())
    blocks = [
        f"## {plan}" + ("\n" + " ".join(one) if one else "") for plan, one in zip(found["plans"], found["paragraphs"])
    ]
    assert told == "\n\n".join(blocks) + "\n"
    assert len(blocks) == 2
    assert found["prompt_sentences"] == ["Tim had a red ball.", "The ball rolled away.", "Tim was sad."]


def test_plans_can_be_given(cli, planner):
    settings = ["--pipeline", planner, "--text", TEXT, "-o", "max_paragraph_concepts=2", "--json"]
    found = json.loads(cli("generate", *settings, "--plans", "Tim was sad.", "--plans", "The dog ran home.").ok())
    assert found["plans"] == ["Tim was sad.", "The dog ran home."]
    assert found["stop_reason"] == "plans"


def test_other_pipelines_do_not_plan(cli, make_pipeline, tmp_path):
    saved = make_pipeline().save_pretrained(tmp_path / "other")
    cli("generate", "--pipeline", saved, "--text", TEXT, "--plan").error("does not plan", "tiny.planning")
