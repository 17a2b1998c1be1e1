"""SONAR at its full size with random weights: sentences a second, against the transformers classes as they are used.

    python benchmarks/sonar.py                     # both halves, float32 and bfloat16; about half an hour on two cores
    python benchmarks/sonar.py --quick             # two layers, a few sentences, to see that it runs
    python benchmarks/sonar.py --only encode --onnx runs/sonar-onnx   # also the exported encoder, of the same weights

The baseline is what people run today: five sentences at a time in the order in which they come, padded;
``M2M100Encoder`` with a masked mean, and ``M2M100ForConditionalGeneration.generate`` from ``encoder_outputs``. Both
sides have the same tensors (not copies), read the same ids and write sentences of the same lengths: as random weights
never end a sentence, each is ended after as many tokens as its source has. The runs of both sides alternate; a rate is
the median of its runs, and a ratio is the median of the ratios within a round.

Sentences are drawn from examples/corpus; the tokenizer is trained on it in a second, with as many pieces as give the
27 tokens a sentence that SONAR's own has on average. Needs transformers (and onnxruntime for ``--onnx``).
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from largeconcept.codec.sonar import writing
from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.codec.sonar.tokenizer import EOS, SonarTokenizer

CORPUS = Path(__file__).parent.parent / "examples" / "corpus"
PIECES = 256_000
TRAINED_PIECES = 5_000  # 27 tokens a sentence
BASELINE_BATCH = 5
LANGUAGE = "eng_Latn"


# ---------------------------------------------------------------------- sentences and their ids


def sentences(count: int) -> tuple[list[str], list[str]]:
    """All sentences of the corpus, and a sample of ``count``."""
    found: list[str] = []
    for path in sorted(CORPUS.glob("t*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found += json.loads(line)["sentences"]
    return found, random.Random(0).sample(found, count)


def tokenizer(texts: list[str]) -> SonarTokenizer:
    """As many pieces as SONAR's own, most of which never occur."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=out,
        model_type="bpe",
        vocab_size=TRAINED_PIECES,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    # Protocol buffers may be continued by appending: field 1 holds a piece, of which field 1 is the text.
    filler = bytearray()
    for number in range(TRAINED_PIECES, PIECES):
        text = f"\ue000{number}".encode()
        filler += b"\x0a" + bytes([len(text) + 2]) + b"\x0a" + bytes([len(text)]) + text
    return SonarTokenizer(out.getvalue() + bytes(filler))


# ---------------------------------------------------------------------- the two sides


