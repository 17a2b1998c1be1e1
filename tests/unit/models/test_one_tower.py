"""One-tower: two streams equal the interleaved sequence of the paper, caches, who sees whom, a golden value."""

import pytest
import torch
import torch.nn.functional as F

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import generate_concepts
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import OneTowerConceptModel, OneTowerConfig, build_model
from largeconcept.nn.rope import apply_rope, rope_table

SMALL = {"concept_dim": 6, "model_dim": 16, "num_heads": 2, "ffn_dim": 32, "max_positions": 12, "dropout": 0.0}


def make(positions="learned", **settings):
    torch.manual_seed(0)
    data = {**SMALL, "num_layers": 3, "positions": positions, "noise_schedule": {"num_timesteps": 20}, **settings}
    model = OneTowerConceptModel(OneTowerConfig.from_dict(data)).eval()
    for parameter in model.parameters():  # the timestep's part is small at the start
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        else:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    return model


@pytest.fixture(params=["learned", "rope", "sine"])
def model(request):
    return make(request.param)


def document(batch=3, size=7, seed=1):
    draw = torch.Generator().manual_seed(seed)
    x, noisy = torch.randn(2, batch, size, 6, generator=draw)
    return x, noisy, torch.randint(0, 20, (batch, size), generator=draw)


def interleaved(model, x, noisy, timesteps, unconditional=None):
    """The paper's figure 6, word for word: one sequence noisy_0 clean_0 noisy_1 clean_1 … and a mask over it."""
    decoder, heads = model.decoder, model.config.num_heads
    batch, size = x.shape[:2]
    concepts = torch.stack((noisy, x), dim=2).flatten(1, 2)
    time = torch.stack((timesteps, torch.full_like(timesteps, -1)), dim=2).flatten(1, 2)
    place = torch.arange(size).repeat_interleave(2)
    clean = torch.arange(2 * size) % 2 == 1
    # One linear takes the concept concatenated with the embedding of its timestep.
    weight = torch.cat((decoder.input_proj.weight, decoder.time_proj.weight), dim=1)
    h = F.linear(torch.cat((concepts, decoder.embed_time(time)), dim=-1), weight, decoder.input_proj.bias)
    if model.config.positions == "learned":
        h = h + decoder.positions.weight[place]
    elif model.config.positions == "sine":
        angles = place[:, None] * 10_000.0 ** (-torch.arange(8) / 7)
        h = h + torch.cat((angles.sin(), angles.cos()), dim=-1)
    earlier = clean & (place[None, :] < place[:, None])
    itself = torch.eye(2 * size, dtype=torch.bool)
    mask = (earlier | itself).expand(batch, -1, -1).clone()
    if unconditional is not None:
        dropped = torch.stack((unconditional, torch.zeros_like(unconditional)), dim=2).flatten(1, 2)
        mask &= ~dropped.unsqueeze(-1) | itself
    for layer in decoder.layers:
        qkv = layer.attention.qkv_proj(layer.attention_norm(h)).view(batch, 2 * size, 3, heads, -1)
        q, k, v = qkv.unbind(2)
        if model.config.positions == "rope":
            turn = [t.unsqueeze(-2) for t in rope_table(place, model.config.head_dim)]
            q, k = apply_rope(q, *turn), apply_rope(k, *turn)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))
        h = h + layer.attention.output_proj(y.transpose(1, 2).flatten(2))
        h = h + layer.mlp(layer.mlp_norm(h))
    return model.output_proj(decoder.norm(h))[:, ~clean]


@pytest.mark.parametrize("dropped", [False, True])
def test_two_streams_equal_the_interleaved_sequence(model, dropped):
    x, noisy, timesteps = document()
    drop = torch.rand(3, 7, generator=torch.Generator().manual_seed(3)) < 0.4 if dropped else None
    expected = interleaved(model, x, noisy, timesteps, drop)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    got = model(x, noisy, timesteps, unconditional=drop)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    (got * weight).sum().backward()
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4, msg=name)


@torch.no_grad()
def test_a_noisy_concept_sees_clean_ones_before_it_and_itself(model):
    x, noisy, timesteps = document()
    before = model(x, noisy, timesteps)

    def moved(*arguments):
        return ((model(*arguments) - before).abs().amax(dim=(0, 2)) > 1e-6).nonzero().flatten().tolist()

    for i in range(7):
        change = torch.zeros_like(x)
        change[:, i] = 1.0
        later = timesteps.clone()
        later[:, i] = (later[:, i] + 7) % 20
        assert moved(x + change, noisy, timesteps) == list(range(i + 1, 7))
        assert moved(x, noisy + change, timesteps) == [i]
        assert moved(x, noisy, later) == [i]


@torch.no_grad()
def test_supervised_targets_see_the_source_and_targets_before_them(model):
    x, noisy, timesteps = document(batch=2)
    whole = model(x, noisy, timesteps)
    sources = torch.tensor([4, 2])
    rows = sources[:, None] + torch.arange(5)  # the first document has three targets, then padding
    take = rows.clamp(max=6)
    got = model(x, noisy[torch.arange(2)[:, None], take], timesteps.gather(1, take), source_lengths=sources)
    torch.testing.assert_close(got[0, :3], whole[0, 4:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], whole[1, 2:], rtol=1e-4, atol=1e-5)
    assert got.isfinite().all()
    drop = torch.rand(2, 5) < 0.5
    dropped = model(
        x, noisy[torch.arange(2)[:, None], take], timesteps.gather(1, take), None, sources, unconditional=drop
    )
    expected = model(x, noisy, timesteps, unconditional=torch.ones(2, 7, dtype=torch.bool))
    torch.testing.assert_close(dropped[1], torch.where(drop[1, :, None], expected[1, 2:], whole[1, 2:]))


