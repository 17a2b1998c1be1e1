"""The recipes of the models that ship: tasks, mixture, sizes; and the chain from a corpus to a pipeline."""

import json
import random

import pytest
import torch
from training_data import DIM, WORDS, toy_run

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.recipes import default, default_cpu, get_codec_recipe, get_recipe, list_recipes
from largeconcept.recipes.baseline import count_parameters
from largeconcept.recipes.chain import train_default
from largeconcept.recipes.default import read_mixture
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Trainer


class Lines:
    """A reporter that remembers."""

    def __init__(self):
        self.told = []

    def section(self, title):
        self.told.append(title)

    def line(self, text=""):
        self.told.append(text)

    def progress(self, what):
        from contextlib import nullcontext

        return nullcontext(lambda *_: None)


def sentence(draw):
    return " ".join(draw.choices(WORDS, k=6)) + "."


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three splits: two that are mixed, one of them with summaries, and one held out."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(0)
    for split, number, summaries in (("a.eng_Latn", 20, 20), ("b.deu_Latn", 10, 0), ("validation", 6, 6)):
        rows = []
        for index in range(number):
            row = {"id": f"{split}{index}", "sentences": [sentence(draw) for _ in range(draw.randint(3, 8))]}
            rows.append({**row, "target_sentences": [sentence(draw)]} if index < summaries else row)
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        build_concepts(folder / "in.jsonl", folder / "data", codec=ToyCodec(DIM), split=split)
    mixture = {
        "a.eng_Latn": {"weight": 0.75, "lang": "eng_Latn", "summaries": 20},
        "b.deu_Latn": {"weight": 0.25, "lang": "deu_Latn"},
    }
    (folder / "data" / "mixture.json").write_text(json.dumps(mixture))
    return folder / "data"


@pytest.mark.parametrize("recipes", [default, default_cpu])
def test_pretraining_reads_documents_as_the_mixture_says(recipes, data):
    run = recipes.pretrain(data)
    assert [(one.split, one.weight, one.task) for one in run.data.sources] == [
        ("a.eng_Latn", 0.75, "continue"),
        ("b.deu_Latn", 0.25, "continue"),
    ]
    assert run.validation is not None and run.validation.sources[0].split == "validation"
    english = recipes.pretrain(data, languages=["eng_Latn"])
    assert [one.split for one in english.data.sources] == ["a.eng_Latn"]
    with pytest.raises(DataError, match=r"no split in these languages.*deu_Latn, eng_Latn.*fra_Latn"):
        recipes.pretrain(data, languages=["fra_Latn"])


def test_sizes_are_those_the_recipes_promise(data):
    for recipes, low, high in ((default, 50e6, 70e6), (default_cpu, 8e6, 12e6)):
        for kind in ("two_tower", "mse"):
            model = recipes.pretrain(data, kind=kind).model.model_copy(update={"concept_dim": 1024})
            assert low < count_parameters(model) < high, (recipes.__name__, kind)


def test_a_regression_learns_the_meaning_where_a_codec_has_a_form(data, monkeypatch):
    assert default_cpu.pretrain(data, kind="mse").objective is None  # the toy codec has none
    monkeypatch.setattr(default, "DIM", DIM)
    monkeypatch.setattr(default, "MEANING_DIM", 5)
    objective = default_cpu.pretrain(data, kind="mse").objective
    assert (objective.type, objective.channels) == ("regression", 5)
    assert default_cpu.pretrain(data).objective.type == "diffusion"


def test_tuning_shares_out_tasks_and_starts_from_the_model(data, tmp_path):
    Trainer(RunConfig.from_dict(toy_run(data, tmp_path / "run", "mse") | {"data": small(data)}), progress=False).fit()
    run = default_cpu.finetune(data, tmp_path / "run", tmp_path / "tuned")
    shares = {}
    for one in run.data.sources:
        shares[one.task] = shares.get(one.task, 0) + one.weight
        assert one.task == "continue" or one.split == "a.eng_Latn"
    assert shares == pytest.approx(default.SHARES)
    ended = sum(one.weight for one in run.data.sources if one.task == "summarize" and one.append_end)
    assert ended == pytest.approx(default.ENDED * default.SHARES["summarize"])
    assert all(one.append_end for one in run.data.sources if one.task != "summarize")
    assert run.objective.form_reach is None
    assert run.objective is not None and run.objective.type == "through_decoder" and run.objective.train_decoder
    assert run.train.init_from == str(tmp_path / "run") and run.model.model_dim == 16
    assert {one.task for one in run.validation.sources} == set(default.SHARES)
    # The toy codec writes nothing that could be scored: the distance will do.
    few = run.override("train.max_steps=2", "data.batch_concepts=128", "data.shuffle_window=500", "train.device=cpu")
    assert Trainer(RunConfig.from_dict({**few.to_dict(), "objective": None}), progress=False).fit().steps == 2
    with pytest.raises(DataError, match="no document has a summary"):
        default.tuning_run(data, tmp_path / "run", tmp_path / "x", ["deu_Latn"])


def small(data):
    return {"sources": [{"path": str(data), "split": "a.eng_Latn"}], "batch_concepts": 48, "max_length": 12}


