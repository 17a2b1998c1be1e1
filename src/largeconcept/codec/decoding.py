"""Writing sentences from concepts: greedy, sampling and beam search over the autoencoder's cached decoder.

Shape letters: N sentences, B beams, R rows of the decoder (N, or N·B), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from largeconcept.codec.network import BOS, EOS, PAD, UNK

if TYPE_CHECKING:
    from largeconcept.codec.network import AutoencoderNetwork


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Temperature, and how far the distribution is cut: the ``top_k`` likeliest pieces, the smallest set of mass
    ``top_p``."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class _State:
    """Caches of the rows still being written; rows can be dropped or repeated."""

    def __init__(self, network: AutoencoderNetwork, concepts: Tensor, lang: Tensor, max_steps: int) -> None:
        self._network = network
        self._keys, self._values, self._bias = network.start(concepts, max_steps)
        self._input = network.language(lang)
        self._t = 0

    def scores(self) -> Tensor:
        """(R, V) scores of the next token; control tokens other than the end mark cannot be written."""
        hidden = self._network.step(self._input, self._bias, self._keys, self._values, self._t)
        self._t += 1
        scores = self._network.logits(hidden)
        scores[:, [PAD, BOS, UNK]] = -torch.inf
        if self._t == 1:
            scores[:, EOS] = -torch.inf  # a concept stands for at least one token
        return scores

    def feed(self, tokens: Tensor) -> None:
        """Set the (R,) tokens written last."""
        self._input = self._network.embedding(tokens)

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows of everything."""
        used = self._network.config.memory_tokens + self._t
        for caches in (self._keys, self._values):
            for i, cache in enumerate(caches):
                if rows.numel() == cache.shape[0]:
                    cache[:, :, :used] = cache[rows, :, :used]
                else:
                    caches[i] = cache[rows]
        self._bias = self._bias[rows]
        self._input = self._input[rows]


def write_tokens(
    network: AutoencoderNetwork,
    concepts: Tensor,
    lang: Tensor,
    max_length: int,
    generator: torch.Generator | None = None,
    options: SamplingOptions | None = None,
) -> list[list[int]]:
    """Write one sentence for each (N, C) concept, token by token; finished rows leave the batch.

    Args:
        lang: (N,) language indices.
        max_length: most tokens to write.
        generator, options: draw from the distribution; the likeliest token is taken when ``options`` is ``None``.
    """
    written: list[list[int]] = [[] for _ in range(len(concepts))]
    alive = list(range(len(concepts)))
    state = _State(network, concepts, lang, max_length)
    for _ in range(max_length):
        scores = state.scores()
        if options is None:
            tokens = scores.argmax(dim=-1)
        else:
            tokens = torch.multinomial(truncate(scores, options), 1, generator=generator).squeeze(1)
        keep = []
        for row, token in enumerate(tokens.tolist()):
            if token != EOS:
                written[alive[row]].append(token)
                keep.append(row)
        if not keep:
            break
        state.feed(tokens)
        if len(keep) < len(alive):
            state.select(torch.tensor(keep))
            alive = [alive[row] for row in keep]
    return written


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


def beam_search(
    network: AutoencoderNetwork,
    concepts: Tensor,
    lang: Tensor,
    max_length: int,
    num_beams: int,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """Best sentence of each concept by log-probability / length^``length_penalty``.

    The usual algorithm: of the best 2B continuations of a sentence those that end and rank among the first B are set
    aside, the first B others go on; a sentence is done with B hypotheses set aside, or at ``max_length`` tokens, where
    it ends as it stands. With one beam this is greedy search. All sentences are searched at once, and those that are
    done leave.
    """
    beams = num_beams
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(len(concepts))]
    active = list(range(len(concepts)))
    if not active:
        return []
    state = _State(network, concepts, lang, max_length + 1)
    sums, tokens = state.scores().log_softmax(dim=-1).topk(beams, dim=-1)
    state.select(torch.arange(len(active)).repeat_interleave(beams))
    written = tokens[..., None]
    for length in range(1, max_length + 1):
        state.feed(tokens.flatten())
        logp = state.scores().log_softmax(dim=-1).view(len(active), beams, -1)
        size = logp.shape[-1]
        if length == max_length:
            _set_aside(finished, active, sums + logp[..., EOS].clamp(min=-1e4), written, (length + 1) ** length_penalty)
            break
        totals, flat = (sums[..., None] + logp).flatten(1).topk(2 * beams, dim=-1)
        parent, tokens = flat // size, flat % size
        ends = tokens == EOS
        ended = ends[:, :beams]
        for row, rank in ended.nonzero().tolist():
            score = float(totals[row, rank]) / (length + 1) ** length_penalty
            finished[active[row]].append((score, written[row, int(parent[row, rank])].tolist()))
        # The first B continuations that do not end; there are at most B that do, one for each beam.
        order = (ends.long() * 4 * beams + torch.arange(2 * beams)).argsort(dim=-1)[:, :beams]
        sums, parent, tokens = totals.gather(1, order), parent.gather(1, order), tokens.gather(1, order)
        keep = [row for row, i in enumerate(active) if len(finished[i]) < beams]
        if not keep:
            break
        rows = torch.tensor(keep)
        offset = torch.arange(len(active))[:, None] * beams
        state.select((parent + offset)[rows].flatten())
        history = written.gather(1, parent[..., None].expand(-1, -1, length))
        written = torch.cat([history, tokens[..., None]], dim=-1)[rows]
        sums, tokens = sums[rows], tokens[rows]
        active = [active[row] for row in keep]
    return [max(found, key=lambda item: item[0])[1] for found in finished]


def _set_aside(
    finished: list[list[tuple[float, list[int]]]], active: list[int], sums: Tensor, written: Tensor, norm: float
) -> None:
    """End every beam of every active sentence where it stands."""
    for row, i in enumerate(active):
        for beam, score in enumerate((sums[row] / norm).tolist()):
            finished[i].append((score, written[row, beam].tolist()))
