from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from largeconcept.codec.network import EOS, AutoencoderConfig, AutoencoderNetwork
from largeconcept.objectives.codec import (
    IGNORE,
    CodecBatch,
    CodecObjectiveConfig,
    codec_loss,
    cross_entropy_sum,
    decoder_targets,
    draw_candidates,
    fade,
    pair_terms,
    perturb,
)

QUIET = CodecObjectiveConfig(encoder_mask=0, decoder_mask=0, noise=0, concept_dropout=0, chunk=5)


def make_batch(paired: bool = False) -> CodecBatch:
    lengths = torch.tensor([6, 3, 5, 4])
    tokens = torch.randint(4, 300, (4, 6), generator=torch.Generator().manual_seed(0))
    tokens = torch.where(torch.arange(6) < lengths[:, None], tokens, 0)
    source = torch.tensor([2, 3, 0, 1]) if paired else torch.arange(4)
    return CodecBatch(tokens, lengths, source, torch.tensor([0, 0, 1, 1]), paired)


@pytest.fixture
def network() -> AutoencoderNetwork:
    torch.manual_seed(0)
    return AutoencoderNetwork(
        AutoencoderConfig(
            dim=12,
            width=16,
            num_heads=2,
            vocab_size=300,
            max_tokens=8,
            encoder_layers=1,
            decoder_layers=1,
            pooling_heads=2,
            memory_tokens=2,
        )
    )


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunked_cross_entropy_equals_torch(chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(50, dtype=torch.float64)
    targets = torch.randint(0, 50, (23,))
    targets[[3, 9, 22]] = IGNORE
    expected = F.cross_entropy(hidden @ weight.T + offset, targets, reduction="sum", ignore_index=IGNORE)
    wanted = torch.autograd.grad(expected * 1.7, (hidden, weight))
    loss = cross_entropy_sum(hidden, weight, targets, chunk, offset)
    got = torch.autograd.grad(loss * 1.7, (hidden, weight))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-4)


def test_all_rows_ignored_cost_nothing() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    loss = cross_entropy_sum(hidden, weight, torch.full((3,), IGNORE), 2)
    loss.backward()
    assert float(loss) == 0 and not hidden.grad.any() and not weight.grad.any()


def test_targets_end_with_the_end_mark() -> None:
    targets = decoder_targets(make_batch())
    batch = make_batch()
    assert targets.shape == (4, 7)
    assert targets[1].tolist() == [*batch.tokens[1, :3].tolist(), EOS, IGNORE, IGNORE, IGNORE]
    assert targets[0].tolist() == [*batch.tokens[0].tolist(), EOS]


def test_sampled_vocabulary_estimates_the_whole_partition_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    scores = torch.randn(400) * 1.5
    targets = torch.tensor([3, 50, IGNORE, 3])
    whole = scores.exp().sum()
    estimates = []
    for _ in range(400):
        indices, offset, renumbered = draw_candidates(targets, 400, 60, generator)
        assert len(indices.unique()) == len(indices) == 62
        assert indices[renumbered[[0, 1, 3]]].tolist() == [3, 50, 3] and renumbered[2] == IGNORE
        estimates.append((scores[indices] + offset).exp().sum())
    mean = torch.stack(estimates).mean()
    assert float(mean / whole) == pytest.approx(1, abs=0.04)
    indices, offset, _ = draw_candidates(targets, 400, 1000, generator)
    assert len(indices) == 400 and not offset.any()


def test_loss_depends_on_the_seed_alone(network: AutoencoderNetwork) -> None:
    config = CodecObjectiveConfig(sampled_vocabulary=20)
    batch = make_batch()

    def value(seed: int) -> float:
        return float(codec_loss(network, batch, config, torch.Generator().manual_seed(seed))[0])

    assert value(1) == value(1) != value(2)


def test_quiet_reconstruction_is_plain_cross_entropy(network: AutoencoderNetwork) -> None:
    batch = make_batch()
    loss, metrics = codec_loss(network, batch, QUIET, torch.Generator())
    concepts = network.encode(batch.tokens, batch.lengths)
    logits = network.logits(network.decode_hidden(concepts, batch.tokens, batch.lang))
    expected = F.cross_entropy(logits.flatten(0, 1), decoder_targets(batch).flatten(), ignore_index=IGNORE)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert int(metrics["tokens"]) == int(batch.lengths.sum()) + 4


