"""The regression objective on the reference implementation's model gives its losses."""

import pytest
import torch
from golden_models import INDEX, arrays, base_lcm

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.objectives import RegressionConfig, build_objective
from largeconcept.types import ConceptBatch

IO = arrays("base_lcm_default_io.npz")
LOSSES = INDEX["base_lcm_default_io.npz"]["losses"]


def batch_of(task):
    documents = [x[:n] for x, n in zip(IO["x"], IO["seq_lens"].tolist(), strict=True)]
    sources = None
    if task == "target_mse":
        sources = IO["seq_lens"]
        documents = [torch.cat([x, IO[f"supervised_target{i}"]]) for i, x in enumerate(documents)]
    lengths = torch.tensor([len(x) for x in documents])
    padded = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
    return ConceptBatch(padded, lengths, torch.arange(len(documents)), sources)


@pytest.mark.parametrize("key", sorted(LOSSES))
def test_loss(key):
    _, task, reduction, rmse, context = key.split("/")
    config = RegressionConfig(rmse=rmse == "rmse1", min_context=int(context.removeprefix("ctx")))
    objective = build_objective(config, ConceptNormalizer.identity(16))
    with torch.no_grad():
        loss = objective(base_lcm(), batch_of(task), StepRandom(0))
    assert loss.count == LOSSES[key]["num_target_elements"]
    ours = loss.sum / loss.count if reduction == "mean" else loss.sum
    assert float(ours) == pytest.approx(float(IO[key]), rel=1e-5)
