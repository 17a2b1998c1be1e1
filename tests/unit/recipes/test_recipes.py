import inspect

import pytest
import torch
from training_data import build_toy_dataset

from largeconcept import recipes
from largeconcept.convert.meta_lcm import dead_names, model_config
from largeconcept.errors import ConfigError, DataError
from largeconcept.models import build_model
from largeconcept.recipes import CODEC_RECIPES, RECIPES, get_recipe, list_recipes
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Trainer
from largeconcept.train.schedule import lr_factor

# Parameters of the reference implementation's models, dead weights included: the query and key projections of the
# denoiser's self-attention over a single position, which have no effect and which models here do not have.
RELEASED = {
    "paper.base_1_6b": ("base_lcm_1_6B", 1_649_185_792),
    "paper.two_tower_1_6b": ("two_tower_diffusion_lcm_1_6B", 1_645_538_304),
    "paper.two_tower_7b": ("two_tower_diffusion_lcm_7B", 6_930_781_696),
}
# Trainable parameters as the SONAR-LLM paper gives them, and its names, which count Llama 3's table of tokens too.
SONAR_LLM = {
    "paper.sonar_llm_39m": (11e6, 39e6),
    "paper.sonar_llm_100m": (34e6, 100e6),
    "paper.sonar_llm_300m": (170e6, 300e6),
    "paper.sonar_llm_600m": (450e6, 600e6),
    "paper.sonar_llm_900m": (700e6, 900e6),
    "paper.sonar_llm_1_3b": (None, 1.3e9),
}
LLAMA_TOKENS = 128_256


def on_meta(config):
    with torch.device("meta"):
        return build_model(config.model)


def count(model):
    return sum(p.numel() for p in model.parameters())


def layer(width, inner):
    """Parameters of a layer: four projections with bias, two RMSNorms, a gated MLP with biases."""
    return 4 * (width**2 + width) + 2 * width + 3 * width * inner + 2 * inner + width


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_toy_dataset(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith(".finetune")])
def test_every_recipe_is_complete_and_survives_yaml(name, data, tmp_path):
    config = get_recipe(name)(data, tmp_path / "run")
    assert config.train.out == str(tmp_path / "run") and config.data.sources[0].path == str(data)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "config.yaml") == config
    group = "model.body" if config.model.type == "planning" else "model"
    changed = config.override("train.max_steps=7", f"{group}.dropout=0.2")
    assert (changed.train.max_steps, getattr(changed.model, "body", changed.model).dropout) == (7, 0.2)
    with pytest.raises(ConfigError, match=r"did you mean train\.max_steps"):
        config.override("train.max_step=7")


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_with_the_dead_weights(name, data):
    architecture, published = RELEASED[name]
    config = get_recipe(name)(data)
    model = on_meta(config)
    dim = config.model.model_dim
    shapes = {"weight": dim * dim, "bias": dim}
    dead = dead_names(architecture)
    layers = getattr(config.model, "num_denoiser_layers", 0)
    assert dead == [
        f"denoiser.layers.{n}.self_attn.{part}_proj.{kind}" for n in range(layers) for part in "qk" for kind in shapes
    ]
    assert count(model) + sum(shapes[one.rpartition(".")[2]] for one in dead) == published
    assert config.model == model_config(architecture)  # not only as many


def test_released_training_settings(data):
    for name in ("base_1_6b", "one_tower_1_6b", "two_tower_1_6b", "quantized_1_6b", "planning_1_6b"):
        config = get_recipe(f"paper.{name}")(data)
        rates = [config.optim.lr * lr_factor(config.schedule, t, config.train.max_steps) for t in (0, 10_000, 250_000)]
        assert rates == pytest.approx([1e-7, 4e-4, 1e-5], rel=1e-6)
        assert config.data.batch_concepts * config.data.micro_batches == 229_376 and config.train.clip_norm == 25
    seven = get_recipe("paper.two_tower_7b")(data)
    rates = [seven.optim.lr * lr_factor(seven.schedule, t, seven.train.max_steps) for t in (0, 10_000, 124_000)]
    assert rates == pytest.approx([1e-7, 3e-4, 1e-5], rel=1e-6)
    assert seven.data.batch_concepts * seven.data.micro_batches == 2**20 and seven.data.max_length == 2048
    sonar = get_recipe("paper.sonar_llm_900m")(data)
    assert (sonar.optim.lr, sonar.optim.weight_decay, sonar.schedule.warmup_steps) == (1e-3, 1e-3, 820)


