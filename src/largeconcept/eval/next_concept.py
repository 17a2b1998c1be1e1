"""How well a model predicts the next concept of held-out documents, beside two baselines that need no model.

Metrics of the LCM paper (arXiv:2412.08821, section 2.4.2), in the codec's space, over all concepts but the first of a
document:

* ``l2``: Euclidean distance between prediction and truth. A regression minimises it; a sample of a generative model is
  rightly farther away than the mean of what could follow, so it never selects a model.
* ``contrastive_accuracy``: share of concepts of *other* documents that are farther from the prediction than the truth
  is. Chance is 0.5.
* ``paraphrase`` (PAR): the greatest cosine of a prediction to a concept before it, over the same for the truth; above 1
  the model repeats the text more than its author does.
* ``round_trip_l2`` (with a codec): as ``l2``, of the prediction after it was decoded to text and encoded again. Close
  to ``l2`` when predictions lie where the decoder can read them.

Shape letters: B windows, S concepts, C concept dimension, N predictions, M concepts in the pool of distractors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from largeconcept.data.reader import ConceptDataset
from largeconcept.data.sequences import planned_documents
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.models.planning import PlanningConceptModel

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.types import ConceptCodec

METRICS = {
    "l2": "l2 (lower is better)",
    "contrastive_accuracy": "contrastive accuracy (higher)",
    "paraphrase": "paraphrase",
    "round_trip_l2": "round-trip l2 (lower)",
}
Predict = Callable[[Tensor, Tensor, list[int]], Tensor]
"""``predict(x, lengths, sample_ids)``: normalised (B, S, C) windows to (B, S, C) normalised predictions, entry i for
concept i given those before it."""
RoundTrip = Callable[[Tensor, list[str | None]], Tensor]
"""``round_trip(concepts, languages)``: (N, C) concepts, written in these languages and read again."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over predictions, and its 95 % confidence interval over documents (percentile bootstrap)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class NextConceptReport:
    """What :func:`evaluate_next_concept` found.

    Attributes:
        scores: for ``model``, ``copy_last`` and (if given) ``training_mean``: metric to estimate.
        differences: model minus baseline, for each baseline; documents are resampled together, so an interval that
            does not hold 0 tells the two apart.
        num_documents, num_predictions: what the means are over.
        pool_size: number of concepts that distractors were taken from.
    """

    scores: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]
    num_documents: int
    num_predictions: int
    pool_size: int

    def beats(self, baseline: str, metric: str = "contrastive_accuracy") -> bool:
        """Tell whether the model is better than a baseline by more than the confidence interval."""
        difference = self.differences[baseline][metric]
        return difference.high < 0 if metric == "l2" else difference.low > 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""

        def plain(groups: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
            return {
                name: {metric: {"mean": e.mean, "low": e.low, "high": e.high} for metric, e in group.items()}
                for name, group in groups.items()
            }

        return {
            "num_documents": self.num_documents,
            "num_predictions": self.num_predictions,
            "pool_size": self.pool_size,
            "scores": plain(self.scores),
            "differences": plain(self.differences),
        }

    def table(self, title: str = "Next concept") -> Table:
        """Return a table for a terminal; print it with ``rich``."""
        from rich.table import Table

        caption = f"{self.num_predictions} predictions in {self.num_documents} documents; 95 % intervals"
        table = Table(title=title, caption=caption)
        table.add_column("predictor")
        shown = [metric for metric in METRICS if metric in self.scores["model"]]
        for metric in shown:
            table.add_column(METRICS[metric], justify="right")
        for name, group in self.scores.items():
            table.add_row(name.replace("_", " "), *(str(group.get(metric, "–")) for metric in shown))
        for name, group in self.differences.items():
            table.add_row(
                f"model − {name.replace('_', ' ')}", *(str(group.get(metric, "–")) for metric in shown), style="dim"
            )
        return table


def evaluate_next_concept(
    model: nn.Module,
    documents: Iterable[Any],
    normalizer: ConceptNormalizer,
    *,
    training_mean: Tensor | None = None,
    options: GenerationOptions | None = None,
    round_trip: RoundTrip | None = None,
    limit: int | None = None,
    seed: int = 0,
    pool: int = 4096,
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
        options: sampler settings of a diffusion model; the defaults of generation, with ``seed``, when ``None``.
        round_trip: writes and reads concepts again, for ``round_trip_l2``; see :func:`through_text`.
        limit: use at most this many documents that have something to predict.
        seed: of the pool and of the bootstrap.
        pool: most concepts to take distractors from; drawn at random from all documents.
        max_length: longer documents are cut into windows of this many concepts, each starting without context, as in
            training.
        batch_concepts: most concepts in a batch, padding included.
        num_bootstrap: number of resamplings of documents.
        progress: called with (predicted concepts so far, all concepts to predict).

    Raises:
        DataError: fewer than two documents with at least two concepts, another dimension, or values that are not
            finite.
        ConfigError: a setting out of range, or sampler settings that do not fit the model.
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
        round_trip=round_trip,
        limit=limit,
        seed=seed,
        pool=pool,
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
    documents: Iterable[Any],
    normalizer: ConceptNormalizer,
    *,
    training_mean: Tensor | None = None,
    round_trip: RoundTrip | None = None,
    limit: int | None = None,
    seed: int = 0,
    pool: int = 4096,
    max_length: int = 128,
    batch_concepts: int = 2048,
    num_bootstrap: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> NextConceptReport:
    """Score any predictor; see :func:`evaluate_next_concept`."""
    for name, value, least in (
        ("pool", pool, 1),
        ("max_length", max_length, 2),
        ("batch_concepts", batch_concepts, 1),
        ("num_bootstrap", num_bootstrap, 1),
    ):
        if value < least:
            raise ConfigError("out of range", where=name, got=value, expected=f"at least {least}")
    dim = normalizer.dim
    usable = list(islice(_usable(documents, dim), limit))
    texts = [text for text, _, _ in usable]
    if len(texts) < 2:
        raise DataError(
            "too few documents to evaluate on",
            expected="two or more with at least two concepts each",
            got=f"{len(texts)} such",
            hint="raise the limit or use another split",
        )
    if training_mean is not None and training_mean.shape != (dim,):
        raise DataError("wrong shape", where="training_mean", expected=(dim,), got=tuple(training_mean.shape))
    windows = [
        (owner, scored[start : start + max_length], text[start : start + max_length])
        for owner, (text, scored, _) in enumerate(usable)
        for start in range(0, len(text) - 1, max_length)
        if len(text) - start >= 2
    ]
    distractors, owners = _pool([text[scored] for text, scored, _ in usable], pool, seed)
    if bool((owners == owners[0]).all()):
        raise ConfigError("the pool holds concepts of one document only", where="pool", got=pool, hint="raise it")
    center = distractors.mean(dim=0)  # distances do not change with it, rounding errors do
    distractors = distractors - center

    sums: dict[str, dict[str, np.ndarray]] = {}
    counts = {metric: np.zeros(len(texts)) for metric in METRICS}
    number = 0
    for place, predicted in _predictions(predict, windows, normalizer, batch_concepts, progress):
        owner, scored, text = windows[place]
        judged = scored[1:]
        truth, others = text[1:][judged], distractors[owners != owner]
        number += len(truth)
        guesses = {"model": predicted[1:], "copy_last": text[:-1]}
        if training_mean is not None:
            guesses["training_mean"] = training_mean.detach().float().cpu().expand_as(text[1:])
        nearest = nearest_context(text[1:], text)[judged]
        for name, everywhere in guesses.items():
            guess = everywhere[judged]
            found = {
                "l2": (guess - truth).double().norm(dim=-1),
                "contrastive_accuracy": contrastive_accuracy(guess - center, truth - center, others),
                "paraphrase": nearest_context(everywhere, text)[judged],
            }
            if round_trip is not None and name == "model" and len(guess):
                again = round_trip(guess, [usable[owner][2]] * len(guess))
                found["round_trip_l2"] = (again - truth).double().norm(dim=-1)
            of = sums.setdefault(name, {metric: np.zeros(len(texts)) for metric in found})
            for metric, values in found.items():
                of[metric][owner] += float(values.sum())
        for metric in METRICS:
            counts[metric][owner] += float(nearest.sum()) if metric == "paraphrase" else len(truth)
    scores, differences = _estimates(sums, counts, seed, num_bootstrap)
    return NextConceptReport(scores, differences, len(texts), number, len(distractors))


def through_text(codec: ConceptCodec, default_language: str | None = None) -> RoundTrip:
    """Return a round trip through a codec: greedy decoding in the text's own language, then encoding.

    Args:
        codec: the concepts' codec.
        default_language: what texts without a language, or in one that the codec cannot write, are written in; the
            codec's first one by default.
    """
    fallback = default_language if default_language is not None else codec.languages[0]

    def round_trip(concepts: Tensor, languages: list[str | None]) -> Tensor:
        written = [lang if lang in codec.languages else fallback for lang in languages]
        encoded: Tensor = codec.encode(codec.decode(concepts, written, method="greedy"), written)
        return encoded.cpu()

    return round_trip


def nearest_context(concepts: Tensor, text: Tensor) -> Tensor:
    """Return (n,) float64: the greatest cosine of concept i of (n, C) to the first i + 1 concepts of (n + 1, C).

    Concept i stands in the place of concept i + 1 of the text.
    """
    cosines = _unit(concepts) @ _unit(text[:-1]).T
    hidden = torch.ones_like(cosines, dtype=torch.bool).triu(1)
    return cosines.masked_fill(hidden, -torch.inf).amax(dim=-1)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.double(), dim=-1)


def contrastive_accuracy(predicted: Tensor, truth: Tensor, distractors: Tensor) -> Tensor:
    """Return (N,) float64: the share of (M, C) distractors farther from each (N, C) prediction than its truth is.

    Note: a distractor exactly as far as the truth (usually the same sentence in another document) counts one half, so
    that a prediction without information gets 0.5. The reference takes its distractors from the other documents of a
    batch; here they come from a pool.
    """
    # Squared distances without |prediction|², which all share.
    p, t, d = predicted.double(), truth.double(), distractors.double()
    far = d.square().sum(dim=-1) - 2.0 * p @ d.T
    near = (t.square().sum(dim=-1) - 2.0 * (p * t).sum(dim=-1)).unsqueeze(-1)
    # Equal distances differ by rounding here.
    tolerance = 1e-9 * (p.square().sum(dim=-1) + t.square().sum(dim=-1)).unsqueeze(-1)
    ties = (far - near).abs() <= tolerance
    return ((far > near) & ~ties).double().mean(dim=-1) + 0.5 * ties.double().mean(dim=-1)


def _usable(documents: Iterable[Any], dim: int) -> Iterator[tuple[Tensor, Tensor, str | None]]:
    """Yield (S, C) float32 concepts, which of them are scored, and the language, of documents to predict."""
    for index, document in enumerate(documents):
        concepts = document if isinstance(document, Tensor) else document.concepts
        where = f"document {getattr(document, 'id', index)}"
        if concepts.ndim != 2 or concepts.shape[1] != dim:
            raise DataError(
                "concepts of another dimension",
                where=where,
                expected=f"(S, {dim})",
                got=tuple(concepts.shape),
                hint="the dataset was built with another codec than the model's",
            )
        if not bool(torch.isfinite(concepts).all()):
            raise DataError("a concept is not finite", where=where)
        marked = getattr(document, "scored", None)
        scored = torch.ones(len(concepts), dtype=torch.bool) if marked is None else marked.cpu()
        if bool(scored[1:].any()):
            yield concepts.detach().float().cpu(), scored, getattr(document, "lang", None)


def _pool(texts: list[Tensor], size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw at most ``size`` concepts from all documents: (M, C) float64, and (M,) the documents that they are from."""
    concepts = torch.cat(texts)
    owners = torch.repeat_interleave(torch.tensor([len(text) for text in texts]))
    if len(concepts) > size:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(concepts))[:size])
        concepts, owners = concepts[chosen], owners[chosen]
    return concepts.double(), owners


def _predictions(
    predict: Predict,
    windows: list[tuple[int, Tensor, Tensor]],
    normalizer: ConceptNormalizer,
    batch_concepts: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (index of the window, (S, C) float32 predictions in the codec's space), longest windows first."""
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i][2]))
    total, done = sum(len(window[2]) - 1 for window in windows), 0
    while order:
        size = max(batch_concepts // len(windows[order[0]][2]), 1)
        places, order = order[:size], order[size:]
        batch = [windows[place][2] for place in places]
        padded = pad_sequence(batch, batch_first=True).to(normalizer.center.device)
        lengths = torch.tensor([len(x) for x in batch])
        predicted = predict(normalizer.normalize(padded), lengths, places)
        predicted = normalizer.denormalize(predicted.to(normalizer.center.device)).cpu()
        done += int(lengths.sum()) - len(batch)
        for row, place in enumerate(places):
            yield place, predicted[row, : len(batch[row])]
        if progress is not None:
            progress(done, total)


def _estimates(
    sums: dict[str, dict[str, np.ndarray]], counts: dict[str, np.ndarray], seed: int, number: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """Ratios of sums of all predictors, differences of the model to the baselines, resampling documents."""
    documents = len(counts["l2"])
    draws = np.random.default_rng((seed, 1)).multinomial(documents, np.full(documents, 1 / documents), size=number)
    means: dict[str, dict[str, float]] = {}
    resampled: dict[str, dict[str, np.ndarray]] = {}
    with np.errstate(divide="ignore", invalid="ignore"):  # concepts that are all zero have no direction
        for name, group in sums.items():
            means[name] = {metric: values.sum() / counts[metric].sum() for metric, values in group.items()}
            resampled[name] = {metric: (draws @ values) / (draws @ counts[metric]) for metric, values in group.items()}

    def estimate(mean: float, samples: np.ndarray) -> Estimate:
        low, high = np.quantile(samples, [0.025, 0.975])
        return Estimate(float(mean), float(low), float(high))

    scores = {
        name: {metric: estimate(group[metric], resampled[name][metric]) for metric in group}
        for name, group in means.items()
    }
    differences = {
        name: {
            metric: estimate(
                means["model"][metric] - group[metric], resampled["model"][metric] - resampled[name][metric]
            )
            for metric in group
        }
        for name, group in means.items()
        if name != "model"
    }
    return scores, differences
