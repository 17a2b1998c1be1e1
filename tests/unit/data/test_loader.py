from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from largeconcept.data.affixes import TASK_PROMPTS, add_affixes, read_affixes
from largeconcept.data.loader import ConceptLoader, LoaderConfig, SourceConfig
from largeconcept.data.sequences import sample_id, windows
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.types import ConceptBatch

END = -len("End of text.")
PROMPT = -len("[MODEL]:")
Make = Callable[..., Path]


def config(*paths: Path, **keywords: Any) -> LoaderConfig:
    data = {"batch_concepts": 48, "max_length": 16, "shuffle_window": 200, **keywords}
    return LoaderConfig.from_dict({"sources": [str(path) for path in paths], **data})


def rows(batches: Iterable[ConceptBatch]) -> list[tuple[int, list[list[float]]]]:
    """Return (sample id, vectors) of every row; checks the padding."""
    result = []
    for batch in batches:
        assert batch.concepts.dtype == torch.float32
        assert int(batch.lengths.max()) == batch.concepts.shape[1]
        for row, length, id in zip(batch.concepts, batch.lengths.tolist(), batch.sample_ids.tolist()):
            assert not row[length:].any()
            result.append((id, row[:length].tolist()))
    return result


def lengths(seed: int, count: int, high: int = 25) -> list[int]:
    return np.random.default_rng(seed).integers(1, high, count).tolist()


