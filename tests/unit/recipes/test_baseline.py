"""The token model that stands beside a concept model has its size and its data."""

from types import SimpleNamespace

import pytest
import torch
from training_data import build_toy_dataset, toy_run
from variants import SMALL

from largeconcept.codec import load_codec
from largeconcept.errors import ConfigError
from largeconcept.eval.training_cost import run_flops
from largeconcept.models import TokenLM, build_model
from largeconcept.models.registry import model_config
from largeconcept.recipes.baseline import count_parameters, matched_size, token_lm_like
from largeconcept.train.config import RunConfig

PAPER = {"paper_mse": {"type": "mse"}, "paper_two_tower": {"type": "two_tower"}}
CASES = {**{name: config for name, config in SMALL.items() if config["type"] != "token_lm"}, **PAPER}


@pytest.mark.parametrize("name", CASES)
def test_the_body_is_as_large_as_the_concept_model(name):
    config = model_config(CASES[name])
    wanted = count_parameters(config)
    matched = matched_size(config, vocab_size=321)
    with torch.device("meta"):
        concept_model, token_model = build_model(config), build_model(matched)
    assert isinstance(token_model, TokenLM) and matched.vocab_size == 321
    assert token_model.num_body_parameters == pytest.approx(wanted, rel=0.05)
    if name in ("mse", *PAPER):  # no tables at all
        assert wanted == sum(p.numel() for p in concept_model.parameters())
        width = config.model_dim
        assert 0.9 * width <= matched.model_dim <= 1.1 * width


def test_learned_positions_and_tables_are_not_counted():
    with_table = model_config({**SMALL["mse"], "positions": "learned", "max_positions": 5000})
    assert count_parameters(with_table) == count_parameters(model_config(SMALL["mse"]))
    tied, untied = (model_config({**SMALL["token_lm"], "tie_embeddings": tied}) for tied in (True, False))
    assert count_parameters(tied) == count_parameters(untied) == build_model(untied).num_body_parameters


def test_a_size_that_cannot_be_matched_is_one_error():
    tiny = model_config(
        {"type": "mse", "model_dim": 4, "num_heads": 2, "concept_dim": 2, "num_layers": 1, "mlp": "relu"}
    )
    with pytest.raises(ConfigError, match=r"model: mse: no token model is within 5 %.*parameters"):
        matched_size(tiny, 100)


def test_run_keeps_data_and_optimiser_and_steps_where_asked(tmp_path):
    data = build_toy_dataset(tmp_path)
    plain = toy_run(data, tmp_path / "run", "mse")
    plain["model"] = SMALL["mse"]
    plain["data"] |= {"batch_concepts": 4096, "micro_batches": 2}
    plain["validation"] = plain["data"]
    config = RunConfig.from_dict(plain)
    with pytest.raises(ConfigError, match="codec: the codec has no tokenizer; got toy"):
        token_lm_like(config, codec="toy")
    run = token_lm_like(config, codec="starter", match="steps")
    assert run.model.type == "token_lm" and run.model.vocab_size == load_codec("starter").tokenizer.vocab_size
    assert run.objective.type == "token_lm" and run.objective.codec == "starter"
    assert (run.optim, run.schedule) == (config.optim, config.schedule)
    assert run.train.max_steps == config.train.max_steps and run.train.out == f"{config.train.out}_token_lm"
    for one, other in ((run.data, config.data), (run.validation, config.validation)):
        assert one.sources == other.sources and one.max_length == other.max_length
        size = one.batch_concepts * one.micro_batches
        assert size == pytest.approx(other.batch_concepts * other.micro_batches, rel=0.05)
        assert one.batch_concepts < other.batch_concepts
    assert run.notes == {}
    fewer = token_lm_like(config, codec="starter", concepts_per_step=100, match="steps").data
    assert (fewer.batch_concepts, fewer.micro_batches) == (100, 1)
    with pytest.raises(ConfigError, match="a token model already"):
        token_lm_like(run)


@pytest.mark.parametrize("count_encoding", [True, False])
def test_the_run_costs_what_the_concept_model_costs(tmp_path, monkeypatch, count_encoding):
    monkeypatch.setattr("largeconcept.eval.training_cost.ENOUGH_CONCEPTS", 2000)
    data = build_toy_dataset(tmp_path)
    plain = toy_run(data, tmp_path / "run", "mse")
    plain["model"] = {**SMALL["mse"], "model_dim": 64}
    plain["train"]["max_steps"] = 4000
    config = RunConfig.from_dict(plain)
    codec = load_codec("starter")
    like = {"codec": "starter", "count_encoding": count_encoding, "concepts_per_step": 12}
    run = token_lm_like(config, **like, dropout=0.25)
    assert run.model.dropout == 0.25 and run.train.max_steps != config.train.max_steps
    model, token_model = run_flops(config, codec), run_flops(run, codec)
    wanted = model.training + (model.encoding if count_encoding else 0)
    assert token_model.training == pytest.approx(wanted, rel=0.01)
    said = run.notes["matched"]
    assert (said["model_training_flops"], said["model_encoding_flops"]) == (model.training, model.encoding)
    assert said["training_flops"] == pytest.approx(wanted, rel=0.005) and said["encoding_counted"] is count_encoding
    assert said["steps"] == run.train.max_steps
    assert said["parameters"] == pytest.approx(said["model_parameters"], rel=0.05)
    longer = token_lm_like(config.override("train.max_steps=8000"), **like)
    assert longer.train.max_steps > 1.5 * run.train.max_steps


def test_a_codec_of_unknown_cost_is_one_error(tmp_path, monkeypatch):
    data = build_toy_dataset(tmp_path)
    config = RunConfig.from_dict({**toy_run(data, tmp_path / "run", "mse"), "model": SMALL["mse"]})
    space = SimpleNamespace(tokenizer=load_codec("starter").tokenizer)
    monkeypatch.setattr("largeconcept.codec.load_codec", lambda name: space)
    with pytest.raises(ConfigError, match=r"codec: the cost of encoding.*count_encoding=False"):
        token_lm_like(config, codec="other")
    assert token_lm_like(config, codec="other", count_encoding=False).notes["matched"]["model_encoding_flops"] is None
