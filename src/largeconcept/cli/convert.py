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


def sonar(
    out: Annotated[str, typer.Option("--out", help="Folder to write; a codec that --codec FOLDER loads.")],
    place: Annotated[
        str | None,
        typer.Argument(help="A folder with SONAR's files, of Meta or Hugging Face, or an id on the hub (org/name)."),
    ] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="The text encoder: file, folder or id.")] = None,
    decoder: Annotated[str | None, typer.Option("--decoder", help="The text decoder: file, folder or id.")] = None,
    spm: Annotated[str | None, typer.Option("--spm", help="The SentencePiece file.")] = None,
    speech: Annotated[
        list[str] | None, typer.Option("--speech", metavar="LANG=FILE", help="A speech encoder; may be repeated.")
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Type to store the weights in: auto, float32, bfloat16 or float16.")
    ] = "auto",
    heads: Annotated[
        int | None,
        typer.Option("--heads", min=1, help="Attention heads of networks of another than the released size."),
    ] = None,
) -> None:
    """Turn SONAR's published weights into a codec of our own.

    Reads Meta's .pt files in both layouts and models of Hugging Face; writes safetensors, the licence, and a
    fingerprint of the concept space, which a copy in 16 bits keeps.
    """
    from typing import cast

    from largeconcept.codec.sonar.files import Dtype
    from largeconcept.convert.sonar import convert
    from largeconcept.errors import ConfigError

    heard = {}
    for one in speech or ():
        lang, equals, file = one.partition("=")
        if not equals or not lang or not file:
            raise ConfigError(
                "not a speech encoder", where="--speech", got=one, expected="LANG=FILE, as eng=spenc.eng.pt"
            )
        if lang in heard:
            raise ConfigError("two speech encoders for one language", where="--speech", got=lang)
        heard[lang] = file
    config = convert(
        out,
        place,
        encoder=encoder,
        decoder=decoder,
        spm=spm,
        speech=heard,
        dtype=cast(Dtype, dtype),
        num_heads=heads,
    )
    for half, known in config["stored"].items():
        sizes = config[half]
        echo(f"{out}: {half}, {sizes['num_layers']} layers of width {sizes['width']}, {known['dtype']}")
    for code, known in config["speech"].items():
        echo(f"{out}: speech encoder for {code}, {known['licence']}")
    if config["space"] is not None:
        echo(f"{out}: concept space {config['space']}")


def sonar_export(
    folder: Annotated[str, typer.Argument(help="A converted SONAR.")],
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    layout: Annotated[
        str, typer.Option("--layout", help="fairseq2 or fairseq, for Meta's code, or huggingface.")
    ] = "fairseq2",
) -> None:
    """Write SONAR's text encoder and decoder in a published layout.

    Unless they were converted to 16 bits, the tensors are exactly the published ones.
    """
    from typing import cast

    from largeconcept.convert.sonar import ExportLayout, export

    for path in export(folder, out, cast(ExportLayout, layout)).values():
        echo(str(path))


def sonar_onnx(
    place: Annotated[str, typer.Argument(help="A converted SONAR, or anything else that --codec sonar:PLACE reads.")],
    out: Annotated[str, typer.Option("--out", help="Folder to write; encode --codec sonar:FOLDER reads it.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the layers' weights: a third of the size.")] = False,
) -> None:
    """Export SONAR's text encoder as an ONNX model, for onnxruntime."""
    from largeconcept.codec.sonar.loading import load_sonar
    from largeconcept.codec.sonar.onnx import export_onnx

    config = export_onnx(load_sonar(place, decoder=False), out, int8=int8)
    echo(f"{out}: encoder of {config['encoder']['num_layers']} layers, {config['weights']}")
    if config["space"] is not None:
        echo(f"{out}: concept space {config['space']}")
