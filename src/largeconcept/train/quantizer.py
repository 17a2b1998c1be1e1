"""Where a quantised model's codebooks come from, and the folder that keeps them for others.

A saved quantizer is a folder ``config.json`` + ``model.safetensors`` with a ``normalizer/`` inside: codebooks mean
nothing without the normalised space that they were fitted in. A run leaves one in ``quantizer/``.

Shape letters: N concepts, C concept dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError
from largeconcept.io import require_folder
from largeconcept.models.quantized import QuantizedConceptModel
from largeconcept.nn.residual_vq import ResidualVectorQuantizer
from largeconcept.train.setup import concept_stream
from largeconcept.train.start import NORMALIZER_FOLDER

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.data.reader import ConceptDataset
    from largeconcept.train.config import RunConfig
    from largeconcept.train.parallel import Parallel

QUANTIZER_FOLDER = "quantizer"


def sample_concepts(
    datasets: list[ConceptDataset],
    weights: list[float],
    normalizer: ConceptNormalizer,
    max_samples: int,
    seed: int = 0,
) -> Tensor:
    """Return about ``max_samples`` normalised concepts (N, C) of a mixture, each drawn alike, on the CPU; all of a
    smaller one."""
    generator = torch.Generator().manual_seed(seed)
    share, place = max_samples / max(sum(dataset.num_concepts for dataset in datasets), 1), normalizer.center.device
    kept = []
    for part in concept_stream(datasets, weights, max_samples):
        if share < 1.0 and len(datasets) == 1:  # a stream of several is as long as it shall be
            part = part[torch.rand(len(part), generator=generator) < share]
        kept.append(normalizer.normalize(part.to(place)).cpu())
    return torch.cat(kept)


def save_quantizer(quantizer: ResidualVectorQuantizer, normalizer: ConceptNormalizer, folder: str | Path) -> None:
    """Write a quantizer and the normalizer of its space."""
    normalizer.save_pretrained(Path(folder) / NORMALIZER_FOLDER)
    quantizer.save_pretrained(folder)


class SpaceQuantizer:
    """Quantises concepts in a codec's own space.

    Args:
        quantizer: of normalised concepts.
        normalizer: of its space.
    """

    def __init__(self, quantizer: ResidualVectorQuantizer, normalizer: ConceptNormalizer) -> None:
        self.quantizer = quantizer
        self.normalizer = normalizer

    @property
    def num_quantizers(self) -> int:
        """Q, the number of codebooks."""
        return self.quantizer.config.num_quantizers

    @property
    def dim(self) -> int:
        """C."""
        return self.normalizer.dim

    @torch.no_grad()
    def __call__(self, concepts: Tensor, num_quantizers: int | Tensor | None = None) -> Tensor:
        """Return (N, C) float32 sums of centroids for (N, C) concepts, of the first ``num_quantizers`` codebooks."""
        indices = self.quantizer.search(self.normalizer.normalize(concepts))
        return self.normalizer.denormalize(self.quantizer.sum(indices, num_quantizers))


def load_quantizer(folder: str | Path) -> tuple[ResidualVectorQuantizer, ConceptNormalizer]:
    """Read what :func:`save_quantizer` wrote.

    Raises:
        CheckpointError: files are missing or damaged.
        ConfigError: a configuration describes something else.
    """
    path = require_folder(folder, "quantizer")
    return ResidualVectorQuantizer.from_pretrained(path), ConceptNormalizer.from_pretrained(path / NORMALIZER_FOLDER)


def prepare_codebooks(
    config: RunConfig,
    model: nn.Module,
    datasets: list[ConceptDataset],
    normalizer: ConceptNormalizer,
    out: Path,
    parallel: Parallel,
    resumed: bool,
) -> None:
    """Give a quantised model its codebooks and leave them in ``out/quantizer``; do nothing to other models.

    Only the main process does this: the others get its codebooks together with its first weights. A resumed run has
    them in its checkpoint, and a model that training starts from has its own.

    Raises:
        ConfigError: a quantizer for a model without codebooks, of other sizes, or of another normalised space.
        CheckpointError: the saved quantizer cannot be read.
        DataError: too few concepts for the codebooks.
    """
    if not isinstance(model, QuantizedConceptModel):
        if config.quantizer != "fit":
            raise ConfigError("this model has no codebooks", where="quantizer", got=config.quantizer, expected="fit")
        return
    if resumed or not parallel.is_main:
        return
    if config.quantizer != "fit":
        quantizer, own = load_quantizer(config.quantizer)
        if own.config.fft != normalizer.config.fft or not (
            _same(own.center, normalizer.center) and _same(own.scale, normalizer.scale)
        ):
            raise ConfigError(
                "the quantizer was fitted in another normalised space than the run's",
                where=f"quantizer: {config.quantizer}",
                hint=f"set normalizer={Path(config.quantizer) / NORMALIZER_FOLDER}",
            )
        model.set_codebooks(quantizer)
    weights, seed = [float(source.weight) for source in config.data.sources], config.train.seed
    model.prepare(lambda number: sample_concepts(datasets, weights, normalizer, number, seed), seed)
    save_quantizer(model.quantizer, normalizer, out / QUANTIZER_FOLDER)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.cpu(), other.cpu(), rtol=1e-5, atol=1e-7)
