"""``largeconcept normalizer fit``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import echo


def fit(
    data: Annotated[str, typer.Argument(help="Folder of a concept dataset.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the normalizer to write.")],
    split: Annotated[str, typer.Option("--split", help="Name of the split.")] = "train",
    method: Annotated[str, typer.Option("--method", help="robust, standard, meta or none.")] = "robust",
    max_samples: Annotated[int, typer.Option("--max-samples", min=2, help="Concepts the quantiles are taken from.")] = (
        200_000
    ),
    seed: Annotated[int, typer.Option("--seed", help="Of that sample.")] = 0,
) -> None:
    """Fit a normalizer to the concepts of a dataset."""
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.train.setup import fit_normalizer

    dataset = ConceptDataset(data, split)
    normalizer = fit_normalizer([dataset], [1.0], method, max_samples, seed)
    normalizer.save_pretrained(out)
    low, high = normalizer.scale.min().item(), normalizer.scale.max().item()
    echo(f"{out}: {normalizer.dim} channels of {dataset.num_concepts:,} concepts, scale {low:.4g} to {high:.4g}")
