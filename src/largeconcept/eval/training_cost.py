"""What training costs: products counted for every family of models, so that a baseline can be given as many.

Forward and backward together count as three times the forward pass (arXiv:2001.08361, section 2.1): each product has
two in its gradient. What runs without gradient counts once. As in :mod:`largeconcept.eval.cost` two operations stand
for a multiplication with its addition, sums and norms are left out, and padding counts, as it is computed too.

Data that are encoded before training are counted apart (:attr:`RunFlops.encoding`): a dataset is built once, whatever
and however often is trained on it.

Note: gradients of what is not learnt (inputs, codebooks) are counted with the rest; that is less than a hundredth in
models of a usual size.

Shape letters: B rows, S concepts (or tokens) of a row, R of them that are read, T targets of a row, C concept
dimension, D width, Q codebooks, V vocabulary or centroids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from largeconcept.errors import ConfigError, did_you_mean
from largeconcept.eval.cost import Copying, _Causal, _Layer, _read, _time_embedding, codec_flops

if TYPE_CHECKING:
    from largeconcept.train.config import RunConfig
    from largeconcept.types import ConceptBatch

ENOUGH_CONCEPTS = 8192
"""Concepts of a run whose batches are looked at; others are taken to be like them."""
BACKWARD = 3
"""Forward and backward, in forward passes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step works on.

    Attributes:
        rows: B.
        length: S, padding included; of a token model, tokens with the document mark.
        targets: T of each row, padding included; of a token model all tokens that are scored.
        supervised: whether rows are a source and a target.
    """

    rows: int
    length: int
    targets: int
    supervised: bool = False

    @property
    def read(self) -> int:
        """R: what comes last is nobody's context, except where a target follows a source."""
        return self.length if self.supervised else max(self.length - 1, 1)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Operations of a codec for a sentence.

    Attributes:
        encode: to its concept.
        decode: from it, ``scores`` included.
        scores: products with the table of tokens, which stays as it is when a decoder is trained.
    """

    encode: int
    decode: int
    scores: int


@dataclass(frozen=True, slots=True)
class RunFlops:
    """Operations of a training run.

    Attributes:
        per_step: mean of a step, forward and backward.
        steps: of the run.
        encoding: of encoding once each sentence that the run reads; ``None`` where the codec's cost is not known, 0
            for models of tokens.
    """

    per_step: float
    steps: int
    encoding: int | None = None

    @property
    def training(self) -> int:
        """Of all steps."""
        return round(self.per_step * self.steps)


def step_flops(
    model: Any, batch: Batch, objective: Any = None, *, sentence: Sentence | None = None, causal_half: bool = True
) -> int:
    """Count forward and backward of one batch.

    Args:
        model: configuration of a model of any family, a token model's included.
        batch: its sizes.
        objective: configuration of the objective; the family's own by default.
        sentence: what the codec takes for a sentence, for training through its decoder.
        causal_half: see :func:`~largeconcept.eval.cost.model_flops`.

    Raises:
        ConfigError: a family that is not known, or no decoder for one that is trained through it.
    """
    from largeconcept.objectives import default_objective

    family = str(getattr(model, "type", type(model).__name__))
    if family not in _FAMILIES:
        raise ConfigError("this family's cost is not known", got=family, hint=did_you_mean(family, _FAMILIES))
    chosen: Any = objective if objective is not None else default_objective(model)
    through = 0
    if getattr(chosen, "type", None) == "through_decoder":
        if sentence is None:
            raise ConfigError("training through a decoder includes the decoder's cost", where="codec", got=None)
        through = _through(chosen, batch, sentence)
    learnt, given = _FAMILIES[family](model, chosen, batch, _Causal(causal_half))
    return BACKWARD * int(learnt) + int(given) + through


def _through(objective: Any, batch: Batch, sentence: Sentence) -> int:
    """Count the decoder's part of a batch."""
    scored = batch.rows * (batch.targets if batch.supervised else max(batch.targets - 1, 1))
    scored = scored if objective.max_sentences is None else min(scored, objective.max_sentences)
    learns = sentence.decode - sentence.scores if objective.train_decoder else 0
    # Of what stays as it is only the gradient of its input is wanted.
    total: int = scored * ((BACKWARD - 1) * sentence.decode + learns)
    if objective.round_trip:
        # A part of a sentence, which is encoded first, counts as a whole one.
        parts = min(batch.rows, objective.parts)
        total += parts * sentence.encode
        again = math.ceil(scored * objective.round_trip_share) + parts
        # Nothing before the decoder learns from these: a decoder that stays has no backward pass.
        total += again * (sentence.decode + (sentence.decode + learns if objective.train_decoder else 0))
    return total


