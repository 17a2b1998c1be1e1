"""Large Planning Concept Model (arXiv:2412.08821, §4): a concept model over plans, paragraphs and breaks.

A text is written as ``plan, sentences of a paragraph, break, plan, sentences, break, …``: a *plan* is the concept of
one sentence that says what comes next, a *break* is the concept of a fixed sentence. The sequence model is one of the
others, the *body* (the paper takes a one-tower); it reads each concept with a learned embedding of its role added,

    x'_i = x_i + r_role(i),     role(i) = break    if cos(x_i, b) ≥ threshold
                                          plan     if i is first, or i - 1 is a break
                                          concept  otherwise

where b is the break concept. So the role follows from the concepts read so far: training, teacher forcing and cached
generation agree without being told roles, and any family serves as body, since nothing of it is touched: what it
predicts are plain concepts, and the embedding of the break is how it knows that a plan is due.

Note: the paper adds no role embedding; with the embedding at zero, where it starts, the model is its body. It has C
channels, not D: the linear at the body's entry maps it to the width, so it costs three vectors and no special case.

Shape letters: B batch, S concepts, C concept dimension.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.errors import DataError
from largeconcept.models.checks import check_concepts
from largeconcept.models.energy import EnergyConfig
from largeconcept.models.flow import FlowConfig
from largeconcept.models.mse import MSEConfig
from largeconcept.models.one_tower import OneTowerConfig
from largeconcept.models.two_tower import TwoTowerConfig
from largeconcept.types import ROLES

BodyConfig = Annotated[
    OneTowerConfig | TwoTowerConfig | MSEConfig | FlowConfig | EnergyConfig, Field(discriminator="type")
]
"""The families that a planning model can have as its body."""

_CONCEPT, _BREAK, _PLAN = (ROLES.index(name) for name in ("concept", "break", "plan"))


class PlanningConfig(Config):
    """Configuration of a planning model.

    Attributes:
        body: configuration of the model that predicts the concepts; the paper's is a one-tower.
        break_threshold: cosine similarity to the break concept, in normalised space, from which a concept is a break.
        plan: what the plans are that it learns to write: the ``first_sentence`` of a paragraph, the ``title`` above it
            or one that is ``given``; ``None`` when not known. It decides nothing but how texts are laid out around it.
    """

    type: Literal["planning"] = "planning"
    body: BodyConfig = OneTowerConfig()
    break_threshold: float = Field(default=0.9, gt=0, le=1)
    plan: Literal["first_sentence", "title", "given"] | None = None

    @property
    def concept_dim(self) -> int:
        """C."""
        return self.body.concept_dim

    @property
    def positions(self) -> str:
        """Kind of positions of the body."""
        return self.body.positions

    @property
    def max_positions(self) -> int:
        """Size of the body's learned table of positions."""
        return self.body.max_positions


class PlanningConceptModel(nn.Module):
    """A body that is told which concepts are plans and breaks.

    Args:
        config: configuration of the body, and the threshold for a break.

    Attributes:
        body: the model that predicts concepts.
        break_concept: (C,) normalised; zeros, which nothing resembles, until :meth:`set_break`. It is saved with the
            weights.
    """

    config_class: ClassVar[type[Config]] = PlanningConfig
    break_concept: Tensor

    def __init__(self, config: PlanningConfig) -> None:
        from largeconcept.models.registry import build_model  # here, since the registry imports this file

        super().__init__()
        self.config = config
        self.body = build_model(config.body)
        self.role_embedding = nn.Parameter(torch.zeros(3, config.concept_dim))
        self.register_buffer("break_concept", torch.zeros(config.concept_dim))

    @property
    def knows_breaks(self) -> bool:
        """Whether the model was given a break concept."""
        return bool(self.break_concept.any())

    @torch.no_grad()
    def set_break(self, concept: Tensor) -> None:
        """Take the break concept (C,), normalised as all concepts that the model reads.

        Raises:
            DataError: a wrong shape, zeros, NaN or infinity.
        """
        if tuple(concept.shape) != (self.config.concept_dim,):
            expected = (self.config.concept_dim,)
            raise DataError("wrong shape", where="break concept", expected=expected, got=tuple(concept.shape))
        if not bool(torch.isfinite(concept).all()) or not bool(concept.any()):
            raise DataError("not a usable break concept", where="break concept", got="zeros, NaN or infinity")
        self.break_concept.copy_(concept)

    def is_break(self, x: Tensor, threshold: float | None = None) -> Tensor:
        """Return (…,) boolean: which of the (…, C) normalised concepts are breaks; the threshold is the model's own."""
        own = self.break_concept.float().expand_as(x)
        least = self.config.break_threshold if threshold is None else threshold
        return F.cosine_similarity(x.float(), own, dim=-1) >= least

    def roles(self, x: Tensor, plan_due: Tensor | None = None) -> Tensor:
        """Return (B, S) int64 roles (indices into :data:`~largeconcept.types.ROLES`) of (B, S, C) normalised concepts.

        ``plan_due`` is (B,) boolean: whether the first of them is a plan; by default it is, as at the start of a text.
        """
        breaks = self.is_break(x)
        if plan_due is None:
            plan_due = breaks.new_ones(len(x))
        after_break = torch.cat((plan_due.unsqueeze(1), breaks[:, :-1]), dim=1)[:, : x.shape[1]]
        roles = torch.where(after_break, _PLAN, _CONCEPT)
        return torch.where(breaks, _BREAK, roles)

    def mark(self, x: Tensor, plan_due: Tensor | None = None) -> Tensor:
        """Add the embeddings of their roles to (B, S, C) normalised concepts; ``plan_due`` as in :meth:`roles`.

        Raises:
            DataError: a wrong shape or type.
        """
        check_concepts(x, self.config.concept_dim, "x", allow_empty=True)
        return x + F.embedding(self.roles(x, plan_due), self.role_embedding)

    def forward(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        """Call the body on the marked concepts (B, S, C); all other arguments are the body's own."""
        out: Tensor = self.body(self.mark(x), *arguments, **keywords)
        return out
