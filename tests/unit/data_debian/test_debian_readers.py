"""Every reader on a package made on the spot: the right files, languages and ids."""

from __future__ import annotations

import gzip
import stat
import struct
import sys
import zlib
from pathlib import Path

import pytest

from largeconcept.data.debian.apt import IndexFile
from largeconcept.data.debian.parts import PARTS
from largeconcept.data.debian.readers import READERS, Material, read_part
from largeconcept.data.debian.text import Pair, Row
from largeconcept.errors import DataError


def read(part: str, tmp_path: Path, debs=(), languages=("en", "de", "pt-BR"), indexes=()) -> list[Row | Pair]:
    material = Material([(d.name.split("_")[0], d) for d in debs], indexes, frozenset(languages), tmp_path / "files")
    return list(read_part(PARTS[part], material))


def ids(rows: list[Row | Pair]) -> list[tuple[str, str, str]]:
    return [(row.package, row.lang, row.id) for row in rows]


def test_every_part_has_a_reader():
    assert {part.reader for part in PARTS.values()} == set(READERS)


PAGE = "<html><body><div id='DisplayArea'><h1>T</h1><p>It is said here.</p></div><p>Outside.</p></body></html>"


@pytest.mark.parametrize(
    ("part", "path", "lang", "document_id"),
    [
        ("libreoffice-help", "usr/share/libreoffice/help/pt-BR/text/swriter/main.html", "pt-BR", "swriter/main.html"),
        ("debian-handbook", "usr/share/doc/debian-handbook/html/de-DE/sect.x.html", "de", "sect.x.html"),
        ("installation-guide", "usr/share/doc/installation-guide-amd64/de/ch01s01.html", "de", "ch01s01.html"),
        ("installation-guide", "usr/share/doc/installation-guide-amd64/en/ch02.html.gz", "en", "ch02.html"),
        ("debian-reference", "usr/share/debian-reference/ch01.en.html", "en", "ch01"),
        ("debian-faq", "usr/share/doc/debian/FAQ/ch01.en.html", "en", "ch01"),
        ("debian-faq", "usr/share/doc/debian/FAQ/de/ch01.de.html", "de", "ch01"),
        ("debian-history", "usr/share/doc/debian-history/docs/intro.de.html", "de", "intro"),
        ("live-manual", "usr/share/doc/live-manual/html/live-manual/about.de.html", "de", "about"),
        ("lilypond", "usr/share/doc/lilypond/html/Documentation/usage/x.de.html", "de", "Documentation/usage/x"),
        ("lilypond", "usr/share/doc/lilypond/html/Documentation/usage/x.html", "en", "Documentation/usage/x"),
        ("anarchism", "usr/share/doc/anarchism/html/secA.html", "en", "secA.html"),
        ("python-docs", "usr/share/doc/python3.11/html/library/os.html", "en", "library/os.html"),
        ("kernel-docs", "usr/share/doc/linux-doc-6.1/html/mm/x.html", "en", "mm/x.html"),
        ("stellarium", "usr/share/stellarium/skycultures/x/description.de.utf8", "de", "skycultures/x/description"),
    ],
)  # fmt: skip
def test_html_pages(tmp_path, deb_factory, part, path, lang, document_id):
    pytest.importorskip("lxml")
    content = gzip.compress(PAGE.encode()) if path.endswith(".gz") else PAGE
    deb = deb_factory(tmp_path, "book", {path: content, "usr/share/doc/book/fr/other.html": PAGE})
    (row,) = read(part, tmp_path, [deb])
    assert (row.package, row.lang, row.id) == ("book", lang, document_id)
    assert row.paragraphs[0] == "It is said here."
    assert ("Outside." in row.paragraphs) == (part != "libreoffice-help")


def test_languages_that_are_not_wanted_and_double_copies_are_passed_over(tmp_path, deb_factory):
    pytest.importorskip("lxml")
    root = "usr/share/doc/lilypond/html/Documentation"
    deb = deb_factory(tmp_path, "lily", {f"{root}/x.fr.html": PAGE, f"{root}/x-big-page.de.html": PAGE})
    assert read("lilypond", tmp_path, [deb]) == []


