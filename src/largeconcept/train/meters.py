"""What a run tells: running means, ``metrics.jsonl``, TensorBoard, and a progress bar or log lines."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from largeconcept.io import atomic_write_text

METRICS_FILE = "metrics.jsonl"


class Meters:
    """Weighted means since the last report, exact across a resume.

    A mean is Σ sum / Σ count, so a step with more targets weighs more. The state is plain JSON; Python writes floats so
    that they read back bit for bit.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        """Take in a sum over ``count`` things."""
        entry = self._sums.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += count

    def take(self) -> dict[str, float]:
        """Return the means and start anew; names without a count are left out."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Return the running sums."""
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Continue from running sums."""
        self._sums = {name: [float(total), float(count)] for name, (total, count) in state.items()}


class MetricWriter:
    """Appends one JSON object a line to ``metrics.jsonl``, and scalars to TensorBoard where it is installed.

    Args:
        out: run folder.
        resume_step: lines after this step, and a last line that was cut by a kill, are removed first.
        tensorboard: whether to write event files, if the package is there.
    """

    def __init__(self, out: str | Path, resume_step: int = 0, tensorboard: bool = True) -> None:
        self.path = Path(out) / METRICS_FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewind(resume_step)
        self._file = self.path.open("a", encoding="utf-8")
        self.has_tensorboard = False
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                pass
            else:
                self._board = SummaryWriter(str(Path(out) / "tensorboard"), purge_step=resume_step + 1)
                self.has_tensorboard = True

    def write(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Write one line; not-a-number becomes ``null``."""
        line = {"step": step, **{k: _json_number(v) for k, v in values.items()}}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _rewind(self, step: int) -> None:
        if self.path.exists():
            kept = [line for line in read_lines(self.path) if line["step"] <= step]
            atomic_write_text(self.path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the complete lines of a ``metrics.jsonl``; a line that a kill cut short is dropped."""
    lines = []
    for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _json_number(value: float | int | str) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Reporter:
    """A progress bar on a terminal, one log line a report elsewhere, silence when told so.

    Args:
        total: steps of the whole run.
        done: steps already made before a resume.
        enabled: ``False`` shows nothing.
        title: what the bar says in front.
    """

    def __init__(self, total: int, done: int = 0, enabled: bool = True, title: str = "train") -> None:
        self._total = total
        self._title = title
        self._enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._console: Any = None
        self._start = time.monotonic()
        self._first = done
        if not enabled:
            return
        from rich.console import Console

        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        if self._console.is_terminal:
            self._bar = self._build_bar()
            self._task = self._bar.add_task(title, total=total, completed=done, loss="", rate="")

    def _build_bar(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def wants_every_step(self) -> bool:
        """Whether :meth:`step` shows anything."""
        return self._bar is not None

    def step(self, step: int, loss: float, concepts_per_second: float) -> None:
        """Move the bar; on anything but a terminal nothing happens."""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, loss=f"loss {loss:.4g}", rate=f"{concepts_per_second:,.0f} concepts/s"
            )

    def report(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Print one line of values where there is no bar."""
        if self._enabled and self._bar is None:
            left = (time.monotonic() - self._start) / max(step - self._first, 1) * (self._total - step)
            shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
            self.say(f"{self._title} {step}/{self._total}  {shown}  left {_clock(left)}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._enabled:
            self._console.print(text, markup=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
