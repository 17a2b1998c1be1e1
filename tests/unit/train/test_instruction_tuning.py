"""Tasks in training: every kind of model learns from documents and pairs together; what is exported knows its tasks."""

import json
import random
import shutil

import pytest
import torch
from training_data import DIM, WORDS, build_toy_dataset, toy_run

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.codec.toy import ToyCodec
from largeconcept.data.affixes import TASK_PROMPTS, add_affixes
from largeconcept.data.build import build_concepts
from largeconcept.data.loader import ConceptLoader
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.hub import read_record
from largeconcept.models import build_model, load_model
from largeconcept.objectives import build_objective, default_objective
from largeconcept.train import Trainer
from largeconcept.train.config import RunConfig
from largeconcept.train.export import export_run
from largeconcept.train.start import find_start, started

FAMILIES = {
    "mse": {"num_layers": 1},
    "one_tower": {"num_layers": 1},
    "two_tower": {"num_context_layers": 1, "num_denoiser_layers": 1},
    "flow": {"num_context_layers": 1, "num_denoiser_layers": 1},
    "energy": {"num_layers": 1, "num_head_layers": 1, "noise_dim": 4},
    "quantized": {"num_layers": 1, "num_quantizers": 2, "codebook_size": 4},
}


def build(folder, targets):
    """Build documents; two of three have a summary where ``targets`` is true."""
    draw = random.Random(0)

    def sentences(number):
        return [" ".join(draw.choices(WORDS, k=6)) + "." for _ in range(number)]

    rows = []
    for index in range(45):
        row = {"id": f"p{index}", "sentences": sentences(draw.randint(3, 14))}
        if targets and index % 3:
            row["target_sentences"] = sentences(draw.randint(1, 2))
        rows.append(row)
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_concepts(folder / "texts.jsonl", folder / "data", codec=ToyCodec(DIM))
    return folder / "data"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return build(tmp_path_factory.mktemp("documents"), targets=False)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pairs"), targets=True)


