"""The few types that pass between rooms. Importing this module does not import torch.

Shape letters: B batch, S concepts, C concept dimension, N sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


ROLES = ("concept", "break", "plan", "end")
"""What a concept of a planned text may be: one of a paragraph, the break after it, the plan before it, the end."""


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence as a half-open range of characters of the text it came from."""

    start: int
    end: int
    paragraph: int = 0

    def of(self, text: str) -> str:
        """Return the piece of ``text`` that the span covers."""
        return text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its origin, before or after it was cut into sentences.

    Attributes:
        id: unique inside a dataset; stable across languages of the same document where the corpus allows it.
        text: the whole text; empty when only sentences are known.
        sentences: the sentences in order; empty until the text was segmented.
        lang: FLORES-200 code, or ``None`` when unknown.
        paragraph_starts: index of the first sentence of each paragraph.
        target_sentences: the sentences of a target (a summary, a translation) for supervised data.
        title, summary, source: optional descriptions that a corpus brings along.
        plans: one sentence for each paragraph that says what comes in it.
        where: file and line it was read from, for messages.
        concepts: (N, C) float32 tensor, the concepts of ``sentences`` where they were heard and not read; they are used
            instead of encoding the sentences.
        times: begin and end of each sentence in seconds, where it was heard.
    """

    id: str
    text: str = ""
    sentences: tuple[str, ...] = ()
    lang: str | None = None
    paragraph_starts: tuple[int, ...] = (0,)
    target_sentences: tuple[str, ...] | None = None
    title: str | None = None
    summary: str | None = None
    source: str | None = None
    plans: tuple[str, ...] | None = None
    where: str | None = None
    concepts: Any = field(default=None, compare=False, repr=False)
    times: tuple[tuple[float, float], ...] | None = None


@dataclass(slots=True)
class ConceptBatch:
    """A padded batch of concept sequences, in the codec's own (not normalised) space.

    Attributes:
        concepts: (B, S, C) float32, zeros where padded. For supervised data source and target follow each other.
        lengths: (B,) int64, number of real concepts of each row (source and target together).
        sample_ids: (B,) int64, stable id of each row; noise and timesteps are drawn from (seed, step, sample id).
        source_lengths: (B,) int64, how many leading concepts are context only; ``None`` for unsupervised data.
        sentences: the text of every real concept of each row, affixes included; ``None`` unless the loader was asked
            for text.
        languages: the FLORES-200 code of each row, ``None`` where it is unknown; there when ``sentences`` are.
        roles: (B, S) int64 indices into :data:`ROLES`, of planned texts.
        weights: (B, S) float32, factor on the loss of each concept where it is a target; ``None`` means 1.
    """

    concepts: Tensor
    lengths: Tensor
    sample_ids: Tensor
    source_lengths: Tensor | None = None
    sentences: list[list[str]] | None = None
    languages: list[str | None] | None = None
    roles: Tensor | None = None
    weights: Tensor | None = None

    @property
    def num_concepts(self) -> int:
        """Number of real concepts in the batch (one host synchronisation on an accelerator)."""
        return int(self.lengths.sum())

    def to(self, device: torch.device | str) -> ConceptBatch:
        """Return the batch on ``device``."""
        return ConceptBatch(
            self.concepts.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            self.sample_ids.to(device, non_blocking=True),
            None if self.source_lengths is None else self.source_lengths.to(device, non_blocking=True),
            self.sentences,
            self.languages,
            None if self.roles is None else self.roles.to(device, non_blocking=True),
            None if self.weights is None else self.weights.to(device, non_blocking=True),
        )


@dataclass(slots=True)
class Loss:
    """What an objective returns: a sum over targets and their number, so that any grouping gives the same gradient.

    Attributes:
        sum: scalar float32 with gradient, the loss summed over target concepts.
        count: scalar, number of target concepts in ``sum``.
        metrics: detached scalars to log, each a (sum, count) pair of tensors.
    """

    sum: Tensor
    count: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class TokenLoss(NamedTuple):
    """How well a decoder writes given sentences from given concepts, for N sentences.

    Attributes:
        nats: (N,) float32, negative log-likelihood of each sentence, summed over its tokens; differentiable.
        num_tokens: (N,) int64, tokens scored, the end of the sentence included.
        num_correct: (N,) int64, tokens that had the highest score.
    """

    nats: Tensor
    num_tokens: Tensor
    num_correct: Tensor


@runtime_checkable
class Segmenter(Protocol):
    """Cuts a text into sentences."""

    def segment(self, text: str, lang: str | None = None) -> list[Span]:
        """Return spans in order, without overlap; only white space lies between them."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the configuration as plain data, enough to build the same segmenter again."""
        ...


@runtime_checkable
class ConceptCodec(Protocol):
    """Sentences to concepts and back.

    ``encode`` gives float32 vectors on the CPU unless told otherwise; ``decode`` takes them from any device.
    """

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short hash of weights and vocabulary: equal fingerprints mean the same concept space."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes that ``decode`` can write."""
        ...

    def encode(
        self, sentences: Sequence[str], lang: str | Sequence[str] | None = None, *, batch_tokens: int = 8192
    ) -> Tensor:
        """Return (N, C) float32 concepts."""
        ...

    def decode(
        self,
        concepts: Tensor,
        lang: str | Sequence[str],
        *,
        method: str = "beam",
        num_beams: int = 4,
        max_length: int = 128,
        batch_tokens: int = 8192,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> list[str]:
        """Return one sentence for each of the (N, C) concepts."""
        ...


@runtime_checkable
class DifferentiableDecoder(Protocol):
    """A codec that can say how likely it writes a sentence from a concept, with gradients to the concept."""

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        ...

    def token_loss(self, concepts: Tensor, sentences: Sequence[str], lang: str | Sequence[str]) -> TokenLoss:
        """Score N sentences under teacher forcing, each from its (N, C) concept, differentiable in ``concepts``."""
        ...

    def decoder_parameters(self) -> list[nn.Parameter]:
        """Return the weights that decoding alone uses: training them does not move the concept space."""
        ...
