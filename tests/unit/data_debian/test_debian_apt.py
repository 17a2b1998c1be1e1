from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.data.debian import apt
from largeconcept.data.debian.apt import AptTree, Mirror, Package, choose_mirror, parse_packages, read_deb
from largeconcept.data.debian.parts import PARTS, choose_parts
from largeconcept.errors import ConfigError, DataError, DependencyError


@pytest.fixture
def keyring(tmp_path, monkeypatch):
    path = tmp_path / "debian.gpg"
    path.touch()
    monkeypatch.setattr(apt, "DEBIAN_KEYRINGS", (str(path),))
    return str(path)


def test_mirror_of_the_machine(keyring):
    lines = ["http://x.example/debian-security/|bookworm-security|main", "http://x.example/debian/|bookworm|main"]
    assert choose_mirror(lines, ["bookworm"], "debian", None, None) == Mirror("http://x.example/debian", keyring)
    assert choose_mirror(lines, ["trixie"], "debian", None, None).uri == "http://x.example/debian"


def test_ubuntu_needs_a_mirror_and_a_keyring(monkeypatch, keyring):
    lines = ["http://x.example/ubuntu/|noble|main", "http://x.example/ubuntu/|noble|universe"]
    with pytest.raises(ConfigError, match=r"--mirror.*debian-archive-keyring"):
        choose_mirror(lines, ["bookworm"], "ubuntu", None, None)
    found = choose_mirror(lines, ["bookworm"], "ubuntu", "http://y.example/debian/", None)
    assert found == Mirror("http://y.example/debian", keyring)
    monkeypatch.setattr(apt, "DEBIAN_KEYRINGS", ("/none",))
    with pytest.raises(ConfigError, match="keyring"):
        choose_mirror(lines, ["bookworm"], "ubuntu", "http://y.example/debian/", None)
    assert choose_mirror(lines, ["noble"], "ubuntu", None, keyring).uri == "http://x.example/ubuntu"


@pytest.mark.parametrize("mirror", ["no address", "http://x/ y", "http://x\nTypes: deb", ""])
def test_mirror_must_be_an_address(mirror, keyring):
    with pytest.raises(ConfigError, match="not an address"):
        choose_mirror([], ["bookworm"], "debian", mirror, None)


@pytest.mark.parametrize("suite", ["bookworm\nTypes: x", "-o", "a b", ""])
def test_suite_must_be_a_name(suite, keyring):
    with pytest.raises(ConfigError, match="not the name of a suite"):
        choose_mirror([], [suite], "debian", "http://x.example/", None)


def test_missing_keyring_file():
    with pytest.raises(ConfigError, match="no such file"):
        choose_mirror([], ["bookworm"], "debian", "http://x.example/", "/no/such/keyring.gpg")


def test_missing_tool_names_package_and_part(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DependencyError, match=r"part bible.*diatheke.*apt-get install diatheke"):
        apt.need_tool("diatheke", "diatheke", "bible")


def test_parse_packages():
    text = (
        "Package: a\nVersion: 1:2.0\nSize: 12\nSHA256: ff\nDescription: x\n y\n\nPackage: b\nVersion: 1\n\nPackage: c"
    )
    assert list(parse_packages(text.splitlines(True), "s")) == [Package("a", "1:2.0", "s", 12, "ff")]


@given(
    st.lists(st.sampled_from(["Package: a", "Version: 1", "Size: 3", "Size: ³", "SHA256: f", "", " x", ":", "\x00"]))
)
@settings(max_examples=50, deadline=None)
def test_parse_packages_survives_anything(lines):
    for package in parse_packages(lines, "s"):
        assert package.name and package.size == 3


def test_read_deb(tmp_path, deb_factory):
    files = {"usr/share/doc/x/a.html": "A", "usr/share/doc/x/b.png": b"\x89", "usr/share/ü.html": "U"}
    deb = deb_factory(tmp_path, "x", files)
    assert dict(read_deb(deb, lambda name: name.endswith(".html"))) == {
        "usr/share/doc/x/a.html": b"A",
        "usr/share/ü.html": b"U",
    }
    next(read_deb(deb, lambda name: True))  # a reader may stop early
    deb.write_bytes(deb.read_bytes()[:-700])
    with pytest.raises(DataError, match="cannot read the package"):
        list(read_deb(deb, lambda name: True))
    deb.write_bytes(b"not a package")
    with pytest.raises(DataError, match="cannot read the package"):
        list(read_deb(deb, lambda name: True))


def test_parts_are_chosen_by_name():
    assert [p.name for p in choose_parts(["bible", "ddtp"], lean=True)] == ["ddtp", "bible"]
    assert [p.name for p in choose_parts("bible,ddtp", lean=True)] == ["ddtp", "bible"]
    assert {p.name for p in choose_parts(None, lean=False)} == set(PARTS)
    left_out = set(PARTS) - {p.name for p in choose_parts(None, lean=True)}
    assert left_out == {"stellarium", "freeorion", "gnucash", "gnome-more"}
    with pytest.raises(ConfigError, match="did you mean bible"):
        choose_parts(["bibel"], lean=True)
    with pytest.raises(ConfigError, match="no parts"):
        choose_parts([], lean=True)


