"""The models that are meant to ship, at the size of one GPU: codec, pre-training, instruction tuning.

``largeconcept train-default --size gpu`` runs the whole chain (:mod:`largeconcept.recipes.chain`);
:mod:`largeconcept.recipes.default_cpu` has the same chain for two cores. Times are estimates: the arithmetic of
docs/recipes.md at 40 % of the bf16 rate of an H100.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeconcept.config import Config
from largeconcept.data.affixes import TASK_PROMPTS
from largeconcept.data.reader import ConceptDataset, splits
from largeconcept.errors import DataError
from largeconcept.io import read_json
from largeconcept.train.config import RunConfig
from largeconcept.train.start import find_start

if TYPE_CHECKING:
    from largeconcept.train.codec_trainer import CodecTrainConfig

LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "ita_Latn", "por_Latn")
MIXTURE = "mixture.json"
SHARES = {"summarize": 0.7, "expand": 0.15, "continue": 0.15}
"""Share of the concepts of instruction tuning that each task gets. A summary is one of a sequence's eight."""
ENDED = 0.2
"""Share of the summaries that are followed by the end of the text: that is learnt soon, and costs as much."""
DIM, MEANING_DIM = 1024, 512
"""Channels of the codec's concepts, and those of them that hold the meaning."""


class SplitRecord(Config):
    """What the mixture of a dataset says of one split.

    Attributes:
        weight: share of the mixture.
        lang: FLORES-200 code of its documents.
        summaries: documents that have a summary.
    """

    weight: float
    lang: str
    summaries: int = 0


def codec(out: str | Path = "runs/default/codec") -> CodecTrainConfig:
    """Codec of six languages with 512 channels of meaning and 512 of form, for one GPU; about an hour.

    Meanings are taught by the universal sentence encoder (extra ``use``).
    """
    return codec_run(out, max_minutes=60.0, micro_tokens=32768, micro_batches=1)


def pretrain(
    data: str | Path,
    out: str | Path = "runs/default/pretrain",
    *,
    kind: str = "two_tower",
    languages: Sequence[str] | None = None,
) -> RunConfig:
    """Two-tower diffusion LCM of about 60 M parameters on all documents, for one GPU; about an hour and a half.

    Args:
        data: a concept dataset; where it has a ``mixture.json`` its splits are mixed as that says.
        out: the run folder.
        kind: ``two_tower`` or ``mse``.
        languages: train on these alone; ``None`` trains on all.
    """
    shapes: dict[str, dict[str, Any]] = {
        "two_tower": {"num_context_layers": 4, "num_denoiser_layers": 6, "model_dim": 576, "num_heads": 9},
        "mse": {"num_layers": 8, "model_dim": 768, "num_heads": 12, "copy_heads": 8},
    }
    run = concept_run({"type": kind, "dropout": 0.1, **shapes[kind]}, data, out, languages)
    return run.override(
        "data.batch_concepts=16384",
        "data.micro_batches=2",
        "data.shuffle_window=524288",
        "optim.lr=6e-4",
        "train.max_steps=40000",
        "train.compile=true",
        "train.save_every=1000",
        "train.eval_every=2000",
        "train.log_every=50",
        "schedule.warmup_steps=1000",
    )


def finetune(
    data: str | Path,
    start: str | Path,
    out: str | Path = "runs/default/finetune",
    *,
    languages: Sequence[str] | None = None,
) -> RunConfig:
    """Instruction tuning of a pre-trained LCM: summarise, expand, go on; about ten minutes on one GPU.

    Args:
        data: a concept dataset that keeps summaries.
        start: the run or pipeline to start from.
        out: the run folder.
        languages: tune on these alone; ``None`` tunes on all.
    """
    run = tuning_run(data, start, out, languages)
    return run.override(
        "data.batch_concepts=16384",
        "data.micro_batches=1",
        "data.shuffle_window=524288",
        "train.max_steps=3000",
        "train.compile=true",
        "train.save_every=500",
        "train.eval_every=1000",
        "train.log_every=50",
        "schedule.warmup_steps=300",
        "optim.lr=2e-4",
    )


def codec_run(out: str | Path, **changes: Any) -> CodecTrainConfig:
    """Return the codec that both sizes share; ``changes`` are fields of the run."""
    from largeconcept.train.codec_trainer import CodecTrainConfig

    network = {
        "dim": DIM,
        "form_dim": DIM - MEANING_DIM,
        "width": 256,
        "num_heads": 4,
        "encoder_layers": 3,
        "decoder_layers": 4,
        "vocab_size": 12288,
        "languages": list(LANGUAGES),
        "pooling_heads": 8,
        "memory_tokens": 8,
        "max_tokens": 128,
        "bottleneck": "unit_variance",
    }
    objective = {
        "truncation": 0.3,
        "encoder_mask": 0.05,
        "decoder_mask": 0.15,
        "noise": 0.3,
        "concept_dropout": 0.05,
        "form_fade": 0.6,
        "teacher": 1.0,
        "contrastive": 0.2,
        "contrastive_temperature": 0.1,
        "alignment": 0.2,
        "sampled_vocabulary": 1024,
    }
    fixed: dict[str, Any] = {"max_steps": 100_000, "save_every": 100, "compile": True, "teacher": "external:use"}
    settings = {**fixed, **changes}
    return CodecTrainConfig.from_dict({"network": network, "objective": objective, "out": str(out), **settings})


