from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from largeconcept.codec import load_codec
from largeconcept.codec.encoders import ExternalEncoder, wrap_encoder
from largeconcept.codec.network import AutoencoderConfig
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.errors import ConfigError, DataError, LanguageError, TrainingError
from largeconcept.train.codec_job import parallel_pairs, read_pairs, train_codec
from largeconcept.train.codec_trainer import BatchSampler, CodecTrainConfig, CodecTrainer
from largeconcept.types import Document

NETWORK = AutoencoderConfig(
    dim=16,
    width=32,
    num_heads=2,
    vocab_size=300,
    max_tokens=16,
    encoder_layers=1,
    decoder_layers=1,
    pooling_heads=2,
    memory_tokens=2,
    languages=("eng_Latn", "deu_Latn"),
)


def make_table(rows: int = 200) -> SentenceTable:
    rng = np.random.default_rng(0)
    sentences = []
    for i in range(rows):
        length = int(rng.integers(2, 15))
        word = "".join(chr(int(c)) for c in rng.integers(4, 120, length))
        sentences.append(("eng_Latn" if i % 4 else "deu_Latn", word))
    english = [t for lang, t in sentences if lang == "eng_Latn"]
    german = [t for lang, t in sentences if lang == "deu_Latn"]
    pairs = [("eng_Latn", a, "deu_Latn", b) for a, b in zip(english, german, strict=False)]
    return SentenceTable.build(
        lambda texts: [[ord(c) for c in t] for t in texts], sentences, pairs, languages=NETWORK.languages, max_tokens=16
    )


def config(out, **changes) -> CodecTrainConfig:
    return CodecTrainConfig.from_dict(
        {
            "network": NETWORK.to_dict(),
            "out": str(out),
            "max_steps": 12,
            "micro_tokens": 64,
            "micro_batches": 2,
            "save_every": 4,
            "log_every": 2,
            "precision": "fp32",
            **changes,
        }
    )


def test_batches_are_repeatable_homogeneous_and_within_budget(tmp_path) -> None:
    table = make_table()
    sampler = BatchSampler(table, config(tmp_path))
    kinds = set()
    for step in range(40):
        batch, again = sampler.draw(step, 1), sampler.draw(step, 1)
        assert torch.equal(batch.tokens, again.tokens) and torch.equal(batch.source, again.source)
        kinds.add(batch.paired)
        assert batch.tokens.numel() <= 64 or len(batch.tokens) <= 2
        if batch.paired:
            half = len(batch.tokens) // 2
            assert batch.source.tolist() == [*range(half, 2 * half), *range(half)]
            assert set(batch.lang[:half].tolist()) == {0} and set(batch.lang[half:].tolist()) == {1}
        else:
            assert int(batch.lengths.max() - batch.lengths.min()) < BatchSampler.WIDTH
    assert kinds == {True, False}
    assert not torch.equal(sampler.draw(0, 0).tokens, sampler.draw(1, 0).tokens)


def test_every_sentence_is_drawn_and_languages_are_tempered(tmp_path) -> None:
    table = make_table()
    sampler = BatchSampler(table, config(tmp_path, pair_share=0.0, language_temperature=0.0))
    counts = torch.zeros(2)
    for step in range(600):
        counts += torch.bincount(sampler.draw(step, 0).lang, minlength=2)
    share = float(counts[1] / counts.sum())
    assert share == pytest.approx(0.5, abs=0.06), "with temperature 0 both languages are drawn equally often"


