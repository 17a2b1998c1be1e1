"""The folder of a split while it is built: who may write, what is there already, and what it was built from.

``build.json`` is written first (``"status": "building"`` and all settings, with a hash of each input file) and last
(``"status": "finished"`` with the report and the list of shards). It holds no time, and input files by name only, so
equal builds give equal bytes wherever they run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from largeconcept.data.documents import Skipped
from largeconcept.data.schema import MANIFEST, PREFIX, open_shard
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.io import read_json, sync_folder, write_json

FORMAT_VERSION = 1
_OVERWRITE = "choose another folder, or overwrite it"


@dataclass(slots=True)
class ShardFacts:
    """Facts of one shard, kept in its file metadata."""

    documents: int = 0
    concepts: int = 0
    consumed: int = 0  # documents of the input, refused ones included
    skipped: list[Skipped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> str:
        """Return the text for the file metadata."""
        data = {
            "documents": self.documents,
            "concepts": self.concepts,
            "consumed": self.consumed,
            "skipped": [asdict(item) for item in self.skipped],
            "counts": dict(self.counts),
        }
        return json.dumps(data, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ShardFacts:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        skipped = [Skipped(**item) for item in data["skipped"]]
        return cls(data["documents"], data["concepts"], data["consumed"], skipped, Counter(data["counts"]))


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make ``folder`` and hold it, so that two builds never mix; the lock dies with the process.

    Raises:
        ConfigError: another build holds it, and ``wait`` is not set.
        DataError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError("cannot write into the folder", where=folder, got=error.strerror) from None
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ConfigError("another build is writing into the folder", where=folder) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


class BuildFolder:
    """One split's folder; ``settings`` is everything that its content depends on, input included."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
        self.folder, self.settings = folder, json.loads(text)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]

    def open(self, overwrite: bool) -> dict[str, Any] | None:
        """Prepare the folder; return the manifest if this very build is finished already.

        Raises:
            DataError: the folder holds something else and ``overwrite`` is not set.
        """
        manifest_path = self.folder / MANIFEST
        manifest: dict[str, Any] | None = None
        if manifest_path.exists():
            try:
                manifest = read_json(manifest_path)
            except CheckpointError as error:
                if not overwrite:
                    raise DataError(error.problem, where=manifest_path, got=error.got, hint=_OVERWRITE) from None
        shards = sorted(self.folder.glob("*.parquet"))
        same = isinstance(manifest, dict) and manifest.get("settings") == self.settings
        if not same and (manifest is not None or shards):
            if not overwrite:
                raise self._other(manifest)
            for path in [manifest_path, *shards]:  # the manifest first: without it nobody resumes a half-deleted split
                path.unlink(missing_ok=True)
            sync_folder(self.folder)
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        if same and manifest is not None and manifest.get("status") == "finished":
            whole = all((self.folder / shard["name"]).is_file() for shard in manifest["shards"])
            if whole:
                return manifest
        self.write_manifest({"status": "building"})
        return None

    def _other(self, manifest: Any) -> DataError:
        old = manifest.get("settings") if isinstance(manifest, dict) else None
        if not isinstance(old, dict):
            return DataError("the folder holds shards of unknown origin", where=self.folder, hint=_OVERWRITE)
        name = next(n for n in (*self.settings, *old) if old.get(n) != self.settings.get(n))
        got, expected = self.settings.get(name), old.get(name)
        if name == "inputs":
            got, expected = "other input files, or changed ones", "the input it was begun with"
        problem = "the folder was built with other settings"
        return DataError(problem, where=f"{self.folder}: {name}", expected=expected, got=got, hint=_OVERWRITE)

    def write_manifest(self, rest: dict[str, Any]) -> None:
        """Write ``build.json`` atomically, the settings included."""
        try:
            manifest = {"format_version": FORMAT_VERSION, **rest, "settings": self.settings}
            write_json(self.folder / MANIFEST, manifest)
        except OSError as error:
            raise DataError("cannot write into the folder", where=self.folder, got=error.strerror) from None

    def metadata(self, facts: ShardFacts) -> dict[str, str]:
        """Return what a shard's file metadata holds beside the schema's own."""
        return {"build": self.key, "shard": facts.to_json()}

    def finished_shard(self, path: Path) -> ShardFacts | None:
        """Return the facts of a shard that is there, whole, and of this build."""
        if not path.exists():
            return None
        try:
            raw = open_shard(path).schema_arrow.metadata or {}
            if raw.get(f"{PREFIX}build".encode()) == self.key.encode():
                return ShardFacts.from_json(raw[f"{PREFIX}shard".encode()].decode())
        except (DataError, KeyError, TypeError, ValueError):
            pass  # damaged on disk after it was written: it is made again
        return None
