"""Every kind of bad input is built or refused with file and line; no traceback, no document lost without a word."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.data.inspect import inspect_dataset
from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import ConceptLMError, DataError
from largeconcept.segment import build_segmenter

GOOD = json.dumps({"text": "It rains. The dog sleeps."}) + "\n"


class LengthCodec(ToyCodec):
    """The toy codec, quick on five megabytes."""

    def _vector(self, sentence: str):  # type: ignore[no-untyped-def]
        return super()._vector(sentence[:50])


def hostile_files() -> dict[str, tuple[bytes, int, int]]:
    """Return name -> (content, documents that can be built, things that must be refused)."""
    long_text = ("x" * 300_000 + "\n").encode()
    line = json.dumps({"text": "word " * 1_000_000}) + "\n"
    packed = lzma.compress(b"".join(json.dumps({"text": os.urandom(30).hex()}).encode() + b"\n" for _ in range(200)))
    return {
        "empty.txt": (b"", 0, 1),
        "empty.jsonl": (b"", 0, 1),
        "blank.md": (b" \n\n \t", 0, 1),
        "long.txt": (long_text, 1, 0),
        "long.jsonl": ((GOOD + line + GOOD).encode(), 3, 0),
        "nul.txt": (b"It rains.\0The dog sleeps.", 1, 0),
        "nul.jsonl": (b'{"text": "It\\u0000rains. The dog."}\n{"te\0xt": "a"}\n' + GOOD.encode(), 2, 1),
        "surrogate.jsonl": (b'{"text": "a \\ud800 b."}\n{"sents": ["\\udc00\\ud800", "b"]}\n', 2, 0),
        "surrogate.txt": (b"a \xed\xa0\x80 b.", 0, 1),
        "latin.txt": ("Käse und Brot.".encode("latin-1"), 0, 1),
        "latin.jsonl": (GOOD.encode() + '{"text": "Käse."}\n'.encode("latin-1") + GOOD.encode(), 2, 1),
        "utf16.txt": ("Käse und Brot.".encode("utf-16"), 1, 0),
        "utf16.jsonl": ((GOOD * 2).encode("utf-16"), 2, 0),
        "utf16-bare.txt": ("Cheese and bread.".encode("utf-16-le"), 0, 1),
        "no-newline.jsonl": (GOOD.encode() + GOOD.encode().rstrip(b"\n"), 2, 0),
        "one.jsonl": (b'{"text": "One."}\n{"sents": ["One."]}\n{"text": "x"}', 3, 0),
        "types.jsonl": (
            b'[]\n3\n"a"\nnull\n{"text": 1}\n{"sents": "a"}\n{"sents": [1]}\n{"id": {}, "text": "a"}',
            0,
            8,
        ),
        "twice.jsonl": (b'{"id": 1, "text": "a"}\n{"id": "1", "text": "a"}\n{"id": 1, "text": "b"}', 3, 0),
        "deep.jsonl": (b'{"text": ' + b"[" * 50_000 + b"\n" + GOOD.encode(), 1, 1),
        "lang.jsonl": (b'{"text": "a", "lang": "xx-nowhere"}\n{"text": "a", "lang": "en"}', 1, 1),
        "picture.txt": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), 0, 1),
        "cut.jsonl.gz": (gzip.compress(GOOD.encode())[:-12], 0, 1),
        "cut.txt.xz": (packed[:-40], 0, 1),
        "false.jsonl.xz": (GOOD.encode(), 0, 1),
        "whole.jsonl.xz": (packed, 200, 0),
        "emoji.txt": (("👩‍👩‍👧‍👦" * 300 + "\u202e\u0301\ufeff").encode(), 1, 0),
    }


def test_a_whole_hostile_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cases = hostile_files()
    for name, (data, _, _) in cases.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    report = build_concepts(str(folder / "*"), tmp_path / "out", LengthCodec(8), on_error="report")
    for name, (_, documents, refused) in cases.items():
        found = [s for s in report.skipped if s.where.startswith(f"{folder / name}")]
        assert len(found) == refused, (name, found)
        assert all(s.reason for s in found)
        if name.endswith(".jsonl") and refused < 2 and documents:
            assert all(s.where.removeprefix(f"{folder / name}:")[0].isdigit() for s in found), found
    assert report.documents == sum(documents for _, documents, _ in cases.values())
    assert len(report.skipped) == sum(refused for _, _, refused in cases.values())
    assert report.counts["nul_characters"] == 2
    assert report.counts["lone_surrogates"] == 3
    assert report.counts["renamed_ids"] == 2
    assert inspect_dataset(tmp_path / "out").splits["train"].documents == report.documents


@pytest.mark.parametrize("name", sorted(hostile_files()))
def test_each_alone_with_the_default(tmp_path: Path, name: str) -> None:
    """By default the first thing that cannot be built stops the build, before anything is encoded."""
    data, documents, refused = hostile_files()[name]
    if len(data) > 200_000:
        pytest.skip("built by the test of the whole folder")
    (tmp_path / name).write_bytes(data)
    if refused:
        with pytest.raises(DataError) as caught:
            build_concepts(tmp_path / name, tmp_path / "out", LengthCodec(8))
        assert str(caught.value).startswith(f"{tmp_path / name}")
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.rglob("*.parquet"))
    else:
        report = build_concepts(tmp_path / name, tmp_path / "out", LengthCodec(8))
        assert (report.documents, report.skipped) == (documents, [])
        inspect_dataset(tmp_path / "out")


_segmenter = build_segmenter()
_text = st.text(st.characters(codec=None), max_size=60)
_document = st.fixed_dictionaries(
    {},
    optional={
        "text": _text | st.integers(),
        "sents": st.lists(_text, max_size=4) | _text,
        "id": _text | st.integers() | st.none(),
        "lang": st.sampled_from(["en", "deu_Latn", "zh", "??", ""]) | st.integers(),
        "summary": _text,
        "paragraph_starts": st.lists(st.integers(-1, 4), max_size=3),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_document, min_size=1, max_size=6), st.sampled_from([None, "summary"]))
def test_any_documents(tmp_path_factory: pytest.TempPathFactory, documents: list[dict], target: str | None) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("any")
    path = folder / "c.jsonl"
    path.write_text("\n".join(json.dumps(d) for d in documents))  # escapes: lone surrogates survive
    try:
        report = build_concepts(
            path,
            folder / "out",
            LengthCodec(8),
            _segmenter,
            target=target,  # type: ignore[arg-type]
            on_error="report",
            documents_per_shard=2,
        )
    except ConceptLMError as error:
        assert error.problem in ("no document could be read", "no document is left to build")
        return
    dataset = ConceptDataset(folder / "out")
    assert report.documents == len(list(dataset)) == len(dataset)
    assert report.documents + len(report.skipped) + report.counts.get("without_target", 0) == len(documents)
    inspect_dataset(folder / "out")
