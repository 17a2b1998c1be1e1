"""``largeconcept eval sweep``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from largeconcept.cli.common import Device, Json, echo, echo_json, key_values, log, progress, table
from largeconcept.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from largeconcept.eval.sweep_results import SettingResult, SweepResult

VALIDATION = ("validation", "valid", "val", "dev", "test")
"""Splits to choose settings on, the best first."""


def sweep(
    pipeline: Annotated[str, typer.Argument(help="A saved pipeline, or the folder of a finished training run.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=V,V…]...", help="More options of the grid.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", "-g", help="An option and the values to try, as guidance_scale=1,3,6; may be repeated."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Folder of a concept dataset of the same concept space.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric", help="What settings are compared by, as in eval ls; NAME=WEIGHTS where it needs some."
        ),
    ] = "contrastive_accuracy",
    task: Annotated[
        str | None,
        typer.Option(
            "--task", help="What is done with each setting, as in eval ls; default: where the metric is from."
        ),
    ] = None,
    better: Annotated[
        str | None,
        typer.Option("--better", help="higher, lower or human (nearest to human text), where the metric does not say."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Default: validation if it is there, else test.")] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", help="Files of texts to write from instead of the dataset's, as .jsonl."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Documents to use at most.")] = None,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Longer documents are cut.")] = 128,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise, the distractors and the intervals.")] = 0,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option that stays the same, as flow_solver=heun.")
    ] = None,
    task_option: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the task, as continuation.length=2.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge", help="Causal model for perplexity and mutual information: hf=NAME. Default: the token model."
        ),
    ] = None,
    metric_codec: Annotated[
        str | None,
        typer.Option("--metric-codec", help="SONAR, for blaser and mutox, where the model's codec is another one."),
    ] = None,
    round_trip: Annotated[
        str | None, typer.Option("--round-trip", help="A codec's name or folder, for the metric round_trip_l2.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder of the record, for eval report; a sweep resumes in it.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Make the best setting the pipeline's generation defaults.")
    ] = False,
    quickest: Annotated[
        bool, typer.Option("--quickest", help="Take the quickest of the settings that tie with the best.")
    ] = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Find settings of generation that suit a model.

    Every combination of the grid does the same with the same held-out documents, in one process, and is compared by a
    metric: it predicts the concepts of documents from the true ones before them, or does any other task of eval run
    (--task continuation --metric rouge_l). Settings whose paired difference from the best could be chance are marked,
    and all are tested against the options that the model has now, corrected for their number.
    """
    from largeconcept.cli.evaluate import task_settings
    from largeconcept.eval.sweep import check_metric, combinations, write_best
    from largeconcept.eval.sweep_tasks import JUDGED, check_task, default_task
    from largeconcept.generate.options import GenerationOptions

    axes = read_grid([*(grid or []), *(settings or [])])
    name, _, weights = metric.partition("=")
    done = default_task(name) if task is None else task
    way: Any = better
    check_task(done, name)
    plain = done == "next_concept" and name not in JUDGED
    if plain:
        check_metric(name, round_trip is not None, way)
    target = saved_pipeline(pipeline) if write else None
    fixed = key_values(option)
    both = sorted(set(fixed) & set(axes))
    if both:
        raise ConfigError("in the grid and fixed as well", where="--option", got=", ".join(both))
    # Complains before any work is done.
    combinations(axes, GenerationOptions.from_dict(fixed), whole_texts=done not in ("next_concept", "next_sentence"))
    chosen = None if data is None else choose_split(data, split)
    if plain:
        result = _by_concepts(
            pipeline, data, chosen, axes, name, way, fixed, round_trip, limit, seed, max_length, out, device
        )
    else:
        result = _by_task(
            pipeline, data, chosen, documents, axes, done, name, weights, way, fixed, judge, metric_codec,
            round_trip, limit, seed,
            {"next_concept": {"max_length": max_length}} | task_settings(task_option), out, device,
        )  # fmt: skip
    taken = result.quickest if quickest else result.best
    if json:
        echo_json({**result.to_dict(), "taken": taken.options})
    else:
        for line in lines_of(result):
            echo(line)
    idle = result.without_effect()
    for one in idle:
        log(f"note: {one} changes nothing here; this family of models may not use it")
    for one in result.at_an_end():
        if one not in idle:
            log(f"note: the best {one} is at an end of the values tried; better ones may lie beyond")
    if result.beats_default() is False:
        log("note: the best setting does not differ from the one the model has now by more than chance")
    if target is not None:
        write_best(target, {**fixed, **taken.options})
        log(f"{target}: generation defaults are now {taken.name}")


def _by_concepts(
    pipeline: str, data: str | None, split: str | None, axes: dict[str, list[Any]], metric: str, better: Any,
    fixed: dict[str, Any], round_trip: str | None, limit: int | None, seed: int, max_length: int, out: str | None,
    device: str | None,
) -> SweepResult:  # fmt: skip
    """Sweep over predicted concepts; no codec is loaded unless there is a round trip."""
    from largeconcept.cli.evaluate import open_model, open_round_trip
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.devices import default_device, move
    from largeconcept.eval.next_concept import through_text
    from largeconcept.eval.sweep import sweep as run_sweep
    from largeconcept.generate.options import GenerationOptions

    if data is None or split is None:
        raise DataError("there is nothing to predict", expected="--data FOLDER, a concept dataset")
    network, normalizer, fingerprint, defaults = open_model(pipeline)
    base = GenerationOptions.from_dict({**defaults, **fixed, "seed": seed})
    dataset = ConceptDataset(data, split, fingerprint=fingerprint, dim=normalizer.dim)
    codec = open_round_trip(round_trip, fingerprint, normalizer.dim)
    move(device or default_device(), network, normalizer, codec)
    with progress("sweep", unit="concepts") as update:
        return run_sweep(
            network,
            dataset,
            normalizer,
            axes,
            metric=metric,
            better=better,
            options=base,
            round_trip=None if codec is None else through_text(codec),
            limit=limit,
            seed=seed,
            max_length=max_length,
            folder=out,
            about={"model": pipeline, "data": data, "split": split},
            progress=update,
        )


