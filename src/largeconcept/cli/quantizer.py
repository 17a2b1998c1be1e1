"""``largeconcept quantizer fit``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import echo, table


def fit(
    data: Annotated[str, typer.Argument(help="Folder of a concept dataset.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the quantizer to write.")],
    split: Annotated[str, typer.Option("--split", help="Name of the split.")] = "train",
    codebooks: Annotated[int, typer.Option("--codebooks", min=1, help="Number of codebooks.")] = 64,
    size: Annotated[int, typer.Option("--size", min=2, help="Centroids of a codebook.")] = 8192,
    passes: Annotated[int, typer.Option("--passes", min=0, help="Times to improve them on all concepts.")] = 0,
    beam: Annotated[int, typer.Option("--beam", min=1, help="Width of the search in these passes.")] = 1,
    normalizer: Annotated[
        str, typer.Option("--normalizer", help="robust, standard, meta or none; or the folder of a normalizer.")
    ] = "robust",
    max_samples: Annotated[int, typer.Option("--max-samples", min=2, help="Concepts to fit on, about.")] = 2_000_000,
    seed: Annotated[int, typer.Option("--seed", help="Of sample and fit.")] = 0,
) -> None:
    """Fit residual codebooks to the concepts of a dataset, in normalised space.

    A quantised model takes them with quantizer=OUT normalizer=OUT/normalizer, and a codec's decoder is tuned to write
    from them with: codec train … start=CODEC quantizer=OUT.
    """
    from pathlib import Path

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.nn.residual_vq import ResidualVectorQuantizer
    from largeconcept.train.quantizer import sample_concepts, save_quantizer
    from largeconcept.train.setup import fit_normalizer

    dataset = ConceptDataset(data, split)
    if Path(normalizer).is_dir():
        space = ConceptNormalizer.from_pretrained(normalizer)
    else:
        space = fit_normalizer([dataset], [1.0], normalizer, seed=seed)
    concepts = sample_concepts([dataset], [1.0], space, max_samples, seed)
    found = ResidualVectorQuantizer.fit(concepts, codebooks, size, passes=passes, beam=beam, seed=seed)
    save_quantizer(found, space, out)
    errors = found.errors(concepts[:100_000])
    shown = sorted({1, *(round(codebooks * share) for share in (0.25, 0.5, 0.75, 1.0))} - {0})
    rows = [[str(number), f"{100 * float(errors[number] / errors[0]):.1f} %"] for number in shown]
    for line in table(["codebooks", "squared error left"], rows):
        echo(line)
    echo(f"{out}: {codebooks} × {size} centroids from {len(concepts):,} concepts")
