"""Time and memory of going on from a text, measured: what :mod:`largeconcept.eval.cost` counts, on a machine.

Weights do not change what a product costs, so models and codecs with random weights are measured as well as trained
ones. All sentences have the same number of tokens, and as many tokens are written as were counted: nothing depends on
what is written. A concept model's time includes encoding the context and decoding what it writes.

Shape letters: S sentences of the context, n new ones, T tokens of a sentence, C concept dimension.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from largeconcept.codec.decoding import write_tokens
from largeconcept.codec.network import EOS, AutoencoderNetwork, WritingState
from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError
from largeconcept.eval.cost import Flops, text_flops
from largeconcept.generate.loop import evaluating, generate_concepts
from largeconcept.generate.options import GenerationOptions
from largeconcept.models.token_lm import DOCUMENT, END, TokenLM

BATCH_TOKENS = 8192
_WORD = 5  # any token that is no mark
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Measured:
    """What going on from one context took.

    Attributes:
        context_tokens: of the context, marks not counted.
        new_tokens: that were written.
        flops: counted, causal products by half.
        seconds: of the stages ``encode``, ``read``, ``write`` and ``decode``, those that the model has; concept models
            read and write in one stage.
        peak_bytes: most memory beyond what was taken before (weights, above all), or ``None`` where it cannot be told.
        runs: seconds of all stages of each run, where there were several; ``seconds`` are then of the one in the
            middle.
    """

    context_tokens: int
    new_tokens: int
    flops: Flops
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    runs: tuple[float, ...] = ()

    @property
    def total_seconds(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())

    @property
    def spread(self) -> float | None:
        """The slowest run less the quickest, over the one in the middle; ``None`` of a single run."""
        return (max(self.runs) - min(self.runs)) / self.total_seconds if len(self.runs) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "context_tokens": self.context_tokens,
            "new_tokens": self.new_tokens,
            "flops": self.flops.to_dict(),
            "seconds": {**self.seconds, "total": self.total_seconds},
            "peak_bytes": self.peak_bytes,
            "runs": list(self.runs),
        }


def median_run(runs: Sequence[Measured]) -> Measured:
    """Return the run in the middle of several of the same work (of an even number the quicker of two), with all times.

    Take turns with what it is compared with: a machine is now quicker, now slower.

    Raises:
        ConfigError: no runs, or of different work.
    """
    if not runs or len({(one.context_tokens, one.new_tokens, one.flops) for one in runs}) > 1:
        raise ConfigError("not runs of the same work", where="runs", got=f"{len(runs)} runs")
    ordered = sorted(runs, key=lambda one: one.total_seconds)
    peaks = [one.peak_bytes for one in runs if one.peak_bytes is not None]
    times = tuple(time for one in runs for time in (one.runs or (one.total_seconds,)))
    return replace(
        ordered[(len(ordered) - 1) // 2], peak_bytes=max(peaks) if len(peaks) == len(runs) else None, runs=times
    )


def measure_context(
    model: nn.Module,
    context_tokens: int,
    new_tokens: int,
    codec: AutoencoderNetwork | None = None,
    options: GenerationOptions | None = None,
    *,
    sentence_tokens: int = 27,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Go on from a text of some tokens by some tokens, one text; see :func:`~largeconcept.eval.cost.text_flops`.

    The first run of a model is slower, since weights are rearranged then: let another one go before.

    Args:
        model: of any family, or a token model, in any mode.
        context_tokens: rounded up to whole sentences.
        new_tokens: rounded up to whole sentences.
        codec: network of a concept model's codec, on the model's device.
        options: sampler settings; no text ends early.
        sentence_tokens: T.
        repeats: runs, of which the one in the middle counts, and the most memory; see :func:`median_run`.
        clock: tells seconds.

    Raises:
        ConfigError: a number below 1, no codec for a concept model, one of another dimension, or sentences longer
            than it reads.
    """
    if repeats < 1:
        raise ConfigError("out of range", where="repeats", got=repeats, expected="at least 1")
    config: Any = model.config
    settings = (options if options is not None else GenerationOptions()).model_copy(
        update={"stop_threshold": None, "repetition_threshold": None}
    )
    shape = None if codec is None else codec.config
    flops = text_flops(
        config, context_tokens, new_tokens, shape, settings, sentence_tokens=sentence_tokens, causal_half=True
    )
    context, new = -(-context_tokens // sentence_tokens), -(-new_tokens // sentence_tokens)
    if isinstance(model, TokenLM):
        work: Callable[[], dict[str, float]] = _tokens(model, context, new, sentence_tokens, clock)
    else:
        assert codec is not None  # else counting has failed
        work = _concepts(model, codec, context, new, sentence_tokens, settings, clock)
    device = next(model.parameters()).device
    found = []
    with torch.no_grad(), evaluating(model):
        for _ in range(repeats):
            before = _mark(device)
            seconds = work()
            after = _peak(device)
            peak = None if before is None or after is None else after - before
            found.append(Measured(context * sentence_tokens, new * sentence_tokens, flops, seconds, peak))
    return found[0] if repeats == 1 else median_run(found)


def _concepts(
    model: nn.Module,
    codec: AutoencoderNetwork,
    context: int,
    new: int,
    tokens: int,
    options: GenerationOptions,
    clock: Callable[[], float],
) -> Callable[[], dict[str, float]]:
    config: Any = model.config
    if config.concept_dim != codec.config.dim:
        raise ConfigError(
            "model and codec have concepts of other sizes",
            where="codec",
            got=codec.config.dim,
            expected=config.concept_dim,
        )
    if tokens + 1 > codec.config.max_tokens:
        limit = codec.config.max_tokens - 1
        raise ConfigError("out of range", where="sentence_tokens", got=tokens, expected=f"at most {limit}")
    device = next(model.parameters()).device
    text = torch.full((context, tokens), _WORD, device=device)
    lengths = torch.full((context,), tokens, device=device)
    size = max(1, BATCH_TOKENS // tokens)
    normalizer = ConceptNormalizer.identity(codec.config.dim).to(device)
    settings = options.model_copy(update={"max_concepts": new, "min_concepts": 1})

    def work() -> dict[str, float]:
        watch = _Watch(device, clock)
        pairs = zip(torch.split(text, size), torch.split(lengths, size), strict=True)
        concepts = torch.cat([codec.encode(part, some)[:, : codec.config.dim] for part, some in pairs])
        watch.stop("encode")
        written = generate_concepts(model, [concepts], normalizer, settings)[0].concepts
        watch.stop("write")
        lang = torch.zeros(new, dtype=torch.long, device=device)
        # The end mark's step is taken too, as in a sentence that ends.
        write_tokens(WritingState(codec, written, lang, tokens + 1), new, tokens + 1, forbidden=[EOS])
        watch.stop("decode")
        return watch.seconds

    return work


def _tokens(
    model: TokenLM, context: int, new: int, tokens: int, clock: Callable[[], float]
) -> Callable[[], dict[str, float]]:
    device = model.embedding.weight.device
    row = [DOCUMENT, *([*[_WORD] * tokens, END] * context)]
    text = torch.tensor([row], device=device)
    number = new * (tokens + 1)

    def work() -> dict[str, float]:
        watch = _Watch(device, clock)
        cache = model.prefill(text, [len(row)], len(row) + number)
        watch.stop("read")
        for place in range(number):
            token: Tensor = model.logits(cache.state).argmax(dim=-1)
            if place + 1 < number:
                model.extend(cache, token)
        watch.stop("write")
        return watch.seconds

    return work


class _Watch:
    """Times of stages, on a device that works behind the program's back."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._clock = device, clock
        self._last = self._now()

    def stop(self, stage: str) -> None:
        now = self._now()
        self.seconds[stage], self._last = now - self._last, now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


# ---------------------------------------------------------------------- memory


def _mark(device: torch.device) -> int | None:
    """Forget the peak so far; return the memory in use, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    # What was freed goes back to the system, so that it is counted when it is taken again.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:  # another system than Linux
        return None
    return _status("VmRSS")


def _peak(device: torch.device) -> int | None:
    """Return the most memory in use since :func:`_mark`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM") if device.type == "cpu" else None


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


# ---------------------------------------------------------------------- records


def cost_record(rows: dict[str, Sequence[Measured]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a ``cost.json``, which ``largeconcept eval report`` draws.

    Args:
        rows: name of each model to what was measured as the context grows.
        settings: what is to be known about models and machine; ``clock`` says which seconds were taken.
    """
    seconds = f"seconds, {settings['clock']}" if "clock" in settings else "seconds"

    def curve(title: str, unit: str, value: Callable[[Measured], float | None]) -> dict[str, Any]:
        series = {
            name: {"x": [one.context_tokens for one in found], "y": [value(one) for one in found]}
            for name, found in rows.items()
        }
        return {
            title: {"x_label": "tokens of context", "y_label": unit, "log_x": True, "log_y": True, "series": series}
        }

    timed = curve("Time, codec included", seconds, lambda one: one.total_seconds)
    for name, found in rows.items():
        if all(one.runs for one in found):
            one_series = timed["Time, codec included"]["series"][name]
            one_series |= {"low": [min(one.runs) for one in found], "high": [max(one.runs) for one in found]}
    table = [
        [
            name,
            one.context_tokens,
            one.flops.total / 1e9,
            one.total_seconds,
            None if one.spread is None else f"{one.spread:.0%}",
            None if one.peak_bytes is None else one.peak_bytes / 1e6,
        ]
        for name, found in rows.items()
        for one in found
    ]
    return {
        "settings": settings,
        "rows": {name: [one.to_dict() for one in found] for name, found in rows.items()},
        "curves": {
            **curve("Operations, codec included", "GFLOP", lambda one: one.flops.total / 1e9),
            **timed,
            **curve(
                "Peak memory beyond the weights",
                "MB",
                lambda one: None if one.peak_bytes is None else one.peak_bytes / 1e6,
            ),
        },
        "tables": {
            "Cost of a context": {"columns": ["model", "context", "GFLOP", "seconds", "spread", "MB"], "rows": table},
        },
    }
