"""Training is counted as torch counts what really runs, and a token model gets as many operations."""

import pytest
import torch
from letter_tokenizer import LetterTokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_data import DIM, build_toy_dataset, toy_run
from variants import SMALL

from largeconcept.codec import load_codec
from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.data.reader import ConceptDataset
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError
from largeconcept.eval.cost import codec_flops
from largeconcept.eval.training_cost import Batch, run_flops, sentence_flops, step_flops
from largeconcept.models import build_model
from largeconcept.models.registry import model_config
from largeconcept.nn.residual_vq import QuantizerConfig, ResidualVectorQuantizer
from largeconcept.objectives import build_objective, default_objective
from largeconcept.objectives.through_decoder import (
    ThroughDecoderObjective,
    ThroughDecoderObjectiveConfig,
    as_decoder,
)
from largeconcept.objectives.token_lm import TokenLMObjective, TokenLMObjectiveConfig
from largeconcept.train.config import RunConfig
from largeconcept.types import ConceptBatch

CASES = [name for name, config in SMALL.items() if config["type"] not in ("token_lm", "through_decoder")]
"""The objectives of the others need a codec."""
WIDE = {"model_dim": 64, "num_heads": 4}
"""What is counted in passing (embeddings of time, searches) weighs little, as in models of a usual size."""


def wider(plain: dict) -> dict:
    if plain["type"] == "planning":
        return {**plain, "body": wider(plain["body"])}
    return {**plain, **WIDE}


def model_of(name):
    config = model_config(wider(SMALL[name]))
    model = build_model(config)
    if config.type == "quantized":
        sizes = {"num_quantizers": config.num_quantizers, "codebook_size": config.codebook_size}
        quantizer = ResidualVectorQuantizer(QuantizerConfig(dim=config.concept_dim, **sizes))
        quantizer.codebooks.normal_()
        model.set_codebooks(quantizer)
    return config, model


def batch_of(rows, length, source=None):
    lengths = torch.full((rows,), length)
    sources = None if source is None else torch.full((rows,), source)
    return ConceptBatch(torch.randn(rows, length, DIM), lengths, torch.arange(rows), sources)


