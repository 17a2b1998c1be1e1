"""A planning model trained from planned data: the break it learns, resuming, what does not fit, and its evaluation."""

from __future__ import annotations

import json
import random

import pytest
import torch
from training_data import DIM, WORDS, Whole, toy_run
from variants import small_model

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.data.plans import END_OF_PARAGRAPH
from largeconcept.data.reader import ConceptDataset
from largeconcept.data.sequences import planned_documents
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.next_concept import evaluate_next_concept
from largeconcept.models import load_model
from largeconcept.train import Callbacks, Trainer
from largeconcept.train.config import RunConfig
from largeconcept.types import ROLES

BODY = {"type": "mse", "concept_dim": DIM, "model_dim": 16, "num_heads": 2, "ffn_dim": 32, "num_layers": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Documents of random paragraphs, built with plans and without."""
    folder = tmp_path_factory.mktemp("planned")
    draw = random.Random(0)
    lines = []
    for index in range(40):
        sizes = [draw.randint(1, 5) for _ in range(draw.randint(1, 4))]
        lines.append(
            {
                "id": f"d{index}",
                "lang": "eng_Latn",
                "sentences": [" ".join(draw.choices(WORDS, k=6)) + "." for _ in range(sum(sizes))],
                "paragraph_starts": [sum(sizes[:i]) for i in range(len(sizes))],
            }
        )
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for split, plan in (("train", "first_sentence"), ("plain", None)):
        options = {"codec": ToyCodec(DIM), "segmenter": Whole(), "split": split, "plan": plan}
        build_concepts(folder / "in.jsonl", folder / "data", **options)
    return folder / "data"


def run(data, out, kind="first_sentence", split="train", **changes):
    model = {"type": "planning", "body": BODY, "plan": kind}
    config = toy_run(data, out, "mse", **changes)
    config["data"] |= {"sources": [{"path": str(data), "split": split}], "max_length": 16}
    return RunConfig.from_dict({**config, "model": model})


def test_training_gives_the_model_the_break_and_a_resumed_run_is_the_same(data, tmp_path):
    result = Trainer(run(data, tmp_path / "whole"), progress=False).fit()
    assert result.losses[-1] < result.losses[0]
    model = load_model(tmp_path / "whole" / "model")
    normalizer = ConceptNormalizer.from_pretrained(tmp_path / "whole" / "normalizer")
    pause = ConceptDataset(data).affixes[END_OF_PARAGRAPH]
    assert torch.equal(model.break_concept, normalizer.normalize(pause))
    assert bool(model.role_embedding.any(dim=1).all())  # all three are learnt

    def stop(step, result):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(run(data, tmp_path / "parts"), Callbacks(on_step=stop), progress=False).fit()
    resumed = Trainer(run(data, tmp_path / "parts"), progress=False).fit()
    assert resumed.losses == result.losses[4:]


def test_data_and_settings_that_do_not_fit_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="needs planned data"):
        Trainer(run(data, tmp_path / "a", split="plain"), progress=False).fit()
    with pytest.raises(ConfigError, match="needs planned data"):
        Trainer(run(data, tmp_path / "b").override("data.plans=false"), progress=False).fit()
    with pytest.raises(ConfigError, match="another kind"):
        Trainer(run(data, tmp_path / "c", kind="title"), progress=False).fit()


def test_whole_documents_as_a_planning_model_reads_them(data):
    dataset = ConceptDataset(data)
    found = list(planned_documents(dataset))
    assert len(found) == len(dataset)
    for one, document in zip(found, dataset):
        names = [ROLES[role] for role in one.roles.tolist()]
        assert names[-1] == "end"
        assert names.count("plan") == names.count("break") == len(document.paragraph_starts)
        sentences = torch.tensor([name in ("plan", "concept") for name in names])
        assert torch.equal(one.concepts[sentences], document.concepts)
        said = [text for text, name in zip(one.sentences, names, strict=True) if name in ("plan", "concept")]
        assert said == document.sentences
        assert one.lang == document.lang == "eng_Latn"
        assert one.scored.tolist() == [name == "concept" for name in names]
    with pytest.raises(DataError, match="no plans"):
        list(planned_documents(ConceptDataset(data, "plain")))


def test_only_sentences_of_paragraphs_are_scored(data):
    model = small_model("planning_mse")
    normalizer = ConceptNormalizer.identity(DIM)
    report = evaluate_next_concept(model, ConceptDataset(data), normalizer, num_bootstrap=10)
    documents = list(planned_documents(ConceptDataset(data)))
    assert report.num_predictions == sum(int(one.scored.sum()) for one in documents)
    assert report.pool_size == report.num_predictions
    # The mean distance of a sentence of a paragraph to what stands before it, its plan included.
    distances = [(one.concepts[1:] - one.concepts[:-1]).norm(dim=1)[one.scored[1:]] for one in documents]
    assert report.scores["copy_last"]["l2"].mean == pytest.approx(float(torch.cat(distances).mean()), rel=1e-4)
    # A dataset without plans is scored by all its concepts.
    plain = evaluate_next_concept(model, ConceptDataset(data, "plain"), normalizer, num_bootstrap=10)
    assert plain.num_predictions == sum(len(one.concepts) - 1 for one in ConceptDataset(data, "plain"))
