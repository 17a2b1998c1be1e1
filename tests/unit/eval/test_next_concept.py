"""Metrics of next-concept prediction, checked with predictors whose scores are known."""

import itertools
import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from conftest_helpers import shown
from rich.console import Console

from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig
from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.baselines import Constant, NearestFollower, TokenGuess, Window, copy_last
from largeconcept.eval.drawing import CANDIDATES, drawn, spread
from largeconcept.eval.held_out import ConceptPool, pools_of_batches, usable_documents
from largeconcept.eval.metrics.concepts import near_in_text
from largeconcept.eval.next_concept import (
    contrastive_accuracy,
    evaluate_next_concept,
    nearest_context,
    score_next_concept,
    through_text,
)
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import MSEConceptModel, MSEConfig, TwoTowerConceptModel, TwoTowerConfig
from largeconcept.models.token_lm import TokenLM, TokenLMConfig

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
    large = score_next_concept(constant, corpus(480), NORMALIZER, pool=50, contrastive_batch=50).scores["model"]["l2"]
    assert small.low < small.mean < small.high
    assert (large.high - large.low) < 0.5 * (small.high - small.low)
    covered = 0
    truth = score_next_concept(
        constant, corpus(1500, seed=99), NORMALIZER, num_bootstrap=1, pool=2, contrastive_batch=2
    ).scores["model"]["l2"]
    for seed in range(30):
        estimate = score_next_concept(
            constant, corpus(40, seed=seed), NORMALIZER, pool=50, contrastive_batch=50, num_bootstrap=300
        ).scores["model"]["l2"]
        covered += estimate.low <= truth.mean <= estimate.high
    assert 24 <= covered <= 30


def test_limit_seed_and_pool():
    documents = [torch.zeros(1, DIM), *corpus()]
    report = score_next_concept(constant, iter(documents), NORMALIZER, limit=10, pool=20)
    assert report.num_documents == 10 and report.pool_size == 20
    again = score_next_concept(constant, documents, NORMALIZER, limit=10, pool=20)
    assert again == report
    assert score_next_concept(constant, documents, NORMALIZER, limit=10, pool=20, seed=1) != report


def test_a_limit_draws_from_the_whole_set():
    chosen = drawn(range(60), 10, seed=0)
    assert chosen == sorted(set(chosen)) and len(chosen) == 10 and chosen[-1] >= 30
    assert drawn(iter(range(60)), 10, seed=0) == chosen != drawn(range(60), 10, seed=1)
    assert [len(drawn(range(60), limit, seed=0)) for limit in (None, 1, 60, 99)] == [60, 1, 60, 60]
    assert max(drawn(itertools.count(), 5, seed=0)) < CANDIDATES  # a large set is not read whole
    times = Counter(one for seed in range(400) for one in drawn(range(8), 2, seed))
    assert sum(times.values()) == 800 and all(70 <= count <= 130 for count in times.values())


def test_row_groups_come_in_an_order_of_the_seed():
    class Groups:
        row_groups = (0, 1, 2, 3, 4)

        def __iter__(self):
            return iter(range(10))

        def documents(self, group):
            return [2 * group, 2 * group + 1]

    orders = [list(spread(Groups(), 3, seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == list(range(10)) and order[1] == order[0] + 1 for order in orders)
    assert list(spread(Groups(), None, 0)) == list(range(10)) == list(spread(iter(range(10)), 3, 0))


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
    assert "round-trip" in shown(report.table())


# --- contrastive accuracy in a batch


def test_the_truth_and_its_neighbours_are_no_distractors_by_hand():
    """Two documents on a line; the paper's batch is all six concepts but the truth and those beside it."""
    left = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    right = torch.tensor([[0.4, 0.0], [9.0, 0.0]])
    identity = ConceptNormalizer.identity(2)

    def predict(x, lengths, ids):
        return torch.tensor([[0.5, 0.0]]).expand_as(x)

    report = score_next_concept(predict, [left, right], identity, num_bootstrap=10)
    # Truth 1 is 0.5 away. Of 3, 0.4 and 9 two are farther. Truth 2 is 1.5 away: of 0, 0.4, 9 only 9 is.
    # Truth 3 is 2.5 away: of 0, 1, 0.4, 9 only 9 is. Truth 9 (its neighbour is 0.4): nothing is farther.
    expected = (2 / 3 + 1 / 3 + 1 / 4 + 0) / 4
    assert report.scores["model"]["contrastive_accuracy_in_batch"].mean == pytest.approx(expected)
    # The fixed pool holds the concepts of the other document alone: of 0.4 and 9 one is farther, three times.
    assert report.scores["model"]["contrastive_accuracy"].mean == pytest.approx((3 * 0.5 + 0) / 4)


def test_who_is_near_in_the_text():
    owners, places = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 3, 1, 2])
    near = near_in_text(0, torch.tensor([1, 3]), owners, places)
    assert near.tolist() == [[True, True, True, False, False, False], [False, False, True, True, False, False]]


