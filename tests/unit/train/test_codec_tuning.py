"""A codec's decoder, tuned to write from quantised concepts."""

from __future__ import annotations

import json

import pytest
import torch
from test_codec_trainer import NETWORK, config, make_table

from largeconcept.codec import load_codec
from largeconcept.codec.network import AutoencoderNetwork
from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.nn.residual_vq import QuantizerConfig, ResidualVectorQuantizer
from largeconcept.objectives.codec import CodecObjectiveConfig, codec_loss
from largeconcept.train.codec_job import train_codec
from largeconcept.train.codec_trainer import BatchSampler, CodecTrainer, is_of_encoder
from largeconcept.train.quantizer import SpaceQuantizer, load_quantizer, save_quantizer

DIM = NETWORK.dim
SCHEDULE = {"warmup_steps": 5}


def encoded(network, table, count=200):
    tokens, lengths = table.rows(torch.arange(min(count, len(table))).numpy())
    with torch.no_grad():
        return network.encode(tokens, lengths)


def save_fitted(network, table, folder, levels=4, size=6):
    concepts = encoded(network, table)
    normalizer = ConceptNormalizer.fit([concepts])
    quantizer = ResidualVectorQuantizer.fit(normalizer.normalize(concepts), levels, size, backend="torch")
    save_quantizer(quantizer, normalizer, folder)
    return folder


class Recorder:
    """Remembers what it was asked to quantise."""

    num_quantizers = 9

    def __init__(self):
        self.kept, self.concepts = [], []

    def __call__(self, concepts, num_quantizers=None):
        self.kept.append(num_quantizers)
        self.concepts.append(concepts)
        return torch.zeros_like(concepts)


def test_a_space_quantizer_works_in_the_codecs_space():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
    normalizer = ConceptNormalizer.fit([x])
    quantizer = ResidualVectorQuantizer.fit(normalizer.normalize(x), 3, 8, backend="torch")
    quantize = SpaceQuantizer(quantizer, normalizer)
    torch.testing.assert_close(quantize(x), normalizer.denormalize(quantizer(normalizer.normalize(x))))
    error = [(quantize(x, number) - x).norm(dim=-1).mean() for number in (0, 1, 2, 3)]
    assert error == sorted(error, reverse=True)


def test_the_decoder_reads_clean_concepts_of_which_some_are_cut_short(tmp_path):
    torch.manual_seed(0)
    network, table, recorder = AutoencoderNetwork(NETWORK), make_table(), Recorder()
    sampler = BatchSampler(table, config(tmp_path))
    settings = CodecObjectiveConfig(truncation=0.3)
    for step in range(200):
        batch = sampler.draw(step, 0)
        loss, metrics = codec_loss(network, batch, settings, torch.Generator().manual_seed(step), recorder)
        assert "pair_loss" not in metrics and loss.isfinite()
        torch.testing.assert_close(recorder.concepts[-1], network.encode(batch.tokens, batch.lengths))
        assert not recorder.concepts[-1].requires_grad
    kept = torch.cat(recorder.kept)
    assert set(kept.tolist()) == {6, 7, 8, 9}
    # 0.3 of them draw from four numbers, of which 9 is one.
    shares = torch.bincount(kept, minlength=10)[6:] / len(kept)
    torch.testing.assert_close(shares, torch.tensor([0.075, 0.075, 0.075, 0.775]), atol=0.04, rtol=0)


