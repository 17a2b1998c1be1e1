"""What the demo shows of a pipeline, also as the one that ships."""

import pytest

from largeconcept import hub
from largeconcept.cli.demo import Terminal
from largeconcept.generate.tour import ARTICLE, tour
from largeconcept.hub import PromptRecord


class Lines:
    def __init__(self):
        self.told = []

    def section(self, title):
        self.told.append(title)

    def line(self, text=""):
        self.told.append(text)


PROMPTS = {"summarize": PromptRecord(suffix=("In short:",)), "expand": PromptRecord(suffix=("At length:",))}


def test_a_tuned_pipeline_shows_every_task_and_another_language(make_pipeline):
    reporter = Lines()
    samples = tour(make_pipeline(prompts=PROMPTS), reporter)
    assert [one.task for one in samples] == ["continue", "summarize", "summarize", "expand"]
    assert len({one.lang for one in samples if one.task == "summarize"}) == 2
    assert samples[1].given == ARTICLE and all(one.written for one in samples)
    assert any(title.startswith("The same, written in") for title in reporter.told)
    assert [one.written for one in tour(make_pipeline(prompts=PROMPTS), Lines())] == [one.written for one in samples]


def test_a_pipeline_that_was_not_tuned_goes_on_and_says_so(make_pipeline):
    reporter = Lines()
    assert [one.task for one in tour(make_pipeline(), reporter)] == ["continue"]
    assert "This model was not tuned to summarize or to expand." in reporter.told


def test_a_folder_in_the_assets_switches_the_demo_on(make_pipeline, tmp_path, monkeypatch, capsys):
    from largeconcept.cli.demo import demo

    folder = tmp_path / "largeconcept" / "assets" / hub.DEFAULT_PIPELINE
    monkeypatch.setattr(hub.resources, "files", lambda package: tmp_path / package)
    ran = []
    monkeypatch.setattr("largeconcept.demo.run_demo", lambda out, reporter, **options: ran.append(options["codec"]))
    demo()
    assert ran == ["starter"]
    make_pipeline(prompts=PROMPTS).save_pretrained(folder)
    demo()
    shown = capsys.readouterr().out
    assert ran == ["starter"] and "Expand a summary" in shown and "M parameters" in shown
    demo(codec="starter")
    assert ran == ["starter", "starter"]
    with pytest.raises(Exception, match="shown, not trained"):
        demo(codec="starter", pipeline=str(folder))
    assert isinstance(Terminal(), Terminal)
