"""Generation with a planning model (arXiv:2412.08821, §4): plan → paragraph → break → plan → …

:class:`PlanningPredictor` lets the common loop and the evaluation treat a planning model as any other.
:func:`generate_planned` writes whole paragraphs and keeps plans and sentences apart; the plans may be given.

Shape letters: B batch, S concepts, C concept dimension, P paragraphs, n concepts of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import check_ids, check_prompt, check_room, evaluating
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import Cache, Noise, Predictor, SeededNoise, make_predictor
from largeconcept.generate.stopping import StopTest
from largeconcept.models.mse import MSEConfig
from largeconcept.models.planning import PlanningConceptModel

if TYPE_CHECKING:
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.schedules import NoiseScheduleConfig

PlannedStop = Literal["stop_concept", "repetition", "length", "plans"]


@dataclass(slots=True)
class PlanningCache:
    """The body's cache, and whether the next concept of each row is a plan.

    Attributes:
        body: what the body remembers.
        plan_due: (B,) boolean.
    """

    body: Cache
    plan_due: Tensor

    @property
    def lengths(self) -> list[int]:
        """Number of concepts read, of each row."""
        return self.body.lengths

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        self.body.select(rows)
        self.plan_due = self.plan_due[list(rows)]

    def join(self, other: PlanningCache) -> None:
        """Take the rows of another cache after one's own."""
        self.body.join(other.body)
        self.plan_due = torch.cat((self.plan_due, other.plan_due))


class PlanningPredictor:
    """The body's predictor, reading marked concepts.

    Args:
        model: the model.
        options: sampler settings.
        noise: where noise comes from.
        concepts: how many concepts may be predicted in all.
    """

    def __init__(self, model: PlanningConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        self.model = model
        self.body = make_predictor(model.body, options, noise, concepts)

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> PlanningCache:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        body = self.body.start(self.model.mark(x), lengths, capacity)
        size = torch.tensor(list(lengths), device=x.device)
        # A text begins with a plan, as if after a break.
        breaks = torch.cat((size.new_ones(len(size), 1, dtype=torch.bool), self.model.is_break(x)), dim=1)
        return PlanningCache(body, breaks.gather(1, size.unsqueeze(1)).squeeze(1))

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, PlanningCache)
        return self.body.predict(cache.body, rows)

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, PlanningCache)
        self.body.extend(cache.body, self.model.mark(x.unsqueeze(1), cache.plan_due).squeeze(1))
        cache.plan_due = self.model.is_break(x)

    def read_all(self, x: Tensor) -> Any:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.body.read_all(self.model.mark(x))

    def teacher_forced(self, x: Tensor, context: Any = None) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.body.teacher_forced(self.model.mark(x), context)


@dataclass(frozen=True, slots=True)
class PlannedConcepts:
    """What a planning model wrote after one prompt, in the codec's space.

    Attributes:
        plans: (P, C) float32, one for each paragraph.
        paragraphs: (n, C) float32 each, without plan and break; n may be 0.
        stop_reason: ``stop_concept``, ``repetition``, ``length`` (of concepts or of paragraphs), or ``plans`` when
            every given plan has its paragraph.
    """

    plans: Tensor
    paragraphs: list[Tensor]
    stop_reason: PlannedStop

    def flat(self) -> Tensor:
        """Return all plans, then all concepts of the paragraphs, as one (n, C) tensor."""
        return torch.cat((self.plans, *self.paragraphs))

    def cpu(self) -> PlannedConcepts:
        """Return the same on the CPU."""
        return PlannedConcepts(self.plans.cpu(), [one.cpu() for one in self.paragraphs], self.stop_reason)


@dataclass(slots=True)
class _Text:
    """A text that is being written: its plans so far and their paragraphs, and the plans that were given."""

    given: Tensor | None
    limit: int
    plans: list[Tensor] = field(default_factory=list)
    paragraphs: list[list[Tensor]] = field(default_factory=list)
    plan_due: bool = True
    stop_reason: PlannedStop = "length"

    @property
    def written(self) -> int:
        """Number of plans and sentences."""
        return len(self.plans) + sum(len(paragraph) for paragraph in self.paragraphs)

    def begin_paragraph(self, plan: Tensor) -> None:
        self.plans.append(plan)
        self.paragraphs.append([])
        self.plan_due = False


