"""Planned texts: which sentence plans a paragraph, how they are stored, and how they are laid out for training."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from largeconcept.data.build import build_concepts
from largeconcept.data.inspect import inspect_dataset
from largeconcept.data.loader import ConceptLoader, LoaderConfig
from largeconcept.data.plans import END_OF_PARAGRAPH, cut_paragraph, paragraph_windows, plan_paragraphs
from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import ConfigError, DataError
from largeconcept.types import ROLES

BREAK, END = -float(len(END_OF_PARAGRAPH)), -float(len("End of text."))
KINDS = ("first_sentence", "title", "given")
Write = Callable[..., Path]


def document(number: int, sizes: list[int], **fields: Any) -> dict[str, Any]:
    """A document of paragraphs of these sizes; its vectors are (document, sentence, 1), its plans' (document, p, 2)."""
    total = sum(sizes)
    return {
        "id": f"d{number}",
        "sentences": [f"{number} {i} 1" for i in range(total)],
        "paragraph_starts": [sum(sizes[:i]) for i in range(len(sizes))],
        "plans": [f"{number} {p} 2" for p in range(len(sizes))],
        **fields,
    }


@pytest.fixture
def build(tmp_path: Path, write_jsonl: Write, make_codec: Any, segmenter: Any) -> Callable[..., Path]:
    def make(documents: list[dict[str, Any]], plan: str | None = "given", name: str = "data", **options: Any) -> Path:
        source = write_jsonl(documents, f"{name}.jsonl")
        build_concepts(source, tmp_path / name, codec=make_codec(), segmenter=segmenter, plan=plan, **options)
        return tmp_path / name

    return make


def loader(path: Path, **changes: Any) -> ConceptLoader:
    settings = {"batch_concepts": 64, "max_length": 16, "shuffle_window": 64, "sources": [str(path)], **changes}
    return ConceptLoader(LoaderConfig.from_dict(settings))


def sequences(found: ConceptLoader) -> dict[int, list[tuple[list[float], str]]]:
    """Return sample id -> [(vector, role)] of an epoch."""
    result = {}
    for batch in found.epoch():
        assert batch.roles is not None
        assert batch.roles.shape == batch.concepts.shape[:2]
        for row, id in enumerate(batch.sample_ids.tolist()):
            length = int(batch.lengths[row])
            names = [ROLES[role] for role in batch.roles[row, :length].tolist()]
            result[id] = list(zip(batch.concepts[row, :length].tolist(), names, strict=True))
            assert not batch.roles[row, length:].any()
    return result


