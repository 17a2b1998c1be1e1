"""A small corpus prepared whole: what is held out, what is removed, and what the files hold."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from largeconcept.codec.tokenizer import Tokenizer
from largeconcept.data.documents import read_documents
from largeconcept.data.prepare import PrepareConfig, PrepareReport, job, prepare_corpus
from largeconcept.data.prepare.splits import checksum, document_key, split_of, words_of
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.train.codec_job import read_pairs

WORDS = {
    "en": "the river garden window music carries summer stone quiet people morning under bright letters open harbour",
    "de": "der Fluss Garten Fenster Musik trägt Sommer Stein leise Leute Morgen unter hell Briefe offen Hafen",
    "da": "floden haven vindue musik bærer sommer sten stille folk morgen under lyse breve åben havn og",
}
BOILERPLATE = "This package contains the documentation."
CONFIG: dict[str, Any] = {
    "languages": ["en", "de"],
    "vocabulary": {"size": 320},
    "shares": {"man": 0.5},
    "weights": {"man": 0.5},
}


def ids(split: str, number: int, source: str = "kde") -> list[str]:
    """The first ids of a source that the rule gives to a part."""
    return [id for id in (f"page{i}" for i in range(9000)) if split_of(source, id) == split][:number]


class Corpus:
    """Writes documents and pairs with random sentences that do not repeat."""

    def __init__(self) -> None:
        self.rng = random.Random(5)
        self.rows: list[dict[str, Any]] = []
        self.pairs: list[str] = []

    def sentence(self, lang: str, length: int = 12) -> str:
        return " ".join(self.rng.choice(WORDS[lang].split()) for _ in range(length)).capitalize() + "."

    def add(
        self, id: str, lang: str = "en", sentences: list[str] | None = None, source: str = "kde", **more: Any
    ) -> list[str]:
        texts = [self.sentence(lang) for _ in range(6)] if sentences is None else sentences
        self.rows.append(
            {"src": source, "lang": lang, "id": id, "title": None, "summary": None, "sents": texts, **more}
        )
        return texts

    def pair(self, english: str, other: str, lang: str = "de", source: str = "kde") -> None:
        self.pairs.append(f"{source}\t{lang}\t{english}\t{other}\n")

    def save(self, folder: Path) -> Path:
        folder.mkdir()
        with lzma.open(folder / "documents.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)
        with lzma.open(folder / "pairs.tsv.xz", "wt", encoding="utf-8") as file:
            file.writelines(self.pairs)
        return folder


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    c = Corpus()
    train = iter(ids("train", 60))
    test, validation, reserved = ids("test", 3), ids("validation", 3), ids("reserved", 1)
    held = [c.add(id, lang) for id in (*test, *validation, *reserved) for lang in ("en", "de")]
    for _ in range(30):
        id = next(train)
        english, german = c.add(id), c.add(id, "de")
        for a, b in zip(english, german, strict=True):
            c.pair(a, b)
    # A near-duplicate of a test document in English, with its German translation and a second window.
    near = next(train)
    c.add(near, sentences=[f"{s[:-1]} 25!" for s in held[0][:5]] + [c.sentence("en")], title="near")
    c.add(near, "de", title="near's translation")
    # Half of the sentences of a held-out document, among as many others; and only two of them among six.
    c.add(next(train), sentences=[s for a in held[2][:3] for s in (a, c.sentence("en", 30))], title="half")
    c.add(next(train), sentences=[*[c.sentence("en", 20) for _ in range(6)], *held[4][:2], BOILERPLATE], title="some")
    # A near-duplicate of a test document among the validation documents.
    c.add(ids("validation", 4)[3], sentences=held[0][:5], title="near in validation")
    c.rows[0]["sents"].append(BOILERPLATE)
    # Two windows of one document, with a summary; a language that is not wanted; long and short sentences.
    two = next(train)
    for _ in range(2):
        c.add(two, summary="What it is about.", title="Two windows")
    c.add(next(train), "da")
    c.add(next(train), sentences=[c.sentence("en", 90), "Short.", c.sentence("en")], title="long")
    for id in ids("train", 40, "man"):
        c.add(id, source="man")
    c.add(
        "web:Ruth 1",
        sentences=["A Psalm by David.", "In those days.Then came one.", c.sentence("en"), c.sentence("en")],
        source="bible",
    )
    c.pair(held[0][0], held[1][0])  # of the test part
    c.pair(held[6][1], held[7][1])  # of the validation part
    c.pair(held[0][1], c.sentence("de"))  # one side held out
    c.pair(held[12][0], held[13][0])  # reserved
    c.pair(c.rows[-1]["sents"][2], c.sentence("de"), source="crawl")
    c.pair("A sentence in English only.", "A sentence in English only.")
    c.pair("A sentence that went on for rather long.", "Kurz.")
    c.pair("A sentence with a translation.", "Ein Satz mit einer Übersetzung.")
    c.pair("A sentence with a  translation.", "Ein Satz mit einer Übersetzung.")
    c.pair("A sentence in Danish.", "En sætning på dansk.", "da")
    c.pairs.append("kde\tde\tone\ttab\ttoo many\n")
    return c


@pytest.fixture(scope="module")
def prepared(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport, Path]:
    folder = tmp_path_factory.mktemp("prepare")
    source = corpus.save(folder / "corpus")
    return source, prepare_corpus(source, folder / "out", PrepareConfig.from_dict(CONFIG)), folder / "out"


def documents(out: Path, part: str) -> list[Any]:
    return list(read_documents(sorted((out / "documents" / part).glob("*.jsonl.gz"))))


def texts_of(out: Path, name: str) -> set[str]:
    table, tokenizer = SentenceTable.load(out / "codec" / name), Tokenizer.from_file(out / "codec" / "tokenizer.model")
    rows, lengths = table.rows(np.arange(len(table)))
    return set(tokenizer.decode([row[:n] for row, n in zip(rows.tolist(), lengths.tolist(), strict=True)]))


def folded(texts: Any) -> set[str]:
    return {" ".join(words_of(text)) for text in texts}


def test_no_part_holds_what_another_holds(prepared: tuple[Path, PrepareReport, Path], corpus: Corpus) -> None:
    _, _, out = prepared
    keys = {part: {document_key(d.source, d.id.split("/", 1)[1].split("#")[0]) for d in documents(out, part)}
            for part in ("train", "validation", "test")}  # fmt: skip
    for part, found in keys.items():
        assert found, part
        assert all(split_of("kde", key.removeprefix("kde/")) == part for key in found if key.startswith("kde/"))
    held = {s for row in corpus.rows if split_of(row["src"], row["id"]) != "train" for s in row["sents"]}
    assert not folded(texts_of(out, "sentences.npz")) & folded(held)
    test = {s for d in documents(out, "test") for s in d.sentences}
    assert not folded(texts_of(out, "validation.npz")) & folded(test)
    assert folded(texts_of(out, "test.npz")) <= folded(test)
    reserved = {s for row in corpus.rows if split_of(row["src"], row["id"]) == "reserved" for s in row["sents"]}
    everything = {s for part in keys for d in documents(out, part) for s in d.sentences}
    assert reserved
    assert not reserved & everything


def test_near_duplicates_go_and_their_translations(prepared: tuple[Path, PrepareReport, Path]) -> None:
    _, report, out = prepared
    titles = {d.title for part in ("train", "validation", "test") for d in documents(out, part)}
    assert not titles & {"near", "near's translation", "half", "near in validation"}
    assert {"some", "long", "Two windows"} <= titles
    steps = report.totals("documents")[""]
    assert steps["near_duplicate"] == 2
    assert steps["translation"] == 1
    assert steps["held_sentences"] == 1
    removed = [line.split("\t") for line in (out / "splits" / "removed.tsv").read_text().splitlines()]
    assert sorted(fate for _, _, fate in removed) == [
        "held_sentences",
        "near_duplicate",
        "near_duplicate",
        "translation",
    ]


def test_only_long_held_out_sentences_leave_the_documents_that_stay(
    prepared: tuple[Path, PrepareReport, Path],
) -> None:
    _, report, out = prepared
    some = next(d for d in documents(out, "train") if d.title == "some")
    assert len(some.sentences) == 7
    assert some.sentences[-1] == BOILERPLATE
    assert report.totals("sentences")[""]["held_out_in_documents"] == 2


def test_documents_are_what_data_build_reads(prepared: tuple[Path, PrepareReport, Path]) -> None:
    _, _, out = prepared
    found = documents(out, "train")
    assert len({(d.id, d.lang) for d in found}) == len(found)
    windows = [d for d in found if d.title == "Two windows" or d.id.endswith("#2")]
    assert [d.summary for d in windows] == ["What it is about.", None]
    assert windows[1].id == f"{windows[0].id}#2"
    assert {d.lang for d in found} == {"eng_Latn", "deu_Latn"}
    assert {d.source for d in found} == {"kde", "man", "bible"}
    bible = next(d for d in found if d.source == "bible")
    assert len(bible.sentences) == 2  # the title and the glued verse went


def test_long_sentences_are_cut_for_the_codec_and_manuals_thinned(
    prepared: tuple[Path, PrepareReport, Path], corpus: Corpus
) -> None:
    _, report, out = prepared
    long = next(row["sents"][0] for row in corpus.rows if row["title"] == "long")
    seen = texts_of(out, "sentences.npz")
    assert len(long) > 400
    assert max(map(len, seen)) <= 200
    assert sum(text in long for text in seen) >= 3
    assert "Short." not in seen
    manual = [s for row in corpus.rows if row["src"] == "man" for s in row["sents"]]
    assert 0.35 < len(seen & set(manual)) / len(manual) < 0.65
    assert report.sentences["man"]["eng_Latn"]["table"] == len(seen & set(manual))


def test_pairs_and_why_the_others_went(prepared: tuple[Path, PrepareReport, Path], corpus: Corpus) -> None:
    _, report, out = prepared
    steps = report.totals("pairs")[""]
    assert steps == {
        "read": 189, "train": 181, "test": 1, "validation": 1, "held_out": 1, "reserved": 1, "excluded_source": 1,
        "untranslated": 1, "length": 1, "repeated": 1, "wrong_line": 1,
    }  # fmt: skip
    for part, number in (("train", 181), ("validation", 1), ("test", 1)):
        assert len(list(read_pairs([out / "pairs" / f"{part}.tsv.gz"]))) == number
    table = SentenceTable.load(out / "codec" / "sentences.npz")
    assert len(table.pairs) == 181
    assert set(table.langs[table.pairs[:, 0]].tolist()) == {0}
    assert table.languages == ("eng_Latn", "deu_Latn")
    assert len(SentenceTable.load(out / "codec" / "test.npz").pairs) == 1


def test_the_ids_and_their_checksum(prepared: tuple[Path, PrepareReport, Path]) -> None:
    _, report, out = prepared
    for split, number in (("test", 3), ("validation", 4)):
        data = (out / "splits" / f"{split}.txt").read_bytes()
        keys = data.decode().splitlines()
        assert len(keys) == report.splits[split]["documents"] == number
        assert report.splits[split]["sha256"] == hashlib.sha256(data).hexdigest() == checksum(keys)


def test_weights_of_the_mixture(prepared: tuple[Path, PrepareReport, Path]) -> None:
    _, _, out = prepared
    found = json.loads((out / "mixture.json").read_text())
    assert sum(row["weight"] for row in found.values()) == pytest.approx(1, abs=1e-4)
    assert set(found) == {path.name for path in (out / "documents" / "train").iterdir()}
    one, other = found["kde.eng_Latn.jsonl.gz"], found["man.eng_Latn.jsonl.gz"]
    # Manuals count half; both are of one language, which therefore cancels.
    assert one["weight"] / other["weight"] == pytest.approx(one["sentences"] / other["sentences"] / 0.5, rel=1e-3)
    mass = {"eng_Latn": 0.0, "deu_Latn": 0.0}
    for row in found.values():
        mass[row["lang"]] += row["sentences"] * (0.5 if row["source"] == "man" else 1)
    share = {lang: sum(row["weight"] for row in found.values() if row["lang"] == lang) for lang in mass}
    assert share["eng_Latn"] / share["deu_Latn"] == pytest.approx(
        (mass["eng_Latn"] / mass["deu_Latn"]) ** 0.5, rel=1e-3
    )
    assert next(row for row in found.values() if row["source"] == "kde" and row["lang"] == "eng_Latn")["summaries"] == 1


def test_the_same_input_gives_the_same_bytes_in_any_order_of_calls(
    prepared: tuple[Path, PrepareReport, Path], tmp_path: Path
) -> None:
    source, report, out = prepared
    again = prepare_corpus(source, tmp_path / "out", PrepareConfig.from_dict(CONFIG))
    assert again.table == report.table
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != "report.json":
            assert path.read_bytes() == (tmp_path / "out" / path.relative_to(out)).read_bytes(), path


def test_a_finished_folder_is_left_alone_and_another_is_not_overwritten(
    prepared: tuple[Path, PrepareReport, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, report, made = prepared
    out = tmp_path / "out"
    shutil.copytree(made, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    found = prepare_corpus(source, out, PrepareConfig.from_dict(CONFIG))
    assert found.to_dict() == {**report.to_dict(), "out": str(out)}
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    other = PrepareConfig.from_dict({**CONFIG, "languages": ["en"]})
    with pytest.raises(DataError, match=r"config.*other settings"):
        prepare_corpus(source, out, other)
    prepare_corpus(source, out, other, overwrite=True)
    assert {d.lang for d in documents(out, "train")} == {"eng_Latn"}
    assert not list((out / "documents").rglob("*.deu_Latn.*"))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds other files"):
        prepare_corpus(source, stranger, other)


def test_a_call_that_was_stopped_begins_again(
    prepared: tuple[Path, PrepareReport, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, report, _ = prepared

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job._Job, "_select_pairs", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus(source, tmp_path / "out", PrepareConfig.from_dict(CONFIG))
    assert not (tmp_path / "out" / "report.json").exists()
    again = prepare_corpus(source, tmp_path / "out", PrepareConfig.from_dict(CONFIG))
    assert again.table == report.table


def test_a_teacher_judges_the_pairs(prepared: tuple[Path, PrepareReport, Path], tmp_path: Path) -> None:
    source, report, _ = prepared

    def encode(texts: list[str]) -> np.ndarray:
        """Sentences of even length one way, those of odd length another; the cosine between them is 0.45."""
        even = np.array([1.0, 0.0])
        odd = np.array([0.45, (1 - 0.45**2) ** 0.5])
        return np.stack([odd if len(text) % 2 else even for text in texts])

    far = sum((len(a) - len(b)) % 2 for _, a, _, b in read_pairs([prepared[2] / "pairs" / "train.tsv.gz"]))
    assert 20 < far < 160
    config = PrepareConfig.from_dict(CONFIG)
    judged = prepare_corpus(source, tmp_path / "a", config, teacher=encode)
    assert judged.totals("pairs")[""]["teacher"] == far
    assert judged.table["train"]["pairs"] == report.table["train"]["pairs"] - far
    assert judged.teacher is not None
    assert judged.teacher["sources"]["kde"]["kept"] == pytest.approx(1 - far / 181, abs=1e-4)
    lenient = config.override("pairs.min_cosine_of.kde=0.4")
    assert prepare_corpus(source, tmp_path / "b", lenient, teacher=encode).table["train"]["pairs"] == 181
    assert judged.table["test"] == report.table["test"]  # what is held out is not judged


def test_a_vocabulary_that_there_is(prepared: tuple[Path, PrepareReport, Path], tmp_path: Path) -> None:
    source, report, out = prepared
    model = out / "codec" / "tokenizer.model"
    config = PrepareConfig.from_dict({**CONFIG, "vocabulary": {"model": str(model)}})
    found = prepare_corpus(source, tmp_path / "out", config)
    assert (tmp_path / "out" / "codec" / "tokenizer.model").read_bytes() == model.read_bytes()
    assert found.table == report.table
    with pytest.raises(CheckpointError, match="tokenizer"):
        prepare_corpus(source, tmp_path / "new", config.override(f"vocabulary.model={tmp_path / 'none.model'}"))


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a corpus"):
        prepare_corpus(tmp_path, tmp_path / "out")
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "No sentences.", "lang": "en"}\n'))
    with pytest.raises(DataError, match="without sentences"):
        prepare_corpus(path, tmp_path / "out")
    path.write_bytes(gzip.compress(b'{"sents": ["En dansk sentence."], "lang": "da"}\n'))
    with pytest.raises(DataError, match="no document in the languages wanted"):
        prepare_corpus(path, tmp_path / "out")
    with pytest.raises(DataError, match="file not found"):
        prepare_corpus(path, tmp_path / "out", pairs=[tmp_path / "none.tsv"])
    with pytest.raises(ConfigError, match="min_chars is more than"):
        PrepareConfig(min_chars=30, max_chars=20)
    with pytest.raises(ConfigError, match="unknown key"):
        PrepareConfig().override("near_duplicates.simularity=0.4")


def test_the_command_line(prepared: tuple[Path, PrepareReport, Path], tmp_path: Path, cli: Callable[..., Any]) -> None:
    source, _, made = prepared
    model = made / "codec" / "tokenizer.model"
    arguments = ["data", "prepare", source, "shares={man: 0.5}", "-l", "en", "-l", "de", "--vocabulary", model]
    out = cli(*arguments, "--out", tmp_path / "out").ok()
    assert "near duplicate 2" in out
    assert "kde" in out
    data = json.loads(cli(*arguments, "--out", tmp_path / "out", "--json").ok())
    assert data["splits"]["test"]["documents"] == 3
    cli("data", "prepare", source, "-l", "en", "--out", tmp_path / "out").error("other settings", "overwrite")
    cli("data", "prepare", tmp_path / "nowhere", "--out", tmp_path / "new").error("file not found")
    cli("data", "prepare", "shares={}", "--out", tmp_path / "new").error("no corpus")
    cli("data", "prepare", source, "--teacher", "external:yuse", "--out", tmp_path / "new").error("external:yuse")
