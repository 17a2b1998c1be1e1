from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.affixes import DEFAULT_AFFIXES, read_affixes
from largeconcept.data.build import build_concepts
from largeconcept.data.inspect import inspect_dataset
from largeconcept.data.manifest import locked
from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import ConceptLMError, ConfigError, DataError


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_rows_hold_what_the_codec_says(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl(
        [
            {"id": "a", "text": "One\ntwo.\nThree.\n\nFour five.", "lang": "en"},
            {"id": "b", "sents": ["Given.", "Twice.", "Given."], "paragraph_starts": [0, 2]},
        ]
    )
    codec = ToyCodec(16)
    report = build_concepts(path, tmp_path / "out", codec, segmenter)
    assert (report.documents, report.concepts, report.shards, report.skipped) == (2, 6, 1, [])
    dataset = ConceptDataset(tmp_path / "out")
    first, second = dataset
    assert first.sentences == ["One two.", "Three.", "Four five."]
    assert (first.id, first.lang, first.paragraph_starts) == ("a", "eng_Latn", (0, 2))
    assert (second.sentences, second.lang, second.paragraph_starts) == (["Given.", "Twice.", "Given."], None, (0, 2))
    for document in (first, second):
        expected = codec.encode(document.sentences)
        torch.testing.assert_close(document.concepts, expected.half().float(), rtol=0, atol=0)
    assert dataset.metadata.codec_id == "ToyCodec"
    assert dataset.metadata.codec_fingerprint == codec.fingerprint
    assert dataset.metadata.segmenter == {"type": "dots"}
    for text in DEFAULT_AFFIXES:
        torch.testing.assert_close(dataset.affixes[text], codec.encode([text])[0])
    inspect_dataset(tmp_path / "out")


def test_default_segmenter(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("Tim had a red ball. It rolled away.\n\nA dog took it.")
    build_concepts(path, tmp_path / "out", ToyCodec(8), lang="en")
    (document,) = ConceptDataset(tmp_path / "out")
    assert document.sentences == ["Tim had a red ball.", "It rolled away.", "A dog took it."]
    assert document.paragraph_starts == (0, 2)
    assert document.id == "story.txt"


def test_codec_gets_large_distinct_groups_with_languages(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    documents: list[dict[str, Any]] = [
        {"sents": ["1", "2", "1"]},
        {"sents": ["2", "3"]},
        {"sents": ["2"], "lang": "de"},
    ]
    codec = make_codec()
    build_concepts(write_jsonl(documents), tmp_path / "out", codec, segmenter, affixes=())
    assert codec.calls == [(["2"], ["deu_Latn"]), (["1", "2", "3"], None)]


def test_shards_close_at_documents_or_sentences(make_dataset: Callable[..., Path]) -> None:
    lengths = [3, 1, 9, 2, 2, 2, 2]
    path = make_dataset(lengths, documents_per_shard=3, sentences_per_shard=10)
    dataset = ConceptDataset(path)
    names = [shard.name for shard in dataset.shards]
    assert names == [f"shard-{i:05d}.parquet" for i in range(3)]
    assert [len(d.sentences) for d in dataset] == lengths
    manifest = json.loads((path / "train" / "build.json").read_text())
    assert [s["documents"] for s in manifest["shards"]] == [3, 3, 1]
    path = make_dataset(lengths, "other", documents_per_shard=100, sentences_per_shard=10)
    manifest = json.loads((path / "train" / "build.json").read_text())
    assert [s["documents"] for s in manifest["shards"]] == [3, 4]


class Interrupted(ToyCodec):
    """Stops like ctrl-C at the n-th call."""

    def __init__(self, dim: int, calls: int) -> None:
        super().__init__(dim)
        self.left = calls

    def encode(self, *args: Any, **keywords: Any) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().encode(*args, **keywords)


Interrupted.__name__ = "ToyCodec"  # the class name is the codec's name in the metadata


@pytest.mark.parametrize("calls", [1, len(DEFAULT_AFFIXES) + 1, len(DEFAULT_AFFIXES) + 4])
def test_interrupted_build_resumes_to_the_same_bits(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, calls: int
) -> None:
    documents: list[Any] = [{"id": f"d{i % 9}", "text": f"Text {i}. More of {i}. End."} for i in range(20)]
    documents[13] = {"id": 5, "text": None}
    path = write_jsonl(documents)
    keywords: dict[str, Any] = {
        "segmenter": segmenter,
        "documents_per_shard": 4,
        "group_sentences": 5,
        "on_error": "report",
    }
    whole = build_concepts(path, tmp_path / "whole", ToyCodec(8), **keywords)
    with pytest.raises(KeyboardInterrupt):
        build_concepts(path, tmp_path / "parts", Interrupted(8, calls), **keywords)
    with pytest.raises(DataError, match="not finished"):
        ConceptDataset(tmp_path / "parts")
    resumed = build_concepts(path, tmp_path / "parts", ToyCodec(8), **keywords)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert resumed.resumed_shards == max(0, calls - len(DEFAULT_AFFIXES)) // 2  # a shard is two calls, an affix one
    assert (resumed.documents, resumed.counts, resumed.skipped) == (whole.documents, whole.counts, whole.skipped)
    assert whole.documents == 19
    assert whole.skipped[0].where == f"{path}:14"


def test_resume_passes_over_refused_documents(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    """A document that only encoding refuses belongs to the input of its shard, though not to the shard."""
    path = write_jsonl([{"id": i, "sents": [str(i)]} for i in range(9)])

    class Choosy(Interrupted):
        def encode(self, sentences: Any, *args: Any, **keywords: Any) -> torch.Tensor:
            if "1" in sentences:
                raise DataError("an unlucky sentence")
            return super().encode(sentences, *args, **keywords)

    Choosy.__name__ = "ToyCodec"
    keywords: dict[str, Any] = {"segmenter": segmenter, "documents_per_shard": 3, "on_error": "report", "affixes": ()}
    whole = build_concepts(path, tmp_path / "whole", Choosy(8, 99), **keywords)
    with pytest.raises(KeyboardInterrupt):
        build_concepts(path, tmp_path / "parts", Choosy(8, 3), **keywords)
    resumed = build_concepts(path, tmp_path / "parts", Choosy(8, 99), **keywords)
    assert resumed.resumed_shards >= 1
    assert (resumed.documents, resumed.skipped) == (8, whole.skipped)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_finished_build_is_not_repeated(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl([{"text": "A. B."}, {"bad": 1}, {"text": "C."}])
    keywords: dict[str, Any] = {"segmenter": segmenter, "on_error": "report"}
    first = build_concepts(path, tmp_path / "out", ToyCodec(8), **keywords)
    before = content(tmp_path / "out")
    second = build_concepts(path, tmp_path / "out", Interrupted(8, 0), **keywords)
    assert content(tmp_path / "out") == before
    assert second.resumed_shards == 1
    assert (second.documents, second.concepts, second.skipped) == (first.documents, first.concepts, first.skipped)
    shard = tmp_path / "out" / "train" / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    (tmp_path / "out" / "train" / "build.json").unlink()
    with pytest.raises(DataError, match="unknown origin"):
        build_concepts(path, tmp_path / "out", ToyCodec(8), **keywords)
    build_concepts(path, tmp_path / "out", ToyCodec(8), overwrite=True, **keywords)
    assert content(tmp_path / "out") == before


def test_damaged_or_missing_shard_is_made_again(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    path = make_dataset([2, 2, 2], documents_per_shard=1)
    before = content(path)
    (path / "train" / "shard-00001.parquet").unlink()
    make_dataset([2, 2, 2], documents_per_shard=1)
    assert content(path) == before
    (path / "train" / "shard-00000.parquet").write_bytes(b"PAR1")
    (path / "train" / "shard-00002.parquet").unlink()
    make_dataset([2, 2, 2], documents_per_shard=1)
    assert content(path) == before
    other = make_dataset([3, 1, 2], "other", documents_per_shard=1)  # a whole shard, but of another build
    (path / "train" / "shard-00001.parquet").write_bytes((other / "train" / "shard-00001.parquet").read_bytes())
    (path / "train" / "shard-00002.parquet").unlink()
    make_dataset([2, 2, 2], documents_per_shard=1)
    assert content(path) == before


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"codec": ToyCodec(9)}, "codec_fingerprint"),
        ({"documents_per_shard": 3}, "documents_per_shard"),
        ({"max_sentence_chars": 99}, "max_sentence_chars"),
        ({"lang": "fra_Latn"}, "lang"),
        ({"inputs": "other.jsonl"}, "inputs"),
    ],
)
def test_other_settings_on_an_existing_split(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, change: dict[str, Any], name: str
) -> None:
    keywords: dict[str, Any] = {
        "inputs": write_jsonl([{"text": "A. B."}]),
        "out": tmp_path / "out",
        "codec": ToyCodec(8),
        "segmenter": segmenter,
    }
    build_concepts(**keywords)
    before = content(tmp_path / "out")
    if "inputs" in change:
        change = {"inputs": write_jsonl([{"text": "C."}], change["inputs"])}
    with pytest.raises(DataError, match=f"{name}: the folder was built with other settings"):
        build_concepts(**{**keywords, **change})
    assert content(tmp_path / "out") == before
    build_concepts(**{**keywords, **change}, overwrite=True)
    inspect_dataset(tmp_path / "out")


def test_one_dataset_holds_one_concept_space(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl([{"text": "A. B."}])
    build_concepts(path, tmp_path / "out", ToyCodec(8), segmenter)
    build_concepts(path, tmp_path / "out", ToyCodec(8), segmenter, split="test", affixes=["More."])
    assert sorted(read_affixes(tmp_path / "out").concepts) == sorted([*DEFAULT_AFFIXES, "More."])
    assert list(inspect_dataset(tmp_path / "out").splits) == ["test", "train"]
    with pytest.raises(DataError, match=r"another concept space.*fingerprint"):
        build_concepts(path, tmp_path / "out", ToyCodec(9), segmenter, split="third")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65520.0, -1e5])
def test_vectors_that_float16_cannot_hold(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any, value: float
) -> None:
    class Overflowing(make_codec):  # type: ignore[misc]
        def encode(self, sentences: Any, lang: Any = None, *, batch_tokens: int = 8192) -> torch.Tensor:
            result = super().encode(sentences, lang)
            for row, sentence in zip(result, sentences):
                if sentence == "666":
                    row[1] = value
            return result

    path = write_jsonl([{"id": "good", "sents": ["1"]}, {"id": "evil", "sents": ["2", "666"]}, {"sents": ["65504"]}])
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: document evil: .*float16"):
        build_concepts(path, tmp_path / "out", Overflowing(), segmenter)
    report = build_concepts(path, tmp_path / "out", Overflowing(), segmenter, on_error="report")
    assert [(s.id, s.where) for s in report.skipped] == [("evil", f"{path}:2: document evil")]
    assert [d.id for d in ConceptDataset(tmp_path / "out")] == ["good", "corpus.jsonl:3"]


def test_document_that_the_codec_refuses(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    class Choosy(make_codec):  # type: ignore[misc]
        def encode(self, sentences: Any, lang: Any = None, *, batch_tokens: int = 8192) -> torch.Tensor:
            if "13" in sentences:
                raise DataError("an unlucky sentence", got="13")
            return super().encode(sentences, lang)

    path = write_jsonl([{"id": i, "sents": [str(i)]} for i in range(12, 15)])
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: document 13: an unlucky sentence"):
        build_concepts(path, tmp_path / "out", Choosy(), segmenter)
    report = build_concepts(path, tmp_path / "out", Choosy(), segmenter, on_error="report")
    assert [s.id for s in report.skipped] == ["13"]
    assert report.documents == 2


def test_codec_of_another_shape(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    class Narrow(make_codec):  # type: ignore[misc]
        def encode(self, sentences: Any, lang: Any = None, *, batch_tokens: int = 8192) -> torch.Tensor:
            return super().encode(sentences, lang)[:, :-1]

    with pytest.raises(DataError, match="another shape"):
        build_concepts(write_jsonl([{"sents": ["1"]}]), tmp_path / "out", Narrow(), segmenter, affixes=())


def test_summaries_as_targets(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl(
        [
            {"id": "a", "text": "Long. Story. Here.", "summary": "Short. Tale."},
            {"id": "b", "text": "Without."},
            {"id": "c", "text": "Blank.", "summary": "  "},
        ]
    )
    codec = ToyCodec(8)
    report = build_concepts(path, tmp_path / "out", codec, segmenter, target="summary")
    (document,) = ConceptDataset(tmp_path / "out")
    assert (document.id, document.target_sentences) == ("a", ["Short.", "Tale."])
    assert document.target_concepts is not None
    torch.testing.assert_close(document.target_concepts, codec.encode(["Short.", "Tale."]).half().float())
    assert report.counts == {"without_target": 2}
    assert report.concepts == 5
    with pytest.raises(DataError, match="no document is left"):
        build_concepts(path, tmp_path / "none", codec, segmenter, target="target_sentences")


def test_repeated_ids_are_renamed_and_counted(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    ids = ["a", "b", "a", "a#2", "a", "b"]
    path = write_jsonl([{"id": id, "text": f"{i}."} for i, id in enumerate(ids)])
    report = build_concepts(path, tmp_path / "out", ToyCodec(8), segmenter, documents_per_shard=2)
    assert [d.id for d in ConceptDataset(tmp_path / "out")] == ["a", "b", "a#3", "a#2", "a#4", "b#2"]
    assert report.counts == {"renamed_ids": 3}
    inspect_dataset(tmp_path / "out")


def test_given_sentences_that_are_too_long_are_cut(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any
) -> None:
    path = write_jsonl([{"sents": ["a" * 90, "kept  as given", "b"], "paragraph_starts": [0, 1]}])
    report = build_concepts(path, tmp_path / "out", ToyCodec(8), segmenter, max_sentence_chars=50)
    (document,) = ConceptDataset(tmp_path / "out")
    assert document.sentences[-2:] == ["kept  as given", "b"]
    assert "".join(document.sentences[:-2]) == "a" * 90
    assert document.paragraph_starts == (0, len(document.sentences) - 2)
    assert report.counts == {"long_sentences_cut": 1}


def test_progress_counts_up_to_the_total(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl([{"text": f"{i}. x."} for i in range(50)])
    calls: list[tuple[int, int, str]] = []
    build_concepts(
        path,
        tmp_path / "out",
        ToyCodec(8),
        segmenter,
        group_sentences=20,
        documents_per_shard=30,
        progress=lambda *call: calls.append(call),
    )
    size = path.stat().st_size
    assert calls[0] == (size, size, "bytes")
    done = [call[0] for call in calls if call[2] == "documents"]
    assert done == sorted(done)
    assert (done[-1], len(set(done))) == (50, 5)
    assert {call[1] for call in calls if call[2] == "documents"} == {50}


def test_two_builds_cannot_share_a_folder(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl([{"text": "A."}])
    with locked(tmp_path / "out" / "train"), pytest.raises(ConfigError, match="another build"):
        build_concepts(path, tmp_path / "out", ToyCodec(8), segmenter)
    build_concepts(path, tmp_path / "out", ToyCodec(8), segmenter)


def test_wrong_arguments(tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any) -> None:
    path = write_jsonl([{"text": "A."}])
    (tmp_path / "file").write_text("")
    wrong: list[dict[str, Any]] = [
        {"documents_per_shard": 0},
        {"target": "title"},
        {"split": "a/b"},
        {"split": ""},
        {"out": tmp_path / "file"},
        {"inputs": tmp_path / "missing.txt"},
        {"lang": "klingon"},
    ]
    for change in wrong:
        keywords = {"inputs": path, "out": tmp_path / "out", "codec": ToyCodec(8), "segmenter": segmenter, **change}
        with pytest.raises(ConceptLMError):
            build_concepts(**keywords)
    assert not list(tmp_path.rglob("*.parquet"))