# --- which sentence is the plan --------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(1, 60), st.integers(1, 12))
def test_paragraphs_are_cut_into_nearly_equal_pieces(start: int, size: int, limit: int) -> None:
    pieces = cut_paragraph(start, start + size, limit)
    assert [piece[0] for piece in pieces] == [start, *[piece[1] for piece in pieces[:-1]]]
    assert pieces[-1][1] == start + size
    lengths = [stop - first for first, stop in pieces]
    assert len(pieces) == -(-size // limit)
    assert max(lengths) <= limit
    assert max(lengths) - min(lengths) <= 1


@given(st.lists(st.booleans() | st.integers(1, 30), min_size=1, max_size=8), st.sampled_from(KINDS), st.integers(1, 9))
def test_every_sentence_is_in_one_paragraph(items: list[bool | int], kind: Any, limit: int) -> None:
    """A ``bool`` stands for a heading."""
    sentences: list[str] = []
    starts = []
    for item in items:
        starts.append(len(sentences))
        sentences += ["A heading"] if isinstance(item, bool) else [f"Sentence {i}." for i in range(item)]
    found = plan_paragraphs(sentences, starts, kind, title="The title", given=["A plan."] * len(items), limit=limit)
    assert [one.start for one in found] == [0, *[one.stop for one in found[:-1]]]
    assert found[-1].stop == len(sentences)
    assert all(0 < one.stop - one.start <= limit for one in found)
    if kind == "first_sentence":
        assert all(one.plan == sentences[one.start] for one in found)


def test_headings_join_the_paragraph_below_and_plan_all_of_it() -> None:
    sentences = ["Before.", "Birds", "They fly.", "They sing.", "Some swim.", "Fish", "Whales", "They sing too.", "End"]
    found = plan_paragraphs(sentences, [0, 1, 2, 5, 6, 7, 8], "title", title="Animals", limit=2)
    assert [(one.plan, one.start, one.stop) for one in found] == [
        ("Animals", 0, 1),
        ("Birds", 1, 3),
        ("Birds", 3, 5),
        ("Fish", 5, 6),  # a heading with nothing below it
        ("Whales", 6, 8),
        ("Whales", 8, 9),  # the last paragraph cannot be a heading of anything
    ]
    (alone,) = plan_paragraphs(["One.", "Two."], [0], "title")
    assert alone.plan == "One."


def test_given_plans_must_fit_the_paragraphs() -> None:
    found = plan_paragraphs(["a.", "b.", "c."], [0, 2], "given", given=["First.", "Then."], limit=1)
    assert [one.plan for one in found] == ["First.", "First.", "Then."]
    for plans in (None, ["One."], ["One.", " "]):
        with pytest.raises(DataError, match="plan"):
            plan_paragraphs(["a.", "b.", "c."], [0, 2], "given", given=plans)


@given(st.lists(st.integers(2, 12), min_size=1, max_size=20), st.integers(12, 40), st.integers(1, 6))
def test_windows_hold_whole_paragraphs(sizes: list[int], max_length: int, min_length: int) -> None:
    found = paragraph_windows(sizes, max_length, min_length)
    assert [first for first, _ in found] == [0, *[last for _, last in found[:-1]]]
    assert found[-1][1] == len(sizes)
    totals = [sum(sizes[first:last]) for first, last in found]
    assert all(0 < total <= max_length for total in totals)
    # Any two neighbours but the last would not have fitted into one.
    assert all(a + sizes[last] > max_length for a, (_, last) in list(zip(totals, found))[:-2])


def test_a_last_window_that_is_short_takes_a_paragraph_along() -> None:
    assert paragraph_windows([5, 5, 2], 10, 2) == [(0, 2), (2, 3)]
    assert paragraph_windows([5, 5, 2], 10, 4) == [(0, 1), (1, 3)]
    assert paragraph_windows([5, 5, 2], 10, 6) == [(0, 2), (2, 3)]  # the one before would be too short then


# --- the dataset -----------------------------------------------------------------------------------------------------


def test_plans_are_stored_with_their_vectors(build: Callable[..., Path]) -> None:
    path = build([document(0, [2, 3])])
    dataset = ConceptDataset(path)
    assert dataset.planned
    assert dataset.metadata.plan == {"kind": "given", "max_paragraph": 9}
    (found,) = dataset
    assert found.plans == ["0 0 2", "0 1 2"]
    assert found.plan_concepts is not None
    assert found.plan_concepts.tolist() == [[0, 0, 2, 0], [0, 1, 2, 0]]
    assert found.paragraph_starts == (0, 2)
    assert END_OF_PARAGRAPH in dataset.affixes.concepts
    report = inspect_dataset(path)
    assert report.splits["train"].plan_concepts == 2
    assert report.plan == dataset.metadata.plan


def test_old_datasets_and_builds_without_plans_are_as_before(build: Callable[..., Path]) -> None:
    path = build([document(0, [2, 3])], plan=None)
    dataset = ConceptDataset(path)
    assert not dataset.planned
    assert dataset.metadata.plan is None
    assert END_OF_PARAGRAPH not in dataset.affixes.concepts
    assert "plan" not in json.loads((path / "train" / "build.json").read_text())["settings"]
    (batch,) = loader(path).epoch()
    assert batch.roles is None
    with pytest.raises(DataError, match="no plans"):
        loader(path, plans=True)


def test_the_place_in_the_data_of_runs_without_plans_has_not_changed(build: Callable[..., Path]) -> None:
    """A position that was taken before there were plans: the key of its settings must stay."""
    found = loader(build([document(0, [2, 3])], plan=None))
    assert found.state_dict()["config"] == "2d8316142915bff6"


def test_paragraphs_without_sentences_lose_their_plans(build: Callable[..., Path]) -> None:
    one = document(0, [1, 2, 1])
    one["sentences"][1] = one["sentences"][2] = " "
    (found,) = ConceptDataset(build([one]))
    assert found.plans == ["0 0 2", "0 2 2"]
    assert found.paragraph_starts == (0, 1)


def test_long_plans_are_cut_to_one_sentence_and_line_breaks_become_spaces(build: Callable[..., Path]) -> None:
    plans = ["A  first\nplan.", "Another plan. " + "It goes on and on. " * 5]
    (found,) = ConceptDataset(build([document(0, [1, 1], plans=plans)], max_sentence_chars=30))
    assert found.plans == ["A  first plan.", "Another plan."]


@pytest.mark.parametrize("plans", [None, ["one"], ["one", ""]])
def test_bad_plans_are_refused_with_their_place(build: Callable[..., Path], plans: Any) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:1: document d0.*plan"):
        build([document(0, [1, 1], plans=plans)])


def test_unknown_kinds_and_targets_are_refused(build: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="did you mean title"):
        build([document(0, [1])], plan="titel")
    with pytest.raises(ConfigError, match="exclude each other"):
        build([document(0, [1], target_sentences=["x"])], target="target_sentences")
    with pytest.raises(ConfigError, match="max_paragraph"):
        build([document(0, [1])], max_paragraph=0)


def change(path: Path, **columns: Any) -> None:
    """Replace columns of the first shard."""
    shard = path / "train" / "shard-00000.parquet"
    table = pq.read_table(shard)
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
    pq.write_table(table, shard)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"plans": [["only one"]]}, "another number of plans than paragraphs"),
        ({"plans": [["one", " "]]}, "blank"),
        ({"paragraph_starts": [[0]]}, "another number of plans"),
        ({"plan_concepts": [[[0.0, 0.0, 2.0, 0.0]]]}, "one for each of plans"),
        ({"plan_concepts": [[[0.0, np.nan, 2.0, 0.0]] * 2]}, "not finite"),
        ({"paragraph_starts": [None]}, "null"),
    ],
)
def test_inspect_finds_broken_plans(build: Callable[..., Path], columns: Any, message: str) -> None:
    path = build([document(0, [2, 3])])
    change(path, **columns)
    with pytest.raises(DataError, match=message):
        inspect_dataset(path)