def run_flops(config: RunConfig, codec: Any = None) -> RunFlops:
    """Count a training run, from batches like those that it reads.

    Args:
        config: of the run; its data must be there.
        codec: of the data, for the cost of encoding, of training through its decoder, and for a token model's tokens.

    Raises:
        ConfigError: a family that is not known, or a codec that is needed and missing.
        DataError: there are no data.
    """
    from largeconcept.data.loader import ConceptLoader

    tokens = config.model.type == "token_lm"
    tokenizer = getattr(codec, "tokenizer", None)
    if tokens and tokenizer is None:
        raise ConfigError("a token model's cost depends on the tokenizer", where="codec", got=codec)
    data = config.data.model_copy(update={"sentences": True}) if tokenizer is not None else config.data
    loader = ConceptLoader(data)
    batches: list[ConceptBatch] = []
    steps = concepts = 0
    while concepts < ENOUGH_CONCEPTS and steps < config.train.max_steps:
        found = loader.next_step()
        batches += found
        steps += 1
        concepts += sum(int(one.lengths.sum()) for one in found)
    places = getattr(config.objective, "form_reach", None)  # the codec that is opened has none yet
    sentence = None if tokens else _sentence(codec, batches, concepts, places)
    if tokens:
        total = sum(
            step_flops(config.model, one) for batch in batches for one in _token_batches(config, batch, tokenizer)
        )
    else:
        total = sum(step_flops(config.model, _sizes(batch), config.objective, sentence=sentence) for batch in batches)
    encoding: int | None = 0
    if not tokens:
        folders = {dataset.folder: dataset for dataset in loader.datasets}  # one may be read for several tasks
        there = sum(len(dataset) and dataset.num_concepts for dataset in folders.values())
        read = min(there, round(concepts / steps * config.train.max_steps))
        encoding = None if sentence is None else read * sentence.encode
    return RunFlops(total / steps, config.train.max_steps, encoding)


def _sizes(batch: ConceptBatch) -> Batch:
    from largeconcept.objectives.base import num_noisy

    rows, length = batch.concepts.shape[:2]
    return Batch(rows, length, num_noisy(batch), batch.source_lengths is not None)


def _token_batches(config: RunConfig, batch: ConceptBatch, tokenizer: Any) -> list[Batch]:
    """Return the batches that a token model's objective makes of a batch of documents."""
    from largeconcept.codec.rows import by_length
    from largeconcept.objectives.token_lm import CONTEXT, TokenLMObjective, TokenLMObjectiveConfig

    settings = config.objective
    assert isinstance(settings, TokenLMObjectiveConfig)
    objective = TokenLMObjective(settings, tokenizer=tokenizer)
    like: Any = SimpleNamespace(config=config.model)
    documents = objective.documents(like, batch)
    found = []
    for rows in by_length([len(tokens) for tokens, _ in documents], settings.batch_tokens):
        scored = sum(kind != CONTEXT for row in rows for kind in documents[row][1])
        found.append(Batch(len(rows), max(len(documents[row][0]) for row in rows), scored))
    return found


def _sentence(codec: Any, batches: list[ConceptBatch], concepts: int, places: int | None) -> Sentence | None:
    """Return what the codec takes for a sentence of mean length, where that is known."""
    network, tokenizer = getattr(codec, "network", None), getattr(codec, "tokenizer", None)
    shape: Any = getattr(network, "config", None)
    if shape is None and hasattr(codec, "encoder") and hasattr(codec, "decoder"):
        shape = (getattr(codec.encoder, "config", None), getattr(codec.decoder, "config", None))
        shape = None if None in shape else shape
    if shape is None or tokenizer is None or not concepts:
        return None
    if places is not None:
        shape = shape.model_copy(update={"form_reach": places})
    texts = [text for batch in batches for row in batch.sentences or () for text in row]
    mean = sum(map(len, tokenizer.encode(texts))) / max(len(texts), 1)
    return sentence_flops(shape, max(round(mean), 1))


def sentence_flops(shape: Any, tokens: int) -> Sentence:
    """Count a sentence of some tokens; ``shape`` as in :func:`~largeconcept.eval.cost.codec_flops`."""
    found = codec_flops(shape, tokens, causal_half=True)
    writer = shape[1] if isinstance(shape, tuple) else shape
    return Sentence(found.encode, found.decode, (tokens + 1) * 2 * writer.width * writer.vocab_size)