def test_help_pages(tmp_path, deb_factory):
    pytest.importorskip("lxml")
    mallard = "<page xmlns='http://projectmallard.org/1.0/'><title>T</title><p>Start &kappname; now.</p></page>"
    files = {
        "usr/share/help/C/app/one.page": mallard,
        "usr/share/help/de/app/one.page": mallard,
        "usr/share/help/de/app/legal.xml": mallard,
        "usr/share/help/de/app/picture.png": b"\x89",
    }
    rows = read("gnome", tmp_path, [deb_factory(tmp_path, "app-data", files)])
    assert sorted(ids(rows)) == [("app-data", "de", "app/one.page"), ("app-data", "en", "app/one.page")]
    assert rows[0].paragraphs == ("Start app now.",)
    docbook = "<book><para>Start it now.</para></book>"
    deb = deb_factory(tmp_path, "kapp", {"usr/share/doc/HTML/pt_BR/kapp/index.docbook": docbook})
    assert ids(read("kde", tmp_path, [deb])) == [("kapp", "pt-BR", "kapp/index.docbook")]


def test_manuals(tmp_path, deb_factory):
    roff = gzip.compress(b".TH LS 1\n.SH NAME\nls \\- lists things\n.PP\nIt lists them.\n")
    files = {
        "usr/share/man/man1/ls.1.gz": roff,
        "usr/share/man/de/man1/ls.1.gz": roff,
        "usr/share/man/man1/damaged.1.gz": b"no",
    }
    rows = read("man", tmp_path, [deb_factory(tmp_path, "manpages", files)])
    assert sorted(ids(rows)) == [("manpages", "de", "ls.1"), ("manpages", "en", "ls.1")]
    assert rows[0].summary == "lists things"


def catalogue(source: str, target: str) -> bytes:
    a, b = source.encode(), target.encode()
    table = struct.pack("<4I", len(a), 44, len(b), 45 + len(a))
    return struct.pack("<7I", 0x950412DE, 0, 1, 28, 36, 0, 0) + table + a + b"\0" + b + b"\0"


def test_campaigns(tmp_path, deb_factory):
    root = "usr/share/games/wesnoth/1.16"
    message = "You came to the old forest."
    more = (message, "Nobody translated this so far.", "Nor did anybody translate this.")
    files = {
        f"{root}/data/campaigns/X/01_start.cfg": f'story = _ "{message}"',
        f"{root}/data/campaigns/X/empty.cfg": "x = 1",
        f"{root}/data/campaigns/X/02_next.cfg": "\n".join(f'story = _ "{m}"' for m in more),
        f"{root}/locale/de/LC_MESSAGES/wesnoth-x.mo": catalogue(message, "Ihr kamt in den alten Wald."),
        f"{root}/locale/pt_BR/LC_MESSAGES/wesnoth-x.mo": catalogue("Another message.", "Outra mensagem."),
        f"{root}/locale/fr/LC_MESSAGES/wesnoth-x.mo": catalogue(message, "Vous voilà."),
    }
    rows = read("wesnoth", tmp_path, [deb_factory(tmp_path, "wesnoth-1.16-x", files)])
    assert [(r.lang, r.id, r.paragraphs) for r in rows] == [
        ("en", "X/01_start.cfg", (message,)),
        ("de", "X/01_start.cfg", ("Ihr kamt in den alten Wald.",)),
        ("en", "X/02_next.cfg", more),
    ], "a scenario of which less than a half is translated is left out"


def test_crawl_and_stringtables(tmp_path, deb_factory):
    root = "usr/share/crawl/dat/descript"
    text = "%%%%\nan orc\n\nIt is ugly.\n"
    deb = deb_factory(tmp_path, "crawl-common", {f"{root}/monsters.txt": text, f"{root}/de/monsters.txt": text})
    assert sorted((r.lang, r.id) for r in read("crawl", tmp_path, [deb])) == [
        ("de", "monsters.txt:an orc"),
        ("en", "monsters.txt:an orc"),
    ]
    root = "usr/share/games/freeorion/default/stringtables"
    files = {f"{root}/de.txt": "KEY\nEin Text.\n", f"{root}/cz.txt": "KEY\nText.\n", f"{root}/fr.txt": "KEY\nNon.\n"}
    rows = read("freeorion", tmp_path, [deb_factory(tmp_path, "freeorion-data", files)], languages=("de", "cs"))
    assert sorted((r.lang, r.id) for r in rows) == [("cs", "KEY"), ("de", "KEY")]


def test_descriptions_of_several_suites(tmp_path):
    def write(name: str, lang: str, package: str, md5: str, text: str) -> IndexFile:
        path = tmp_path / name
        path.write_text(f"Package: {package}\nDescription-md5: {md5}\nDescription-{lang}: {text}\n {text}.\n")
        return IndexFile("Translations", path, name, lang)

    indexes = [
        write("a", "de", "neu", "1" * 32, "Erster"),
        write("b", "en", "new", "1" * 32, "First"),
        write("c", "en", "renamed", "1" * 32, "Again"),
        write("d", "fr", "new", "1" * 32, "Premier"),
    ]
    rows = read("ddtp", tmp_path, indexes=indexes)
    assert ids(rows) == [("new", "en", "new:11111111"), ("new", "de", "new:11111111")]
    assert [row.summary for row in rows] == ["First", "Erster"]


