"""What a concept model is measured against: a token model of its size, on its data, for its steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
) -> RunConfig:
    """Return a token model's run that matches a concept model's run.

    The token model has the parameters of the concept model within 5 %, not counting its tables of tokens (nor learned
    positions of the concept model); the data, the codec's tokenizer, the steps, the concepts of a step, the optimiser,
    the schedule and dropout are the same. Micro-batches are smaller, since a concept is some two dozen tokens.

    Args:
        config: run of the concept model; a token model's own is refused.
        codec: name or folder of the codec whose tokenizer is used; by default that of the objective, or of the data.
        out: the run folder; by default that of ``config`` with ``_token_lm`` at its end.
        concepts_per_step: padded concepts of an optimiser step, if not those of ``config``. A step costs a token model
            some ten times what it costs a small concept model; with little time more and smaller steps learn more.

    Raises:
        ConfigError: the codec has no tokenizer, or no size fits.
        DataError: there is no dataset at the run's data.
    """
    from largeconcept.codec import load_codec
    from largeconcept.data.reader import ConceptDataset

    if config.model.type == "token_lm":
        raise ConfigError("the run is one of a token model already", where="model.type", got=config.model.type)
    source = config.data.sources[0]
    named = codec or getattr(config.objective, "codec", None)
    name = str(named or ConceptDataset(source.path, source.split).metadata.codec_id)
    tokenizer = getattr(load_codec(name), "tokenizer", None)
    if tokenizer is None:
        raise ConfigError("the codec has no tokenizer", where="codec", got=name)
    model = matched_size(config.model, tokenizer.vocab_size)
    plain = config.to_dict()
    data = plain["data"]
    if concepts_per_step is not None:
        data = {**data, "batch_concepts": max(concepts_per_step, data["max_length"]), "micro_batches": 1}
    return RunConfig.from_dict(
        {
            **plain,
            "model": model.to_dict(),
            "objective": {"type": "token_lm", "codec": None if named is None else name}
            | ({"end_text": config.data.end_text} if config.data.append_end else {}),
            "data": _smaller_batches(data),
            "validation": None if plain["validation"] is None else _smaller_batches(plain["validation"]),
            "normalizer": "none",
            "train": {**plain["train"], "out": str(out or f"{config.train.out}_token_lm"), "init_from": None},
        }
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