def test_translation_decodes_the_other_side(network: AutoencoderNetwork) -> None:
    batch = make_batch(paired=True)
    config = CodecObjectiveConfig(**{**QUIET.to_dict(), "contrastive": 0.0, "alignment": 0.0})
    loss, _ = codec_loss(network, batch, config, torch.Generator())
    concepts = network.encode(batch.tokens, batch.lengths)[[2, 3, 0, 1]]
    logits = network.logits(network.decode_hidden(concepts, batch.tokens, batch.lang))
    expected = F.cross_entropy(logits.flatten(0, 1), decoder_targets(batch).flatten(), ignore_index=IGNORE)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_alignment_prefers_translations() -> None:
    torch.manual_seed(0)
    left = torch.randn(6, 12)
    config = CodecObjectiveConfig(contrastive=1.0, alignment=1.0)
    right = pair_terms(torch.cat([left, left]), config)
    wrong = pair_terms(torch.cat([left, left.roll(1, 0)]), config)
    assert float(right) < 0.1 < float(wrong)


def test_perturbation_has_the_strength_asked_for() -> None:
    torch.manual_seed(0)
    concepts = torch.zeros(200, 300)
    config = CodecObjectiveConfig(noise=0.4, concept_dropout=0.25)
    normal, strength = torch.randn(200, 300), torch.rand(200, 1)
    noisy = perturb(concepts, config, normal, strength, torch.zeros(200, 300) + 0.9)
    assert torch.allclose(noisy.std(dim=1), 0.4 * strength.squeeze(1), rtol=0.2, atol=0.01)
    dropped = perturb(concepts + 1, config, normal * 0, strength, torch.rand(200, 300))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def with_form(**more: int) -> AutoencoderNetwork:
    torch.manual_seed(0)
    small = {"width": 16, "num_heads": 2, "vocab_size": 300, "max_tokens": 8, "encoder_layers": 1, "decoder_layers": 1}
    return AutoencoderNetwork(AutoencoderConfig(dim=44, form_dim=32, pooling_heads=2, memory_tokens=2, **small, **more))


def test_fading_mixes_a_share_of_the_forms() -> None:
    form = torch.randn(4000, 3)
    uniform = torch.rand(4000, 3)
    assert torch.equal(fade(form, 0.0, uniform), form)
    faded = fade(form, 0.6, uniform)
    same = (faded == form).all(dim=1).float().mean()
    assert float(same) == pytest.approx(0.4, abs=0.03)
    gone = (faded == 0).all(dim=1).float().mean()
    assert float(gone) == pytest.approx(0.6 / 4, abs=0.03)
    ends = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    own = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(fade(own, 0.5, ends), torch.tensor([[1.0, 2.0], [1.0, 2.0]]))


def test_a_faded_form_changes_what_the_decoder_sees() -> None:
    network = with_form()
    losses = []
    for share in (0.0, 1.0):
        config = QUIET.model_copy(update={"form_fade": share})
        loss, _ = codec_loss(network, make_batch(paired=True), config, torch.Generator().manual_seed(1))
        losses.append(float(loss))
    assert losses[0] != losses[1]


def test_pairs_meet_in_meaning_not_in_form() -> None:
    network, config = with_form(), QUIET.model_copy(update={"contrastive": 5.0, "alignment": 5.0})
    batch = make_batch(paired=True)
    concepts = network.encode(batch.tokens, batch.lengths)
    loss, metrics = codec_loss(network, batch, config, torch.Generator().manual_seed(1))
    assert float(metrics["pair_loss"]) == pytest.approx(float(pair_terms(concepts[:, :12], config)), rel=1e-4)
    assert float(metrics["pair_loss"]) != pytest.approx(float(pair_terms(concepts, config)), rel=1e-2)
    assert float(loss) > float(metrics["pair_loss"])


def test_teacher_counts_where_it_is_known() -> None:
    network = with_form(teacher_dim=6)
    assert network.to_teacher is not None
    batch = make_batch()
    batch.teacher = torch.randn(4, 6)
    batch.teacher[[1, 3]] = 0
    _, metrics = codec_loss(network, batch, QUIET, torch.Generator().manual_seed(1))
    meaning = network.encode(batch.tokens, batch.lengths)[:, :12]
    cosines = F.cosine_similarity(network.to_teacher(meaning), batch.teacher)
    assert float(metrics["teacher_loss"]) == pytest.approx(1 - float(cosines[[0, 2]].mean()), rel=1e-4)
    batch.teacher = None
    assert "teacher_loss" not in codec_loss(network, batch, QUIET, torch.Generator().manual_seed(1))[1]
