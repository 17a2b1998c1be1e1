"""How well a model predicts the next concept of held-out documents, beside baselines that need no model or another one.

Metrics of the LCM paper (arXiv:2412.08821, section 2.4.2), in the codec's space, over all concepts but the first of a
document:

* ``l2``: Euclidean distance between prediction and truth. A regression minimises it; a sample of a generative model is
  rightly farther away than the mean of what could follow, so it never selects a model.
* ``contrastive_accuracy``: share of concepts of *other* documents that are farther from the prediction than the truth
  is. Chance is 0.5. The distractors come from one fixed pool, so the figure does not depend on any batch.
* ``contrastive_accuracy_in_batch``: the paper's definition. Distractors are the concepts of the same batch of
  documents, the truth and its two neighbours left out; the rest of the same document counts. Documents are put into
  batches in their order, whatever is computed together.
* ``paraphrase`` (PAR): the greatest cosine of a prediction to a concept before it, over the same for the truth; above 1
  the model repeats the text more than its author does.
* ``round_trip_l2`` (with a codec): as ``l2``, of the prediction after it was decoded to text and encoded again. Close
  to ``l2`` when predictions lie where the decoder can read them.
* ``mutual_information`` (with a codec and a causal language model): by how many nats a token of the decoded prediction
  becomes likelier when the language model has read up to ten true sentences before it; longer sentences weigh more.

Shape letters: B windows, S concepts, C concept dimension, N predictions, M concepts in the pool of distractors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from largeconcept.data.reader import ConceptDataset
from largeconcept.data.sequences import planned_documents
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.baselines import Constant, Guess, Guessed, copy_last
from largeconcept.eval.held_out import HeldOut, Window
from largeconcept.eval.metrics.concepts import contrastive_accuracy, nearest_context
from largeconcept.eval.metrics.likelihood import CONTEXT_SENTENCES, mutual_informations
from largeconcept.eval.next_concept_report import DIRECTIONS, METRICS, NextConceptReport, Sums
from largeconcept.eval.statistics import Estimate
from largeconcept.generate.loop import predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.models.planning import PlanningConceptModel

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.eval.metrics.likelihood import CausalLM
    from largeconcept.types import ConceptCodec

TOGETHER = 256
"""Predictions that are written as text together; a decoder takes little longer for many than for few."""
EMPTY = "."
"""Read instead of a sentence without anything printable, which has no concept."""
Predict = Callable[[Tensor, Tensor, list[int]], Tensor]
"""``predict(x, lengths, sample_ids)``: normalised (B, S, C) windows to (B, S, C) normalised predictions, entry i for
concept i given those before it."""
RoundTrip = Callable[[Tensor, list[str | None]], Tensor]
"""``round_trip(concepts, languages)``: (N, C) concepts, written in these languages and read again."""


def evaluate_next_concept(
    model: nn.Module,
    documents: Iterable[Any],
    normalizer: ConceptNormalizer,
    *,
    training_mean: Tensor | None = None,
    baselines: Mapping[str, Guess] | None = None,
    options: GenerationOptions | None = None,
    round_trip: RoundTrip | None = None,
    language_model: CausalLM | None = None,
    self_judged: Collection[str] = (),
    limit: int | None = None,
    seed: int = 0,
    pool: int = 4096,
    contrastive_batch: int = 1024,
    max_length: int = 128,
    batch_concepts: int = 2048,
    num_bootstrap: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> NextConceptReport:
    """Predict every concept but the first of each document from those before it, and score the predictions.

    Args:
        model: a model of any family.
        documents: a dataset, or anything that yields (S, C) tensors or objects with such ``concepts``, in the codec's
            space. Where these have a boolean (S,) ``scored``, only the concepts so marked are scored, and serve as
            distractors. A planning model reads a dataset with plans as it was trained to, and is scored by the
            sentences of paragraphs alone: neither plans nor breaks count.
        normalizer: of the model.
        training_mean: (C,) mean concept of the *training* data, for the baseline of that name; left out without it.
        baselines: more predictors by name, see :mod:`largeconcept.eval.baselines`.
        options: sampler settings of a diffusion model; the defaults of generation, with ``seed``, when ``None``.
        round_trip: writes and reads concepts again, for ``round_trip_l2`` and, as it also gives the text between,
            for ``mutual_information``; see :func:`through_text`.
        language_model: judge of ``mutual_information``; needs a ``round_trip`` of :func:`through_text` and documents
            with sentences.
        self_judged: names of predictors that are the judge, of which it says nothing.
        limit: use at most this many documents that have something to predict, drawn with ``seed``.
        seed: of the pool and of the bootstrap.
        pool: most concepts to take distractors from; drawn at random from all documents.
        contrastive_batch: concepts that documents are gathered up to for the contrastive accuracy in a batch, at least
            two documents.
        max_length: longer documents are cut into windows of this many concepts, each starting without context, as in
            training.
        batch_concepts: most concepts in a batch, padding included.
        num_bootstrap: number of resamplings of documents.
        progress: called with (predicted concepts so far, all concepts to predict).

    Raises:
        DataError: fewer than two documents with at least two concepts, another dimension, or values that are not
            finite; no sentences where they are needed.
        ConfigError: a setting out of range, sampler settings that do not fit the model, or a language model without
            a round trip that gives text.
    """
    settings = options if options is not None else GenerationOptions(seed=seed)
    if isinstance(model, PlanningConceptModel) and isinstance(documents, ConceptDataset) and documents.planned:
        documents = planned_documents(documents)

    def predict(x: Tensor, lengths: Tensor, sample_ids: list[int]) -> Tensor:
        return predict_teacher_forced(model, x, lengths, settings, sample_ids=sample_ids)

    return score_next_concept(
        predict,
        documents,
        normalizer,
        training_mean=training_mean,
        baselines=baselines,
        round_trip=round_trip,
        language_model=language_model,
        self_judged=self_judged,
        limit=limit,
        seed=seed,
        pool=pool,
        contrastive_batch=contrastive_batch,
        max_length=max_length,
        batch_concepts=batch_concepts,
        num_bootstrap=num_bootstrap,
        progress=progress,
    )


def mean_concept(dataset: ConceptDataset) -> Tensor:
    """Return the (C,) mean of all concepts of a dataset: the baseline ``training_mean``."""
    total = torch.zeros(dataset.dim, dtype=torch.float64)
    count = 0
    for group in range(len(dataset.row_groups)):
        concepts = dataset.vectors(group, targets=False).concepts
        total += torch.from_numpy(concepts.astype("float64").sum(axis=0))
        count += len(concepts)
    return (total / max(count, 1)).float()


@torch.no_grad()
def score_next_concept(
    predict: Predict,
    documents: Iterable[Any] | HeldOut,
    normalizer: ConceptNormalizer,
    *,
    training_mean: Tensor | None = None,
    baselines: Mapping[str, Guess] | None = None,
    alone: bool = False,
    round_trip: RoundTrip | None = None,
    language_model: CausalLM | None = None,
    self_judged: Collection[str] = (),
    limit: int | None = None,
    seed: int = 0,
    pool: int = 4096,
    contrastive_batch: int = 1024,
    max_length: int = 128,
    batch_concepts: int = 2048,
    num_bootstrap: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> NextConceptReport:
    """Score any predictor; see :func:`evaluate_next_concept`.

    Args:
        documents: also :class:`~largeconcept.eval.held_out.HeldOut`, which was made before; ``limit``, ``pool``,
            ``contrastive_batch`` and ``max_length`` are then its own.
        alone: leave ``copy_last`` out.
    """
    for name, value in (("batch_concepts", batch_concepts), ("num_bootstrap", num_bootstrap)):
        if value < 1:
            raise ConfigError("out of range", where=name, got=value, expected="at least 1")
    writer = round_trip if isinstance(round_trip, TextRoundTrip) else None
    if language_model is not None and writer is None:
        raise ConfigError("mutual information needs text", where="round_trip", expected="one of through_text(codec)")
    dim = normalizer.dim
    if isinstance(documents, HeldOut):
        data = documents
    else:
        data = HeldOut.of(
            documents,
            dim,
            limit=limit,
            seed=seed,
            pool=pool,
            contrastive_batch=contrastive_batch,
            max_length=max_length,
        )
    if training_mean is not None and training_mean.shape != (dim,):
        raise DataError("wrong shape", where="training_mean", expected=(dim,), got=tuple(training_mean.shape))
    windows, fixed = data.windows, data.pool
    guesses: dict[str, Guess] = {} if alone else {"copy_last": copy_last}
    if training_mean is not None:
        guesses["training_mean"] = Constant(training_mean)
    guesses |= baselines or {}
    found = Sums(len(data.documents))
    number = 0
    waiting: list[tuple[Window, Mapping[str, Guessed]]] = []
    for index, predicted in _predictions(predict, windows, normalizer, batch_concepts, progress):
        window = windows[index]
        text, owner, judged = window.concepts, window.owner, window.scored[1:]
        truth = text[1:][judged]
        number += len(truth)
        guessed = {"model": Guessed(predicted[1:])} | {name: guess(window) for name, guess in guesses.items()}
        for name, guess in guessed.items():
            here = guess.concepts[judged]
            add = partial(found.add, name, owner)
            add("l2", (here - truth).double().norm(dim=-1))
            add("contrastive_accuracy", fixed.accuracy(here, truth, fixed.owners == owner))
            in_batch = data.batches[owner].accuracy(here, truth, data.excluded[index])
            add("contrastive_accuracy_in_batch", in_batch)
            add("paraphrase", nearest_context(guess.concepts, text)[judged], float(data.nearest[index].sum()))
            if round_trip is not None and writer is None and name == "model" and len(here):
                again = round_trip(here, [window.lang] * len(here))
                add("round_trip_l2", (again - truth).double().norm(dim=-1))
        if writer is not None and len(truth):
            waiting.append((window, guessed))
            if sum(len(one.concepts) for one, _ in waiting) >= TOGETHER:
                _score_texts(found, waiting, writer, language_model, self_judged)
                waiting = []
    if writer is not None and waiting:
        _score_texts(found, waiting, writer, language_model, self_judged)
    return found.report(number, len(fixed.owners), seed, num_bootstrap)


def _score_texts(
    found: Sums,
    waiting: Sequence[tuple[Window, Mapping[str, Guessed]]],
    writer: TextRoundTrip,
    language_model: CausalLM | None,
    self_judged: Collection[str],
) -> None:
    """Add what is measured on the text of predictions: round-trip l2 of the model, mutual information of all."""
    windows = [window for window, _ in waiting]
    judged = [window.scored[1:] for window in windows]
    sizes = [int(one.sum()) for one in judged]
    languages = [window.lang for window, size in zip(windows, sizes, strict=True) for _ in range(size)]
    names = [name for name in waiting[0][1] if name not in self_judged] if language_model is not None else []
    names = list(dict.fromkeys(["model", *names]))
    written = {name: _texts([guessed[name] for _, guessed in waiting], judged, writer, languages) for name in names}
    again = writer.read([text if text.strip() else EMPTY for text in written["model"]], languages)
    for window, one, part in zip(windows, judged, torch.split(again, sizes), strict=True):
        found.add("model", window.owner, "round_trip_l2", (part - window.concepts[1:][one]).double().norm(dim=-1))
    if language_model is None:
        return
    contexts = [context for window, one in zip(windows, judged, strict=True) for context in _contexts(window, one)]
    written["truth"] = [
        text
        for window, one in zip(windows, judged, strict=True)
        for text, counts in zip((window.sentences or ())[1:], one.tolist(), strict=True)
        if counts
    ]
    if "model" in self_judged:
        del written["model"]
    for name, information in mutual_informations(language_model, written, contexts).items():
        parts = zip(torch.split(information.gains, sizes), torch.split(information.tokens, sizes), strict=True)
        for window, (gains, tokens) in zip(windows, parts, strict=True):
            found.add(name, window.owner, "mutual_information", gains, float(tokens.sum()))


class TextRoundTrip:
    """Concepts to text and back: greedy decoding in the text's own language, then encoding.

    Args:
        codec: the concepts' codec.
        default_language: what texts without a language, or in one that the codec cannot write, are written in; the
            codec's first one by default.
    """

    def __init__(self, codec: ConceptCodec, default_language: str | None = None) -> None:
        self.codec = codec
        self.default_language = default_language if default_language is not None else codec.languages[0]

    def __call__(self, concepts: Tensor, languages: list[str | None]) -> Tensor:
        """Return (N, C) float32 concepts of what is written from (N, C) concepts in N languages."""
        return self.read(self.write(concepts, languages), languages)

    def write(self, concepts: Tensor, languages: list[str | None]) -> list[str]:
        """Return N sentences for (N, C) concepts."""
        return self.codec.decode(concepts, self._known(languages), method="greedy")

    def read(self, sentences: list[str], languages: list[str | None]) -> Tensor:
        """Return (N, C) concepts of N sentences, on the CPU."""
        encoded: Tensor = self.codec.encode(sentences, self._known(languages))
        return encoded.cpu()

    def _known(self, languages: list[str | None]) -> list[str]:
        return [lang if lang in self.codec.languages else self.default_language for lang in languages]


def through_text(codec: ConceptCodec, default_language: str | None = None) -> TextRoundTrip:
    """Return a round trip through a codec; see :class:`TextRoundTrip`."""
    return TextRoundTrip(codec, default_language)


def _texts(
    guessed: Sequence[Guessed], judged: Sequence[Tensor], writer: TextRoundTrip, languages: list[str | None]
) -> list[str]:
    """Return the text of the judged guesses: the predictor's own, or what the codec writes."""
    texts: list[str | None] = []
    concepts: list[Tensor] = []
    for guess, one in zip(guessed, judged, strict=True):
        if guess.sentences is not None:
            texts += [text for text, counts in zip(guess.sentences, one.tolist(), strict=True) if counts]
        else:
            texts += [None] * int(one.sum())
            concepts.append(guess.concepts[one])
    if not concepts:
        return [text for text in texts if text is not None]
    rows = torch.cat(concepts)
    known = [lang for text, lang in zip(texts, languages, strict=True) if text is None]
    if bool((rows == rows[0]).all()):  # a constant is written once in each language
        different = list(dict.fromkeys(known))
        once = dict(zip(different, writer.write(rows[:1].expand(len(different), -1), different), strict=True))
        fresh = iter([once[lang] for lang in known])
    else:
        fresh = iter(writer.write(rows, known))
    return [next(fresh) if text is None else text for text in texts]


