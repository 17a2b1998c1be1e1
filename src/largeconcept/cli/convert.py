"""``largeconcept convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import echo, log


def meta_lcm(
    checkpoint: Annotated[str, typer.Argument(help="A .pt or .safetensors file.")],
    config: Annotated[
        str,
        typer.Option("--config", help="JSON or YAML file of Meta's configuration, or the name of an architecture."),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder to write: model, normalizer, dead.safetensors.")],
    fourier: Annotated[
        bool, typer.Option("--fourier", help="The checkpoint's normalizer works on the Fourier transform.")
    ] = False,
) -> None:
    """Turn a checkpoint of Meta's LCM into a saved model.

    Covers the Base-LCM and the two-tower diffusion model. Weights without effect (queries and keys of the denoiser's
    self-attention over a single position) are not in the model but kept in dead.safetensors.
    """
    from largeconcept.convert.meta_lcm import convert, sampler_options

    found, folder = convert(checkpoint, config, out, fourier=fourier)
    live = sum(parameter.numel() for parameter in found.model.parameters())
    dead = sum(tensor.numel() for tensor in found.dead.values())
    kept = f" and {dead:,} without effect ({len(found.dead)} tensors in dead.safetensors)" if dead else ""
    echo(f"{folder / 'model'}: {found.model.config.type}, {live:,} parameters{kept}")
    if found.normalizer is None:
        log("the checkpoint holds no normalizer: fit one with largeconcept normalizer fit")
    else:
        echo(f"{folder / 'normalizer'}: {found.normalizer.dim} channels")
    options = " ".join(f"-o {key}={value}" for key, value in sampler_options(found.config).items())
    if options:
        log(f"to generate as Meta's configuration says: {options}")


def meta_lcm_export(
    folder: Annotated[str, typer.Argument(help="A converted model or a training run: a folder that holds model.")],
    out: Annotated[str, typer.Argument(help="File to write, .pt or .safetensors; its configuration ends in .json.")],
) -> None:
    """Write a model in the layout of Meta's LCM.

    Dead weights are taken from the folder's dead.safetensors; if there is none, they are drawn, and named.
    """
    from pathlib import Path

    from largeconcept.convert.meta_lcm import export

    weights, drawn = export(folder, out)
    size = sum(tensor.numel() for tensor in weights.values())
    echo(f"{out}: {len(weights)} tensors, {size:,} numbers; configuration {Path(out).with_suffix('.json')}")
    if drawn:
        log(f"{len(drawn)} dead weights were drawn, as none were kept: {', '.join(drawn)}")
