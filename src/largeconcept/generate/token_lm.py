"""Text from a token model: sentences that continue a text, and the next sentence at every place of a document.

Texts of different lengths are written together from a cache of keys and values; a text that is finished leaves. The
result of a text depends on the text, the seed and its sample id, not on what else is in the batch.

Shape letters: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor

from largeconcept.codec.decoding import SamplingOptions, draw
from largeconcept.config import Config
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import evaluating
from largeconcept.models.token_lm import DOCUMENT, END, PAD, UNKNOWN, TokenLM, document_tokens
from largeconcept.nn.kv_cache import StateCache
from largeconcept.objectives.token_lm import TextTokenizer


class TokenOptions(Config):
    """How tokens are chosen.

    Attributes:
        max_sentences: most sentences to write.
        max_tokens: most tokens of a sentence; it ends there as it stands.
        temperature: 0 takes the likeliest token, 1 draws from the model's distribution.
        top_k: draw among the likeliest tokens only; 0 for all.
        top_p: draw among the fewest tokens that hold this much of the probability (arXiv:1904.09751).
        seed: of the draws.
    """

    max_sentences: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0


@dataclass(slots=True)
class _Text:
    """A text being written: its finished sentences and the tokens of the present one."""

    id: int
    sentences: list[list[int]] = field(default_factory=list)
    current: list[int] = field(default_factory=list)


@torch.no_grad()
def continue_sentences(
    model: TokenLM,
    tokenizer: TextTokenizer,
    prompts: Sequence[Sequence[str]],
    options: TokenOptions | None = None,
    *,
    sample_ids: Sequence[int] | None = None,
    batch_size: int = 32,
) -> list[list[str]]:
    """Continue each text by up to ``options.max_sentences`` sentences; fewer if the model ends the document.

    Args:
        model: on the device where the work is to be done; its mode is left as it was.
        tokenizer: that of the codec the model was trained with.
        prompts: the sentences of each text; an empty list begins a document.
        options: greedy by default.
        sample_ids: one for each prompt, 0 by default; other ids give other draws.
        batch_size: texts written together.

    Raises:
        DataError: a wrong number of sample ids, or a tokenizer of another size than the model's vocabulary.
    """
    options = options if options is not None else TokenOptions()
    check_tokenizer(model, tokenizer)
    ids = [0] * len(prompts) if sample_ids is None else list(sample_ids)
    if len(ids) != len(prompts):
        raise DataError("wrong number of sample ids", where="sample_ids", expected=len(prompts), got=len(ids))
    rows = [document_tokens(tokenizer.encode(list(prompt))) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    written: list[list[list[int]]] = [[] for _ in rows]
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            tokens, lengths = _padded([rows[i] for i in part], model)
            cache = model.prefill(tokens, lengths, max(lengths) + options.max_tokens)
            texts = [_Text(ids[i]) for i in part]
            _write(model, cache, texts, options, may_end=True)
            for i, text in zip(part, texts, strict=True):
                written[i] = text.sentences
    return [tokenizer.decode(sentences) for sentences in written]


@torch.no_grad()
def predict_next_sentences(
    model: TokenLM,
    tokenizer: TextTokenizer,
    documents: Sequence[Sequence[str]],
    options: TokenOptions | None = None,
    *,
    sample_ids: Sequence[int] | None = None,
    batch_tokens: int = 32768,
) -> list[list[str]]:
    """Write, for every place in each document, the sentence that comes next after the given ones.

    Each document is read once; all its places are then continued together. Encoded by the codec, the sentences can be
    compared with what a concept model predicts at the same places.

    Args:
        model: see :func:`continue_sentences`.
        tokenizer: see :func:`continue_sentences`.
        documents: sentences of each document.
        options: ``max_sentences`` is not used: one sentence is written at each place.
        sample_ids: one for each document, 0 by default.
        batch_tokens: most tokens of context, padding included, that are kept at once.

    Returns:
        For a document of S sentences S - 1: entry i was written after sentences 0 … i. An entry is never an end of
        the document, but may be empty where the model writes nothing printable.

    Raises:
        DataError: a wrong number of sample ids, or a tokenizer of another size than the model's vocabulary.
    """
    options = (options if options is not None else TokenOptions()).model_copy(update={"max_sentences": 1})
    check_tokenizer(model, tokenizer)
    ids = [0] * len(documents) if sample_ids is None else list(sample_ids)
    if len(ids) != len(documents):
        raise DataError("wrong number of sample ids", where="sample_ids", expected=len(documents), got=len(ids))
    results = []
    with evaluating(model):
        for document, id in zip(documents, ids, strict=True):
            sentences = tokenizer.encode(list(document))
            ends = [len(document_tokens(sentences[: i + 1])) for i in range(len(sentences) - 1)]
            written: list[list[int]] = []
            if ends:
                tokens, lengths = _padded([document_tokens(sentences[:-1])], model)
                cache, states = model.read(tokens, lengths)
                for places in _within(ends, batch_tokens, options.max_tokens):
                    part = model.beginnings(cache, states, [0] * len(places), [ends[i] for i in places])
                    texts = [_Text(id) for _ in places]
                    _write(model, part, texts, options, may_end=False)
                    written += [text.sentences[0] for text in texts]
            results.append(tokenizer.decode(written))
    return results


def _write(model: TokenLM, cache: StateCache, texts: list[_Text], options: TokenOptions, *, may_end: bool) -> None:
    """Write until every text has its sentences; ``cache`` has a row for each text and is used up."""
    while texts:
        tokens = _choose(model.logits(cache.state), cache.lengths, texts, options, may_end).tolist()
        going = []
        for place, (text, token) in enumerate(zip(texts, tokens, strict=True)):
            if token == DOCUMENT:
                continue
            if token != END:
                text.current.append(token)
            else:
                text.sentences.append(text.current)
                text.current = []
            if len(text.sentences) < options.max_sentences:
                going.append(place)
        texts = [texts[place] for place in going]
        if not texts:
            return
        if len(going) < len(tokens):
            cache.select(going)
        model.extend(cache, torch.tensor([tokens[place] for place in going], device=cache.state.device))


def _choose(
    scores: Tensor, lengths: Sequence[int], texts: Sequence[_Text], options: TokenOptions, may_end: bool
) -> Tensor:
    """Return (B,) tokens for (B, V) scores.

    A sentence has at least one token; a document ends after a sentence, not within one.
    """
    scores = scores.clone()
    scores[:, [PAD, UNKNOWN]] = -torch.inf
    began = torch.tensor([bool(text.current) for text in texts], device=scores.device)
    scores[:, END] = scores[:, END].masked_fill(~began, -torch.inf)
    scores[:, DOCUMENT] = scores[:, DOCUMENT].masked_fill(began | (not may_end), -torch.inf)
    full = torch.tensor([len(text.current) >= options.max_tokens for text in texts], device=scores.device)
    if options.temperature == 0:
        chosen = scores.argmax(dim=-1)
    else:
        # One number for each text, which depends on the text alone.
        uniform = torch.cat(
            [
                StepRandom(options.seed, length).uniform("token", torch.tensor([text.id], device=scores.device))
                for text, length in zip(texts, lengths, strict=True)
            ]
        )
        chosen = draw(scores, SamplingOptions(options.temperature, options.top_k, options.top_p), uniform)
    return chosen.masked_fill(full, END)


def check_tokenizer(model: TokenLM, tokenizer: TextTokenizer) -> None:
    """Complain about a tokenizer that cannot be the one the model was trained with.

    Raises:
        ConfigError: another number of tokens than the model's vocabulary has.
    """
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            "the tokenizer is not the model's",
            where="tokenizer",
            expected=f"{model.config.vocab_size} tokens",
            got=tokenizer.vocab_size,
            hint="use the tokenizer of the codec the model was trained with",
        )


def _padded(rows: Sequence[Sequence[int]], model: TokenLM) -> tuple[Tensor, list[int]]:
    """Return (B, T) tokens on the model's device, padded on the right, and the lengths."""
    lengths = [len(row) for row in rows]
    padded = [[*row, *[PAD] * (max(lengths) - len(row))] for row in rows]
    return torch.tensor(padded, device=model.embedding.weight.device), lengths


def _within(ends: Sequence[int], budget: int, room: int) -> Iterator[list[int]]:
    """Cut places, whose contexts grow, into groups whose padded contexts fit into the budget."""
    current: list[int] = []
    for place, end in enumerate(ends):
        if current and (end + room) * (len(current) + 1) > budget:
            yield current
            current = []
        current.append(place)
    if current:
        yield current
