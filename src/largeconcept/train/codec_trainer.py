"""Training of the autoencoder codec: length-homogeneous batches, Muon, a budget of steps or of minutes.

Every step is a function of (seed, step) alone: sentences are drawn with replacement from length buckets, so a run that
was killed and resumed makes the same steps as one that was not, and no data position has to be saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.config import Config
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.errors import ConfigError, DataError, TrainingError
from largeconcept.io import atomic_write_text
from largeconcept.objectives import codec as codec_objective
from largeconcept.objectives.codec import CodecBatch, CodecObjectiveConfig, codec_loss
from largeconcept.train import checkpoint
from largeconcept.train.meters import MetricWriter, Reporter
from largeconcept.train.optim import Muon, Optimizers
from largeconcept.train.parallel import Parallel
from largeconcept.train.precision import autocast, resolve_precision
from largeconcept.train.quantizer import SpaceQuantizer, load_quantizer
from largeconcept.train.schedule import LRConfig, lr_factor

# What may differ between a checkpoint and the run that resumes it.
MAY_CHANGE = frozenset(
    {
        "out",
        "max_steps",
        "max_minutes",
        "save_every",
        "log_every",
        "eval_every",
        "compile",
        "schedule",
        "objective",
        "lr",
        "embedding_lr",
        "pair_share",
    }
)


class CodecTrainConfig(Config):
    """A codec training run.

    Attributes:
        network, objective: shape and losses.
        start: a saved codec to start from, name or folder: its network and vocabulary are taken. ``null`` starts from
            nothing.
        quantizer: folder of a saved quantizer (a run of a quantised model leaves one): the encoder stays as it is, and
            the decoder learns to write from quantised concepts (arXiv:2412.08821, §2.3.4). Needs ``start``.
        teacher: another sentence encoder whose vectors the meaning learns to predict; they are made once and before the
            training. ``null``: none.
        encoder: another sentence encoder, see :func:`largeconcept.codec.encoders.open_encoder`: it makes the concepts,
            once and before the training, and only a decoder for them is trained.
        out: run folder, resumed from its newest checkpoint.
        max_steps: optimiser steps of the whole run.
        max_minutes: stop and finish the decay after this much training time, whichever comes first; the learning rate
            then follows the clock. ``None`` makes runs exactly repeatable.
        micro_tokens, micro_batches: target tokens of a micro-batch, and micro-batches a step.
        pair_share: share of micro-batches that hold translation pairs.
        language_temperature: languages are drawn with probability ∝ (sentences)^temperature.
        lr, embedding_lr: peak rates of the hidden matrices (Muon) and of everything else (AdamW).
        compile: use ``torch.compile`` (a minute at the start, then a quarter to a half faster on CPUs).
    """

    network: AutoencoderConfig = AutoencoderConfig()
    objective: CodecObjectiveConfig = CodecObjectiveConfig()
    start: str | None = None
    quantizer: str | None = None
    encoder: str | None = None
    teacher: str | None = None
    out: str
    max_steps: int = Field(4000, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    micro_tokens: int = Field(2048, ge=1)
    micro_batches: int = Field(4, ge=1)
    pair_share: float = Field(0.4, ge=0, le=1)
    language_temperature: float = Field(0.6, ge=0, le=1)
    lr: float = Field(3e-3, gt=0)
    embedding_lr: float = Field(2e-3, gt=0)
    schedule: LRConfig = LRConfig(
        type="wsd", warmup_steps=100, final_ratio=0.0, decay_fraction=0.3, decay_shape="linear"
    )
    clip_norm: float = Field(1.0, gt=0)
    precision: str = "auto"
    seed: int = 0
    save_every: int = Field(200, ge=1)
    log_every: int = Field(20, ge=1)
    eval_every: int = Field(400, ge=1)
    compile: bool = False

    @model_validator(mode="after")
    def _check(self) -> CodecTrainConfig:
        if self.quantizer is not None and self.start is None:
            raise ValueError("quantizer tunes the decoder of a codec that there is: name it in start")
        if self.encoder is not None and self.start is not None:
            raise ValueError("encoder and start exclude each other: a decoder for an encoder starts from nothing")
        if self.micro_tokens < self.network.max_tokens:
            raise ValueError(f"micro_tokens must hold one longest sentence ({self.network.max_tokens} tokens)")
        return self


class BatchSampler:
    """Draws micro-batches of sentences of similar length, or of translation pairs, from a table.

    Args:
        table: the sentences.
        config: budget, shares and temperature.
        concepts: (N, C) of the table's sentences, where another encoder makes them.
        teacher: (N, K) of the table's sentences, where another encoder teaches; rows of zeros are unknown.
    """

    WIDTH = 4  # lengths of one bucket differ by less than this many tokens

    def __init__(
        self,
        table: SentenceTable,
        config: CodecTrainConfig,
        concepts: NDArray[np.float16] | None = None,
        teacher: NDArray[np.float16] | None = None,
    ) -> None:
        self._table = table
        self._concepts = concepts
        self._teacher = teacher
        self._config = config
        lengths = table.lengths
        counts = np.bincount(table.langs, minlength=len(table.languages)).astype(np.float64)
        share = np.divide(counts**config.language_temperature, counts, out=np.zeros_like(counts), where=counts > 0)
        self._mono = self._buckets(lengths, share[table.langs])
        pairs = table.pairs.astype(np.int64)
        pair_lengths = np.maximum(lengths[pairs[:, 0]], lengths[pairs[:, 1]]) if len(pairs) else np.zeros(0, np.int64)
        # A pair weighs as much as its rarer language.
        pair_weights = share[table.langs[pairs]].max(axis=1, initial=0.0)
        self._pairs = self._buckets(pair_lengths, pair_weights) if len(pairs) else None

    def _buckets(
        self, lengths: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]], NDArray[np.float64], list[int]]:
        """Rows of each bucket, their running weights, the running mass (weight × tokens) and the greatest lengths."""
        bucket = (lengths + self.WIDTH - 1) // self.WIDTH
        order = np.argsort(bucket, kind="stable")
        edges = np.flatnonzero(np.diff(bucket[order])) + 1
        rows = [part.astype(np.int64) for part in np.split(order, edges)]
        running = [np.cumsum(weights[part]) for part in rows]
        mass = np.cumsum([float((weights[part] * lengths[part]).sum()) for part in rows])
        return rows, running, mass, [int(bucket[part[0]]) * self.WIDTH for part in rows]

    def draw(self, step: int, micro: int) -> CodecBatch:
        """Return micro-batch ``micro`` of ``step``: the same one whenever it is asked for."""
        rng = np.random.default_rng([self._config.seed, step, micro])
        paired = self._pairs is not None and rng.random() < self._config.pair_share
        rows, running, mass, bounds = self._pairs if paired and self._pairs is not None else self._mono
        b = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
        b = min(b, len(rows) - 1)
        longest = bounds[b]
        count = max(2, self._config.micro_tokens // (longest * (2 if paired else 1)))
        picks = np.searchsorted(running[b], rng.random(count) * running[b][-1], side="right")
        chosen = rows[b][np.minimum(picks, len(rows[b]) - 1)]
        table = self._table
        if paired:
            # A repeated pair would be its own negative in the contrastive term.
            chosen = np.unique(chosen)
            left = table.pairs[chosen].astype(np.int64)
            indices = np.concatenate([left[:, 0], left[:, 1]])
            half = len(chosen)
            source = np.concatenate([np.arange(half, 2 * half), np.arange(half)])
        else:
            indices = chosen
            source = np.arange(len(chosen))
        tokens, lengths = table.rows(indices)
        lang = torch.from_numpy(table.langs[indices].astype(np.int64))
        concepts, teacher = (
            None if vectors is None else torch.from_numpy(vectors[indices].astype(np.float32))
            for vectors in (self._concepts, self._teacher)
        )
        return CodecBatch(tokens, lengths, torch.from_numpy(source), lang, paired, concepts, teacher)


class CodecTrainer:
    """Trains an :class:`AutoencoderNetwork` on a sentence table; resumes by itself.

    Args:
        config: the run.
        table: training sentences; its languages must be the network's.
        evaluate: called with (network, step) every ``eval_every`` steps and at the end; returns numbers to log.
        network: start from this network instead of a fresh one.
        concepts: (N, C) of the table's sentences, made by another encoder; the network is then a decoder alone.
        teacher: (N, K) vectors of the table's sentences, by the teacher; rows of zeros are unknown.
    """

    def __init__(
        self,
        config: CodecTrainConfig,
        table: SentenceTable,
        evaluate: Callable[[AutoencoderNetwork, int], dict[str, float]] | None = None,
        network: AutoencoderNetwork | None = None,
        concepts: NDArray[np.float16] | None = None,
        teacher: NDArray[np.float16] | None = None,
    ) -> None:
        if tuple(table.languages) != config.network.languages:
            raise ConfigError(
                "the data has other languages",
                where="network.languages",
                got=table.languages,
                expected=config.network.languages,
            )
        if not len(table):
            raise DataError("the sentence table is empty")
        if int(table.tokens.max()) >= config.network.vocab_size:
            raise ConfigError(
                "the data was tokenised with a larger vocabulary",
                where="network.vocab_size",
                got=int(table.tokens.max()) + 1,
                expected=f"≤ {config.network.vocab_size}",
            )
        if (concepts is None) != (config.network.encoder_layers > 0):
            raise ConfigError(
                "a network without an encoder needs the concepts of another, and only such a network",
                where="network.encoder_layers",
                got=config.network.encoder_layers,
                hint="name the encoder: encoder=external:use",
            )
        if concepts is not None and concepts.shape != (len(table), config.network.dim):
            expected = (len(table), config.network.dim)
            raise DataError("not the concepts of the table", where="concepts", expected=expected, got=concepts.shape)
        wanted = (len(table), config.network.teacher_dim)
        if teacher is not None and teacher.shape != wanted:
            raise DataError(
                "not the teacher's vectors of the table", where="teacher", expected=wanted, got=teacher.shape
            )
        torch.manual_seed(config.seed)
        self.config = config
        self.network = network or AutoencoderNetwork(config.network)
        self._quantize = None if config.quantizer is None else _open_quantizer(config.quantizer, config.network.dim)
        self._sampler = BatchSampler(table, config, concepts, teacher)
        self._evaluate = evaluate
        self._optimizers = build_codec_optimizers(self.network, config)
        self._precision = resolve_precision(config.precision, "cpu")  # type: ignore[arg-type]

    def fit(self) -> AutoencoderNetwork:
        """Train to the end of the budget and return the network.

        Raises:
            TrainingError: the loss is not finite ten times in a row.
        """
        config, network = self.config, self.network
        out = Path(config.out)
        parallel = Parallel.start("none", "cpu")
        checkpoint.remove_leftovers(out)
        step, elapsed, tokens = 0, 0.0, 0.0
        newest = checkpoint.latest(out)
        if newest is not None:
            state = checkpoint.read_state(newest)
            checkpoint.check_same_config(state["config"], config, MAY_CHANGE, newest)
            checkpoint.load(newest, network, self._optimizers, None)
            step, elapsed = int(state["step"]), float(state["seconds"])
            tokens = float(state.get("tokens", 0))
        out.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out / "config.yaml", config.to_yaml())
        if config.compile:
            self.compile()
        writer = MetricWriter(out, resume_step=step)
        began = time.monotonic() - elapsed
        sums: dict[str, float] = {}
        bad = 0
        network.train()
        with Reporter(config.max_steps, step, title="codec") as reporter:
            while step < config.max_steps:
                elapsed = time.monotonic() - began
                progress = self._progress(step, elapsed)
                if progress >= 1:
                    break
                metrics = self.train_step(step, progress)
                if not math.isfinite(metrics["loss"]):
                    bad += 1
                    if bad >= 10:
                        raise TrainingError("the loss is not finite", where=f"step {step}", hint="lower lr")
                else:
                    bad = 0
                for key, value in metrics.items():
                    sums[key] = sums.get(key, 0.0) + value
                tokens += metrics["tokens"]
                step += 1
                if step % config.log_every == 0:
                    seconds = time.monotonic() - began
                    line = _summary(sums, config.log_every, seconds)
                    writer.write(step, line)
                    reporter.step(step, line["nats"], line["tokens_per_second"])
                    reporter.report(step, line)
                    sums = {"_seconds": seconds}
                if self._evaluate is not None and step % config.eval_every == 0:
                    self._report_evaluation(step, writer, reporter)
                if step % config.save_every == 0:
                    self._save(step, time.monotonic() - began, tokens, parallel)
            self._save(step, time.monotonic() - began, tokens, parallel)
            if self._evaluate is not None:
                self._report_evaluation(step, writer, reporter)
        writer.close()
        parallel.close()
        return network

    def _progress(self, step: int, elapsed: float) -> float:
        """Share of the budget that is used up, by steps or by the clock, whichever is further."""
        share = step / self.config.max_steps
        if self.config.max_minutes is not None:
            share = max(share, elapsed / (60 * self.config.max_minutes))
        return share

    def train_step(self, step: int, progress: float) -> dict[str, float]:
        """Make optimiser step ``step``, with ``progress`` of the budget used up; return sums to log."""
        config = self.config
        self._optimizers.zero_grad()
        sums: dict[str, float] = {}
        generator = torch.Generator()
        for micro in range(config.micro_batches):
            batch = self._sampler.draw(step, micro)
            generator.manual_seed((config.seed * 1_000_003 + step) * 64 + micro)
            with autocast(self._precision, "cpu"):
                loss, metrics = codec_loss(self.network, batch, config.objective, generator, self._quantize)
            (loss / config.micro_batches).backward()  # type: ignore[no-untyped-call]
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + float(value)
                if key.endswith("_loss"):
                    sums[f"{key}:count"] = sums.get(f"{key}:count", 0.0) + 1
            sums["loss"] = sums.get("loss", 0.0) + float(loss.detach()) / config.micro_batches
        moving = [p for p in self.network.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(moving, config.clip_norm)
        sums["grad_norm"] = float(norm)
        if math.isfinite(sums["loss"]) and math.isfinite(sums["grad_norm"]):
            # Warm-up counts steps; the rest of the schedule follows the budget.
            virtual = int(progress * config.max_steps)
            warmup = config.schedule.warmup(config.max_steps)
            factor = lr_factor(config.schedule, max(virtual, min(step, warmup)), config.max_steps)
            if step < warmup:
                factor = min(factor, (step + 1) / warmup)
            self._optimizers.step(factor)
        return sums

    def _report_evaluation(self, step: int, writer: MetricWriter, reporter: Reporter) -> None:
        assert self._evaluate is not None
        self.network.eval()
        with torch.no_grad():
            values = self._evaluate(self.network, step)
        self.network.train()
        writer.write(step, values)
        reporter.report(step, values)

    def _save(self, step: int, seconds: float, tokens: float, parallel: Parallel) -> None:
        state: dict[str, Any] = {"seconds": seconds, "tokens": int(tokens), "config": self.config.to_dict()}
        checkpoint.save(self.config.out, step, self.network, self._optimizers, None, state, parallel)

    def compile(self) -> None:
        """Compile encoder, decoder and the vocabulary softmax, for batches of any shape."""
        network: Any = self.network
        network.encode = torch.compile(network.encode, dynamic=True)
        network.decode_hidden = torch.compile(network.decode_hidden, dynamic=True)
        module: Any = codec_objective
        module.softmax_gradient = torch.compile(codec_objective.softmax_gradient, dynamic=True)


def build_codec_optimizers(network: AutoencoderNetwork, config: CodecTrainConfig) -> Optimizers:
    """Muon for the matrices of the blocks, AdamW for embeddings, positions and the maps around the concept.

    A run with a quantizer freezes what the encoder uses, the token embedding that it shares with the decoder included.
    """
    if config.quantizer is not None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not is_of_encoder(name))
    hidden = [p for block in (*network.encoder, *network.decoder) for p in block.parameters() if p.requires_grad]
    chosen = {id(p) for p in hidden}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=config.embedding_lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True)
    muon = Muon(hidden, lr=config.lr, momentum=0.95, weight_decay=0.01, dtype=torch.bfloat16)
    return Optimizers([adam, muon])


def is_of_encoder(name: str) -> bool:
    """Tell whether a parameter of the network decides what concept a sentence has."""
    parts = ("embedding", "encoder_positions", "encoder", "pool_query", "to_concept", "to_teacher")
    return name.partition(".")[0] in parts or name.startswith(("binding.keys", "binding.bind."))


def _open_quantizer(folder: str, dim: int) -> SpaceQuantizer:
    quantize = SpaceQuantizer(*load_quantizer(folder))
    if quantize.dim != dim or quantize.quantizer.config.dim != dim:
        raise ConfigError(
            "the quantizer is for concepts of another dimension",
            where=f"quantizer: {folder}",
            expected=dim,
            got=quantize.dim,
        )
    quantize.quantizer.require_fitted()
    return quantize


def _summary(sums: dict[str, float], steps: int, seconds: float) -> dict[str, float]:
    since = seconds - sums.get("_seconds", 0.0)
    line = {
        "nats": sums["nats"] / max(sums["tokens"], 1.0),
        "grad_norm": sums["grad_norm"] / steps,
        "tokens_per_second": sums["tokens"] / max(since, 1e-9),
        "minutes": seconds / 60,
    }
    for key in ("pair_loss", "teacher_loss"):
        if key in sums:
            line[key] = sums[key] / sums[f"{key}:count"]
    return line
