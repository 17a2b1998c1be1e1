"""One family of errors for the whole library.

Every error says *where* it happened, what was *got*, what was *expected* and what to do *next*. The command line prints
``str(error)`` on one line and exits with status 2; code that uses the library catches :class:`ConceptLMError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 1000  # characters of a message


class ConceptLMError(Exception):
    """Base class of every error that a user of the library can cause.

    Args:
        problem: what is wrong, in a few words, without a full stop.
        where: a path, a configuration key, a file and line, a tensor name.
        got: the offending value (shortened to 120 characters in the message).
        expected: what would have been accepted.
        hint: the next step for the user.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: object | None = None,
        got: object | None = None,
        expected: object | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.where = where
        self.got = got
        self.expected = expected
        self.hint = hint
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [f"{self.where}: {self.problem}" if self.where is not None else self.problem]
        if self.expected is not None:
            parts.append(f"expected {shorten(self.expected)}")
        if self.got is not None:
            parts.append(f"got {shorten(self.got)}")
        if self.hint is not None:
            parts.append(self.hint)
        return shorten("; ".join(parts), _LONGEST)


class ConfigError(ConceptLMError):
    """A configuration, an argument or a combination of settings is not valid."""


class DataError(ConceptLMError):
    """An input file, a document, a dataset or a tensor breaks a promise of its format."""


class CheckpointError(ConceptLMError):
    """A saved model, codec, pipeline or training state cannot be read or does not fit."""


class LanguageError(ConceptLMError):
    """A language is unknown, or the codec at hand cannot read or write it."""


class DependencyError(ConceptLMError):
    """An optional package is missing; the message holds the command that installs it."""


class TrainingError(ConceptLMError):
    """Training cannot go on (non-finite loss on every rank, an empty dataset, …)."""


def shorten(value: object, limit: int = 120) -> str:
    """Return ``str(value)`` on one line, with control characters escaped, cut to ``limit`` characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """Return the valid word most like ``word``, or ``None`` when nothing is close."""
    matches = difflib.get_close_matches(word[:200], list(valid), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return a hint that names the nearest valid word, or lists up to twelve valid ones."""
    choices = list(valid)
    match = nearest(word, choices)
    if match is not None:
        return f"did you mean {match}?"
    if not choices:
        return "there is nothing to choose from"
    listed = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"valid: {listed}"


def missing_extra(package: str, extra: str) -> DependencyError:
    """Return the error for an optional package that is not installed."""
    return DependencyError(
        f"the package {package!r} is not installed", hint=f"run: pip install 'largeconcept[{extra}]'"
    )
