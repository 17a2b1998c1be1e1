"""Settings of generation, the same for every family of models; each family uses those that concern it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from largeconcept.diffusion.flow import FlowSolver
from largeconcept.diffusion.sampling import SamplerOptions


class GenerationOptions(SamplerOptions):
    """How concepts are generated; to the sampler's settings it adds when to stop and where randomness comes from.

    The defaults of guidance, steps and noise scale are those the LCM paper recommends (arXiv:2412.08821, §2.4.1).

    Attributes:
        max_concepts: most concepts to generate.
        max_batch: most texts worked on together; the others wait until one is finished.
        min_concepts: no early stop before this many were generated, the one that would stop included. Note: the
            reference's ``min_gen_len`` starts testing one concept later; ``min_concepts = min_gen_len + 1`` is the
            same.
        stop_threshold: cosine similarity to the stop concept from which generation ends, or ``None``.
        repetition_threshold: cosine similarity to the concept before it from which generation ends, or ``None``.
        keep_last: whether the concept that ended generation (stop concept or repetition) stays in the result.
        seed: of all noise; the same seed, prompt and sample id give the same result in any batch.
        temperature: standard deviation, in normalised space, of noise added to each prediction of a model that
            regresses; a quantised discrete model divides its logits by it, 0 takes the most probable.
        centroid_temperature: 1/β of a quantised continuous model, which draws centroids with p ∝ exp(−β · distance); 0
            takes the nearest.
        codebooks_per_step: centroids that a quantised model that finds concepts adds for each evaluation; 1 in the
            paper.
        top_k, top_p: a quantised model draws from the k most probable centroids (0: from all), and from the most
            probable that together have probability p.
        initial_noise_scale: factor on the initial noise of a diffusion or flow model, and on the noise of an energy
            model; 1 gives the distribution that was learnt, less keeps to its middle.
        flow_solver: ``euler`` or ``heun`` (order 2, two evaluations a step), for flow models.
        num_candidates: samples that an energy model draws of each concept.
        candidate_choice: what becomes of them: ``medoid``, the one nearest to the others, or their ``mean``.
        max_paragraphs, max_paragraph_concepts: most paragraphs that a planning model writes, and most concepts of one
            (the paper's have fewer than ten).
        break_threshold: cosine similarity to the break concept, in normalised space, from which a planning model's
            paragraph ends; ``None`` takes the model's own.
        plain_ends: a planning model whose body draws samples takes a second one, without guidance, from noise of full
            strength and in ten steps or more, which only says whether paragraph or text end here. Guidance and weak
            noise keep to what is typical of the context; a break is typical of none, so it would hardly ever come.
    """

    num_inference_steps: int = Field(default=40, ge=1)
    guidance_scale: float = 3.0
    guidance_rescale: float = Field(default=0.7, ge=0, le=1)
    initial_noise_scale: float = Field(default=0.6, ge=0)
    max_concepts: int = Field(default=16, ge=1)
    max_batch: int = Field(default=64, ge=1)
    min_concepts: int = Field(default=1, ge=1)
    stop_threshold: float | None = Field(default=0.9, ge=-1, le=1)
    repetition_threshold: float | None = Field(default=None, ge=-1, le=1)
    keep_last: bool = False
    seed: int = 0
    temperature: float = Field(default=0.0, ge=0)
    centroid_temperature: float = Field(default=0.0, ge=0)
    codebooks_per_step: int = Field(default=1, ge=1)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    flow_solver: FlowSolver = "euler"
    num_candidates: int = Field(default=1, ge=1, le=10_000)
    candidate_choice: Literal["medoid", "mean"] = "medoid"
    max_paragraphs: int = Field(default=4, ge=1)
    max_paragraph_concepts: int = Field(default=9, ge=1)
    break_threshold: float | None = Field(default=None, gt=0, le=1)
    plain_ends: bool = True

    @model_validator(mode="after")
    def _check_counts(self) -> GenerationOptions:
        if self.min_concepts > self.max_concepts:
            raise ValueError(f"min_concepts {self.min_concepts} is more than max_concepts {self.max_concepts}")
        return self
