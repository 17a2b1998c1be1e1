"""The token model that stands beside a concept model has its size and its data."""

import pytest
import torch
from training_data import build_toy_dataset, toy_run
from variants import SMALL

from largeconcept.codec import load_codec
from largeconcept.errors import ConfigError
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


def test_run_keeps_data_steps_and_optimiser(tmp_path):
    data = build_toy_dataset(tmp_path)
    plain = toy_run(data, tmp_path / "run", "mse")
    plain["model"] = SMALL["mse"]
    plain["data"] |= {"batch_concepts": 4096, "micro_batches": 2}
    plain["validation"] = plain["data"]
    config = RunConfig.from_dict(plain)
    with pytest.raises(ConfigError, match="codec: the codec has no tokenizer; got toy"):
        token_lm_like(config, codec="toy")
    run = token_lm_like(config, codec="starter")
    assert run.model.type == "token_lm" and run.model.vocab_size == load_codec("starter").tokenizer.vocab_size
    assert run.objective.type == "token_lm" and run.objective.codec == "starter"
    assert (run.optim, run.schedule) == (config.optim, config.schedule)
    assert run.train.max_steps == config.train.max_steps and run.train.out == f"{config.train.out}_token_lm"
    for one, other in ((run.data, config.data), (run.validation, config.validation)):
        assert one.sources == other.sources and one.max_length == other.max_length
        size = one.batch_concepts * one.micro_batches
        assert size == pytest.approx(other.batch_concepts * other.micro_batches, rel=0.05)
        assert one.batch_concepts < other.batch_concepts
    fewer = token_lm_like(config, codec="starter", concepts_per_step=100).data
    assert (fewer.batch_concepts, fewer.micro_batches) == (100, 1)
    with pytest.raises(ConfigError, match="a token model already"):
        token_lm_like(run)