@torch.no_grad()
@pytest.mark.parametrize("guided", [False, True])
def test_cached_equals_the_training_form(model, guided):
    x, noisy, timesteps = document(size=10)
    lengths, plan = [6, 0, 3], model.plan(range(20))
    cache = model.prefill(x[:, :6], lengths)
    for i in range(4):
        at = [n + i for n in lengths]
        assert cache.lengths == at
        for n in (0, 7, 19):
            same = torch.full_like(timesteps, n)
            got = model.denoise(noisy[range(3), at].unsqueeze(1), plan[n], cache.clean_context(), guided=guided)
            wanted = model(x, noisy, same)[range(3), at].unsqueeze(1)
            torch.testing.assert_close(got[0] if guided else got, wanted, rtol=1e-4, atol=1e-5)
            if guided:
                drop = torch.ones_like(timesteps, dtype=torch.bool)
                alone = model(x, noisy, same, unconditional=drop)[range(3), at].unsqueeze(1)
                torch.testing.assert_close(got[1], alone, rtol=1e-4, atol=1e-5)
        model.extend(cache, x[range(3), at])


@torch.no_grad()
def test_teacher_forced_context_serves_all_steps(model):
    x, noisy, timesteps = document()
    context, plan = model.teacher_forced_context(x), model.plan([4, 11])
    for n, timestep in enumerate((4, 11)):
        with_context, without = model.denoise(noisy, plan[n], context, guided=True)
        same = torch.full_like(timesteps, timestep)
        torch.testing.assert_close(with_context, model(x, noisy, same), rtol=1e-4, atol=1e-5)
        drop = torch.ones_like(same, dtype=torch.bool)
        torch.testing.assert_close(without, model(x, noisy, same, unconditional=drop), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4])
def test_every_parameter_gets_a_gradient_also_without_any_context(model, size):
    model.train()
    model(*document(size=size)).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@torch.no_grad()
def test_dropout_only_in_training():
    model = make(dropout=0.3, attention_dropout=0.3)
    arguments = document()
    assert torch.equal(model(*arguments), model(*arguments))
    model.train()
    assert not torch.equal(model(*arguments), model(*arguments))


@torch.no_grad()
def test_bfloat16_weights_take_and_give_float32(model):
    arguments = document()
    full = model(*arguments)
    half = model.bfloat16()(*arguments)
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.2 * full.abs().max()


@torch.no_grad()
def test_golden_value():
    x, noisy, timesteps = (torch.linspace(-1, 1, 2 * 4 * 6).view(2, 4, 6).sin() * scale for scale in (1.0, 2.0, 5.0))
    model = make()
    for i, parameter in enumerate(model.parameters()):
        parameter.copy_(torch.cos(torch.arange(parameter.numel()) * 0.7 + i).view_as(parameter) * 0.3)
    got = model(x, noisy, (timesteps[..., 0] + 5).long())
    golden = torch.tensor([[-0.0930402, -0.1109591], [-0.1726434, -0.1350838]])
    torch.testing.assert_close(got[:, ::3, 0], golden, rtol=1e-4, atol=1e-5)


def test_the_paper_s_size():
    with torch.device("meta"):
        model = build_model({"type": "one_tower"})
    config = model.config
    assert (config.num_layers, config.model_dim, config.num_heads, config.inner_dim) == (32, 2048, 32, 8192)
    assert config.positions == "learned" and config.noise_schedule.num_timesteps == 100
    assert 1.6e9 < sum(p.numel() for p in model.parameters()) < 1.7e9


def test_wrong_inputs_are_named(model):
    x, noisy, timesteps = document()
    for call, message in (
        (lambda: model(x[..., :5], noisy, timesteps), r"x: wrong shape; expected \(B, S, 6\)"),
        (lambda: model(x, noisy[:, :3], timesteps), "noisy: wrong shape"),
        (lambda: model(x, noisy, timesteps[:, :3]), "timesteps: wrong shape"),
        (lambda: model(x, noisy, timesteps, None, torch.tensor([1])), "source_lengths: wrong shape"),
        (lambda: model(x, noisy, timesteps, None, None, torch.ones(3, dtype=torch.bool)), "unconditional: wrong shape"),
        (lambda: model.prefill(x, [8, 1, 1]), "lengths do not fit"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(ConfigError, match="did you mean num_layers"):
        build_model({"type": "one_tower", "num_layer": 3})


def test_documents_longer_than_learned_positions():
    model = make()
    model(*document(size=12))
    with pytest.raises(DataError, match="at most 12 concepts; got 13"):
        model(*document(size=13))
    make("rope")(*document(size=13))


def test_the_last_new_concept_needs_a_position_too():
    """Unlike in other families it is written at its position; too little room is refused before any work."""
    normalizer, prompt = ConceptNormalizer.identity(6), [torch.randn(8, 6)]
    options = GenerationOptions(num_inference_steps=2, max_concepts=4, stop_threshold=None)
    assert len(generate_concepts(make(), prompt, normalizer, options)[0].concepts) == 4
    with pytest.raises(DataError, match="at most 12 concepts; got 8 of the prompt and 5 to come"):
        generate_concepts(make(), prompt, normalizer, options.override("max_concepts=5"))
