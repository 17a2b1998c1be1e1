"""A private apt tree: own sources, lists and cache in one folder; nothing of the system's own set-up changes.

The system's apt configuration is read (proxies, certificates), then overridden by a file that points every folder into
the private tree. Packages are chosen from the signed index and checked against its SHA-256 after the download.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from largeconcept.errors import ConfigError, DataError, DependencyError
from largeconcept.io import atomic_write_text

ARCHITECTURE = "amd64"
"""The index that every machine reads, so that all build the same corpus (texts do not depend on it)."""

DEBIAN_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
_SUITE = re.compile(r"^[a-z0-9][a-z0-9.+_-]*$")
_URI = re.compile(r"^[a-z][a-z0-9+.-]*:/\S*$")
_CHUNK = 12
"""Packages a download call: few enough to report progress, enough to be quick."""
_LARGEST_MEMBER = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where packages come from, and the keyring that signs them (``None``: the keys that apt trusts already)."""

    uri: str
    keyring: str | None


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the index."""

    name: str
    version: str
    suite: str
    size: int
    sha256: str

    @property
    def file_prefix(self) -> str:
        """How apt names the downloaded file, up to the architecture."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_"


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A downloaded index: ``Packages``, ``Translations`` or ``DEP-11``."""

    kind: str
    path: Path
    suite: str
    lang: str


def need_tool(name: str, package: str, part: str | None = None) -> str:
    """Return the path of a program.

    Raises:
        DependencyError: it is not installed; names the part that needs it and the package that brings it.
    """
    found = shutil.which(name)
    if found is None:
        raise DependencyError(
            f"the program {name!r} is not installed",
            where=f"part {part}" if part else None,
            hint=f"on Debian or Ubuntu run: apt-get install {package}",
        )
    return found


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> bytes:
    """Run a program without input and return what it printed.

    Raises:
        DataError: it failed; the message holds its last line of complaint.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in said if line.startswith("E:")] or said
        raise DataError(
            "the program failed",
            where=" ".join(str(word) for word in command[:1]),
            got=errors[-1] if errors else f"exit status {done.returncode}",
        )
    return done.stdout


def choose_mirror(
    targets: Iterable[str], suites: Sequence[str], distribution: str, mirror: str | None, keyring: str | None
) -> Mirror:
    """Return the mirror to use.

    Args:
        targets: lines ``uri|suite|component`` of the machine's own sources.
        suites: the suites wanted.
        distribution: ``ID`` of the machine's ``os-release``.
        mirror, keyring: what the user gave, if anything.

    Raises:
        ConfigError: no mirror was given and the machine's sources are not for these suites; or no keyring.
    """
    if mirror is not None and not _URI.match(mirror):
        raise ConfigError("not an address of a mirror", where="mirror", got=mirror, expected="scheme://host/path")
    for suite in suites:
        if not _SUITE.match(suite):
            raise ConfigError("not the name of a suite", where="suites", got=suite)
    uri = mirror
    if uri is None:
        sources = [tuple(line.strip().split("|")) for line in targets]
        main = [(s[0], s[1]) for s in sources if len(s) == 3 and s[2] == "main"]
        same = [u for u, suite in main if suite in suites]
        if distribution == "debian":  # every suite of Debian lies on every mirror of Debian
            same += [u for u, suite in main if not suite.endswith("-security")]
        if not same:
            raise ConfigError(
                "this machine's apt sources have none of the suites",
                where="suites",
                got=", ".join(suites),
                hint="give the address of a Debian mirror (--mirror) and install the package debian-archive-keyring",
            )
        uri = same[0]
    if keyring is None:
        keyring = next((path for path in DEBIAN_KEYRINGS if Path(path).is_file()), None)
        if keyring is None and distribution != "debian":
            raise ConfigError(
                "no keyring to check Debian's signatures with",
                where="keyring",
                hint="run: apt-get install debian-archive-keyring, or give the file (--keyring)",
            )
    elif not Path(keyring).is_file():
        raise ConfigError("no such file", where="keyring", got=keyring)
    return Mirror(uri.rstrip("/"), keyring)


def find_mirror(suites: Sequence[str], mirror: str | None, keyring: str | None) -> Mirror:
    """Return the mirror for ``suites`` on this machine; see :func:`choose_mirror`."""
    apt_get = need_tool("apt-get", "apt")
    targets: list[str] = []
    if mirror is None:
        shown = run(
            [apt_get, "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Identifier: Packages"]
        )
        targets = shown.decode("utf-8", "replace").splitlines()
    return choose_mirror(targets, suites, distribution_id(), mirror, keyring)