def test_a_dataset_without_a_mixture_is_its_training_split(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "sentences": ["One red ball.", "Two."]}) + "\n")
    build_concepts(tmp_path / "in.jsonl", tmp_path / "data", codec=ToyCodec(DIM))
    assert {name: row.weight for name, row in read_mixture(tmp_path / "data").items()} == {"train": 1.0}
    (tmp_path / "data" / "mixture.json").write_text("[]")
    with pytest.raises(DataError, match="mixture is damaged"):
        read_mixture(tmp_path / "data")


def test_recipes_of_codecs_have_names_of_their_own():
    assert {"default.codec", "default_cpu.codec", "default_cpu.finetune"} <= set(list_recipes())
    config = get_codec_recipe("default_cpu.codec")("runs/mine")
    assert (config.out, config.network.dim, config.network.form_dim) == ("runs/mine", 1024, 512)
    with pytest.raises(ConfigError, match="codec train"):
        get_recipe("default.codec")
    with pytest.raises(ConfigError, match=r"unknown recipe.*pretrain"):
        get_recipe("pretrain")  # there are two
    with pytest.raises(ConfigError, match=r"default_cpu\.codec"):
        get_codec_recipe("default_cpu.codecs")


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"size": "huge"}, "unknown size"),
        ({"kind": "gpt"}, "unknown kind"),
        ({"until": "lunch"}, "unknown stage"),
        ({"settings": ["lunch.long=true"]}, "not a setting of a stage"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path, keywords, problem):
    with pytest.raises(ConfigError, match=problem):
        train_default(tmp_path / "out", Lines(), corpus="nothing", **keywords)
    assert not (tmp_path / "out").exists()


def test_nothing_to_ship_yet(tmp_path):
    with pytest.raises(CheckpointError):
        train_default(tmp_path / "out", Lines(), ship_now=True)


SETTINGS = [
    "prepare.languages=[eng_Latn, deu_Latn]",
    "prepare.vocabulary.size=300",
    "codec.max_minutes=null",
    "codec.max_steps=2",
    "codec.compile=false",
    "codec.teacher=null",
    "codec.network={type: autoencoder, dim: 16, width: 32, num_heads: 2, encoder_layers: 1, decoder_layers: 1}",
    "codec.objective.sampled_vocabulary=64",
    "codec.micro_tokens=512",
    "pretrain.model={type: mse, concept_dim: 16, model_dim: 16, num_heads: 2, num_layers: 1}",
    "pretrain.data.batch_concepts=256",
    "pretrain.train.max_steps=4",
    "pretrain.train.save_every=2",
    "finetune.data.batch_concepts=256",
    "finetune.train.max_steps=2",
    "eval.limit=4",
    "eval.tasks=next_concept",
]


def corpus(folder):
    draw = random.Random(1)
    folder.mkdir()
    words = ["".join(draw.choices("abcdefghijklmnoprstuvwzäöü", k=draw.randint(3, 7))) for _ in range(300)]
    lines = []
    for index in range(240):
        for lang in ("eng_Latn", "deu_Latn"):
            sentences = [" ".join(draw.choices(words, k=7)) + "." for _ in range(draw.randint(3, 6))]
            row = {"id": f"d{index}", "lang": lang, "source": "tales", "sentences": sentences}
            lines.append(json.dumps({**row, "summary": " ".join(draw.choices(words, k=5)) + "."}))
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_the_chain_goes_from_a_corpus_to_a_pipeline_and_on_where_it_was(tmp_path):
    torch.set_num_threads(1)
    source, out = corpus(tmp_path / "corpus"), tmp_path / "out"
    first = train_default(out, Lines(), kind="mse", corpus=source, settings=SETTINGS, until="pretrain")
    assert first.done == ("corpus", "prepare", "codec", "data", "pretrain") and not first.interrupted
    assert ConceptPipeline.from_pretrained(out / "pipeline").prompts == {}  # it ships already
    fingerprint = json.loads((out / "codec" / "codec" / "config.json").read_text())["fingerprint"]
    stopped = [one for one in SETTINGS if "finetune.train" not in one] + ["finetune.train.max_steps=1"]
    train_default(out, Lines(), kind="mse", corpus=source, settings=stopped, until="finetune")
    tuned = ConceptPipeline.from_pretrained(out / "pipeline")
    assert set(tuned.prompts) == {"summarize", "expand"} and "decoder" in tuned.codec.metadata
    shipped = train_default(out, Lines(), kind="mse", settings=SETTINGS, ship_now=True, until="ship")
    assert shipped.pipeline == out / "pipeline"
    lines = Lines()
    result = train_default(out, lines, kind="mse", corpus=source, settings=SETTINGS)
    assert result.done[-1] == "eval" and result.pipeline == out / "pipeline"
    assert f"there already: {out / 'pretrain'}" in lines.told and "2 steps" in lines.told
    pipe = ConceptPipeline.from_pretrained(out / "pipeline")
    assert pipe.codec.fingerprint == fingerprint and pipe.card.metrics
    assert pipe.card.limits and any("pretrain" in line for line in pipe.card.training_cost)
    assert pipe.summarize("Red ball. Old dog. Rain falls.", seed=0).lang == "eng_Latn"