def test_batches_hold_two_documents_and_the_last_is_not_tiny():
    def sizes(lengths, size):
        documents = list(usable_documents([torch.randn(n, 4) for n in lengths], 4))
        pools = pools_of_batches(documents, size)
        assert len(pools) == len(lengths)
        return [len(pool.owners) for pool in unique(pools)]

    assert sizes([5, 5, 5, 5], 10) == [10, 10]
    assert sizes([50, 2, 3, 40], 10) == [52, 43]
    assert sizes([5, 5, 5], 10) == [15]  # one document is no batch
    assert sizes([8, 2, 2, 2], 10) == [14]  # less than half a batch is none either
    documents = list(usable_documents([torch.randn(n, 4) for n in (5, 5, 5, 5)], 4))
    last = pools_of_batches(documents, 10)[3]
    assert last.owners.tolist() == [2] * 5 + [3] * 5 and last.places.tolist() == [*range(5)] * 2
    assert torch.equal(last.concepts[5:], documents[3].concepts.double())


def unique(pools):
    return list({id(pool): pool for pool in pools}.values())


def test_concepts_that_are_not_scored_are_no_distractors():
    document = SimpleNamespace(concepts=torch.randn(4, 3), scored=torch.tensor([True, False, True, True]))
    pool = ConceptPool.of(list(usable_documents([document, torch.randn(2, 3)], 3)), first=7)
    assert pool.owners.tolist() == [7, 7, 7, 8, 8] and pool.places.tolist() == [0, 2, 3, 0, 1]


# --- planted predictors


def copying(x, lengths, ids):
    return torch.cat([x[:, :1], x[:, :-1]], dim=1)


def test_planted_predictors_get_what_they_deserve():
    """Documents of small steps: copying knows the subject; a constant and shuffled targets know nothing."""
    documents = corpus(120, step=0.2)
    generator = torch.Generator().manual_seed(3)
    truths = [NORMALIZER.normalize(d) for d in documents]

    def shuffled(x, lengths, ids):
        order = torch.randperm(len(truths), generator=generator).tolist()
        rows = torch.zeros_like(x)
        for row, length in enumerate(lengths.tolist()):
            other = truths[order[row]]
            rows[row, :length] = other[torch.arange(length) % len(other)]
        return rows

    found = {
        name: score_next_concept(predict, documents, NORMALIZER).scores["model"]
        for name, predict in {"oracle": oracle, "copy": copying, "constant": constant, "shuffled": shuffled}.items()
    }
    for name in ("constant", "shuffled"):
        for metric in ("contrastive_accuracy", "contrastive_accuracy_in_batch"):
            assert found[name][metric].mean == pytest.approx(0.5, abs=0.06), (name, metric)
            assert found[name][metric].high < found["copy"][metric].low
    assert found["oracle"]["contrastive_accuracy_in_batch"].mean == 1.0
    assert found["copy"]["paraphrase"].low > 1.0 > found["shuffled"]["paraphrase"].high
    assert found["oracle"]["paraphrase"].mean == pytest.approx(1.0)
    assert found["oracle"]["l2"].high < found["copy"]["l2"].low < found["shuffled"]["l2"].low


# --- baselines


def window(concepts, sentences=None, **more):
    return Window(0, 0, concepts, torch.ones(len(concepts), dtype=torch.bool), sentences, **more)


def test_copying_and_constants():
    concepts = torch.randn(3, 4)
    said = copy_last(window(concepts, ["a", "b", "c"]))
    assert torch.equal(said.concepts, concepts[:2]) and said.sentences == ["a", "b"]
    mean = Constant(torch.arange(4.0))(window(concepts))
    assert mean.concepts.tolist() == [[0, 1, 2, 3]] * 2 and mean.sentences is None