NAMES = """
libreoffice-help-de libreoffice-help-fr libreoffice-help-en-us libreoffice-help-en-gb libreoffice-help-common
libreoffice-core wesnoth-1.16-did wesnoth-1.16-music wesnoth-1.16-data python3.11-doc python3-doc linux-doc
linux-doc-6.1 debian-faq manpages manpages-dev manpages-de manpages-de-dev manpages-fr-dev manpages-pt-br
"""


def test_patterns_select_packages():
    index = {"old": {}, "new": {name: Package(name, "1", "new", 1, "0") for name in NAMES.split()}}

    def chosen(part, languages=("en", "de", "pt-BR")):
        return [package.name for package in PARTS[part].select(["old", "new"], index, languages)]

    assert chosen("libreoffice-help") == ["libreoffice-help-common", "libreoffice-help-de", "libreoffice-help-en-us"]
    assert chosen("man") == ["manpages", "manpages-de", "manpages-de-dev", "manpages-dev", "manpages-pt-br"]
    assert chosen("man", ["en"]) == ["manpages", "manpages-dev"]
    assert chosen("wesnoth") == ["wesnoth-1.16-did"]
    assert chosen("python-docs") == ["python3.11-doc"]
    assert chosen("kernel-docs") == ["linux-doc-6.1"]
    assert chosen("bible") == []
    assert PARTS["debian-faq"].absent(PARTS["debian-faq"].select(["new"], index, ["en"])) == ["debian-faq-*"]


# ---- a real tree on a small signed repository


def signed_repository(root: Path, debs: list[Path], home: Path) -> Path:
    """Make a repository of ``debs`` for the suite ``sample``; return the keyring."""
    pool, binary = root / "pool", root / "dists/sample/main/binary-amd64"
    for folder in (pool, binary, home):
        folder.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    records = []
    for deb in debs:
        data = deb.read_bytes()
        name, version, _ = deb.name.replace("%3a", ":").split("_")
        (pool / deb.name.replace("%3a", "")).write_bytes(data)
        records.append(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/{deb.name.replace('%3a', '')}\n"
            f"Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\nDescription: a test\n"
        )
    packages = "\n".join(records).encode()
    (binary / "Packages").write_bytes(packages)
    release = (
        "Origin: Test\nSuite: sample\nCodename: sample\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        "Architectures: amd64 all\n"
        f"Components: main\nSHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} "
        "main/binary-amd64/Packages\n"
    )
    (root / "dists/sample/Release").write_text(release)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]
    gpg += ["--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "Test <t@example.org>", "ed25519", "sign", "never"], check=True)
    sign = [*gpg, "--clearsign", "-o", str(root / "dists/sample/InRelease"), str(root / "dists/sample/Release")]
    subprocess.run(sign, check=True)
    keyring = root / "keyring.gpg"
    subprocess.run([*gpg, "--export", "-o", str(keyring)], check=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    return keyring


@pytest.fixture(scope="module")
def repository(tmp_path_factory, deb_factory):
    if not all(map(shutil.which, ("gpg", "gpgv", "apt-get", "dpkg-deb"))):
        pytest.skip("apt-get, dpkg-deb, gpg or gpgv is not installed")
    root = tmp_path_factory.mktemp("repo")
    debs = [
        deb_factory(root, "debian-faq", {"usr/share/doc/debian/FAQ/one.en.html": "<p>It is a question.</p>"}, "1:11.1"),
        deb_factory(root, "other", {"usr/share/x": "x"}),
    ]
    return root, signed_repository(root, debs, tmp_path_factory.mktemp("gpg"))


def test_private_tree_updates_and_downloads(repository, tmp_path):
    root, keyring = repository
    before = sorted(Path("/etc/apt").rglob("*")) if Path("/etc/apt").is_dir() else []
    tree = AptTree(tmp_path / "apt", Mirror(f"file:{root}", str(keyring)), ["sample"], ["en"], True)
    tree.update()
    package = tree.packages()["sample"]["debian-faq"]
    assert package.version == "1:11.1"
    seen = []
    debs = tree.download([package], tmp_path / "debs", lambda done, total: seen.append((done, total)))
    assert debs["debian-faq"].name == "debian-faq_1%3a11.1_all.deb" and seen[-1] == (1, 1)
    assert before == (sorted(Path("/etc/apt").rglob("*")) if Path("/etc/apt").is_dir() else [])

    whole = debs["debian-faq"].read_bytes()
    debs["debian-faq"].write_bytes(whole[:-1] + b"x")  # of the same size
    again = tree.download([package], tmp_path / "debs")
    assert hashlib.sha256(again["debian-faq"].read_bytes()).hexdigest() == package.sha256

    with pytest.raises(DataError, match=r"program failed.*no-such"):
        tree.download([Package("no-such", "1", "sample", 1, "0")], tmp_path / "debs")


def test_a_wrong_signature_and_a_missing_suite_are_refused(repository, tmp_path):
    root, keyring = repository
    other = tmp_path / "repo"
    shutil.copytree(root, other)
    release = other / "dists/sample/InRelease"
    release.write_text(release.read_text().replace("Origin: Test", "Origin: Evil"))
    with pytest.raises(DataError, match=r"(?i)sign|GPG"):
        AptTree(tmp_path / "a", Mirror(f"file:{other}", str(keyring)), ["sample"], [], False).update()
    with pytest.raises(DataError, match="program failed"):
        AptTree(tmp_path / "b", Mirror(f"file:{root}", str(keyring)), ["nosuch"], [], False).update()
