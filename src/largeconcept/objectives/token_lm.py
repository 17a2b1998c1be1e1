"""Next-token likelihood of whole documents, for the token model that stands beside the concept models.

Text is that of the same batches from which concept models learn: documents (or windows of them, or source and target),
cut into tokens by the codec's tokenizer, laid out by :func:`largeconcept.models.token_lm.document_tokens`.

Shape letters: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field

from largeconcept.config import Config
from largeconcept.errors import ConfigError, DataError
from largeconcept.objectives.base import config_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, Loss

CONTEXT, FIRST, NEXT = 0, 1, 2
"""What a token is: given, of a first sentence, or of a sentence (or end) that follows another one."""
CHUNK = 512


class TokenLMObjectiveConfig(Config):
    """Settings of training a token model.

    Attributes:
        codec: name or folder of the codec whose tokens are used; ``None`` takes the one of the data.
        end_text: affix that ends a document; it becomes the document mark.
        max_tokens: longer sentences are cut there.
        batch_tokens: tokens, padding included, that go through the model at once.
    """

    needs_sentences: ClassVar[bool] = True

    type: Literal["token_lm"] = "token_lm"
    codec: str | None = None
    end_text: str = "End of text."
    max_tokens: int = Field(default=128, ge=1)
    batch_tokens: int = Field(default=16384, ge=1)


class TextTokenizer(Protocol):
    """What is asked of a codec's tokenizer."""

    @property
    def vocab_size(self) -> int:
        """V."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        ...

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of ids."""
        ...


class TokenLMObjective:
    """Negative log-likelihood of the tokens of documents, end marks included, in nats; ``count`` is their number.

    The document mark in front and, of pairs, the source are context. Metrics: ``token_nats`` over all targets, and
    ``next_token_nats`` without first sentences, which is what a concept model predicts too.

    Args:
        config: settings.
        normalizer: not used: tokens are not normalised.
        tokenizer: of the codec; else :meth:`open_codec` loads it.
    """

    def __init__(
        self,
        config: TokenLMObjectiveConfig,
        normalizer: ConceptNormalizer | None = None,
        tokenizer: TextTokenizer | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer

    def open_codec(self, codec: str, fingerprint: str, device: torch.device | str = "cpu") -> None:
        """Take the tokenizer of the codec; see :class:`~largeconcept.objectives.base.NeedsCodec`.

        Raises:
            ConfigError: it cannot be loaded, is of another concept space, or has no tokenizer.
        """
        from largeconcept.objectives.base import open_space

        name = self.config.codec or codec
        self.tokenizer = getattr(open_space(name, fingerprint), "tokenizer", None)
        if self.tokenizer is None:
            raise ConfigError("the codec has no tokenizer", where="objective.codec", got=name)

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Return the loss of a batch; nothing random is drawn.

        Raises:
            ConfigError: no tokenizer was given, or the model is no token model or has another vocabulary.
            DataError: the batch has no sentences.
        """
        import torch

        from largeconcept.codec.rows import by_length
        from largeconcept.objectives.codec import IGNORE, cross_entropy_sum
        from largeconcept.types import Loss

        documents = self.documents(model, batch)
        device = batch.concepts.device
        sums = {FIRST: torch.zeros((), device=device), NEXT: torch.zeros((), device=device)}
        for rows in by_length([len(tokens) for tokens, _ in documents], self.config.batch_tokens):
            tokens, kinds = (_padded([documents[i][column] for i in rows], device) for column in (0, 1))
            states = model(tokens[:, :-1]).flatten(0, 1)
            table, targets, kind_of = _table(model), tokens[:, 1:].flatten(), kinds[:, 1:].flatten()
            for kind in sums:
                wanted = targets.masked_fill(kind_of != kind, IGNORE)
                sums[kind] = sums[kind] + cross_entropy_sum(states, table, wanted, CHUNK)
        counts = {kind: torch.tensor(float(_count(documents, kind)), device=device) for kind in sums}
        total, count = sums[FIRST] + sums[NEXT], counts[FIRST] + counts[NEXT]
        metrics = {
            "token_nats": (total.detach(), count),
            "next_token_nats": (sums[NEXT].detach(), counts[NEXT]),
        }
        return Loss(total, count, metrics)

    def documents(self, model: nn.Module, batch: ConceptBatch) -> list[tuple[list[int], list[int]]]:
        """Return the tokens of each row, and for each token what it is: ``CONTEXT``, ``FIRST`` or ``NEXT``."""
        from largeconcept.models.token_lm import document_tokens

        vocabulary = config_of(model, "vocab_size").vocab_size
        if self.tokenizer is None:
            raise ConfigError("the objective has no tokenizer", where="token_lm", hint="call open_codec first")
        if vocabulary != self.tokenizer.vocab_size:
            raise ConfigError(
                "the model has another vocabulary than the codec",
                where="model.vocab_size",
                got=vocabulary,
                expected=self.tokenizer.vocab_size,
            )
        if batch.sentences is None:
            raise DataError("the batch has no sentences", where="token_lm", hint="set data.sentences=true")
        ids = iter(self.tokenizer.encode([sentence for row in batch.sentences for sentence in row]))
        sources = [0] * len(batch.sentences) if batch.source_lengths is None else batch.source_lengths.tolist()
        documents = []
        for sentences, source in zip(batch.sentences, sources, strict=True):
            body = [next(ids)[: self.config.max_tokens] for _ in sentences]
            ended = bool(sentences) and sentences[-1] == self.config.end_text
            body = body[:-1] if ended else body
            kinds = [CONTEXT]
            for place, sentence in enumerate(body):
                kinds += [CONTEXT if place < source else FIRST if place == 0 else NEXT] * (len(sentence) + 1)
            documents.append((document_tokens(body, ended=ended), [*kinds, NEXT] if ended else kinds))
        return documents


def _count(documents: list[tuple[list[int], list[int]]], kind: int) -> int:
    return sum(kinds.count(kind) for _, kinds in documents)


def _padded(rows: list[list[int]], device: torch.device) -> Tensor:
    """Return (B, T) int64, padded on the right with 0."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)


def _table(model: nn.Module) -> Tensor:
    """Return the output table of a token model, wrapped or not."""
    inner: Any = model
    while not hasattr(inner, "output_table"):
        inner = getattr(inner, "_orig_mod", None) or inner.module
    table: Tensor = inner.output_table
    return table
