"""Every variant, trained by its small recipe on the sample corpus, predicts better than copying the last sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.data.reader import ConceptDataset
from largeconcept.data.sequences import planned_documents
from largeconcept.eval.next_concept import evaluate_next_concept
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import load_model
from largeconcept.recipes import RECIPES, get_recipe
from largeconcept.recipes.tiny import SAMPLERS
from largeconcept.train import Trainer

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory):
    from largeconcept.data.build import build_concepts

    folder = tmp_path_factory.mktemp("sample") / "data"
    for split in ("train", "test"):
        build_concepts(str(CORPUS / split / "*.jsonl"), folder, codec="starter", split=split)
    return folder


@pytest.fixture(scope="session")
def planned_data(tmp_path_factory):
    from largeconcept.data.build import build_concepts

    folder = tmp_path_factory.mktemp("planned") / "data"
    for split in ("train", "test"):
        build_concepts(str(CORPUS / split / "*.jsonl"), folder, codec="starter", split=split, plan="first_sentence")
    return folder


VARIANTS = [name.removeprefix("tiny.") for name in RECIPES if name.startswith("tiny.")]


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_it_beats_copying_the_last_sentence(name, sample_data, planned_data, tmp_path):
    data = planned_data if name == "planning" else sample_data
    config = get_recipe(f"tiny.{name}")(data, tmp_path / "run")
    Trainer(config).fit()
    test = ConceptDataset(data, "test")
    report = evaluate_next_concept(
        load_model(tmp_path / "run" / "model"),
        planned_documents(test) if name == "planning" else test,
        ConceptNormalizer.from_pretrained(tmp_path / "run" / "normalizer"),
        options=GenerationOptions.from_dict(SAMPLERS.get(config.model.type, {})),
    )
    assert report.beats("copy_last"), report.differences["copy_last"]["contrastive_accuracy"]
