"""``largeconcept demo``: the whole path on the sample corpus."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from largeconcept.cli.common import progress


class _Terminal:
    """Tells on standard output, with rich where it is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(width=None if sys.stdout.isatty() else 110, highlight=False, soft_wrap=False)

    def section(self, title: str) -> None:
        self._console.print()
        self._console.rule(title, align="left")

    def line(self, text: str = "") -> None:
        self._console.print(text, markup=False)

    def show(self, renderable: Any) -> None:
        self._console.print(renderable)

    def progress(self, what: str) -> AbstractContextManager[Callable[..., None]]:
        return progress(what)


def demo(
    out: Annotated[str, typer.Option("--out", help="Folder for everything that is made.")] = "runs/demo",
    codec: Annotated[
        str, typer.Option("--codec", "-c", help="starter, the folder of a codec, or scratch to train a small one.")
    ] = "starter",
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Folder with train/ and test/; default: the sample.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps of each model.")] = None,
    codec_steps: Annotated[
        int | None, typer.Option("--codec-steps", min=1, help="Steps of a codec from scratch.")
    ] = None,
) -> None:
    """Run the whole path on the sample corpus: concepts, two models, figures, and text.

    About five minutes on two cores. A run that was stopped goes on where it was.
    """
    from largeconcept.demo import run_demo

    run_demo(out, _Terminal(), codec=codec, corpus=corpus, steps=steps, codec_steps=codec_steps)
