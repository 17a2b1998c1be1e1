from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from largeconcept.config import Config, parse_yaml
from largeconcept.errors import ConfigError


class Small(Config):
    type: Literal["small"] = "small"
    width: int = 3


class Large(Config):
    type: Literal["large"] = "large"
    rate: float = 1e-3
    inner: Small = Small()

    @field_validator("rate")
    @classmethod
    def _positive(cls, rate: float) -> float:
        if rate <= 0:
            raise ValueError("rate must be positive")
        return rate


class Source(Config):
    path: str
    weight: float = 1.0


class Run(Config):
    model: Annotated[Small | Large, Field(discriminator="type")] = Large()
    lr: float = 1e-3
    steps: int = Field(default=10, ge=1)
    name: str = "run"
    lang: str | None = None
    resume: bool = True
    betas: tuple[float, float] = (0.9, 0.95)
    sources: tuple[Source, ...] = (Source(path="a"), Source(path="b"))
    tables: dict[str, Large] = Field(default={})
    teacher: Large | None = None


def refused(match: str) -> Any:
    return pytest.raises(ConfigError, match="^" + re.escape(match))


# Unknown keys and wrong values


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stepz": 1}, "stepz: unknown key; did you mean steps?"),
        ({"model": {"type": "large", "rat": 1}}, "model.rat: unknown key; did you mean model.rate?"),
        ({"model": {"type": "small", "widht": 1}}, "model.widht: unknown key; did you mean model.width?"),
        (
            {"model": {"type": "large", "inner": {"widht": 1}}},
            "model.inner.widht: unknown key; did you mean model.inner.width?",
        ),
        (
            {"sources": [{"path": "a"}, {"path": "b", "wieght": 2}]},
            "sources.1.wieght: unknown key; did you mean sources.1.weight?",
        ),
        ({"tables": {"large": {"rat": 1}}}, "tables.large.rat: unknown key; did you mean tables.large.rate?"),
        ({"teacher": {"rat": 1}}, "teacher.rat: unknown key; did you mean teacher.rate?"),
        ({"zzz": 1}, "zzz: unknown key; valid: betas, lang, lr,"),
        ({"sources": [{"weight": 2}]}, "sources.0.path: a required key is missing"),
        ({"model": {"rate": 1}}, "model.type: a required key is missing; expected one of large, small"),
        ({"model": {"type": "lage"}}, "model.type: unknown type; got lage; did you mean large?"),
        ({"model": 5}, "model: "),
        ({"model": {"type": "large", "rate": -1}}, "model.rate: rate must be positive; got -1"),
        ({"steps": "ten"}, "steps: Input should be a valid integer"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1; got 0"),
        ({"betas": [1]}, "betas.1: a required key is missing"),
        ([1], "Run: not a mapping; got list"),
        (None, "Run: not a mapping; got NoneType"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(data: object, message: str) -> None:
    with refused(message):
        Run.from_dict(data)


def test_the_file_is_named_too() -> None:
    with refused("here.yaml: model.inner.widht: unknown key; did you mean model.inner.width?"):
        Run.from_dict({"model": {"type": "large", "inner": {"widht": 1}}}, where="here.yaml")


def test_making_one_in_python_gives_the_same_errors() -> None:
    with refused("Run: stepz: unknown key; did you mean steps?"):
        Run(stepz=3)  # type: ignore[call-arg]
    with refused("Run: model.inner.widht: unknown key"):
        Run(model={"type": "large", "inner": {"widht": 1}})  # type: ignore[arg-type]
    assert Run(steps=3).steps == 3


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Run().lr = 3.0  # type: ignore[misc]


# Overrides


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("lr=3e-4", "lr", 3e-4),
        ("lr=3E-4", "lr", 3e-4),
        ("lr=.5", "lr", 0.5),
        ("lr=1", "lr", 1.0),
        ("lr=.inf", "lr", math.inf),
        ("steps=1e3", "steps", 1000),
        ("steps=1_000", "steps", 1000),
        ("steps=012", "steps", 12),
        ("steps = 7", "steps", 7),
        ("name=a=b", "name", "a=b"),
        ("name='12'", "name", "12"),
        ("name=2020-01-01", "name", "2020-01-01"),
        ("name=1:30", "name", "1:30"),
        ("lang=no", "lang", "no"),
        ("lang=on", "lang", "on"),
        ("lang=null", "lang", None),
        ("lang=~", "lang", None),
        ("lang=", "lang", None),
        ("resume=false", "resume", False),
        ("resume=no", "resume", False),
        ("betas=[0.8, 0.9]", "betas", (0.8, 0.9)),
        ("model.inner.width=5", "model.inner.width", 5),
        ("model={type: small, width: 5}", "model", Small(width=5)),
        ("model.type=small", "model", Small()),
        ("sources=[{path: c}]", "sources", (Source(path="c"),)),
        ("sources.1.weight=3", "sources.1.weight", 3.0),
        ("teacher.rate=0.5", "teacher", Large(rate=0.5)),
        ("teacher.inner.width=5", "teacher", Large(inner=Small(width=5))),
        ("tables={a: {rate: 2}}", "tables", {"a": Large(rate=2)}),
    ],
)
def test_an_override_is_read_as_yaml(assignment: str, path: str, value: object) -> None:
    before = Run()
    node: Any = before.override(assignment)
    assert isinstance(node, Run)
    for part in path.split("."):
        node = node[int(part)] if part.isdecimal() else getattr(node, part)
    assert node == value
    assert type(node) is type(value)
    assert before == Run()


