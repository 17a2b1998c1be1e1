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
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from largeconcept.errors import CheckpointError, ConfigError, DataError, missing_extra
from largeconcept.eval.metrics.words import Text, joined, words
from largeconcept.generate.token_lm import check_tokenizer

if TYPE_CHECKING:
    from largeconcept.models.token_lm import TokenLM
    from largeconcept.nn.kv_cache import KVCache
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


class Place(NamedTuple):
    """A text, and where it stands: after the first ``lines`` of a reading."""

    reading: int
    lines: int
    text: Text


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

    @torch.no_grad()
    def nats_at(self, readings: Sequence[Sequence[str]], places: Sequence[Place]) -> tuple[Tensor, Tensor]:
        """Score texts as :meth:`nats` does, each after the beginning of a reading that may be other texts' too.

        A reading goes through the model once, whatever number of texts stands behind its lines.

        Args:
            readings: sentences or lines of each.
            places: N texts, each with its reading and how many lines of that stand before it.

        Returns:
            (N,) float64 nats and (N,) int64 tokens.
        """
        marked = [self._reading(list(reading)) for reading in readings]
        scored = [self._frame(_lines(place.text), []).scored for place in places]
        total = torch.zeros(len(places), dtype=torch.float64)
        shared: dict[int, list[int]] = {}
        alone = []
        for number, (place, text) in enumerate(zip(places, scored, strict=True)):
            end = marked[place.reading][1][place.lines]
            if not end or end + len(text) > self.max_tokens:
                alone.append(number)  # nothing to share, or to be cut
            elif text:
                shared.setdefault(place.reading, []).append(number)
        for batch in _fitting(sorted(shared, key=lambda one: len(marked[one][0])), marked, self.batch_tokens):
            longest = max(len(marked[one][0]) for one in batch)
            tokens = torch.tensor([marked[one][0] + [0] * (longest - len(marked[one][0])) for one in batch])
            read = self._read(tokens, [len(marked[one][0]) for one in batch])
            numbers = [number for one in batch for number in shared[one]]
            if read is None:
                alone += numbers
                continue
            rows = {one: row for row, one in enumerate(batch)}
            numbers.sort(key=lambda number: len(scored[number]))
            while numbers:
                size = max(1, self.batch_tokens // (longest + len(scored[numbers[-1]])))
                part, numbers = numbers[-size:], numbers[:-size]  # the longest first
                ends = [marked[places[number].reading][1][places[number].lines] for number in part]
                # The last token before a text says what the text's first one is likely to be: it is read once more.
                asked = [
                    [marked[places[number].reading][0][end - 1], *scored[number][:-1]]
                    for number, end in zip(part, ends, strict=True)
                ]
                width = max(map(len, asked))
                given = torch.tensor([row + [0] * (width - len(row)) for row in asked])
                wanted = torch.tensor([[i < len(row) for i in range(width)] for row in asked])
                targets = torch.tensor([token for number in part for token in scored[number]])
                where = [rows[places[number].reading] for number in part]
                nats = self._branch(read, where, [end - 1 for end in ends], given, wanted, targets)
                total.index_add_(0, torch.tensor(part).repeat_interleave(wanted.sum(dim=1)), nats)
        if alone:
            found, _ = self.nats(
                [places[number].text for number in alone],
                [list(readings[places[number].reading])[: places[number].lines] for number in alone],
            )
            total[torch.tensor(alone)] = found
        return total, torch.tensor([len(text) for text in scored], dtype=torch.long)

    def _reading(self, sentences: list[str]) -> tuple[list[int], list[int]]:
        """Return the tokens of sentences with what stands in front, and how many there are after 0, 1, … of them.

        Where a prefix of no sentences has no tokens of its own that number is 0.
        """
        parts = [_lines(sentence) for sentence in sentences]
        start, context, _ = self._frame([], [line for part in parts for line in part])
        sizes = iter(self._sizes([line for part in parts for line in part]))
        ends = [0]
        at = len(start)
        for part in parts:
            at += sum(next(sizes) for _ in part)
            ends.append(at if at > len(start) else 0)
        return [*start, *context], ends

    @abstractmethod
    def _sizes(self, lines: list[str]) -> list[int]:
        """Return how many tokens of a prefix each of its lines takes."""

    @abstractmethod
    def _read(self, tokens: Tensor, lengths: list[int]) -> Any:
        """Read (B, T) tokens, padded on the right; return what can be gone on from, or ``None`` if nothing can."""

    @abstractmethod
    def _branch(
        self, read: Any, rows: list[int], lengths: list[int], tokens: Tensor, wanted: Tensor, targets: Tensor
    ) -> Tensor:
        """Return float64 negative log-likelihoods of targets, row by row.

        Args:
            read: what :meth:`_read` returned.
            rows: R rows of it.
            lengths: how many tokens of that row each of the R sees.
            tokens: (R, T) int64 that follow, padded on the right.
            wanted: (R, T) boolean, not padding: what follows these is scored.
            targets: what does follow them, row by row.
        """

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
        check_tokenizer(model, tokenizer)
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
        return self._scores(states, tokens[:, 1:][wanted[:, 1:]])

    def _scores(self, states: Tensor, targets: Tensor) -> Tensor:
        size = max(_LOGITS // self.model.config.vocab_size, 1)
        parts = zip(torch.split(states, size), torch.split(targets.to(states.device), size), strict=True)
        return torch.cat([_cross_entropy(self.model.logits(part), target) for part, target in parts])

    def _sizes(self, lines: list[str]) -> list[int]:
        return [len(tokens) + 1 for tokens in self.tokenizer.encode(lines)]  # and the end mark

    def _read(self, tokens: Tensor, lengths: list[int]) -> KVCache:
        from largeconcept.generate.loop import evaluating

        with evaluating(self.model):
            return self.model.read(tokens.to(self.model.embedding.weight.device), lengths)[0]

    def _branch(
        self, read: KVCache, rows: list[int], lengths: list[int], tokens: Tensor, wanted: Tensor, targets: Tensor
    ) -> Tensor:
        from largeconcept.generate.loop import evaluating

        device = self.model.embedding.weight.device
        with evaluating(self.model):
            states = self.model.after(read, rows, lengths, tokens.to(device))[wanted.to(device)]
        return self._scores(states, targets)


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
            model: Any = AutoModelForCausalLM.from_pretrained(name)
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

    def _sizes(self, lines: list[str]) -> list[int]:
        return [len(self._tokens(line)) + len(self._newline) for line in lines]

    def _read(self, tokens: Tensor, lengths: list[int]) -> Any:
        device = next(self.model.parameters()).device
        real = torch.arange(tokens.shape[1]) < torch.tensor(lengths).unsqueeze(1)
        known = signature(self.model.forward).parameters
        few = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        read = self.model(input_ids=tokens.to(device), attention_mask=real.long().to(device), use_cache=True, **few)
        cache = getattr(read, "past_key_values", None)
        usable = hasattr(cache, "batch_select_indices") and "position_ids" in known
        # Of a sliding window the beginning is gone.
        return cache if usable and not any(getattr(cache, "is_sliding", [])) else None

    def _branch(
        self, read: Any, rows: list[int], lengths: list[int], tokens: Tensor, wanted: Tensor, targets: Tensor
    ) -> Tensor:
        device, size = next(self.model.parameters()).device, read.get_seq_length()
        cache = deepcopy(read)
        cache.batch_select_indices(torch.tensor(rows, device=device))
        before = torch.tensor(lengths).unsqueeze(1)
        mask = torch.cat((torch.arange(size) < before, wanted), dim=1).long()
        # Positions of padding stay within the table.
        positions = torch.minimum(before + torch.arange(tokens.shape[1]), before + wanted.sum(dim=1, keepdim=True) - 1)
        scores = self.model(
            input_ids=tokens.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
        ).logits
        return _cross_entropy(scores[wanted.to(device)].float(), targets.to(device))


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
    """Return :func:`mutual_informations` of one predictor's sentences."""
    return mutual_informations(judge, {"": sentences}, contexts, most=most)[""]


def mutual_informations(
    judge: CausalLM,
    sentences: Mapping[str, Sequence[str]],
    contexts: Sequence[Sequence[str]],
    *,
    most: int = CONTEXT_SENTENCES,
) -> dict[str, Information]:
    """Return how much likelier each sentence is after the true sentences before it than without them.

    MI = (log p(s | context) − log p(s)) / |s|, its mean weighted by |s| (arXiv:2412.08821, section 2.4.2).

    A judge of this module reads a context once for the sentences of all predictors, and contexts of which one is the
    beginning of the next, as the first ones of a document are, once together. No sentence is scored twice at one place.

    Args:
        judge: a causal language model.
        sentences: predictor -> N sentences, such as predictions decoded to text.
        contexts: the N sentences before each of them, places of a document in their order.
        most: how many of these, the nearest ones, are read.

    Raises:
        ConfigError: ``most`` below 1.
        DataError: another number of contexts.
    """
    if most < 1:
        raise ConfigError("out of range", where="most", got=most, expected="at least 1")
    for group in sentences.values():
        if len(contexts) != len(group):
            raise DataError("wrong number of contexts", where="contexts", expected=len(group), got=len(contexts))
    readings, ends = _chained([list(context)[-most:] for context in contexts])
    texts = {
        text: number for number, text in enumerate(dict.fromkeys(t for group in sentences.values() for t in group))
    }
    places = dict.fromkeys((at, text) for group in sentences.values() for at, text in enumerate(group))
    numbers = {place: number for number, place in enumerate(places)}
    alone, tokens = judge.nats([[text] for text in texts])
    if isinstance(judge, _Scorer):
        after, _ = judge.nats_at(readings, [Place(*ends[at], [text]) for at, text in places])
    else:
        after, _ = judge.nats(
            [[text] for _, text in places], [readings[ends[at][0]][: ends[at][1]] for at, _ in places]
        )
    found = {}
    for name, group in sentences.items():
        which = torch.tensor([texts[text] for text in group], dtype=torch.long)
        where = torch.tensor([numbers[at, text] for at, text in enumerate(group)], dtype=torch.long)
        found[name] = Information(alone[which] - after[where], tokens[which])
    return found


def _chained(contexts: Sequence[list[str]]) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """Return readings, and of each context its reading and how many lines of it the context is."""
    readings: list[list[str]] = []
    places = []
    for context in contexts:
        last = readings[-1] if readings else None
        if last is not None and context[: len(last)] == last:
            readings[-1] = context
        elif last is None or last[: len(context)] != context:
            readings.append(context)
        places.append((len(readings) - 1, len(context)))
    return readings, places


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


def _fitting(order: Sequence[int], marked: Sequence[tuple[list[int], Any]], budget: int) -> Iterator[list[int]]:
    """Cut readings, sorted by length, into batches whose padded tokens fit into the budget."""
    batch: list[int] = []
    for one in order:
        if batch and len(marked[one][0]) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


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