@given(st.integers(1, 400), st.integers(2, 40), st.integers(1, 20))
def test_windows_cover_everything(length: int, max_length: int, min_length: int) -> None:
    min_length = min(min_length, max_length // 2) or 1
    found = windows(length, max_length, min_length)
    assert [start for start, _ in found] == [0, *[stop for _, stop in found[:-1]]]
    assert found[-1][1] == length
    assert all(stop - start <= max_length for start, stop in found)
    if length >= min_length:
        assert all(stop - start >= min_length for start, stop in found)
    assert len(found) == -(-length // max_length)


def test_documents_are_closed_and_wrapped(make_dataset: Make) -> None:
    loader = ConceptLoader(config(make_dataset([3, 16, 40])))
    found = {vectors[0][0] * 100 + vectors[0][1]: vectors for _, vectors in rows(loader.epoch())}
    assert [v[:2] for v in found[0]] == [[0, 0], [0, 1], [0, 2], [0, 0]]
    assert found[0][-1][-1] == END
    # 16 sentences and the end are 17: the end does not stand alone, it takes a sentence along
    assert (len(found[100]), len(found[115])) == (15, 2)
    assert found[100][-1][1] == 14
    assert found[115][0][1] == 15
    assert found[115][-1][-1] == END
    assert (len(found[200]), len(found[216]), len(found[232])) == (16, 16, 9)
    assert [v[1] for window in (found[200], found[216], found[232][:-1]) for v in window] == list(range(40))
    assert loader.omissions.short_documents == 0


def test_without_end_concept_short_documents_are_counted(make_dataset: Make) -> None:
    loader = ConceptLoader(config(make_dataset([1, 2, 5, 1]), append_end=False))
    assert sorted(len(vectors) for _, vectors in rows(loader.epoch())) == [2, 5]
    assert loader.omissions.short_documents == 2


def test_a_source_may_go_without_the_end(make_dataset: Make) -> None:
    pairs, plain = make_dataset([3, 4], targets=[1, 2]), make_dataset([5, 6], "plain")
    tasks = [{"path": str(pairs), "task": "summarize"}, {"path": str(plain), "task": "continue"}]
    settings = [tasks, [tasks[0], {**tasks[1], "append_end": False}], [{**s, "append_end": False} for s in tasks]]
    loaders = [
        ConceptLoader(config(plain).model_copy(update={"sources": [SourceConfig(**s) for s in sources]}))
        for sources in settings
    ]
    ends = [[vectors[-1][-1] == END for _, vectors in rows(loader.epoch())] for loader in loaders]
    assert [(sum(found), len(found)) for found in ends] == [(4, 4), (2, 4), (0, 4)]
    assert len({loader._config_key() for loader in loaders}) == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_no_document_is_lost_or_repeated(make_dataset: Make, seed: int) -> None:
    sizes = lengths(seed, 1500)
    path = make_dataset(sizes)
    expected = Counter((float(d), float(i)) for d, size in enumerate(sizes) for i in range(size))

    def concepts(batches: Iterable[ConceptBatch]) -> Counter[tuple[float, float]]:
        return Counter((v[0], v[1]) for _, vectors in rows(batches) for v in vectors if v[-1] != END)

    assert concepts(ConceptLoader(config(path)).epoch()) == expected
    loader = ConceptLoader(config(path, seed=seed))
    epochs: list[list[ConceptBatch]] = [[], [], []]
    for _ in range(2000):
        step = loader.next_step()
        epochs[loader.state_dict()["sources"][0]["epoch"]] += step  # a pool never reaches over the end of an epoch
        if epochs[2]:
            break
    assert concepts(epochs[0]) == concepts(epochs[1]) == expected
    first, second = ([id for id, _ in rows(epoch)] for epoch in epochs[:2])
    assert first != second
    assert sorted(first) == sorted(second)  # ids do not depend on the epoch


def test_small_dataset_does_not_meet_itself_in_a_batch(make_dataset: Make) -> None:
    loader = ConceptLoader(config(make_dataset([3, 2, 4])))
    for _ in range(5):
        (batch,) = loader.next_step()
        assert len(set(batch.sample_ids.tolist())) == len(batch.sample_ids) == 3


def test_stream_does_not_depend_on_world_size(make_dataset: Make) -> None:
    path, other = make_dataset(lengths(2, 300)), make_dataset(lengths(3, 200), "other")
    settings = config(path, other, micro_batches=4, seed=5)
    whole = ConceptLoader(settings)
    expected = [rows(whole.next_step()) for _ in range(12)]
    for world_size in (2, 4):
        loaders = [ConceptLoader(settings, rank, world_size) for rank in range(world_size)]
        for step in expected:
            parts = [loader.next_step() for loader in loaders]
            assert all(len(part) == 4 // world_size for part in parts)
            interleaved = [batch for group in zip(*parts) for batch in group]
            assert rows(interleaved) == step
        assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
        assert loaders[0].state_dict() == whole.state_dict()
        once = [batch for loader in loaders for batch in loader.epoch()]
        assert sorted(rows(once)) == sorted(rows(whole.epoch()))


def test_resume_is_exact_at_every_step_and_world_size(make_dataset: Make) -> None:
    settings = config(make_dataset(lengths(4, 40)), make_dataset(lengths(5, 60), "b"), micro_batches=4, seed=1)
    loader = ConceptLoader(settings)
    states, steps = [], []
    for _ in range(30):
        states.append(json.loads(json.dumps(loader.state_dict())))
        steps.append(rows(loader.next_step()))
    assert states[-1]["pool"] > 2
    assert states[-1]["sources"][0]["epoch"] > 0
    assert any(state["used"] % 4 for state in states)  # steps that reach over the border of a pool
    for start in range(30):
        resumed = ConceptLoader(settings)
        resumed.load_state_dict(states[start])
        assert resumed.step == start
        assert resumed.state_dict() == states[start]
        assert [rows(resumed.next_step()) for _ in steps[start : start + 3]] == steps[start : start + 3]
    halves = [ConceptLoader(settings, rank, 2) for rank in range(2)]
    for half in halves:
        half.load_state_dict(states[13])
    parts = [half.next_step() for half in halves]
    assert rows([batch for pair in zip(*parts) for batch in pair]) == steps[13]
    used = ConceptLoader(settings)
    for _ in range(5):
        used.next_step()
    used.load_state_dict(states[13])  # a loader that was elsewhere
    assert rows(used.next_step()) == steps[13]


def test_seed_and_settings_matter(make_dataset: Make) -> None:
    path = make_dataset(lengths(6, 200))
    first, again, other = (rows(ConceptLoader(config(path, seed=seed)).next_step()) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_mixture_keeps_its_proportions_in_concepts(make_dataset: Make) -> None:
    a, b = make_dataset(lengths(7, 100, 6)), make_dataset(lengths(8, 300, 30), "b")
    sources = [{"path": str(a), "weight": 1.0}, {"path": str(b), "weight": 3.0}]
    loader = ConceptLoader(LoaderConfig.from_dict({**config(a).to_dict(), "sources": sources}))
    of_a = {sample_id(0, f"d{d}", w) for d in range(100) for w in range(3)}
    total, share = 0, 0
    for _ in range(200):
        for id, vectors in rows(loader.next_step()):
            total += len(vectors)
            share += len(vectors) * (id in of_a)
    assert share / total == pytest.approx(0.25, abs=0.01)
    drawn = [source["drawn"] for source in loader.state_dict()["sources"]]
    assert abs(drawn[0] * 3 - drawn[1]) <= 3 * 16 + 16


def test_pairs(make_dataset: Make) -> None:
    path = make_dataset([3, 14, 3, 9], targets=[2, 3, 20, 1])
    loader = ConceptLoader(config(path))
    assert loader.supervised
    found = {}
    for batch in loader.epoch():
        assert batch.source_lengths is not None
        for (_, vectors), source in zip(rows([batch]), batch.source_lengths.tolist()):
            found[int(vectors[0][0])] = (vectors, source)
    vectors, source = found[0]
    assert (len(vectors), source) == (7, 4)
    assert [v[2] for v in vectors] == [1, 1, 1, 0, 2, 2, 0]
    assert (vectors[3][-1], vectors[-1][-1]) == (PROMPT, END)
    vectors, source = found[1]  # too long: the source loses its end, prompt and target stay
    assert (len(vectors), source) == (16, 12)
    assert [v[1] for v in vectors[:11]] == list(range(11))
    assert (vectors[11][-1], vectors[-1][-1]) == (PROMPT, END)
    assert [v[1] for v in vectors[12:15]] == [0, 1, 2]
    vectors, source = found[2]  # the target alone is too long: no end
    assert (len(vectors), source) == (16, 2)
    assert [v[1] for v in vectors[2:]] == list(range(14))
    assert loader.omissions.shortened_pairs == 2
    plain = ConceptLoader(config(path, targets=False))
    assert not plain.supervised
    assert all(batch.source_lengths is None for batch in plain.epoch())
    bare = ConceptLoader(config(path, prompt_text=None, append_end=False))
    assert sorted(len(v) for _, v in rows(bare.epoch()))[0] == 5


def test_targets_that_are_missing(make_dataset: Make) -> None:
    pairs, plain = make_dataset([3], targets=[2]), make_dataset([3], "plain")
    for settings in (config(plain, targets=True), config(pairs, plain)):
        with pytest.raises(DataError, match=r"plain.*no targets"):
            ConceptLoader(settings)
    ConceptLoader(config(pairs, plain, targets=False)).next_step()


def test_padding_is_small_on_realistic_lengths(make_dataset: Make) -> None:
    # many short descriptions, some long chapters: median 3, mean about 9, as in a mixed corpus of free texts
    sizes = np.random.default_rng(0).lognormal(1.2, 1.3, 6000).clip(1, 250).astype(int).tolist()
    loader = ConceptLoader(config(make_dataset(sizes), batch_concepts=2048, max_length=128, shuffle_window=65536))
    for batches in ([b for _ in range(40) for b in loader.next_step()], list(loader.epoch())):
        padded = [b.concepts.shape[0] * b.concepts.shape[1] for b in batches]
        assert max(padded) <= 2048
        efficiency = sum(b.num_concepts for b in batches) / sum(padded)
        assert efficiency > 0.9
        fill = np.mean(padded) / 2048
        assert fill > 0.8


def test_batches_are_mixed(make_dataset: Make) -> None:
    """Neighbours in the file do not stay neighbours, and lengths do not come in order."""
    loader = ConceptLoader(config(make_dataset([4] * 1200 + [9] * 1200), shuffle_window=20000))
    batches = [loader.next_step()[0] for _ in range(60)]
    width = [b.concepts.shape[1] for b in batches]
    assert width not in (sorted(width), sorted(width, reverse=True))
    gaps = [np.diff(sorted(b.concepts[:, 0, 0].tolist())).mean() for b in batches]
    assert np.mean(gaps) > 20


def test_bad_configurations(make_dataset: Make, make_codec: Any, tmp_path: Path) -> None:
    path = make_dataset([3, 4])
    for change, problem in [
        ({"batch_concepts": 15}, "less than max_length"),
        ({"min_length": 9}, "twice min_length"),
        ({"batch_size": 3}, "batch_size"),
        ({"sources": []}, "sources"),
        ({"sources": [{"path": str(path), "weight": 0}]}, "weight"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            LoaderConfig.from_dict({**config(path).to_dict(), **change})
    assert LoaderConfig.from_dict({"sources": "data/mine"}).sources[0].path == "data/mine"
    with pytest.raises(ConfigError, match=r"shared out evenly.*multiple of 2"):
        ConceptLoader(config(path, micro_batches=3), 0, 2)
    with pytest.raises(ConfigError, match="shared out evenly"):
        ConceptLoader(config(path, micro_batches=2), 0, 4)
    with pytest.raises(ConfigError, match="rank"):
        ConceptLoader(config(path), 1, 1)
    with pytest.raises(DataError, match=r"another concept space.*feedfacefeedface"):
        ConceptLoader(config(path), fingerprint="0" * 16)
    with pytest.raises(DataError, match="another dimension; expected 8; got 4"):
        ConceptLoader(config(path), dim=8)
    other = make_dataset([3], "other", codec=make_codec(4, "0" * 16))
    with pytest.raises(DataError, match="another concept space"):
        ConceptLoader(config(path, other))
    with pytest.raises(DataError, match=r"no such affix.*Fin\."):
        ConceptLoader(config(path, end_text="Fin."))
    with pytest.raises(DataError, match="no such dataset"):
        ConceptLoader(config(tmp_path / "nothing"))
    loader = ConceptLoader(config(make_dataset([1, 1], "short"), append_end=False))
    with pytest.raises(DataError, match="no sequence"):
        loader.next_step()
    with pytest.raises(DataError, match="no sequence"):
        list(loader.epoch())


def test_positions_that_do_not_fit(make_dataset: Make) -> None:
    path = make_dataset(lengths(9, 50))
    loader = ConceptLoader(config(path))
    loader.next_step()
    state = loader.state_dict()
    damaged: list[tuple[dict[str, Any], str]] = [
        ({"version": 2}, "version"),
        ({"config": "x"}, "settings have changed"),
        ({"data": [[51, 700]]}, "datasets have changed"),
        ({"used": -1}, "damaged"),
        ({"used": 10_000}, "damaged"),
        ({"sources": []}, "damaged"),
        ({"sources": [{"drawn": 3}]}, "not a position"),
        ({"sources": [{"drawn": 3, "epoch": 0, "group": 99, "sequence": 0}]}, "not a position"),
    ]
    for change, problem in damaged:
        fresh = ConceptLoader(config(path))
        with pytest.raises(CheckpointError, match=problem):
            fresh.load_state_dict({**state, **change})
            fresh.next_step()
    with pytest.raises(CheckpointError, match="settings have changed"):
        ConceptLoader(config(path, batch_concepts=64)).load_state_dict(state)
    moved = path.rename(path.with_name("moved"))
    ConceptLoader(config(moved)).load_state_dict(state)


def said(batches: Iterable[ConceptBatch]) -> list[tuple[int, str | None, list[str]]]:
    """Return (sample id, language, sentences) of every row; the text must say what the vectors are."""
    result = []
    for batch in batches:
        assert batch.sentences is not None and batch.languages is not None
        found = rows([batch])
        assert len(batch.sentences) == len(batch.languages) == len(found)
        for (id, vectors), text, lang in zip(found, batch.sentences, batch.languages):
            for vector, sentence in zip(vectors, text, strict=True):
                if sentence[0].isdigit():
                    assert vector[:3] == [float(word) for word in sentence.split()]
                else:
                    assert vector == [0, 0, 0, -len(sentence)]
            result.append((id, lang, text))
    return result


@pytest.mark.parametrize("targets", [None, [2, 3, 20, 1, 4]])
def test_sentences_stand_beside_their_concepts(make_dataset: Make, targets: list[int] | None) -> None:
    """In documents, windows and pairs, cut ones too."""
    path = make_dataset([3, 14, 3, 9, 40], targets=targets)
    plain, reading = ConceptLoader(config(path)), ConceptLoader(config(path, sentences=True))
    texts = said(reading.epoch())
    assert sum(len(text) for _, _, text in texts) == sum(len(vectors) for _, vectors in rows(plain.epoch()))
    ends = [text[-1] for _, _, text in texts]
    assert ends.count("End of text.") == (4 if targets else 5)  # a target that is cut has no end
    assert sum("[MODEL]:" in text for _, _, text in texts) == (5 if targets else 0)
    assert all(batch.sentences is batch.languages is None for batch in plain.epoch())
    moved = next(iter(reading.epoch())).to("cpu")
    assert moved.sentences is not None and moved.languages is not None


def test_languages_come_with_the_sentences(tmp_path: Path, write_jsonl: Any, make_codec: Any, segmenter: Any) -> None:
    from largeconcept.data.build import build_concepts

    documents = [{"id": "a", "sentences": ["1 2 3", "1 1 1"], "lang": "fra_Latn"}, {"id": "b", "sentences": ["3 3 3"]}]
    build_concepts(write_jsonl(documents), tmp_path / "data", codec=make_codec(), segmenter=segmenter)
    found = said(ConceptLoader(config(tmp_path / "data", sentences=True)).epoch())
    assert sorted((text[0], lang) for _, lang, text in found) == [("1 2 3", "fra_Latn"), ("3 3 3", None)]


def test_reading_sentences_changes_neither_the_stream_nor_its_position(make_dataset: Make) -> None:
    path = make_dataset(lengths(10, 60))
    plain, reading = ConceptLoader(config(path)), ConceptLoader(config(path, sentences=True))
    for _ in range(7):
        assert rows(plain.next_step()) == rows(reading.next_step())
    assert plain.state_dict() == reading.state_dict()
    resumed = ConceptLoader(config(path, sentences=True))
    resumed.load_state_dict(plain.state_dict())
    for _ in range(12):
        assert said(resumed.next_step()) == said(reading.next_step())


def test_text_that_does_not_fit_its_concepts_is_named(make_dataset: Make) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = make_dataset([3, 2])
    shard = path / "train" / "shard-00000.parquet"
    table = pq.read_table(shard)
    column = table.schema.get_field_index("sentences")
    broken = pa.array([["0 0 1", "0 1 1", "0 2 1"], ["1 0 1"]], pa.list_(pa.string()))
    pq.write_table(table.set_column(column, table.schema.field(column), broken), shard)
    ConceptLoader(config(path)).next_step()  # text is not looked at
    with pytest.raises(DataError, match=r"row 1: sentences and concepts differ.*1 sentences, 2 concepts"):
        ConceptLoader(config(path, sentences=True)).next_step()


SUMMARIZE, EXPAND = (-len(TASK_PROMPTS[task]) for task in ("summarize", "expand"))


def tasks(path: Path, *names: str | None, **keywords: Any) -> LoaderConfig:
    """Name one dataset once for each task."""
    plain = config(path, **keywords).to_dict()
    return LoaderConfig.from_dict({**plain, "sources": [{"path": str(path), "task": name} for name in names]})


def of_source(loader: ConceptLoader, number: int, ids: Iterable[str]) -> dict[str, tuple[list[list[float]], int]]:
    """Return document -> (vectors, source length) of the first windows of one source."""
    names = {sample_id(number, id, 0): id for id in ids}
    found = {}
    for batch in loader.epoch():
        sources = [0] * len(batch.lengths) if batch.source_lengths is None else batch.source_lengths.tolist()
        for (id, vectors), source in zip(rows([batch]), sources, strict=True):
            if id in names:
                found[names[id]] = (vectors, source)
    return found


def test_each_task_reads_the_dataset_in_its_own_way(make_dataset: Make) -> None:
    path = make_dataset([3, 14, 3], targets=[2, 3, 20])
    loader = ConceptLoader(tasks(path, "continue", "summarize", "expand"))
    assert loader.supervised
    alone, short, long = (of_source(loader, number, ["d0", "d1", "d2"]) for number in range(3))
    vectors, source = alone["d0"]
    assert ([v[2] for v in vectors], source) == ([1, 1, 1, 0], 0)
    vectors, source = short["d0"]
    assert ([v[2] for v in vectors], source) == ([1, 1, 1, 0, 2, 2, 0], 4)
    assert (vectors[3][-1], vectors[-1][-1]) == (SUMMARIZE, END)
    vectors, source = long["d0"]
    assert ([v[2] for v in vectors], source) == ([2, 2, 0, 1, 1, 1, 0], 3)
    assert (vectors[2][-1], vectors[-1][-1]) == (EXPAND, END)
    # too long: whichever side the document is on, it is the document that loses its end
    vectors, source = short["d1"]
    assert (len(vectors), source, vectors[-1][-1]) == (16, 12, END)
    vectors, source = long["d1"]
    assert ([v[1] for v in vectors[:3]], source) == ([0, 1, 2], 4)
    assert [v[1] for v in vectors[4:]] == list(range(12))
    # a summary that is too long keeps half of the sequence, and its document the rest
    vectors, source = long["d2"]
    assert (source, len(vectors), [v[1] for v in vectors[:7]]) == (8, 12, list(range(7)))
    assert (vectors[7][-1], [v[2] for v in vectors[8:]]) == (EXPAND, [1, 1, 1, 0])
    assert loader.omissions.shortened_pairs == 3 * 4  # in each of the three passes


def test_tasks_read_their_prompts_as_text(make_dataset: Make) -> None:
    path = make_dataset([3, 14], targets=[2, 3])
    texts = [text for _, _, text in said(ConceptLoader(tasks(path, "summarize", "expand", sentences=True)).epoch())]
    for prompt in TASK_PROMPTS.values():
        assert sum(prompt in text for text in texts) == 2


def test_a_source_has_a_prompt_of_its_own(make_dataset: Make, make_codec: Any) -> None:
    path = make_dataset([3], targets=[2])
    source = {"path": str(path), "task": "summarize", "prompt_text": "In short:"}
    settings = LoaderConfig.from_dict({**config(path).to_dict(), "sources": [source]})
    with pytest.raises(DataError, match=r"no such affix.*In short:.*data affixes .* --add 'In short:'"):
        ConceptLoader(settings)
    add_affixes(path, ["In short:", "End of text."], make_codec())
    ((vectors, source_length),) = of_source(ConceptLoader(settings), 0, ["d0"]).values()
    assert (vectors[3][-1], source_length) == (-len("In short:"), 4)
    with pytest.raises(ConfigError, match="prompt_text needs a task"):
        LoaderConfig.from_dict({"sources": [{"path": "data", "prompt_text": "In short:"}]})


def test_adding_affixes(make_dataset: Make, make_codec: Any) -> None:
    path = make_dataset([3])
    before = read_affixes(path)
    after = add_affixes(path, ["More.", "More."], make_codec())
    assert sorted(after.concepts) == sorted([*before.concepts, "More."])
    assert read_affixes(path)["More."].tolist() == [0, 0, 0, -5]
    with pytest.raises(DataError, match=r"another concept space.*feedfacefeedface.*0000"):
        add_affixes(path, ["Less."], make_codec(4, "0" * 16))
    with pytest.raises(DataError, match="needs a text"):
        add_affixes(path, [" "], make_codec())
    assert sorted(read_affixes(path).concepts) == sorted(after.concepts)


def test_mixture_of_documents_and_pairs(make_dataset: Make) -> None:
    """Weights, epochs and resume are those of any mixture; only pairs have context."""
    pairs = make_dataset(lengths(11, 60, 9), targets=lengths(12, 60, 4))
    plain = make_dataset(lengths(13, 80), "plain")
    sources = [
        {"path": str(plain), "weight": 2.0},
        {"path": str(pairs), "task": "summarize"},
        {"path": str(pairs), "task": "expand"},
    ]
    settings = LoaderConfig.from_dict({**config(plain, micro_batches=2).to_dict(), "sources": sources})
    loader = ConceptLoader(settings)
    states, steps, contexts = [], [], Counter[str]()
    ids = {number: {sample_id(number, f"d{d}", w) for d in range(80) for w in range(3)} for number in range(3)}
    for _ in range(60):
        states.append(json.loads(json.dumps(loader.state_dict())))
        step = loader.next_step()
        steps.append(rows(step))
        for batch in step:
            assert batch.source_lengths is not None
            for id, source in zip(batch.sample_ids.tolist(), batch.source_lengths.tolist()):
                number = next(n for n, known in ids.items() if id in known)
                assert (source > 0) == (number > 0)
                contexts[str(number)] += 1
    assert set(contexts) == {"0", "1", "2"}
    drawn = [source["drawn"] for source in loader.state_dict()["sources"]]
    assert drawn[0] / sum(drawn) == pytest.approx(0.5, abs=0.02)
    for start in (0, 7, 31):
        resumed = ConceptLoader(settings)
        resumed.load_state_dict(states[start])
        assert [rows(resumed.next_step()) for _ in range(3)] == steps[start : start + 3]
    halves = [ConceptLoader(settings, rank, 2) for rank in range(2)]
    for half in halves:
        half.load_state_dict(states[31])
    parts = [half.next_step() for half in halves]
    assert rows([batch for pair in zip(*parts) for batch in pair]) == steps[31]
    other = settings.to_dict()
    other["sources"][2]["task"] = "continue"
    with pytest.raises(CheckpointError, match="settings have changed"):
        ConceptLoader(LoaderConfig.from_dict(other)).load_state_dict(states[31])


def test_positions_without_tasks_are_the_old_ones(make_dataset: Make) -> None:
    """A run that began before sources had tasks goes on."""
    path = make_dataset([3, 4])
    state = ConceptLoader(config(path, plans=None)).state_dict()
    data = config(path).to_dict()
    data["sources"] = [["train", 1.0]]
    for name in ("sentences", "plans", "break_text"):
        del data[name]
    assert state["config"] == hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def test_documents_without_a_target_among_others(tmp_path: Path, write_jsonl: Any, make_codec: Any) -> None:
    """They are left out of pairs; unless asked for pairs, such a dataset is one of documents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from largeconcept.data.build import build_concepts

    rows_of = [{"id": f"d{i}", "sentences": ["1 1 1", f"1 {i} 1"], "target_sentences": ["2 2 2"]} for i in range(3)]
    build_concepts(write_jsonl(rows_of), tmp_path / "data", codec=make_codec(), target="target_sentences")
    shard = tmp_path / "data" / "train" / "shard-00000.parquet"
    table = pq.read_table(shard)
    for name in ("target_sentences", "target_concepts"):
        column = table.column(name).to_pylist()
        column[1] = []
        table = table.set_column(
            table.schema.get_field_index(name),
            table.schema.field(name),
            pa.array(column, table.schema.field(name).type),
        )
    metadata = {**table.schema.metadata, b"largeconcept.partial_targets": b"true"}
    pq.write_table(table.replace_schema_metadata(metadata), shard)
    loader = ConceptLoader(tasks(tmp_path / "data", "summarize", "continue"))
    assert sorted(of_source(loader, 0, ["d0", "d1", "d2"])) == ["d0", "d2"]
    assert sorted(of_source(loader, 1, ["d0", "d1", "d2"])) == ["d0", "d1", "d2"]
    assert loader.omissions.without_target == 2  # once for each pass
    assert not ConceptLoader(config(tmp_path / "data")).supervised
    assert ConceptLoader(config(tmp_path / "data", targets=True)).supervised


def test_tasks_that_do_not_fit(make_dataset: Make) -> None:
    plain = make_dataset([3])
    with pytest.raises(DataError, match=r"no targets.*task=continue"):
        ConceptLoader(tasks(plain, "summarize"))
    with pytest.raises(ConfigError, match="task"):
        tasks(plain, "translate")
    assert not ConceptLoader(tasks(plain, "continue")).supervised
    mixed = LoaderConfig.from_dict(
        {"sources": [{"path": "a", "task": "summarize", "weight": 1}]} | {"batch_concepts": 256, "max_length": 64}
    )
    assert mixed.tasks == {"summarize": TASK_PROMPTS["summarize"]}
    several = [
        {"path": "a", "task": "expand", "weight": weight, "prompt_text": text}
        for text, weight in (("A", 1), ("B", 2), ("C", 2), ("A", 0.5))
    ]
    assert LoaderConfig.from_dict({"sources": several}).tasks == {"expand": "B"}