def test_overrides_are_applied_in_order_after_a_new_type() -> None:
    assert Run().override("lr=1", "lr=2").lr == 2.0
    assert Run().override("model.width=5", "model.type=small").model == Small(width=5)
    assert Run().override("model.type=large", "model.rate=2").model == Large(rate=2)  # the same type keeps its settings
    assert Run().override("model.rate=2", "model.type=large").model == Large(rate=2)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lr", "not an override; expected key.path=value; got lr"),
        ("=3", "not an override"),
        ("", "not an override"),
        ("lrr=3", "lrr: unknown key; did you mean lr?"),
        ("modl.rate=3", "modl: unknown key; did you mean model?"),
        ("model.iner.width=3", "model.iner: unknown key; did you mean model.inner?"),
        ("model.inner.widht=3", "model.inner.widht: unknown key; did you mean model.inner.width?"),
        ("teacher.iner.width=3", "teacher.iner: unknown key; did you mean teacher.inner?"),
        ("lr.x=3", "lr: not a group of settings"),
        ("model.inner.width.x=3", "model.inner.width: not a group of settings"),
        ("sources.2.path=c", "sources.2: no such item; got a list of 2"),
        ("sources.-1.path=c", "sources.-1: no such item; got a list of 2"),
        ("sources.x=c", "sources.x: no such item; got a list of 2"),
        ("sources.0.pth=c", "sources.0.pth: unknown key; did you mean sources.0.path?"),
        ("model.type=huge", "model.type: unknown type; got huge; valid: large, small"),
        ("lr=[1", "lr:1:3: not valid YAML"),
        ("lr=fast", "lr: Input should be a valid number"),
        ("model..rate=3", "model.: unknown key"),
    ],
)
def test_a_wrong_override_is_refused(assignment: str, message: str) -> None:
    with refused(message):
        Run().override(assignment)


# YAML


def test_the_scalars_of_yaml() -> None:
    text = "[3e-4, 1e3, 1., .5, -2, +3, 010, 1_0, yes, No, off, 1:30, 0x10, 2020-01-01, null, ~, True, "
    text += ".nan, .inf, 1e, e1, .]"
    expected = [3e-4, 1e3, 1.0, 0.5, -2, 3, 10, 10, "yes", "No", "off", "1:30", "0x10", "2020-01-01", None, None, True]
    found = parse_yaml(text)
    assert found[:17] == expected
    assert [type(a) for a in found[:17]] == [type(b) for b in expected]
    assert math.isnan(found[17]) and found[18] == math.inf
    assert found[19:] == ["1e", "e1", "."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr: 1\nlr: 2\n", ":2:1: not valid YAML; got the key 'lr' is given twice"),
        (b"a: b: c", ":1:5: not valid YAML"),
        (b"name: \x00", ": not valid YAML"),
        (b"\xff\xfe\x00", ": cannot read the configuration"),
        (b"name: !!python/object/apply:os.system [exit]", ":1:7: not valid YAML"),
        (b"[" * 2_000, ": nested too deeply"),
        (b"steps: " + b"1" * 10_000, ": not valid YAML"),
        (b"", ": not a mapping; got NoneType"),
        (b"- a", ": not a mapping; got list"),
        (b"? [a]\n: b", ":1:3: not valid YAML"),
        (b"stepz: 1", ": stepz: unknown key; did you mean steps?"),
        (b"model: {type: large, rtae: 3}", ": model.rtae: unknown key; did you mean model.rate?"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with refused(f"{path}{message}") as caught:
        Run.from_yaml(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with refused(f"{path}: cannot read the configuration"):
            Run.from_yaml(path)


any_text = st.text(st.characters(), max_size=20)
runs = st.builds(
    Run,
    model=st.one_of(
        st.builds(Small, width=st.integers(-(10**12), 10**12)),
        st.builds(Large, rate=st.floats(min_value=1e-300, allow_nan=False)),
    ),
    lr=st.floats(allow_nan=False),
    name=st.one_of(
        any_text,
        st.sampled_from(["3e-4", "no", "010", "0o7", "1:30", "~", "", "- a", "#", " a ", "\x85", "<<", "=", "1_0"]),
    ),
    lang=st.none() | any_text,
    resume=st.booleans(),
    tables=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.builds(Large), max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(runs)
def test_yaml_there_and_back(run: Run) -> None:
    again = Run.from_dict(parse_yaml(run.to_yaml()))
    assert again == run
    assert again.hash() == run.hash()
    assert Run.from_dict(run.to_dict()) == run


def test_a_written_file_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(Run(name="Größe").to_yaml(), encoding="utf-8")
    assert Run.from_yaml(path) == Run(name="Größe")
    assert "Größe" in path.read_text(encoding="utf-8")
    path.write_text(json.dumps(Run().to_dict()))
    assert Run.from_yaml(str(path)) == Run()


# Hash


def test_the_hash_depends_on_the_content_alone() -> None:
    # The number is part of the format of checkpoints: it may not change with versions or processes.
    assert Small().hash() == "ddb4c281cf8dadb1"
    assert Run().hash() == Run(lr=0.001, steps=10).hash() == Run.from_dict({"steps": 10, "lr": 1e-3}).hash()
    assert Run.from_dict({"lr": 1}).hash() == Run(lr=1.0).hash()
    tables = {"a": Large(), "b": Large()}
    assert Run(tables=tables).hash() == Run(tables=dict(reversed(tables.items()))).hash()
    others = [Run(lr=2e-3), Run(name="x"), Run(model=Small()), Run(sources=()), Run(lang="en")]
    assert len({run.hash() for run in [Run(), *others]}) == 6


def test_the_hash_is_the_same_in_another_process() -> None:
    code = (
        "from typing import Literal; from largeconcept.config import Config\n"
        "class Small(Config):\n    type: Literal['small'] = 'small'\n    width: int = 3\n"
        "print(Small().hash())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Small().hash()
