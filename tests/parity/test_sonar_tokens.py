"""Tests 10 and 11: tokens as the original's native tokenizer gives them, and truncation."""

import pytest
import sonar_original

from largeconcept.codec.sonar.tokenizer import BOS, EOS, LANGUAGES, PAD, UNK, SonarTokenizer, truncate_ids

DATA = sonar_original.records("tokenizer")


@pytest.fixture(scope="module")
def tokenizer():
    return SonarTokenizer(sonar_original.tokenizer_model())


@pytest.mark.parametrize("record", DATA["texts"], ids=lambda record: ascii(record["text"])[:30])
def test_10_ids_and_text(tokenizer, record):
    text, lang = record["text"], record["language"]
    assert tokenizer.encode([text], lang) == [record["source"]]
    assert [[EOS, *tokenizer.encode([text], lang)[0]]] == [record["target"]]
    for mode, tag in (
        ("source_mining", "MINED_DATA"),
        ("source_mmt_bt", "MMT_BT_DATA"),
        ("source_smt_bt", "SMT_BT_DATA"),
    ):
        assert tokenizer.encode([text], lang, tag=tag) == [record[mode]]
    assert tokenizer.decode([record["source"]]) == [record["decoded"]]


@pytest.mark.parametrize("record", DATA["decoded"], ids=lambda record: str(len(record["ids"])))
def test_10_any_ids_to_text(tokenizer, record):
    assert tokenizer.decode([record["ids"]]) == [record["text"]]


def test_10_languages_and_marks(tokenizer):
    assert {code: tokenizer.language_id(code) for code in DATA["languages"]} == DATA["languages"]
    assert list(LANGUAGES) == list(DATA["languages"])
    assert DATA["special"] == {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}
    assert tokenizer.vocab_size == DATA["size"] == DATA["pieces"] + 1 + 202 + 3
    assert 256_000 + 1 + len(LANGUAGES) + 3 == 256_206
    assert 256_001 + LANGUAGES.index("eng_Latn") == 256_047
    assert 256_001 + LANGUAGES.index("fra_Latn") == 256_057


def test_10_typed_marks_are_text(tokenizer):
    for text in ("</s>", "<pad>", "eng_Latn", "__eng_Latn__", "<MINED_DATA>"):
        ids = tokenizer.encode([f"a {text} b"], "eng_Latn")[0]
        assert all(i == UNK or EOS < i <= DATA["pieces"] for i in ids[1:-1]), text


def test_11_truncation(tokenizer):
    """The original keeps the first 514 ids and so loses ``</s>``; ours keeps it unless told otherwise."""
    ids = tokenizer.encode(["ball " * 600], "eng_Latn")[0]
    assert len(ids) > 514
    original = truncate_ids(ids, keep_end=False)
    assert original == ids[:514] and original[-1] != EOS
    kept = truncate_ids(ids)
    assert kept == [*ids[:513], EOS]
    for short in ([*ids[:513], EOS], [ids[0], EOS]):
        assert truncate_ids(short) == truncate_ids(short, keep_end=False) == short