def draw(module: nn.Module) -> Any:
    """Random weights of the size of trained ones, so that states stay in an ordinary range."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm.weight" in name:
                parameter.fill_(1.0)
            elif parameter.ndim == 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    return module.eval().requires_grad_(False)


def shared(half: Any) -> Any:
    """Another module with the same tensors."""
    with torch.device("meta"):
        twin = type(half)(half.config)
    twin.load_state_dict(half.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)


def hugging_face_config(layers: int, encoder: bool) -> Any:
    from transformers import M2M100Config

    # Both sides read the same ids: only the padding differs, which is masked.
    return M2M100Config(
        vocab_size=256_206,
        d_model=1024,
        encoder_layers=layers if encoder else 1,
        decoder_layers=layers,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=8192 if encoder else 8,
        decoder_ffn_dim=8192,
        max_position_embeddings=1024,
        scale_embedding=True,
        activation_function="relu",
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
    )


def hugging_face_encoder(ours: SonarEncoder) -> Any:
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder, M2M100SinusoidalPositionalEmbedding

    config = hugging_face_config(ours.config.num_layers, encoder=True)
    with torch.device("meta"):
        theirs = M2M100Encoder(config)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    assert not missing and not unexpected, (missing, unexpected)
    theirs.embed_positions = M2M100SinusoidalPositionalEmbedding(1024, 1024, 1).to(ours.embed_tokens.weight.dtype)
    return theirs.eval()


def hugging_face_decoder(ours: SonarDecoder) -> Any:
    from transformers import M2M100ForConditionalGeneration
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding

    config = hugging_face_config(ours.config.num_layers, encoder=False)
    weights = {f"model.decoder.{name}": tensor for name, tensor in ours.state_dict().items()}
    table = ours.embed_tokens.weight
    for name in ("model.shared", "model.encoder.embed_tokens", "lm_head"):
        weights[f"{name}.weight"] = table
    with torch.device("meta"):
        theirs = M2M100ForConditionalGeneration(config)
    expected = theirs.state_dict()
    for name in sorted(set(expected) - set(weights)):  # queries and keys of one key: they change nothing but the time
        weights[name] = torch.empty(expected[name].shape, dtype=table.dtype).normal_(0.0, 0.02)
    theirs.load_state_dict(weights, assign=True)
    for half in (theirs.model.encoder, theirs.model.decoder):
        half.embed_positions = M2M100SinusoidalPositionalEmbedding(1024, 1024, 1).to(table.dtype)
    return theirs.eval()


@torch.inference_mode()
def their_encode(theirs: Any, ids: list[list[int]]) -> Tensor:
    found = []
    for start in range(0, len(ids), BASELINE_BATCH):
        rows = ids[start : start + BASELINE_BATCH]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        states = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state
        real = mask[..., None]
        found.append(((states * real).sum(dim=1) / real.sum(dim=1)).float())
    return torch.cat(found)


@torch.inference_mode()
def their_decode(theirs: Any, concepts: Tensor, language: int, wanted: list[int], beams: int) -> list[list[int]]:
    from transformers import LogitsProcessor, LogitsProcessorList
    from transformers.modeling_outputs import BaseModelOutput

    class End(LogitsProcessor):
        def __init__(self, wanted: list[int]) -> None:
            self.wanted = torch.tensor(wanted).repeat_interleave(beams)

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            written = input_ids.shape[1] - writing.PROMPT
            if written >= 0:
                end_by_length(scores, EOS, self.wanted <= written)
            return scores

    found = []
    for start in range(0, len(concepts), BASELINE_BATCH):
        rows = concepts[start : start + BASELINE_BATCH]
        lengths = wanted[start : start + BASELINE_BATCH]
        out = theirs.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=rows[:, None].to(theirs.dtype).clone()),
            forced_bos_token_id=language,
            num_beams=beams,
            do_sample=False,
            early_stopping=beams > 1,
            length_penalty=1.0,
            max_length=writing.PROMPT + max(lengths) + 1,
            logits_processor=LogitsProcessorList([End(lengths)]),
        )
        found += [row[writing.PROMPT : writing.PROMPT + n].tolist() for row, n in zip(out.cpu(), lengths, strict=True)]
    return found


def end_by_length(scores: Tensor, end: int, due: Tensor) -> None:
    """Only ``</s>`` where a sentence is as long as wanted, anything else before."""
    kept = scores[due, end].clone()
    scores[:, end] = -torch.inf
    if len(kept):
        scores[due] = -torch.inf
        scores[due, end] = kept


class Ending(writing.WritingState):
    """The library's state, with sentences ended at the wanted lengths."""

    wanted_of: ClassVar[dict[bytes, int]] = {}

    def __init__(self, decoder: SonarDecoder, concepts_NC: Tensor, *rest: Any) -> None:
        super().__init__(decoder, concepts_NC, *rest)
        self._wanted = torch.tensor([self.wanted_of[row.numpy().tobytes()] for row in concepts_NC])
        self._written = 0

    def scores(self) -> Tensor:
        scores = super().scores()
        end_by_length(scores, self.end, self._wanted <= self._written)
        self._written += 1
        return scores

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self._wanted = self._wanted[rows]


# ---------------------------------------------------------------------- measuring


