"""What writing on costs: products counted for every family of models, for token models and for codecs.

The comparison of the LCM paper (arXiv:2412.08821, section 2.5.1 and figure 13), for this library's way of computing:
a context is read once, keys and values are kept, what does not depend on the context is computed once, and a concept
costs the encoder and the decoder of its sentence too. Counted are the products of matrices, two operations for each
multiplication with its addition, as torch's own counter does (``torch.utils.flop_counter``); sums, norms and softmax
are left out. Nothing is computed, so models of any size can be counted from their configurations.

A causal product of T queries and T keys counts as T², of which a kernel needs to compute a half; with ``causal_half``
it counts as T (T + 1) / 2.

Note: the paper writes down formulas of its own with one pass over the context for each new concept; here every new
concept is appended.

Shape letters: S concepts of a context, T tokens, L entries attended to, C concept dimension, D width, I width of all
heads, F inner width, V vocabulary, M memory tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.generate.options import GenerationOptions
from largeconcept.nn.copying import HEAD_DIM
from largeconcept.nn.mlp import glu_width
from largeconcept.nn.timestep import NUM_FREQUENCIES

if TYPE_CHECKING:
    from largeconcept.codec.network import AutoencoderConfig
    from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig

PARTS = ("encode", "plan", "read", "write", "decode")
SONAR_MARKS = 2
"""Tokens of SONAR beside the pieces: the language and the end in its encoder, the end and the language in front of
what its decoder writes."""


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations by what they are for.

    Attributes:
        encode: sentences of the context to concepts; new concepts are read as they are.
        plan: what is computed once, whatever the text: modulators of timesteps, merged weights.
        read: the context.
        write: the new concepts or tokens.
        decode: new concepts to sentences.
    """

    encode: int = 0
    plan: int = 0
    read: int = 0
    write: int = 0
    decode: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.encode + self.plan + self.read + self.write + self.decode

    def to_dict(self) -> dict[str, int]:
        """Return plain data, the total included."""
        return {**{part: getattr(self, part) for part in PARTS}, "total": self.total}


@dataclass(frozen=True, slots=True)
class CodecFlops:
    """Operations of a codec for one sentence."""

    encode: int
    decode: int


def model_flops(
    config: Any,
    context: int,
    new: int,
    options: GenerationOptions | None = None,
    *,
    causal_half: bool = False,
) -> Flops:
    """Count reading a context and writing after it, one text, greedily where tokens are written.

    Args:
        config: configuration of a model of any family, a token model's included.
        context: concepts (tokens, for a token model) to read, at least 1.
        new: concepts (or tokens) to write, at least 1. The last one is not read.
        options: sampler settings of concept models; the defaults of generation by default.
        causal_half: count the visible half of causal products alone.

    Note: of a planning model the concepts of plans and breaks count as concepts, the second sample that finds the ends
    of paragraphs (``plain_ends``) included.

    Raises:
        ConfigError: a family that is not known, or a number below 1.
    """
    for name, value in (("context", context), ("new", new)):
        if value < 1:
            raise ConfigError("out of range", where=name, got=value, expected="at least 1")
    family = str(getattr(config, "type", type(config).__name__))
    if family not in _FAMILIES:
        raise ConfigError("this family's cost is not known", got=family, hint=did_you_mean(family, _FAMILIES))
    settings = options if options is not None else GenerationOptions()
    flops: Flops = _FAMILIES[family](config, context, new, settings, _Causal(causal_half))
    return flops


def codec_flops(
    config: AutoencoderConfig | tuple[SonarEncoderConfig, SonarDecoderConfig],
    tokens: int,
    *,
    num_beams: int = 1,
    causal_half: bool = False,
) -> CodecFlops:
    """Count encoding and decoding one sentence of a number of tokens.

    Args:
        config: of an autoencoder codec, or of SONAR's encoder and decoder.
        tokens: T, without marks.
        num_beams: rows that are written side by side. A beam search is taken to end when the best sentence does.
        causal_half: see :func:`model_flops`; decoders write token by token and have no such product.

    Raises:
        ConfigError: a number below 1.
    """
    for name, value in (("tokens", tokens), ("num_beams", num_beams)):
        if value < 1:
            raise ConfigError("out of range", where=name, got=value, expected="at least 1")
    if isinstance(config, tuple):
        return CodecFlops(_sonar_encode(config[0], tokens), _sonar_decode(config[1], tokens, num_beams))
    return CodecFlops(_autoencoder_encode(config, tokens), _autoencoder_decode(config, tokens, num_beams))


