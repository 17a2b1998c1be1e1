"""How well a model predicts the next concept of held-out documents, beside two baselines that need no model.

Metrics of the LCM paper (arXiv:2412.08821, section 2.4.2), in the codec's space, over all concepts but the first of a
document:

* ``l2``: Euclidean distance between prediction and truth. A regression minimises it; a sample of a generative model is
  rightly farther away than the mean of what could follow, so it never selects a model.
* ``contrastive_accuracy``: share of concepts of *other* documents that are farther from the prediction than the truth
  is. Chance is 0.5.

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

from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import predict_teacher_forced
from largeconcept.generate.options import GenerationOptions

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.data.reader import ConceptDataset

METRICS = ("l2", "contrastive_accuracy")
Predict = Callable[[Tensor, Tensor, list[int]], Tensor]
"""``predict(x, lengths, sample_ids)``: normalised (B, S, C) windows to (B, S, C) normalised predictions, entry i for
concept i given those before it."""


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
        table.add_column("l2 (lower is better)", justify="right")
        table.add_column("contrastive accuracy (higher)", justify="right")
        for name, group in self.scores.items():
            table.add_row(name.replace("_", " "), *(str(group[metric]) for metric in METRICS))
        for name, group in self.differences.items():
            table.add_row(f"model − {name.replace('_', ' ')}", *(str(group[metric]) for metric in METRICS), style="dim")
        return table


def evaluate_next_concept(
    model: nn.Module,
    documents: Iterable[Any],
    normalizer: ConceptNormalizer,
    *,
    training_mean: Tensor | None = None,
    options: GenerationOptions | None = None,
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
            space.
        normalizer: of the model.
        training_mean: (C,) mean concept of the *training* data, for the baseline of that name; left out without it.
        options: sampler settings of a diffusion model; the defaults of generation, with ``seed``, when ``None``.
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

    def predict(x: Tensor, lengths: Tensor, sample_ids: list[int]) -> Tensor:
        return predict_teacher_forced(model, x, lengths, settings, sample_ids=sample_ids)

    return score_next_concept(
        predict,
        documents,
        normalizer,
        training_mean=training_mean,
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
    texts = list(islice(_usable(documents, dim), limit))
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
        (owner, start, text[start : start + max_length])
        for owner, text in enumerate(texts)
        for start in range(0, len(text) - 1, max_length)
        if len(text) - start >= 2
    ]
    distractors, owners = _pool(texts, pool, seed)
    if bool((owners == owners[0]).all()):
        raise ConfigError("the pool holds concepts of one document only", where="pool", got=pool, hint="raise it")
    center = distractors.mean(dim=0)  # distances do not change with it, rounding errors do
    distractors = distractors - center

    rows: dict[str, list[tuple[int, Tensor]]] = {}
    for place, predicted in _predictions(predict, windows, normalizer, batch_concepts, progress):
        owner, _, text = windows[place]
        truth, others = text[1:], distractors[owners != owner]
        guesses = {"model": predicted[1:], "copy_last": text[:-1]}
        if training_mean is not None:
            guesses["training_mean"] = training_mean.detach().float().cpu().expand_as(truth)
        for name, guess in guesses.items():
            accuracy = contrastive_accuracy(guess - center, truth - center, others)
            values = torch.stack([(guess - truth).double().norm(dim=-1), accuracy])
            rows.setdefault(name, []).append((owner, values.sum(dim=1)))
    counts = np.zeros(len(texts))
    for owner, _, text in windows:
        counts[owner] += len(text) - 1
    sums = {name: _by_document(found, len(texts)) for name, found in rows.items()}
    scores, differences = _estimates(sums, counts, seed, num_bootstrap)
    return NextConceptReport(scores, differences, len(texts), int(counts.sum()), len(distractors))


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


def _usable(documents: Iterable[Any], dim: int) -> Iterator[Tensor]:
    """Yield (S, C) float32 tensors of the documents that have something to predict."""
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
        if len(concepts) >= 2:
            yield concepts.detach().float().cpu()


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
    windows: list[tuple[int, int, Tensor]],
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


def _by_document(found: list[tuple[int, Tensor]], number: int) -> np.ndarray:
    """Add up the (metrics,) sums of windows: (documents, metrics)."""
    sums = np.zeros((number, len(METRICS)))
    for owner, values in found:
        sums[owner] += values.numpy()
    return sums


def _estimates(
    sums: dict[str, np.ndarray], counts: np.ndarray, seed: int, number: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """Means of all predictors, differences of the model to the baselines, and intervals by resampling documents."""
    documents = len(counts)
    draws = np.random.default_rng((seed, 1)).multinomial(documents, np.full(documents, 1 / documents), size=number)
    means = {name: values.sum(axis=0) / counts.sum() for name, values in sums.items()}
    resampled = {name: (draws @ values) / (draws @ counts)[:, None] for name, values in sums.items()}

    def estimate(mean: np.ndarray, samples: np.ndarray) -> dict[str, Estimate]:
        low, high = np.quantile(samples, [0.025, 0.975], axis=0)
        return {m: Estimate(float(mean[i]), float(low[i]), float(high[i])) for i, m in enumerate(METRICS)}

    scores = {name: estimate(means[name], resampled[name]) for name in sums}
    differences = {
        name: estimate(means["model"] - means[name], resampled["model"] - resampled[name])
        for name in sums
        if name != "model"
    }
    return scores, differences