# ---------------------------------------------------------------------- families: (with gradient, without)


def _regression(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    # All positions are read and predict, the last one too.
    copied = Copying.of(config)
    each = batch.length * (2 * 2 * config.concept_dim * config.model_dim + copied.key + copied.query)
    each += batch.length * batch.length * copied.pair
    return batch.rows * (each + _read(_Layer.of(config), config.num_layers, batch.length, causal)), 0


def _energy(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    dim, samples, inward = config.model_dim, objective.num_samples, 2 * config.concept_dim * config.model_dim
    block = samples * (2 + 4 + 2) * dim * dim + 2 * dim * dim
    head = samples * (2 * config.num_noise * dim + inward) + 2 * dim * dim + config.num_head_layers * block
    read = batch.read * inward + _read(_Layer.of(config), config.num_layers, batch.read, causal)
    return batch.rows * (read + batch.targets * head), 0


def _towers(config: Any, batch: Batch, causal: _Causal, times: int, inputs: int) -> tuple[int, int]:
    """Return the operations of the contextualizer and of one pass of the denoiser."""
    dim, inward = config.model_dim, 2 * config.concept_dim * config.model_dim
    square, rows, entries = 2 * dim * dim, batch.rows * batch.targets, batch.read + 1
    read = batch.read * inward + _read(_Layer.of(config), config.num_context_layers, batch.read, causal)
    pairs = batch.targets * entries if batch.supervised else causal.pairs(batch.targets)
    layer = rows * (4 * square + _Layer.of(config).mlp) + batch.rows * (entries * 2 * square + pairs * 4 * dim)
    layer += times * 9 * square
    denoise = times * _time_embedding(dim) + config.num_denoiser_layers * layer + rows * (inputs + 1) * inward
    return batch.rows * read, denoise


def _two_tower(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    # With more rows than timesteps, modulators run once for each timestep.
    times = min(batch.rows * batch.targets, config.noise_schedule.num_timesteps)
    read, denoise = _towers(config, batch, causal, times, 1)
    return read + denoise, 0


def _flow(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    twice = config.self_conditioning
    read, denoise = _towers(config, batch, causal, batch.rows * batch.targets, 2 if twice else 1)
    return read + denoise, denoise if twice and objective.self_conditioning else 0


def _one_stack(config: Any, batch: Batch, causal: _Causal, time: int, outputs: int) -> int:
    layer, dim, layers = _Layer.of(config), config.model_dim, config.num_layers
    inward, clock, rows = 2 * config.concept_dim * dim, time + 2 * dim * dim, batch.rows * batch.targets
    # Of the last layer only keys and values are wanted, which come with the queries.
    read = batch.read * inward + _read(layer, layers - 1, batch.read, causal) + batch.read * layer.qkv
    # Noisy rows attend to all of the context under a mask.
    noisy = inward + clock + layers * (layer.position + batch.read * layer.pair) + 2 * dim * outputs
    total: int = clock + batch.rows * read + rows * noisy
    return total


def _one_tower(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    return _one_stack(config, batch, causal, _time_embedding(config.model_dim), config.concept_dim), 0


def _quantized(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    finds = config.head == "continuous" or config.logits == "codebook"
    learnt = _one_stack(config, batch, causal, 0, config.concept_dim if finds else config.codebook_size)
    rows, compare = batch.rows * batch.targets, 2 * config.concept_dim * config.codebook_size
    if finds and config.head == "discrete":
        learnt += rows * compare
    # The centroids of each concept are searched greedily, and again by beams.
    searches = 1 + (objective.beam if objective.beam > 1 else 0)
    return learnt, rows * config.num_quantizers * compare * searches


def _planning(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    from largeconcept.objectives import default_objective

    body = objective.body if objective.body is not None else default_objective(config.body)
    found: tuple[int, int] = _FAMILIES[config.body.type](config.body, body, batch, causal)
    return found


def _token_lm(config: Any, objective: Any, batch: Batch, causal: _Causal) -> tuple[int, int]:
    read = _read(_Layer.of(config), config.num_layers, batch.read, causal)
    return batch.rows * read + batch.targets * 2 * config.model_dim * config.vocab_size, 0


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

__all__ = ["Batch", "RunFlops", "Sentence", "run_flops", "sentence_flops", "step_flops"]