def text_flops(
    config: Any,
    context_tokens: int,
    new_tokens: int,
    codec: AutoencoderConfig | tuple[SonarEncoderConfig, SonarDecoderConfig] | None = None,
    options: GenerationOptions | None = None,
    *,
    sentence_tokens: int = 27,
    num_beams: int = 1,
    causal_half: bool = False,
) -> Flops:
    """Count going on from a text of some tokens by some tokens: the figure's comparison for one model.

    Args:
        config: configuration of a model; a token model reads the tokens, with a mark after each sentence.
        context_tokens: tokens of the context, marks not counted; cut into sentences of equal length.
        new_tokens: tokens to write, marks not counted.
        codec: of a concept model; not looked at for a token model.
        options: see :func:`model_flops`.
        sentence_tokens: tokens of a sentence. Both numbers of tokens are rounded up to whole sentences.
        num_beams: of the codec's decoder.
        causal_half: see :func:`model_flops`.

    Raises:
        ConfigError: a number below 1, or no codec for a concept model.
    """
    for name, value in (
        ("context_tokens", context_tokens),
        ("new_tokens", new_tokens),
        ("sentence_tokens", sentence_tokens),
    ):
        if value < 1:
            raise ConfigError("out of range", where=name, got=value, expected="at least 1")
    context, new = ceil(context_tokens / sentence_tokens), ceil(new_tokens / sentence_tokens)
    if config.type == "token_lm":
        each = sentence_tokens + 1  # the mark that ends it
        return model_flops(config, 1 + context * each, new * each, causal_half=causal_half)
    if codec is None:
        raise ConfigError("a concept model's cost includes its codec's", where="codec", got=None)
    sentence = codec_flops(codec, sentence_tokens, num_beams=num_beams, causal_half=causal_half)
    model = model_flops(config, context, new, options, causal_half=causal_half)
    return Flops(context * sentence.encode, model.plan, model.read, model.write, new * sentence.decode)


# ---------------------------------------------------------------------- transformers


@dataclass(frozen=True, slots=True)
class _Causal:
    """How many pairs of query and key a causal product of n positions has."""

    half: bool

    def pairs(self, n: int) -> int:
        return n * (n + 1) // 2 if self.half else n * n


@dataclass(frozen=True, slots=True)
class _Layer:
    """Products of one layer of a causal stack, for each position."""

    qkv: int
    output: int
    mlp: int
    pair: int  # for each query and key

    @classmethod
    def of(cls, config: Any) -> _Layer:
        dim, inner = config.model_dim, config.num_heads * config.head_dim
        return cls(2 * dim * 3 * inner, 2 * inner * dim, _mlp(config), 4 * inner)

    @property
    def position(self) -> int:
        return self.qkv + self.output + self.mlp


def _mlp(config: Any) -> int:
    dim, width = int(config.model_dim), int(config.inner_dim)
    return 3 * 2 * dim * glu_width(width) if config.mlp == "swiglu" else 2 * 2 * dim * width


def _read(layer: _Layer, layers: int, size: int, causal: _Causal) -> int:
    """A causal stack over ``size`` positions."""
    return layers * (size * layer.position + causal.pairs(size) * layer.pair)


def _append(layer: _Layer, layers: int, context: int, new: int) -> int:
    """A causal stack over all but the last of ``new`` positions after ``context``, one at a time."""
    pairs = sum(context + i for i in range(1, new))
    return layers * ((new - 1) * layer.position + pairs * layer.pair)


