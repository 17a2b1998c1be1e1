"""A decoder for somebody else's sentence encoder, beside a codec of our own with the same decoder.

    python benchmarks/external_encoder.py --table train.npz --valid valid.npz --tokenizer sp.model --out FOLDER
        [--ways external own retrieval] [--minutes 25] [--pairs held_out.tsv]

Three ways to the same task, short sentences of one language, on the same sentences:

* ``external``: the decoder of an autoencoder, trained on vectors of a frozen encoder;
* ``own``: the same decoder trained together with our encoder, from nothing, for the same processor time;
* ``retrieval``: no training, the nearest training sentence under the frozen encoder.

``--table`` and ``--valid`` are tables that ``largeconcept codec train`` leaves in a run (``sentences.npz``),
``--pairs`` held-out translations as for ``codec train --pairs`` (xsim, and translation into the language by a decoder
that never saw another). Time is that of the processor, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.encoders import open_encoder
from largeconcept.codec.external import ExternalCodec
from largeconcept.codec.metrics import bleu, chrf, round_trip, xsim_error
from largeconcept.codec.network import AutoencoderConfig
from largeconcept.codec.retrieval import RetrievalDecoder
from largeconcept.codec.tokenizer import Tokenizer
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.train.codec_job import read_pairs
from largeconcept.train.codec_trainer import CodecTrainConfig, CodecTrainer
from largeconcept.train.codec_vectors import table_concepts


class ProcessorTime(CodecTrainer):
    """A trainer whose budget is time of the processor, whatever else the machine does."""

    def fit(self):
        self._began = time.process_time()
        return super().fit()

    def _progress(self, step, elapsed):
        return super()._progress(step, (time.process_time() - self._began))


def part(table: SentenceTable, lang: str, longest: int, count: int, seed: int = 0) -> SentenceTable:
    """Short sentences of one language, as a table of their own."""
    rows = np.flatnonzero((table.langs == table.languages.index(lang)) & (table.lengths <= longest))
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    lengths = table.lengths[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.concatenate([table.tokens[table.offsets[i] : table.offsets[i + 1]] for i in rows])
    return SentenceTable(tokens, offsets, np.zeros(len(rows), np.uint8), np.zeros((0, 2), np.int32), (lang,))


def texts_of(table: SentenceTable, tokenizer: Tokenizer) -> list[str]:
    rows = [table.tokens[table.offsets[i] : table.offsets[i + 1]].tolist() for i in range(len(table))]
    return tokenizer.decode(rows)


def judge(codec, texts: list[str], lang: str, pairs: list[tuple[str, str, str]]) -> dict[str, float]:
    """Figures of a codec; ``pairs`` are (sentence in ``lang``, other language, translation)."""
    found: dict[str, float] = {}
    trip = round_trip(codec, texts, lang, num_beams=4, max_length=40)
    found |= {"auto_bleu": trip.auto_bleu, "chrf": trip.chrf, "exact": trip.exact}
    concepts = codec.encode(texts, lang)
    noise = torch.randn(concepts.shape, generator=torch.Generator().manual_seed(0))
    written = codec.decode(concepts + 0.3 * noise, lang, method="greedy", max_length=40)
    found["auto_bleu_noise_0.3"] = bleu(written, texts, lang)
    if not isinstance(codec, ExternalCodec) or codec.network is not None:
        with torch.no_grad():
            loss = codec.token_loss(concepts, texts, lang)
        found["nats"] = float(loss.nats.sum() / loss.num_tokens.sum())
        found["token_accuracy"] = float(loss.num_correct.sum() / loss.num_tokens.sum())
    again = codec.encode(trip_texts(codec, concepts, lang), lang)
    found["round_trip_cosine"] = float(F.cosine_similarity(concepts, again).mean())
    for other in sorted({code for _, code, _ in pairs}):
        rows = [(a, b) for a, code, b in pairs if code == other]
        left, right = codec.encode([a for a, _ in rows], lang), codec.encode([b for _, b in rows], other)
        found[f"xsim_{other}"] = xsim_error(left, right)
        few = rows[:100]
        translated = codec.decode(right[: len(few)], lang, num_beams=4, max_length=40)
        found[f"from_{other}_chrf"] = chrf(translated, [a for a, _ in few])
    return found


def trip_texts(codec, concepts, lang: str) -> list[str]:
    return [text or "." for text in codec.decode(concepts, lang, method="greedy", max_length=40)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True)
    parser.add_argument("--valid", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--ways", nargs="+", default=["retrieval", "external", "own"])
    parser.add_argument("--encoder", default="external:use")
    parser.add_argument("--lang", default="eng_Latn")
    parser.add_argument("--longest", type=int, default=20, help="tokens of a sentence at most")
    parser.add_argument("--sentences", type=int, default=150_000)
    parser.add_argument("--minutes", type=float, default=25.0, help="of one core, each")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3, help="of the decoder, and of our encoder")
    parser.add_argument("--pairs")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out, lang = Path(arguments.out), arguments.lang
    tokenizer = Tokenizer.from_file(arguments.tokenizer)
    table = part(SentenceTable.load(arguments.table), lang, arguments.longest, arguments.sentences)
    valid = part(SentenceTable.load(arguments.valid), lang, arguments.longest, 1000)
    texts = texts_of(valid, tokenizer)
    pairs = [] if arguments.pairs is None else [(a, code, b) for _, a, code, b in read_pairs([arguments.pairs])]
    print(f"{len(table):,} sentences, {int(table.offsets[-1]):,} tokens; {len(texts)} held out; {len(pairs)} pairs")
    encoder = concepts = None
    if {"external", "retrieval"} & set(arguments.ways):
        encoder = open_encoder(arguments.encoder)
        began = time.process_time()
        concepts = table_concepts(encoder, table, tokenizer, out)
        print(f"vectors: {time.process_time() - began:.0f} s")
    for way in arguments.ways:
        began = time.process_time()
        if way == "retrieval":
            found = texts_of(table, tokenizer)
            bank = RetrievalDecoder.build({lang: found}, {lang: torch.from_numpy(np.array(concepts))})
            codec = ExternalCodec(encoder, bank)
            steps = tokens = 0
        else:
            external = way == "external"
            shape = AutoencoderConfig(
                dim=encoder.dim if external else 512,
                width=arguments.width,
                encoder_layers=0 if external else arguments.layers,
                decoder_layers=arguments.layers,
                vocab_size=tokenizer.vocab_size,
                languages=(lang,),
            )
            config = CodecTrainConfig.from_dict(
                {
                    "network": shape.to_dict(),
                    "objective": {"sampled_vocabulary": 1024},
                    "out": str(out / way),
                    "max_steps": 1_000_000,
                    "max_minutes": arguments.minutes,
                    "schedule": {**CodecTrainConfig.model_fields["schedule"].default.to_dict(), "warmup_steps": 50},
                    "micro_tokens": 2048,
                    "micro_batches": 2,
                    "log_every": 20,
                    "save_every": 1_000_000,
                    "eval_every": 1_000_000,
                    "compile": arguments.compile,
                }
            )
            trainer = ProcessorTime(config, table, concepts=concepts if external else None)
            network = trainer.fit()
            own = AutoencoderCodec(network, tokenizer, space=encoder.fingerprint if external else None)
            codec = ExternalCodec(encoder, own) if external else own
            last = json.loads((out / way / "metrics.jsonl").read_text().splitlines()[-1])
            steps, tokens = last["step"], last.get("tokens_per_second", 0.0)
        spent = time.process_time() - began
        codec.save_pretrained(out / way / "codec")
        line = {"way": way, "minutes": spent / 60, "steps": steps, "tokens_per_second": tokens}
        line |= judge(codec, texts, lang, pairs)
        print(json.dumps(line), flush=True)
        with (out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        examples = codec.decode(codec.encode(texts[:8], lang), lang, num_beams=4, max_length=40)
        for a, b in zip(texts, examples, strict=False):
            print(f"   {a}\n → {b}", flush=True)


if __name__ == "__main__":
    main()
