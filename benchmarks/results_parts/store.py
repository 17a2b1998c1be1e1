"""Results as they come, on disk: a part is measured once for its inputs, and one that was stopped goes on.

    OUT/PART-KEY.json            what a part found, and about it
    OUT/pieces/PART-KEY/….json   what it has found so far
    OUT/work/PART-KEY/…          raw outputs

The key is a hash of all that a part depends on: weights, texts, limits, seed, versions. What was measured on other
inputs has another name and is never read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from largeconcept.eval.metrics import METRICS
from largeconcept.eval.records import digest, git_revision, machine, now
from largeconcept.eval.tasks import TASKS
from largeconcept.io import read_json, write_json
from largeconcept.version import __version__
from results_parts.inputs import Inputs


class Store:
    """Where the results of one set of inputs lie.

    Args:
        out: the folder.
        inputs: what the keys are made of.
        say: called with a line of progress.
    """

    def __init__(self, out: Path, inputs: Inputs, say: Callable[[str], object] = print) -> None:
        self.out, self.inputs, self.say = out, inputs, say

    def key(self, part: str, version: int, uses: Sequence[str], limits: Sequence[str]) -> str:
        """Return what identifies a part's result.

        Args:
            part: its name.
            version: raised whenever its figures change.
            uses: options it depends on.
            limits: the names of the limits it depends on.
        """
        given = self.inputs
        known = {name: given.fingerprints[name] for name in uses if name in given.fingerprints}
        chosen = {name: asdict(given.limits)[name] for name in limits}
        versions = {name: info.version for name, info in TASKS.items()}
        metrics = {name: info.version for name, info in METRICS.items()}
        return digest([part, version, known, chosen, given.split, given.seed, versions, metrics, __version__])[:12]

    def path(self, part: str, key: str) -> Path:
        """Return the file of a part's result."""
        return self.out / f"{part}-{key}.json"

    def find(self, part: str, key: str) -> dict[str, Any] | None:
        """Return the result of a part for these inputs, if it was measured."""
        path = self.path(part, key)
        found = read_json(path) if path.is_file() else None
        return found if isinstance(found, dict) and found.get("key") == key else None

    def once(self, part: str, key: str, measure: Callable[[Piece], Any]) -> dict[str, Any]:
        """Return the result of a part; measure it where it is not there."""
        found = self.find(part, key)
        if found is not None:
            self.say(f"{part}: there already")
            return found
        began = time.perf_counter()
        piece = Piece(self, part, key)
        data = measure(piece)
        found = {
            "part": part,
            "key": key,
            "created": now(),
            "seconds": round(piece.seconds, 1),
            "machine": machine(),
            "git": git_revision(),
            "library_version": __version__,
            "seed": self.inputs.seed,
            "data": data,
        }
        write_json(self.path(part, key), found)
        self.say(f"{part}: {time.perf_counter() - began:.0f} s")
        return found


class Piece:
    """The pieces of a part that is being measured."""

    def __init__(self, store: Store, part: str, key: str) -> None:
        self.store, self.part, self.key = store, part, key
        self.seconds = 0.0

    def __call__(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return a piece; measure it where it is not there."""
        path = self.store.out / "pieces" / f"{self.part}-{self.key}" / f"{plain(name)}.json"
        if path.is_file():
            found: Any = read_json(path)
        else:
            began, worked = time.perf_counter(), time.process_time()
            data = measure()
            seconds, processor = time.perf_counter() - began, time.process_time() - worked
            found = {"seconds": round(seconds, 2), "processor_seconds": round(processor, 2), "data": data}
            write_json(path, found)
            self.store.say(f"{self.part}: {name}: {seconds:.1f} s, {processor:.1f} s of processor time")
        self.seconds += found["seconds"]
        return found["data"]

    def folder(self, name: str) -> Path:
        """Return a folder for raw outputs of a piece."""
        return self.store.out / "work" / f"{self.part}-{self.key}" / plain(name)


def plain(name: str) -> str:
    """Return a name that any file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
