"""The demo end to end on a few documents, with a codec without weights and with one from scratch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from largeconcept import demo
from largeconcept.demo import PROMPT_SENTENCES, SCRATCH_CODEC, LogReporter, choose_prompts, find_corpus, run_demo
from largeconcept.errors import DataError
from largeconcept.eval.harness import token_model_beside
from largeconcept.eval.predictors import open_token_model
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.types import Document


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CODEC_SENTENCES", 3)


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, made = find_corpus(), tmp_path_factory.mktemp("corpus")
    for split, count in (("train", 8), ("test", 1)):
        (made / split).mkdir()
        for path in sorted((source / split).glob("*.jsonl")):
            lines = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if len(json.loads(line)["sentences"]) > 10
            ]
            (made / split / path.name).write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    return made


def test_whole_path_with_the_toy_codec(small_corpus: Path, tmp_path: Path) -> None:
    reporter = LogReporter()
    result = run_demo(tmp_path, reporter, codec="toy", corpus=small_corpus, steps=2)
    assert set(result.reports) == {"mse", "two_tower"}
    for report in result.reports.values():
        assert {"model", "copy_last", "training_mean"} <= set(report.scores)
    assert len(result.samples) == 3 and all(sample["written"] for sample in result.samples)
    assert sum(sample["lang"] != sample["written_lang"] for sample in result.samples) == 1
    assert all(len(sample["prompt"]) == PROMPT_SENTENCES for sample in result.samples)
    saved = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert saved["round_trips"]["eng_Latn"]["auto_bleu"] == pytest.approx(100)
    text = "\n".join(reporter.lines)
    assert "copy last" in text and "auto-BLEU" in text and "the model goes on" in text
    again = run_demo(tmp_path, LogReporter(), codec="toy", corpus=small_corpus, steps=2)
    assert again.samples == result.samples, "a finished demo goes on where it was and says the same"


def test_from_scratch(small_corpus: Path, tmp_path: Path) -> None:
    reporter = LogReporter()
    result = run_demo(tmp_path, reporter, codec="scratch", corpus=small_corpus, steps=2, codec_steps=2)
    pipeline = ConceptPipeline.from_pretrained(result.pipeline)
    assert pipeline.codec.dim == 192
    beside = token_model_beside(Path(result.pipeline))
    assert beside is not None
    model = open_token_model(beside, pipeline.codec, device="cpu").model
    assert model.config.vocab_size == SCRATCH_CODEC["network"]["vocab_size"]
    # As much computation as the two-tower model took, and its data to encode; to half a step.
    record = json.loads((beside / "run.json").read_text(encoding="utf-8"))
    said = record["notes"]["matched"]
    wanted, step = said["model_training_flops"] + said["model_encoding_flops"], said["training_flops"] / record["step"]
    assert abs(said["training_flops"] - wanted) <= 0.51 * step
    assert any("of encoding its data" in line for line in reporter.lines)
    assert pipeline("The old tower stands near the river.", max_concepts=2, lang="en").sentences is not None


def test_prompts_cover_another_language() -> None:
    long = tuple(f"Sentence number {i}." for i in range(PROMPT_SENTENCES + 2))
    documents = [
        Document(f"d{i}", sentences=long, lang=lang) for i, lang in enumerate(["deu_Latn", "eng_Latn", "deu_Latn"])
    ]
    chosen = choose_prompts(documents, ("eng_Latn", "deu_Latn"))
    assert [d.lang == lang for d, lang in chosen] == [True, True, False]
    assert len({d.id for d, _ in chosen}) == 3
    with pytest.raises(DataError, match="too few"):
        choose_prompts(documents[:2], ("eng_Latn", "deu_Latn"))


def test_missing_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--corpus"):
        find_corpus(tmp_path)
