"""Both families in both styles: what may look at what, caches, initial state, saving, sizes, complaints."""

import json
import sys

import pytest
import torch

from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.models import (
    MODELS,
    MSEConceptModel,
    MSEConfig,
    TwoTowerConceptModel,
    TwoTowerConfig,
    build_model,
    load_model,
    save_model,
)

SMALL = {"concept_dim": 6, "model_dim": 16, "num_heads": 2, "ffn_dim": 32, "max_positions": 12, "dropout": 0.0}
STYLES = ["recipe", "toy"]


def small_mse(style="recipe", **settings):
    make = MSEConfig.toy if style == "toy" else MSEConfig
    return MSEConceptModel(make(**{**SMALL, "num_layers": 2, **settings})).eval()


def small_two_tower(style="recipe", **settings):
    make = TwoTowerConfig.toy if style == "toy" else TwoTowerConfig
    layers = {"num_context_layers": 2, "num_denoiser_layers": 3, "noise_schedule": {"num_timesteps": 20}}
    model = TwoTowerConceptModel(make(**{**SMALL, **layers, **settings})).eval()
    for layer in model.denoiser.layers:  # at its start a denoiser ignores its context
        torch.nn.init.normal_(layer.modulator.fc.weight, std=0.2)
        torch.nn.init.normal_(layer.modulator.fc.bias, std=0.2)
        torch.nn.init.normal_(layer.cross_attention.kv_proj.bias, std=0.2)
    return model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=STYLES)
def mse(request):
    return small_mse(request.param)


@pytest.fixture(params=STYLES)
def two_tower(request):
    return small_two_tower(request.param)


def document(batch=2, size=7):
    return torch.randn(batch, size, 6)


def noisy_document(batch=2, size=7):
    return document(batch, size), document(batch, size), torch.randint(0, 20, (batch, size))


def changed_rows(function, x, position):
    """Which rows of (B, S, ·) move when ``x`` is changed at one position."""
    other = x.clone()
    other[:, position] += 1.0
    with torch.no_grad():
        moved = (function(x) - function(other)).abs().amax(dim=(0, 2)) > 1e-6
    return moved.nonzero().flatten().tolist()


def test_mse_looks_back_only(mse):
    for position in range(7):
        assert changed_rows(mse, document(), position) == list(range(position, 7))


def test_two_tower_sees_clean_concepts_before_it_and_its_own_noisy_one(two_tower):
    x, noisy, timesteps = noisy_document()
    for position in range(7):
        clean = changed_rows(lambda c: two_tower(c, noisy, timesteps), x, position)
        assert clean == list(range(position + 1, 7))
        assert changed_rows(lambda n: two_tower(x, n, timesteps), noisy, position) == [position]
        other = timesteps.clone()
        other[:, position] = (other[:, position] + 7) % 20
        with torch.no_grad():
            moved = (two_tower(x, noisy, timesteps) - two_tower(x, noisy, other)).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.nonzero().flatten().tolist() == [position]


def test_supervised_targets_see_the_source_and_targets_before_them(two_tower):
    x, targets, timesteps = document(), document(size=3), torch.randint(0, 20, (2, 3))
    sources = torch.tensor([4, 2])
    with torch.no_grad():
        before = two_tower(x, targets, timesteps, source_lengths=sources)
        for position in range(7):
            other = x.clone()
            other[:, position] += 1.0
            moved = (two_tower(other, targets, timesteps, source_lengths=sources) - before).abs().amax(-1) > 1e-6
            for b, source in enumerate(sources.tolist()):
                assert moved[b].tolist() == [position < source + j for j in range(3)]