def read_mixture(data: str | Path, languages: Sequence[str] | None = None) -> dict[str, SplitRecord]:
    """Return split -> record of the splits of a dataset that training mixes; one without a mixture has ``train`` alone.

    Raises:
        DataError: no dataset, a damaged mixture, or none of the languages in it.
    """
    path = Path(data) / MIXTURE
    if not path.is_file():
        dataset = ConceptDataset(data)
        return {"train": SplitRecord(weight=1.0, lang="", summaries=len(dataset) if dataset.supervised else 0)}
    rows = read_json(path)
    if not isinstance(rows, dict):
        raise DataError("the mixture is damaged", where=path, hint="make the dataset again")
    every = {name: SplitRecord.from_dict(row, where=f"{path}: {name}") for name, row in rows.items()}
    found = {name: row for name, row in every.items() if languages is None or row.lang in languages}
    if not found:
        expected = ", ".join(sorted({row.lang for row in every.values()}))
        raise DataError("no split in these languages", where=path, got=", ".join(languages or ()), expected=expected)
    return found


def concept_run(model: dict[str, Any], data: str | Path, out: str | Path, languages: Sequence[str] | None) -> RunConfig:
    """Return what pre-training of both sizes shares: every document alone, mixed as the dataset says."""
    mixture = read_mixture(data, languages)
    sources = [
        {"path": str(data), "split": name, "weight": row.weight, "task": "continue"} for name, row in mixture.items()
    ]
    dim = ConceptDataset(data, next(iter(mixture))).dim
    run = _run({**model, "concept_dim": dim}, sources, data, out)
    if run.model.type == "mse" and dim == DIM:  # the form of a sentence cannot be predicted
        return RunConfig.from_dict({**run.to_dict(), "objective": {"type": "regression", "channels": MEANING_DIM}})
    return run


def tuning_run(data: str | Path, start: str | Path, out: str | Path, languages: Sequence[str] | None) -> RunConfig:
    """Return what instruction tuning of both sizes shares: each task its share, in each the dataset's weights.

    A regression, trained before on the meaning alone, is tuned through the decoder, and the decoder with it: a mean of
    possible summaries is none until a decoder has learnt to read it so. The run leaves a codec with the new decoder.

    Raises:
        DataError: no document has a summary.
    """
    mixture = read_mixture(data, languages)
    # Documents with summaries are many of some sources and few of others, whatever the weights of these.
    weights = {name: row.weight * row.summaries for name, row in mixture.items() if row.summaries}
    if not weights:
        raise DataError("no document has a summary", where=data, hint="build it from documents with summaries")
    sources = []
    for task, share in SHARES.items():
        chosen = weights if task in TASK_PROMPTS else {name: row.weight for name, row in mixture.items()}
        total = sum(chosen.values())
        ends = {True: ENDED, False: 1 - ENDED} if task == "summarize" else {True: 1.0}
        sources += [
            {"path": str(data), "split": name, "weight": share * part * weight / total, "task": task, "append_end": end}
            for name, weight in chosen.items()
            for end, part in ends.items()
        ]
    run = _run(find_start(start).config(), sources, data, out)
    if run.model.type == "mse":
        kept = {"round_trip": 0.4, "round_trip_share": 0.5}
        through = {"type": "through_decoder", "train_decoder": True, "max_sentences": 256, **kept}
        if run.model.concept_dim == DIM:  # of our codec, which has a form
            through |= {"form_reach": 40, "parts": 64}
        plain = run.to_dict()
        run = RunConfig.from_dict({**plain, "objective": through, "data": {**plain["data"], "sentences": True}})
    return RunConfig.from_dict({**run.to_dict(), "train": {**run.train.to_dict(), "init_from": str(start)}})


def _run(model: dict[str, Any], sources: list[dict[str, Any]], data: str | Path, out: str | Path) -> RunConfig:
    held_out = "validation" if "validation" in splits(data) else None
    batches: dict[str, Any] = {"batch_concepts": 4096, "max_length": 64}
    tasks = list(dict.fromkeys(source["task"] for source in sources))
    plain: dict[str, Any] = {
        "model": model,
        "data": {**batches, "sources": sources},
        "validation": None,
        "optim": {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1},
        "schedule": {"type": "wsd", "decay_fraction": 0.3, "decay_shape": "linear", "final_ratio": 0.01},
        "train": {"out": str(out), "ema_decay": 0.999},
    }
    if held_out is not None:
        kept = ConceptDataset(data, held_out).supervised
        usable = [task for task in tasks if kept or task not in TASK_PROMPTS]
        plain["validation"] = {
            **batches,
            "sources": [{"path": str(data), "split": held_out, "task": task} for task in usable],
        }
    if model["type"] == "two_tower":
        plain["objective"] = {"type": "diffusion", "timesteps": {"type": "beta", "a": 3.0, "b": 1.0}}
    return RunConfig.from_dict(plain)
