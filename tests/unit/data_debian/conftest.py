"""Small Debian packages, made on the spot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_deb(folder: Path, name: str, files: dict[str, bytes | str], version: str = "1.0-1") -> Path:
    """Build a package that holds ``files`` and return it, named as apt names a download."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    root = folder / f"root-{name}"
    for path, data in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Test <t@example.org>\nDescription: a test\n"
    )
    deb = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(deb)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(root)
    return deb


@pytest.fixture(scope="session")
def deb_factory():
    return make_deb