class Table:
    """Rates of alternating runs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.rows: list[dict[str, Any]] = []

    def measure(self, task: str, runs: dict[str, tuple[Callable[[], object], int]], repeats: int) -> None:
        """Run every entry of ``runs`` (work, sentences) in turn; the first ones are the baselines."""
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, (work, count) in runs.items():
                gc.collect()
                began = self.clock()
                work()
                seconds[name].append((self.clock() - began) / count)
        baselines = [name for name in runs if name.startswith("transformers")]
        for name in runs:
            row = {"task": task, "name": name, "rate": 1 / statistics.median(seconds[name])}
            for baseline in baselines:
                ratios = [b / a for a, b in zip(seconds[name], seconds[baseline], strict=True)]
                row[f"over {baseline}"] = statistics.median(ratios)
            self.rows.append(row)
            ratios_text = "".join(f"{row[f'over {baseline}']:8.2f}" for baseline in baselines)
            print(f"{task:<14} {name:<32} {row['rate']:8.2f} {ratios_text}", flush=True)


def peak_memory() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two layers, ten sentences, one run each")
    parser.add_argument("--layers", type=int, help="of each half (default 24)")
    parser.add_argument("--only", choices=("encode", "decode"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of both sides (default: both in turn)")
    parser.add_argument("--sentences", type=int, help="sentences encoded (default 100), and written (default 120)")
    parser.add_argument("--baseline-sentences", type=int, help="of them written by the baseline (default 20)")
    parser.add_argument("--beams", type=int, nargs="*", default=[1, 5], help="beams to decode with (default 1 5)")
    parser.add_argument("--vocabulary", type=int, default=20_000, help="ids of the restricted vocabulary; 0: none")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, first runs not counted")
    parser.add_argument("--onnx", metavar="FOLDER", help="measure the encoder exported there, made if it is missing")
    parser.add_argument("--repeats", type=int, help="runs of each (default 3)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: for a busy machine, with --threads 1")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        torch.set_num_threads(arguments.threads)
    quick = arguments.quick
    layers = arguments.layers or (2 if quick else 24)
    repeats = arguments.repeats or (1 if quick else 3)
    table = Table(time.process_time if arguments.cpu_time else time.perf_counter)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {layers} layers"
        + (", CPU time" if arguments.cpu_time else "")
    )
    dtypes = [getattr(torch, arguments.dtype)] if arguments.dtype else [torch.float32, torch.bfloat16]
    everything, _ = sentences(0)
    spm = tokenizer(everything)
    if arguments.only != "decode":
        measure_encode(table, arguments, spm, layers, repeats, dtypes)
    gc.collect()
    if arguments.only != "encode":
        measure_decode(table, arguments, spm, layers, repeats, dtypes)
    print(f"peak memory {peak_memory():.1f} GB, weights of all variants included")
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"layers": layers, "threads": torch.get_num_threads(), "rows": table.rows}, indent=1) + "\n"
        )


def header(what: str, dtypes: list[torch.dtype]) -> None:
    print(f"{what}\n{'':<14} {'':<32} {'a second':>8} " + "".join(f"{'/ ' + str(d)[6:]:>8.7}" for d in dtypes))


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def measure_encode(
    table: Table,
    arguments: argparse.Namespace,
    spm: SonarTokenizer,
    layers: int,
    repeats: int,
    dtypes: list[torch.dtype],
) -> None:
    from largeconcept.codec.sonar.codec import SonarCodec

    _, texts = sentences(arguments.sentences or (10 if arguments.quick else 100))
    ids = spm.encode(texts, LANGUAGE)
    header(f"{len(texts)} sentences of {statistics.mean(map(len, ids)):.1f} tokens", dtypes)
    encoder = draw(SonarEncoder(SonarEncoderConfig(num_layers=layers)))
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    ours: dict[str, tuple[Callable[[], object], int]] = {}
    few = slice(0, 10)
    for dtype in dtypes:
        if dtype != torch.float32:
            twin = SonarEncoder(SonarEncoderConfig(num_layers=layers))
            twin = twin.to(dtype)
            twin.load_state_dict({k: v.to(dtype) for k, v in encoder.state_dict().items()})
            encoder_here = twin.eval().requires_grad_(False)
        else:
            encoder_here = encoder
        theirs = hugging_face_encoder(encoder_here)
        codec = SonarCodec(encoder_here, None, spm)
        runs[f"transformers {named(dtype)}"] = (lambda t=theirs: their_encode(t, ids)), len(ids)

        def encode(c: Any = codec) -> Tensor:
            found: Tensor = c.encode(texts, LANGUAGE, batch_tokens=arguments.batch_tokens)
            return found

        ours[f"largeconcept {named(dtype)}"] = encode, len(ids)
        if arguments.compile:
            compiled = SonarCodec(shared(encoder_here), None, spm, compile=True)
            for _ in range(2):  # the second call may compile once more, for another way of the same shapes
                encode(compiled)
            ours[f"largeconcept {named(dtype)} compiled"] = (lambda c=compiled: encode(c)), len(ids)
        a, b = their_encode(theirs, ids[few]), codec.encode(texts[few], LANGUAGE)
        print(f"  {named(dtype)}: relative difference of concepts {float((a - b).norm() / a.norm()):.1g}")
    if arguments.onnx:
        from largeconcept.codec.sonar.onnx import SonarOnnxEncoder, export_onnx

        reference = SonarCodec(encoder, None, spm, space="random weights")
        for weights in ("float32", "int8"):
            folder = Path(arguments.onnx) / weights
            began = time.perf_counter()
            if not (folder / "config.json").exists():
                export_onnx(reference, folder, int8=weights == "int8")
                print(f"  onnx {weights}: exported in {time.perf_counter() - began:.0f} s")
            exported = SonarCodec(SonarOnnxEncoder(folder), None, spm)

            def run(c: Any = exported) -> Tensor:
                # Padding costs here: sentences of about one length.
                found: Tensor = c.encode(texts, LANGUAGE, batch_tokens=min(arguments.batch_tokens, 512))
                return found

            a, b = reference.encode(texts[few], LANGUAGE), exported.encode(texts[few], LANGUAGE)
            print(f"  onnx {weights}: lowest cosine to float32 {float(torch.cosine_similarity(a, b).min()):.6f}")
            ours[f"largeconcept onnx {weights}"] = run, len(ids)
    table.measure("encode", runs | ours, repeats)


def measure_decode(
    table: Table,
    arguments: argparse.Namespace,
    spm: SonarTokenizer,
    layers: int,
    repeats: int,
    dtypes: list[torch.dtype],
) -> None:
    block = arguments.baseline_sentences or (5 if arguments.quick else 20)
    count = arguments.sentences or (10 if arguments.quick else 120)
    count = max(block, count // block * block)
    _, texts = sentences(block)
    # Lengths of the block again and again, so that rates of the block and of all sentences can be compared.
    wanted = [len(row) for row in spm.pieces(texts)] * (count // block)
    concepts = torch.randn(count, 1024, generator=torch.Generator().manual_seed(1)) * 0.2
    Ending.wanted_of = {row.numpy().tobytes(): n for row, n in zip(concepts, wanted, strict=True)}
    writing.WritingState = Ending  # type: ignore[misc]
    language = spm.language_id(LANGUAGE)
    some = random.Random(0).sample(range(4, PIECES), arguments.vocabulary) if arguments.vocabulary else []
    vocabulary = {language: (EOS, *sorted(some))}
    header(f"{count} sentences of {statistics.mean(wanted):.1f} tokens, the baseline {block} of them", dtypes)
    decoder = draw(SonarDecoder(SonarDecoderConfig(num_layers=layers)))
    halves = []
    for dtype in dtypes:
        if dtype != torch.float32:
            twin = SonarDecoder(SonarDecoderConfig(num_layers=layers)).to(dtype)
            twin.load_state_dict({k: v.to(dtype) for k, v in decoder.state_dict().items()})
            halves.append(twin.eval().requires_grad_(False))
        else:
            halves.append(decoder)
    for beams in arguments.beams:
        runs: dict[str, tuple[Callable[[], object], int]] = {}
        ours: dict[str, tuple[Callable[[], object], int]] = {}
        options = writing.WritingOptions("greedy" if beams == 1 else "beam", num_beams=beams, max_length=128)
        for half in halves:
            dtype = half.embed_tokens.weight.dtype
            theirs = hugging_face_decoder(half)

            def baseline(t: Any = theirs, n: int = block, beams: int = beams) -> list[list[int]]:
                return their_decode(t, concepts[:n], language, wanted, beams)

            def write(h: Any = half, n: int = count, some: Any = None, options: Any = options) -> list[list[int]]:
                return writing.write(
                    h,
                    concepts[:n],
                    [language] * n,
                    options,
                    vocabularies=some,
                    batch_tokens=arguments.batch_tokens // 5,  # as SonarCodec.decode
                )

            runs[f"transformers {named(dtype)}"] = baseline, block
            ours[f"largeconcept {named(dtype)}"] = write, count
            if some:
                ours[f"largeconcept {named(dtype)} {arguments.vocabulary} ids"] = (
                    (lambda w=write: w(some=vocabulary)),
                    count,
                )
            if arguments.compile:
                compiled = shared(half)
                compiled.compile_step()
                write(compiled)
                ours[f"largeconcept {named(dtype)} compiled"] = (lambda w=write, c=compiled: w(c)), count
            if beams == 1:
                a, b = baseline(n=5), write(n=5)
                same = sum(x == y for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True))
                print(f"  {named(dtype)}: {same} of {sum(wanted[:5])} tokens are the same on both sides")
        table.measure("greedy" if beams == 1 else f"beam {beams}", runs | ours, repeats)


if __name__ == "__main__":
    main()
