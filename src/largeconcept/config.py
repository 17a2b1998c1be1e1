"""Typed configuration: pydantic models that refuse unknown keys and name the nearest valid one.

A configuration is frozen data. It is read from YAML, changed by ``key.path=value`` overrides, written back as YAML, and
hashed; nothing is interpolated and nothing is evaluated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from largeconcept.errors import ConfigError, did_you_mean


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: ``3e-4`` is a float (PyYAML reads it as a string)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str = "yaml") -> Any:
    """Parse YAML text into plain data.

    Raises:
        ConfigError: when the text is not valid YAML; names line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more number format
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark is not None else where
        raise ConfigError("not valid YAML", where=place, got=getattr(error, "problem", None) or str(error)) from error


class Config(BaseModel):
    """Base of every configuration: frozen, strict about keys, with YAML, overrides and a hash."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    @classmethod
    def from_dict(cls, data: object, where: str = "") -> Self:
        """Build the configuration from plain data.

        Raises:
            ConfigError: an unknown key (with the nearest valid one) or an invalid value, with its path.
        """
        if not isinstance(data, Mapping):
            raise ConfigError("not a mapping", where=where or cls.__name__, got=type(data).__name__)
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise _translate(cls, error, where) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read the configuration from a YAML (or JSON) file.

        Raises:
            ConfigError: the file is missing, not text, not YAML, or does not describe this configuration.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cannot read the configuration", where=path, got=error) from None
        return cls.from_dict(parse_yaml(text, str(path)), where=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` reads back."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return YAML text that ``from_yaml`` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """Return a 16-digit hash of the content; equal configurations hash equally."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def override(self, *assignments: str) -> Self:
        """Return a copy with ``key.path=value`` assignments applied, values read as YAML.

        Lists are replaced, mappings are replaced when a mapping is given.

        Raises:
            ConfigError: an assignment without ``=``, an unknown key, or an invalid value.
        """
        data = self.to_dict()
        for assignment in assignments:
            key, separator, value = assignment.partition("=")
            if not separator or not key.strip():
                raise ConfigError("not an override", got=assignment, expected="key.path=value")
            _assign(data, key.strip(), parse_yaml(value, key))
        return type(self).from_dict(data)


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    node: Any = data
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        path = ".".join(parts[: depth + 1])
        if not isinstance(node, dict) or part not in node:
            valid = list(node) if isinstance(node, dict) else []
            raise ConfigError("unknown key", where=path, hint=_hint(parts[:depth], part, valid))
        if node[part] is None:
            node[part] = {}
        node = node[part]
    if not isinstance(node, dict):
        raise ConfigError("not a group of settings", where=".".join(parts[:-1]))
    node[parts[-1]] = value


def _hint(prefix: list[str], part: str, valid: list[str]) -> str:
    lead = "".join(f"{p}." for p in prefix)
    return did_you_mean(lead + part, [lead + v for v in valid])


def _translate(cls: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    """Turn pydantic's first complaint into one line: path, what was got, what is valid."""
    first = error.errors(include_url=False)[0]
    location = [str(p) for p in first["loc"]]
    path = ".".join(location)
    place = f"{where}: {path}" if where and path else (path or where or cls.__name__)
    if first["type"] == "extra_forbidden":
        valid = _fields_at(cls, location[:-1])
        named = [p for p in location[:-1] if not _is_tag(p, cls)]
        return ConfigError("unknown key", where=place, hint=_hint(named, location[-1], valid))
    if first["type"] == "missing":
        return ConfigError("a required key is missing", where=place)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    got = first.get("input")
    simple = isinstance(got, str | int | float | bool | list | tuple) or got is None
    return ConfigError(message, where=place, got=repr(got) if simple else type(got).__name__)


def _is_tag(part: str, cls: type[BaseModel]) -> bool:
    return part not in cls.model_fields and any(
        part == getattr(field.default, "type", None) for field in cls.model_fields.values()
    )


def _fields_at(cls: type[BaseModel], location: list[str]) -> list[str]:
    """Names of the fields of the model at ``location``; a discriminator tag in the path picks the union's member."""
    candidates: list[type[BaseModel]] = [cls]
    for part in location:
        inner: list[type[BaseModel]] = []
        for model in candidates:
            if part in model.model_fields:
                inner.extend(_models_in(model.model_fields[part].annotation))
        if inner:
            candidates = inner
            continue
        tagged = [m for m in candidates if "type" in m.model_fields and m.model_fields["type"].default == part]
        candidates = tagged or candidates
    return sorted({name for model in candidates for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
