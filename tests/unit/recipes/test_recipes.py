import inspect

import pytest
import torch
from training_data import build_toy_dataset

from largeconcept import recipes
from largeconcept.errors import ConfigError, DataError
from largeconcept.models import build_model
from largeconcept.recipes import RECIPES, get_recipe, list_recipes
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Trainer
from largeconcept.train.schedule import lr_factor

# Trainable parameters of the reference implementation's models: without the query and key projections of the denoiser's
# self-attention over a single position, which have no effect (2 (D² + D) a layer).
PARAMETERS = {
    "paper.base_1_6b": 1_649_185_792,
    "paper.two_tower_1_6b": 1_645_538_304 - 13 * 2 * (2048**2 + 2048),
    "paper.two_tower_7b": 6_930_781_696 - 14 * 2 * (4096**2 + 4096),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_toy_dataset(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete_and_survives_yaml(name, data, tmp_path):
    config = get_recipe(name)(data, tmp_path / "run")
    assert config.train.out == str(tmp_path / "run") and config.data.sources[0].path == str(data)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "config.yaml") == config
    changed = config.override("train.max_steps=7", "model.dropout=0.2")
    assert (changed.train.max_steps, changed.model.dropout) == (7, 0.2)
    with pytest.raises(ConfigError, match=r"did you mean train\.max_steps"):
        config.override("train.max_step=7")


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name, data):
    config = get_recipe(name)(data)
    with torch.device("meta"):
        model = build_model(config.model)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    peak = config.optim.lr
    rates = [peak * lr_factor(config.schedule, t, config.train.max_steps) for t in (0, 10_000, 250_000)]
    assert rates == pytest.approx([1e-7, 4e-4, 1e-5], rel=1e-6)


# The toy codec has no decoder to train through: tests/unit/train/test_text_objectives.py uses another.
@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("tiny") and n != "tiny.through_decoder"])
def test_tiny_recipes_take_dimension_and_held_out_split_from_the_data_and_train(name, data, tmp_path):
    config = get_recipe(name)(data, tmp_path)
    assert config.model.concept_dim == 16 and config.validation.sources[0].split == "validation"
    small = config.override("train.max_steps=2", "train.tensorboard=false", "model.model_dim=16", "model.num_heads=2")
    assert Trainer(small, progress=False).fit().steps == 2
    assert (tmp_path / "model" / "config.json").is_file()


def test_names():
    assert list_recipes().keys() == RECIPES.keys()
    assert all(len(line) > 20 and line.endswith(".") for line in list_recipes().values())
    assert get_recipe("two_tower_7b") is get_recipe("paper.two_tower_7b") is recipes.paper.two_tower_7b
    assert get_recipe("mse") is recipes.tiny.mse
    with pytest.raises(ConfigError, match=r"unknown recipe.*did you mean tiny\.two_tower\?"):
        get_recipe("tiny.twotower")
    with pytest.raises(AttributeError):
        recipes.huge  # noqa: B018
    for name in RECIPES:
        assert list(inspect.signature(get_recipe(name)).parameters)[:2] == ["data", "out"]


def test_a_tiny_recipe_without_data_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="no such dataset"):
        recipes.tiny.mse(tmp_path / "nothing")
