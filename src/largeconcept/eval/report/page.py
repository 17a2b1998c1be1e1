"""The page of a report: one HTML file that needs nothing else, and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from largeconcept.errors import ConfigError
from largeconcept.eval.records import now
from largeconcept.eval.report.markup import Markup, join, tag
from largeconcept.eval.report.reading import Run, read_runs
from largeconcept.eval.report.run_sections import (
    cost_section,
    records_section,
    sweep_section,
    training_section,
)
from largeconcept.eval.report.sections import section, summary, task_sections, tasks_of
from largeconcept.io import atomic_write_text
from largeconcept.version import __version__

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec, Document

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LEGEND = (
    "Intervals are 95 %, over documents. Badges compare a predictor with the model of its run on the same items: "
    "“worse” and “better” than the model where the paired test gives p < 0.05, “alike” where the difference could be "
    "chance. p-values are corrected for the number of predictors in each metric (Holm), not for the number of metrics. "
    "Arrows say which direction is better; “best” marks the best figure, which need not be the best predictor."
)


def write_report(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = "Evaluation report",
    codec: ConceptCodec | None = None,
    documents: Iterable[Document] = (),
    num_samples: int = 3,
    seed: int = 0,
) -> Path:
    """Write one HTML file about run folders: evaluations, sweeps, costs and training runs.

    Args:
        paths: run folders, or folders of such.
        out: the file to write.
        title: of the page.
        codec: with it, the concepts of one of ``documents`` are drawn across its languages.
        documents: texts of equal id in several languages, for that map.
        num_samples: items shown side by side in each task.
        seed: draws samples and the document of the map.

    Returns:
        The file.

    Raises:
        CheckpointError: a folder without a run, or with a damaged one.
        ConfigError: the file cannot be written.
        DataError: a codec is given, and no document is there in two languages.
    """
    if num_samples < 0:
        raise ConfigError("out of range", where="num_samples", got=num_samples, expected="0 or more")
    page = render(read_runs(paths), title=title, codec=codec, documents=documents, num_samples=num_samples, seed=seed)
    target = Path(out)
    try:
        atomic_write_text(target, page)
    except OSError as error:
        raise ConfigError("cannot be written", where=target, got=error.strerror or error) from None
    return target


def render(
    runs: Sequence[Run],
    *,
    title: str = "Evaluation report",
    codec: ConceptCodec | None = None,
    documents: Iterable[Document] = (),
    num_samples: int = 3,
    seed: int = 0,
) -> str:
    """Return the page about runs; see :func:`write_report`."""
    tasks = tasks_of(runs)
    parts = [
        ("summary", "Summary", summary(tasks)),
        *((f"task-{name}", None, one) for name, one in zip(tasks, task_sections(tasks, num_samples, seed))),
        ("sweep", "Settings of generation", sweep_section(runs)),
        ("cost", "Cost", cost_section(runs)),
        ("training", "Training", training_section(runs)),
        ("map", "Map of concepts", _map(codec, documents, seed)),
        ("records", "Records", records_section(runs)),
    ]
    names = {f"task-{name}": name.replace("_", " ").capitalize() for name in tasks}
    links = [tag("li", tag("a", words or names[anchor], href=f"#{anchor}")) for anchor, words, one in parts if one]
    style = resources.files("largeconcept").joinpath("assets", "report", "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"largeconcept {__version__}"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    about = f"largeconcept {__version__} · {now()[:16].replace('T', ' ')} UTC · {_count(runs)}"
    top = tag("header", tag("h1", title), tag("p", about, class_="facts"), class_="top")
    main = tag(
        "main",
        [one for _, _, one in parts if one],
        tag("section", tag("h2", "How to read this"), tag("p", _LEGEND), id="reading") if tasks else None,
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#content", class_="skip"),
        top,
        tag("nav", tag("ul", links), aria_label="Parts of this report"),
        tag("div", main, id="content"),
    )
    # A new line after each element keeps lines short enough for diff and mail without changing the page.
    return join([Markup("<!DOCTYPE html>"), tag("html", head, body, lang="en"), Markup("")], "\n")


def _map(codec: ConceptCodec | None, documents: Iterable[Document], seed: int) -> Markup:
    if codec is None:
        return Markup("")
    from largeconcept.eval.report.concept_map import concept_map, parallel_document

    name, texts = parallel_document(documents, seed)
    lead = "Sentences that mean the same should lie together, whatever their language."
    return section("map", "Map of concepts", concept_map(codec, texts, name), lead=lead)


def _count(runs: Sequence[Run]) -> str:
    kinds = {
        "evaluation": sum(run.evaluation is not None for run in runs),
        "sweep": sum(run.sweep is not None for run in runs),
        "training run": sum(run.training is not None for run in runs),
        "measurement of cost": sum(run.cost is not None for run in runs),
    }
    return ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in kinds.items() if n)


__all__ = ["render", "write_report"]
