"""``largeconcept demo``: the whole path on the sample corpus."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from largeconcept.cli.common import progress


class Terminal:
    """Tells on standard output, with rich where it is a terminal; a reporter of the demo and of the chain."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(width=None if sys.stdout.isatty() else 110, highlight=False, soft_wrap=False)

    def section(self, title: str) -> None:
        """Begin a part."""
        self._console.print()
        self._console.rule(title, align="left")

    def line(self, text: str = "") -> None:
        """Say something."""
        self._console.print(text, markup=False)

    def show(self, renderable: Any) -> None:
        """Show a table."""
        self._console.print(renderable)

    def progress(self, what: str) -> AbstractContextManager[Callable[..., None]]:
        """Give a function that tells how far a piece of work is."""
        return progress(what)


def demo(
    out: Annotated[str, typer.Option("--out", help="Folder for everything that is made.")] = "runs/demo",
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec", "-c", help="Train on it: starter, the folder of a codec, or scratch to train one, too."
        ),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Show this pipeline. Default: the one that ships.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Folder with train/ and test/; default: the sample.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps of each model.")] = None,
    codec_steps: Annotated[
        int | None, typer.Option("--codec-steps", min=1, help="Steps of a codec from scratch.")
    ] = None,
) -> None:
    """Show what the shipped model can do, or run the whole path.

    The whole path, which runs without a shipped model or with --codec, is that of the sample corpus: concepts, two
    models, figures and text, in about five minutes on two cores. A run that was stopped goes on where it was.
    """
    from largeconcept.errors import ConfigError
    from largeconcept.hub import shipped_pipeline

    training = any(value is not None for value in (codec, corpus, steps, codec_steps))
    if training and pipeline is not None:
        raise ConfigError("a pipeline is shown, not trained", where="--pipeline", hint="leave out the other options")
    if not training and (pipeline is not None or shipped_pipeline() is not None):
        _show(pipeline)
        return
    from largeconcept.demo import run_demo

    run_demo(out, Terminal(), codec=codec or "starter", corpus=corpus, steps=steps, codec_steps=codec_steps)


def _show(path: str | None) -> None:
    """Open a pipeline and let it write."""
    import time

    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.generate.tour import tour

    began = time.monotonic()
    pipeline = ConceptPipeline.from_pretrained(path)
    terminal = Terminal()
    size = sum(parameter.numel() for parameter in pipeline.model.parameters())
    terminal.line(
        f"{pipeline.card.title or path or 'the shipped pipeline'}: {size / 1e6:.1f} M parameters, writes "
        f"{', '.join(pipeline.codec.languages)}; opened in {time.monotonic() - began:.1f} seconds"
    )
    tour(pipeline, terminal)
    terminal.line("Go on with, for example:")
    option = "" if path is None else f" --pipeline {path}"
    terminal.line(f"  largeconcept summarize{option} FILE --lang de")