def _contexts(window: Window, judged: Tensor) -> list[Sequence[str]]:
    """Return for every judged concept the true sentences of the document before it, as many as are looked at."""
    if window.sentences is None:
        raise DataError("mutual information needs sentences", where=f"document {window.owner}")
    text = [*window.before, *window.sentences]
    ends = [len(window.before) + i for i, counts in enumerate(judged.tolist(), start=1) if counts]
    return [text[max(end - CONTEXT_SENTENCES, 0) : end] for end in ends]


def _predictions(
    predict: Predict,
    windows: Sequence[Window],
    normalizer: ConceptNormalizer,
    batch_concepts: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (index of the window, (S, C) float32 predictions in the codec's space), longest windows first."""
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i].concepts))
    total, done = sum(len(window.concepts) - 1 for window in windows), 0
    while order:
        size = max(batch_concepts // len(windows[order[0]].concepts), 1)
        places, order = order[:size], order[size:]
        batch = [windows[place].concepts for place in places]
        padded = pad_sequence(batch, batch_first=True).to(normalizer.center.device)
        lengths = torch.tensor([len(x) for x in batch])
        predicted = predict(normalizer.normalize(padded), lengths, places)
        predicted = normalizer.denormalize(predicted.to(normalizer.center.device)).cpu()
        done += int(lengths.sum()) - len(batch)
        for row, place in enumerate(places):
            yield place, predicted[row, : len(batch[row])]
        if progress is not None:
            progress(done, total)


__all__ = [
    "DIRECTIONS",
    "METRICS",
    "Estimate",
    "NextConceptReport",
    "TextRoundTrip",
    "contrastive_accuracy",
    "evaluate_next_concept",
    "mean_concept",
    "nearest_context",
    "score_next_concept",
    "through_text",
]