def mixture(documents, pairs, out, family="mse", steps=4, **changes):
    plain = toy_run(documents, out, "mse", train__max_steps=steps, train__save_every=None)
    shape = {name: plain["model"][name] for name in ("concept_dim", "model_dim", "num_heads", "ffn_dim")}
    plain["model"] = {"type": family, **shape, **FAMILIES[family]}
    plain["data"]["sources"] = [
        {"path": str(documents)},
        {"path": str(pairs), "task": "continue", "weight": 0.5},
        {"path": str(pairs), "task": "summarize"},
        {"path": str(pairs), "task": "expand"},
    ]
    for name, value in changes.items():
        plain[name] = value
    return RunConfig.from_dict(plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_model_trains_on_documents_and_pairs(documents, pairs, tmp_path, family):
    result = Trainer(mixture(documents, pairs, tmp_path, family), progress=False).fit()
    assert len(result.losses) == 4 and result.skipped == 0
    assert all(loss > 0 and torch.isfinite(torch.tensor(loss)) for loss in result.losses)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_targets_count_in_pairs(pairs, tmp_path, family):
    plain = mixture(pairs, pairs, tmp_path, family).to_dict()
    plain["data"]["sources"] = [{"path": str(pairs), "task": "expand"}, {"path": str(pairs), "task": "continue"}]
    run = RunConfig.from_dict(plain)
    torch.manual_seed(0)
    model = build_model(run.model)
    if family == "quantized":
        model.prepare(lambda number: torch.randn(64, DIM), 0)
    objective = build_objective(default_objective(run.model), ConceptNormalizer.identity(DIM))
    for batch in ConceptLoader(run.data).next_step():
        assert 0 < int((batch.source_lengths > 0).sum()) < len(batch.lengths)
        known = (batch.lengths - batch.source_lengths).sum()
        if family == "mse":  # which cannot predict a first concept
            known -= (batch.source_lengths == 0).sum()
        loss = objective(model, batch, StepRandom(0, 0))
        assert int(loss.count) == int(known)


def test_planning_refuses_pairs_clearly(pairs, tmp_path):
    planned = build_toy_dataset(tmp_path / "planned", plan="first_sentence")
    plain = toy_run(planned, tmp_path / "run", "mse")
    body = {**plain["model"], "type": "one_tower"}
    plain["model"] = {"type": "planning", "body": body, "plan": "first_sentence"}
    plain["data"]["sources"] = [{"path": str(planned)}, {"path": str(pairs), "task": "summarize"}]
    with pytest.raises(ConceptLMError, match="no plans"):
        Trainer(RunConfig.from_dict(plain), progress=False).fit()


def test_the_export_knows_the_tasks(documents, pairs, tmp_path):
    run = mixture(documents, pairs, tmp_path / "run")
    sources = run.to_dict()["data"]["sources"]
    add_affixes(pairs, ["In short:"], ToyCodec(DIM))
    sources[2]["prompt_text"] = "In short:"
    run = RunConfig.from_dict({**run.to_dict(), "data": {**run.to_dict()["data"], "sources": sources}})
    Trainer(run, progress=False).fit()
    out = export_run(tmp_path / "run", tmp_path / "pipeline", codec=ToyCodec(DIM))
    prompts = read_record(out).prompts
    assert {task: (one.prefix, one.suffix) for task, one in prompts.items()} == {
        "summarize": ((), ("In short:",)),
        "expand": ((), (TASK_PROMPTS["expand"],)),
    }
    assert any("task expand" in line for line in read_record(out).card.training_data)
    pipe = ConceptPipeline.from_pretrained(out, device="cpu")
    assert len(pipe.summarize("Red ball rolls. A dog runs. Rain falls.", seed=0).sentences) == 1
    assert 1 <= len(pipe.expand("Red ball rolls.", seed=0).sentences) <= 4


@pytest.mark.parametrize("kind", ["run", "pipeline"])
def test_tuning_starts_from_a_run_or_a_pipeline(documents, pairs, tmp_path, kind):
    """Its weights and its normalizer; everything else is new."""
    Trainer(RunConfig.from_dict(toy_run(documents, tmp_path / "run", "mse")), progress=False).fit()
    export_run(tmp_path / "run", tmp_path / "pipeline", codec=ToyCodec(DIM))
    tuned = mixture(documents, pairs, tmp_path / "tuned", steps=1, schedule={"warmup_steps": 5})
    tuned = started(tuned, tmp_path / kind)
    assert tuned.train.init_from == str(tmp_path / kind)
    result = Trainer(tuned.override("train.export_weights=raw", "optim.weight_decay=0"), progress=False).fit()
    assert result.steps == 1
    before = load_model(tmp_path / "run" / "model").state_dict()
    after = load_model(tmp_path / "tuned" / "model").state_dict()  # the first update has rate 0
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (ConceptNormalizer.from_pretrained(tmp_path / name / "normalizer") for name in ("run", "tuned"))
    assert torch.equal(old.center, new.center) and torch.equal(old.scale, new.scale)
    fresh = tuned.override(f"train.out={tmp_path / 'fresh'}", "normalizer=robust", "model.dropout=0.2")
    Trainer(fresh, progress=False).fit()  # another normalizer and another dropout are a wish, not a mistake
    other = ConceptNormalizer.from_pretrained(tmp_path / "fresh" / "normalizer")
    assert not torch.equal(old.center, other.center)
    assert load_model(tmp_path / "fresh" / "model").config.dropout == 0.2


def test_a_tuned_run_goes_on_without_what_it_started_from(documents, pairs, tmp_path):
    Trainer(RunConfig.from_dict(toy_run(documents, tmp_path / "run", "mse")), progress=False).fit()
    tuned = started(mixture(documents, pairs, tmp_path / "tuned", steps=2), tmp_path / "run")
    Trainer(tuned, progress=False).fit()
    shutil.rmtree(tmp_path / "run")
    assert Trainer(tuned.override("train.max_steps=3"), progress=False).fit().steps == 3


def test_starts_that_do_not_fit(documents, pairs, tmp_path):
    run = mixture(documents, pairs, tmp_path / "tuned", steps=1)
    with pytest.raises(CheckpointError, match="no such folder"):
        started(run, tmp_path / "nothing")
    Trainer(RunConfig.from_dict(toy_run(documents, tmp_path / "run", "mse")), progress=False).fit()
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**facts, "codec_fingerprint": "0" * 16}))
    with pytest.raises(CheckpointError, match=r"another concept space.*0000"):
        Trainer(started(run, tmp_path / "run"), progress=False).fit()
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        find_start(tmp_path / "run")
    assert find_start(tmp_path / "run" / "model").fingerprint is None
    with pytest.raises(ConfigError, match=r"another configuration.*--from"):
        Trainer(run.override(f"train.init_from={tmp_path / 'run' / 'model'}", "model.ffn_dim=64"), progress=False).fit()
