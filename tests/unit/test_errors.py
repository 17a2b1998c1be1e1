from __future__ import annotations

import pickle

import pytest

from largeconcept import errors
from largeconcept.errors import ConceptLMError, ConfigError, did_you_mean, missing_extra, nearest, shorten


def test_a_message_says_where_got_expected_and_what_next() -> None:
    error = ConfigError("not a number", where="a.yaml: lr", got="fast", expected="a number", hint="write lr: 3e-4")
    assert str(error) == "a.yaml: lr: not a number; expected a number; got fast; write lr: 3e-4"
    assert (error.problem, error.where, error.got) == ("not a number", "a.yaml: lr", "fast")
    assert (error.expected, error.hint) == ("a number", "write lr: 3e-4")


def test_parts_that_are_missing_leave_no_trace() -> None:
    assert str(ConceptLMError("broken")) == "broken"
    assert str(ConceptLMError("broken", got=0)) == "broken; got 0"
    assert str(ConceptLMError("broken", got="")) == "broken; got "


def test_a_message_is_one_short_line_whatever_it_holds() -> None:
    nasty = "a\nb\r\x1b[31m\ud800\u2028" + "x" * 100_000
    message = str(ConceptLMError("broken\nhere", where=nasty, got=nasty, expected=nasty, hint=nasty))
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) <= 1000
    message.encode()


@pytest.mark.parametrize(
    "name", ["ConfigError", "DataError", "CheckpointError", "LanguageError", "DependencyError", "TrainingError"]
)
def test_one_family(name: str) -> None:
    assert issubclass(getattr(errors, name), ConceptLMError)


def test_an_error_survives_the_way_between_processes() -> None:
    error = ConfigError("not a number", where="lr", got="fast", hint="write 3e-4")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConfigError
    assert str(again) == str(error)
    assert (again.problem, again.where, again.got, again.hint) == ("not a number", "lr", "fast", "write 3e-4")


def test_shorten() -> None:
    assert shorten("plain") == "plain"
    assert shorten("a\tb\x00é\ud800") == r"a\tb\x00é\ud800"
    assert shorten("x" * 200) == "x" * 119 + "…"
    assert shorten("x" * 9, limit=9) == "x" * 9
    assert shorten("x" * 10, limit=9) == "x" * 8 + "…"
    assert shorten(None) == "None"


def test_the_nearest_word() -> None:
    assert nearest("learing_rate", ["warmup", "learning_rate"]) == "learning_rate"
    assert nearest("zzz", ["warmup", "learning_rate"]) is None
    assert nearest("word" * 100_000, ["word"]) is None


def test_a_hint_names_the_nearest_or_lists_some() -> None:
    assert did_you_mean("widht", ["width", "depth"]) == "did you mean width?"
    assert did_you_mean("zzz", ["width", "depth"]) == "valid: width, depth"
    assert did_you_mean("zzz", [str(n) for n in range(13)]).endswith("10, 11, …")
    assert did_you_mean("zzz", (word for word in ["width"])) == "valid: width"
    assert did_you_mean("zzz", []) == "there is nothing to choose from"


def test_a_missing_package_comes_with_its_command() -> None:
    assert str(missing_extra("wtpsplit", "sat")) == (
        "the package 'wtpsplit' is not installed; run: pip install 'largeconcept[sat]'"
    )