def test_inspect_finds_a_paragraph_that_is_too_long(build: Callable[..., Path]) -> None:
    path = build([document(0, [2, 3]), document(1, [1, 3])], max_paragraph=3)
    inspect_dataset(path)
    change(path, paragraph_starts=[[0, 2], [0, 0]])
    with pytest.raises(DataError, match="do not rise"):
        inspect_dataset(path)
    change(path, paragraph_starts=[[0, 1], [0, 1]])
    with pytest.raises(DataError, match=r"row 0: column paragraph_starts.*too long"):
        inspect_dataset(path)
    with pytest.raises(DataError, match="do not fit"):
        change(path, paragraph_starts=[[0, 2], [1, 2]])
        list(loader(path).epoch())


# --- the layout ------------------------------------------------------------------------------------------------------


def test_plan_paragraph_break_and_end(build: Callable[..., Path]) -> None:
    (found,) = sequences(loader(build([document(0, [2, 1])]))).values()
    assert [name for _, name in found] == ["plan", "concept", "concept", "break", "plan", "concept", "break", "end"]
    vectors = [vector for vector, _ in found]
    assert [vector[:3] for vector, name in found if name == "plan"] == [[0, 0, 2], [0, 1, 2]]
    assert [vector[:3] for vector, name in found if name == "concept"] == [[0, 0, 1], [0, 1, 1], [0, 2, 1]]
    assert vectors[3][-1] == vectors[6][-1] == BREAK
    assert vectors[7][-1] == END


def test_a_first_sentence_as_plan_is_not_said_twice(build: Callable[..., Path]) -> None:
    (found,) = sequences(loader(build([document(0, [2, 1])], plan="first_sentence"))).values()
    assert [name for _, name in found] == ["plan", "concept", "break", "plan", "break", "end"]
    assert [vector[1] for vector, name in found if name in ("plan", "concept")] == [0, 1, 2]


