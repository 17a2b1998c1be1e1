from __future__ import annotations

import codecs
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from largeconcept.data.documents import ReadReport, family_of, read_documents, resolve_inputs
from largeconcept.errors import ConfigError, DataError, LanguageError
from largeconcept.types import Document


def read(path: Path, **keywords: Any) -> tuple[list[Any], ReadReport]:
    report = ReadReport()
    return list(read_documents(path, on_error="report", report=report, **keywords)), report


def test_jsonl_fields(write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl(
        [
            {"id": "a", "text": "One. Two.", "lang": "en", "title": "T", "summary": "S", "source": "src"},
            {"sents": ["One.", "Two."], "src": "other", "url": "not read"},
            {"id": 7, "sentences": ["A", "B", "C"], "paragraph_starts": [0, 2], "target_sentences": ["t"]},
        ]
    )
    first, second, third = read_documents(path, lang="deu_Latn")
    assert (first.id, first.text, first.lang, first.title, first.summary) == ("a", "One. Two.", "eng_Latn", "T", "S")
    assert first.source == "src"
    assert (second.id, second.sentences, second.lang) == ("corpus.jsonl:2", ("One.", "Two."), "deu_Latn")
    assert second.source == "other"
    assert second.where == f"{path}:2"
    assert (third.id, third.paragraph_starts, third.target_sentences) == ("7", (0, 2), ("t",))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_text_files_and_compression(tmp_path: Path, suffix: str) -> None:
    opener: Any = {"": open, ".gz": gzip.open, ".xz": lzma.open}[suffix]
    text = "Erste Zeile.\r\nNoch eine ä.\n\nZweiter Absatz."
    for name in ("b.txt", "a.md"):
        with opener(tmp_path / f"{name}{suffix}", "wb") as file:
            file.write(text.encode())
    documents = list(read_documents(str(tmp_path / f"*{suffix}"), lang="de"))
    assert [d.id for d in documents] == [f"a.md{suffix}", f"b.txt{suffix}"]  # sorted
    assert all(d.text == text and d.lang == "deu_Latn" for d in documents)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not valid JSON"),
        ('{"text": "a"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"id": ' + "9" * 5000 + ', "text": "a"}', "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "the document has no text"),
        ('{"body": "a"}', "the document has no text"),
        ('{"text": ""}', "the document has no sentence"),
        ('{"text": " \\n "}', "the document has no sentence"),
        ('{"sents": []}', "the document has no sentence"),
        ('{"sents": [" ", ""]}', "the document has no sentence"),
        ('{"text": 3}', "text: wrong type; expected a string; got int"),
        ('{"sents": "one"}', "sents: wrong type; expected a list of strings; got str"),
        ('{"sents": ["one", null]}', "sents[1]: wrong type; expected a string; got NoneType"),
        ('{"sents": ["one"], "sentences": ["two"]}', "sents and sentences differ"),
        ('{"sents": ["one"], "paragraph_starts": [1]}', "wrong paragraph_starts"),
        ('{"sents": ["one"], "paragraph_starts": [0, 1]}', "wrong paragraph_starts"),
        ('{"text": "a", "id": true}', "id: wrong type"),
        ('{"text": "a", "id": [1]}', "id: wrong type"),
        ('{"text": "a", "lang": "klingon"}', "lang: unknown language"),
        ('{"text": "a\\u0000\\u0000"}', "NUL"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(f'{{"text": "good one"}}\n\n{line}\n{{"text": "good two"}}')
    documents, report = read(path)
    assert [d.text for d in documents] == ["good one", "good two"]
    (skipped,) = report.skipped
    assert skipped.where.startswith(f"{path}:3")
    assert problem in f"{skipped.where}: {skipped.reason}"
    assert report.counts["blank_lines"] == 1
    with pytest.raises(DataError) as caught:
        list(read_documents(path))
    assert str(caught.value) == f"{skipped.where}: {skipped.reason}"


def test_repairs_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b'{"text": "a lone \\ud800 surrogate, a pair \\ud83d\\ude00"}\n'
        b'{"sents": ["long enough for one \\u0000 NUL", "", "x"], "paragraph_starts": [0, 1]}\n'
        b'{"id": "\\udfff", "text": "z"}'
    )
    documents, report = read(path)
    assert documents[0].text == "a lone \ufffd surrogate, a pair \U0001f600"
    assert documents[1].sentences == ("long enough for one   NUL", "x")
    assert documents[1].paragraph_starts == (0, 1)
    assert documents[2].id == "\ufffd"
    assert report.counts == {"lone_surrogates": 2, "nul_characters": 1, "empty_sentences": 1}
    assert not report.skipped


def test_empty_sentences_move_paragraphs(write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl([{"sents": [" ", "a", " ", "b", " "], "paragraph_starts": [0, 2, 4]}])
    (document,), _ = read(path)
    assert document.sentences == ("a", "b")
    assert document.paragraph_starts == (0, 1)


def test_encodings(tmp_path: Path) -> None:
    line = json.dumps({"text": "Käse – 食"}, ensure_ascii=False)
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        path = tmp_path / f"{encoding}.jsonl"
        path.write_bytes(f"{line}\n{line}\n".encode(encoding))
        documents, report = read(path)
        assert [d.text for d in documents] == ["Käse – 食"] * 2, encoding
        assert not report.skipped
        text = tmp_path / f"{encoding}.txt"
        text.write_bytes("Käse – 食".encode(encoding))
        assert [d.text for d in read_documents(text)] == ["Käse – 食"]


def test_latin1_is_refused_unless_named(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    good = b'{"text": "plain"}\n'
    path.write_bytes(good + '{"text": "Käse"}\n'.encode("latin-1") + good)
    documents, report = read(path)
    assert [d.text for d in documents] == ["plain", "plain"]  # one bad line costs one line
    assert report.skipped[0].where == f"{path}:2"
    assert "not valid UTF-8" in report.skipped[0].reason
    assert [d.text for d in read_documents(path, encoding="latin-1")] == ["plain", "Käse", "plain"]
    text = tmp_path / "l.txt"
    text.write_bytes("eins\nzwei\nKäse".encode("latin-1"))
    assert read(text)[1].skipped[0].where == f"{text}:3"
    with pytest.raises(ConfigError, match="unknown encoding"):
        list(read_documents(path, encoding="latin-99"))


def test_utf16_without_mark_is_refused(tmp_path: Path) -> None:
    for name in ("u.txt", "u.jsonl"):
        path = tmp_path / name
        path.write_bytes('{"text": "plain words"}\n'.encode("utf-16-le"))
        documents, report = read(path)
        assert not documents
        assert report.skipped
        assert "NUL" in report.skipped[0].reason
        assert list(read_documents(path, encoding="utf-16-le"))


def test_utf16_cut_in_a_character(tmp_path: Path) -> None:
    path = tmp_path / "u.jsonl"
    path.write_bytes((('{"text": "plain"}\n' * 3).encode("utf-16"))[:-1])
    _, report = read(path)
    assert "not valid text" in report.skipped[0].reason


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_truncated_stream(tmp_path: Path, suffix: str) -> None:
    lines = b"".join(b'{"text": "%s"}\n' % os.urandom(40).hex().encode() for _ in range(5000))
    data = gzip.compress(lines) if suffix == ".gz" else lzma.compress(lines)
    path = tmp_path / f"c.jsonl{suffix}"
    path.write_bytes(data[: len(data) // 2])
    documents, report = read(path)
    assert 0 < len(documents) < 5000  # what came before the damage is kept
    (skipped,) = report.skipped
    assert skipped.where == f"{path}:{len(documents) + 1}"
    assert "truncated or damaged" in skipped.reason
    path.write_bytes(lines)  # not compressed at all
    assert "truncated or damaged" in read(path)[1].skipped[0].reason
    path.write_bytes(b"")
    assert not read(path)[0]
    assert len(read(path)[1].skipped) == 1


def test_empty_files_and_no_final_newline(tmp_path: Path) -> None:
    for name, data in (
        ("e.txt", b""),
        ("e.jsonl", b""),
        ("w.txt", b" \n\t"),
        ("w.jsonl", b"\n\n"),
        ("b.md", codecs.BOM_UTF8),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        documents, report = read(path)
        assert not documents
        assert len(report.skipped) == 1, name
        with pytest.raises(DataError, match=name):
            list(read_documents(path))
    path = tmp_path / "n.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}')
    assert len(read(path)[0]) == 2


def test_long_lines(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "x" * 5_000_000}) + '\n{"text": "next"}')
    documents, report = read(path)
    assert [len(d.text) for d in documents] == [5_000_000, 4]
    documents, report = read(path, max_document_bytes=1000)
    assert [d.text for d in documents] == ["next"]
    assert "too long" in report.skipped[0].reason
    text = tmp_path / "long.txt"
    text.write_text("y" * 1001)
    assert "too long" in read(text, max_document_bytes=1000)[1].skipped[0].reason


def test_inputs_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "data.csv").write_text("a")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for item, problem in [
        ("missing.jsonl", "file not found"),
        ("*.xyz", "no file matches"),
        ("folder.jsonl", "is a folder"),
        ("loop.jsonl", "cannot read the file"),
        ("data.csv", "unknown kind of file"),
        ("pipe.jsonl", "not a regular file"),
        ("a\0b", "not a path"),
    ]:
        with pytest.raises(DataError, match=problem):
            resolve_inputs(tmp_path / item)
    with pytest.raises(DataError, match="no input"):
        resolve_inputs([])


def test_inputs_are_each_taken_once_and_literal_names_win(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "[a].txt"):
        (tmp_path / name).write_text("x")
    found = resolve_inputs([tmp_path / "b.txt", str(tmp_path / "*.txt"), str(tmp_path / "[a].txt")])
    assert [p.name for p in found] == ["b.txt", "[a].txt", "a.txt"]


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")

    def refuse(self: Path, *args: Any, **keywords: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so the permission bits prove nothing
    with pytest.raises(DataError, match=r"secret\.txt: cannot read the file.*Permission denied"):
        list(read_documents(path))


def test_file_name_that_is_not_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_text("hello")
    (document,) = read_documents(path)
    document.id.encode()  # storable
    assert document.text == "hello"


def test_settings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    with pytest.raises(ConfigError, match="on_error"):
        list(read_documents(path, on_error="ignore"))  # type: ignore[arg-type]
    with pytest.raises(LanguageError):
        list(read_documents(path, lang="klingon"))


_pieces = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=30).map(lambda s: json.dumps({"text": s}).encode()),
    st.lists(st.text(max_size=9), max_size=4).map(
        lambda s: json.dumps({"sents": s}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.sampled_from([b"", b"\r", b"\0", b"\xef\xbb\xbf", b'{"text": "\\ud800 x"}', b"null", b"{}", b"\xff\xfe"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_pieces, max_size=8), st.sampled_from(["h.jsonl", "h.txt", "h.jsonl.gz", "h.txt.xz"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, pieces: list[bytes], name: str) -> None:
    data = b"\n".join(pieces)
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        data = b" " + data  # another count of lines; test_encodings has those
    path = tmp_path / name
    packed = gzip.compress(data) if name.endswith(".gz") else lzma.compress(data) if name.endswith(".xz") else data
    path.write_bytes(packed)
    documents, report = read(path)
    for document in documents:
        "".join([document.id, document.text, *document.sentences]).encode()  # storable
        assert document.text.strip() or any(s.strip() for s in document.sentences)
    if "jsonl" in name:
        lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
        blank = sum(1 for line in lines[: len(lines) - (not lines[-1])] if _blank(line))
        expected = len(lines) - (not lines[-1]) - blank
        assert len(documents) + len(report.skipped) == expected or (expected == 0 and len(report.skipped) == 1)
    else:
        assert len(documents) + len(report.skipped) == 1


def _blank(line: bytes) -> bool:
    try:
        return not line.decode().strip()
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize(
    ("source", "lang", "family"),
    [
        ("libreoffice-help-de", "deu_Latn", "libreoffice-help"),
        ("libreoffice-help-en-us", "eng_Latn", "libreoffice-help"),
        ("help_pt_BR", "por_Latn", "help"),
        ("help.zh-Hans", "zho_Hans", "help"),
        ("help-de", "eng_Latn", "help-de"),
        ("sword-text-web", "eng_Latn", "sword-text-web"),
        ("de", "deu_Latn", "de"),
        ("help-de", None, "help-de"),
        (None, "deu_Latn", None),
    ],
)
def test_a_source_without_its_language(source: str | None, lang: str | None, family: str | None) -> None:
    assert family_of(Document("a", source=source, lang=lang)) == family
