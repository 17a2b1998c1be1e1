"""The tasks of an evaluation: their names, and what each is given.

A task is a function ``task(context) -> TaskResult``. It raises :class:`LeftOut` where model or data cannot do it: the
result then says why, instead of a score of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from largeconcept.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.eval.metrics.likelihood import CausalLM
    from largeconcept.eval.metrics.optional import OptionalMetric
    from largeconcept.eval.predictors import Predictor
    from largeconcept.eval.records import TaskResult
    from largeconcept.generate.options import GenerationOptions
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.types import Document

Kind = Literal["concepts", "generation", "codec"]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task by name.

    Attributes:
        target: ``module:function``, imported when it is run.
        kind: what is judged: predicted concepts, written texts, or the codec alone.
        version: raised whenever figures change; part of every key.
        about: one line for people.
        needs: what it needs besides a model and held-out data, for people.
    """

    target: str
    kind: Kind
    version: int
    about: str
    needs: str = ""


_PLACE = "largeconcept.eval.tasks"
TASKS: dict[str, TaskInfo] = {
    "next_concept": TaskInfo(
        f"{_PLACE}.concepts:next_concept", "concepts", 2, "Predict each concept of a text from the true ones before it."
    ),
    "next_sentence": TaskInfo(
        f"{_PLACE}.next_sentence:next_sentence",
        "concepts",
        2,
        "Draw the sentence at each place of a text several times: BrierLM, for samplers and likelihood models alike.",
    ),
    "continuation": TaskInfo(
        f"{_PLACE}.generation:continuation", "generation", 2, "Continue held-out texts by some sentences."
    ),
    "summarize": TaskInfo(
        f"{_PLACE}.generation:summarize",
        "generation",
        2,
        "Write the summary of a text.",
        "texts with a summary or target sentences",
    ),
    "summarize_into": TaskInfo(
        f"{_PLACE}.generation:summarize_into",
        "generation",
        2,
        "Write the summary in another language than the text's, zero-shot.",
        "texts whose summary exists in another language",
    ),
    "expand": TaskInfo(
        f"{_PLACE}.generation:expand",
        "generation",
        2,
        "Write a text from its summary.",
        "texts with a summary or target sentences",
    ),
    "plan": TaskInfo(
        f"{_PLACE}.generation:plan",
        "generation",
        2,
        "Continue texts paragraph by paragraph, planning each.",
        "a planning model",
    ),
    "codec_round_trip": TaskInfo(
        f"{_PLACE}.codec:round_trip", "codec", 1, "Write sentences back from their concepts, by language and length."
    ),
    "codec_noise": TaskInfo(f"{_PLACE}.codec:noise", "codec", 1, "Write sentences from concepts moved by noise."),
    "codec_translation": TaskInfo(
        f"{_PLACE}.codec:translation",
        "codec",
        1,
        "Translate aligned sentences, and find translations among others and among changed ones.",
        "documents in two languages, sentence by sentence",
    ),
    "codec_space": TaskInfo(f"{_PLACE}.codec:space", "codec", 1, "Measure how concepts fill their space."),
}


class LeftOut(Exception):  # noqa: N818 - nothing is wrong
    """A task or a predictor that cannot be done; the message says why, in one line."""


@dataclass(slots=True)
class Context:
    """What a task works on.

    Attributes:
        pipeline: the model that is judged, with its codec.
        dataset: held-out concepts, or ``None`` where only texts were given.
        train: the split the model was trained on, if it is there.
        documents: held-out texts with their sentences (those of ``dataset``, or others), in an order drawn from the
            seed.
        predictors: those of texts beside the model, which is the first.
        judge: a causal language model, for perplexity and mutual information; these are left out without one.
        judge_name: what it is called in results.
        self_judged: names of the predictors (``model`` too) that are the judge: it finds what it wrote itself likely,
            so these figures are left out of theirs.
        metrics: metrics of texts beside those that need nothing, by name.
        options: generation options of the model.
        limit: most documents to use.
        seed: of all draws.
        folder: where raw outputs and the cache go; ``None`` keeps nothing.
        keep_raw: write the raw outputs there too, not the cache alone.
        progress: called with (done, total, unit).
        settings: of single tasks: name -> keyword arguments.
    """

    pipeline: ConceptPipeline
    dataset: ConceptDataset | None = None
    train: ConceptDataset | None = None
    documents: Sequence[Document] = ()
    predictors: Sequence[Predictor] = ()
    judge: CausalLM | None = None
    judge_name: str | None = None
    self_judged: frozenset[str] = frozenset()
    metrics: Mapping[str, OptionalMetric] = field(default_factory=dict)
    options: GenerationOptions | None = None
    limit: int | None = None
    seed: int = 0
    folder: Path | None = None
    keep_raw: bool = True
    progress: Callable[..., None] = lambda *_: None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def judge_notes(self, what: str, predictors: Iterable[str]) -> list[str]:
        """Return what is to be said about figures of the judge, in a line or none."""
        if self.judge is None:
            return []
        own = [name for name in predictors if name in self.self_judged]
        without = f"; not of {', '.join(own)}, which is the judge and likes its own texts" if own else ""
        return [f"{what}: judged by {self.judge_name or type(self.judge).__name__}{without}"]


Task = Callable[[Context], "TaskResult"]


def load_task(name: str) -> Task:
    """Return the function of a task."""
    module, _, function = TASKS[name].target.partition(":")
    found: Task = getattr(import_module(module), function)
    return found


def choose_tasks(wanted: str | Sequence[str]) -> list[str]:
    """Return the names of tasks that are wanted, in the order of :data:`TASKS`.

    Args:
        wanted: ``all``, a name, a pattern such as ``summ*``, or several of them (also parted by commas).

    Raises:
        ConfigError: a name or pattern that no task has.
    """
    given = [wanted] if isinstance(wanted, str) else list(wanted)
    patterns = [part.strip() for one in given for part in str(one).split(",") if part.strip()]
    if not patterns:
        raise ConfigError("no task", where="tasks", hint=f"all, or some of: {', '.join(TASKS)}")
    chosen = set()
    for pattern in patterns:
        matches = [name for name in TASKS if pattern == "all" or fnmatchcase(name, pattern)]
        if not matches:
            raise ConfigError("unknown task", where="tasks", got=pattern, hint=did_you_mean(pattern, TASKS))
        chosen |= set(matches)
    return [name for name in TASKS if name in chosen]


__all__ = ["TASKS", "Context", "Kind", "LeftOut", "Task", "TaskInfo", "choose_tasks", "load_task"]
