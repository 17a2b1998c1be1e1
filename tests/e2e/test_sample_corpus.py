"""The promises of the sample corpus: size, licences, parts, rule of the parts, shape of every document."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parents[2] / "examples" / "corpus"
FILES = sorted(CORPUS.glob("*/*.jsonl"))
LANGUAGES = {"eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn"}
LICENCES = {"public domain", "CC-BY-SA-3.0", "MPL-2.0"}


def documents(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def part_of(document_id: str) -> str:
    """The rule by which a codec holds documents out, written down a second time on purpose."""
    key = re.sub(r"#\d+$", "", document_id)
    return "test" if int(hashlib.sha1(key.encode()).hexdigest(), 16) % 40 == 13 else "train"


@pytest.fixture(scope="module")
def corpus() -> dict[Path, list[dict]]:
    return {file: documents(file) for file in FILES}


def test_size_and_languages(corpus):
    assert sum(p.stat().st_size for p in CORPUS.rglob("*") if p.is_file() and "__pycache__" not in p.parts) <= 2_000_000
    sentences = Counter()
    for file, rows in corpus.items():
        sentences[file.parent.name] += sum(len(row["sentences"]) for row in rows)
    assert 15_000 <= sentences["train"] <= 20_000
    assert sentences["test"] >= 2_000
    for part in ("train", "test"):
        assert {file.name.split(".")[1] for file in corpus if file.parent.name == part} == LANGUAGES


def test_every_file_has_licence_source_and_authors():
    described = json.loads((CORPUS / "sources.json").read_text(encoding="utf-8"))
    assert set(described) == {f"{f.parent.name}/{f.name}" for f in FILES}
    notice = (CORPUS / "NOTICE").read_text(encoding="utf-8")
    for name, about in described.items():
        data = (CORPUS / name).read_bytes()
        assert about["licence"] in LICENCES, name
        assert about["url"] in notice and about["package"].split()[0] in notice, name
        assert name.split("/")[1] in notice, f"{name} is not named in NOTICE"
        assert about["sha256"] == hashlib.sha256(data).hexdigest(), f"{name} was changed: run cut.py"
        assert about["documents"] == len(documents(CORPUS / name))


def test_notice_puts_each_file_under_its_licence():
    notice = (CORPUS / "NOTICE").read_text(encoding="utf-8")
    sections = re.split(r"\n\d\. ", notice)[1:]
    described = json.loads((CORPUS / "sources.json").read_text(encoding="utf-8"))
    for name, about in described.items():
        section = next(s for s in sections if name.split("/")[1] in s)
        assert about["licence"].lower() in section.splitlines()[0].lower(), name
    assert (
        (CORPUS / "licences" / "CC-BY-SA-3.0.txt").read_text().startswith("Creative Commons Attribution-ShareAlike 3.0")
    )
    assert (CORPUS / "licences" / "MPL-2.0.txt").read_text().startswith("Mozilla Public License Version 2.0")


def test_documents_are_well_formed(corpus):
    for file, rows in corpus.items():
        seen = set()
        for row in rows:
            assert set(row) <= {"id", "lang", "title", "summary", "source", "sentences"}, (file, row["id"])
            assert row["lang"] == file.name.split(".")[1]
            assert row["source"]
            assert row["id"] not in seen, (file, row["id"])
            seen.add(row["id"])
            assert 8 <= len(row["sentences"]) <= 64, (file, row["id"])
            for sentence in row["sentences"]:
                assert 12 <= len(sentence) <= 200
                assert sentence == " ".join(sentence.split())
            assert len(set(row["sentences"])) == len(row["sentences"]), (file, row["id"])


def test_parts_follow_the_rule(corpus):
    keys = defaultdict(set)
    for file, rows in corpus.items():
        for row in rows:
            assert part_of(row["id"]) == file.parent.name, (file, row["id"])
            keys[file.parent.name].add(re.sub(r"#\d+$", "", row["id"]))
    assert not keys["train"] & keys["test"]
    assert part_of("bible/Genesis 1#2") == part_of("bible/Genesis 1")


def test_test_sentences_are_not_in_the_train_part(corpus):
    train = defaultdict(set)
    for file, rows in corpus.items():
        if file.parent.name == "train":
            for row in rows:
                train[row["lang"]].update(row["sentences"])
    for file, rows in corpus.items():
        if file.parent.name == "test":
            shared = [s for row in rows for s in row["sentences"] if s in train[row["lang"]]]
            assert len(shared) <= 0.02 * sum(len(row["sentences"]) for row in rows), (file, shared[:3])


def test_no_sentence_is_repeated_over_and_over(corpus):
    """A reader that repeats a psalm's title before every verse once spoiled a third of the English Bible."""
    for file, rows in corpus.items():
        counts = Counter(s for row in rows for s in row["sentences"])
        sentence, count = counts.most_common(1)[0]
        assert count <= 12, (file, sentence, count)


def test_test_part_has_parallel_documents(corpus):
    languages = defaultdict(set)
    for file, rows in corpus.items():
        if file.parent.name == "test":
            for row in rows:
                languages[row["id"]].add(row["lang"])
    assert sum(langs == LANGUAGES for langs in languages.values()) >= 10
    assert sum(langs >= {"eng_Latn", "spa_Latn"} for langs in languages.values()) >= 25


def make_corpus(path: Path) -> None:
    rows = []
    for number in range(120):
        for lang in ("en", "de"):
            sents = [f"Sentence {i} of page {number} is written here." for i in range(12)] + ["x" * 300]
            sents += [f"After the long one, sentence {i} of page {number}." for i in range(9)]
            rows.append(
                {
                    "src": "lohelp",
                    "lang": lang,
                    "id": f"text/{number}.html",
                    "title": "T",
                    "summary": None,
                    "sents": sents,
                }
            )
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def test_cut_script_is_deterministic_and_keeps_the_rule(tmp_path):
    make_corpus(tmp_path / "mix.jsonl")
    outs = []
    for name in ("a", "b"):
        command = [sys.executable, CORPUS / "cut.py", tmp_path / "mix.jsonl", "--out", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
        outs.append(
            {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        )
    assert outs[0] == outs[1]
    rows = [row for file in (tmp_path / "a").glob("*/*.jsonl") for row in documents(file)]
    assert {row["id"].partition("#")[2] for row in rows} == {"", "2"}
    assert {len(row["sentences"]) for row in rows} == {12, 9}
    for file in (tmp_path / "a").glob("*/*.jsonl"):
        assert all(part_of(row["id"]) == file.parent.name for row in documents(file))
    assert (tmp_path / "a" / "test" / "libreoffice-help.deu_Latn.jsonl").is_file()


def test_cut_script_names_a_missing_file(tmp_path):
    command = [sys.executable, CORPUS / "cut.py", tmp_path / "none.jsonl", "--out", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "none.jsonl" in done.stderr and "Traceback" not in done.stderr
