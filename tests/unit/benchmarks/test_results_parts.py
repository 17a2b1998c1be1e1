"""Measuring for the page of results: what is kept, under which key, and on which sentences and pairs."""

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import results
from results_parts import codec_parts, model_parts
from results_parts.codec_parts import MeaningOnly, between, wrong, wrong_by_cosine
from results_parts.inputs import Inputs, Limits
from results_parts.page import page
from results_parts.parts import PARTS
from results_parts.store import Store

from largeconcept.codec.encoders import wrap_encoder
from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.errors import ConfigError, DataError
from largeconcept.hub import PromptRecord
from largeconcept.types import Document

WORDS = {
    "eng_Latn": ["red", "house", "stands", "near", "water", "green", "trees"],
    "deu_Latn": ["rotes", "Haus", "steht", "beim", "Wasser", "grüne", "Bäume"],
    "fra_Latn": ["rouge", "maison", "debout", "près", "eau", "verts", "arbres"],
}


SMALL = Limits(sentences=8, noisy=4, translated=6, searched=20, documents=5, texts=3, samples=1, beams=1)


def said(lang, number, length=5):
    """A sentence of its own for every number; the same number means the same in all languages."""
    words = WORDS[lang]
    return " ".join(words[(number * 3 + i * (number % 4 + 1)) % len(words)] for i in range(length)) + f" {number}."


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared corpus: held-out documents of three languages, and pairs."""
    folder = tmp_path_factory.mktemp("prepared")
    documents = folder / "documents" / "test"
    documents.mkdir(parents=True)
    for lang in WORDS:
        with gzip.open(documents / f"src.{lang}.jsonl.gz", "wt", encoding="utf-8") as file:
            for d in range(5):
                row = {
                    "id": f"d{d}",
                    "lang": lang,
                    "source": "src",
                    "sentences": [*(said(lang, 10 * d + i) for i in range(5)), said(lang, 10 * d + 7, 26)],
                    "summary": said(lang, 10 * d + 9),
                }
                file.write(json.dumps(row) + "\n")
    (folder / "pairs").mkdir()
    lines = [
        f"src\t{lang}\t{said('eng_Latn', i)}\t{said(lang, i)}" for lang in ("deu_Latn", "fra_Latn") for i in range(9)
    ]
    lines += [
        f"src\tdeu_Latn\t{said('eng_Latn', 50)}\t{said('eng_Latn', 50)}",  # not translated
        f"src\tdeu_Latn\t{said('eng_Latn', 51)}\t{said('deu_Latn', 1).upper()}",  # there already
        f"src\tdeu_Latn\t{said('eng_Latn', 52)}\t{'x' * 300}",  # too long
        f"src\tjpn_Jpan\t{said('eng_Latn', 1)}\t犬",  # not of the codec
    ]
    with gzip.open(folder / "pairs" / "test.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def make_inputs(prepared, make_pipeline, tmp_path, monkeypatch):
    """Return a function from limits to inputs with a toy codec, a random model and a judge that knows the languages."""
    known = [said(lang, i, length) for lang in WORDS for i in range(70) for length in (5, 26)]
    codec = ToyCodec(16, known)
    codec.languages = tuple(WORDS)
    meaning = {said(lang, i): i for lang in WORDS for i in range(70)}

    def judged(texts):
        rows = torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(len(text))) for text in texts])
        for row, text in zip(rows, texts, strict=True):
            if text in meaning:
                row.copy_(torch.randn(16, generator=torch.Generator().manual_seed(1000 + meaning[text])))
        return rows

    folder = tmp_path / "pipeline"
    pipe = make_pipeline("mse", codec=codec)
    pipe.prompts = {"summarize": PromptRecord(), "expand": PromptRecord()}
    for name, text in (("pipeline.json", '{"card": {"title": "x"}}'), ("model.safetensors", "weights")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    def make(limits=SMALL, **places):
        made = Inputs(folder, prepared, limits=limits, **places)
        made.__dict__.update(codec=codec, model=pipe, judge=wrap_encoder(judged))
        return made

    return make


def key_of(inputs, part="writing"):
    one = PARTS[part]
    return Store(Path("nowhere"), inputs).key(part, one.version, one.uses, one.limits)


def test_pairs_are_translations_and_each_text_is_there_once(make_inputs):
    inputs = make_inputs()
    rows = inputs.shared_pairs("eng_Latn", "deu_Latn", 100)
    assert len(rows) == 9 and said("eng_Latn", 50) not in {row[0] for row in rows}
    assert len({row[2].casefold() for row in rows}) == len(rows) == 9
    # Two other languages share sentences through English.
    assert {(a.split()[-1], b.split()[-1]) for _, a, b in inputs.shared_pairs("deu_Latn", "fra_Latn", 4)} <= {
        (f"{i}.", f"{i}.") for i in range(9)
    }
    assert len(inputs.shared_pairs("deu_Latn", "fra_Latn", 4)) == 4
    assert "jpn_Jpan" not in {lang for row in inputs.pairs.values() for lang in row}


def test_the_seed_draws_the_order(make_inputs):
    first, again, other = make_inputs(), make_inputs(), make_inputs()
    object.__setattr__(other, "seed", 5)
    assert list(first.pairs) == list(again.pairs) != list(other.pairs)
    assert set(first.pairs) == set(other.pairs)


def test_sentences_are_taken_by_their_length():
    documents = [Document(id="a", sentences=("a" * 3, "b" * 120, "c" * 121)), Document(id="b", sentences=("d" * 500,))]
    assert [one.sentences for one in between(documents, 0, 120)] == [("a" * 3, "b" * 120)]
    assert [one.sentences for one in between(documents, 120, 200)] == [("c" * 121,)]


def test_keys_change_with_what_a_part_depends_on_and_with_nothing_else(make_inputs):
    base = make_inputs()
    assert key_of(base) == key_of(make_inputs())
    assert key_of(make_inputs(replace(base.limits, texts=2))) != key_of(base)
    assert key_of(make_inputs(replace(base.limits, searched=2))) == key_of(base)
    (base.pipeline / "pipeline.json").write_text('{"card": {"title": "another"}}')
    assert key_of(make_inputs()) == key_of(base), "a card changes no figure"
    (base.pipeline / "pipeline.json").write_text('{"generation": {"guidance_scale": 3}}')
    assert key_of(make_inputs()) != key_of(base)
    (base.pipeline / "pipeline.json").write_text('{"card": {"title": "x"}}')
    (base.pipeline / "model.safetensors").write_text("other weights")
    assert key_of(make_inputs()) != key_of(base)
    seeded = make_inputs()
    object.__setattr__(seeded, "seed", 1)
    (base.pipeline / "model.safetensors").write_text("weights")
    assert key_of(seeded) != key_of(base)


def test_a_part_is_measured_once_and_goes_on_where_it_was_killed(make_inputs, tmp_path):
    inputs, calls = make_inputs(), []
    store = Store(tmp_path / "out", inputs, lambda line: None)

    def measure(piece, broken):
        def second():
            if broken:
                raise KeyboardInterrupt
            calls.append("second")
            return 2

        return [piece("first", lambda: calls.append("first") or 1), piece("the second", second)]

    with pytest.raises(KeyboardInterrupt):
        store.once("noise", "k1", lambda piece: measure(piece, True))
    assert store.find("noise", "k1") is None
    assert store.once("noise", "k1", lambda piece: measure(piece, False))["data"] == [1, 2]
    assert calls == ["first", "second"]
    assert store.once("noise", "k1", lambda piece: pytest.fail("measured again"))["data"] == [1, 2]
    assert store.find("noise", "k2") is None


def test_a_result_under_another_name_is_not_taken(make_inputs, tmp_path):
    store = Store(tmp_path / "out", make_inputs(), lambda line: None)
    record = store.once("noise", "k1", lambda piece: 1)
    store.path("noise", "k2").write_text(json.dumps(record))
    assert store.find("noise", "k2") is None


def test_zeroed_form_leaves_the_meaning():
    codec = ToyCodec(16, ["A ball.", "A dog."])
    bare = MeaningOnly(codec, 4).encode(["A ball."])
    assert torch.equal(bare[:, :12], codec.encode(["A ball."])[:, :12]) and not bare[:, 12:].any()
    assert codec.encode(["A ball."])[:, 12:].any(), "the codec's own concepts stay as they are"


def test_search_counts_what_is_not_found():
    here = torch.eye(4)
    assert not wrong(here, here.clone()).any() and not wrong_by_cosine(here, 3 * here).any()
    swapped = here[[1, 0, 2, 3]]
    assert wrong(here, swapped).tolist() == wrong_by_cosine(here, swapped).tolist() == [True, True, False, False]


def test_every_part_is_measured_and_drawn(make_inputs, prepared, tmp_path, monkeypatch):
    inputs = make_inputs()
    data = tmp_path / "data"
    for split, first in (("train", 20), ("test", 0)):
        rows = [
            {"id": f"{split}{d}", "lang": "eng_Latn", "sentences": [said("eng_Latn", first + d + i) for i in range(4)],
             "summary": said("eng_Latn", first + d)}
            for d in range(4)
        ]  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        build_concepts(tmp_path / f"{split}.jsonl", data, codec=inputs.codec, split=split)
    inputs = make_inputs(data=data, english_only=inputs.pipeline, float_pipeline=None)
    monkeypatch.setattr("largeconcept.eval.predictors.open_pipeline", lambda *_, **__: inputs.model)
    monkeypatch.setattr(model_parts, "_opened", lambda folder: [[1.0, 1.0]] * 3)
    monkeypatch.setattr(codec_parts, "STRENGTHS", (0.0, 0.3))
    store = Store(tmp_path / "out", inputs, lambda line: None)
    found = results.measured(inputs, store, list(PARTS))
    assert list(found) == list(PARTS)

    # The toy codec remembers what it read, word for word; the judge says that this is the same meaning.
    short = found["round_trip"]["data"]["classes"]["short"]["deu_Latn"]
    assert short["n"] == 8 and short["scores"]["exact"]["value"] == 1
    assert short["scores"]["meaning"]["value"] == pytest.approx(1)
    assert found["noise"]["data"]["languages"]["fra_Latn"]["scores"]["auto_bleu/0"]["value"] == pytest.approx(100)
    # It cannot translate, and its search goes by letters; the judge finds all.
    pair = found["translation"]["data"]["pairs"]["eng_Latn deu_Latn"]
    assert pair["n"] == 6 and pair["chrf"]["value"] == pytest.approx(pair["copy"]["value"])
    assert pair["meaning_human"]["value"] > pair["meaning_other"]["value"] + 0.3
    searched = found["search"]["data"]["pairs"]["eng_Latn deu_Latn"]
    assert searched["judge"]["margin"]["both"]["value"] < 20 < searched["ours"]["margin"]["both"]["value"]
    assert found["next_concept"]["data"]["task"]["n"] == 4
    scores = found["writing"]["data"]["languages"]["eng_Latn"]["tasks"]["summarize"]["scores"]
    assert {"model", "lead_1", "lead_3", "copy_last", "nearest_train", "shuffled", "reference"} == set(scores)
    assert scores["reference"]["rouge_l"]["value"] == pytest.approx(100)
    items = found["writing"]["data"]["languages"]["deu_Latn"]["items"]["summarize"]
    assert len(items["ids"]) == 3 == len(items["model"]["rouge_l"])
    assert items["ids"] == found["zero_shot"]["data"]["deu_Latn"]["items"]["ids"]
    assert found["writing"]["data"]["into"]["tasks"]["summarize_into"]["n"] == 3
    text, images = page(found, str)
    assert len(images) == 3 and "Not measured." not in text and str(tmp_path) not in text

    again = results.measured(inputs, store, list(PARTS), only_read=True)
    assert page(again, str) == (text, images)


def test_what_was_not_given_is_left_out(make_inputs, tmp_path):
    said_lines = []
    store = Store(tmp_path, make_inputs(), said_lines.append)
    assert results.measured(store.inputs, store, ["next_concept", "zero_shot"]) == {}
    assert said_lines == ["next_concept: left out, without --data", "zero_shot: left out, without --english-only"]
    with pytest.raises(ConfigError, match="--float"):
        store.inputs.need("float_pipeline")


def test_held_out_documents_must_be_there(make_inputs, tmp_path):
    inputs = make_inputs()
    object.__setattr__(inputs, "prepared", tmp_path)
    with pytest.raises(DataError, match="no held-out documents"):
        inputs.document_files()


def test_the_command_names_no_folder_of_this_machine():
    given = results.arguments(["--prepared", "/home/me/p", "--data", "d", "--texts", "40", "--seed", "2"])
    assert results.command_of(given) == (
        "python benchmarks/results.py --pipeline default --prepared PREPARED --data DATA --texts 40 --seed 2"
    )
    given = results.arguments(["--pipeline", "/p", "--float", "/f", "--limit", "7"])
    assert results.command_of(given) == "python benchmarks/results.py --pipeline PIPELINE --float FLOAT --limit 7"


def test_the_command_of_a_part_names_what_it_uses():
    given = results.arguments(
        ["--prepared", "p", "--data", "d", "--english-only", "e", "--texts", "40", "--searched", "50"]
    )
    assert results.command_of(given, "search") == (
        "python benchmarks/results.py --pipeline default --prepared PREPARED --searched 50 --part search"
    )
    assert results.command_of(given, "zero_shot").splitlines() == [
        "python benchmarks/results.py --pipeline default --prepared PREPARED --data DATA \\",
        "    --english-only ENGLISH_ONLY --texts 40 --part zero_shot",
    ]
    # What the shorter command finds is what the longer one has measured.
    short = results.arguments(["--prepared", "p", "--searched", "50"])
    assert all(results.command_of(one, "search") == results.command_of(short, "search") for one in (given, short))


def test_a_limit_makes_every_part_small():
    assert Limits().at_most(None) == Limits()
    small = Limits(texts=3).at_most(7)
    assert (small.sentences, small.noisy, small.texts, small.beams, small.samples) == (7, 7, 3, 4, 2)
