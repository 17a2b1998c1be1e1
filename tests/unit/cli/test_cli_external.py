"""Codecs with another's encoder on the command line: bank, train, eval."""

import json

import pytest

from largeconcept.codec import load_codec
from largeconcept.codec.encoders import ENCODERS, wrap_encoder
from largeconcept.codec.toy import ToyCodec

ENGLISH = ["It rains.", "A dog ran home.", "Nobody saw the boat.", "The tower is old."]
GERMAN = ["Es regnet.", "Ein Hund lief heim.", "Niemand sah das Boot.", "Der Turm ist alt."]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    for name, dim in (("mine", 24), ("judge", 40)):
        opened = wrap_encoder(ToyCodec(dim).encode, name=f"external:{name}", languages=["en", "de"])
        monkeypatch.setitem(ENCODERS, name, lambda opened=opened: opened)
    rows = [
        {"id": "a", "lang": "eng_Latn", "sentences": ENGLISH},
        {"id": "a", "lang": "deu_Latn", "sentences": GERMAN},
        {"id": "b", "lang": "eng_Latn", "sentences": [ENGLISH[0], "A" * 500]},
    ]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_bank_and_eval(cli, corpus, tmp_path):
    out = cli("codec", "bank", corpus, "--encoder", "external:mine", "--out", tmp_path / "bank").ok()
    assert out.splitlines()[-1].endswith("eng_Latn 4, deu_Latn 4")
    codec = load_codec(tmp_path / "bank")
    assert codec.decode(codec.encode(GERMAN), "deu_Latn") == GERMAN
    measured = ("codec", "eval", corpus, "--codec", tmp_path / "bank", "--json", "--no-noise")
    report = json.loads(cli(*measured, "--judge", "external:judge").ok())
    german = next(one for one in report["round_trips"] if one["lang"] == "deu_Latn")
    assert german["exact"] == 1 and german["meaning"] == pytest.approx(1) and german["meaning_error"] == 0
    text = cli(*measured[:-2], "--judge", "external:judge", "--no-noise").ok()
    assert "meaning, by the judge" in text
    cli(*measured, "--judge", "external:mine").error("not judged by its own encoder")


def test_a_bank_of_a_concept_dataset_takes_its_concepts(cli, corpus, tmp_path, monkeypatch):
    data = tmp_path / "data"
    cli("data", "build", corpus, "--codec", "external:mine", "--out", data).ok()
    cli("codec", "bank", corpus, "--encoder", "external:mine", "--out", tmp_path / "one").ok()

    def refuse(*given):
        raise AssertionError("encoded again")

    monkeypatch.setattr("largeconcept.codec.encoders.ExternalEncoder.encode", refuse)
    cli("codec", "bank", data, "--encoder", "external:mine", "--out", tmp_path / "two").ok()
    monkeypatch.undo()
    monkeypatch.setitem(ENCODERS, "mine", lambda: wrap_encoder(ToyCodec(24).encode, name="external:mine"))
    one, two = load_codec(tmp_path / "one").decoder, load_codec(tmp_path / "two").decoder
    assert set(two.search(load_codec("external:mine").encode(ENGLISH), "en", 1)[0]) and two.sizes["deu_Latn"] == 4
    assert one.sizes["deu_Latn"] == 4


def test_an_encoder_alone_has_a_retrieval_error_and_writes_nothing(cli, corpus, tmp_path):
    report = json.loads(cli("codec", "eval", corpus, "--codec", "external:mine", "--json").ok())
    assert report["round_trips"] == [] and set(report["xsim"]) and report["translations"] == {}
    cli("encode", "--text", "It rains.", "--codec", "external:mine", "--out", tmp_path / "c.npz").ok()
    cli("decode", tmp_path / "c.npz", "--codec", "external:mine").error("cannot write", "codec bank")


def test_train_a_decoder(cli, corpus, tmp_path):
    settings = ["max_steps=2", "network.width=16", "network.num_heads=2", "network.vocab_size=290", "micro_tokens=64"]
    settings += ["network.decoder_layers=1", "network.max_tokens=32", "network.languages=[eng_Latn, deu_Latn]"]
    out = cli("codec", "train", corpus, *settings, "--encoder", "external:mine", "--out", tmp_path / "run").ok()
    codec = load_codec(tmp_path / "run" / "codec")
    assert codec.fingerprint in out and codec.fingerprint == load_codec("external:mine").fingerprint
    assert len(codec.decode(codec.encode(ENGLISH), "de", max_length=4)) == 4
    train = ("codec", "train", corpus, *settings, "--out", tmp_path / "no")
    cli(*train, "--encoder", "external:nothing").error("no such encoder")
    cli(*train, "start=starter", "--encoder", "external:mine").error("exclude each other")
    assert not (tmp_path / "no").exists()


def test_mistakes_of_bank(cli, corpus, tmp_path):
    bank = ("codec", "bank", "--encoder", "external:mine", "--out", tmp_path / "bank")
    cli(*bank, corpus, "--max-chars", 3).error("no sentence for the bank")
    cli(*bank, tmp_path / "missing.jsonl").error("missing.jsonl")
    (tmp_path / "plain.txt").write_text("It rains.")
    cli(*bank, tmp_path / "plain.txt").error("no language known", "--input-lang")
    assert not (tmp_path / "bank").exists()
