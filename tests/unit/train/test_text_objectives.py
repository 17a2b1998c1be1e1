"""Training on the text beside the concepts: through a codec's decoder, and of a token model."""

import json
import random
import shutil

import pytest
import torch
from training_data import WORDS, toy_run

from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.codec.tokenizer import Tokenizer
from largeconcept.data.build import build_concepts
from largeconcept.errors import ConfigError
from largeconcept.io import read_safetensors
from largeconcept.models import ThroughDecoderConceptModel, TokenLM, load_model
from largeconcept.objectives import OBJECTIVES
from largeconcept.recipes.baseline import token_lm_like
from largeconcept.train.config import RunConfig
from largeconcept.train.loop import Callbacks, Trainer
from largeconcept.train.meters import read_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved codec with random weights, and the toy documents in its concepts."""
    return build(tmp_path_factory.mktemp("text"), width=16)


def build(folder, **shape):
    from training_data import build_toy_dataset

    build_toy_dataset(folder, documents=40)
    tokenizer = Tokenizer.train([" ".join(WORDS)] * 50, vocab_size=285)
    torch.manual_seed(0)
    shape = {"dim": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "pooling_heads": 2, **shape}
    network = AutoencoderNetwork(AutoencoderConfig(**shape, vocab_size=285, memory_tokens=2, max_tokens=32))
    AutoencoderCodec(network, tokenizer).save_pretrained(folder / "codec")
    shutil.rmtree(folder / "data")
    for split in ("train", "validation"):
        build_concepts(folder / f"{split}.jsonl", folder / "data", str(folder / "codec"), split=split, lang="eng_Latn")
    return folder


def run(folder, out, family, **changes):
    validation = {"sources": [{"path": str(folder / "data"), "split": "validation"}]}
    sizes = {"batch_concepts": 48, "max_length": 12}
    plain = toy_run(folder / "data", out, "mse", validation={**validation, **sizes}, **changes)
    plain["model"] |= {"type": "through_decoder"}
    plain["objective"] = {"type": "through_decoder", "max_sentences": 20, "mse_weight": 0.1}
    config = RunConfig.from_dict(plain)
    if family == "token_lm":
        config = token_lm_like(config, out=out, match="steps")
        small = {"model_dim": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 32}
        config = RunConfig.from_dict({**config.to_dict(), "model": {**config.model.to_dict(), **small}})
    return config


def fit(config, callbacks=None):
    return Trainer(config, callbacks, progress=False).fit()


def stopped_and_resumed(config, step):
    """Interrupt a run after a step; return the losses from where it goes on when it is started again."""

    def stop(now, result):
        if now == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, Callbacks(on_step=stop))
    return fit(config).losses


@pytest.mark.parametrize("family", ["through_decoder", "token_lm"])
def test_it_learns_and_a_resumed_run_equals_an_undisturbed_one(folder, tmp_path, family):
    one = run(folder, tmp_path / "one", family, train__max_steps=14, optim__lr=1e-2)
    assert one.data.sentences is None  # the objective asks for the text
    undisturbed = fit(one)
    least = {"through_decoder": 0.995, "token_lm": 0.97}[family]  # a decoder with random weights hardly listens
    assert sum(undisturbed.losses[-4:]) < least * sum(undisturbed.losses[:4])
    name = {"through_decoder": "token_accuracy", "token_lm": "next_token_nats"}[family]
    assert f"validation/ema/{name}" in undisturbed.metrics
    assert name in read_lines(tmp_path / "one" / "metrics.jsonl")[0]

    two = run(folder, tmp_path / "two", family, train__max_steps=14, optim__lr=1e-2)
    assert stopped_and_resumed(two, 7) == undisturbed.losses[4:]
    weights = [read_safetensors(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    model = load_model(tmp_path / "one" / "model")
    assert isinstance(model, TokenLM if family == "token_lm" else ThroughDecoderConceptModel)


def test_the_decoder_stays_as_it_is(folder, tmp_path, monkeypatch):
    module, _, name = OBJECTIVES["through_decoder"].partition(":")
    objective = getattr(__import__(module, fromlist=[name]), name)
    seen = []
    opened = objective.open_codec

    def open_codec(self, *arguments):
        opened(self, *arguments)
        seen.append(self.decoder)

    monkeypatch.setattr(objective, "open_codec", open_codec)
    fit(run(folder, tmp_path, "through_decoder", train__max_steps=2))
    assert seen[0].fingerprint == AutoencoderCodec.from_pretrained(folder / "codec").fingerprint


def test_a_codec_that_does_not_fit_is_one_error(folder, tmp_path):
    config = run(folder, tmp_path, "through_decoder", train__max_steps=2)
    for codec, message in (
        ("starter", r"objective\.codec: starter: the codec is of another concept space"),
        (str(tmp_path / "none"), r"objective\.codec: the codec cannot be loaded"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(config.override(f"objective.codec={codec}"))
    with pytest.raises(ConfigError, match=r"model\.vocab_size: .*expected 285; got 301"):
        fit(run(folder, tmp_path, "token_lm", train__max_steps=2).override("model.vocab_size=301"))


def test_a_decoder_that_learns_too_is_part_of_the_run_and_of_what_it_leaves(folder, tmp_path):
    from largeconcept.hub import load_pipeline
    from largeconcept.io import read_json
    from largeconcept.train.export import export_run

    def config(name):
        changed = run(folder, tmp_path / name, "through_decoder", train__max_steps=8, optim__lr=1e-2)
        return changed.override("objective.train_decoder=true")

    undisturbed = fit(config("one"))
    assert stopped_and_resumed(config("two"), 6) == undisturbed.losses[4:]
    frozen = fit(run(folder, tmp_path / "frozen", "through_decoder", train__max_steps=8, optim__lr=1e-2))
    assert undisturbed.losses[-1] < frozen.losses[-1]
    assert not (tmp_path / "frozen" / "codec").exists()

    before = AutoencoderCodec.from_pretrained(folder / "codec")
    codecs = [AutoencoderCodec.from_pretrained(tmp_path / name / "codec") for name in ("one", "two")]
    facts = read_json(tmp_path / "one" / "run.json")
    # Another decoder, but the same concepts: the data fits it as before.
    assert codecs[0].fingerprint == facts["codec_fingerprint"] == before.fingerprint
    assert codecs[0].weights_fingerprint == codecs[1].weights_fingerprint != before.weights_fingerprint
    assert facts["codec"] == str(tmp_path / "one" / "codec")
    assert torch.equal(codecs[0].encode(["red ball."]), before.encode(["red ball."]))
    text = (["the old bridge and a dog."] * 2, "eng_Latn")
    concepts = before.encode(text[0])
    assert codecs[0].token_loss(concepts, *text).nats.sum() != before.token_loss(concepts, *text).nats.sum()
    assert not any(name.startswith("module.") for name in read_safetensors(tmp_path / "one/model/model.safetensors"))
    parts = load_pipeline(export_run(tmp_path / "one", tmp_path / "pipeline"))
    assert parts.codec.weights_fingerprint == codecs[0].weights_fingerprint


def test_a_decoder_learns_to_find_words_in_the_form(tmp_path, folder):
    """What finds them starts the same in every process and after every stop, and leaves with the run."""
    own = build(tmp_path / "form", width=8, form_dim=8)

    def config(name):
        changed = run(own, tmp_path / name, "through_decoder", train__max_steps=8, optim__lr=1e-2)
        return changed.override("objective.train_decoder=true", "objective.form_reach=5")

    undisturbed = fit(config("one"))
    assert stopped_and_resumed(config("two"), 6) == undisturbed.losses[4:]
    before = AutoencoderCodec.from_pretrained(own / "codec")
    after = AutoencoderCodec.from_pretrained(tmp_path / "one" / "codec")
    assert (before.config.form_reach, after.config.form_reach) == (0, 5)
    assert after.fingerprint == before.fingerprint != after.weights_fingerprint
    starts = []
    for seed in (1, 2):
        again = AutoencoderCodec.from_pretrained(own / "codec")
        torch.manual_seed(seed)
        again.set_form_reach(5)
        assert again.fingerprint == before.fingerprint
        starts.append(again.network.reader.state_dict())
    learnt = after.network.reader.state_dict()
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in learnt)
    assert all(not torch.equal(starts[0][name], learnt[name]) for name in learnt)

    with pytest.raises(ConfigError, match=r"form_reach.*no channels of form"):
        fit(
            run(folder, tmp_path / "no", "through_decoder").override(
                "objective.train_decoder=true", "objective.form_reach=5"
            )
        )
    with pytest.raises(ConfigError, match=r"form_reach.*fewer places.*expected 32; got 40"):
        fit(config("no").override("objective.form_reach=40"))
    with pytest.raises(ConfigError, match="set train_decoder=true"):
        config("no").override("objective.train_decoder=false")


def test_a_token_models_run_makes_no_pipeline(folder, tmp_path):
    from largeconcept.train.export import export_run

    fit(run(folder, tmp_path / "run", "token_lm", train__max_steps=1))
    with pytest.raises(ConfigError, match=r"only concept models make pipelines; got token_lm.*generate\.token_lm"):
        export_run(tmp_path / "run", tmp_path / "pipeline")
    assert not (tmp_path / "pipeline").exists()


@pytest.mark.parametrize("family", ["through_decoder", "token_lm"])
def test_they_train_on_documents_and_pairs_together(folder, tmp_path, family):
    draw = random.Random(0)
    rows = []
    for index in range(20):
        document, summary = ([" ".join(draw.choices(WORDS, k=6)) + "." for _ in range(number)] for number in (4, 1))
        rows.append({"id": f"p{index}", "lang": "eng_Latn", "sentences": document, "target_sentences": summary})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_concepts(tmp_path / "pairs.jsonl", tmp_path / "pairs", str(folder / "codec"))
    plain = run(folder, tmp_path / "run", family, train__max_steps=3).to_dict()
    tasks = [{"path": str(tmp_path / "pairs"), "task": task} for task in ("summarize", "expand")]
    plain["data"]["sources"] = [*plain["data"]["sources"], *tasks]
    result = fit(RunConfig.from_dict({**plain, "validation": None}))
    assert len(result.losses) == 3 and all(loss > 0 for loss in result.losses) and not result.skipped
