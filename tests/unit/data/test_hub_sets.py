"""Public sets of summaries: local sets of the same columns stand for those on the hub; nothing is fetched."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from largeconcept.data import hub_sets
from largeconcept.data.documents import read_documents
from largeconcept.data.hub_sets import SETS, fetch_summaries, read_summaries
from largeconcept.errors import ConfigError, DataError, DependencyError, LanguageError

datasets = pytest.importorskip("datasets")
ROWS = {
    "cnn_dailymail": [
        {"id": f"c{i}", "article": f"Story {i} begins. It ends.", "highlights": f"Man {i} wins .\nDog  barks ."}
        for i in range(30)
    ],
    "xsum": [{"id": str(i), "document": f"Text {i} here.\nMore.", "summary": f"Sum {i}."} for i in range(4)],
    "xlsum": [
        {"id": "n1", "url": "u", "title": "Titre", "summary": "Court.", "text": "Un texte. Long."},
        {"id": "n2", "url": "u", "title": "", "summary": " ", "text": "Sans résumé."},
    ],
    "lcfo": [
        {"item": "w1", "source": ["One paragraph.", "", "Another."], "short": "Brief.", "long": "Not brief."},
        {"item": "w2", "source": None, "short": "Of nothing.", "long": "x"},
    ],
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is left before its end waits five seconds for its threads."""
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put local Parquet files in the place of sets on the hub, one folder a configuration."""

    def put(name: str) -> Path:
        folder = tmp_path / "hub" / name
        known = SETS[name]
        for config in known.languages.values():
            if config in (None, "english", "french", "3.0.0", "source_data"):
                place = folder / (config or ".")
                place.mkdir(parents=True, exist_ok=True)
                datasets.Dataset.from_list(ROWS[name]).to_parquet(str(place / "test.parquet"))
        configs = {config for config in known.languages.values() if config and (folder / config).is_dir()}
        if configs:
            lines = "".join(
                f"- config_name: {c}\n  data_files:\n  - split: test\n    path: {c}/test.parquet\n" for c in configs
            )
            (folder / "README.md").write_text(f"---\nconfigs:\n{lines}---\n")
        changed = {field: getattr(known, field) for field in ("about", "licence", "columns", "languages", "lines")}
        monkeypatch.setitem(hub_sets.SETS, name, hub_sets.SummarySet(str(folder), revision=known.revision, **changed))
        return folder

    return put


def test_documents_of_every_set(local: Callable[[str], Path]) -> None:
    for name in SETS:
        local(name)
    first = next(iter(read_summaries("cnn_dailymail")))
    assert (first.id, first.lang, first.source) == ("cnn_dailymail/c0", "eng_Latn", "cnn_dailymail")
    assert first.text == "Story 0 begins. It ends."
    assert first.target_sentences == ("Man 0 wins.", "Dog barks.") and first.summary is None
    assert [one.summary for one in read_summaries("xsum")] == [f"Sum {i}." for i in range(4)]
    counts: Counter[str] = Counter()
    (french,) = read_summaries("xlsum", lang="fr", counts=counts)
    assert (french.id, french.lang, french.title) == ("xlsum/french/n1", "fra_Latn", "Titre")
    assert french.summary == "Court." and counts == {"without_summary": 1}
    counts.clear()
    (long,) = read_summaries("lcfo", columns={"summary": "short", "id": "item"}, counts=counts)
    assert (long.id, long.text, long.summary) == ("lcfo/w1", "One paragraph.\n\nAnother.", "Brief.")
    assert counts == {"without_text": 1}


def test_the_file_is_read_as_documents_and_draws_repeat(local: Callable[[str], Path], tmp_path: Path) -> None:
    local("cnn_dailymail")
    told: list[tuple[int, int, str]] = []
    report = fetch_summaries(
        "cnn_dailymail", tmp_path / "a" / "cnn.jsonl", limit=7, seed=3, progress=lambda *x: told.append(x)
    )
    assert report.documents == 7 and told[-1] == (7, 7, "documents") and "Apache" in report.licence
    documents = list(read_documents(tmp_path / "a" / "cnn.jsonl"))
    assert len({one.id for one in documents}) == 7
    assert all(one.text and one.target_sentences and one.lang == "eng_Latn" for one in documents)
    for seed, same in ((3, True), (4, False)):  # of ten documents and more no draw comes twice by chance
        fetch_summaries("cnn_dailymail", tmp_path / "b.jsonl", limit=7, seed=seed)
        assert ((tmp_path / "b.jsonl").read_text() == (tmp_path / "a" / "cnn.jsonl").read_text()) is same
    assert fetch_summaries("cnn_dailymail", tmp_path / "b.jsonl").documents == 30


def test_any_other_set(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "test.jsonl").write_text(json.dumps({"body": "Ein Text.", "tldr": "Kurz."}) + "\n")
    columns = {"text": "body", "summary": "tldr"}
    (document,) = read_summaries(str(tmp_path / "own"), lang="de", columns=columns)
    assert (document.text, document.summary, document.lang) == ("Ein Text.", "Kurz.", "deu_Latn")
    assert document.id.endswith("own/0")
    with pytest.raises(DataError, match=r"which column is the summary.*body, tldr.*--columns summary="):
        next(read_summaries(str(tmp_path / "own"), columns={"text": "body"}))


def test_mistakes_are_told_and_nothing_is_written(
    local: Callable[[str], Path], tmp_path: Path, monkeypatch: Any
) -> None:
    local("xsum"), local("xlsum"), local("lcfo")
    out = tmp_path / "out.jsonl"
    cases: list[tuple[type[Exception], str, str, dict[str, Any]]] = [
        (DataError, "unknown set.*did you mean.*xsum", "xsun", {}),
        (DataError, "cannot be read.*train", "xsum", {"split": "train"}),
        (ConfigError, "which language.*fra_Latn", "xlsum", {}),
        (DataError, "no such language.*pol_Latn", "xlsum", {"lang": "pl"}),
        (LanguageError, "klingon", "xsum", {"lang": "klingon"}),
        (DataError, "no such column for the summary.*document.*got gist", "xsum", {"columns": {"summary": "gist"}}),
        (ConfigError, "unknown part.*abstract", "xsum", {"columns": {"abstract": "summary"}}),
        (ConfigError, "limit", "xsum", {"limit": 0}),
        (DataError, "which column is the summary.*item, source, short, long", "lcfo", {}),
    ]
    for kind, match, name, settings in cases:
        with pytest.raises(kind, match=match):
            fetch_summaries(name, out, **settings)
    with pytest.raises(ConfigError, match=r"FILE\.jsonl"):
        fetch_summaries("xsum", tmp_path / "out.csv")
    empty = [{**row, "summary": ""} for row in ROWS["xsum"]]
    datasets.Dataset.from_list(empty).to_parquet(str(tmp_path / "hub" / "xsum" / "test.parquet"))
    with pytest.raises(DataError, match=r"no document with a summary.*without summary: 4"):
        fetch_summaries("xsum", out)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyError, match=r"largeconcept\[datasets\]"):
        fetch_summaries("xsum", out)
    assert not list(tmp_path.glob("out*"))


def test_a_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")

    def unreachable(*_: Any, **settings: Any) -> None:
        assert settings["revision"] == "96df5e686bee6baa90b8bee7c28b81fa3fa6223d" and settings["streaming"]
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        DataError, match=r"abisee/cnn_dailymail: test.*Couldn't reach the Hub.*HF_DATASETS_OFFLINE is set"
    ):
        fetch_summaries("cnn_dailymail", tmp_path / "out.jsonl")


def test_a_connection_that_is_lost_leaves_no_file(
    local: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torn:
        def __iter__(self) -> Any:
            yield ROWS["xsum"][0]
            raise OSError("connection reset")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Torn())
    with pytest.raises(DataError, match="connection reset"):
        fetch_summaries("xsum", tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


def test_languages_are_those_of_the_paper() -> None:
    assert len(SETS["xlsum"].languages) == 42 and "pcm_Latn" not in SETS["xlsum"].languages
    from largeconcept.languages import flores

    assert all(flores(code) == code for one in SETS.values() for code in one.languages)


def test_the_verb(local: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from largeconcept.cli.main import run

    local("lcfo")
    assert run(["data", "fetch"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in SETS) and "licence" in listed
    out = tmp_path / "lcfo.jsonl"
    told = ["--columns", "summary=long", "--columns", "id=item"]
    assert run(["data", "fetch", "lcfo", "--out", str(out), *told]) == 0
    printed = capsys.readouterr().out
    assert "1 documents" in printed and "without text: 1" in printed and "evaluation only" in printed
    assert json.loads(out.read_text())["summary"] == "Not brief."
    assert run(["data", "fetch", "lcfo"]) != 0 and "--out" in capsys.readouterr().err
    assert run(["data", "fetch", "lcfo", "--out", str(out)]) != 0
    assert "--columns summary=" in capsys.readouterr().err
