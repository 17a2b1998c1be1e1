"""``largeconcept eval report``."""

from __future__ import annotations

from typing import Annotated

import typer

from largeconcept.cli.common import echo
from largeconcept.errors import ConfigError


def report(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of evaluations, sweeps and training runs, or folders of such.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="HTML file to write.")] = "report.html",
    title: Annotated[str, typer.Option("--title", help="Title of the page.")] = "Evaluation report",
    samples: Annotated[int, typer.Option("--samples", min=0, help="Outputs to show side by side in each task.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Draws the samples and the document of the map.")] = 0,
    codec: Annotated[
        str | None, typer.Option("--codec", "-c", help="With --texts: draw the concepts of a text across languages.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--texts", help="JSON-lines files of documents, equal ids in several languages.")
    ] = None,
) -> None:
    """Write one HTML file about evaluations, sweeps and training runs.

    It holds tables with intervals and paired significance, plots, and outputs side by side. The file needs no network
    and runs no script. A folder that is itself no run stands for the runs inside it.
    """
    from largeconcept.eval.report.page import write_report

    if (codec is None) != (not texts):
        missing = "--texts" if codec is not None else "--codec"
        raise ConfigError("--codec and --texts go together: they make the map", where=missing, expected="both or none")
    if codec is None:
        path = write_report(runs, out, title=title, num_samples=samples, seed=seed)
    else:
        from largeconcept.codec import load_codec
        from largeconcept.data.documents import read_documents

        path = write_report(
            runs,
            out,
            title=title,
            codec=load_codec(codec),
            documents=read_documents(texts or []),
            num_samples=samples,
            seed=seed,
        )
    echo(f"{path} ({path.stat().st_size / 1024:,.0f} KiB)")
