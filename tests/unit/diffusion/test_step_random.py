"""The numbers of StepRandom are good ones, and depend on nothing but their own indices."""

import math

import pytest
import torch

from largeconcept.diffusion.random import StepRandom

IDS = torch.arange(64) * 7919 + 5


def ks_to_normal(x):
    """Kolmogorov-Smirnov distance to N(0, 1), times the root of their number (1.95 is exceeded once in 1000)."""
    x = x.flatten().double().sort().values
    n = x.numel()
    cdf = torch.special.ndtr(x)
    grid = torch.arange(n, dtype=torch.float64)
    return float(torch.maximum((cdf - grid / n).abs().max(), ((grid + 1) / n - cdf).abs().max())) * math.sqrt(n)


def test_moments_and_distribution_of_normals():
    x = StepRandom(0, 3).normal("noise", IDS, (64, 128))
    n = x.numel()
    assert x.dtype == torch.float32
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(float((x.double() ** power).mean()) - expected) < 4.5 * math.sqrt(variance / n)
    assert ks_to_normal(x) < 1.95
    assert 4.2 < float(x.abs().max()) < 7


@pytest.mark.parametrize("change", ["seed", "step", "stream", "id", "position", "channel"])
def test_neighbouring_keys_give_unrelated_numbers(change):
    base = StepRandom(1, 10).normal("noise", IDS, (65, 129))
    other = {
        "seed": lambda: StepRandom(2, 10).normal("noise", IDS, (65, 129)),
        "step": lambda: StepRandom(1, 11).normal("noise", IDS, (65, 129)),
        "stream": lambda: StepRandom(1, 10).normal("noises", IDS, (65, 129)),
        "id": lambda: StepRandom(1, 10).normal("noise", IDS + 1, (65, 129)),
        "position": lambda: base.roll(1, 1),
        "channel": lambda: base.roll(1, 2),
    }[change]()
    n = base.numel()
    for f in (lambda x: x, lambda x: x**2 - 1, torch.sign):
        correlation = float((f(base.double()) * f(other.double())).mean() / f(base.double()).var())
        assert abs(correlation) < 4.5 / math.sqrt(n)
    assert not torch.equal(base, other)
    assert ks_to_normal((base - other) / math.sqrt(2)) < 1.95 or change in ("position", "channel")


def test_small_ids_and_steps_are_spread_as_well():
    """Structured keys (0, 1, 2, …) are what training uses."""
    columns = torch.stack(
        [StepRandom(0, step).normal("noise", torch.arange(256), (1, 1)).flatten() for step in range(64)]
    )
    assert ks_to_normal(columns) < 1.95
    matrix = torch.corrcoef(columns.double()) - torch.eye(64, dtype=torch.float64)
    assert float(matrix.abs().max()) < 5.2 / math.sqrt(256)


def test_uniforms_and_integers():
    random = StepRandom(5, 1)
    u = random.uniform("u", IDS, (4096,))
    assert u.dtype == torch.float32 and float(u.min()) >= 0 and float(u.max()) < 1
    assert ks_to_normal(torch.special.ndtri(u.double().clamp(1e-12))) < 1.95
    k = random.integers("t", IDS, (4096,), 100)
    assert k.dtype == torch.int64 and int(k.min()) == 0 and int(k.max()) == 99
    counts = torch.bincount(k.flatten(), minlength=100).double()
    expected = k.numel() / 100
    assert float(((counts - expected) ** 2 / expected).sum()) < 149  # 99 degrees of freedom, 1 in 1000
    assert random.uniform("u", IDS).shape == (64,) == random.normal("u", IDS, ()).shape


def test_permutations():
    order = StepRandom(0).permutation("rows", torch.arange(3000), 5)
    assert torch.equal(order.sort(dim=-1).values, torch.arange(5).expand(3000, 5))
    share = torch.stack([(order[:, 0] == k).double().mean() for k in range(5)])
    assert float((share - 0.2).abs().max()) < 0.035


@pytest.mark.parametrize("method", ["normal", "uniform"])
def test_batch_composition_and_padding_change_nothing(method):
    draw = getattr(StepRandom(3, 4), method)
    whole = draw("noise", IDS, (9, 7))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw("noise", IDS[order], (9, 7)), whole[order])
    assert torch.equal(draw("noise", IDS[10:13], (9, 7)), whole[10:13])
    assert torch.equal(draw("noise", IDS, (31, 16))[:, :9, :7], whole)
    assert torch.equal(StepRandom(3, 4).uniform("t", IDS, (40,))[:, :9], StepRandom(3, 4).uniform("t", IDS, (9,)))


def test_known_numbers():
    """A change of the algorithm would silently change every training run: these values must stay."""
    random = StepRandom(1, 2)
    ids = torch.tensor([0, 1, 2**40, -3])
    assert random.integers("x", ids, (3,), 1_000_000).tolist() == KNOWN_INTEGERS
    assert torch.allclose(random.normal("x", ids, (1, 3)).squeeze(1), torch.tensor(KNOWN_NORMALS), atol=1e-6)


def test_the_hash_is_splitmix():
    """The tensor version equals plain integer arithmetic."""
    mask = (1 << 64) - 1

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    from largeconcept.diffusion.random import _mix

    values = [0, 1, 2**63, mask, 0x123456789ABCDEF0]
    signed = torch.tensor([v - (1 << 64) if v >> 63 else v for v in values])
    assert [v & mask for v in _mix(signed).tolist()] == [mix(v) for v in values]


KNOWN_INTEGERS = [[111804, 889424, 296358], [835415, 65039, 517914], [713517, 646268, 971177], [885935, 239402, 739422]]
KNOWN_NORMALS = [
    [-0.444871, -0.148447, 0.784737],
    [-0.944856, -2.130423, -0.091454],
    [0.767983, -0.368059, 1.019995],
    [1.494182, -1.440412, 0.221129],
]
