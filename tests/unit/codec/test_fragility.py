import json
import math

import pytest
import torch

from largeconcept.codec.fragility import FragilityScorer, measure_fragility, measure_to_file
from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import CheckpointError, ConfigError, DataError


class SignCodec:
    """Writes "plus" or "minus" by the sign of channel 0; sentences are "plus 0.7 12": sign, size, number."""

    dim, languages, fingerprint = 2, ("eng_Latn", "deu_Latn"), "signs"

    def __init__(self):
        self.asked = []

    def encode(self, sentences, lang=None, *, batch_tokens=8192):
        rows = [sentence.split() for sentence in sentences]
        return torch.tensor([[float(size) * (1 if sign == "plus" else -1), 0.0] for sign, size, _ in rows])

    def decode(self, concepts, lang, **settings):
        self.asked.append((list(lang), settings))
        return ["plus" if value > 0 else "minus" for value in concepts[:, 0].tolist()]


NORMALIZER = ConceptNormalizer(NormalizerConfig(dim=2), torch.zeros(2), torch.tensor([2.0, 1.0]))


def same_sign(written, sentences):
    return [float(one == other.split()[0]) for one, other in zip(written, sentences, strict=True)]


def test_it_is_the_papers_formula():
    """A sign survives with probability Φ(sqrt(1 - alpha) z / sqrt(alpha)) for a normalised value z."""
    sentences = [f"{sign} 1.0 {n}" for n in range(1500) for sign in ("plus", "minus")]
    alphas = (0.1, 0.5, 0.8)
    found = measure_fragility(SignCodec(), sentences, "eng_Latn", NORMALIZER, alphas=alphas, score=same_sign)
    z = 1.0 / 2.0
    expected = [0.5 * (1 + math.erf(math.sqrt((1 - a) / a) * z / math.sqrt(2))) for a in alphas]
    assert found.scores.mean(0).tolist() == pytest.approx(expected, abs=0.025)
    assert torch.allclose(found.values, -found.scores.mean(1))
    assert float(found.values.min()) == -1.0 and float(found.values.max()) == 0.0
    assert found.concepts.shape == (3000, 2) and found.alphas == alphas


def test_a_sentence_has_its_own_noise_whatever_the_batch():
    codec, sentences = SignCodec(), [f"plus 0.3 {n}" for n in range(40)]
    langs = ["eng_Latn", "deu_Latn"] * 20
    settings = {"score": same_sign, "alphas": (0.3, 0.9)}
    whole = measure_fragility(codec, sentences, langs, NORMALIZER, **settings)
    assert 0.2 < float(whole.scores.mean()) < 0.95
    parts = measure_fragility(codec, sentences[::-1], langs[::-1], NORMALIZER, batch=7, **settings)
    assert torch.equal(parts.scores.flip(0), whole.scores)
    other = measure_fragility(codec, sentences, langs, NORMALIZER, seed=1, **settings)
    assert not torch.equal(other.scores, whole.scores)
    assert codec.asked[0][0] == langs and codec.asked[0][1] == {"method": "greedy"}


def test_named_scores_lie_between_zero_and_one():
    texts = [f"The {a} {b} went to the {c}." for a in ("old", "red") for b in ("dog", "cow") for c in ("mill", "lake")]
    seen = []
    for score in ("auto_bleu", "chrf"):
        found = measure_fragility(
            ToyCodec(), texts, "eng_Latn", score=score, alphas=(0.0, 0.99), on_progress=lambda *at: seen.append(at)
        )
        assert found.scores[:, 0].tolist() == pytest.approx([1.0] * 8)
        assert float(found.scores.min()) >= 0.0 and float(found.scores[:, 1].mean()) < 0.9
    assert seen[-1] == (16, 16)


def test_a_killed_measurement_goes_on(tmp_path, monkeypatch):
    rows = [(f"plus 0.3 {n}", ("eng_Latn", "deu_Latn")[n % 2]) for n in range(50)]
    path, seen = tmp_path / "new" / "scores.jsonl", []
    settings = {"alphas": (0.3, 0.8), "group": 10, "on_progress": lambda *at: seen.append(at)}
    monkeypatch.setattr("largeconcept.codec.fragility._scored", lambda score, *rest: torch.tensor(same_sign(*rest[:2])))
    whole = measure_to_file(SignCodec(), rows, tmp_path / "whole.jsonl", NORMALIZER, **settings)
    assert seen[-1] == (100, 100)

    class Killed(SignCodec):
        def decode(self, *args, **keywords):
            if len(self.asked) == 5:  # two levels for each of two groups, and one
                raise KeyboardInterrupt
            return super().decode(*args, **keywords)

    with pytest.raises(KeyboardInterrupt):
        measure_to_file(Killed(), rows, path, NORMALIZER, **settings)
    assert not path.exists() and len(list(path.parent.iterdir())) == 1
    (part,) = path.parent.iterdir()
    part.write_text(part.read_text() + '{"row": ["half a li')
    codec, seen[:] = SignCodec(), []
    again = measure_to_file(codec, rows, path, NORMALIZER, **settings)
    assert sum(len(langs) for langs, _ in codec.asked) == 2 * 30 and seen[0] == (50, 100)
    assert torch.equal(again.scores, whole.scores) and torch.equal(again.concepts, whole.concepts)
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text() and len(list(path.parent.iterdir())) == 1

    with pytest.raises(KeyboardInterrupt):
        measure_to_file(Killed(), rows, path, NORMALIZER, **settings)
    codec = SignCodec()
    measure_to_file(codec, rows, path, NORMALIZER, **settings, seed=1)  # other settings begin anew
    assert sum(len(langs) for langs, _ in codec.asked) == 2 * 50


