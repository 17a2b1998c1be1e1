"""Metrics of next-concept prediction, checked with predictors whose scores are known."""

import io
import json
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.next_concept import (
    contrastive_accuracy,
    evaluate_next_concept,
    nearest_context,
    score_next_concept,
    through_text,
)
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import MSEConceptModel, MSEConfig, TwoTowerConceptModel, TwoTowerConfig

DIM = 8
NORMALIZER = ConceptNormalizer(NormalizerConfig(dim=DIM), torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))


def corpus(number=60, seed=0, step=1.0):
    """Random walks of 2 to 12 concepts; with a small step, neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 13, (number,), generator=generator).tolist()
    start = torch.randn(number, 1, DIM, generator=generator)
    moves = [torch.randn(n, DIM, generator=generator) * step for n in lengths]
    return [s + m.cumsum(0) if step < 1 else m for s, m in zip(start, moves, strict=True)]


def oracle(x, lengths, sample_ids):
    return x


def constant(x, lengths, sample_ids):
    return torch.ones_like(x)


def of_another_document(x, lengths, sample_ids):
    return x.roll(1, 0).roll(1, 1)


def test_the_oracle_is_always_right():
    report = score_next_concept(oracle, corpus(), NORMALIZER)
    accuracy, l2 = report.scores["model"]["contrastive_accuracy"], report.scores["model"]["l2"]
    assert accuracy.mean == accuracy.low == accuracy.high == 1.0
    assert l2.mean < 1e-6
    assert report.beats("copy_last") and report.beats("copy_last", "l2")


@pytest.mark.parametrize("predict", [constant, of_another_document])
def test_predictions_without_information_are_at_chance(predict):
    report = score_next_concept(predict, corpus(300), NORMALIZER)
    accuracy = report.scores["model"]["contrastive_accuracy"]
    assert accuracy.mean == pytest.approx(0.5, abs=0.03)
    assert accuracy.low < 0.5 < accuracy.high
    assert report.scores["copy_last"]["contrastive_accuracy"].mean == pytest.approx(0.5, abs=0.03)
    assert not report.beats("copy_last") and not report.beats("copy_last", "l2")


def test_baselines():
    documents = corpus(step=0.2)
    mean = torch.cat(documents).mean(0)
    report = score_next_concept(constant, documents, NORMALIZER, training_mean=mean)
    assert report.scores["copy_last"]["contrastive_accuracy"].mean > 0.9
    assert report.scores["training_mean"]["contrastive_accuracy"].mean == pytest.approx(0.5, abs=0.1)
    truths, before = torch.cat([d[1:] for d in documents]), torch.cat([d[:-1] for d in documents])
    expected = {"copy_last": before, "training_mean": mean, "model": NORMALIZER.denormalize(torch.ones(DIM))}
    for name, guess in expected.items():
        assert report.scores[name]["l2"].mean == pytest.approx(float((truths - guess).norm(dim=-1).mean()), rel=1e-5)
    assert report.num_documents == 60 and report.num_predictions == len(truths)
    assert report.pool_size == len(torch.cat(documents))
    same = score_next_concept(lambda x, *_: torch.cat([x[:, :1], x[:, :-1]], 1), documents, NORMALIZER)
    difference = same.differences["copy_last"]["contrastive_accuracy"]
    assert difference.mean == pytest.approx(0, abs=1e-6) and "training_mean" not in same.scores


def test_contrastive_accuracy_by_hand():
    distractors = torch.tensor([[1.0, 0], [0, 2.0], [3.0, 0], [0, -2.0]])
    predicted, truth = torch.zeros(3, 2), torch.tensor([[0.5, 0], [2.5, 0], [2.0, 0]])
    assert contrastive_accuracy(predicted, truth, distractors).tolist() == [1.0, 0.25, 0.5]
    far = torch.full((1, 2), 1e4)
    assert contrastive_accuracy(far, truth[:1] + far, distractors + far).tolist() == [1.0]


def test_distractors_are_of_other_documents():
    """A document that repeats one sentence would otherwise be its own distractor."""
    documents = [torch.full((5, DIM), float(k)) for k in range(4)]
    report = score_next_concept(oracle, documents, NORMALIZER)
    assert report.scores["model"]["contrastive_accuracy"].mean == 1.0


def test_a_sentence_common_to_all_documents_counts_one_half():
    end = torch.full((1, DIM), 9.0)
    documents = [torch.cat([torch.full((1, DIM), float(k)), end]) for k in range(9)]
    report = score_next_concept(oracle, documents, NORMALIZER)
    assert report.scores["model"]["contrastive_accuracy"].mean == pytest.approx(0.75)


def test_batches_and_windows():
    documents = corpus()
    seen = []

    def recording(x, lengths, sample_ids):
        assert x.shape[0] * x.shape[1] <= 24 or x.shape[0] == 1
        seen.extend(zip(sample_ids, lengths.tolist(), strict=True))
        return NORMALIZER.normalize(torch.zeros_like(x))

    calls = []
    small = score_next_concept(
        recording, documents, NORMALIZER, batch_concepts=24, progress=lambda done, total: calls.append((done, total))
    )
    large = score_next_concept(lambda x, *_: NORMALIZER.normalize(torch.zeros_like(x)), documents, NORMALIZER)
    for metric in ("l2", "contrastive_accuracy"):
        assert small.scores["model"][metric].mean == pytest.approx(large.scores["model"][metric].mean, rel=1e-6)
    assert sorted(i for i, _ in seen) == list(range(60))
    assert sorted(n for _, n in seen) == sorted(len(d) for d in documents)
    assert calls[-1] == (small.num_predictions, small.num_predictions) and len(calls) > 10

    cut = score_next_concept(oracle, documents, NORMALIZER, max_length=4)
    expected = sum(len(part) - 1 for d in documents for part in d.split(4))
    assert cut.num_predictions == expected < large.num_predictions
    assert cut.num_documents == 60


def test_intervals_cover_and_shrink():
    small = score_next_concept(constant, corpus(30), NORMALIZER).scores["model"]["l2"]
    large = score_next_concept(constant, corpus(480), NORMALIZER).scores["model"]["l2"]
    assert small.low < small.mean < small.high
    assert (large.high - large.low) < 0.5 * (small.high - small.low)
    covered = 0
    truth = score_next_concept(constant, corpus(1500, seed=99), NORMALIZER, num_bootstrap=1, pool=2).scores["model"][
        "l2"
    ]
    for seed in range(40):
        estimate = score_next_concept(constant, corpus(40, seed=seed), NORMALIZER, pool=50).scores["model"]["l2"]
        covered += estimate.low <= truth.mean <= estimate.high
    assert 33 <= covered <= 40


def test_limit_seed_and_pool():
    documents = [torch.zeros(1, DIM), *corpus()]
    report = score_next_concept(constant, iter(documents), NORMALIZER, limit=10, pool=20)
    assert report.num_documents == 10 and report.pool_size == 20
    again = score_next_concept(constant, documents, NORMALIZER, limit=10, pool=20)
    assert again == report
    assert score_next_concept(constant, documents, NORMALIZER, limit=10, pool=20, seed=1) != report


@pytest.mark.parametrize("family", ["mse", "two_tower"])
def test_real_models(family):
    torch.manual_seed(0)
    sizes = {"concept_dim": DIM, "model_dim": 16, "num_heads": 2, "ffn_dim": 32}
    model = (
        MSEConceptModel(MSEConfig(**sizes, num_layers=1))
        if family == "mse"
        else TwoTowerConceptModel(TwoTowerConfig(**sizes, num_context_layers=1, num_denoiser_layers=1))
    )
    documents = [SimpleNamespace(id=f"d{i}", concepts=d) for i, d in enumerate(corpus(20))]
    options = GenerationOptions(num_inference_steps=4)
    kwargs = {"options": options, "training_mean": torch.zeros(DIM)}
    report = evaluate_next_concept(model, documents, NORMALIZER, **kwargs)
    assert set(report.scores) == {"model", "copy_last", "training_mean"}
    assert report.scores["model"]["contrastive_accuracy"].mean == pytest.approx(0.5, abs=0.2)
    batched = evaluate_next_concept(model, documents, NORMALIZER, batch_concepts=13, **kwargs)
    assert batched.scores["model"]["l2"].mean == pytest.approx(report.scores["model"]["l2"].mean, rel=1e-4)


def test_a_trained_regression_beats_its_baselines():
    """Documents that alternate between two vectors: copying is the worst guess, and the rule is easy to learn."""
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randn(1, DIM, generator=generator) * torch.tensor([1.0, -1.0] * 4)[:, None] for _ in range(80)]
    torch.manual_seed(0)
    model = MSEConceptModel(
        MSEConfig(concept_dim=DIM, model_dim=32, num_heads=2, ffn_dim=64, num_layers=1, dropout=0.0)
    )
    identity = ConceptNormalizer.identity(DIM)
    train = torch.stack(documents[:60])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        (model(train)[:, :-1] - train[:, 1:]).square().mean().backward()
        optimizer.step()
    report = evaluate_next_concept(model, documents[60:], identity, training_mean=train.mean((0, 1)))
    for baseline in ("copy_last", "training_mean"):
        assert report.beats(baseline) and report.beats(baseline, "l2")


def test_report_as_data_and_table():
    report = score_next_concept(oracle, corpus(), NORMALIZER, training_mean=torch.zeros(DIM))
    data = json.loads(json.dumps(report.to_dict()))
    assert data["scores"]["model"]["contrastive_accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert set(data["differences"]) == {"copy_last", "training_mean"}
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(report.table())
    text = console.export_text()
    assert "1.0000 [1.0000, 1.0000]" in text and "training mean" in text and "60 documents" in text


def test_bad_input_is_refused():
    documents = corpus(5)
    with pytest.raises(DataError, match="too few"):
        score_next_concept(oracle, [documents[0], torch.zeros(1, DIM)], NORMALIZER)
    with pytest.raises(DataError, match=r"document 1.*codec"):
        score_next_concept(oracle, [documents[0], torch.zeros(3, DIM + 1)], NORMALIZER)
    with pytest.raises(DataError, match="document x: a concept is not finite"):
        bad = SimpleNamespace(id="x", concepts=torch.full((3, DIM), float("nan")))
        score_next_concept(oracle, [documents[0], bad], NORMALIZER)
    with pytest.raises(DataError, match="training_mean"):
        score_next_concept(oracle, documents, NORMALIZER, training_mean=torch.zeros(DIM + 1))
    for setting in ({"pool": 0}, {"pool": 1}, {"max_length": 1}, {"batch_concepts": 0}, {"num_bootstrap": 0}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            score_next_concept(oracle, documents, NORMALIZER, **setting)


def test_paraphrase_by_hand():
    text = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    guess = torch.tensor([[2.0, 2.0], [-1.0, 0.0]])
    half = 0.5**0.5
    assert nearest_context(guess, text).tolist() == pytest.approx([half, 0.0], abs=1e-7)
    assert nearest_context(text[1:], text).tolist() == pytest.approx([0.0, half], abs=1e-7)


def test_paraphrase_of_copying_is_above_one_and_of_the_truth_is_one():
    texts = [torch.randn(6, 8) + 1.0 for _ in range(5)]
    truth = score_next_concept(lambda x, lengths, ids: x, texts, ConceptNormalizer.identity(8))
    assert truth.scores["model"]["paraphrase"].mean == pytest.approx(1.0)
    assert truth.scores["copy_last"]["paraphrase"].mean > 1.0
    assert "round_trip_l2" not in truth.scores["model"]


def test_round_trip_gets_predictions_in_the_language_of_their_text():
    texts = [
        SimpleNamespace(concepts=torch.randn(n, 8), lang=lang, id=lang) for n, lang in ((4, "deu_Latn"), (3, None))
    ]
    seen = []

    def round_trip(concepts, languages):
        seen.extend(languages)
        return concepts + 1.0

    report = score_next_concept(
        lambda x, lengths, ids: x, texts, ConceptNormalizer.identity(8), round_trip=round_trip, num_bootstrap=10
    )
    assert sorted(map(str, seen)) == ["None"] * 2 + ["deu_Latn"] * 3
    assert report.scores["model"]["l2"].mean == 0.0
    assert report.scores["model"]["round_trip_l2"].mean == pytest.approx(8**0.5)
    assert "round_trip_l2" not in report.scores["copy_last"]
    assert "round-trip" in text_of(report)


def text_of(report):
    from rich.console import Console

    console = Console(width=250, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_through_text_writes_in_the_asked_language_or_the_codecs_own():
    codec = ToyCodec()
    round_trip = through_text(codec)
    concepts = codec.encode(["One sentence.", "Another one."])
    again = round_trip(concepts, [codec.languages[0], "xyz_Latn"])
    assert again.shape == concepts.shape and again.device.type == "cpu"