def test_training_lowers_the_loss_and_resumes_exactly(tmp_path) -> None:
    table = make_table()
    whole = CodecTrainer(config(tmp_path / "a", max_steps=60), table).fit()
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    nats = [line["nats"] for line in lines if "nats" in line]
    assert nats[-1] < nats[0] - 0.2

    class StopError(Exception):
        pass

    def stop(network, step):
        if step == 10:
            raise StopError
        return {}

    # The same schedule, interrupted after step 10: the newest checkpoint is step 8.
    with pytest.raises(StopError):
        CodecTrainer(config(tmp_path / "b", max_steps=60, eval_every=5), table, stop).fit()
    resumed = CodecTrainer(config(tmp_path / "b", max_steps=60), table).fit()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_resume_refuses_another_shape(tmp_path) -> None:
    table = make_table()
    CodecTrainer(config(tmp_path, max_steps=4), table).fit()
    with pytest.raises(ConfigError, match="micro_tokens changed"):
        CodecTrainer(config(tmp_path, micro_tokens=80), table).fit()


def test_minutes_end_the_run(tmp_path) -> None:
    trainer = CodecTrainer(config(tmp_path, max_steps=100_000, max_minutes=0.02), make_table())
    trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 1 < lines[-1]["step"] < 2000


def test_errors(tmp_path) -> None:
    table = make_table()
    with pytest.raises(ConfigError, match="other languages"):
        CodecTrainer(config(tmp_path, network={**NETWORK.to_dict(), "languages": ["fra_Latn", "eng_Latn"]}), table)
    with pytest.raises(ConfigError, match="micro_tokens"):
        config(tmp_path, micro_tokens=8)
    trainer = CodecTrainer(config(tmp_path / "nan", max_steps=50), table)
    with torch.no_grad():
        trainer.network.to_concept.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="not finite"):
        trainer.fit()


def test_parallel_documents_give_pairs() -> None:
    documents = [
        Document("a", sentences=("One.", "Two."), lang="eng_Latn"),
        Document("a", sentences=("Eins.", "Zwei."), lang="deu_Latn"),
        Document("a", sentences=("Un.",), lang="fra_Latn"),
        Document("b", sentences=("Same.",), lang="eng_Latn"),
        Document("b", sentences=("Same.",), lang="deu_Latn"),
    ]
    assert parallel_pairs(documents) == [
        ("eng_Latn", "One.", "deu_Latn", "Eins."),
        ("eng_Latn", "Two.", "deu_Latn", "Zwei."),
    ]