def test_supervised_without_source_is_unsupervised(two_tower):
    x, noisy, timesteps = noisy_document()
    with torch.no_grad():
        got = two_tower(x, noisy, timesteps, source_lengths=torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(got, two_tower(x, noisy, timesteps))


@pytest.mark.parametrize("supervised", [False, True])
def test_rows_without_context_ignore_it(two_tower, supervised):
    x, noisy, timesteps = noisy_document()
    drop = torch.rand(2, 7) < 0.5
    sources = torch.zeros(2, dtype=torch.long) if supervised else None
    with torch.no_grad():
        got = two_tower(x, noisy, timesteps, source_lengths=sources, unconditional=drop)
        kept = two_tower(x, noisy, timesteps, source_lengths=sources)
        alone = torch.cat([two_tower(x[:, :1], noisy[:, i : i + 1], timesteps[:, i : i + 1]) for i in range(7)], 1)
    torch.testing.assert_close(got, torch.where(drop.unsqueeze(-1), alone, kept))


def test_gathered_modulation_equals_that_of_each_row(two_tower):
    x, noisy, timesteps = noisy_document(batch=4)  # 28 rows of 20 timesteps: gathered
    with torch.no_grad():
        got = two_tower(x, noisy, timesteps)
        each = torch.cat([two_tower(x[b : b + 1], noisy[b : b + 1], timesteps[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(got, each)


def test_gathered_modulation_has_the_same_gradient(two_tower):
    x, noisy, timesteps = noisy_document(batch=4)
    gradients = []
    for split in (4, 1):
        two_tower.zero_grad()
        for b in range(0, 4, split):
            rows = slice(b, b + split)
            two_tower(x[rows], noisy[rows], timesteps[rows]).square().sum().backward()
        gradients.append([p.grad.clone() for p in two_tower.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_padding_does_not_reach_real_positions(mse, two_tower):
    x, noisy, timesteps = noisy_document()
    longer = [torch.cat((t, torch.full((2, 4, 6), 9.0)), 1) for t in (x, noisy)]
    more = torch.nn.functional.pad(timesteps, (0, 4), value=3)
    lengths = torch.tensor([7, 7])
    with torch.no_grad():
        torch.testing.assert_close(mse(longer[0], lengths)[:, :7], mse(x))
        got = two_tower(longer[0], longer[1], more, lengths)
        torch.testing.assert_close(got[:, :7], two_tower(x, noisy, timesteps))


def test_a_fresh_denoiser_is_two_linears_around_a_norm():
    """AdaLN-zero: every branch is shut at the start."""
    for style in STYLES:
        make = TwoTowerConfig.toy if style == "toy" else TwoTowerConfig
        model = TwoTowerConceptModel(make(**SMALL)).eval()
        x, noisy, timesteps = noisy_document()
        denoiser = model.denoiser
        with torch.no_grad():
            expected = denoiser.output_proj(denoiser.norm(denoiser.input_proj(noisy)))
            torch.testing.assert_close(model(x, noisy, timesteps), expected)


@pytest.mark.parametrize("size", [1, 5])
def test_every_parameter_gets_a_gradient(mse, two_tower, size):
    """Also for documents of a single concept, whose context is the zero vector alone."""
    x, noisy, timesteps = noisy_document(size=size)
    mse(x).sum().backward()
    two_tower(x, noisy, timesteps).sum().backward()
    for model in (mse, two_tower):
        missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not missing


def test_dropout_only_in_training():
    model = small_mse(dropout=0.5)
    x = document()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_mse_cached_equals_uncached(mse):
    x, lengths = document(3, 11), [7, 1, 4]
    with torch.no_grad():
        expected = mse(x)
        cache = mse.prefill(x[:, :7], lengths)
        rows = [0, 1, 2]
        for i in range(4):
            at = [lengths[row] + i for row in rows]
            torch.testing.assert_close(cache.state, expected[rows, [n - 1 for n in at]])
            if i == 2:  # a row leaves, the others change places
                cache.select([2, 0])
                rows, at = [2, 0], [at[2], at[0]]
            mse.extend(cache, x[rows, at])


@pytest.mark.parametrize("guided", [False, True])
def test_two_tower_cached_equals_training_form(two_tower, guided):
    """Each new concept, denoised from the caches, equals the row of the training forward at that place."""
    x, noisy, timesteps = noisy_document(3, 10)
    lengths = [6, 0, 3]
    plan = two_tower.denoiser.plan(list(range(20)), fold=guided)
    with torch.no_grad():
        cache = two_tower.prefill(x[:, :6], lengths, capacity=8)
        for i in range(4):
            at = [n + i for n in lengths]
            assert cache.lengths == at
            for n in (0, 7, 19):
                rows = noisy[range(3), at].unsqueeze(1)
                got = two_tower.denoiser.step(plan, n, rows, cache.cross_context(), guided=guided)
                same = torch.full_like(timesteps, n)
                expected = two_tower(x, noisy, same)[range(3), at].unsqueeze(1)
                torch.testing.assert_close(got[0] if guided else got, expected, rtol=1e-4, atol=1e-5)
                if guided:
                    drop = torch.ones_like(timesteps, dtype=torch.bool)
                    without = two_tower(x, noisy, same, unconditional=drop)[range(3), at].unsqueeze(1)
                    torch.testing.assert_close(got[1], without, rtol=1e-4, atol=1e-5)
            two_tower.extend(cache, x[range(3), at])


def test_empty_prompts(mse, two_tower):
    cache = two_tower.prefill(torch.zeros(2, 0, 6))
    assert cache.lengths == [0, 0] and cache.cross.lengths == [1, 1]
    with pytest.raises(DataError, match="an empty prompt"):
        mse.prefill(document(), [3, 0])


def test_bfloat16_weights_take_and_give_float32(mse, two_tower):
    x, noisy, timesteps = noisy_document()
    with torch.no_grad():
        full = mse(x), two_tower(x, noisy, timesteps)
        half = mse.bfloat16()(x), two_tower.bfloat16()(x, noisy, timesteps)
        cache = two_tower.prefill(x)
        plan = two_tower.denoiser.plan([5], fold=True)
        denoised = two_tower.denoiser.step(plan, 0, noisy[:, :1], cache.cross_context())
    for one, other in zip(full, half, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).abs().max() < 0.15 * one.abs().max()
    assert denoised.dtype == torch.float32


@pytest.mark.parametrize("make", [small_mse, small_two_tower])
@pytest.mark.parametrize("style", STYLES)
def test_save_and_load(tmp_path, make, style):
    model = make(style)
    save_model(model, tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again = load_model(tmp_path / "model")
    assert type(again) is type(model) and again.config == model.config and not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    x, noisy, timesteps = noisy_document()
    arguments = (x,) if isinstance(model, MSEConceptModel) else (x, noisy, timesteps)
    assert torch.equal(model(*arguments), again(*arguments))


def test_loading_complains(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "nothing")
    save_model(small_mse(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"type": "mes"}, "unknown model type.*did you mean mse"),
        ({"num_layer": 3}, "did you mean num_layers"),
        ({"num_layers": 3}, "weights are missing"),
        ({"num_layers": 1}, "not of this model"),
        ({"concept_dim": 7}, "another shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(tmp_path)


def test_build_from_plain_data():
    assert {"mse", "two_tower"} <= set(MODELS)
    model = build_model({"type": "two_tower", **SMALL, "num_context_layers": 1, "num_denoiser_layers": 1})
    assert isinstance(model, TwoTowerConceptModel)
    with pytest.raises(ConfigError, match="unknown model type"):
        build_model({"type": "three_tower"})


def test_wrong_inputs_are_named(mse, two_tower):
    x, noisy, timesteps = noisy_document()
    for call, message in (
        (lambda: mse(x[..., :5]), r"x: wrong shape; expected \(B, S, 6\)"),
        (lambda: mse(x[0]), "x: wrong shape"),
        (lambda: mse(x[:, :0]), "no concepts"),
        (lambda: mse(x.long()), "floating point"),
        (lambda: two_tower(x, noisy[:, :3], timesteps), "noisy: wrong shape"),
        (lambda: two_tower(x, noisy, timesteps[:, :3]), "timesteps: wrong shape"),
        (lambda: two_tower(x, noisy, timesteps, source_lengths=torch.tensor([1])), "source_lengths: wrong shape"),
        (lambda: two_tower(x, noisy, timesteps, unconditional=torch.ones(2, dtype=torch.bool)), "unconditional"),
        (lambda: mse.prefill(x, [8, 1]), "lengths do not fit"),
        (lambda: mse.prefill(x, [1]), "lengths do not fit"),
    ):
        with pytest.raises(DataError, match=message):
            call()


def test_documents_longer_than_learned_positions():
    model = small_mse("toy")
    model(document(size=12))
    with pytest.raises(DataError, match="at most 12 concepts; got 13"):
        model(document(size=13))
    small_mse("recipe")(document(size=13))


def count(config):
    with torch.device("meta"):
        model = build_model(config)
    return sum(p.numel() for p in model.parameters())


def dead(config):
    """Query and key weights of the reference's denoiser self-attention, which cannot matter and are left out here."""
    return config.num_denoiser_layers * 2 * (config.model_dim**2 + config.model_dim)


def test_parameter_counts_of_the_published_sizes():
    assert count(MSEConfig()) == 1_649_185_792
    assert count(MSEConfig.toy()) == 29_388_800
    published = TwoTowerConfig()
    assert count(published) + dead(published) == 1_645_538_304
    large = TwoTowerConfig(model_dim=4096, num_heads=32, num_context_layers=5, num_denoiser_layers=14)
    assert count(large) + dead(large) == 6_930_781_696
    toy = TwoTowerConfig.toy()
    assert count(toy) + dead(toy) == 84_235_264
    assert dead(published) == 109_105_152 and dead(large) == 469_876_736


def test_weights_that_are_read_are_not_drawn_first(tmp_path, monkeypatch):
    """Drawing on torch's device meta imports its compiler, which costs seconds."""
    from largeconcept.devices import without_values

    save_model(
        build_model({"type": "mse", "concept_dim": 8, "model_dim": 8, "num_heads": 2, "num_layers": 1}), tmp_path
    )
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import of it fails
    assert load_model(tmp_path).config.concept_dim == 8
    with without_values():
        layer = torch.nn.Linear(3, 2)
        table = torch.nn.Embedding(4, 2)
    assert layer.weight.is_meta and table.weight.is_meta and layer.weight.requires_grad
    assert not torch.zeros(1).is_meta