def test_the_follower_of_the_nearest():
    known = NearestFollower(torch.eye(3), torch.eye(3) * 7, ["x", "y", "z"])
    said = known(window(torch.tensor([[0.1, 0.9, 0.0], [2.0, 0.0, 0.1], [0.0, 0.0, 0.0]])))
    assert said.concepts.tolist() == [[0, 7, 0], [7, 0, 0]] and said.sentences == ["y", "x"]
    with pytest.raises(DataError, match="N ≥ 1"):
        NearestFollower(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(DataError, match="sentences"):
        NearestFollower(torch.eye(3), torch.eye(3), ["x"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next_concept")
    texts = [
        {"id": f"d{i}", "lang": "eng_Latn", "sentences": [f"Sentence {i} has part {j}." for j in range(n)]}
        for i, n in enumerate((3, 1, 5, 4))
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    build_concepts(str(folder / "in.jsonl"), folder / "data", codec="toy", split="train")
    return ConceptDataset(folder / "data", "train")


def test_a_look_up_remembers_its_training_data(dataset):
    known = NearestFollower.of(dataset)
    report = score_next_concept(
        constant,
        list(dataset),
        ConceptNormalizer.identity(dataset.dim),
        baselines={"nearest_train": known},
        num_bootstrap=20,
    )
    assert report.scores["nearest_train"]["l2"].mean == pytest.approx(0, abs=1e-3)
    assert report.scores["nearest_train"]["contrastive_accuracy"].mean == 1.0
    assert report.differences["nearest_train"]["l2"].low > 0
    assert len(NearestFollower.of(dataset, limit=3).concepts) == 3
    with pytest.raises(ConfigError, match="limit"):
        NearestFollower.of(dataset, limit=0)


class Words:
    """A tokenizer of whole words."""

    vocab_size = 40

    def __init__(self):
        self.words = ["", "", "", ""]

    def encode(self, texts):
        for word in " ".join(texts).split():
            if word not in self.words:
                self.words.append(word)
        return [[self.words.index(word) for word in text.split()] for text in texts]

    def decode(self, ids):
        return [" ".join(self.words[i] for i in row if i < len(self.words)) for row in ids]


def test_a_token_model_is_scored_by_the_concepts_of_its_sentences():
    torch.manual_seed(0)
    model, tokenizer, codec = (
        TokenLM(TokenLMConfig(vocab_size=40, model_dim=16, num_heads=2, num_layers=1)),
        Words(),
        ToyCodec(),
    )
    sentences = ["it rains .", "it pours .", "it is wet ."]
    said = TokenGuess(model, tokenizer, codec)(window(codec.encode(sentences), sentences, lang="eng_Latn"))
    assert len(said.sentences) == 2 and said.concepts.shape == (2, codec.dim)
    for text, concept in zip(said.sentences, said.concepts, strict=True):
        assert torch.allclose(concept, codec.encode([text if text.strip() else "."])[0])
    with pytest.raises(DataError, match="sentences"):
        TokenGuess(model, tokenizer, codec)(window(codec.encode(sentences)))


def test_sums_of_documents_give_the_scores_again():
    report = score_next_concept(constant, corpus(30), NORMALIZER)
    rows = report.sums["model"]["l2"]
    assert rows.shape == (30, 2)
    assert rows[:, 0].sum() / rows[:, 1].sum() == pytest.approx(report.scores["model"]["l2"].mean)
    assert report.differences["copy_last"]["l2"].p < 0.05  # a constant is nearer than a concept of twice the noise
    assert report.to_dict()["differences"]["copy_last"]["l2"]["p"] == report.differences["copy_last"]["l2"].p
    with pytest.raises(ConfigError, match="neither"):
        report.beats("copy_last", "paraphrase")


def test_through_text_writes_in_the_asked_language_or_the_codecs_own():
    codec = ToyCodec()
    round_trip = through_text(codec)
    concepts = codec.encode(["One sentence.", "Another one."])
    again = round_trip(concepts, [codec.languages[0], "xyz_Latn"])
    assert again.shape == concepts.shape and again.device.type == "cpu"
