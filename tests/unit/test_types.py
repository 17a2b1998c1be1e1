from __future__ import annotations

import dataclasses

import pytest
import torch

from largeconcept.codec.toy import ToyCodec
from largeconcept.types import ConceptBatch, ConceptCodec, Document, Segmenter, Span


def test_a_span_is_half_open() -> None:
    text = "One. Two."
    assert Span(0, 4).of(text) == "One."
    assert Span(5, 9).of(text) == "Two."
    assert Span(5, 9) == Span(5, 9, paragraph=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Span(5, 9).start = 3  # type: ignore[misc]


def test_a_document_needs_only_an_id() -> None:
    document = Document("a")
    assert (document.text, document.sentences, document.paragraph_starts) == ("", (), (0,))
    assert document.lang is document.target_sentences is None


def test_documents_with_concepts_compare_and_print_without_them() -> None:
    heard = Document("a", sentences=("One.",), concepts=torch.ones(1, 4), times=((0.0, 1.5),))
    assert heard == dataclasses.replace(heard, concepts=torch.zeros(1, 4))
    assert hash(heard) == hash(dataclasses.replace(heard, concepts=None))
    assert heard != dataclasses.replace(heard, times=None)
    assert "tensor" not in repr(heard)


def test_a_batch_counts_real_concepts_and_moves() -> None:
    batch = ConceptBatch(torch.zeros(2, 3, 4), torch.tensor([3, 1]), torch.tensor([7, 8]))
    assert batch.num_concepts == 4
    moved = batch.to("meta")
    assert moved.concepts.device.type == moved.lengths.device.type == moved.sample_ids.device.type == "meta"
    assert moved.source_lengths is None
    paired = ConceptBatch(batch.concepts, batch.lengths, batch.sample_ids, torch.tensor([1, 1])).to("meta")
    assert paired.source_lengths is not None and paired.source_lengths.device.type == "meta"


def test_protocols_are_checked_by_their_methods() -> None:
    assert isinstance(ToyCodec(), ConceptCodec)
    assert not isinstance(ToyCodec(), Segmenter)