def test_components(tmp_path):
    text = "---\nID: a.b\nPackage: p\nSummary:\n  de: Kurz\nDescription:\n  C: <p>One.</p>\n"
    text += "  de: <p>Eins.</p>\n  fr: <p>Un.</p>\n"
    first, second = tmp_path / "one.yml.gz", tmp_path / "two.yml.gz"
    first.write_bytes(gzip.compress(text.encode()))
    second.write_bytes(gzip.compress(text.replace("One", "Other").encode()))
    indexes = [IndexFile("DEP-11", path, "x", "") for path in (first, second)]
    rows = read("dep11", tmp_path, indexes=indexes)
    assert [(r.lang, r.paragraphs, r.summary) for r in rows] == [("en", ("One.",), None), ("de", ("Eins.",), "Kurz")]


DIATHEKE = """#!/bin/sh
test "$1$3$5" = "-b-f-k" || exit 3
cat "$SWORD_PATH/text-$2"
grep ModDrv "$SWORD_PATH"/mods.d/*.conf >> "$SWORD_PATH/../../drivers" || exit 4
"""


@pytest.fixture
def diatheke(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "diatheke"
    program.parent.mkdir()
    program.write_text(DIATHEKE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def module(deb_factory, folder: Path, package: str, name: str, lang: str, output: str, index: bytes = b"") -> Path:
    root = "usr/share/sword"
    files = {
        f"{root}/mods.d/{name}.conf": f"[{name}]\nModDrv=zCom4\nLang={lang}\n",
        f"{root}/text-{name}": output,
        f"{root}/modules/ot.bzv": index,
    }
    return deb_factory(folder, package, files)


def test_bibles(tmp_path, deb_factory, diatheke):
    debs = [
        module(deb_factory, tmp_path, "sword-text-sparv", "rv", "es", "Genesis 1:1: <w>En el</w> principio.\n(rv)\n"),
        module(
            deb_factory, tmp_path, "sword-text-web", "web", "en", "Genesis 1:1: In the beginning.\nGenesis 1:2: And.\n"
        ),
    ]
    assert read("bible", tmp_path, debs, languages=("en", "es")) == [
        Row("sword-text-sparv", "es", "rv:Genesis 1", ("En el principio.",), "Genesis 1"),
        Row("sword-text-web", "en", "web:Genesis 1", ("In the beginning. And.",), "Genesis 1"),
        Pair("es", "In the beginning.", "En el principio."),
    ]
    assert [type(row) for row in read("bible", tmp_path, debs, languages=("en",))] == [Row]


def test_commentaries(tmp_path, deb_factory, diatheke):
    deb = module(deb_factory, tmp_path, "sword-comm-mhcc", "MHCC", "en", "Ruth 1:1: God is good.\n", index=b"x" * 10)
    assert read("commentary", tmp_path, [deb]) == [
        Row("sword-comm-mhcc", "en", "mhcc:Ruth 1", ("God is good.",), "Ruth 1")
    ]
    assert "ModDrv=zCom\n" in (tmp_path / "drivers").read_text()


def test_a_package_without_a_module_is_refused(tmp_path, deb_factory, diatheke):
    deb = deb_factory(tmp_path, "sword-text-web", {"usr/share/sword/x": "x"})
    with pytest.raises(DataError, match="sword-text-web: expected one SWORD module"):
        read("bible", tmp_path, [deb])


def test_novels(tmp_path, deb_factory, monkeypatch):
    class Parser:
        parse_data = staticmethod(lambda data, extension: data)

    class Conversion:
        convert = staticmethod(
            lambda data: {"variables": {"emma": [0, 99]}} if data == b"index" else ["Emma was", "rich."]
        )

    monkeypatch.setitem(sys.modules, "rdata", type("rdata", (), {"parser": Parser, "conversion": Conversion}))
    root = "usr/lib/R/site-library/janeaustenr/data/Rdata"
    block = b"\0\0\0\1" + zlib.compress(b"x")
    files = {f"{root}.rdx": zlib.compress(b"index"), f"{root}.rdb": block}
    rows = read("austen", tmp_path, [deb_factory(tmp_path, "r-cran-janeaustenr", files)])
    assert rows == [Row("r-cran-janeaustenr", "en", "austen_emma.txt", ("Emma was rich.",))]
    (tmp_path / "less").mkdir()
    with pytest.raises(DataError, match="holds no data"):
        read("austen", tmp_path, [deb_factory(tmp_path / "less", "r-cran-janeaustenr", {f"{root}.rdx": b""})])