def _by_task(
    pipeline: str, data: str | None, split: str | None, documents: list[str] | None, axes: dict[str, list[Any]],
    task: str, metric: str, weights: str, better: Any, fixed: dict[str, Any], judge: str | None,
    metric_codec: str | None, codec: str | None, limit: int | None, seed: int, settings: dict[str, dict[str, Any]],
    out: str | None, device: str | None,
) -> SweepResult:  # fmt: skip
    """Sweep over what is done in a task of eval run."""
    from largeconcept.eval.sweep_tasks import open_context, sweep_task

    if data is None and not documents:
        raise DataError("there is nothing to write from", expected="--data FOLDER or --documents FILE")
    context = open_context(
        pipeline, metric, data=data, documents=documents, split=split or "", weights=weights or None,
        metric_codec=metric_codec, judge=judge, options=fixed, settings=settings, limit=limit, seed=seed, codec=codec,
        device=device,
    )  # fmt: skip
    about = {"model": pipeline, "data": data, "documents": documents, "split": None if documents else split}
    with progress("sweep", unit="settings") as update:
        return sweep_task(context, task, axes, metric=metric, better=better, folder=out, about=about, progress=update)


def read_grid(given: list[str]) -> dict[str, list[Any]]:
    """Return option -> values for ``name=v,v``; values are read as YAML.

    Raises:
        ConfigError: not of that form, or an option twice.
    """
    from largeconcept.config import parse_yaml

    axes: dict[str, list[Any]] = {}
    for one in given:
        name, separator, values = one.partition("=")
        name = name.strip()
        if not separator or not name:
            raise ConfigError("not an option with values", where="--grid", got=one, expected="as guidance_scale=1,3,6")
        if name in axes:
            raise ConfigError("an option twice", where="--grid", got=name, expected=f"{name}=V,V,…")
        parts = [part.strip() for part in values.split(",")]
        if not all(parts):
            raise ConfigError("a value is missing", where="--grid", got=one, expected="as guidance_scale=1,3,6")
        axes[name] = [parse_yaml(part, name) for part in parts]
    if not axes:
        raise ConfigError("no grid", where="--grid", expected="options with values, as guidance_scale=1,3,6")
    return axes


def choose_split(data: str, split: str | None) -> str:
    """Return the split to choose on; warns where it is one to report on or to train on.

    Raises:
        DataError: no split to choose on.
    """
    import warnings

    from largeconcept.data.reader import ConceptDataset, splits

    there = splits(data)
    chosen = split if split is not None else next((name for name in VALIDATION if name in there), None)
    if chosen is None and not there:
        ConceptDataset(data, VALIDATION[0])  # says what is wrong with the folder
    if chosen is None:
        raise DataError("no validation split", where=data, got=", ".join(there) or "none", hint="name one with --split")
    if chosen == "test":
        warnings.warn(
            "settings are chosen on the test split: figures on it are too good afterwards", UserWarning, stacklevel=2
        )
    elif chosen == "train":
        warnings.warn("settings are chosen on text the model was trained on", UserWarning, stacklevel=2)
    return chosen


def saved_pipeline(name: str) -> Path:
    """Return the folder of a saved pipeline on this machine.

    Raises:
        ConfigError: a hub id, or the folder of a training run.
    """
    from pathlib import Path

    from largeconcept.hub import RECORD

    folder = Path(name)
    if not (folder / RECORD).is_file():
        raise ConfigError(
            "only a saved pipeline in a folder here has defaults to write",
            where="--write",
            got=name,
            hint="make one with: largeconcept export RUN OUT",
        )
    return folder


def lines_of(result: SweepResult, most: int = 30) -> list[str]:
    """Return the settings as a table for people, the best first."""
    from largeconcept.eval.sweep_results import show

    rows = []
    for place, one in enumerate(result.results[:most], 1):
        mark = "best" if place == 1 else "ties" if one.ties else ""
        rows.append([str(place), *_row(one, result), mark])
    if result.default is not None and all(one.options != result.default.options for one in result.results):
        rows.append(["-", *_row(result.default, result), "now"])
    header = ["rank", *result.grid, result.metric, "best minus this", "p against now", "seconds", ""]
    note = (
        f"{len(result.results)} settings on {result.num_predictions:,} predictions in {result.num_documents:,} "
        f"documents; 95 % intervals over documents; p of the difference from the options the model has now, corrected "
        f"for the number of settings (Holm)"
    )
    if result.direction == "human":
        note += f"; {result.metric} of human text: {show(result.target)}"
    lines = [*table(header, rows), note, f"best: {result.best.name}"]
    if result.quickest is not result.best:
        lines.append(f"quickest of those that tie with it: {result.quickest.name}")
    return lines


def _row(one: SettingResult, result: SweepResult) -> list[str]:
    from largeconcept.eval.sweep_results import show

    gap = one.difference
    away = "-" if gap is None else f"{gap.value:.4f} [{gap.low:.4f}, {gap.high:.4f}]"
    p = "now" if one is result.default else "-" if one.p_holm is None else f"{one.p_holm:.3f}"
    options = [show(value) for value in one.options.values()]
    return [*options, str(one.scores[result.metric]), away, p, f"{one.seconds:.1f}"]
