"""Writing sentences token by token, for any decoder that keeps a state: greedy, sampling and beam search.

Shape letters: N sentences, B beams, R rows of the decoder (N, or those of N·B that are still written), V columns of the
scores (the vocabulary, or the part of it that a decoder offers), A sentences that are not done, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from largeconcept.errors import DataError

_IN_CACHE = 2**20
"""Scores that one core looks at together."""
_LIKELY = 256
"""Tokens that are put in order first where all could be needed."""


class DecoderState(Protocol):
    """A decoder in the middle of some sentences, one a row.

    The searches call :meth:`scores`, then :meth:`select` where rows leave or change places, then :meth:`feed`, and so
    on. Tokens are columns of the scores; a decoder that offers a part of its vocabulary translates them itself.
    """

    @property
    def end(self) -> int:
        """The column that ends a sentence."""
        ...

    def scores(self) -> Tensor:
        """Return (R, V) scores of the next token before the softmax, ``-inf`` where a token cannot be written.

        Any float type; the softmax is taken in float32. The tensor may be changed by the caller.
        """
        ...

    def feed(self, tokens: Tensor) -> None:
        """Take the (R,) tokens that were chosen, all but :attr:`end`."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows: the new row i is the old row ``rows[i]``."""
        ...


class Hypothesis(NamedTuple):
    """A finished sentence of a beam search: its tokens without the end mark, and its score."""

    tokens: list[int]
    score: float


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Temperature, and how far the distribution is cut: the ``top_k`` likeliest pieces, the smallest set of mass
    ``top_p``."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


# ---------------------------------------------------------------------- one token after the other


def write_tokens(
    state: DecoderState,
    rows: int,
    max_length: int,
    generator: torch.Generator | None = None,
    options: SamplingOptions | None = None,
    *,
    uniforms: Tensor | None = None,
    forbidden: Sequence[int] = (),
) -> list[list[int]]:
    """Write one sentence for each row of a state; finished rows leave the batch.

    Args:
        rows: N, rows of the state.
        max_length: most tokens to write.
        generator, options: draw from the distribution; the likeliest token is taken when ``options`` is ``None``.
        uniforms: (N, ``max_length``) numbers in [0, 1) that decide the draws instead of ``generator``. What a row
            becomes then depends on its own numbers alone, whatever is written beside it.
        forbidden: tokens that are never written.

    Raises:
        DataError: a sentence has scores that are not numbers.
    """
    if rows == 0:
        return []
    lengths = torch.full((rows,), max_length)
    alive = torch.arange(rows)
    written = torch.zeros(rows, max_length, dtype=torch.long)
    for step in range(max_length):
        scores = state.scores()
        if step == 0:
            written = written.to(scores.device)
        scores[:, list(forbidden)] = -torch.inf
        if options is None:
            tokens = torch.cat([part.float().argmax(dim=-1) for part in _parts(scores)])
        elif uniforms is None:
            probability = truncate(scores, options)
            if generator is not None:
                probability = probability.to(generator.device)
            tokens = torch.multinomial(probability, 1, generator=generator).squeeze(1).to(scores.device)
        else:
            tokens = draw(scores, options, uniforms[alive, step].to(scores.device))
        broken = scores.gather(1, tokens[:, None]).squeeze(1).isnan()
        ended, nothing = torch.stack([tokens == state.end, broken]).cpu()  # the only wait for the device in a step
        if bool(nothing.any()):
            raise _not_numbers(int(alive[nothing][0]))
        if bool(ended.any()):
            lengths[alive[ended]] = step
            drawn_in_order = options is not None and uniforms is None
            keep = (~ended).nonzero().squeeze(1) if drawn_in_order else _staying(~ended)
            if len(keep) == 0:
                break
            alive, keep = alive[keep], keep.to(tokens.device)
            state.select(keep)
            tokens = tokens[keep]
        written[alive.to(tokens.device), step] = tokens
        state.feed(tokens)
    return [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]


def _staying(stays: Tensor) -> Tensor:
    """Numbers of the rows that stay: the last ones in the places of those that leave, so that few are moved."""
    count = int(stays.sum())
    rows = torch.arange(count)
    rows[~stays[:count]] = stays[count:].nonzero().squeeze(1) + count
    return rows


def truncate(scores: Tensor, options: SamplingOptions) -> Tensor:
    """Probabilities after temperature, top-k and top-p (nucleus, arXiv 1904.09751)."""
    scores = scores / max(options.temperature, 1e-6)
    if 0 < options.top_k < scores.shape[-1]:
        threshold = scores.topk(options.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < threshold, -torch.inf)
    probability = scores.softmax(dim=-1)
    if options.top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= options.top_p
        probability = probability.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), 0.0)
    return probability


