"""The map of concepts across languages."""

import pytest
import torch
from html_checks import parse

from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import DataError
from largeconcept.eval.report.concept_map import concept_map, parallel_document, principal_plane, spread
from largeconcept.types import Document


def document(name, lang, size):
    return Document(name, sentences=tuple(f"{name} {i}." for i in range(size)), lang=lang)


def test_principal_axes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator) * torch.tensor([0.1, 5.0, 0.1, 2.0, 0.1, 0.1])
    plane, shares = principal_plane(x + 3)
    centred = x - x.mean(0)
    assert torch.allclose(plane[:, 0].abs(), centred[:, 1].abs().double(), atol=0.5)
    variance = centred.double().square().sum(0)
    assert shares[0] == pytest.approx(float(variance[1] / variance.sum()), abs=0.01)
    assert torch.allclose(plane, principal_plane(-(x + 3) + 0)[0], atol=1e-6) or plane.abs().max(0).values.gt(0).all()
    alone, shares = principal_plane(torch.ones(1, 6))
    assert alone.tolist() == [[0, 0]] and not shares.any()


def test_spread_tells_translations_from_others():
    x = torch.eye(3).repeat(2, 1)
    near, far = spread(x, [0, 1, 2, 0, 1, 2])
    assert near == pytest.approx(0) and far == pytest.approx(1)


def test_documents_with_aligned_sentences_come_first():
    documents = [
        document("a", "eng_Latn", 4), document("a", "deu_Latn", 5),
        document("b", "eng_Latn", 4), document("b", "deu_Latn", 4), document("b", "fra_Latn", 5),
        document("c", "eng_Latn", 4), document("c", None, 4),
    ]  # fmt: skip
    for seed in range(4):
        name, texts = parallel_document(documents, seed)
        assert name == "b" and list(texts) == ["deu_Latn", "eng_Latn"]
    name, texts = parallel_document(documents[:2])
    assert name == "a" and len(texts) == 2
    with pytest.raises(DataError, match="two languages"):
        parallel_document(documents[5:])


def test_the_seed_chooses_among_equals():
    documents = [document(name, lang, 4) for name in "abcdef" for lang in ("eng_Latn", "deu_Latn")]
    chosen = [parallel_document(documents, seed)[0] for seed in range(8)]
    assert chosen == [parallel_document(documents, seed)[0] for seed in range(8)] and len(set(chosen)) > 1


def test_a_map_says_whether_points_are_joined():
    texts = {"eng_Latn": ["One.", "Two.", "Three."], "deu_Latn": ["Eins.", "Zwei.", "Drei."]}
    codec = ToyCodec(8, [s for one in texts.values() for s in one])
    root = parse(concept_map(codec, texts, "<counts>"))
    assert len(root.all("line", "tie")) == 6 and "cosine distance" in root.words() and "<counts>" in root.words()
    uneven = parse(concept_map(codec, {**texts, "deu_Latn": ["Eins.", "Zwei."]}))
    assert not uneven.all("line", "tie") and "not joined" in uneven.words()