def linear_data(number=600, noise=0.0):
    generator = torch.Generator().manual_seed(2)
    concepts = 3.0 * torch.randn(number, 12, generator=generator) + 1.0
    direction = torch.randn(12, generator=generator)
    hidden = (concepts - 1.0) @ direction / 12 + noise * torch.randn(number, generator=generator)
    return concepts, torch.sigmoid(hidden) - 1.0


def test_the_scorer_learns_what_concepts_tell():
    concepts, values = linear_data()
    scorer, fit = FragilityScorer.fit(concepts, values, steps=400)
    assert fit.r2 > 0.85 and fit.correlation > 0.93, fit
    assert (fit.num_held_out, fit.num_train) == (120, 480)
    predicted = scorer(concepts)
    assert predicted.shape == (600,) and not predicted.requires_grad
    assert float((predicted - (1 + values)).abs().mean()) < 0.05
    assert scorer(concepts.view(20, 30, 12)).shape == (20, 30)


def test_the_scorer_reports_that_there_is_nothing_to_learn():
    concepts, values = linear_data()
    shuffled = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(1))]
    _, fit = FragilityScorer.fit(concepts, shuffled, steps=300)
    assert fit.r2 < 0.1 and abs(fit.correlation) < 0.3, fit


def test_fitting_repeats_and_leaves_the_global_generator_alone(tmp_path):
    concepts, values = linear_data(100)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, fit = FragilityScorer.fit(concepts, values, steps=50, metadata={"codec": "x"})
    assert torch.equal(torch.rand(3), expected)
    second, again = FragilityScorer.fit(concepts, values, steps=50)
    assert torch.equal(first(concepts), second(concepts)) and fit == again
    first.save_pretrained(tmp_path)
    loaded = FragilityScorer.from_pretrained(tmp_path)
    assert torch.equal(loaded(concepts), first(concepts)) and not loaded.training
    assert loaded.config == first.config and loaded.config.metadata["codec"] == "x"
    assert loaded.config.metadata["fit"]["r2"] == fit.r2
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_mean_weight_is_that_of_the_fitted_concepts():
    concepts, values = linear_data()
    scorer, _ = FragilityScorer.fit(concepts, values, steps=300)
    exact = torch.sigmoid(-4.0 * scorer(concepts) + 3.5).mean()
    assert scorer.mean_weight(-4.0, 3.5) == pytest.approx(float(exact), abs=0.02)


def test_mistakes_are_one_clear_error(tmp_path):
    codec = SignCodec()
    with pytest.raises(DataError, match="one language for each"):
        measure_fragility(codec, [], "eng_Latn", NORMALIZER)
    with pytest.raises(DataError, match="one language for each"):
        measure_fragility(codec, ["plus 1 1"], ["eng_Latn", "eng_Latn"], NORMALIZER)
    for alphas in ((), (1.5,), (-0.1,)):
        with pytest.raises(ConfigError, match="alphas"):
            measure_fragility(codec, ["plus 1 1"], "eng_Latn", NORMALIZER, alphas=alphas)
    with pytest.raises(ConfigError, match=r"score.*did you mean chrf"):
        measure_fragility(codec, ["plus 1 1"], "eng_Latn", NORMALIZER, score="chr")
    with pytest.raises(DataError, match="score is not one number"):
        measure_fragility(codec, ["plus 1 1"], "eng_Latn", NORMALIZER, score=lambda a, b: [2.0])
    concepts, values = linear_data(30)
    with pytest.raises(DataError, match="too few"):
        FragilityScorer.fit(concepts[:10], values[:10])
    with pytest.raises(DataError, match="outside of -1 to 0"):
        FragilityScorer.fit(concepts, -values)
    scorer, _ = FragilityScorer.fit(concepts, values, steps=5)
    with pytest.raises(DataError, match="another dimension"):
        scorer(torch.zeros(2, 5))
    with pytest.raises(CheckpointError, match="no such folder"):
        FragilityScorer.from_pretrained(tmp_path / "none")
    (tmp_path / "config.json").write_text(json.dumps({"type": "mse"}))
    with pytest.raises(CheckpointError, match="not a fragility scorer"):
        FragilityScorer.from_pretrained(tmp_path)


def test_the_verb(cli, toy_codec, tmp_path):
    texts = [f"The {a} {b} went {c} times." for a in ("old", "red") for b in ("dog", "cow") for c in range(20)]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"id": "a", "sentences": texts, "lang": "en"}) + "\n")
    out = cli("codec", "fragility", path, "--codec", toy_codec, "--out", tmp_path / "out", "--limit", 40).ok()
    assert "most fragile" in out and "correlation" in out and "held-out" in out
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 40 and lines[0]["lang"] == "eng_Latn" and len(lines[0]["scores"]) == 9
    assert all(one["fragility"] == pytest.approx(-sum(one["scores"]) / 9) for one in lines)
    scorer = FragilityScorer.from_pretrained(tmp_path / "out" / "scorer")
    assert scorer.config.metadata["alphas"] == pytest.approx([n / 10 for n in range(1, 10)])
    found = json.loads(
        cli("codec", "fragility", path, "--codec", toy_codec, "--out", tmp_path / "o2", "--json", "--levels", 3).ok()
    )
    assert [alpha for alpha, _ in found["curve"]] == [0.25, 0.5, 0.75] and found["sentences"] == 80
    cli("codec", "fragility", path, "--codec", toy_codec, "--out", tmp_path / "o", "--score", "bleu").error("auto_bleu")
    cli("codec", "fragility", path, "--codec", toy_codec, "--out", tmp_path / "o", "--limit", 5).error("too few")
