"""A decoder trained for an encoder of somebody else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_codec_trainer import NETWORK, config, make_table

from largeconcept.codec import load_codec
from largeconcept.codec.encoders import ENCODERS, wrap_encoder
from largeconcept.codec.external import ExternalCodec
from largeconcept.codec.network import AutoencoderNetwork
from largeconcept.errors import ConfigError, DataError
from largeconcept.objectives.codec import CodecObjectiveConfig, codec_loss
from largeconcept.train.codec_job import train_codec
from largeconcept.train.codec_trainer import BatchSampler, CodecTrainer
from largeconcept.train.codec_vectors import table_concepts

ALONE = NETWORK.model_copy(update={"encoder_layers": 0})
TABLE = np.random.default_rng(0).standard_normal((509, 24))


def words(sentences):
    """Sums of fixed random vectors, of pairs of letters."""
    vectors = []
    for sentence in sentences:
        data = np.frombuffer(f"^{sentence}$".encode(), np.uint8).astype(np.int64)
        vectors.append(TABLE[(31 * data[:-1] + data[1:]) % len(TABLE)].sum(axis=0))
    return np.stack(vectors)


class Words:
    """Counts what it is asked to encode, and can be stopped."""

    def __init__(self, stop=None):
        self.count, self.stop = 0, stop

    def __call__(self, sentences):
        self.count += len(sentences)
        if self.stop is not None and self.count > self.stop:
            raise KeyboardInterrupt
        return words(sentences)


class Letters:
    """A tokenizer of one number a letter."""

    def decode(self, rows):
        return ["".join(chr(97 + i % 26) for i in row) for row in rows]


def concepts_of(table, dim=NETWORK.dim):
    return np.random.default_rng(1).standard_normal((len(table), dim)).astype(np.float16)


@pytest.fixture
def encoder(monkeypatch):
    monkeypatch.setitem(ENCODERS, "words", lambda: wrap_encoder(words, name="external:words"))
    return "external:words"


def test_batches_bring_the_concepts_of_their_rows(tmp_path):
    table = make_table()
    concepts = concepts_of(table)
    plain, given = BatchSampler(table, config(tmp_path)), BatchSampler(table, config(tmp_path), concepts)
    rows = {tuple(table.tokens[a:b].tolist()): i for i, (a, b) in enumerate(zip(table.offsets, table.offsets[1:]))}
    paired = 0
    for step in range(20):
        one, batch = plain.draw(step, 0), given.draw(step, 0)
        assert one.concepts is None and torch.equal(one.tokens, batch.tokens)
        paired += batch.paired
        for tokens, length, concept in zip(batch.tokens, batch.lengths, batch.concepts, strict=True):
            row = rows[tuple(tokens[: int(length)].tolist())]
            torch.testing.assert_close(concept, torch.from_numpy(concepts[row].astype(np.float32)))
    assert 0 < paired < 20


def test_a_decoder_alone_reads_the_given_concepts_and_learns(tmp_path):
    table = make_table(12)
    concepts = concepts_of(table)
    plain = {"noise": 0.0, "concept_dropout": 0.0, "decoder_mask": 0.0}
    run = config(
        tmp_path,
        network=ALONE.to_dict(),
        objective=plain,
        max_steps=80,
        log_every=1000,
        save_every=1000,
        schedule={"warmup_steps": 5},
        lr=0.02,
        embedding_lr=0.02,
    )
    trainer = CodecTrainer(run, table, concepts=concepts)
    sampler = BatchSampler(table, run, concepts)
    settings = CodecObjectiveConfig(**plain)

    def loss_now(mixed=False):
        total = []
        for step in range(20):
            batch = sampler.draw(500 + step, 0)
            if mixed:
                batch.concepts = batch.concepts.flip(0)
            with torch.no_grad():
                loss, metrics = codec_loss(trainer.network, batch, settings, torch.Generator().manual_seed(0))
            assert "pair_loss" not in metrics
            total.append(float(loss))
        return sum(total) / len(total)

    before = loss_now()
    trainer.fit()
    assert loss_now() < before - 0.3
    assert loss_now(mixed=True) > loss_now() + 0.1  # it reads the concepts, and not the words alone


def test_translations_are_written_from_the_other_concept(tmp_path):
    table = make_table()
    concepts = concepts_of(table)
    sampler = BatchSampler(table, config(tmp_path, pair_share=1.0), concepts)
    network, seen = AutoencoderNetwork(ALONE), []
    decode = network.decode_hidden
    network.decode_hidden = lambda z, *rest: seen.append(z) or decode(z, *rest)
    batch = sampler.draw(0, 0)
    settings = CodecObjectiveConfig(noise=0.0, concept_dropout=0.0)
    codec_loss(network, batch, settings, torch.Generator().manual_seed(0))
    half = len(batch.tokens) // 2
    torch.testing.assert_close(seen[0], torch.cat([batch.concepts[half:], batch.concepts[:half]]))


def test_concepts_of_a_table_are_made_once_and_resumed(tmp_path, monkeypatch):
    table = make_table()
    monkeypatch.setattr("largeconcept.train.codec_vectors.CHUNK", 16)
    first = wrap_encoder(words, batch_size=4)
    whole = np.array(table_concepts(first, table, Letters(), tmp_path / "whole"))
    assert whole.shape == (len(table), 24) and np.abs(np.square(whole.astype(np.float32)).mean(1) - 1).max() < 1e-2
    stopped = Words()
    encoder = wrap_encoder(stopped, batch_size=4)
    stopped.stop = stopped.count + 40
    with pytest.raises(KeyboardInterrupt):
        table_concepts(encoder, table, Letters(), tmp_path / "other")
    again = Words()
    encoder = wrap_encoder(again, batch_size=4)
    before = again.count
    progress = []
    found = table_concepts(encoder, table, Letters(), tmp_path / "other", lambda *at: progress.append(at))
    assert again.count - before == len(table) - 32 and progress[-1] == (len(table), len(table))
    np.testing.assert_array_equal(found, whole)
    table_concepts(encoder, table, Letters(), tmp_path / "other")
    assert again.count - before == len(table) - 32
    assert [path.suffix for path in (tmp_path / "other").iterdir()] == [".f16"]


def test_from_files_to_a_codec(tmp_path, encoder):
    rows = [{"id": f"d{i}", "lang": "eng_Latn", "sentences": [f"Number {i} is here."]} for i in range(60)]
    rows += [{"id": f"d{i}", "lang": "deu_Latn", "sentences": [f"Nummer {i} ist hier."]} for i in range(60)]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    shape = {**NETWORK.to_dict(), "vocab_size": 284, "max_tokens": 32}
    run = config(tmp_path / "run", network=shape, max_steps=4, encoder=encoder)
    codec = train_codec([path], run, storage="int8")
    assert isinstance(codec, ExternalCodec) and codec.dim == 24
    assert codec.fingerprint == wrap_encoder(words).fingerprint
    again = load_codec(tmp_path / "run" / "codec")
    assert again.languages == NETWORK.languages and again.metadata["steps"] == 4
    concepts = again.encode(["Number 3 is here."])
    assert again.decode(concepts, "deu_Latn", max_length=6) == codec.decode(concepts, "deu_Latn", max_length=6)
    # A run that is called again goes on, and knows its encoder.
    train_codec([path], run.model_copy(update={"max_steps": 6}))
    assert load_codec(tmp_path / "run" / "codec").metadata["steps"] == 6


def test_mistakes_are_named(tmp_path, encoder):
    table = make_table()
    with pytest.raises(ConfigError, match="exclude each other"):
        config(tmp_path, encoder=encoder, start="starter")
    with pytest.raises(ConfigError, match="needs the concepts of another"):
        CodecTrainer(config(tmp_path, network=ALONE.to_dict()), table)
    with pytest.raises(ConfigError, match="and only such a network"):
        CodecTrainer(config(tmp_path), table, concepts=concepts_of(table))
    with pytest.raises(DataError, match="not the concepts of the table"):
        CodecTrainer(config(tmp_path, network=ALONE.to_dict()), table, concepts=concepts_of(table, dim=5))
    path = tmp_path / "docs.jsonl"
    path.write_text(json.dumps({"id": "a", "lang": "eng_Latn", "sentences": ["One."]}))
    with pytest.raises(ConfigError, match="no such encoder"):
        train_codec([path], config(tmp_path / "x", encoder="external:nothing"))
