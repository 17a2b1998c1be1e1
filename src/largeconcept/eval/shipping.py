"""What rounding a pipeline to int8 costs: its size, the time to open it, its predictions and its sentences."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.errors import DataError
from largeconcept.hub import folder_size

if TYPE_CHECKING:
    from largeconcept.generate.pipeline import ConceptPipeline

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class ShippingReport:
    """Figures of one pipeline.

    Attributes:
        bytes: of all files.
        seconds: to open it, with everything imported.
        l2, contrastive_accuracy: of its next concepts on held-out documents, in the concepts of the dataset.
        auto_bleu: language -> auto-BLEU of its codec on held-out sentences.
    """

    bytes: int
    seconds: float
    l2: float
    contrastive_accuracy: float
    auto_bleu: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def compare_pipelines(
    pipelines: dict[str, str | Path],
    data: str | Path,
    *,
    split: str = "test",
    limit: int = 200,
    sentences: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, ShippingReport]:
    """Measure pipelines on the same held-out documents and sentences.

    Args:
        pipelines: name -> folder; of one concept space.
        data: a concept dataset of that space.
        split: its held-out split.
        limit: documents for next concepts, drawn with ``seed``.
        sentences: sentences of each language for auto-BLEU.
        seed: of what is drawn, and of the noise of generation.
        progress: called with (done, total, unit).

    Raises:
        DataError: no such data, of another concept space, or no language is known of any document.
        CheckpointError: a pipeline cannot be opened.
    """
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.generate.pipeline import ConceptPipeline

    result = {}
    for name, folder in pipelines.items():
        began = time.perf_counter()
        pipeline = ConceptPipeline.from_pretrained(folder)
        seconds = time.perf_counter() - began
        dataset = ConceptDataset(data, split, fingerprint=pipeline.codec.fingerprint, dim=pipeline.codec.dim)
        l2, accuracy = _next_concepts(pipeline, dataset, limit, seed, name, progress)
        bleu = _auto_bleu(pipeline, dataset, sentences)
        result[name] = ShippingReport(folder_size(folder), seconds, l2, accuracy, bleu)
    return result


def _next_concepts(
    pipeline: ConceptPipeline, dataset: Any, limit: int, seed: int, name: str, progress: Progress | None
) -> tuple[float, float]:
    from largeconcept.eval.next_concept import evaluate_next_concept

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, f"concepts ({name})")

    report = evaluate_next_concept(
        pipeline.model, dataset, pipeline.normalizer, options=pipeline.options, limit=limit, seed=seed, progress=tell
    )
    scores = report.scores["model"]
    return scores["l2"].mean, scores["contrastive_accuracy"].mean


def _auto_bleu(pipeline: ConceptPipeline, dataset: Any, number: int) -> dict[str, float]:
    from largeconcept.codec.metrics import round_trip

    found: dict[str, list[str]] = {}
    for document in dataset:
        if document.lang in pipeline.codec.languages:
            found.setdefault(document.lang, []).extend(document.sentences)
    if not found:
        raise DataError("no document says its language", where=dataset.folder, hint="build the data with lang fields")
    result = {}
    for lang, texts in sorted(found.items()):
        spread = texts[:: max(1, len(texts) // number)][:number]
        result[lang] = round_trip(pipeline.codec, spread, lang).auto_bleu
    return result
