"""Test 14: BLASER 2.0 and MuTox with weights and answers of the original's modules."""

import pytest
import sonar_original
import torch

from largeconcept.eval.blaser import Blaser
from largeconcept.eval.mutox import MuTox

pytestmark = pytest.mark.filterwarnings("ignore:The weights of BLASER:UserWarning")
IO = sonar_original.tensors("judges")
DIM = IO["src"].shape[1]


def saved(prefix, tmp_path):
    torch.save({"model": sonar_original.weights("judges", prefix)}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_14_blaser_with_reference(tmp_path):
    judge = Blaser.from_pretrained(saved("blaser_ref", tmp_path), concept_dim=DIM)
    assert judge.kind == "ref"
    got = judge.score(IO["src"], IO["mt"], IO["ref"])
    torch.testing.assert_close(got, IO["scores_ref"].squeeze(1), rtol=0, atol=1e-6)


def test_14_blaser_without_reference(tmp_path):
    judge = Blaser.from_pretrained(saved("blaser_qe", tmp_path), concept_dim=DIM)
    assert judge.kind == "qe"
    torch.testing.assert_close(judge.score(IO["src"], IO["mt"]), IO["scores_qe"].squeeze(1), rtol=0, atol=1e-6)


def test_14_mutox(tmp_path):
    judge = MuTox.from_pretrained(saved("mutox", tmp_path), concept_dim=DIM)
    torch.testing.assert_close(judge.score(IO["src"]), IO["mutox_logits"].squeeze(1), rtol=0, atol=1e-6)
    got = judge.score(IO["src"], probability=True)
    torch.testing.assert_close(got, IO["mutox_probabilities"].squeeze(1), rtol=0, atol=1e-6)