def test_text_goes_along(build: Callable[..., Path]) -> None:
    (batch,) = loader(build([document(0, [2, 1])]), sentences=True).epoch()
    assert batch.sentences == [
        ["0 0 2", "0 0 1", "0 1 1", END_OF_PARAGRAPH, "0 1 2", "0 2 1", END_OF_PARAGRAPH, "End of text."]
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=6),
    st.sampled_from(KINDS),
    st.integers(1, 9),
    st.integers(12, 40),
    st.booleans(),
)
def test_every_sentence_once_in_order_with_one_plan_before_and_one_break_after_each_paragraph(
    tmp_path_factory: pytest.TempPathFactory,
    make_codec: Any,
    segmenter: Any,
    sizes: list[list[int]],
    kind: str,
    limit: int,
    max_length: int,
    append_end: bool,
) -> None:
    folder = tmp_path_factory.mktemp("planned")
    documents = [document(number, one) for number, one in enumerate(sizes)]
    (folder / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    options: dict[str, Any] = {"plan": kind, "max_paragraph": limit, "segmenter": segmenter}
    build_concepts(folder / "in.jsonl", folder / "data", codec=make_codec(), **options)
    found = list(
        sequences(loader(folder / "data", max_length=max_length, append_end=append_end, min_length=1)).values()
    )
    for number, one in enumerate(documents):
        windows = sorted((window for window in found if window[0][0][0] == number), key=first_sentence)
        said: list[int] = []
        names: list[str] = []
        for window in windows:
            roles = [name for _, name in window]
            assert len(window) <= max_length
            assert roles[0] == "plan"  # no window begins inside a paragraph
            assert roles[-1] in ("break", "end")
            for before, after in pairwise(roles):
                assert (after == "plan") == (before == "break" and after != "end")
            names += roles
            for vector, name in window:
                stands_in = name == "plan" and vector[2] == 1 and int(vector[1]) == len(said)
                if name == "concept" or stands_in:
                    said.append(int(vector[1]))
        assert said == list(range(len(one["sentences"])))
        assert names.count("plan") == names.count("break")
        assert names.count("end") == append_end
        assert names[-1] == ("end" if append_end else "break")
        if kind == "given":
            plans = [int(vector[1]) for window in windows for vector, name in window if name == "plan"]
            assert plans == [p for p, size in enumerate(sizes[number]) for _ in cut_paragraph(0, size, limit)]


def first_sentence(window: list[tuple[list[float], str]]) -> float:
    return next((v[1] for v, name in window if name == "concept"), window[0][0][1])


def test_resume_is_exact(build: Callable[..., Path]) -> None:
    sizes = np.random.default_rng(0).integers(1, 14, (40, 3)).tolist()
    path = build([document(number, one) for number, one in enumerate(sizes)])
    whole = loader(path, micro_batches=2, seed=3)
    states, steps = [], []
    for _ in range(25):
        states.append(json.loads(json.dumps(whole.state_dict())))
        steps.append([(batch.concepts.tolist(), batch.roles.tolist()) for batch in whole.next_step()])
    assert states[-1]["sources"][0]["epoch"] > 0
    for start in (0, 7, 19):
        again = loader(path, micro_batches=2, seed=3)
        again.load_state_dict(states[start])
        for step in steps[start : start + 4]:
            assert [(batch.concepts.tolist(), batch.roles.tolist()) for batch in again.next_step()] == step


def test_sequences_that_are_too_short_for_a_paragraph_are_refused_at_once(build: Callable[..., Path]) -> None:
    path = build([document(0, [30])])
    with pytest.raises(ConfigError, match="at least 12"):
        loader(path, max_length=11)
    loader(path, max_length=11, append_end=False)
    assert loader(path, max_length=11, plans=False).break_concept is None
    found = loader(path).break_concept
    assert found is not None
    assert found.tolist() == [0, 0, 0, BREAK]
    assert loader(path).plan_kind == "given"


def test_mixtures_are_planned_as_a_whole(build: Callable[..., Path]) -> None:
    planned, plain = build([document(0, [4])]), build([document(0, [4])], plan=None, name="plain")
    with pytest.raises(DataError, match="no plans"):
        loader(planned, sources=[str(planned), str(plain)])
    assert all(
        batch.roles is None for batch in loader(planned, sources=[str(planned), str(plain)], plans=False).epoch()
    )