def counted(work):
    """Operations of torch's own products; causal ones count as squares."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


@pytest.fixture(autouse=True)
def _own_products(monkeypatch):
    """The counter does not know those of oneDNN."""
    monkeypatch.setattr("largeconcept.nn.linear.has_onednn", lambda: False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("source", [None, 6])
def test_a_step_is_counted_as_it_runs(name, source):
    torch.manual_seed(0)
    config, model = model_of(name)
    chosen = default_objective(config)
    objective = build_objective(chosen, ConceptNormalizer.identity(DIM))
    batch = batch_of(8, 24, source)
    sizes = Batch(8, 24, 24 if source is None else 24 - source, source is not None)
    runs = counted(lambda: objective(model, batch, StepRandom(0, 1)).sum.backward())
    found = step_flops(config, sizes, chosen, causal_half=False)
    assert found == pytest.approx(runs, rel=0.04)
    assert step_flops(config, sizes, chosen) < found  # half of the causal products


SENTENCES = [["the rain falls", "a dog runs", "so do i"], ["red", "the old bridge and a ball"]]


def text_batch():
    lengths = torch.tensor([3, 2])
    return ConceptBatch(
        torch.randn(2, 3, DIM), lengths, torch.arange(2), sentences=SENTENCES, languages=["eng_Latn"] * 2
    )


def test_a_token_model_is_counted_as_it_runs():
    config = model_config({**SMALL["token_lm"], **WIDE})
    objective = TokenLMObjective(TokenLMObjectiveConfig(), tokenizer=LetterTokenizer())
    model = build_model(config)
    runs = counted(lambda: objective(model, text_batch(), StepRandom(0, 1)).sum.backward())
    scored = [sum(len(sentence) + 1 for sentence in row) for row in SENTENCES]
    sizes = Batch(2, 1 + max(scored), sum(scored))
    assert step_flops(config, sizes, causal_half=False) == pytest.approx(runs, rel=0.01)


@pytest.mark.parametrize("source", [None, 1])
@pytest.mark.parametrize("round_trip", [0.0, 0.4])
@pytest.mark.parametrize(("family", "learns"), [("through_decoder", False), ("through_decoder", True), ("mse", True)])
def test_the_decoder_that_is_trained_through_counts_too(family, learns, round_trip, source):
    """Whatever family goes through it, with sentences from their own concepts beside, of documents and of pairs."""
    codec = load_codec("starter")
    config = model_config({**SMALL[family], **WIDE, "concept_dim": codec.dim})
    again = {"round_trip": round_trip, "round_trip_share": 0.7}
    chosen = ThroughDecoderObjectiveConfig(mse_weight=1.0, train_decoder=learns, **again)
    objective = ThroughDecoderObjective(
        chosen, ConceptNormalizer.identity(codec.dim), as_decoder(codec, "", train=learns)
    )
    model = build_model(config)
    sentence = "The old bridge fell into the river."
    tokens = len(codec.tokenizer.encode([sentence])[0])
    batch = ConceptBatch(
        torch.randn(1, 4, codec.dim),
        torch.tensor([4]),
        torch.arange(1),
        sentences=[[sentence] * 4],
        languages=["eng_Latn"],
        source_lengths=None if source is None else torch.tensor([source]),
    )
    runs = counted(lambda: objective(model, batch, StepRandom(0, 1)).sum.backward())
    each = sentence_flops(codec.config, tokens)
    sizes = Batch(1, 4, 4) if source is None else Batch(1, 4, 4 - source, True)
    found = step_flops(config, sizes, chosen, sentence=each, causal_half=False)
    assert found == pytest.approx(runs, rel=0.02)
    with pytest.raises(ConfigError, match="the decoder's cost"):
        step_flops(config, sizes, chosen)


def test_a_run_is_its_steps(tmp_path):
    data = build_toy_dataset(tmp_path)
    config = RunConfig.from_dict(toy_run(data, tmp_path / "run"))
    found = run_flops(config)
    assert found.steps == 12 and found.training == round(12 * found.per_step)
    assert found.encoding is None  # what the toy codec costs is not known
    # Two micro-batches of at most 48 concepts, four rows of twelve or more rows of fewer.
    most = 2 * step_flops(config.model, Batch(4, 12, 12))
    assert 0.6 * most < found.per_step < 1.1 * most
    twice = run_flops(config.override("train.max_steps=24"))
    assert twice.training == pytest.approx(2 * found.training, rel=0.05)


def test_encoding_is_counted_once_for_each_sentence_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("largeconcept.eval.training_cost.ENOUGH_CONCEPTS", 2000)
    data = build_toy_dataset(tmp_path)
    config = RunConfig.from_dict(toy_run(data, tmp_path / "run", train__max_steps=1000))
    codec = load_codec("starter")
    dataset = ConceptDataset(data, "train")
    texts = [text for document in dataset for text in document.sentences]
    tokens = sum(map(len, codec.tokenizer.encode(texts))) / len(texts)
    each = codec_flops(codec.config, round(tokens), causal_half=True).encode
    assert run_flops(config, codec).encoding == pytest.approx(dataset.num_concepts * each, rel=0.2)
    several = config.to_dict()
    several["data"]["sources"] = [{**several["data"]["sources"][0], "weight": weight} for weight in (1.0, 2.0)]
    assert run_flops(RunConfig.from_dict(several), codec).encoding == run_flops(config, codec).encoding
    few = run_flops(config.override("train.max_steps=1"), codec)
    assert few.encoding < 0.5 * run_flops(config, codec).encoding


def test_what_is_not_known_is_said():
    with pytest.raises(ConfigError, match="not known"):
        step_flops(RunConfig, Batch(1, 2, 2))
