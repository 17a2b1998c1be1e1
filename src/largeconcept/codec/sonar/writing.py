"""Sentences from concepts with SONAR's decoder: what the shared searches of :mod:`largeconcept.codec.decoding` need.

Shape letters: N sentences, R rows of the decoder, C concept dimension, V vocabulary (or the part of it that may be
written).

Beam search has the rules and scores of the original pipeline (fairseq2's generator): a sentence of n tokens
scores (log p(language | ``</s>``) + log-probabilities of its tokens and of ``</s>``) / (n + 2)^penalty. Each row has
its own language, so that one concept can be written in many languages at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from largeconcept.codec.decoding import Hypothesis, SamplingOptions, beam_hypotheses, write_tokens
from largeconcept.codec.sonar.network import SonarDecoder
from largeconcept.codec.sonar.tokenizer import EOS, PAD, UNK, SonarTokenizer
from largeconcept.codec.token_loss import token_cross_entropy
from largeconcept.errors import ConfigError
from largeconcept.nn.products import PackedProduct

PROMPT = 2
"""Tokens before the text: ``</s>`` and the language."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class WritingOptions:
    """How sentences are written; the defaults are those of the original pipeline.

    Attributes:
        method: ``beam``, ``greedy`` or ``sample``.
        num_beams: sentences kept in a beam search.
        max_length: most tokens of a sentence, without language and end mark. The original's bound is 512 tokens with
            them, the most the decoder has positions for.
        length_penalty: exponent of the length that a beam's score is divided by.
        forbid_unknown: never write the unknown piece, which prints as ``⁇`` (fairseq2 up to 0.4 forbids it, later
            versions do not).
        temperature, top_k, top_p: of ``sample``; ``top_k`` 0 is no limit.
        seed: of ``sample``; sentence i gets the same draws whatever is written beside it. ``None`` draws anew.

    Raises:
        ConfigError: an unknown method or a setting out of range.
    """

    method: Literal["beam", "greedy", "sample"] | str = "beam"
    num_beams: int = 5
    max_length: int = 128
    length_penalty: float = 1.0
    forbid_unknown: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.method not in ("beam", "greedy", "sample"):
            raise ConfigError(
                "unknown decoding method", where="method", got=self.method, expected="beam, greedy or sample"
            )
        fits = self.num_beams >= 1 and self.max_length >= 1 and self.top_k >= 0
        if not (fits and self.temperature > 0 and 0 < self.top_p <= 1):
            raise ConfigError(
                "a decoding setting is out of range",
                got=f"num_beams={self.num_beams} max_length={self.max_length} temperature={self.temperature} "
                f"top_k={self.top_k} top_p={self.top_p}",
            )


