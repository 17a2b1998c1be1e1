"""The whole build on packages made on the spot; only apt itself is replaced (test_debian_apt.py runs the real one)."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import lzma
import shutil
from pathlib import Path

import pytest

pytest.importorskip("lxml")

from largeconcept.data.debian import build, build_corpus, manifest
from largeconcept.data.debian.apt import IndexFile, Mirror, Package, sha256_of
from largeconcept.data.debian.assemble import Assembler, Counts, Split
from largeconcept.data.debian.parts import PARTS
from largeconcept.data.debian.text import DEFAULT_LANGUAGES, Pair
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError, DataError, DependencyError, LanguageError

COPYRIGHT = "Format: x\n\nFiles: *\nLicense: GPL-2+\n some text\n"


def page(*paragraphs: str) -> str:
    return "<html><body><h1>Title</h1>" + "".join(f"<p>{p}</p>" for p in paragraphs) + "</body></html>"


ENGLISH = page(
    "The system is free for everybody. It was written by many people.",
    "This paragraph is not translated at all. It stays English in all versions.",
    "Nobody owns it, and nobody can sell it.",
)
GERMAN = page(
    "Das System ist für alle frei. Es wurde von vielen Leuten geschrieben.",
    "This paragraph is not translated at all. It stays English in all versions.",
    "Es gehört niemandem, und niemand kann es verkaufen.",
)
SECOND = page("Nobody owns it, and nobody can sell it.", "A second page says something new. It does so twice in a row.")
TRANSLATION = """Package: hello
Description-md5: 0123456789abcdef0123456789abcdef
Description-{lang}: {synopsis}
 {first}
 .
 {second}

