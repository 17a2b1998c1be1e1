"""The diffusion objective on the reference implementation's model, noise and timesteps gives its losses."""

import pytest
import torch
from golden_models import INDEX, arrays, two_tower, two_tower_normalizer

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.weighting import WeightingConfig
from largeconcept.objectives.diffusion import DiffusionConfig, DiffusionObjective
from largeconcept.types import ConceptBatch

IO = arrays("two_tower_default_io.npz")
LOSSES = INDEX["two_tower_default_io.npz"]["losses"]
DROPPED_AT_015 = INDEX["parts.npz"]["cf_dropped_rows_at_p015"]


def batch_of(task):
    documents = [x[:n] for x, n in zip(IO["x"], IO["seq_lens"].tolist(), strict=True)]
    sources = None
    if task == "supervised":
        sources = IO["seq_lens"]
        documents = [torch.cat([x, IO[f"supervised_target{i}"]]) for i, x in enumerate(documents)]
    lengths = torch.tensor([len(x) for x in documents])
    padded = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
    return ConceptBatch(padded, lengths, torch.arange(len(documents)), sources)


@pytest.mark.parametrize("key", sorted(LOSSES))
def test_loss(key):
    _, task, reduction, rmse, weighting = key.split("/")
    config = DiffusionConfig(
        rmse=rmse == "rmse1", conditioning_dropout=0.0, weighting=WeightingConfig(type=weighting, normalize="batch")
    )
    objective = DiffusionObjective(config, two_tower_normalizer())
    with torch.no_grad():
        loss = objective.loss(two_tower(), batch_of(task), IO[f"loss/timesteps_{task}"], IO[f"loss/noise_{task}"])
    assert loss.count == LOSSES[key]["num_target_elements"]
    ours = loss.sum / loss.count if reduction == "mean" else loss.sum
    assert float(ours) == pytest.approx(float(IO[key]), rel=1e-5)
    if rmse == "rmse0":
        plain = loss.metrics["mse"][0] / (loss.count if reduction == "mean" else 1)
        assert float(plain) == pytest.approx(LOSSES[key]["summands"]["mse_loss"], rel=1e-5)


@pytest.mark.parametrize("size", sorted(DROPPED_AT_015, key=int))
def test_number_of_rows_without_context(size):
    from largeconcept.diffusion.random import StepRandom

    objective = DiffusionObjective(DiffusionConfig(dropout_mode="meta"), ConceptNormalizer.identity(2))
    batch = ConceptBatch(torch.zeros(3, int(size), 2), torch.full((3,), int(size)), torch.arange(3))
    dropped = objective.draw_dropped(StepRandom(0), batch, int(size))
    assert dropped.sum(dim=1).tolist() == [DROPPED_AT_015[size]] * 3
    assert not dropped[:, 0].any()