class WritingState:
    """The decoder in the middle of some sentences, the prompt read.

    Args:
        decoder: on the device of everything.
        concepts_NC: (N, C).
        languages_N: (N,) ids of the language tokens.
        max_length: most tokens to write.
        vocabularies: for each sentence the ids that may be written in it, the end mark first (see :func:`writable`);
            then tokens are places in these lists. ``None`` offers all V.
    """

    def __init__(
        self,
        decoder: SonarDecoder,
        concepts_NC: Tensor,
        languages_N: Tensor,
        max_length: int,
        vocabularies: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._decoder = decoder
        self._cache = decoder.start(concepts_NC, PROMPT + max_length)
        self._languages = languages_N
        self._prompt = decoder.step(torch.full_like(languages_N, EOS), self._cache)
        self._input = languages_N
        self._parts: _Parts | None = None
        if vocabularies is not None:
            self._parts = _Parts(decoder.embed_tokens.weight, vocabularies)

    @property
    def end(self) -> int:
        """The column of ``</s>``."""
        return EOS if self._parts is None else 0

    def start_scores(self) -> Tensor:
        """Return log p(language | ``</s>``) of the sentences the state was made with, (N,) float32."""
        return -token_cross_entropy(self._prompt, self._decoder.embed_tokens.weight, self._languages)[0]

    def scores(self) -> Tensor:
        """Return (R, V) scores of the next token, in the weights' type."""
        hidden = self._decoder.step(self._input, self._cache)
        if self._parts is None:
            return self._decoder.scores(hidden, self._cache)
        return self._parts.scores(hidden)

    def feed(self, tokens: Tensor) -> None:
        """Take the (R,) tokens written last."""
        self._input = tokens if self._parts is None else self._parts.ids(tokens)

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        self._cache.select(rows)
        if self._parts is not None:
            self._parts.select(rows)


class _Parts:
    """The rows of the output table that each sentence may use; sentences with the same ids share a product."""

    def __init__(self, weight: Tensor, vocabularies: Sequence[Sequence[int]]) -> None:
        numbers: dict[tuple[int, ...], int] = {}
        self._owner = torch.tensor([numbers.setdefault(tuple(ids), len(numbers)) for ids in vocabularies])
        self._columns = max(map(len, numbers))
        self._tables = [PackedProduct(weight[torch.tensor(ids, device=weight.device)]) for ids in numbers]
        self._sizes = [len(ids) for ids in numbers]
        padded = [[*ids, *[EOS] * (self._columns - len(ids))] for ids in numbers]
        self._ids = torch.tensor(padded, device=weight.device)
        self._placed()

    def _placed(self) -> None:
        """Rows of each table; the owners are known on the host, so that nothing waits for the device."""
        device = self._ids.device
        self._rows = [(self._owner == i).nonzero().squeeze(1).to(device) for i in range(len(self._tables))]
        self._on_device = self._owner.to(device)

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of the ids of each row's own list, and ``-inf`` behind its end."""
        if len(self._tables) == 1:
            return self._tables[0](hidden)
        out = hidden.new_full((len(hidden), self._columns), -torch.inf)
        for rows, table, size in zip(self._rows, self._tables, self._sizes, strict=True):
            out[rows, :size] = table(hidden[rows])
        return out

    def ids(self, tokens: Tensor) -> Tensor:
        """Vocabulary ids of places in the rows' lists."""
        return self._ids[0, tokens] if len(self._tables) == 1 else self._ids[self._on_device, tokens]

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        if len(self._tables) > 1:
            self._owner = self._owner[rows.cpu()]
            self._placed()


def writable(tokenizer: SonarTokenizer, texts: Sequence[str]) -> tuple[int, ...]:
    """Return what is enough to write a language, judged by a sample of it: a list for :func:`write`.

    It holds the end mark, the pieces of the texts, and those of all ASCII characters, so that any number or address can
    be spelt out.

    Raises:
        ConfigError: there is no text.
    """
    characters = [chr(code) for code in range(33, 127)]
    found = {i for row in tokenizer.pieces(texts) for i in row}
    if found <= {UNK}:
        raise ConfigError("no text to take a vocabulary from", where="restrict", got=f"{len(texts)} texts")
    # In the middle of a word a character is another piece than at its beginning.
    found.update(i for row in tokenizer.pieces([*characters, *(f"a{c}" for c in characters)]) for i in row)
    return (EOS, *sorted(found - {PAD, UNK, EOS}))


# ---------------------------------------------------------------------- whole sentences


@torch.inference_mode()
def write(
    decoder: SonarDecoder,
    concepts_NC: Tensor,
    languages: Sequence[int],
    options: WritingOptions | None = None,
    *,
    vocabularies: Mapping[int, Sequence[int]] | None = None,
    batch_tokens: int = 8192,
) -> list[list[int]]:
    """Write one sentence for each concept.

    Args:
        decoder: any device, any weights' type.
        concepts_NC: (N, C), on the decoder's device.
        languages: N ids of language tokens; languages may be mixed.
        options: how; beam search with the original's defaults when ``None``.
        vocabularies: ids that may be written in a language, by the id of its token, each list as from
            :func:`writable`. The output matrix, a third of the work, then shrinks to them. Languages that are not
            listed have the whole vocabulary.
        batch_tokens: bounds the tokens remembered at once: a quarter of rows × beams × ``max_length`` (few sentences
            are a quarter as long as they may be).

    Returns:
        N lists of ids, without prompt and end mark.

    Raises:
        DataError: scores that are not numbers.
    """
    options = options or WritingOptions()
    if options.method == "beam" and options.num_beams > 1:
        found = write_hypotheses(
            decoder, concepts_NC, languages, options, vocabularies=vocabularies, batch_tokens=batch_tokens
        )
        return [best[0].tokens for best in found]
    seed = torch.Generator().seed() if options.seed is None else options.seed
    sampling = SamplingOptions(options.temperature, options.top_k, options.top_p)

    def token_by_token(
        state: WritingState, rows: list[int], length: int, forbidden: tuple[int, ...]
    ) -> list[list[int]]:
        if options.method != "sample":
            return write_tokens(state, len(rows), length, forbidden=forbidden)
        uniforms = _uniforms(seed, rows, length)
        return write_tokens(state, len(rows), length, None, sampling, uniforms=uniforms, forbidden=forbidden)

    def in_ids(written: list[int], ids: Sequence[int]) -> list[int]:
        return [ids[token] for token in written]

    return _in_batches(decoder, concepts_NC, languages, options, vocabularies, batch_tokens, token_by_token, in_ids)


@torch.inference_mode()
def write_hypotheses(
    decoder: SonarDecoder,
    concepts_NC: Tensor,
    languages: Sequence[int],
    options: WritingOptions | None = None,
    *,
    vocabularies: Mapping[int, Sequence[int]] | None = None,
    batch_tokens: int = 8192,
) -> list[list[Hypothesis]]:
    """Return the ``num_beams`` best sentences of each concept with their scores, best first; arguments of
    :func:`write`."""
    options = options or WritingOptions()

    def search(state: WritingState, rows: list[int], length: int, forbidden: tuple[int, ...]) -> list[list[Hypothesis]]:
        return beam_hypotheses(
            state,
            len(rows),
            length,
            options.num_beams,
            options.length_penalty,
            prompt_length=PROMPT - 1,  # the original divides by all tokens but the first
            start_scores=state.start_scores(),
            forbidden=forbidden,
        )

    def in_ids(found: list[Hypothesis], ids: Sequence[int]) -> list[Hypothesis]:
        return [Hypothesis([ids[token] for token in one.tokens], one.score) for one in found]

    return _in_batches(decoder, concepts_NC, languages, options, vocabularies, batch_tokens, search, in_ids)


def _in_batches(
    decoder: SonarDecoder,
    concepts_NC: Tensor,
    languages: Sequence[int],
    options: WritingOptions,
    vocabularies: Mapping[int, Sequence[int]] | None,
    batch_tokens: int,
    search: Callable[[WritingState, list[int], int, tuple[int, ...]], list[_Answer]],
    in_ids: Callable[[_Answer, Sequence[int]], _Answer],
) -> list[_Answer]:
    """Run a search over groups of sentences, those with a vocabulary of their own apart from the others."""
    length = min(options.max_length, decoder.config.max_tokens - PROMPT - 1)
    beams = options.num_beams if options.method == "beam" else 1
    size = max(1, 4 * batch_tokens // (length * beams))
    own = vocabularies or {}
    device = concepts_NC.device
    answers: dict[int, _Answer] = {}
    for restricted in (True, False):
        members = [i for i, language in enumerate(languages) if (language in own) == restricted]
        even = math.ceil(len(members) / max(1, math.ceil(len(members) / size)))  # a last batch of few rows is slow
        for start in range(0, len(members), max(1, even)):
            rows = members[start : start + even]
            ids = torch.tensor([languages[i] for i in rows], device=device)
            lists = [own[languages[i]] for i in rows] if restricted else None
            state = WritingState(decoder, concepts_NC[torch.tensor(rows, device=device)], ids, length, lists)
            # A list holds neither; the whole vocabulary has padding, which is never written.
            forbidden = () if restricted else (PAD, UNK) if options.forbid_unknown else (PAD,)
            for i, answer in zip(rows, search(state, rows, length, forbidden), strict=True):
                answers[i] = in_ids(answer, own[languages[i]]) if restricted else answer
    return [answers[i] for i in range(len(languages))]


def _uniforms(seed: int, rows: Sequence[int], length: int) -> Tensor:
    """Numbers in [0, 1) that decide the draws of sentences by their numbers, (rows, ``length``) float64 on the host.

    They depend on the seed and the sentence alone, not on the device or on what else is written.
    """
    drawn = [np.random.default_rng((seed % 2**64, row)).random(length) for row in rows]
    return torch.from_numpy(np.stack(drawn))
