"""What a concept model is measured against: a token model of its size, on its data, for its computation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from largeconcept.errors import ConfigError
from largeconcept.train.config import RunConfig

if TYPE_CHECKING:
    from largeconcept.models.token_lm import TokenLMConfig

TOLERANCE = 0.05
_MICRO_TOKENS = 8192
_TOKENS_PER_CONCEPT = 24  # of the sample corpus; only the size of micro-batches depends on it


def token_lm_like(
    config: RunConfig,
    *,
    codec: str | Path | None = None,
    out: str | Path | None = None,
    concepts_per_step: int | None = None,
    match: Literal["flops", "steps"] = "flops",
    count_encoding: bool = True,
    dropout: float | None = None,
) -> RunConfig:
    """Return a token model's run that matches a concept model's run.

    The token model has the parameters of the concept model within 5 %, not counting its tables of tokens (nor learned
    positions of the concept model); the data, the codec's tokenizer, the optimiser and the schedule are the same. It
    trains for as many steps as cost what the concept model's training costs, to half a step
    (:mod:`largeconcept.eval.training_cost`). Both numbers stand in ``notes`` of the configuration, and so in
    ``config.yaml`` and ``run.json``. Micro-batches are smaller, since a concept is some two dozen tokens.

    Args:
        config: run of the concept model; a token model's own is refused.
        codec: name or folder of the codec whose tokenizer is used; by default that of the objective, or of the data.
        out: the run folder; by default that of ``config`` with ``_token_lm`` at its end.
        concepts_per_step: padded concepts of an optimiser step, if not those of ``config``. A step costs a token model
            some thirty times what it costs a small concept model; with little time more and smaller steps learn more.
        match: ``flops``, or ``steps`` to take as many steps as the concept model does, whatever they cost.
        count_encoding: with the concept model's training count encoding once each sentence that it reads: the token
            model then has what the concept model had of computation, the codec's own training left out.
        dropout: of the token model, if not the concept model's. One that does not see its data twice needs none.

    Raises:
        ConfigError: the codec has no tokenizer, no size fits, or the cost of the model or of its codec is not known.
        DataError: there is no dataset at the run's data.
    """
    from largeconcept.codec import load_codec
    from largeconcept.data.reader import ConceptDataset

    if config.model.type == "token_lm":
        raise ConfigError("the run is one of a token model already", where="model.type", got=config.model.type)
    source = config.data.sources[0]
    named = codec or getattr(config.objective, "codec", None)
    name = str(named or ConceptDataset(source.path, source.split).metadata.codec_id)
    space = load_codec(name)
    tokenizer = getattr(space, "tokenizer", None)
    if tokenizer is None:
        raise ConfigError("the codec has no tokenizer", where="codec", got=name)
    model = matched_size(config.model, tokenizer.vocab_size)
    plain = config.to_dict()
    data = plain["data"]
    if concepts_per_step is not None:
        data = {**data, "batch_concepts": max(concepts_per_step, data["max_length"]), "micro_batches": 1}
    run = RunConfig.from_dict(
        {
            **plain,
            "model": model.to_dict() | ({} if dropout is None else {"dropout": dropout}),
            "objective": {"type": "token_lm", "codec": None if named is None else name}
            | ({"end_text": config.data.end_text} if config.data.append_end else {}),
            "data": _smaller_batches(data),
            "validation": None if plain["validation"] is None else _smaller_batches(plain["validation"]),
            "normalizer": "none",
            "train": {**plain["train"], "out": str(out or f"{config.train.out}_token_lm"), "init_from": None},
        }
    )
    return _as_costly(run, config, space, count_encoding) if match == "flops" else run


def _as_costly(run: RunConfig, config: RunConfig, codec: Any, count_encoding: bool) -> RunConfig:
    """Return a token model's run with as many steps as cost what the run of a concept model does."""
    from largeconcept.eval.training_cost import run_flops

    wanted = run_flops(config, codec)
    if count_encoding and wanted.encoding is None:
        raise ConfigError(
            "the cost of encoding with this codec is not known",
            where="codec",
            got=type(codec).__name__,
            hint="match the training alone, with count_encoding=False",
        )
    goal = wanted.training + (wanted.encoding or 0 if count_encoding else 0)
    found = run_flops(run, codec)
    steps = max(1, round(goal / found.per_step))
    notes = {
        "matched": {
            "model": config.model.type,
            "model_parameters": count_parameters(config.model),
            "model_training_flops": wanted.training,
            "model_encoding_flops": wanted.encoding,
            "encoding_counted": count_encoding,
            "parameters": count_parameters(run.model),
            "steps": steps,
            "training_flops": round(found.per_step * steps),
        }
    }
    return RunConfig.from_dict(
        {**run.to_dict(), "train": {**run.train.to_dict(), "max_steps": steps}, "notes": {**config.notes, **notes}}
    )


def matched_size(model: Any, vocab_size: int) -> TokenLMConfig:
    """Return the token model whose body has as many parameters as a concept model, within 5 %.

    Of the widths with which some number of layers fits, it has the one nearest to the concept model's.

    Raises:
        ConfigError: no size is within 5 %.
    """
    from largeconcept.models.token_lm import TokenLMConfig

    wanted = count_parameters(model)
    shape = getattr(model, "body", model)
    width, heads = shape.model_dim, shape.num_heads
    unit = 2 * heads  # rotary positions need heads of even width
    widths = range(max(unit, width // 2 // unit * unit), 2 * width + 1, unit)
    for dim in sorted(widths, key=lambda dim: abs(math.log(dim / width))):
        sizes = {"model_dim": dim, "num_heads": heads, "vocab_size": vocab_size, "dropout": shape.dropout}
        one, two = (count_parameters(TokenLMConfig.from_dict({**sizes, "num_layers": n})) for n in (1, 2))
        layers = max(1, 1 + round((wanted - one) / (two - one)))
        if abs((one + (layers - 1) * (two - one)) / wanted - 1) <= TOLERANCE:
            return TokenLMConfig.from_dict({**sizes, "num_layers": layers})
    raise ConfigError(
        "no token model is within 5 % of this size", where=f"model: {model.type}", got=f"{wanted:,} parameters"
    )


def count_parameters(model: Any) -> int:
    """Return the number of parameters of a model's configuration, without tables of tokens and of positions."""
    import torch

    from largeconcept.models.registry import build_model
    from largeconcept.nn.positions import LearnedPositions

    with torch.device("meta"):
        built = build_model(model)
    tables = [m for m in built.modules() if isinstance(m, LearnedPositions | torch.nn.Embedding)]
    left_out = {id(p) for table in tables for p in table.parameters()}
    return sum(p.numel() for p in built.parameters() if id(p) not in left_out)


def _smaller_batches(data: dict[str, Any]) -> dict[str, Any]:
    """Cut micro-batches, so that they hold about as many tokens as is good, and take as many more of them."""
    whole, most = data["batch_concepts"], max(_MICRO_TOKENS // _TOKENS_PER_CONCEPT, data["max_length"])
    parts = max(1, round(whole / most))
    size = max(data["max_length"], whole // parts)
    return {**data, "batch_concepts": size, "micro_batches": data["micro_batches"] * parts}
