"""What a causal language model finds likely: mutual information of sentences with their context, and perplexity.

Any causal language model can be the judge: a token model of this library (:class:`TokenScorer`) or one of Hugging Face
(:class:`HuggingFaceScorer`). Figures of different judges are not comparable, nor are sums over other tokens than the
judge's own.

Shape letters: N texts, B batch, T tokens.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from largeconcept.errors import CheckpointError, ConfigError, DataError, missing_extra
from largeconcept.eval.metrics.words import Text, joined, words

if TYPE_CHECKING:
    from largeconcept.models.token_lm import TokenLM
    from largeconcept.objectives.token_lm import TextTokenizer

CONTEXT_SENTENCES = 10
"""Sentences before a sentence that it is judged with (arXiv:2412.08821, section 2.4.2)."""
LONGEST = 4096
_LOGITS = 1 << 24  # scores of tokens held at once


class CausalLM(Protocol):
    """A judge of texts."""

    def nats(self, texts: Sequence[Text], prefixes: Sequence[Text] | None = None) -> tuple[Tensor, Tensor]:
        """Return (N,) float64, the negative log-likelihood of each text after its prefix, and (N,) int64, its tokens.

        Args:
            texts: N texts, each its sentences or lines. What the judge writes between two of them is scored, what would
                follow the last one is not; an empty text has no tokens and 0 nats.
            prefixes: N texts that stand before them and are not scored; none by default.
        """
        ...


class _Framed(NamedTuple):
    """A prefix and a text in tokens: what always stands in front, what may be cut, what is scored."""

    start: list[int]
    context: list[int]
    scored: list[int]


class _Window(NamedTuple):
    row: int
    tokens: list[int]
    scored: int
    """How many of the last tokens are scored."""


class _Scorer(ABC):
    """What the judges share: texts in batches, and in windows where they are too long.

    Of a long prefix the tokens farthest away are cut; a text that is too long by itself is scored in windows, each with
    at least half of the room as context.
    """

    max_tokens: int
    batch_tokens: int

    @torch.no_grad()
    def nats(self, texts: Sequence[Text], prefixes: Sequence[Text] | None = None) -> tuple[Tensor, Tensor]:
        """Score N texts, each after its prefix; see :class:`CausalLM`.

        Raises:
            DataError: another number of prefixes, or what is not a text.
        """
        before: Sequence[Text] = [""] * len(texts) if prefixes is None else prefixes
        if len(before) != len(texts):
            raise DataError("wrong number of prefixes", where="prefixes", expected=len(texts), got=len(before))
        framed = [self._frame(_lines(text), _lines(prefix)) for text, prefix in zip(texts, before, strict=True)]
        windows = [window for row, one in enumerate(framed) for window in _windows(row, one, self.max_tokens)]
        windows.sort(key=lambda window: len(window.tokens))
        total = torch.zeros(len(texts), dtype=torch.float64)
        start = 0
        while start < len(windows):
            end = start + 1
            while end < len(windows) and len(windows[end].tokens) * (end + 1 - start) <= self.batch_tokens:
                end += 1
            batch = windows[start:end]
            longest = len(batch[-1].tokens)
            tokens = torch.tensor([one.tokens + [0] * (longest - len(one.tokens)) for one in batch])
            real = torch.tensor([[i < len(one.tokens) for i in range(longest)] for one in batch])
            wanted = torch.tensor(
                [[0 <= len(one.tokens) - 1 - i < one.scored for i in range(longest)] for one in batch]
            )
            rows = torch.tensor([one.row for one in batch]).repeat_interleave(wanted.sum(dim=1))
            total.index_add_(0, rows, self._nats(tokens, real, wanted))
            start = end
        return total, torch.tensor([len(one.scored) for one in framed], dtype=torch.long)

    @abstractmethod
    def _frame(self, text: list[str], prefix: list[str]) -> _Framed:
        """Return the tokens of a text and of what stands before it."""

    @abstractmethod
    def _nats(self, tokens: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
        """Return float64 negative log-likelihoods of the wanted tokens, row by row.

        Args:
            tokens: (B, T) int64, padded on the right.
            real: (B, T) boolean, not padding.
            wanted: (B, T) boolean, never the first of a row.
        """


class TokenScorer(_Scorer):
    """A token model of this library as judge.

    The scored tokens are those of the sentences and the end marks between them; the document mark stands in front.

    Args:
        model: on the device where the work is to be done; its mode is left as it was.
        tokenizer: that of the codec the model was trained with.
        max_tokens: longest text with its prefix; with learned positions at most as many as there are.
        batch_tokens: most tokens, padding included, that go through the model at once.

    Raises:
        ConfigError: a setting out of range, or a tokenizer of another size than the model's vocabulary.
    """

    def __init__(
        self, model: TokenLM, tokenizer: TextTokenizer, *, max_tokens: int = LONGEST, batch_tokens: int = 8192
    ) -> None:
        _check_sizes(max_tokens, batch_tokens)
        if tokenizer.vocab_size != model.config.vocab_size:
            raise ConfigError(
                "the tokenizer is not the model's",
                where="tokenizer",
                expected=f"{model.config.vocab_size} tokens",
                got=tokenizer.vocab_size,
                hint="use the tokenizer of the codec the model was trained with",
            )
        learned = model.config.positions == "learned"
        self.max_tokens = min(max_tokens, model.config.max_positions) if learned else max_tokens
        self.batch_tokens = batch_tokens
        self.model, self.tokenizer = model, tokenizer

    def _frame(self, text: list[str], prefix: list[str]) -> _Framed:
        from largeconcept.models.token_lm import document_tokens

        rows = self.tokenizer.encode([*prefix, *text])
        start, *context = document_tokens(rows[: len(prefix)])
        scored = document_tokens(rows[len(prefix) :])[1:-1] if text else []
        return _Framed([start], context, scored)

    def _nats(self, tokens: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
        from largeconcept.generate.loop import evaluating

        device = self.model.embedding.weight.device
        with evaluating(self.model):
            states = self.model(tokens[:, :-1].to(device))[wanted[:, 1:].to(device)]
        targets = tokens[:, 1:][wanted[:, 1:]].to(device)
        size = max(_LOGITS // self.model.config.vocab_size, 1)
        parts = zip(torch.split(states, size), torch.split(targets, size), strict=True)
        return torch.cat([_cross_entropy(self.model.logits(part), target) for part, target in parts])


class HuggingFaceScorer(_Scorer):
    """A causal model of ``transformers`` as judge.

    In front stand the start mark, if the tokenizer has one, the lines of the prefix, each with a newline, and without a
    prefix a newline alone, so that the first token has a probability too (arXiv:2412.08821, section 2.4.2; the judge of
    that paper is GPT-2). Lines are cut into tokens one by one: a text has the same tokens after any prefix.

    Args:
        model: a causal model, on the device where the work is to be done.
        tokenizer: its tokenizer.
        max_tokens: longest text with its prefix; by default what the model can read, at most 4096.
        batch_tokens: most tokens, padding included, that go through the model at once.

    Raises:
        ConfigError: a setting out of range.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_tokens: int | None = None, batch_tokens: int = 4096) -> None:
        room = getattr(model.config, "max_position_embeddings", None) or LONGEST
        self.max_tokens = min(room, LONGEST if max_tokens is None else max_tokens)
        self.batch_tokens = batch_tokens
        _check_sizes(self.max_tokens, batch_tokens)
        self.model, self.tokenizer = model.eval(), tokenizer
        start = tokenizer.bos_token_id
        self._start = [] if start is None else [int(start)]
        self._newline = self._tokens("\n")
        if not self._newline:
            raise ConfigError(
                "the tokenizer has no token for a newline", where="tokenizer", got=type(tokenizer).__name__
            )

    @classmethod
    def from_pretrained(cls, name: str, *, device: str | torch.device = "cpu", **settings: Any) -> HuggingFaceScorer:
        """Load a model and its tokenizer by the name of a folder or of a model on the hub.

        Raises:
            DependencyError: ``transformers`` is not installed.
            CheckpointError: there is no such causal model.
        """
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise missing_extra("transformers", "transformers") from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise CheckpointError("cannot load the causal model", where=name, got=error) from None
        return cls(model.to(device), tokenizer, **settings)

    def _frame(self, text: list[str], prefix: list[str]) -> _Framed:
        context = [token for line in prefix or [""] for token in (*self._tokens(line), *self._newline)]
        scored: list[int] = []
        for place, line in enumerate(text):
            scored += (self._newline if place else []) + self._tokens(line)
        return _Framed(self._start, context, scored)

    def _tokens(self, line: str) -> list[int]:
        return [int(token) for token in self.tokenizer(line, add_special_tokens=False)["input_ids"]] if line else []

    def _nats(self, tokens: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
        device = next(self.model.parameters()).device
        scores = self.model(input_ids=tokens.to(device), attention_mask=real.long().to(device)).logits
        place = wanted[:, 1:].to(device)
        return _cross_entropy(scores[:, :-1][place].float(), tokens[:, 1:].to(device)[place])


class Information(NamedTuple):
    """How much contexts say about sentences.

    Attributes:
        gains: (N,) float64, nats by which the context makes each sentence likelier.
        tokens: (N,) int64, length of each sentence; the weights of a mean over sentences.
    """

    gains: Tensor
    tokens: Tensor

    @property
    def mean(self) -> float | None:
        """Nats a token, weighted by length as in the paper; ``None`` without tokens."""
        count = int(self.tokens.sum())
        return float(self.gains.sum()) / count if count else None


def mutual_information(
    judge: CausalLM, sentences: Sequence[str], contexts: Sequence[Sequence[str]], *, most: int = CONTEXT_SENTENCES
) -> Information:
    """Return how much likelier each sentence is after the true sentences before it than without them.

    MI = (log p(s | context) − log p(s)) / |s|, its mean weighted by |s| (arXiv:2412.08821, section 2.4.2).

    Args:
        judge: a causal language model.
        sentences: N sentences, such as predictions decoded to text.
        contexts: the sentences before each of them.
        most: how many of these, the nearest ones, are read.

    Raises:
        ConfigError: ``most`` below 1.
        DataError: another number of contexts.
    """
    if most < 1:
        raise ConfigError("out of range", where="most", got=most, expected="at least 1")
    if len(contexts) != len(sentences):
        raise DataError("wrong number of contexts", where="contexts", expected=len(sentences), got=len(contexts))
    texts = [[sentence] for sentence in sentences]
    alone, tokens = judge.nats(texts)
    after, _ = judge.nats(texts, [list(context)[-most:] for context in contexts])
    return Information(alone - after, tokens)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a judge finds texts, and how varied their words are: neither says anything without the other.

    Attributes:
        perplexity: exp of all nats over all tokens; ``None`` without tokens.
        entropy: mean of ``entropies``; ``None`` where no text has words.
        nats, tokens: of each text.
        entropies: :func:`word_entropy` of each text.
    """

    perplexity: float | None
    entropy: float | None
    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    entropies: tuple[float | None, ...]


def generative_perplexity(judge: CausalLM, texts: Sequence[Text], lang: str | None = None) -> Likelihood:
    """Return the perplexity of written texts under a judge, together with their entropy.

    A model that repeats itself is likely in every judge's eyes and would win by perplexity alone; its entropy is then
    far below that of human text of the same length (arXiv:2409.02908). Compare texts of equal length, by one
    judge.

    Raises:
        DataError, LanguageError: as :func:`~largeconcept.eval.metrics.words.words`.
    """
    nats, tokens = judge.nats(texts)
    entropies = tuple(word_entropy(text, lang) for text in texts)
    known = [value for value in entropies if value is not None]
    count = int(tokens.sum())
    return Likelihood(
        perplexity=_exp(float(nats.sum()) / count) if count else None,
        entropy=sum(known) / len(known) if known else None,
        nats=tuple(nats.tolist()),
        tokens=tuple(tokens.tolist()),
        entropies=entropies,
    )


def word_entropy(text: Text, lang: str | None = None) -> float | None:
    """Return the entropy in nats of the words of a text, −Σ p log p over how often each occurs; ``None`` without words.

    It lies between 0 (one word over and over) and the logarithm of the number of words (all different).

    Note: of words, not of a judge's tokens, so that it does not depend on the judge.
    """
    counts = Counter(words(text, lang))
    total = counts.total()
    return max(-sum(n / total * math.log(n / total) for n in counts.values()), 0.0) if total else None


def _lines(text: Text) -> list[str]:
    """Return the sentences or lines of a text that are not empty."""
    return [line.strip() for line in joined(text).splitlines() if line.strip()]


def _windows(row: int, framed: _Framed, size: int) -> list[_Window]:
    """Cut a framed text so that each part fits, and each scored token is scored once, with as much context as fits."""
    start, room = framed.start, size - len(framed.start)
    tokens = framed.context + framed.scored
    done, windows = len(framed.context), []
    while done < len(tokens):
        begin = max(0, len(tokens) - room)
        if begin > done - (room + 1) // 2:  # the rest does not fit with enough context: a part of it
            begin = max(0, done - (room + 1) // 2)
        end = min(begin + room, len(tokens))
        windows.append(_Window(row, [*start, *tokens[begin:end]], end - done))
        done = end
    return windows


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Return float64 on the CPU."""
    return torch.nn.functional.cross_entropy(scores, targets, reduction="none").double().cpu()


def _check_sizes(max_tokens: int, batch_tokens: int) -> None:
    for name, value, least in (("max_tokens", max_tokens, 8), ("batch_tokens", batch_tokens, 1)):
        if value < least:
            raise ConfigError("out of range", where=name, got=value, expected=f"at least {least}")


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
