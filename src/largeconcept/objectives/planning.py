"""Large Planning Concept Model (arXiv:2412.08821, §4): the objective of the body, over plans, paragraphs and breaks.

The paper trains predicting all concepts of the sequence alike; here plans and breaks may weigh more or less.

Shape letters: B batch, S concepts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.objectives.base import Objective, config_of
from largeconcept.objectives.diffusion import DiffusionConfig
from largeconcept.objectives.energy import EnergyObjectiveConfig
from largeconcept.objectives.flow import FlowObjectiveConfig
from largeconcept.objectives.regression import RegressionConfig
from largeconcept.types import ROLES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, Loss


class PlanningObjectiveConfig(Config):
    """Settings of the planning objective.

    Attributes:
        body: objective of the body; ``None`` takes the one that its family is meant for.
        plan_weight: factor on the loss of plans, relative to the concepts of paragraphs.
        break_weight: factor on the loss of breaks. They are all the same concept, so little remains to be learnt of
            them but when they come.
    """

    type: Literal["planning"] = "planning"
    body: (
        Annotated[
            RegressionConfig | DiffusionConfig | FlowObjectiveConfig | EnergyObjectiveConfig,
            Field(discriminator="type"),
        ]
        | None
    ) = None
    plan_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    break_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class PlanningObjective:
    """The body's objective, with a weight for each role; texts without roles count everywhere alike.

    Metrics are the body's, without these weights; so is the count of targets.

    Args:
        config: settings.
        normalizer: of the model.
    """

    def __init__(self, config: PlanningObjectiveConfig, normalizer: ConceptNormalizer) -> None:
        self.config = config
        self.normalizer = normalizer
        self._body: Objective | None = None

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Return the loss of a batch.

        Raises:
            ConfigError: the model is no planning model, or the body's objective does not fit its body.
        """
        if self._body is None:
            from largeconcept.objectives import build_objective, default_objective  # these import this file

            own = config_of(model, "body").body
            self._body = build_objective(self.config.body or default_objective(own), self.normalizer)
        return self._body(model, replace(batch, weights=self.weights(batch)), rng)

    def weights(self, batch: ConceptBatch) -> Tensor | None:
        """Return (B, S) float32 weights of the concepts, or ``None`` where all weigh 1."""
        if batch.roles is None or self.config.plan_weight == self.config.break_weight == 1.0:
            return batch.weights
        by_role = {"plan": self.config.plan_weight, "break": self.config.break_weight}
        table = batch.concepts.new_tensor([by_role.get(role, 1.0) for role in ROLES]).float()
        weights = table[batch.roles]
        return weights if batch.weights is None else weights * batch.weights
