"""The autoregressive loop over concepts, batched over prompts of different lengths.

Every prompt is read to its own length, given concepts are never predicted, a row that is finished leaves the batch, a
waiting prompt takes its place, and nothing waits for the device but one comparison for each new concept. A document's
result depends on its prompt, the seed and its sample id; not on what else is in the batch.

Shape letters: B batch, S concepts, C concept dimension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.contexts import ContextStore
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import Cache, Noise, Predictor, SeededNoise, make_predictor
from largeconcept.generate.stopping import StopReason, StopTest
from largeconcept.models.checks import as_lengths, check_concepts, check_finite
from largeconcept.nn.masks import lengths_mask

if TYPE_CHECKING:
    from largeconcept.codec.normalizer import ConceptNormalizer

_ADMIT = 4
"""New prompts are read when there is room for this many, so that reading is done in batches too."""


@dataclass(frozen=True, slots=True)
class GeneratedConcepts:
    """The continuation of one prompt.

    Attributes:
        concepts: (n, C) float32, the new concepts without the prompt, in the codec's space.
        stop_reason: ``stop_concept``, ``repetition`` or ``length``.
    """

    concepts: Tensor
    stop_reason: StopReason


@torch.no_grad()
def generate_concepts(
    model: nn.Module,
    prompts: Sequence[Tensor],
    normalizer: ConceptNormalizer,
    options: GenerationOptions | None = None,
    *,
    stop_vector: Tensor | None = None,
    meaning_dim: int | None = None,
    sample_ids: Sequence[int] | None = None,
    noise: Noise | None = None,
    contexts: ContextStore | None = None,
    on_concept: Callable[[int, Tensor], None] | None = None,
) -> list[GeneratedConcepts]:
    """Continue each prompt by up to ``options.max_concepts`` concepts.

    Args:
        model: a model of any family, on the device where the work is to be done; its mode is left as it was.
        prompts: (S_i, C) each, in the codec's space, of any lengths. An empty one (0, C) begins a text, where the
            family can.
        normalizer: the normaliser that the model was trained with.
        options: see :class:`GenerationOptions`.
        stop_vector: (C,) concept of the stop sentence in the codec's space.
        meaning_dim: the channels that say what a sentence means, the first ones; in these concepts are compared with
            it and with each other. ``None`` for all.
        sample_ids: one for each prompt; give different ids to draw several samples of one prompt. All 0 by default,
            so that a prompt's result does not depend on its place in the batch.
        noise: replaces the seeded noise; see :data:`~largeconcept.generate.predictors.Noise`.
        contexts: of the same model; keeps what it read of these prompts, for generation with other options.
        on_concept: called with (prompt index, (C,) concept) as soon as a concept is kept.

    Returns:
        One result for each prompt, in order.

    Raises:
        DataError: a prompt of a wrong shape, one with NaN or infinity, one that is empty for a family that cannot
            begin a text, or one that leaves no room in a learned table of positions.
        ConfigError: sampler settings that do not fit the model's noise schedule.
    """
    options = options if options is not None else GenerationOptions()
    if not prompts:
        return []
    parameter = next(model.parameters())
    dim = _concept_dim(model)
    given = [check_prompt(prompt, dim, f"prompt {i}", parameter.device) for i, prompt in enumerate(prompts)]
    lengths = [prompt.shape[0] for prompt in given]
    check_room(model, max(lengths) + options.max_concepts, options.max_concepts)
    stop = StopTest(options, None if stop_vector is None else stop_vector.to(parameter.device), dim, meaning_dim)
    if noise is None:
        noise = SeededNoise(options.seed, check_ids(sample_ids, len(given)), dim, parameter.device)
    predictor = make_predictor(model, options, noise, len(given) * options.max_concepts)
    if contexts is not None and contexts.model is not model:
        raise ConfigError("contexts of another model", where="contexts", got=type(model).__name__)

    kept: list[list[Tensor]] = [[] for _ in given]
    reasons: list[StopReason] = ["length"] * len(given)
    waiting = deque(range(len(given)))
    rows: list[int] = []
    cache: Cache | None = None
    previous = given[0].new_zeros(0, dim)
    with evaluating(model):
        while rows or waiting:
            if waiting and options.max_batch - len(rows) >= min(len(waiting), _ADMIT, options.max_batch):
                group = [waiting.popleft() for _ in range(min(len(waiting), options.max_batch - len(rows)))]
                fresh = _read(predictor, normalizer, [given[row] for row in group], options.max_concepts, contexts)
                if cache is None or not rows:
                    cache = fresh
                else:
                    cache.join(fresh)
                last = [given[row][-1] if lengths[row] else given[row].new_zeros(dim) for row in group]
                previous = torch.cat((previous, torch.stack(last)))
                rows = rows + group
            assert cache is not None
            new = normalizer.denormalize(predictor.predict(cache, rows)).float()
            going: list[int] = []
            for place, reason in enumerate(stop(new, previous, [len(kept[row]) + 1 for row in rows])):
                row = rows[place]
                if reason is None or reason == "length" or options.keep_last:
                    kept[row].append(new[place])
                    if on_concept is not None:
                        on_concept(row, new[place])
                if reason is None:
                    going.append(place)
                else:
                    reasons[row] = reason
            if len(going) < len(rows):
                if going:
                    cache.select(going)
                new, rows = new[going], [rows[place] for place in going]
            if rows:
                predictor.extend(cache, normalizer.normalize(new))
            previous = new
    empty = given[0].new_zeros(0, dim)
    return [
        GeneratedConcepts(torch.stack(one) if one else empty, reason) for one, reason in zip(kept, reasons, strict=True)
    ]


@torch.no_grad()
def predict_teacher_forced(
    model: nn.Module,
    x: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    options: GenerationOptions | None = None,
    *,
    sample_ids: Sequence[int] | None = None,
    noise: Noise | None = None,
    contexts: ContextStore | None = None,
) -> Tensor:
    """Predict every concept of each document from the given ones before it, all positions at once.

    Entry i equals what :func:`generate_concepts` predicts first for the prompt ``x[:i]``, up to rounding.

    Args:
        model: a model of any family; its mode is left as it was.
        x: (B, S, C) *normalised* concepts, padded on the right.
        lengths: (B,) number of real concepts.
        options: sampler settings and seed.
        sample_ids: one for each row, all 0 by default. Give each document its own, so that errors of different
            documents are independent.
        noise: replaces the seeded noise.
        contexts: of the same model; keeps what it read of these documents, for predictions with other options.

    Returns:
        (B, S, C) float32, normalised; zeros at padding, and at position 0 for a family that cannot begin a text.

    Raises:
        DataError: a wrong shape, or NaN or infinity.
        ConfigError: sampler settings that do not fit the model's noise schedule.
    """
    options = options if options is not None else GenerationOptions()
    dim = _concept_dim(model)
    check_concepts(x, dim, "x")
    check_finite(x, "x")
    device = next(model.parameters()).device
    sizes = torch.tensor(as_lengths(lengths, x.shape[0], x.shape[1]), device=device)
    if noise is None:
        noise = SeededNoise(options.seed, check_ids(sample_ids, x.shape[0]), dim, device)
    predictor = make_predictor(model, options, noise, x.shape[0] * x.shape[1])
    x = x.to(device)
    with evaluating(model):
        context = None if contexts is None else contexts.get(model, x, sample_ids or (), lambda: predictor.read_all(x))
        predicted = predictor.teacher_forced(x, context)
    return predicted.float() * lengths_mask(sizes, x.shape[1]).unsqueeze(-1)


def _read(
    predictor: Predictor,
    normalizer: ConceptNormalizer,
    prompts: Sequence[Tensor],
    max_concepts: int,
    contexts: ContextStore | None,
) -> Cache:
    """Read prompts together, each to its own length, or take what was read of them before."""
    lengths = [prompt.shape[0] for prompt in prompts]
    capacity = max(lengths) + max_concepts
    x = normalizer.normalize(pad_sequence(list(prompts), batch_first=True))
    if contexts is None:
        return predictor.start(x, lengths, capacity)
    kept: Cache = contexts.get(contexts.model, x, (capacity, *lengths), lambda: predictor.start(x, lengths, capacity))
    return deepcopy(kept)  # it grows as the text does


def _concept_dim(model: nn.Module) -> int:
    config: Any = getattr(model, "config", None)
    dim = getattr(config, "concept_dim", None)
    if dim is None:
        family = getattr(config, "type", type(model).__name__)
        hint = "a token model writes text: see largeconcept.generate.token_lm" if family == "token_lm" else None
        raise ConfigError("this kind of model cannot generate concepts", got=family, hint=hint)
    return int(dim)


def check_prompt(prompt: Tensor, dim: int, where: str, device: torch.device) -> Tensor:
    """Return a (S, C) prompt in float32 on ``device``; refuse other shapes, NaN and infinity."""
    if prompt.ndim != 2 or prompt.shape[1] != dim:
        raise DataError("wrong shape", where=where, expected=f"(S, {dim})", got=tuple(prompt.shape))
    check_finite(prompt, where)
    return prompt.to(device=device, dtype=torch.float32)


def check_ids(sample_ids: Sequence[int] | None, batch: int) -> Sequence[int]:
    """Return one sample id for each row: 0 where none are given."""
    if sample_ids is None:
        return [0] * batch
    if len(sample_ids) != batch:
        raise DataError("wrong number of sample ids", where="sample_ids", expected=batch, got=len(sample_ids))
    return sample_ids


def concept_limit(model: nn.Module) -> int | None:
    """Return how many concepts, prompt and new ones, the model's learned positions allow; ``None`` without any.

    The last new concept is never read, so it needs no position; but in a one-tower it is *written* at its position.
    """
    config = model.config
    if config.positions != "learned":  # type: ignore[union-attr]
        return None
    size: int = config.max_positions  # type: ignore[union-attr, assignment]
    return size if getattr(getattr(model, "body", model), "writes_at_positions", False) else size + 1


def check_room(model: nn.Module, room: int, max_concepts: int) -> None:
    """Complain before any work is done."""
    limit = concept_limit(model)
    if limit is not None and room > limit:
        size: int = model.config.max_positions  # type: ignore[union-attr, assignment]
        raise DataError(
            "the prompt and the concepts to come are longer than the model's learned positions",
            expected=f"at most {size} concepts",
            got=f"{room - max_concepts} of the prompt and {max_concepts} to come",
            hint="shorten the prompt or lower max_concepts",
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