def distribution_id(path: str = "/etc/os-release") -> str:
    """Return ``ID`` of the machine's distribution, empty if it is not known."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r'(?m)^ID="?([\w.-]+)"?\s*$', text)
    return match.group(1) if match else ""


def _quoted(value: object) -> str:
    text = str(value)
    if any(c in text for c in '"\n\\'):
        raise ConfigError("the name of a folder cannot be written into an apt configuration", where="cache", got=text)
    return f'"{text}"'


class AptTree:
    """A private apt tree in ``folder``.

    Args:
        folder: where sources, lists and cache go.
        mirror: where packages come from.
        suites: for example ``bookworm``.
        translations: languages of package descriptions, as apt names them (``pt_BR``).
        catalogues: whether the AppStream catalogues are fetched too.
    """

    def __init__(
        self, folder: Path, mirror: Mirror, suites: Sequence[str], translations: Sequence[str], catalogues: bool
    ) -> None:
        self.folder, self.suites = folder.absolute(), tuple(suites)
        self._apt_get = need_tool("apt-get", "apt")
        self._write(mirror, translations, catalogues)

    def _write(self, mirror: Mirror, translations: Sequence[str], catalogues: bool) -> None:
        root = self.folder
        for name in ("state/lists/partial", "cache/archives/partial", "etc/empty"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "state/status").touch()
        signed = f"Signed-By: {mirror.keyring}\n" if mirror.keyring else ""
        atomic_write_text(
            root / "etc/corpus.sources",
            f"Types: deb\nURIs: {mirror.uri}\nSuites: {' '.join(self.suites)}\nComponents: main\n{signed}",
        )
        places = {
            "Dir::State": root / "state",
            "Dir::State::lists": root / "state/lists",
            "Dir::State::status": root / "state/status",
            "Dir::Cache": root / "cache",
            "Dir::Cache::archives": root / "cache/archives",
            "Dir::Etc::sourcelist": root / "etc/corpus.sources",
            "Dir::Etc::sourceparts": root / "etc/empty",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": root / "etc/empty",
            "APT::Architecture": ARCHITECTURE,
            "Acquire::GzipIndexes": "false",
            "Acquire::Retries": "3",
        }
        if os.geteuid() == 0:  # the unprivileged download user cannot write into a private folder
            places["APT::Sandbox::User"] = "root"
        languages = " ".join(f'"{code}";' for code in translations) or '"none";'
        lines = [f"{key} {_quoted(value)};" for key, value in places.items()]
        lines += ["#clear APT::Architectures;", f'APT::Architectures {{ "{ARCHITECTURE}"; }};']
        lines += ["#clear Acquire::Languages;", f"Acquire::Languages {{ {languages} }};"]
        lines += ["#clear Acquire::IndexTargets::deb::DEP-11;"]
        if catalogues:
            lines += [
                "Acquire::IndexTargets::deb::DEP-11 {",
                f'  MetaKey "$(COMPONENT)/dep11/Components-{ARCHITECTURE}.yml";',
                '  ShortDescription "Components"; Description "$(RELEASE)/$(COMPONENT) component metadata";',
                '  KeepCompressed "true"; KeepCompressedAs "gz"; DefaultEnabled "true"; Optional "yes";',
                "};",
            ]
        lines += [
            f'Acquire::IndexTargets::deb::{name}::DefaultEnabled "false";'
            for name in ("DEP-11-icons", "DEP-11-icons-small", "DEP-11-icons-large", "DEP-11-icons-hidpi",
                         "DEP-11-icons-large-hidpi", "CNF", "Contents-deb")
        ]  # fmt: skip
        atomic_write_text(root / "apt.conf", "\n".join(lines) + "\n")

    def _call(self, *words: str, cwd: Path | None = None) -> bytes:
        return run([self._apt_get, "-q", "-c", self.folder / "apt.conf", *words], cwd=cwd)

    def update(self) -> None:
        """Fetch the indexes.

        Raises:
            DataError: a suite could not be fetched or its signature is not good.
        """
        self._call("-o", "APT::Update::Error-Mode=any", "update")
        got = {index.suite for index in self.indexes() if index.kind == "Packages"}
        missing = [suite for suite in self.suites if suite not in got]
        if missing:
            raise DataError("the mirror has no index of the suite", where="apt-get update", got=", ".join(missing))

    def indexes(self) -> list[IndexFile]:
        """Return the index files that are there, in a fixed order."""
        shown = self._call("indextargets", "--format", "$(IDENTIFIER)|$(FILENAME)|$(RELEASE)|$(LANGUAGE)")
        found = []
        for line in shown.decode("utf-8", "replace").splitlines():
            kind, name, suite, lang = [*line.split("|"), "", "", "", ""][:4]
            if kind in {"Packages", "Translations", "DEP-11"} and Path(name).is_file():
                found.append(IndexFile(kind, Path(name), suite, "" if lang.startswith("$") else lang))
        order = {suite: rank for rank, suite in enumerate(self.suites)}
        return sorted(found, key=lambda i: (order.get(i.suite, len(order)), i.kind, i.lang, str(i.path)))

    def packages(self) -> dict[str, dict[str, Package]]:
        """Return suite -> name -> package."""
        found: dict[str, dict[str, Package]] = {suite: {} for suite in self.suites}
        for index in self.indexes():
            if index.kind == "Packages" and index.suite in found:
                with index.path.open(encoding="utf-8", errors="replace") as lines:
                    for package in parse_packages(lines, index.suite):
                        found[index.suite].setdefault(package.name, package)
        return found

    def download(
        self, wanted: Sequence[Package], folder: Path, progress: Callable[[int, int], object] | None = None
    ) -> dict[str, Path]:
        """Download packages that are not there yet; return name -> file. Every file has the index's SHA-256.

        Raises:
            DataError: a package could not be fetched, or its content is not what the index says.
        """
        folder.mkdir(parents=True, exist_ok=True)
        done: dict[str, Path] = {}
        missing = []
        for package in wanted:
            path = find_download(folder, package)
            if path is not None:
                done[package.name] = path
            else:
                missing.append(package)
        if progress is not None:
            progress(len(done), len(wanted))
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            self._call("download", *(f"{p.name}={p.version}" for p in chunk), cwd=folder)
            for package in chunk:
                path = find_download(folder, package)
                if path is None:
                    raise DataError(
                        "the downloaded package is not what the index says",
                        where=f"{package.name} {package.version}",
                        expected=f"{package.size} bytes, sha256 {package.sha256[:12]}…",
                        hint="delete the cache folder and build again",
                    )
                done[package.name] = path
            if progress is not None:
                progress(len(done), len(wanted))
        return done


def parse_packages(lines: Iterable[str], suite: str) -> Iterator[Package]:
    """Yield the packages of a ``Packages`` index; records without a name, version or hash are passed over."""
    fields: dict[str, str] = {}

    def record() -> Iterator[Package]:
        if all(fields.get(key) for key in ("Package", "Version", "SHA256")) and fields.get("Size", "").isdecimal():
            yield Package(fields["Package"], fields["Version"], suite, int(fields["Size"]), fields["SHA256"])

    for raw in lines:
        line = raw.rstrip("\r\n")
        if not line:
            yield from record()
            fields = {}
        elif line[0] not in " \t":
            key, separator, value = line.partition(":")
            if separator and key in {"Package", "Version", "Size", "SHA256"}:
                fields[key] = value.strip()
    yield from record()


def find_download(folder: Path, package: Package) -> Path | None:
    """Return the file of ``package`` in ``folder`` if it is there and whole; a damaged one is deleted."""
    for path in sorted(folder.glob(f"{_escape(package.file_prefix)}*.deb")):
        if path.stat().st_size == package.size and sha256_of(path) == package.sha256:
            return path
        path.unlink()
    return None


def _escape(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_deb(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a ``.deb`` that ``wanted`` accepts; nothing is unpacked to disk.

    Names have no leading ``./``. Links, devices and files over 64 MiB are passed over.

    Raises:
        DataError: the package is damaged.
        DependencyError: ``dpkg-deb`` is missing.
    """
    command = [need_tool("dpkg-deb", "dpkg"), "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./").lstrip("/")
                    if member.isreg() and member.size <= _LARGEST_MEMBER and wanted(name):
                        file = archive.extractfile(member)
                        if file is not None:
                            yield name, file.read()
            while process.stdout.read(1 << 16):  # the padding behind the archive
                pass
        except tarfile.TarError as error:
            process.kill()
            raise DataError("cannot read the package", where=path.name, got=error) from None
        except GeneratorExit:
            process.kill()
            raise
    if process.returncode != 0:
        raise DataError("cannot read the package", where=path.name, got=f"dpkg-deb: exit status {process.returncode}")
