"""Makes the files beside it from the original SONAR: small random weights, inputs, and what the original answers.

The tests read these files and need neither package. To make them again, in an environment of its own (6.7 GB; the
system must have libsndfile1):

    pip install sonar-space==0.5.0 fairseq2==0.5.2 torchaudio==2.8.0 sentencepiece
    python tests/parity/sonar/make_fixtures.py
    python tests/parity/sonar/make_fixtures.py network beams  # only some

``network``, ``beams``, ``speech`` and ``judges`` also run, with the same results to rounding, on any version of torch
and without the native half of fairseq2: install both packages with ``--no-deps`` and then what they import, and put a
package ``fairseq2n`` into the environment whose ``__init__.py`` holds ``DOC_MODE = True``, ``__version__ = "0.5.2"``
and functions ``torch_version``, ``torch_variant``, ``supports_image``, ``supports_cuda`` and ``cuda_version``.
``tokenizer``, ``pipelines`` and ``filterbank`` are native code and need the whole.

Weights are drawn in float32 and rounded to values that float16 holds, so the files are half the size and still exact.
No weight is left neutral: norms, biases and running statistics are drawn too. No trained weight is in these files.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from fairseq2.data.tokenizers import VocabularyInfo
from fairseq2.generation.beam_search import (
    BeamSearchAlgorithm,
    BeamSearchSeq2SeqGenerator,
    StandardBeamSearchAlgorithm,
)
from fairseq2.nn import BatchLayout, SinusoidalPositionEncoder
from safetensors.torch import load_file, save_file
from sonar.models.sonar_text import SonarTextDecoderConfig, SonarTextEncoderConfig
from sonar.models.sonar_text.factory import SonarTextDecoderFactory, SonarTextEncoderFactory
from sonar.models.sonar_translation.model import DummyEncoderModel, SonarEncoderDecoderModel

FOLDER = Path(__file__).parent
VOCAB, WIDTH, HEADS, LAYERS, FFN, MAX_TOKENS = 97, 32, 4, 2, 64, 64
DECODERS, ROWS, BEAMS, LENGTHS = 4, 2, (1, 3, 5), (6, 13, 30)
LEAST_GAP = 2e-5
"""Candidates of a search that lie closer could change places with the order of additions: such inputs are not used."""


def half_exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float()


def randomise(module: torch.nn.Module, seed: int, gain: float = 1.0) -> None:
    """Draw all weights; matrices × ``gain``."""
    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
        if not tensor.is_floating_point() or tensor.data_ptr() in drawn:  # the output matrix is the table
            continue
        drawn.add(tensor.data_ptr())
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            noise = 0.5 + noise.abs()
        elif tensor.ndim == 1:
            is_scale = "norm" in name and name.endswith("weight")
            noise = 1 + 0.2 * noise if is_scale else 0.1 * noise
        elif "embed" in name:
            noise = 0.12 * noise
        elif name.endswith("_bias"):  # biases of relative positions, (heads, head dim)
            noise = 0.3 * noise
        else:
            noise = gain * noise / tensor[0].numel() ** 0.5
        with torch.no_grad():
            tensor.copy_(half_exact(noise))
    module.eval()


def stored(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The original's own state dict, in float16; a tensor under two names is stored under the first."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel() > 1:
            continue
        seen.add(tensor.data_ptr())
        kept[f"{prefix}/{name}"] = tensor.half().clone() if tensor.is_floating_point() else tensor.clone()
    return kept


def text_encoder(seed: int, vocab: int = VOCAB, max_tokens: int = MAX_TOKENS, layers: int = LAYERS) -> torch.nn.Module:
    config = SonarTextEncoderConfig(
        model_dim=WIDTH,
        max_seq_len=max_tokens - 2,
        vocab_info=VocabularyInfo(size=vocab, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        num_encoder_attn_heads=HEADS,
        num_decoder_attn_heads=HEADS,
        ffn_inner_dim=FFN,
        pooling="mean",
        _from_fairseq=True,
    )
    model = SonarTextEncoderFactory(config).create_model()
    randomise(model, seed)
    return model


def text_decoder(seed: int, vocab: int = VOCAB, max_tokens: int = MAX_TOKENS, layers: int = LAYERS) -> torch.nn.Module:
    config = SonarTextDecoderConfig(
        model_dim=WIDTH,
        max_seq_len=max_tokens,
        vocab_info=VocabularyInfo(size=vocab, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
        activation_fn="ReLU",
        no_scale_embedding=False,
        no_token_positional_embeddings=False,
        learned_pos=False,
        emb_dropout_p=0.1,
        attention_dropout_p=0.1,
        activation_dropout_p=0.1,
        normalize_before=True,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        num_encoder_attn_heads=HEADS,
        num_decoder_attn_heads=HEADS,
        ffn_inner_dim=FFN,
    )
    model = SonarTextDecoderFactory(config).create_model()
    randomise(model, seed, gain=3.0)
    with torch.no_grad():  # so that texts end at many lengths, and unknown pieces would be written where allowed
        model.decoder_frontend.embed.weight[3] *= 2.5
        model.decoder_frontend.embed.weight[1] *= 2
        model.decoder_frontend.embed.weight.copy_(half_exact(model.decoder_frontend.embed.weight))
    return model


@torch.inference_mode()
def network() -> None:
    """Embeddings of padded sentences of many lengths, and logits of given texts."""
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}
    encoder = text_encoder(100)
    tensors |= stored(encoder, "encoder")
    lengths = [9, 3, 64, 17, 2, 33]
    tokens = torch.randint(4, VOCAB, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        tokens[row, length - 1] = 3
        tokens[row, length:] = 0
    tokens[3, 5] = 1
    answer = encoder(tokens, BatchLayout.of(tokens, seq_lens=lengths))
    tensors["tokens"], tensors["lengths"] = tokens, torch.tensor(lengths)
    tensors["embeddings"] = answer.sentence_embeddings
    tensors["states"] = answer.encoded_seqs[1, :3].clone()  # one sentence, all its tokens
    for number in range(DECODERS):
        tensors |= stored(text_decoder(200 + number), f"decoder{number}")
    decoder = text_decoder(200)
    concepts = half_exact(torch.randn(3, WIDTH, generator=generator))
    texts = torch.randint(4, VOCAB, (3, 15), generator=generator)
    texts[:, 0] = 3
    source = concepts[:, None]
    logits = decoder(source, BatchLayout.of(source), texts, BatchLayout.of(texts))
    tensors["concepts"], tensors["texts"], tensors["logits"] = concepts, texts, logits
    steps = torch.tensor([0, 1, 2, 100, 511, 513])
    zeros = torch.zeros(1, 514, 128)
    sinusoids = SinusoidalPositionEncoder(128, 514, _legacy_pad_idx=1)(zeros, BatchLayout.of(zeros))
    tensors["steps"], tensors["sinusoids"] = steps, sinusoids[0, steps].clone()
    save_file(tensors, FOLDER / "network.safetensors")


class WatchfulAlgorithm(BeamSearchAlgorithm):
    """The standard step; remembers how far apart the candidates were that it put in order."""

    def __init__(self) -> None:
        self._standard = StandardBeamSearchAlgorithm()
        self.gap = math.inf

    def step(self, beam_size, lprobs, step_scores):
        totals = (lprobs + step_scores[:, -1:]).flatten()
        best = totals.topk(min(2 * beam_size + 1, totals.numel())).values
        best = best[best.isfinite()]
        if len(best) > 1:
            self.gap = min(self.gap, float((best[:-1] - best[1:]).min()))
        return self._standard.step(beam_size, lprobs, step_scores)


@torch.inference_mode()
def search(model, concepts, languages, beams, max_total, unknown):
    """N-best lists of the original generator, and the least gap between things it put in order."""
    vocabulary = VocabularyInfo(size=VOCAB, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=0)
    algorithm = WatchfulAlgorithm()
    generator = BeamSearchSeq2SeqGenerator(
        model,
        vocabulary,
        algorithm,
        beam_size=beams,
        max_seq_len=max_total,
        unk_penalty=0.0 if unknown else math.inf,
        echo_prompt=True,
    )
    prompts = torch.tensor([[3, language] for language in languages])
    answer = generator(concepts, BatchLayout.of(concepts), prompts, BatchLayout.of(prompts))
    lists = [[(hypothesis.seq.tolist(), float(hypothesis.score)) for hypothesis in row] for row in answer.hypotheses]
    gap = algorithm.gap
    for row in lists:
        gap = min([gap, *(a[1] - b[1] for a, b in itertools.pairwise(row))])
    return lists, gap


def beams() -> None:
    """N-best lists: decoders × widths × lengths × unknown piece allowed or not × rows."""
    cases = []
    concepts_of = {}
    for number in range(DECODERS):
        model = SonarEncoderDecoderModel(DummyEncoderModel(), text_decoder(200 + number)).eval()
        languages = [80 + 4 * number, 81 + 4 * number]
        for attempt in range(1000):
            generator = torch.Generator().manual_seed(1000 * number + attempt)
            concepts = half_exact(0.7 * torch.randn(ROWS, WIDTH, generator=generator))
            found, least, lengths = [], math.inf, set()
            for width in BEAMS:
                for max_total in LENGTHS:
                    for unknown in (False, True):
                        lists, gap = search(model, concepts, languages, width, max_total, unknown)
                        least = min(least, gap)
                        lengths |= {len(ids) for row in lists for ids, _ in row}
                        found += [
                            {
                                "decoder": number,
                                "row": row,
                                "beams": width,
                                "max_total": max_total,
                                "unknown": unknown,
                                "hypotheses": [{"ids": ids, "score": score} for ids, score in lists[row]],
                            }
                            for row in range(ROWS)
                        ]
            wrote_unknown = any(1 in one["ids"] for case in found for one in case["hypotheses"])
            if least > LEAST_GAP and len(lengths) > 8 and wrote_unknown:
                break
        else:
            raise SystemExit("no input without ties was found")
        print(f"decoder {number}: attempt {attempt}, least gap {least:.1e}, lengths {sorted(lengths)}")
        cases += found
        concepts_of[str(number)] = {"concepts": concepts.tolist(), "languages": languages}
    data = {"inputs": concepts_of, "cases": cases}
    (FOLDER / "beams.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
    print(len(cases), "cases")


@torch.inference_mode()
def speech() -> None:
    """Conformer, attention pooler and projection on padded filter banks, and on those of ``filterbank``."""
    from fairseq2.models.transformer import TransformerNormOrder
    from fairseq2.models.wav2vec2 import Wav2Vec2EncoderConfig
    from sonar.models.sonar_speech import SonarSpeechEncoderConfig, SonarSpeechEncoderFactory

    inner = Wav2Vec2EncoderConfig(
        model_dim=WIDTH,
        max_seq_len=4096,
        feature_dim=160,
        use_fbank=True,
        first_pass_dropout_p=0.0,
        layer_norm_features=False,
        feature_extractor_layer_descs=[],
        feature_grad_scale=0.0,
        num_fbank_channels=80,
        fbank_stride=2,
        sample_fbank_every_k=1,
        pos_encoder_type="relative",
        pos_encoder_depth=0,
        pos_conv_kernel_size=0,
        num_pos_conv_groups=0,
        use_conformer=True,
        num_encoder_layers=LAYERS,
        num_encoder_attn_heads=HEADS,
        ffn_inner_dim=FFN,
        dropout_p=0.0,
        attn_dropout_p=0.0,
        layer_drop_p=0.0,
        norm_order=TransformerNormOrder.POST,
        depthwise_conv_kernel_size=31,
    )
    config = SonarSpeechEncoderConfig(
        w2v2_encoder_config=inner,
        final_dropout_p=0.1,
        model_dim=WIDTH,
        max_seq_len=1024,
        pad_idx=1,
        bos_idx=2,
        num_decoder_layers=3,
        num_decoder_attn_heads=HEADS,
        decoder_norm_order=TransformerNormOrder.POST,
        ffn_inner_dim=FFN,
        dropout_p=0.1,
    )
    model = SonarSpeechEncoderFactory(config).create_model()
    randomise(model, 300)
    generator = torch.Generator().manual_seed(7)
    lengths = [81, 40, 64]
    banks = half_exact(torch.randn(len(lengths), 82, 80, generator=generator))
    for row, length in enumerate(lengths):
        banks[row, length:] = 0
    answer = model(banks, BatchLayout.of(banks, seq_lens=lengths))
    tensors = stored(model, "speech")
    tensors |= {"banks": banks.half(), "lengths": torch.tensor(lengths), "embeddings": answer.sentence_embeddings}
    tensors["states"] = answer.encoded_seqs[1, :20].clone()
    for name in ("chirp", "voice"):  # what the native code made of samples
        bank = load_file(FOLDER / "filterbank.safetensors")[f"{name}/bank"][None]
        tensors[f"embedding/{name}"] = model(bank, BatchLayout.of(bank)).sentence_embeddings
    save_file(tensors, FOLDER / "speech.safetensors")


@torch.inference_mode()
def judges() -> None:
    """BLASER 2.0 with and without a reference, and MuTox, all narrower than the released ones."""
    from sonar.models.blaser.model import BlaserModel
    from sonar.models.mutox.model import MutoxClassifier
    from torch import nn

    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(9)
    src, mt, ref = (half_exact(torch.randn(5, WIDTH, generator=generator)) for _ in range(3))
    tensors |= {"src": src, "mt": mt, "ref": ref}
    for kind, form in (("ref", "COMET"), ("qe", "QE")):
        model = BlaserModel(WIDTH, 1, [24, 12], 0.1, "TANH", form, norm_emb=True, output_act=False)
        randomise(model, 400 + len(kind), gain=2.0)
        tensors |= stored(model, f"blaser_{kind}")
        tensors[f"scores_{kind}"] = model(src, mt, ref if kind == "ref" else None)
    # The factory of the original fixes its hidden widths, 512 and 128; the order of its layers is kept here.
    mutox = MutoxClassifier(
        nn.Sequential(
            nn.Sequential(nn.Dropout(0.01), nn.Linear(WIDTH, 24)),
            nn.Sequential(nn.ReLU(), nn.Linear(24, 12)),
            nn.Sequential(nn.ReLU(), nn.Linear(12, 1)),
        )
    )
    randomise(mutox, 500, gain=2.0)
    tensors |= stored(mutox, "mutox")
    tensors["mutox_logits"], tensors["mutox_probabilities"] = mutox(src), mutox(src, output_prob=True)
    save_file(tensors, FOLDER / "judges.safetensors")


STRINGS = (
    "Tim had a red ball.",
    "",
    " ",
    "  two  spaces ",
    "trailing space ",
    "tab\tand\nnew line",
    "ﬁne ½ ① Ａ",
    "e\u0301 é",
    "zero\u200bwidth\u200d joiner\ufeff",
    "a</s>b",
    "</s>",
    "<s> <pad> <unk>",
    "eng_Latn __eng_Latn__ <MINED_DATA>",
    "▁under▁score",
    "Ελληνικά",
    "Москва, 1984",
    "日本語と中文",
    "العربية",
    "हिन्दी में",
    "🙂 emoji 👩‍👩‍👧",
    "Ꞓ unseen ⵣ letters 𐍈",
    "NUL-free \x01 control",
    "very " * 40,
)


def native_tokenizer():
    """The native tokenizer around a SentencePiece model that is trained here and stored, and the languages."""
    import sonar
    from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer
    from ruamel.yaml import YAML

    sys.path.insert(0, str(FOLDER.parents[1]))
    from sonar_small import small_tokenizer_model

    card = next((Path(sonar.__path__[0]) / "cards").glob("text_sonar_basic_encoder.yaml"))
    languages = next(YAML(typ="safe").load_all(card.read_text()))["tokenizer_config"]["_set_"]["langs"]
    model = small_tokenizer_model()
    # Most of the file is a table of nmt_nfkc; packed, with no time in the header, so that it is the same each time.
    (FOLDER / "tokenizer.model.gz").write_bytes(gzip.compress(model, mtime=0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        path.write_bytes(model)
        return load_nllb_tokenizer(path, NllbTokenizerConfig(langs=languages, default_lang="eng_Latn")), languages


def tokenizer() -> None:
    """Ids and texts of the native tokenizer."""
    native, languages = native_tokenizer()
    info = native.vocab_info
    records = []
    for number, text in enumerate(STRINGS):
        language = ("eng_Latn", "fra_Latn", "zho_Hant", "ace_Arab", "zul_Latn")[number % 5]
        record = {"text": text, "language": language}
        for mode in ("source", "target", "source_mining", "source_mmt_bt", "source_smt_bt"):
            record[mode] = native.create_encoder(lang=language, mode=mode)(text).tolist()
        record["decoded"] = str(native.create_decoder()(torch.tensor(record["source"])))
        records.append(record)
    decoder = native.create_decoder()
    generator = torch.Generator().manual_seed(3)
    decoded = []
    for length in (1, 3, 8, 20):
        ids = torch.randint(0, info.size, (length,), generator=generator).tolist()
        decoded.append({"ids": ids, "text": str(decoder(torch.tensor(ids)))})
    data = {
        "pieces": info.size - 1 - len(languages) - 3,
        "size": info.size,
        "special": {"pad": info.pad_idx, "unk": info.unk_idx, "bos": info.bos_idx, "eos": info.eos_idx},
        "languages": {code: native.create_encoder(lang=code)("").tolist()[0] for code in languages},
        "texts": records,
        "decoded": decoded,
    }
    (FOLDER / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=True, separators=(",", ":")) + "\n")


@torch.inference_mode()
def pipelines() -> None:
    """Texts to embeddings and embeddings to texts, through the original's own pipelines."""
    from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline

    native, _ = native_tokenizer()
    vocab = native.vocab_info.size
    encoder, decoder = text_encoder(600, vocab, 514, 1), text_decoder(601, vocab, 512, 1)
    reader = TextToEmbeddingModelPipeline(encoder, native)
    writer = EmbeddingToTextModelPipeline(decoder, native)
    tensors = stored(encoder, "encoder") | stored(decoder, "decoder")
    texts = [*(text for text in STRINGS if text.strip()), "Tim ran after the ball. " * 60]
    for language in ("eng_Latn", "zho_Hant"):
        tensors[f"embeddings/{language}"] = reader.predict(texts, source_lang=language, batch_size=4)
    written = []
    for row, embedding in enumerate(tensors["embeddings/eng_Latn"]):
        for beams, max_total in ((1, 12), (5, 24), (3, 60)):
            language = ("fra_Latn", "zul_Latn")[row % 2]
            settings = {"beam_size": beams, "max_seq_len": max_total, "unk_penalty": math.inf}
            algorithm = WatchfulAlgorithm()
            text = writer.predict(embedding[None], target_lang=language, algo=algorithm, **settings)[0]
            if algorithm.gap > LEAST_GAP:
                one = {"row": row, "language": language, "beams": beams, "max_total": max_total, "text": str(text)}
                written.append(one)
    save_file(tensors, FOLDER / "pipelines.safetensors")
    data = json.dumps({"texts": texts, "written": written}, separators=(",", ":"))
    (FOLDER / "pipelines.json").write_text(data + "\n")
    print(len(written), "texts written")