def test_unreleased_sizes_are_the_base_models_and_what_each_adds(data):
    """32 layers as in the Base-LCM, and each part that the paper describes, counted by hand."""
    dim, concept, positions = 2048, 1024, 4096
    body = 32 * layer(dim, 5632) + dim + (concept * dim + dim)
    assert body + dim * concept + concept == RELEASED["paper.base_1_6b"][1]
    body += positions * dim + dim * dim  # learned positions; what the embedding of time adds to the input
    time = 256 * dim + dim + dim * dim + dim
    to_concept = dim * concept + concept
    assert count(on_meta(get_recipe("paper.one_tower_1_6b")(data))) == body + time + to_concept == 1_666_491_392
    levels = 65 * dim  # of 0 to 64 codebooks, in place of the time
    discrete = on_meta(get_recipe("paper.quantized_1_6b")(data))
    assert count(discrete) == body + levels + (dim * 8192 + 8192) + 64 * 8192 == 1_677_113_344
    continuous = on_meta(get_recipe("paper.quantized_continuous_1_6b")(data))
    assert count(continuous) == body + levels + to_concept == 1_661_901_824
    for model in (discrete, continuous):
        assert sum(b.numel() for b in model.quantizer.buffers()) == 64 * 8192 * 1024  # codebooks are not trained
    planning = on_meta(get_recipe("paper.planning_1_6b")(data))
    assert count(planning.body) == 1_666_491_392 and count(planning) - count(planning.body) < 10_000


@pytest.mark.parametrize("name", SONAR_LLM)
def test_sonar_llm_sizes(name, data):
    trainable, called = SONAR_LLM[name]
    config = get_recipe(name)(data)
    model = on_meta(config)
    if trainable is not None:
        assert count(model) == pytest.approx(trainable, rel=0.05)
    assert count(model) + LLAMA_TOKENS * config.model.model_dim == pytest.approx(called, rel=0.035)


# The toy codec has no decoder to train through: tests/unit/train/test_text_objectives.py uses another.
@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("tiny") and n != "tiny.through_decoder"])
def test_tiny_recipes_take_dimension_and_held_out_split_from_the_data_and_train(name, data, tmp_path):
    if name == "tiny.planning":
        data = build_toy_dataset(tmp_path / "planned", plan="first_sentence")
    config = get_recipe(name)(data, tmp_path)
    assert config.model.concept_dim == 16 and config.validation.sources[0].split == "validation"
    group = "model.body" if config.model.type == "planning" else "model"
    sizes = (f"{group}.model_dim=16", f"{group}.num_heads=2")
    small = config.override("train.max_steps=2", "train.tensorboard=false", *sizes)
    assert Trainer(small, progress=False).fit().steps == 2
    assert (tmp_path / "model" / "config.json").is_file()


def test_names():
    assert list_recipes().keys() == RECIPES.keys() | CODEC_RECIPES.keys()
    assert all(len(line) > 20 and line.endswith(".") for line in list_recipes().values())
    assert get_recipe("two_tower_7b") is get_recipe("paper.two_tower_7b") is recipes.paper.two_tower_7b
    assert get_recipe("mse") is recipes.tiny.mse
    with pytest.raises(ConfigError, match=r"unknown recipe.*did you mean tiny\.two_tower\?"):
        get_recipe("tiny.twotower")
    with pytest.raises(AttributeError):
        recipes.huge  # noqa: B018
    for name in RECIPES:
        names = list(inspect.signature(get_recipe(name)).parameters)
        assert [one for one in names if one != "start"][:2] == ["data", "out"]


def test_a_tiny_recipe_without_data_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="no such dataset"):
        recipes.tiny.mse(tmp_path / "nothing")
