"""Concept datasets to batches: mixture, wrapping, bounded shuffle, length-homogeneous batches, exact resume.

The stream is made of *pools*. A pool draws sequences from the sources until it holds ``shuffle_window`` concepts,
shuffles them, sorts them by length, cuts them into micro-batches of at most ``batch_concepts`` padded concepts, and
shuffles the order of these. A pool is a function of the configuration, its number, and the place in each source where
it begins. So the position of a run is small: where the current pool began, and how many of its micro-batches were used.
To resume, the pool is drawn again.

Nothing here depends on the number of processes: an optimiser step is the next ``micro_batches`` micro-batches of the
one stream, and process r of W takes number r, r + W, … of them. Every process reads the vectors of the whole stream.

Shape letters: B batch, S concepts, C concept dimension.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from largeconcept.config import Config
from largeconcept.data.affixes import END_OF_TEXT, MODEL_PROMPT, TASK_PROMPTS, Task
from largeconcept.data.plans import END_OF_PARAGRAPH
from largeconcept.data.reader import ConceptDataset, check_space
from largeconcept.data.sequences import ConceptSequence, Omissions, SequenceOptions, SourceStream, Vectors
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.types import ConceptBatch

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.data.schema import DatasetMetadata

STATE_VERSION = 1


class SourceConfig(Config):
    """One dataset of a mixture.

    Attributes:
        path: the dataset folder.
        split: name of the split.
        weight: share of the concepts of the mixture, relative to the other weights.
        task: what it teaches: ``continue`` (its documents alone, also where it has targets), ``summarize`` (document,
            prompt, target) or ``expand`` (target, prompt, document); ``None`` leaves it to the loader's ``targets``
            and ``prompt_text``. A dataset may be named once for each task.
        prompt_text: affix between the two sides of a pair; ``None``: the task's own
            (:data:`~largeconcept.data.affixes.TASK_PROMPTS`).
        append_end: ``False`` leaves the end off its sequences, for texts that are only a part of one, or so short that
            a model would learn of them to end after any sentence.
    """

    path: str
    split: str = "train"
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    task: Task | None = None
    prompt_text: str | None = None
    append_end: bool = True

    @model_validator(mode="after")
    def _prompt_fits(self) -> Self:
        if self.prompt_text is not None and self.task not in TASK_PROMPTS:
            raise ValueError(f"prompt_text needs a task: {' or '.join(TASK_PROMPTS)}")
        return self

    @property
    def prompt(self) -> str | None:
        """The affix between the two sides of a pair; ``None`` unless the task is one of pairs."""
        return self.prompt_text or TASK_PROMPTS.get(self.task or "")


class LoaderConfig(Config):
    """How datasets become batches.

    Attributes:
        sources: the datasets; a plain string is a path.
        batch_concepts: padded concepts of a micro-batch, at most.
        micro_batches: micro-batches of an optimiser step, over all processes together.
        max_length: concepts of a sequence; longer documents are cut into windows that follow each other.
        min_length: shorter sequences are left out.
        shuffle_window: concepts among which is shuffled (at least four micro-batches); they are held in memory.
        append_end: close each document or target with the concept of ``end_text``.
        end_text, prompt_text: affixes of the dataset; the prompt stands between source and target of datasets without
            a task.
        targets: make source/target pairs of the documents that have a target, in datasets without a task; ``None``:
            if every document of one of them has a target.
        sentences: read the text of the concepts too; ``None``: if what the data is for needs it.
        plans: lay documents out as plan, paragraph, break, plan, …; ``None``: if the datasets have plans.
        break_text: affix between paragraphs of planned documents.
        seed: of the order.
    """

    sources: list[SourceConfig] = Field(min_length=1)
    batch_concepts: int = Field(default=4096, ge=1)
    micro_batches: int = Field(default=1, ge=1)
    max_length: int = Field(default=128, ge=2)
    min_length: int = Field(default=2, ge=1)
    shuffle_window: int = Field(default=131072, ge=1)
    append_end: bool = True
    end_text: str = END_OF_TEXT
    prompt_text: str | None = MODEL_PROMPT
    targets: bool | None = None
    sentences: bool | None = None
    plans: bool | None = None
    break_text: str = END_OF_PARAGRAPH
    seed: int = Field(default=0, ge=0)

    @field_validator("sources", mode="before")
    @classmethod
    def _plain_paths(cls, value: Any) -> Any:
        items = [value] if isinstance(value, str | dict) else value
        if isinstance(items, list):
            return [{"path": item} if isinstance(item, str) else item for item in items]
        return items

    @property
    def tasks(self) -> dict[str, str]:
        """Task of pairs -> its prompt; of several prompts the one with the greatest weight, of equal ones the first."""
        weights: dict[tuple[str, str], float] = {}
        for source in self.sources:
            if source.task is not None and source.prompt is not None:
                key = (source.task, source.prompt)
                weights[key] = weights.get(key, 0.0) + source.weight
        result: dict[str, str] = {}
        for (task, prompt), weight in weights.items():
            if task not in result or weight > weights[task, result[task]]:
                result[task] = prompt
        return result

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.batch_concepts < self.max_length:
            raise ValueError(f"batch_concepts ({self.batch_concepts}) is less than max_length ({self.max_length})")
        if self.max_length < 2 * self.min_length:
            raise ValueError(f"max_length ({self.max_length}) is less than twice min_length ({self.min_length})")
        return self


class ConceptLoader:
    """Endless batches for training (:meth:`next_step`), and one pass in order for validation (:meth:`epoch`).

    Args:
        config: what to load.
        rank, world_size: which micro-batches are this process's own; the stream itself does not depend on them.
        fingerprint, dim: refuse datasets of another concept space.

    Raises:
        ConfigError: the micro-batches of a step cannot be shared out evenly; a rank out of range.
        DataError: a dataset is missing, damaged or of another concept space, or lacks targets or affixes.
    """

    def __init__(
        self,
        config: LoaderConfig,
        rank: int = 0,
        world_size: int = 1,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError("rank out of range", where="rank", got=rank, expected=f"0 to {world_size - 1}")
        if config.micro_batches % world_size:
            raise ConfigError(
                "the micro-batches of a step cannot be shared out evenly",
                where="micro_batches",
                got=f"{config.micro_batches} for {world_size} processes",
                expected=f"a multiple of {world_size}",
            )
        self.config, self.rank, self.world_size = config, rank, world_size
        self.datasets = [ConceptDataset(s.path, s.split, fingerprint=fingerprint, dim=dim) for s in config.sources]
        self.metadata: DatasetMetadata = self.datasets[0].metadata
        for dataset in self.datasets[1:]:
            check_space(dataset.metadata, dataset.folder, self.metadata.codec_fingerprint, self.metadata.dim)
        self.omissions = Omissions()
        self._options = self._sequence_options()
        self._streams = self._open(config.seed)
        self._drawn = [0] * len(self._streams)
        self._step = self._pool = self._used = 0
        self._start = self._position()
        self._batches: list[list[ConceptSequence]] | None = None

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        return self.metadata.dim

    @property
    def step(self) -> int:
        """Optimiser steps delivered so far, those before a resume included."""
        return self._step

    @property
    def supervised(self) -> bool:
        """Whether batches have ``source_lengths``."""
        return any(options.pairs for options in self._options)

    @property
    def _is_planned(self) -> bool:
        return self._options[0].pause is not None

    @property
    def break_concept(self) -> Tensor | None:
        """(C,) concept of the break between paragraphs, in the codec's space; ``None`` unless documents are planned."""
        import torch

        pause = self._options[0].pause
        return None if pause is None else torch.from_numpy(pause[0])

    @property
    def plan_kind(self) -> str | None:
        """What the plans of the first dataset are; ``None`` unless documents are planned."""
        plan = self.metadata.plan
        return None if plan is None or not self._is_planned else str(plan.get("kind"))

    def next_step(self) -> list[ConceptBatch]:
        """Return this process's micro-batches of the next optimiser step.

        Raises:
            DataError: a dataset is damaged or gives no sequence.
        """
        result = []
        for number in range(self.config.micro_batches):
            sequences = self._next_micro_batch()
            if number % self.world_size == self.rank:
                result.append(self._collate(sequences))
        self._step += 1
        return result

    def epoch(self) -> Iterator[ConceptBatch]:
        """Yield every sequence once, source after source in order, without shuffling; the position is left alone.

        Neighbours (``shuffle_window`` concepts) are sorted by length. Process r of W takes batch r, r + W, …, so the
        numbers of batches may differ by one.
        """
        batches = (batch for stream in self._open(None) for batch in self._in_order(stream))
        for number, batch in enumerate(batches):
            if number % self.world_size == self.rank:
                yield self._collate(batch)

    def _in_order(self, stream: SourceStream) -> Iterator[list[ConceptSequence]]:
        pool: list[ConceptSequence] = []
        concepts = 0
        for sequence in stream.once():
            pool.append(sequence)
            concepts += sequence.length
            if concepts >= self._window():
                yield from self._cut(sorted(pool, key=lambda s: s.length))
                pool, concepts = [], 0
        yield from self._cut(sorted(pool, key=lambda s: s.length))

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain data for JSON; it is the same on every process."""
        return {
            "version": STATE_VERSION,
            "config": self._config_key(),
            "data": [[len(dataset), dataset.num_concepts] for dataset in self.datasets],
            "step": self._step,
            "pool": self._pool,
            "used": self._used,
            "sources": [dict(source) for source in self._start],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly after the step at which :meth:`state_dict` was called, with any number of processes.

        Raises:
            CheckpointError: the position is damaged, or was taken with other settings or other data.
        """
        where = "data position"
        if not isinstance(state, Mapping) or state.get("version") != STATE_VERSION:
            raise CheckpointError("not a data position of this version", where=where, expected=STATE_VERSION)
        if state.get("config") != self._config_key():
            hint = "resume with the same data settings, or start a new run from the weights"
            raise CheckpointError("the data settings have changed since the position was taken", where=where, hint=hint)
        data = [[len(dataset), dataset.num_concepts] for dataset in self.datasets]
        if state.get("data") != data:
            problem = "the datasets have changed since the position was taken (documents, concepts)"
            raise CheckpointError(problem, where=where, expected=state.get("data"), got=data)
        numbers = [state.get(name) for name in ("step", "pool", "used")]
        sources = state.get("sources")
        if not all(type(n) is int and n >= 0 for n in numbers) or not isinstance(sources, list):
            raise CheckpointError("the data position is damaged", where=where, got=dict(state))
        whole = all(isinstance(source, dict) and type(source.get("drawn")) is int for source in sources)
        if len(sources) != len(self._streams) or not whole:
            raise CheckpointError("the data position is damaged", where=where, got=sources)
        for stream, source in zip(self._streams, sources):
            stream.load(source)
        self._drawn = [source["drawn"] for source in sources]
        self._start = self._position()
        self._step, self._pool, self._used = state["step"], state["pool"], state["used"]
        self._batches = None

    def _sequence_options(self) -> list[SequenceOptions]:
        """Return how each source becomes sequences."""
        config = self.config
        pairs = self._pairs()
        affixes = self.datasets[0].affixes  # all are of one concept space
        planned = self._planned(any(pairs))
        common = SequenceOptions(
            config.max_length,
            config.min_length,
            affixes[config.end_text].numpy()[None] if config.append_end else None,
            None,
            pairs=False,
            sentences=bool(config.sentences),
            end_text=config.end_text,
            pause=affixes[config.break_text].numpy()[None] if planned else None,
            break_text=config.break_text,
        )
        result = []
        for source, dataset, paired in zip(config.sources, self.datasets, pairs):
            text = config.prompt_text if source.task is None else source.prompt
            if paired and text:
                prompt = self._affix(dataset if source.task else self.datasets[0], text)
                own = replace(common, pairs=True, expand=source.task == "expand", prompt=prompt, prompt_text=text)
            else:
                own = replace(common, pairs=paired)
            result.append(own if source.append_end else replace(own, end=None))
        return result

    def _pairs(self) -> list[bool]:
        """Return which sources make pairs.

        Raises:
            DataError: one that shall has no targets.
        """
        sources = self.config.sources
        have = [dataset.supervised for dataset in self.datasets]
        free = [dataset.paired for source, dataset in zip(sources, self.datasets) if source.task is None]
        unnamed = any(free) if self.config.targets is None else self.config.targets
        result = [unnamed if source.task is None else source.task != "continue" for source in sources]
        for dataset, has, needed in zip(self.datasets, have, result):
            if needed and not has:
                hint = "build it with target=summary, or give the source task=continue (targets=false for all of them)"
                raise DataError("the dataset has no targets", where=dataset.folder, hint=hint)
        return result

    def _affix(self, dataset: ConceptDataset, text: str) -> Vectors:
        """Return the (1, C) concept of a prompt.

        Raises:
            DataError: the dataset was built without it.
        """
        if text not in dataset.affixes.concepts:
            hint = f"add it: largeconcept data affixes {dataset.path} --add {text!r}"
            raise DataError("the dataset has no such affix", where=dataset.affixes.where, got=text, hint=hint)
        return dataset.affixes[text].numpy()[None]

    def _planned(self, pairs: bool) -> bool:
        """Tell whether documents are laid out with plans; refuse settings and datasets that do not fit that."""
        config = self.config
        have = [dataset.planned for dataset in self.datasets]
        planned = any(have) if config.plans is None else config.plans
        if not planned:
            return False
        if not all(have):
            lacking = self.datasets[have.index(False)].folder
            hint = "build it with plan=first_sentence, title or given, or set plans=false"
            raise DataError("the dataset has no plans", where=lacking, hint=hint)
        if pairs:
            hint = "set plans=false, or targets=false and no task but continue"
            raise ConfigError("plans and targets exclude each other", where="plans", hint=hint)
        longest = max(int((dataset.metadata.plan or {})["max_paragraph"]) for dataset in self.datasets)
        needed = longest + 2 + config.append_end
        if config.max_length < needed:
            raise ConfigError(
                "too short for a paragraph with its plan and break",
                where="max_length",
                got=config.max_length,
                expected=f"at least {needed}, as the datasets have paragraphs of up to {longest} sentences",
            )
        return True

    def _open(self, seed: int | None) -> list[SourceStream]:
        return [
            SourceStream(dataset, number, options, seed, self.omissions)
            for number, (dataset, options) in enumerate(zip(self.datasets, self._options))
        ]

    def _position(self) -> list[dict[str, int]]:
        return [{**stream.state(), "drawn": drawn} for stream, drawn in zip(self._streams, self._drawn)]

    def _config_key(self) -> str:
        data = self.config.to_dict()
        # A dataset may be moved; sources without a task have the key they always had.
        data["sources"] = [
            [
                *(source.split, source.weight),
                *([source.task, source.prompt] if source.task else []),
                *([] if source.append_end else ["open"]),
            ]
            for source in self.config.sources
        ]
        del data["sentences"]  # the stream is the same with and without its text
        if not self._is_planned:
            del data["plans"], data["break_text"]  # runs without plans have the key they always had
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def _next_micro_batch(self) -> list[ConceptSequence]:
        while True:
            if self._batches is None:
                self._batches = self._draw_pool()
                if self._used > len(self._batches):
                    raise CheckpointError("the data position is damaged", where="data position: used", got=self._used)
            if self._used < len(self._batches):
                self._used += 1
                return self._batches[self._used - 1]
            self._batches = None
            self._pool, self._used, self._start = self._pool + 1, 0, self._position()

    def _window(self) -> int:
        return max(self.config.shuffle_window, 4 * self.config.batch_concepts)

    def _draw_pool(self) -> list[list[ConceptSequence]]:
        """Draw one pool.

        A pool ends when it holds ``shuffle_window`` concepts, or as soon as every source has ended an epoch in it: a
        small dataset must not meet itself in a batch.
        """
        window = self._window()
        weights = [source.weight for source in self.config.sources]
        ended = [False] * len(weights)
        pool: list[ConceptSequence] = []
        concepts = 0
        while concepts < window and not all(ended):
            # The source that is farthest behind its share: exact proportions, nothing to draw by lot.
            number = min(range(len(weights)), key=lambda i: (self._drawn[i] / weights[i], i))
            stream = self._streams[number]
            epoch = stream.epoch
            sequence = stream.next()
            ended[number] |= stream.epoch > epoch
            pool.append(sequence)
            self._drawn[number] += sequence.length
            concepts += sequence.length
        generator = np.random.Generator(np.random.PCG64([self.config.seed, 2, self._pool]))
        shuffled = [pool[i] for i in generator.permutation(len(pool)).tolist()]
        batches = self._cut(sorted(shuffled, key=lambda sequence: sequence.length))
        return [batches[i] for i in generator.permutation(len(batches)).tolist()]

    def _cut(self, sequences: Sequence[ConceptSequence]) -> list[list[ConceptSequence]]:
        """Cut sequences, sorted by length, into batches within the budget."""
        batches: list[list[ConceptSequence]] = []
        current: list[ConceptSequence] = []
        for sequence in sequences:
            if current and sequence.length * (len(current) + 1) > self.config.batch_concepts:
                batches.append(current)
                current = []
            current.append(sequence)
        return [*batches, current] if current else batches

    def _collate(self, sequences: Sequence[ConceptSequence]) -> ConceptBatch:
        import torch

        lengths = [sequence.length for sequence in sequences]
        concepts = np.zeros((len(sequences), max(lengths), self.dim), dtype=np.float32)
        for row, sequence in zip(concepts, sequences):
            start = 0
            for piece in sequence.pieces:
                row[start : start + len(piece)] = piece
                start += len(piece)
        sources = [sequence.source_length for sequence in sequences]
        return ConceptBatch(
            concepts=torch.from_numpy(concepts),
            lengths=torch.tensor(lengths, dtype=torch.int64),
            sample_ids=torch.tensor([sequence.sample_id for sequence in sequences], dtype=torch.int64),
            source_lengths=torch.tensor(sources, dtype=torch.int64) if self.supervised else None,
            sentences=[list(s.sentences or ()) for s in sequences] if self.config.sentences else None,
            languages=[s.lang for s in sequences] if self.config.sentences else None,
            roles=self._roles(sequences, concepts.shape[1]) if self._is_planned else None,
        )

    def _roles(self, sequences: Sequence[ConceptSequence], size: int) -> Tensor:
        import torch

        roles = torch.zeros(len(sequences), size, dtype=torch.int64)
        for row, sequence in zip(roles, sequences):
            row[: sequence.length] = torch.tensor(sequence.roles)
        return roles
