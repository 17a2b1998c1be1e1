"""BLASER 2.0: how well a translation keeps the meaning of its source, judged on concepts of SONAR.

Dale and Costa-jussà 2024, *BLASER 2.0: a metric for evaluation and quality estimation of massively multilingual speech
and text translation*, Findings of EMNLP. A perceptron on the concepts of
source, translation and, if there is one, reference; it was trained on human judgements of similarity (XSTS), so scores
lie between about 1 and 5, and nothing cuts them there. Because concepts have no language, neither has the score: any
text or speech that the codec reads can be judged.

Weights: ``facebook/blaser-2.0-ref`` and ``facebook/blaser-2.0-qe`` on Hugging Face, ``model.pt``, CC-BY-NC-4.0.

Shape letters: N items, C concept dimension, F features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.eval.judges import BATCH, ConceptJudge, encoded

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

Kind = Literal["ref", "qe"]
PARTS: dict[Kind, int] = {"ref": 6, "qe": 4}
"""How many vectors of C channels the features are made of."""


class Blaser(ConceptJudge):
    """The judge of translations.

    Args:
        kind: ``ref`` compares with a reference, ``qe`` (quality estimation) needs none.
        concept_dim: C.
        hidden_dims: widths of the hidden layers.
    """

    type_name = "blaser"
    title = "BLASER 2.0"
    published = re.compile(r"mlp\.(\d+)\.(weight|bias)$")
    activation: ClassVar[type[nn.Module]] = nn.Tanh

    def __init__(self, kind: Kind, concept_dim: int = 1024, hidden_dims: Sequence[int] = (3072, 1536)) -> None:
        if kind not in PARTS:
            raise ConfigError("unknown kind of BLASER", where="kind", got=kind, expected="ref or qe")
        super().__init__([PARTS[kind] * concept_dim, *hidden_dims], concept_dim, "CC-BY-NC-4.0")
        self.kind: Kind = kind

    @classmethod
    def build(cls, sizes: Sequence[int], concept_dim: int, where: object) -> Self:
        """Return an untrained judge; its kind follows from the width of its features, 6 C or 4 C."""
        for kind, parts in PARTS.items():
            if sizes and sizes[0] == parts * concept_dim:
                return cls(kind, concept_dim, sizes[1:])
        raise CheckpointError(
            "neither a BLASER with reference nor one without",
            where=where,
            expected=f"{6 * concept_dim} or {4 * concept_dim} features of concepts of {concept_dim} channels",
            got=f"{sizes[0]} features" if sizes else "no layer",
        )

    def describe(self) -> dict[str, Any]:
        """Return the kind, which the width of the features says too."""
        return {"kind": self.kind}

    def features(self, source_NC: Tensor, translation_NC: Tensor, reference_NC: Tensor | None = None) -> Tensor:
        """Return (N, F): unit vectors, their products and their distances, channel by channel.

        With a reference, ``[ref, mt, src·mt, ref·mt, |mt − src|, |mt − ref|]``; the source itself is not among them.
        Without, ``[src, mt, src·mt, |mt − src|]``.
        """
        source, translation = F.normalize(source_NC, dim=-1), F.normalize(translation_NC, dim=-1)
        if reference_NC is None:
            parts = [source, translation, source * translation, (translation - source).abs()]
        else:
            reference = F.normalize(reference_NC, dim=-1)
            parts = [
                reference,
                translation,
                source * translation,
                reference * translation,
                (translation - source).abs(),
                (translation - reference).abs(),
            ]
        return torch.cat(parts, dim=-1)

    def forward(self, source_NC: Tensor, translation_NC: Tensor, reference_NC: Tensor | None = None) -> Tensor:
        """Return (N,) scores, differentiable in the concepts.

        Raises:
            ConfigError: a reference is missing, or there is one that this kind does not use.
        """
        if (reference_NC is None) == (self.kind == "ref"):
            raise ConfigError(
                "BLASER needs a reference" if reference_NC is None else "this BLASER judges without a reference",
                where="reference",
                hint=f"leave it as it is and load blaser-2.0-{'qe' if reference_NC is None else 'ref'}",
            )
        return self.perceptron(self.features(source_NC, translation_NC, reference_NC))

    @torch.inference_mode()
    def score(self, source: Tensor, translation: Tensor, reference: Tensor | None = None) -> Tensor:
        """Judge N translations.

        Args:
            source, translation: (N, C) concepts; their lengths do not matter.
            reference: (N, C) concepts of reference translations, for the kind ``ref``.

        Returns:
            (N,) float32 on the CPU, about 1 (unrelated) to 5 (same meaning).

        Raises:
            DataError: a wrong shape or a value that is not finite.
            ConfigError: a reference is missing, or there is one that this kind does not use.
        """
        checked = [self.checked(source, "source")]
        rows = len(checked[0])
        checked.append(self.checked(translation, "translation", rows))
        if reference is not None:
            checked.append(self.checked(reference, "reference", rows))
        batches = zip(*(torch.split(concepts, BATCH) for concepts in checked), strict=True)
        return torch.cat([self(*batch) for batch in batches]).cpu()

    def score_texts(
        self,
        codec: ConceptCodec,
        source: Sequence[str],
        translation: Sequence[str],
        reference: Sequence[str] | None = None,
        *,
        source_lang: str | Sequence[str] | None = None,
        target_lang: str | Sequence[str] | None = None,
    ) -> Tensor:
        """Judge N translations of N sentences.

        Args:
            codec: SONAR, the space that BLASER was trained in.
            source, translation, reference: sentences.
            source_lang, target_lang: languages of the sources, and of translations and references.

        Raises:
            DataError: the numbers differ, or a sentence is empty.
            ConfigError: as :meth:`score`, or the codec has concepts of another dimension.
        """
        return self.score(
            encoded(codec, source, source_lang, self.concept_dim),
            encoded(codec, translation, target_lang, self.concept_dim),
            None if reference is None else encoded(codec, reference, target_lang, self.concept_dim),
        )


__all__ = ["Blaser"]