def draw(scores: Tensor, options: SamplingOptions, uniforms: Tensor) -> Tensor:
    """Draw a token of each row from the distribution that :func:`truncate` gives, with one number in [0, 1) a row.

    Each token is a stretch of a line as long as it is likely, and the number says how far along the line to go.

    Args:
        scores: (R, V).
        uniforms: (R,).

    Returns:
        (R,) int64.
    """
    drawn, start = [], 0
    for part in _parts(scores):
        drawn.append(_draw(part, options, uniforms[start : start + len(part)]))
        start += len(part)
    return torch.cat(drawn)


def _draw(scores: Tensor, options: SamplingOptions, uniforms: Tensor) -> Tensor:
    line = (scores.float() / max(options.temperature, 1e-6)).softmax(dim=-1, dtype=torch.float64)
    order = None
    if options.top_k:
        line, order = line.topk(min(options.top_k, line.shape[-1]), dim=-1)
        line = line / line.sum(dim=-1, keepdim=True)
    elif options.top_p < 1:
        line, order = _likeliest(line, options.top_p)
    reached = line.cumsum(dim=-1)
    if options.top_p < 1:
        line = line.masked_fill(reached - line >= options.top_p, 0.0)
        reached = line.cumsum(dim=-1)
    goal = uniforms[:, None].double() * reached[:, -1:]
    # What is cut off has no length and is never reached; the bound is for scores that are not numbers.
    place = torch.searchsorted(reached, goal, right=True).clamp(max=reached.shape[-1] - 1)
    return (place if order is None else order.gather(1, place)).squeeze(1)