def signals() -> dict[str, np.ndarray]:
    """A chirp, and pulses of a voice through two moving resonances with pauses; int16, 16 kHz.

    Both with a little noise: without it the original's float32 has no correct digit left in bins 100 dB below others.
    """
    rate = 16_000
    time = np.arange(int(0.4 * rate)) / rate
    noise = np.random.default_rng(4).standard_normal(rate)
    chirp = 0.5 * np.sin(2 * np.pi * (80 * time + 4500 * time**2)) + 1e-3 * noise[: len(time)]
    time = np.arange(int(0.715 * rate)) / rate
    noise = noise[: len(time)]
    pulses = (np.sin(np.cumsum(2 * np.pi * (120 + 20 * np.sin(5 * time)) / rate)) > 0.97).astype(float) + 0.02 * noise
    voice = np.zeros_like(pulses)
    for center, width in ((500 + 200 * np.sin(7 * time), 80), (1500 + 500 * np.cos(4 * time), 120)):
        radius = np.exp(-np.pi * width / rate)
        a = b = 0.0
        for i, pulse in enumerate(pulses):
            a, b = pulse + 2 * radius * np.cos(2 * np.pi * center[i] / rate) * a - radius**2 * b, a
            voice[i] += a
    voice *= (np.sin(2 * np.pi * 2.2 * time) > -0.3) + 0.001
    return {
        "chirp": (chirp * 32767).round().astype(np.int16),
        "voice": (0.6 * voice / np.abs(voice).max() * 32767).round().astype(np.int16),
    }


def filterbank() -> None:
    """Native log-mel filter banks, standardised, as the original's speech pipeline asks for them."""
    from fairseq2.data.audio import WaveformToFbankConverter

    convert = WaveformToFbankConverter(num_mel_bins=80, waveform_scale=2**15, channel_last=True, standardize=True)
    tensors = {}
    for name, samples in signals().items():
        waveform = torch.from_numpy(samples)[:, None].float() / 2**15
        tensors[f"{name}/samples"] = torch.from_numpy(samples)
        tensors[f"{name}/bank"] = convert({"waveform": waveform, "sample_rate": 16_000.0})["fbank"].contiguous()
    save_file(tensors, FOLDER / "filterbank.safetensors")


PARTS = {part.__name__: part for part in (network, beams, judges, tokenizer, pipelines, filterbank, speech)}


def main() -> None:
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
    total = sum(file.stat().st_size for file in FOLDER.iterdir() if file.suffix != ".py")
    print(f"{total:,} bytes in all")


if __name__ == "__main__":
    main()
