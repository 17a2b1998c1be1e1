"""What a pipeline can do, shown on a text: go on with it, summarise it, summarise it in another language, expand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from largeconcept.generate.texts import DEFAULT_LANGUAGE
from largeconcept.languages import language_name

if TYPE_CHECKING:
    from largeconcept.generate.pipeline import ConceptPipeline, GenerationOutput

ARTICLE = (
    "This program shows photographs and other pictures on your screen. "
    "It can open all common image formats and several pictures at once. "
    "You can turn, crop and resize a picture, and save it in another format. "
    "A slide show presents all pictures of a folder one after the other. "
    "Small previews help you to find a picture in a large collection. "
    "Plugins add further filters and support for rare formats."
)
# Of a kind that the model that ships has read much of.
BEGINNING = "And the king said unto the prophet, Where is thy God? And the prophet answered him."
SUMMARY = "A small program to manage your music collection."


class Reporter(Protocol):
    """Where the tour tells what it shows."""

    def section(self, title: str) -> None:
        """Begin a part."""
        ...

    def line(self, text: str = "") -> None:
        """Say something."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """What a model wrote.

    Attributes:
        task: ``continue``, ``summarize`` or ``expand``.
        given: the text it read.
        lang: FLORES-200 code of what it wrote.
        written: its sentences.
        stop_reason: why it ended.
    """

    task: str
    given: str
    lang: str
    written: tuple[str, ...]
    stop_reason: str


def tour(pipeline: ConceptPipeline, reporter: Reporter, *, seed: int = 0, **options: Any) -> list[Sample]:
    """Show each of a pipeline's abilities once; tasks that its model was not tuned to are named and left out.

    Args:
        pipeline: what to show.
        reporter: where to tell.
        seed: of the noise of generation.
        options: generation options that differ from the pipeline's.
    """
    own = DEFAULT_LANGUAGE if DEFAULT_LANGUAGE in pipeline.codec.languages else pipeline.codec.languages[0]
    others = [code for code in pipeline.codec.languages if code != own]
    samples: list[Sample] = []

    def show(task: str, title: str, given: str, output: GenerationOutput) -> None:
        samples.append(Sample(task, given, output.lang, output.sentences, output.stop_reason))
        reporter.section(title)
        reporter.line(given)
        reporter.line()
        for sentence in output.sentences or ("(it ends at once)",):
            reporter.line(f"  » {sentence}")

    began = time.monotonic()
    known: dict[str, Any] = {"lang": own, "input_lang": own, "seed": seed, **options}
    show("continue", "Go on with a text", BEGINNING, pipeline(BEGINNING, max_concepts=3, **known))
    if "summarize" in pipeline.prompts:
        show("summarize", "Summarise it", ARTICLE, pipeline.summarize(ARTICLE, **known))
        if others:
            title = f"The same, written in {language_name(others[0])}"
            there = pipeline.summarize(ARTICLE, **{**known, "lang": others[0]})
            show("summarize", title, ARTICLE, there)
    if "expand" in pipeline.prompts:
        show("expand", "Expand a summary", SUMMARY, pipeline.expand(SUMMARY, **known))
    reporter.line()
    missing = [task for task in ("summarize", "expand") if task not in pipeline.prompts]
    if missing:
        reporter.line(f"This model was not tuned to {' or to '.join(missing)}.")
    reporter.line(f"Written in {time.monotonic() - began:.1f} seconds.")
    return samples


__all__ = ["Sample", "tour"]