def _likeliest(probability: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """Probabilities in falling order, and their columns: as many as have the mass, at least."""
    if probability.device.type == "cpu" and probability.shape[-1] > _LIKELY:
        # Ordering all of a large vocabulary takes longer than the decoder's step, and is hardly ever needed.
        ordered, order = probability.topk(_LIKELY, dim=-1)
        if not bool((ordered.sum(dim=-1) < mass).any()):
            return ordered, order
    return probability.sort(dim=-1, descending=True)


# ---------------------------------------------------------------------- beam search


def beam_search(
    state: DecoderState,
    rows: int,
    max_length: int,
    num_beams: int,
    length_penalty: float = 1.0,
    *,
    prompt_length: int = 0,
    start_scores: Tensor | None = None,
    forbidden: Sequence[int] = (),
) -> list[list[int]]:
    """Return the best sentence of each row of a state; see :func:`beam_hypotheses`."""
    found = beam_hypotheses(
        state,
        rows,
        max_length,
        num_beams,
        length_penalty,
        prompt_length=prompt_length,
        start_scores=start_scores,
        forbidden=forbidden,
    )
    return [best[0].tokens for best in found]


def beam_hypotheses(
    state: DecoderState,
    rows: int,
    max_length: int,
    num_beams: int,
    length_penalty: float = 1.0,
    *,
    prompt_length: int = 0,
    start_scores: Tensor | None = None,
    forbidden: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Return up to B sentences of each row, best first, by log-probability / length^``length_penalty``.

    The usual algorithm: of the best 2B continuations of a sentence those that end and rank among the first B are set
    aside, the first B others go on; a sentence is done with B hypotheses set aside, or at ``max_length`` tokens, where
    every beam has to end. With one beam this is greedy search. All sentences are searched at once, and those that are
    done leave.

    Args:
        rows: N, rows of the state.
        max_length: most tokens to write, without the end mark.
        num_beams: B.
        length_penalty: the exponent; 0 compares sums of log-probabilities, more than 1 favours long sentences.
        prompt_length: tokens to add to the length of every sentence (its own tokens and the end mark) where scores
            are divided.
        start_scores: (N,) log-probabilities of what stands before the first token, added to every sum.
        forbidden: tokens that are never written. They keep their share of the probability: what is left is not made to
            sum to one, other than for scores of ``-inf``.

    Raises:
        DataError: a sentence has scores that are not numbers.
    """
    if rows == 0:
        return []
    beams, end = num_beams, state.end
    found = _Found(rows, beams)
    active = torch.arange(rows)
    scores = state.scores()
    device = scores.device
    sums = torch.zeros(rows, 1, device=device) if start_scores is None else start_scores.float()[:, None]
    written = torch.zeros(rows, 1, 0, dtype=torch.long, device=device)
    for length in range(max_length + 1):
        width = sums.shape[1]
        if length == max_length:
            # A floor, so that a sentence has a hypothesis even where the decoder rules the end out.
            ending = torch.cat([part.log_softmax(dim=-1, dtype=torch.float32)[:, end] for part in _parts(scores)])
            totals = sums + ending.view(-1, width).clamp(min=-1e4)
            totals, parent = totals.sort(dim=-1, descending=True)
            found.add(active, (totals > -torch.inf).cpu(), totals, written, parent)
            break
        # Best of each beam first: a sentence's best 2B are among them, and the sums need no (A, B, V) tensor.
        best, tokens = _best(scores, 2 * beams, forbidden)
        each = best.shape[-1]
        totals = (sums[..., None] + best.view(-1, width, each)).flatten(1)
        totals, place = totals.topk(min(2 * beams, totals.shape[-1]), dim=-1)
        parent, tokens = place // each, tokens.view(len(totals), -1).gather(1, place)
        ends = tokens == end
        ended = (ends & (totals > -torch.inf))[:, :beams].cpu()  # the only wait for the device in a step
        found.add(active, ended, totals, written, parent)
        # The first B continuations that do not end. One of each beam can end at most, so there are enough of them,
        # unless the vocabulary is tiny.
        candidates = ends.shape[1]
        going = min(beams, candidates - width)
        keep = _staying(found.counts[active] < beams)
        if going == 0 or len(keep) == 0:
            break
        order = (ends.long() * candidates + torch.arange(candidates, device=device)).argsort(dim=-1)[:, :going]
        sums, parent, tokens = totals.gather(1, order), parent.gather(1, order), tokens.gather(1, order)
        history = written.gather(1, parent[..., None].expand(-1, -1, length))
        written = torch.cat([history, tokens[..., None]], dim=-1)
        source = parent + torch.arange(len(active), device=device)[:, None] * width
        if len(keep) < len(active):
            active, keep = active[keep], keep.to(device)
            sums, tokens, written, source = sums[keep], tokens[keep], written[keep], source[keep]
        state.select(source.flatten())
        state.feed(tokens.flatten())
        scores = state.scores()
    answer = found.best_first(length_penalty, prompt_length)
    for row, hypotheses in enumerate(answer):
        if not hypotheses:
            raise _not_numbers(row)
    return answer


def _best(scores: Tensor, count: int, forbidden: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the likeliest tokens that are not forbidden, and the tokens: (R, ``count`` or V) each."""
    banned = list(forbidden)
    best, tokens = [], []
    for part in _parts(scores):
        logp = part.log_softmax(dim=-1, dtype=torch.float32)
        logp[:, banned] = -torch.inf
        found = logp.topk(min(count, logp.shape[-1]), dim=-1)
        best.append(found.values)
        tokens.append(found.indices)
    return torch.cat(best), torch.cat(tokens)


def _parts(scores: Tensor) -> list[Tensor]:
    """The rows in groups that stay in a processor's cache: several passes then cost little more than one.

    For 256 thousand columns that is four times faster than passes over all rows; other devices take all at once.
    """
    if scores.device.type != "cpu":
        return [scores]
    size = max(1, torch.get_num_threads() * _IN_CACHE // scores.shape[-1])
    return [scores[start : start + size] for start in range(0, len(scores), size)]


def _not_numbers(row: int) -> DataError:
    return DataError(
        "the decoder's scores are not numbers",
        where=f"sentence {row}",
        hint="is the concept of the codec's space, and are the weights complete?",
    )


class _Found:
    """Hypotheses set aside, at most B of each sentence."""

    def __init__(self, rows: int, beams: int) -> None:
        self.counts = torch.zeros(rows, dtype=torch.long)
        self._rows, self._beams = rows, beams
        # One entry for each length: sentences (H,), sums (H,) and tokens (H, length).
        self._entries: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, active: Tensor, ended: Tensor, totals: Tensor, written: Tensor, parent: Tensor) -> None:
        """Set hypotheses aside, the first ones of a sentence where more end than it needs.

        Args:
            active: (A,) numbers of the sentences, on the host.
            ended: (A, k) the candidates that end, on the host; best first.
            totals, parent: (A, K) of all candidates.
            written: (A, B, length) tokens of the beams.
        """
        ended = ended & (self.counts[active][:, None] + ended.cumsum(dim=1) <= self._beams)
        row, rank = ended.nonzero(as_tuple=True)
        if len(row) == 0:
            return
        sentences = active[row]
        self.counts += torch.bincount(sentences, minlength=self._rows)
        row, rank = row.to(totals.device), rank.to(totals.device)
        self._entries.append((sentences, totals[row, rank], written[row, parent[row, rank]]))

    def best_first(self, length_penalty: float, prompt_length: int) -> list[list[Hypothesis]]:
        """Return the hypotheses of each sentence in the order of their scores."""
        found: list[list[Hypothesis]] = [[] for _ in range(self._rows)]
        for sentences, totals, written in self._entries:
            divisor = (written.shape[1] + 1 + prompt_length) ** length_penalty
            for i, total, tokens in zip(sentences.tolist(), totals.tolist(), written.tolist(), strict=True):
                found[i].append(Hypothesis(tokens, total / divisor))
        for hypotheses in found:
            hypotheses.sort(key=lambda one: -one.score)
        return found
