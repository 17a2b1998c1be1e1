"""What all tasks of writing share: every predictor writes every item, resumably, and all are scored alike.

Shape letters: N sentences, C concept dimension, D documents.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from largeconcept.errors import ConceptLMError, ConfigError
from largeconcept.eval.predictors import ZERO_SHOT, ConceptModelPredictor, Item, Mode, Output, Predictor
from largeconcept.eval.records import (
    CACHE,
    MODEL,
    OutputCache,
    TaskResult,
    digest,
    raw_path,
    write_raw,
)
from largeconcept.eval.tasks import TASKS, Context, LeftOut
from largeconcept.eval.tasks.scoring import score
from largeconcept.version import __version__

BATCH = 16
"""Items that are written together, and lost when the process is killed."""


@dataclass(slots=True)
class Written:
    """What a predictor wrote for the items of a task, in their order."""

    outputs: list[Output] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    seconds: float = 0.0
    again: int = 0


def write_and_score(
    context: Context, task: str, mode: Mode, items: Sequence[Item], settings: dict[str, Any]
) -> TaskResult:
    """Let the model and the other predictors write all items, and score what they wrote.

    Raises:
        LeftOut: the model cannot do the task.
    """
    model = ConceptModelPredictor(context.pipeline, context.options, MODEL)
    reason = model.cannot(mode, items)
    if reason is not None:
        raise LeftOut(reason)
    able: list[Predictor] = [model]
    left_out: dict[str, str] = {}
    for predictor in context.predictors:
        if predictor.name in [one.name for one in able] or predictor.name in left_out:
            raise ConfigError("two predictors of one name", where="predictors", got=predictor.name)
        reason = predictor.cannot(mode, items)
        if reason is None:
            able.append(predictor)
        else:
            left_out[predictor.name] = reason
    total, done = len(items) * len(able), 0
    texts: dict[str, Written] = {}
    for predictor in able:

        def tell(number: int, before: int = done) -> None:
            context.progress(before + number, total, "texts")

        texts[predictor.name] = write(context, task, mode, predictor, items, tell)
        done += len(items)
    version = TASKS[task].version
    scored = score(items, {name: one.outputs for name, one in texts.items()}, context)
    if context.folder is not None and context.keep_raw:
        for name, one in texts.items():
            write_raw(context.folder, task, name, raw_lines(items, one, scored.of_items[name]))
    return TaskResult(
        version=version,
        n=len(items),
        metrics=scored.directions,
        scores=scored.scores,
        differences=scored.differences,
        settings={**settings, "metric_versions": scored.versions},
        left_out=left_out,
        seconds=sum(one.seconds for one in texts.values()),
        extra={
            "seconds_per_text": {
                name: sum(output.seconds for output in one.outputs) / len(one.outputs) for name, one in texts.items()
            },
            **scored.extra,
            "notes": context.judge_notes("perplexity", texts),
            **_asked(items, texts),
        },
        tables=scored.tables,
    )


def _asked(items: Sequence[Item], texts: dict[str, Written]) -> dict[str, Any]:
    """Return a table of the predictors that were not tuned to the task and asked by a question after the text."""
    names = [name for name, one in texts.items() if any(output.notes.get(ZERO_SHOT) for output in one.outputs)]
    if not names:
        return {}
    asked = ", ".join(f"“{text}”" for text in dict.fromkeys(item.question for item in items) if text)
    rows = [[name, f"by {asked} after the text"] for name in names]
    return {"tables": {"Asked without having been tuned to it": {"columns": ["predictor", "asked"], "rows": rows}}}


def write(
    context: Context, task: str, mode: Mode, predictor: Predictor, items: Sequence[Item], tell: Any = lambda *_: None
) -> Written:
    """Let one predictor write all items; outputs that are kept under the same key are taken as they are."""
    path = None if context.folder is None else raw_path(context.folder, CACHE, task, predictor.name)
    cache = OutputCache(path)
    found = Written(keys=item_keys(task, mode, predictor, items, context.seed))
    waiting = [place for place, key in enumerate(found.keys) if cache.get(key) is None]
    if predictor.whole and waiting:
        waiting = list(range(len(items)))
    found.again = len(items) - len(waiting)
    tell(found.again)
    size = max(len(items), 1) if predictor.whole else BATCH
    began = time.perf_counter()
    for start in range(0, len(waiting), size):
        places = waiting[start : start + size]
        outputs = predictor.generate([items[place] for place in places], mode, context.seed)
        cache.add([{"key": found.keys[place], **_kept(one)} for place, one in zip(places, outputs, strict=True)])
        tell(found.again + start + len(places))
    found.seconds = time.perf_counter() - began
    for item, key in zip(items, found.keys, strict=True):
        found.outputs.append(_output(cache.get(key) or {}, item))
    return found


def item_keys(task: str, mode: Mode, predictor: Predictor, items: Sequence[Item], seed: int) -> list[str]:
    """Return the hash of all that each output depends on: predictor, task and its version, seed, item, library."""
    common = {
        "task": task,
        "version": TASKS[task].version,
        "mode": mode,
        "predictor": predictor.describe(),
        "seed": seed,
        "library": __version__,
    }
    if predictor.whole:
        common["items"] = digest([[item.describe(), item.reference] for item in items])
    root = digest(common)
    return [digest([root, item.describe()]) for item in items]


def _kept(output: Output) -> dict[str, Any]:
    return {
        "output": output.text,
        "sentences": list(output.sentences),
        "lang": output.lang,
        "seconds": round(output.seconds, 6),
        "notes": output.notes,
    }


def _output(record: dict[str, Any], item: Item) -> Output:
    """Return a kept record as an output.

    Raises:
        ConceptLMError: the record was changed by hand into something else.
    """
    try:
        return Output(
            sentences=tuple(str(one) for one in record["sentences"]),
            text=str(record["output"]),
            lang=str(record["lang"]),
            seconds=float(record["seconds"]),
            notes=dict(record.get("notes") or {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        hint = "delete the folder cache/ of this evaluation"
        raise ConceptLMError("a kept output is damaged", where=item.id, got=error, hint=hint) from None


def raw_lines(
    items: Sequence[Item], found: Written, metrics: Sequence[dict[str, float | None]]
) -> Iterator[dict[str, Any]]:
    """Yield what ``raw/TASK/PREDICTOR.jsonl`` says of each item."""
    for item, output, key, values in zip(items, found.outputs, found.keys, metrics, strict=True):
        yield {
            "key": key,
            "id": item.id,
            "lang": item.lang,
            "target_lang": item.target_lang,
            "source": list(item.source.sentences),
            "reference": list(item.reference),
            **{name: value for name, value in _kept(output).items() if name != "lang"},
            "metrics": values,
        }


__all__ = ["BATCH", "Written", "item_keys", "raw_lines", "write", "write_and_score"]