def test_the_encoder_stays_and_the_loss_on_quantised_concepts_falls(tmp_path):
    table = make_table(12)  # few sentences, which the decoder soon tells apart by their concepts
    network = CodecTrainer(config(tmp_path / "first", max_steps=80, log_every=1000, schedule=SCHEDULE), table).fit()
    folder = save_fitted(network, table, tmp_path / "quantizer", levels=2, size=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run = config(
        tmp_path / "tuned", max_steps=30, log_every=1000, schedule=SCHEDULE, start="somewhere", quantizer=str(folder)
    )
    trainer = CodecTrainer(run, table, network=network)
    sampler = BatchSampler(table, run)

    def loss_now():
        quantize = SpaceQuantizer(*load_quantizer(folder))
        with torch.no_grad():
            total = [
                codec_loss(
                    network, sampler.draw(900 + i, 0), run.objective, torch.Generator().manual_seed(i), quantize
                )[0]
                for i in range(20)
            ]
        return float(torch.stack(total).mean())

    worse = loss_now()
    trainer.fit()
    assert loss_now() < worse - 0.1
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if not is_of_encoder(name)}
    torch.testing.assert_close(encoded(network, table), encoded(network, table))


def test_a_tuned_codec_keeps_the_fingerprint_of_its_space(tmp_path):
    rows = [
        {"id": f"d{i}", "lang": "eng_Latn", "sentences": [f"Number {i} is here.", f"{i} boats."]} for i in range(80)
    ]
    rows += [{"id": "g", "lang": "deu_Latn", "sentences": ["Nummer eins ist hier."]}]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    shape = {**NETWORK.to_dict(), "vocab_size": 285, "max_tokens": 32}
    origin = train_codec([path], config(tmp_path / "run", network=shape, max_steps=4), storage="int8")
    sentences = [f"Number {i} is here." for i in range(60)]
    concepts = origin.encode(sentences)
    normalizer = ConceptNormalizer.fit([concepts])
    quantizer = ResidualVectorQuantizer.fit(normalizer.normalize(concepts), 3, 4)
    save_quantizer(quantizer, normalizer, tmp_path / "quantizer")
    start = str(tmp_path / "run" / "codec")
    tuning = config(tmp_path / "tuned", max_steps=4, start=start, quantizer=str(tmp_path / "quantizer"))
    tuned = train_codec([path], tuning)
    assert tuned.fingerprint == origin.fingerprint and tuned.weights_fingerprint != origin.weights_fingerprint
    again = load_codec(tmp_path / "tuned" / "codec")
    assert again.fingerprint == origin.fingerprint
    torch.testing.assert_close(again.encode(sentences), concepts)
    assert again.decode(concepts[:1], "eng_Latn", max_length=4) is not None
    # Training further without a quantizer makes another space.
    further = train_codec([path], config(tmp_path / "further", max_steps=2, start=start))
    assert further.fingerprint != origin.fingerprint


def test_mistakes_are_named(tmp_path):
    table, network = make_table(), AutoencoderNetwork(NETWORK)
    with pytest.raises(ConfigError, match="name it in start"):
        config(tmp_path, quantizer="somewhere")
    with pytest.raises(CheckpointError, match="no such folder"):
        CodecTrainer(config(tmp_path, start="starter", quantizer=str(tmp_path / "nothing")), table)
    other = SpaceQuantizer(
        ResidualVectorQuantizer(QuantizerConfig(dim=3, num_quantizers=2, codebook_size=4)),
        ConceptNormalizer.identity(3),
    )
    save_quantizer(other.quantizer, other.normalizer, tmp_path / "other")
    with pytest.raises(ConfigError, match=f"another dimension; expected {DIM}; got 3"):
        CodecTrainer(config(tmp_path, start="starter", quantizer=str(tmp_path / "other")), table, network=network)
    empty = ResidualVectorQuantizer(QuantizerConfig(dim=DIM, num_quantizers=2, codebook_size=4))
    save_quantizer(empty, ConceptNormalizer.identity(DIM), tmp_path / "empty")
    with pytest.raises(DataError, match="codebooks are empty"):
        CodecTrainer(config(tmp_path, start="starter", quantizer=str(tmp_path / "empty")), table, network=network)
    path = tmp_path / "docs.jsonl"
    path.write_text(json.dumps({"id": "a", "lang": "eng_Latn", "sentences": ["One."]}))
    with pytest.raises(ConfigError, match="not a codec that can be trained"):
        train_codec([path], config(tmp_path / "x", start="toy"))
