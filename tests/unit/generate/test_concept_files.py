"""Files of concepts give back what was written, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.errors import DataError
from largeconcept.generate.files import ConceptFile, json_lines, parse_json_lines, read_concepts, write_concepts

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.lists(numbers, min_size=3, max_size=3)), min_size=1)
)
def test_json_lines_are_exact(rows):
    concepts = torch.tensor([row for _, row in rows], dtype=torch.float32)
    sentences = tuple(sentence for sentence, _ in rows)
    lines = list(json_lines(sentences, concepts, "abc"))
    assert all("\n" not in line and json.loads(line) for line in lines)
    found = parse_json_lines(lines, "here")
    assert torch.equal(found.concepts, concepts)
    assert (found.sentences, found.codec) == (sentences, "abc")


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "jsonl"])
@pytest.mark.parametrize("sentences", [("Eins.", "\u4e8c\u3002 \"'\\"), ()])
@pytest.mark.parametrize("codec", ["abc", None])
def test_round_trip(tmp_path, suffix, sentences, codec):
    concepts = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)) * 1e-3
    path = tmp_path / f"z.{suffix}"
    write_concepts(path, ConceptFile(concepts, sentences, codec))
    found = read_concepts(path)
    assert torch.equal(found.concepts, concepts)
    assert found.codec == codec
    assert found.sentences == (sentences or (() if suffix != "jsonl" else ("", "")))


def test_pickles_are_not_opened(tmp_path):
    np.savez(tmp_path / "z.npz", concepts=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        read_concepts(tmp_path / "z.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.ones((2, 3), np.float32)},
        {"concepts": np.ones(3, np.float32)},
        {"concepts": np.array(["text"])},
        {"concepts": np.ones((2, 3), np.float32), "sentences": np.array(["one"])},
    ],
)
def test_other_arrays(tmp_path, arrays):
    np.savez(tmp_path / "z.npz", **arrays)
    with pytest.raises(DataError, match=r"z\.npz"):
        read_concepts(tmp_path / "z.npz")
