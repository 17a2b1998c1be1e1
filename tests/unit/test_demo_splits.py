"""The demo's split for validation: some of the training documents, always the same ones, whole and in all languages."""

import json

import pytest

from largeconcept.demo import VALIDATION_MODULUS, find_corpus, is_validation, split_corpus
from largeconcept.errors import DataError


def lines(folder, split):
    return [json.loads(line) for file in sorted((folder / split).glob("*.jsonl")) for line in file.open()]


def test_the_sample_corpus_is_parted_by_document(tmp_path):
    corpus = find_corpus()
    found = split_corpus(corpus, tmp_path)
    assert list(found) == ["train", "validation", "test"] and found["test"] == str(corpus / "test" / "*.jsonl")
    whole, train, validation = lines(corpus, "train"), lines(tmp_path, "train"), lines(tmp_path, "validation")
    assert len(train) + len(validation) == len(whole)
    assert sorted(map(json.dumps, train + validation)) == sorted(map(json.dumps, whole))
    keys = [{row["id"].split("#")[0] for row in rows} for rows in (train, validation)]
    assert not keys[0] & keys[1]
    assert 0.03 < len(validation) / len(whole) < 0.12
    assert {row["lang"] for row in validation} == {row["lang"] for row in whole}
    again = split_corpus(corpus, tmp_path / "again")
    assert lines(tmp_path / "again", "validation") == validation and again["train"] != found["train"]


def test_parts_of_a_document_stay_together():
    name = next(f"d{i}" for i in range(1000) if is_validation(f"d{i}"))
    assert is_validation(f"{name}#2") and is_validation(f"{name}#31")
    share = sum(is_validation(f"x{i}") for i in range(3000)) / 3000
    assert share == pytest.approx(1 / VALIDATION_MODULUS, abs=0.02)


def test_a_split_that_is_there_is_taken(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
    found = split_corpus(tmp_path / "corpus", tmp_path / "out")
    assert found["validation"] == str(tmp_path / "corpus" / "validation" / "*.jsonl")
    assert not (tmp_path / "out").exists()


def test_a_corpus_too_small_has_none(tmp_path):
    (tmp_path / "corpus" / "train").mkdir(parents=True)
    file = tmp_path / "corpus" / "train" / "a.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{i}"}) + "\n" for i in range(1) if not is_validation(f"d{i}")))
    assert list(split_corpus(tmp_path / "corpus", tmp_path / "out")) == ["train", "test"]
    file.write_text('{"id": "a"}\n{"id": \n')
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        split_corpus(tmp_path / "corpus", tmp_path / "out")