@torch.no_grad()
def generate_planned(
    model: PlanningConceptModel,
    prompts: Sequence[Tensor],
    normalizer: ConceptNormalizer,
    options: GenerationOptions | None = None,
    *,
    plans: Sequence[Tensor | None] | None = None,
    stop_vector: Tensor | None = None,
    meaning_dim: int | None = None,
    sample_ids: Sequence[int] | None = None,
    noise: Noise | None = None,
) -> list[PlannedConcepts]:
    """Write plans and their paragraphs after each prompt, batched over prompts.

    A paragraph ends at the break (what is read back is then the exact break concept, not the prediction that resembles
    it) or at ``options.max_paragraph_concepts``; a text ends at the stop concept, at ``options.max_paragraphs``, at
    ``options.max_concepts`` plans and sentences together, or when each given plan has its paragraph.
    ``options.keep_last`` does not apply.

    Args:
        model: a planning model that knows the break concept.
        prompts: (S_i, C) each, in the codec's space, laid out as training data; one that does not end with a break
            gets one. Empty (0, C) begins a text: without a given plan only where the body can.
        normalizer: the normaliser that the model was trained with.
        options: see :class:`GenerationOptions`.
        plans: for each prompt ``None``, or (P, C) plans to write paragraphs for.
        stop_vector: (C,) concept of the stop sentence in the codec's space.
        meaning_dim: see :func:`~largeconcept.generate.loop.generate_concepts`.
        sample_ids: one for each prompt, all 0 by default; noise depends on them, the seed and the position alone.
        noise: replaces the seeded noise.

    Returns:
        One result for each prompt, in order.

    Raises:
        ConfigError: the model was never given a break concept, or sampler settings that do not fit it.
        DataError: a prompt or plans of a wrong shape, empty, or with NaN or infinity; or no room for them.
    """
    options = options if options is not None else GenerationOptions()
    if not model.knows_breaks:
        hint = "train it on a dataset that was built with plans, or call set_break"
        raise ConfigError("the planning model knows no break concept", where=type(model).__name__, hint=hint)
    if not prompts:
        return []
    dim, device = model.config.concept_dim, model.break_concept.device
    pause = normalizer.denormalize(model.break_concept).float()
    texts = [
        _Text(one, options.max_paragraphs if one is None else len(one))
        for one in _given_plans(plans, len(prompts), dim, device)
    ]
    starts = []
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        read = [check_prompt(prompt, dim, f"prompt {i}", device)]
        if len(prompt) and not bool(model.is_break(normalizer.normalize(read[0][-1]))):
            read.append(pause.unsqueeze(0))
        if text.given is not None:
            text.begin_paragraph(text.given[0])
            read.append(text.given[:1])
        starts.append(torch.cat(read))
    lengths = [len(start) for start in starts]
    new = options.max_concepts + max(text.limit for text in texts)
    check_room(model, max(lengths) + new, new)
    stop = StopTest(options, None if stop_vector is None else stop_vector.to(device), dim, meaning_dim)
    if noise is None:
        noise = SeededNoise(options.seed, check_ids(sample_ids, len(texts)), dim, device)
    predictor = make_predictor(model, options, noise, len(texts) * new)
    ends = _predictor_of_ends(model, options, noise, len(texts) * new)

    rows = list(range(len(texts)))
    previous = torch.stack([start[-1] if len(start) else start.new_zeros(dim) for start in starts])
    with evaluating(model):
        cache = predictor.start(
            normalizer.normalize(pad_sequence(starts, batch_first=True)), lengths, max(lengths) + new
        )
        while True:
            predicted = predictor.predict(cache, rows)
            # A sample of the sentences may be an end too.
            samples = [predicted] if ends is None else [predicted, ends.predict(cache, rows)]
            tests = [_tests(model, normalizer, one, previous, stop) for one in samples]
            concepts = normalizer.denormalize(predicted).float()
            is_end = torch.stack(tests).any(dim=0).tolist()  # one wait for the device
            following = [
                _advance(texts[row], concepts[place], pause, is_end[place], options) for place, row in enumerate(rows)
            ]
            going = [place for place, concept in enumerate(following) if concept is not None]
            if not going:
                break
            if len(going) < len(rows):
                cache.select(going)
                rows = [rows[place] for place in going]
            previous = torch.stack([cast(Tensor, following[place]) for place in going])
            predictor.extend(cache, normalizer.normalize(previous))
    empty = pause.new_zeros(0, dim)
    return [
        PlannedConcepts(
            torch.stack(text.plans) if text.plans else empty,
            [torch.stack(one) if one else empty for one in text.paragraphs],
            text.stop_reason,
        )
        for text in texts
    ]