def _regression(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    layer, inward = _Layer.of(config), 2 * config.concept_dim * config.model_dim
    read = context * inward + _read(layer, config.num_layers, context, causal)
    write = (new - 1) * inward + _append(layer, config.num_layers, context, new)
    copied = Copying.of(config)
    read += context * copied.key
    write += (new - 1) * copied.key + new * copied.query + sum(context + i for i in range(new)) * copied.pair
    return Flops(read=read, write=write + new * inward)  # D to C costs what C to D does


@dataclass(frozen=True, slots=True)
class Copying:
    """Copying attention: a key for each concept read, a query for each that is written, and each pair of them."""

    key: int = 0
    query: int = 0
    pair: int = 0

    @classmethod
    def of(cls, config: Any) -> Copying:
        """Return the operations of a model's copying attention; none without heads."""
        heads, key = config.copy_heads, 2 * config.model_dim * config.copy_heads * HEAD_DIM
        pair = 2 * heads * (HEAD_DIM + config.concept_dim)
        return cls(key, key + 2 * config.model_dim * heads, pair)


def _token_lm(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    layer = _Layer.of(config)
    write = _append(layer, config.num_layers, context, new) + new * 2 * config.model_dim * config.vocab_size
    return Flops(read=_read(layer, config.num_layers, context, causal), write=write)


def _energy(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    layer, dim, samples = _Layer.of(config), config.model_dim, options.num_candidates
    inward = 2 * config.concept_dim * dim
    block = samples * (2 + 4 + 2) * dim * dim + 2 * dim * dim
    head = samples * (2 * config.num_noise * dim + inward) + 2 * dim * dim + config.num_head_layers * block
    read = context * inward + _read(layer, config.num_layers, context, causal)
    return Flops(read=read, write=(new - 1) * inward + _append(layer, config.num_layers, context, new) + new * head)


# ---------------------------------------------------------------------- denoisers


def _time_embedding(dim: int) -> int:
    return 2 * 2 * NUM_FREQUENCIES * dim + 2 * dim * dim


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One call of a denoiser for one concept.

    Attributes:
        guided: whether it runs with and without context.
        conditioned: whether a flow's denoiser has a previous prediction to look at.
    """

    guided: bool
    conditioned: bool = False

    @property
    def rows(self) -> int:
        return 2 if self.guided else 1


@dataclass(frozen=True, slots=True)
class _Towers:
    """A two-tower's products, whatever its kind of time."""

    config: Any
    times: int  # that a plan is made for
    evaluations: list[_Evaluation] = field(default_factory=list)
    flow: bool = False

    def count(self, context: int, new: int, fold: bool, causal: _Causal) -> Flops:
        config = self.config
        dim, layers = config.model_dim, config.num_denoiser_layers
        square, inward = 2 * dim * dim, 2 * config.concept_dim * dim
        layer = _Layer.of(config)
        plan = self.times * _time_embedding(dim) + layers * (self.times * 9 * square + square)
        if fold:
            plan += layers * dim * square
        # The zero vector in front of the context is projected too.
        read = context * inward + _read(layer, config.num_context_layers, context, causal)
        read += (context + 1) * layers * 2 * square
        write = (new - 1) * (inward + layers * 2 * square)
        write += _append(layer, config.num_context_layers, context, new)
        for i in range(new):
            entries = context + i + 1
            for one in self.evaluations:
                rows = one.rows * (square if fold else 2 * square) + 2 * square + one.rows * _mlp(config)
                embed = inward * (one.rows + one.conditioned * one.rows if self.flow else 1)
                write += embed + layers * (rows + entries * 4 * dim) + one.rows * inward
        return Flops(plan=plan, read=read, write=write)


def _two_tower(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    evaluations = _steps(config, options)
    halves = 1 if options.guidance_scale == 1.0 else 2
    fold = new * len(evaluations) * halves > config.model_dim
    return _Towers(config, len(evaluations), evaluations).count(context, new, fold, causal)


def _flow(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    steps, guided = options.num_inference_steps, options.guidance_scale != 1.0
    calls = 2 * steps - 1 if options.flow_solver == "heun" else steps
    evaluations = [_Evaluation(guided, config.self_conditioning and i > 0) for i in range(calls)]
    fold = new * (steps + 1) * (1 + guided) > config.model_dim
    return _Towers(config, steps, evaluations, flow=True).count(context, new, fold, causal)


def _steps(config: Any, options: GenerationOptions) -> list[_Evaluation]:
    from largeconcept.diffusion.sampling import sampler_plan
    from largeconcept.diffusion.schedules import NoiseSchedule

    return [_Evaluation(step.guided) for step in sampler_plan(NoiseSchedule(config.noise_schedule), options)]


def _one_tower(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    evaluations = _steps(config, options)
    time = _time_embedding(config.model_dim)
    return _one_stack(config, context, new, evaluations, time, config.concept_dim, causal, len(evaluations))


def _quantized(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    finds = config.head == "continuous" or config.logits == "codebook"
    each = options.codebooks_per_step if finds else 1
    calls = [_Evaluation(options.guidance_scale != 1.0)] * ceil(config.num_quantizers / each)
    outputs = config.concept_dim if finds else config.codebook_size
    found = _one_stack(config, context, new, calls, 0, outputs, causal, config.num_quantizers)
    # Every codebook is compared with what was found: distances, or logits from the centroids.
    compare = config.num_quantizers * 2 * config.concept_dim * config.codebook_size if finds else 0
    return Flops(plan=found.plan, read=found.read, write=found.write + new * compare)


def _one_stack(
    config: Any,
    context: int,
    new: int,
    evaluations: list[_Evaluation],
    time: int,
    outputs: int,
    causal: _Causal,
    times: int,
) -> Flops:
    """A transformer that reads clean concepts and, with the same weights, writes noisy ones."""
    layer, dim, layers = _Layer.of(config), config.model_dim, config.num_layers
    inward, clock = 2 * config.concept_dim * dim, time + 2 * dim * dim
    # Of the last layer only keys and values are wanted, which come with the queries.
    read = context * inward + clock + _read(layer, layers - 1, context, causal) + context * layer.qkv
    write = (new - 1) * (inward + clock) + _append(layer, layers, context, new)
    for i in range(new):
        for one in evaluations:
            # Without context a row sees itself alone, for which no product is needed.
            write += inward + layers * (one.rows * layer.position + (context + i) * layer.pair)
            write += one.rows * 2 * dim * outputs
    return Flops(plan=times * clock, read=read, write=write)


def _planning(config: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> Flops:
    body = model_flops(config.body, context, new, options, causal_half=causal.half)
    if not options.plain_ends or config.body.type in ("mse", "through_decoder"):
        return body
    steps = max(options.num_inference_steps, 10)
    schedule = getattr(config.body, "noise_schedule", None)
    plain = options.model_copy(
        update={
            "guidance_scale": 1.0,
            "num_candidates": 1,
            "num_inference_steps": steps if schedule is None else min(steps, schedule.num_timesteps),
        }
    )
    ends = model_flops(config.body, context, new, plain, causal_half=causal.half)
    appended = _appended(config.body, context, new, plain, causal)
    return Flops(plan=body.plan + ends.plan, read=body.read, write=body.write + ends.write - appended)


def _appended(body: Any, context: int, new: int, options: GenerationOptions, causal: _Causal) -> int:
    """What of writing is reading back: the same for every sample of a concept."""
    one = [model_flops(body, n, 1, options, causal_half=causal.half).write for n in range(context, context + new)]
    return model_flops(body, context, new, options, causal_half=causal.half).write - sum(one)


_FAMILIES: Mapping[str, Any] = {
    "mse": _regression,
    "through_decoder": _regression,
    "energy": _energy,
    "flow": _flow,
    "one_tower": _one_tower,
    "two_tower": _two_tower,
    "quantized": _quantized,
    "planning": _planning,
    "token_lm": _token_lm,
}

# ---------------------------------------------------------------------- codecs


def _autoencoder_encode(config: AutoencoderConfig, tokens: int) -> int:
    width, heads = config.width, config.pooling_heads
    layer = tokens * (2 * 4 + 4 * config.ffn_multiple) * width * width + tokens * tokens * 4 * width
    outputs = config.meaning_dim * (2 if config.bottleneck == "kl" else 1)
    pooling = 2 * 2 * tokens * width * heads + 2 * heads * width * outputs
    return config.encoder_layers * layer + pooling + 2 * tokens * width * config.form_dim


def _autoencoder_decode(config: AutoencoderConfig, tokens: int, beams: int) -> int:
    from largeconcept.codec.binding import compared_dim

    width, memory = config.width, config.memory_tokens
    start = 2 * config.meaning_dim * width * (memory + 1) + config.decoder_layers * 2 * memory * width * 2 * width
    compared = compared_dim(width)
    start += config.form_reach * 2 * (width + compared) * config.form_dim  # what stands at each place, and its key
    total = start
    for t in range(tokens + 1):  # the language first, then the tokens
        rows = 1 if t == 0 else beams
        layer = (2 * 4 + 4 * config.ffn_multiple) * width * width + (memory + t + 1) * 4 * width
        total += rows * (config.decoder_layers * layer + 2 * width * config.vocab_size)
        if config.form_reach:
            total += rows * 2 * (2 * width * compared + config.form_reach * (width + compared))
        if config.form_dim:  # taken out twice, of the concept and of what is written; bound from the second step on
            total += rows * (2 * width * config.form_dim * (2 if t == 0 else 3) + 2 * config.dim)
    return total


def _sonar_layer(config: SonarEncoderConfig | SonarDecoderConfig) -> int:
    return 2 * 4 * config.width * config.width + 2 * 2 * config.width * config.ffn_dim


def _sonar_encode(config: SonarEncoderConfig, tokens: int) -> int:
    size = tokens + SONAR_MARKS
    return config.num_layers * (size * _sonar_layer(config) + size * size * 4 * config.width)


def _sonar_decode(config: SonarDecoderConfig, tokens: int, beams: int) -> int:
    width = config.width
    total = config.num_layers * (2 * config.concept_dim * width + 2 * width * width)
    for t in range(tokens + SONAR_MARKS):
        rows = 1 if t < SONAR_MARKS else beams
        total += rows * config.num_layers * (_sonar_layer(config) + (t + 1) * 4 * width)
        # After the mark in front comes the language, which only a beam search asks the probability of.
        total += rows * 2 * width * config.vocab_size if t or beams > 1 else 0
    return total