def test_pairs_file(tmp_path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("s\tde\tIt rains.\tEs regnet.\ns\tpt_BR\tHello.\tOlá.\n", encoding="utf-8")
    assert list(read_pairs([path])) == [
        ("eng_Latn", "It rains.", "deu_Latn", "Es regnet."),
        ("eng_Latn", "Hello.", "por_Latn", "Olá."),
    ]
    path.write_text("s\tde\tonly three\n")
    with pytest.raises(DataError, match=r"pairs\.tsv:1.*four"):
        list(read_pairs([path]))
    path.write_text("s\tnonsense!\ta\tb\n")
    with pytest.raises(LanguageError):
        list(read_pairs([path]))
    with pytest.raises(DataError, match="cannot read"):
        list(read_pairs([tmp_path / "missing.tsv"]))


def toy_teacher(name: str) -> ExternalEncoder:
    """Encodes a text as how often it has each of six letters."""
    counts = [lambda text, c=c: float(text.count(c)) for c in "aeinst"]
    return wrap_encoder(lambda texts: np.array([[1.0, *(count(t) for count in counts)] for t in texts]), name=name)


def documents_in_two_languages(path) -> None:
    rows = []
    for i in range(120):
        rows.append(
            {"id": f"d{i}", "lang": "eng_Latn", "sentences": [f"Number {i} is here today.", f"We saw {i} boats."]}
        )
        rows.append(
            {"id": f"d{i}", "lang": "deu_Latn", "sentences": [f"Nummer {i} ist heute hier.", f"Wir sahen {i} Boote."]}
        )
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def test_from_documents_to_a_codec(tmp_path) -> None:
    path = tmp_path / "docs.jsonl"
    documents_in_two_languages(path)
    run = config(tmp_path / "run", network={**NETWORK.to_dict(), "vocab_size": 290, "max_tokens": 32}, max_steps=4)
    codec = train_codec([path], run, storage="int8")
    assert codec.metadata["pairs"] == 240
    again = load_codec(tmp_path / "run" / "codec")
    assert again.fingerprint == codec.fingerprint
    with pytest.raises(DataError, match="codec's languages"):
        train_codec([path], config(tmp_path / "other", network={**NETWORK.to_dict(), "languages": ["fra_Latn"]}))


QUICK = {"type": "wsd", "warmup_steps": 4}
FORM = {**NETWORK.to_dict(), "dim": 272, "form_dim": 256}


def test_a_form_is_copied_from_sooner_than_meaning_is_learnt(tmp_path) -> None:
    """As many steps with and without: the loss with a form must be far below what pooling alone has learnt."""
    table, last = make_table(), {}
    for name, network in (("meaning", {**FORM, "form_dim": 0}), ("form", FORM)):
        objective = {"form_fade": 0.0, "noise": 0.05}
        more = {"micro_tokens": 192, "micro_batches": 1, "schedule": QUICK}
        settings = config(tmp_path / name, max_steps=60, network=network, objective=objective, **more)
        CodecTrainer(settings, table).fit()
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        last[name] = [line["nats"] for line in lines if "nats" in line][-1]
    assert last["form"] < last["meaning"] - 0.5


def test_a_teacher_is_learnt_from_where_it_is_known(tmp_path) -> None:
    table = make_table()
    teacher = np.random.default_rng(1).normal(size=(len(table), 6)).astype(np.float16)
    teacher[::3] = 0
    batch = BatchSampler(table, config(tmp_path), teacher=teacher).draw(0, 0)
    assert batch.teacher is not None and batch.teacher.shape == (len(batch.tokens), 6)
    network = {**NETWORK.to_dict(), "teacher_dim": 6}
    taught = config(tmp_path / "taught", network=network, max_steps=40, schedule=QUICK)
    CodecTrainer(taught, table, teacher=teacher).fit()
    lines = [json.loads(line) for line in (tmp_path / "taught" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["teacher_loss"] for line in lines if "teacher_loss" in line]
    assert losses[-1] < losses[0] - 0.1
    with pytest.raises(DataError, match="not the teacher's vectors"):
        CodecTrainer(config(tmp_path / "x", network=network), table, teacher=teacher[:-1])
    with pytest.raises(DataError, match="not the teacher's vectors"):
        CodecTrainer(config(tmp_path / "y"), table, teacher=teacher)


def test_from_documents_to_a_codec_with_form_and_teacher(tmp_path, monkeypatch) -> None:
    path = tmp_path / "docs.jsonl"
    documents_in_two_languages(path)
    monkeypatch.setattr("largeconcept.train.codec_job.open_encoder", toy_teacher)
    network = {**NETWORK.to_dict(), "vocab_size": 290, "max_tokens": 32, "dim": 48, "form_dim": 32}
    codec = train_codec([path], config(tmp_path / "run", network=network, max_steps=4, teacher="toy"), storage="int8")
    assert codec.config.teacher_dim == 0 and codec.config.form_dim == 32 and codec.dim == 48
    assert (tmp_path / "run" / f"concepts-{toy_teacher('toy').fingerprint}.f16").stat().st_size > 0
    again = load_codec(tmp_path / "run" / "codec")
    concepts = again.encode(["Number 3 is here today.", "We saw 12 boats."])
    assert torch.allclose(concepts, codec.encode(["Number 3 is here today.", "We saw 12 boats."]), atol=1e-5)
    alone = [again.decode(row[None], "deu_Latn", method="beam")[0] for row in concepts]
    assert again.decode(concepts, "deu_Latn", method="beam") == alone
    for number, teacher in enumerate((None, "toy")):
        more = config(tmp_path / str(number), start=str(tmp_path / "run" / "codec"), max_steps=1, teacher=teacher)
        assert train_codec([path], more).config.form_dim == 32