def _advance(
    text: _Text, concept: Tensor, pause: Tensor, tests: Sequence[bool], options: GenerationOptions
) -> Tensor | None:
    """Take the prediction into the text, or what was given or is due in its place; return it, or ``None`` at the end.

    ``tests`` say whether the prediction is a break, the stop concept, a repetition.
    """
    is_break, stops, repeats = tests
    if text.given is not None:  # each of them gets its paragraph
        is_break, stops = is_break or stops, False
    early = text.written + 1 < options.min_concepts
    if text.plan_due and text.given is not None:
        text.begin_paragraph(text.given[len(text.plans)])
        return text.plans[-1]
    if not text.plan_due and (is_break or len(text.paragraphs[-1]) >= options.max_paragraph_concepts):
        text.plan_due = True
        if len(text.plans) < text.limit and text.written < options.max_concepts:
            return pause
        text.stop_reason = "plans" if text.given is not None and len(text.plans) == text.limit else "length"
        return None
    if (stops or repeats) and not early:
        text.stop_reason = "stop_concept" if stops else "repetition"
        return None
    if text.written >= options.max_concepts:
        text.stop_reason = "length"
        return None
    if text.plan_due:
        text.begin_paragraph(concept)
    else:
        text.paragraphs[-1].append(concept)
    return concept


def _tests(
    model: PlanningConceptModel,
    normalizer: ConceptNormalizer,
    predicted: Tensor,
    previous: Tensor,
    stop: StopTest,
) -> Tensor:
    """Return (B, 3) boolean: whether each (B, C) normalised sample is a break, the stop concept, a repetition."""
    new, options = normalizer.denormalize(predicted).float(), stop.options
    return torch.stack(
        [
            model.is_break(predicted, options.break_threshold),
            stop.similar(new, stop.stop_vector, options.stop_threshold),
            stop.similar(new, previous, options.repetition_threshold),
        ],
        dim=1,
    )


def _predictor_of_ends(
    model: PlanningConceptModel, options: GenerationOptions, noise: Noise, concepts: int
) -> Predictor | None:
    """Return what says whether paragraph and text end, as ``options.plain_ends`` describes; ``None`` without."""
    body = model.config.body
    if isinstance(body, MSEConfig) or not options.plain_ends:  # a regression draws no samples
        return None
    schedule: NoiseScheduleConfig | None = getattr(body, "noise_schedule", None)
    steps = max(options.num_inference_steps, 10)
    plain = {
        "guidance_scale": 1.0,
        "initial_noise_scale": 1.0,
        "num_candidates": 1,
        "num_inference_steps": steps if schedule is None else min(steps, schedule.num_timesteps),
    }
    return make_predictor(model, options.model_copy(update=plain), noise, concepts)


def _given_plans(
    plans: Sequence[Tensor | None] | None, number: int, dim: int, device: torch.device
) -> list[Tensor | None]:
    if plans is None:
        return [None] * number
    if len(plans) != number:
        raise DataError(
            "wrong number of plans", where="plans", expected=f"{number}, one for each prompt", got=len(plans)
        )
    checked = [None if one is None else check_prompt(one, dim, f"plans {i}", device) for i, one in enumerate(plans)]
    for i, one in enumerate(checked):
        if one is not None and not len(one):
            raise DataError("there is no plan", where=f"plans {i}", expected="one or more")
    return checked
