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
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from largeconcept.errors import ConfigError, did_you_mean

# What plain YAML scalars mean: the core schema of YAML 1.2. PyYAML follows 1.1, where `3e-4` is a string, `no` (the
# language) is false, 1:30 is 90 and 010 is 8.
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+0123456789.")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
)


class _Loader(yaml.SafeLoader):
    """Reads the scalars above and refuses a key that is given twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would not read as a string."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def _read_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _write_str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Written plainly, these line breaks would be read as spaces.
    style = '"' if any(c in text for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Loader.add_constructor("tag:yaml.org,2002:int", _read_int)
_Dumper.add_representer(str, _write_str)


def parse_yaml(text: str, where: str = "yaml") -> Any:
    """Parse YAML text into plain data, with the scalars of YAML 1.2.

    Raises:
        ConfigError: when the text is not valid YAML, or gives a key twice; names line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with other scalars
    except RecursionError:
        raise ConfigError("nested too deeply", where=where) from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark is not None else where
        raise ConfigError("not valid YAML", where=place, got=getattr(error, "problem", None) or str(error)) from error


class Config(BaseModel):
    """Base of every configuration: frozen, strict about keys, with YAML, overrides and a hash.

    Raises:
        ConfigError: when made with an unknown key or an invalid value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    if not TYPE_CHECKING:  # for a type checker the fields are the arguments

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise _translate(type(self), error, type(self).__name__) from None

        # Tells pydantic that it need not call this for nested models: their errors then keep the whole path.
        __init__.__pydantic_base_init__ = True

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
        return yaml.dump(self.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """Return a 16-digit hash of the content; equal configurations hash equally."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def override(self, *assignments: str) -> Self:
        """Return a copy with ``key.path=value`` assignments applied, values read as YAML.

        A list or mapping given as a value replaces the old one; ``key.0.name=value`` changes one item of a list. A new
        ``type`` of a group replaces the group by the defaults of that type, before anything else is set.

        Raises:
            ConfigError: an assignment without ``=``, an unknown key, or an invalid value.
        """
        data = self.to_dict()
        pairs = []
        for assignment in assignments:
            key, separator, value = assignment.partition("=")
            if not separator or not key.strip():
                raise ConfigError("not an override", got=assignment, expected="key.path=value")
            pairs.append((key.strip(), parse_yaml(value, key)))
        # A new type starts from its own defaults, so it goes before the settings of the same group.
        for key, value in sorted(pairs, key=lambda pair: pair[0].rpartition(".")[2] != "type"):
            _assign(data, key, value)
        return type(self).from_dict(data)


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    node: Any = data
    parts = key.split(".")
    unset = False  # inside a group that was None: validation knows its keys
    for depth, part in enumerate(parts):
        path = ".".join(parts[: depth + 1])
        last = depth == len(parts) - 1
        index: Any = part
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                raise ConfigError("no such item", where=path, got=f"a list of {len(node)}")
            index = int(part)
        elif not isinstance(node, dict):
            raise ConfigError("not a group of settings", where=".".join(parts[:depth]))
        elif part not in node and not last:
            if not unset:
                raise ConfigError("unknown key", where=path, hint=_hint(parts[:depth], part, list(node)))
            node[part] = {}
        if not last:
            if node[index] is None:
                node[index] = {}
                unset = True
            node = node[index]
        elif part == "type" and isinstance(node, dict) and node.get("type") != value:
            node.clear()  # the settings of another type
            node["type"] = value
        else:
            node[index] = value


def _hint(prefix: list[str], part: str, valid: list[str]) -> str:
    lead = "".join(f"{p}." for p in prefix)
    return did_you_mean(lead + part, [lead + v for v in valid])


def _translate(cls: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    """Turn pydantic's first complaint into one line: path, what was got, what is valid."""
    first = error.errors(include_url=False)[0]
    location = [str(p) for p in first["loc"]]
    named, models = _resolve(cls, location)
    path = ".".join(named)
    place = f"{where}: {path}" if where and path else (path or where or cls.__name__)
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        valid = sorted({name for model in models for name in model.model_fields})
        return ConfigError("unknown key", where=place, hint=_hint(named[:-1], named[-1], valid))
    if kind == "missing":
        return ConfigError("a required key is missing", where=place)
    got = first.get("input")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        valid = sorted(str(field.default) for model in models if (field := model.model_fields.get("type")))
        if kind == "union_tag_not_found":
            return ConfigError(
                "a required key is missing", where=f"{place}.type", expected=f"one of {', '.join(valid)}"
            )
        tag = str(context.get("tag"))
        return ConfigError("unknown type", where=f"{place}.type", got=tag, hint=did_you_mean(tag, valid))
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    simple = isinstance(got, str | int | float | bool | list | tuple) or got is None
    return ConfigError(message, where=place, got=repr(got) if simple else type(got).__name__)


def _resolve(cls: type[BaseModel], location: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """Return a pydantic location as the user wrote it, and the models that its last part belongs to or holds.

    pydantic puts the tag of a discriminated union into the path; here it only picks the member.
    """
    named: list[str] = []
    models: list[type[BaseModel]] = [cls]
    for part in location:
        inner = [m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part])]
        tagged = [m for m in models if "type" in m.model_fields and m.model_fields["type"].default == part]
        if not inner and tagged and len(models) > 1:
            models = tagged
            continue
        named.append(part)
        models = inner or models
    return named, models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field, or a type such as ``list[A | B]``, may hold."""
    if isinstance(annotation, FieldInfo):
        return _models_in(annotation.annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
