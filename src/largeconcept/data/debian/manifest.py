"""What a corpus was made of: packages with version, size, hash and licence; indexes; counts; hashes of the outputs."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from largeconcept.data.debian.apt import Package, read_deb
from largeconcept.errors import DataError
from largeconcept.io import read_json

FORMAT_VERSION = 1
_LICENCE = re.compile(r"(?mi)^License:[ \t]*(\S[^\n]*)$")


def licences_in(text: str) -> list[str]:
    """Return the licence names of a machine-readable ``copyright`` file, sorted; empty if it names none."""
    return sorted({name.strip() for name in _LICENCE.findall(text)})


def copyright_of(package: str, deb: Path) -> str:
    """Return the ``copyright`` file of a package, empty if it has none of its own (a link to another package's)."""
    wanted = f"usr/share/doc/{package}/copyright"
    for _, data in read_deb(deb, lambda name: name == wanted):
        return data.decode("utf-8", "replace")
    return ""


def tool_versions() -> dict[str, str]:
    """Return the versions of what the result depends on."""
    versions = {"python": platform.python_version()}
    for name in ("largeconcept", "sentencex", "lxml", "rdata"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def describe(package: Package, licences: Sequence[str]) -> dict[str, Any]:
    """Return the entry of a package."""
    return {
        "name": package.name,
        "version": package.version,
        "suite": package.suite,
        "size": package.size,
        "sha256": package.sha256,
        "licences": list(licences) or ["not stated in the package itself"],
    }


def check_pin(path: str | Path, wanted: Mapping[str, Iterable[Package]]) -> None:
    """Compare the packages at hand with those of an earlier manifest.

    Raises:
        CheckpointError: the manifest cannot be read.
        DataError: a package is missing, new or another one than the manifest says.
    """
    data = read_json(path)
    parts = data.get("parts") if isinstance(data, dict) else None
    if not isinstance(parts, dict):
        raise DataError("not the manifest of a corpus", where=path, expected="a mapping with 'parts'")
    for part, packages in wanted.items():
        entry = parts.get(part)
        if not isinstance(entry, dict):
            raise DataError("the pinned corpus has no such part", where=path, got=part)
        pinned = {p["name"]: p for p in entry.get("packages", ()) if isinstance(p, dict) and "name" in p}
        ours = {package.name: package for package in packages}
        for name in sorted(set(pinned) | set(ours)):
            if name not in ours or name not in pinned or ours[name].sha256 != pinned[name].get("sha256"):
                raise DataError(
                    "a package is not the pinned one",
                    where=f"{part}: {name}",
                    expected=pinned[name].get("version") if name in pinned else "no such package",
                    got=ours[name].version if name in ours else "no such package",
                    hint="build without the pin to take what the mirror has now",
                )
