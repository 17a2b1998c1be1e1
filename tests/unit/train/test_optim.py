import pytest
import torch
from torch import nn

from largeconcept.errors import ConfigError
from largeconcept.train.optim import Muon, OptimConfig, build_optimizers, orthogonalize


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (3, 24, 12)])
def test_orthogonalize_brings_singular_values_near_one_and_keeps_directions(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    assert float(s.max() / s.min()) > 1.5, "a well-conditioned input would make this test vacuous"
    result = orthogonalize(g, dtype=torch.float32)
    assert result.shape == g.shape
    # In the basis of its own singular vectors the result is diagonal with values in the published band.
    core = u.mT @ result @ vh.mT
    values = torch.diagonal(core, dim1=-2, dim2=-1)
    assert float(values.min()) > 0.5 and float(values.max()) < 1.25
    assert float((core - torch.diag_embed(values)).abs().max()) < 1e-4


def test_orthogonalize_ignores_scale_and_survives_zero():
    g = torch.randn(12, 20, generator=torch.Generator().manual_seed(1))
    exact = orthogonalize(g, dtype=torch.float32)
    torch.testing.assert_close(orthogonalize(g * 1e4, dtype=torch.float32), exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(orthogonalize(g, dtype=torch.bfloat16), exact, rtol=0.1, atol=0.03)
    assert torch.equal(orthogonalize(torch.zeros(4, 6)), torch.zeros(4, 6))


def test_muon_descends_an_ill_conditioned_quadratic_where_its_step_size_says():
    torch.manual_seed(0)
    scales = torch.logspace(0, -2, 24)
    target = torch.randn(16, 24)
    weight = nn.Parameter(torch.zeros(16, 24))
    optimizer = Muon([weight], lr=0.05)
    losses = []
    for step in range(200):
        loss = (((weight - target) * scales) ** 2).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        before = weight.detach().clone()
        optimizer.step()
        if step == 0:
            rms = float((weight.detach() - before).square().mean().sqrt())
            assert rms == pytest.approx(0.2 * 0.05, rel=0.25)
    assert losses[-1] < 0.02 * losses[0]


def test_muon_groups_equal_shapes_without_mixing_them():
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(6, 10)) for _ in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    gradients = [torch.randn(6, 10) for _ in together]
    for parameter, single, gradient in zip(together, alone, gradients):
        parameter.grad, single.grad = gradient.clone(), gradient.clone()
    Muon(together, lr=0.1, weight_decay=0.1).step()
    for single in alone:
        Muon([single], lr=0.1, weight_decay=0.1).step()
    for parameter, single in zip(together, alone):
        torch.testing.assert_close(parameter, single, rtol=0, atol=2e-3)  # bfloat16 where the hardware has it


def test_muon_takes_matrices_only():
    with pytest.raises(ValueError, match="matrices only"):
        Muon([nn.Parameter(torch.zeros(3))])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.input_proj = nn.Linear(4, 8)
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)


def names_of(model, parameters):
    wanted = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


def test_weight_decay_falls_on_matrices_only():
    model = Net()
    (adamw,) = build_optimizers(model, OptimConfig(weight_decay=0.3)).parts
    by_decay = {group["weight_decay"]: names_of(model, group["params"]) for group in adamw.param_groups}
    assert by_decay[0.3] == {"input_proj.weight", "hidden.weight"}
    assert by_decay[0.0] == {"embed.weight", "input_proj.bias", "hidden.bias", "norm.weight", "norm.bias"}


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = Net()
    adamw, muon = build_optimizers(model, OptimConfig(type="muon", lr=0.01, muon_lr=0.02)).parts
    assert isinstance(muon, Muon) and muon.param_groups[0]["lr"] == 0.02
    assert names_of(model, muon.param_groups[0]["params"]) == {"hidden.weight"}
    assert sum(len(g["params"]) for g in adamw.param_groups) == 6


def test_the_factor_scales_every_peak_rate():
    model = nn.Linear(4, 4)
    optimizers = build_optimizers(model, OptimConfig(lr=0.1))
    for factor in (0.5, 0.25):  # not cumulative
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizers.step(factor)
        assert {g["lr"] for part in optimizers.parts for g in part.param_groups} == {0.1 * factor}
    optimizers.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_unknown_settings_name_the_nearest():
    with pytest.raises(ConfigError, match="weight_decay"):
        OptimConfig.from_dict({"weigth_decay": 0.1})
    with pytest.raises(ConfigError, match="lr"):
        OptimConfig.from_dict({"lr": -1})
