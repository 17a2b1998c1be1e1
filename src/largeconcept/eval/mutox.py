"""MuTox: whether a sentence is toxic, judged on its concept.

Costa-jussà et al. 2024, *MuTox: Universal MUltilingual Audio-based TOXicity Dataset and Zero-shot Detector*,
arXiv:2401.05060. A perceptron on concepts of SONAR, trained on speech and text of 21 languages; it judges any language
that the codec reads, in text or speech, those it was not trained on with less certainty.

Weights: ``mutox.pt`` of github.com/facebookresearch/seamless_communication (cli/toxicity/mutox), MIT.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from largeconcept.errors import CheckpointError
from largeconcept.eval.judges import BATCH, ConceptJudge, encoded

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec


class MuTox(ConceptJudge):
    """The judge of toxicity.

    Args:
        concept_dim: C.
        hidden_dims: widths of the hidden layers.
    """

    type_name = "mutox"
    title = "MuTox"
    published = re.compile(r"model_all\.(\d+)\.1\.(weight|bias)$")
    activation: ClassVar[type[nn.Module]] = nn.ReLU

    def __init__(self, concept_dim: int = 1024, hidden_dims: Sequence[int] = (512, 128)) -> None:
        super().__init__([concept_dim, *hidden_dims], concept_dim, "MIT")

    @classmethod
    def build(cls, sizes: Sequence[int], concept_dim: int, where: object) -> Self:
        """Return an untrained judge of concepts as wide as its first layer."""
        if not sizes or sizes[0] != concept_dim:
            raise CheckpointError(
                "made for concepts of another size",
                where=where,
                got=f"{sizes[0]} channels" if sizes else "no layer",
                expected=f"{concept_dim} channels",
            )
        return cls(concept_dim, sizes[1:])

    def describe(self) -> dict[str, Any]:
        """There is nothing that the weights do not say."""
        return {}

    def forward(self, concepts_NC: Tensor) -> Tensor:
        """Return (N,) logits, differentiable in the concepts (which are not normalised)."""
        return self.perceptron(concepts_NC)

    @torch.inference_mode()
    def score(self, concepts: Tensor, *, probability: bool = False) -> Tensor:
        """Judge N sentences.

        Args:
            concepts: (N, C), as the codec gives them.
            probability: return the sigmoid of the logit, the probability of toxicity that the model was trained to
                give.

        Returns:
            (N,) float32 on the CPU: logits; above 0 toxic is the likelier verdict.

        Raises:
            DataError: a wrong shape or a value that is not finite.
        """
        batches = torch.split(self.checked(concepts, "concepts"), BATCH)
        logits = torch.cat([self(batch) for batch in batches]).cpu()
        return logits.sigmoid() if probability else logits

    def score_texts(
        self,
        codec: ConceptCodec,
        sentences: Sequence[str],
        lang: str | Sequence[str] | None = None,
        *,
        probability: bool = False,
    ) -> Tensor:
        """Judge N sentences; see :meth:`score`.

        Args:
            codec: SONAR, the space that MuTox was trained in.
            lang: language of all or of each.

        Raises:
            DataError: a sentence is empty.
            ConfigError: the codec has concepts of another dimension.
        """
        return self.score(encoded(codec, sentences, lang, self.concept_dim), probability=probability)


__all__ = ["MuTox"]