"""


class FakeTree:
    """Packages out of a folder, indexes out of another."""

    pool = Path()
    updates = 0

    def __init__(self, folder, mirror, suites, translations, catalogues):
        self.folder, self.suites = Path(folder), suites
        self.folder.mkdir(parents=True, exist_ok=True)
        self.translations, self.catalogues = translations, catalogues

    def update(self):
        type(self).updates += 1

    def indexes(self):
        found = [
            IndexFile("Translations", p, "sample", p.name.partition("-")[2]) for p in self.pool.glob("Translation-*")
        ]
        return sorted((i for i in found if i.lang in self.translations), key=lambda i: i.lang)

    def packages(self):
        found = {}
        for deb in sorted(self.pool.glob("*.deb")):
            name, version, _ = deb.name.replace("%3a", ":").split("_")
            found[name] = Package(name, version, "sample", deb.stat().st_size, sha256_of(deb))
        return {"sample": found}

    def download(self, wanted, folder, progress=None):
        done = {}
        for package in wanted:
            deb = next(self.pool.glob(f"{package.name}_*.deb"))
            done[package.name] = Path(shutil.copy(deb, folder))
            progress(len(done), len(wanted))
        return done


@pytest.fixture(scope="module")
def pool(tmp_path_factory, deb_factory):
    folder = tmp_path_factory.mktemp("pool")
    faq = "usr/share/doc/debian/FAQ"
    english = {f"{faq}/one.en.html": ENGLISH, f"{faq}/two.en.html": SECOND, f"{faq}/logo.png": b"\x89"}
    deb_factory(folder, "debian-faq", {**english, "usr/share/doc/debian-faq/copyright": COPYRIGHT})
    deb_factory(folder, "debian-faq-de", {f"{faq}/de/one.de.html": GERMAN, f"{faq}/de/odd.de.html": "<p>"})
    deb_factory(folder, "manpages", {"usr/share/man/man1/x.1.gz": gzip.compress(b".TH X\n.SH NAME\nx \\- is x\n")})
    texts = {
        "en": ("greets you", "This program greets you kindly.", "It does nothing else at all."),
        "de": ("grüßt Sie", "Dieses Programm grüßt Sie freundlich.", "Es tut gar nichts anderes."),
    }
    for lang, (synopsis, first, second) in texts.items():
        text = TRANSLATION.format(lang=lang, synopsis=synopsis, first=first, second=second)
        (folder / f"Translation-{lang}").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def fake_apt(monkeypatch, pool):
    monkeypatch.setattr(FakeTree, "pool", pool)
    monkeypatch.setattr(FakeTree, "updates", 0)
    monkeypatch.setattr(build, "AptTree", FakeTree)
    monkeypatch.setattr(build, "find_mirror", lambda *_: Mirror("file:/nowhere", None))


def run(out: Path, **more):
    settings = {"suites": ["sample"], "parts": ["debian-faq", "ddtp"], "languages": ["en", "de"], **more}
    return build_corpus(out, **settings)


def documents(out: Path) -> list[dict]:
    with lzma.open(out / "documents.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def digest(out: Path) -> dict[str, str]:
    files = [p for p in out.rglob("*") if p.is_file() and "cache" not in p.parts]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_documents_pairs_and_manifest(tmp_path):
    told = []
    report = run(tmp_path, progress=lambda done, total, unit: told.append((done, total, unit)))
    rows = documents(tmp_path)
    assert [(r["src"], r["lang"], r["id"]) for r in rows] == [
        ("ddtp", "en", "hello:01234567"),
        ("ddtp", "de", "hello:01234567"),
        ("debfaq", "en", "one"),
        ("debfaq", "en", "two"),
        ("debfaq", "de", "one"),
    ]
    assert rows[1]["summary"] == "grüßt Sie" and rows[1]["title"] == "hello"
    assert rows[2]["title"] == "Title"
    assert rows[3]["sents"] == ["A second page says something new.", "It does so twice in a row."], (
        "repeated paragraphs go"
    )
    assert rows[4]["sents"] == [
        "Das System ist für alle frei.",
        "Es wurde von vielen Leuten geschrieben.",
        "Es gehört niemandem, und niemand kann es verkaufen.",
    ], "what is not translated goes"
    with lzma.open(tmp_path / "pairs.tsv.xz", "rt", encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("\t") for line in lines]
    assert ["ddtp", "de", "It does nothing else at all.", "Es tut gar nichts anderes."] in pairs
    assert ["debfaq", "de", "The system is free for everybody.", "Das System ist für alle frei."] in pairs
    assert len(pairs) == report.pairs == 5
    assert (report.documents, report.sentences, report.summaries) == (5, sum(len(r["sents"]) for r in rows), 2)
    assert report.parts["debian-faq"].packages == 2 and report.languages["de"]["documents"] == 2
    assert {unit for _, _, unit in told} == {"indexes", "packages", "parts read", "parts written"}

    about = json.loads((tmp_path / "manifest.json").read_text())
    assert about["parts"]["debian-faq"]["packages"][0]["licences"] == ["GPL-2+"]
    assert about["parts"]["debian-faq"]["packages"][1]["licences"] == ["not stated in the package itself"]
    assert about["outputs"]["documents.jsonl.xz"]["sha256"] == sha256_of(tmp_path / "documents.jsonl.xz")
    assert (tmp_path / "licences" / "debian-faq.txt").read_text() == COPYRIGHT
    assert not list(tmp_path.rglob("*.tmp"))
    json.dumps(report.to_dict())


def test_same_packages_give_the_same_bytes_and_the_cache_is_used(tmp_path, monkeypatch):
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    rows = next((tmp_path / "a" / "cache" / "rows").glob("ddtp-*.gz")).read_bytes()
    assert rows[4:8] == bytes(4), "no time in the file"
    updates = FakeTree.updates

    def never(*_):
        raise AssertionError("the rows are in the cache")

    monkeypatch.setattr(build, "read_part", never)
    run(tmp_path / "a")
    assert FakeTree.updates == updates
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


class Stop(BaseException):
    """The user pressed a key, or the machine went down."""


@pytest.mark.parametrize("stage", ["packages", "parts read", "parts written"])
def test_a_stopped_build_leaves_nothing_half_written_and_goes_on(tmp_path, stage):
    def stop(done, total, unit):
        if unit == stage and done == 1:
            raise Stop

    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "stopped", progress=stop)
    assert digest(tmp_path / "stopped") == {}
    assert not list(tmp_path.rglob("*.tmp"))
    run(tmp_path / "stopped")
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")


def test_an_earlier_corpus_stays_whole_when_a_new_build_stops(tmp_path):
    run(tmp_path / "x", languages=["en"])
    before = digest(tmp_path / "x")

    def stop(done, total, unit):
        if unit == "parts written" and done == 1:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "x", progress=stop)
    assert digest(tmp_path / "x") == before


def test_languages(tmp_path):
    only = run(tmp_path / "de", languages=["deu_Latn"])
    assert {r["lang"] for r in documents(tmp_path / "de")} == {"de"}
    assert only.pairs == 5, "English is read for the pairs all the same"
    assert build.normalise_languages(None) == DEFAULT_LANGUAGES
    assert build.normalise_languages(["por_Latn", "en"]) == ("en", "pt", "pt-BR")
    assert build.normalise_languages(["pt-BR", "zho_Hans"]) == ("pt-BR", "zh-CN")
    with pytest.raises(LanguageError):
        run(tmp_path / "bad", languages=["klingonese"])
    with pytest.raises(ConfigError, match="no languages"):
        run(tmp_path / "bad", languages=[])
    assert not (tmp_path / "bad").exists()


def test_missing_tool_is_refused_by_part_or_skipped_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"part debian-faq.*lxml.*largeconcept\[corpus\].*--skip-missing"):
        run(tmp_path)
    report = run(tmp_path, skip_missing=True)
    assert list(report.parts) == ["ddtp"] and "lxml" in report.skipped["debian-faq"]
    with pytest.raises(DependencyError, match="no part can be built"):
        run(tmp_path, parts=["debian-faq"], skip_missing=True)


def test_missing_packages_are_refused_by_part_or_skipped_when_asked(tmp_path):
    parts = ["ddtp", "debian-history"]
    with pytest.raises(DataError, match=r"part debian-history: the suites have none.*--skip-missing"):
        run(tmp_path, parts=parts)
    report = run(tmp_path, parts=parts, skip_missing=True)
    assert set(report.skipped) == {"debian-history"}
    assert json.loads((tmp_path / "manifest.json").read_text())["skipped"] == report.skipped


def test_pin(tmp_path):
    run(tmp_path / "a")
    pin = tmp_path / "a" / "manifest.json"
    run(tmp_path / "b", pin=pin)
    data = json.loads(pin.read_text())
    data["parts"]["debian-faq"]["packages"][0]["sha256"] = "0" * 64
    pin.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"debian-faq: debian-faq: a package is not the pinned one"):
        run(tmp_path / "b", pin=pin)
    pin.write_text("{}")
    with pytest.raises(DataError, match="not the manifest"):
        run(tmp_path / "b", pin=pin)
    with pytest.raises(CheckpointError, match="file not found"):
        run(tmp_path / "b", pin=tmp_path / "none.json")
    with pytest.raises(DataError, match="no such part"):
        manifest.check_pin(_written(tmp_path / "c.json", {"parts": {}}), {"x": []})


def _written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_unusable_arguments(tmp_path):
    (tmp_path / "file").write_text("x")
    for more in ({"suites": []}, {"suites": "sample"}, {"parts": ["no"]}, {"cache": tmp_path / "file"}):
        with pytest.raises(ConfigError):
            run(tmp_path / "out", **more)
    with pytest.raises(ConfigError, match="is a file"):
        run(tmp_path / "file")


def test_damaged_cache_and_package_are_named(tmp_path, monkeypatch, pool):
    run(tmp_path)
    rows = next((tmp_path / "cache" / "rows").glob("debian-faq-*.gz"))
    rows.write_bytes(rows.read_bytes()[:40])
    with pytest.raises(DataError, match=r"cached rows.*delete the file"):
        run(tmp_path)
    other = tmp_path / "pool"
    shutil.copytree(pool, other)
    deb = next(other.glob("debian-faq-de_*"))
    deb.write_bytes(deb.read_bytes()[:200])
    monkeypatch.setattr(FakeTree, "pool", other)
    with pytest.raises(ConceptLMError, match="debian-faq-de"):
        run(tmp_path / "fresh")
    assert digest(tmp_path / "fresh") == {}


# ---- assembly by itself


def sentence(number: int) -> str:
    name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    return f"This is the sentence with the name {name}."


def assemble(rows, part="debian-faq", languages=("en", "de")):
    counts = Counts()
    lines = list(Assembler(languages).assemble(PARTS[part], rows, counts))
    return [json.loads(text) for kind, text in lines if kind == "document"], counts


def test_long_documents_become_windows_and_nothing_is_lost():
    sentences = [f"This is sentence number {'x' * (n % 50)} of many {'y' * (n // 50)}." for n in range(150)]
    one = [Split("p", "en", "long", None, None, [sentences])]
    rows, counts = assemble(one)
    assert [len(r["sents"]) for r in rows] == [64, 64, 22]
    assert {r["id"] for r in rows} == {"long"}, "a split by the hash of the id keeps them together"
    assert [s for r in rows for s in r["sents"]] == sentences
    assert counts.sentences["en"] == 150


def test_a_single_sentence_is_no_document():
    rows, counts = assemble([Split("p", "en", "short", None, None, [[sentence(1)]])])
    assert rows == [] and counts.documents.total() == 0


def test_cap_takes_documents_by_hash_not_by_name():
    many = [Split("p", "en", f"d{n:03}", None, None, [[sentence(n + 1), sentence(n + 500)]]) for n in range(200)]
    capped = dataclasses.replace(PARTS["kernel-docs"], cap=60)
    counts = Counts()
    lines = [json.loads(t) for _, t in Assembler(["en"]).assemble(capped, many, counts)]
    assert counts.sentences["en"] == 60
    ids = [row["id"] for row in lines]
    assert ids == sorted(ids) and ids != [f"d{n:03}" for n in range(30)]


def test_verses_become_pairs_once():
    verse = Pair("es", "In the beginning was the Word there.", "En el principio era el Verbo allí.")
    counts = Counts()
    lines = list(Assembler(["en", "es"]).assemble(PARTS["bible"], [verse, verse, Pair("es", "Amen.", "Amén.")], counts))
    assert lines == [("pair", f"bible\tes\t{verse.english}\t{verse.other}\n")]
    assert counts.pairs["es"] == 1
