"""The model that is trained through a decoder: its sizes, its shape, one stored number."""

import pytest
import torch
from variants import concepts, small_model

from largeconcept.convert.meta_lcm import to_meta
from largeconcept.errors import ConfigError, DataError
from largeconcept.models import MSEConceptModel, ThroughDecoderConceptModel, ThroughDecoderConfig, build_model


def count(**settings) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_model({"type": "through_decoder", **settings}).parameters())


def test_sizes_are_those_of_the_paper():
    """Trainable parameters: 34, 170, 450 and 700 million, up to half a percent of biases and the rounding."""
    for expected, size in (
        (34e6, {"model_dim": 512, "num_layers": 8, "num_heads": 16}),
        (170e6, {"model_dim": 1024, "num_layers": 10, "num_heads": 16}),
        (450e6, {"model_dim": 1280, "num_layers": 16, "num_heads": 26, "head_size": 64}),
        (700e6, {"head_size": 64}),
    ):
        assert count(**size) == pytest.approx(expected, rel=0.025), size


def test_heads_may_be_wider_than_their_share():
    config = ThroughDecoderConfig(concept_dim=16, model_dim=20, num_heads=3, head_size=8, num_layers=1)
    model = ThroughDecoderConceptModel(config)
    assert model.decoder.layers[0].attention.qkv_proj.weight.shape == (3 * 3 * 8, 20)
    assert model(concepts(2, 5)).shape == (2, 5, 16)
    with pytest.raises(ConfigError, match="model_dim 20 is not a multiple of num_heads 3"):
        ThroughDecoderConfig(model_dim=20, num_heads=3)
    with pytest.raises(ConfigError, match="even head dimension, got 7"):
        ThroughDecoderConfig(model_dim=20, num_heads=3, head_size=7)


def test_it_is_a_base_lcm_in_all_but_its_training():
    sizes = {"concept_dim": 16, "model_dim": 32, "num_heads": 2, "num_layers": 2, "ffn_dim": 64, "rope_theta": 1e4}
    torch.manual_seed(0)
    ours = build_model({"type": "through_decoder", **sizes}).eval()
    base = build_model({"type": "mse", **sizes}).eval()
    base.load_state_dict(ours.state_dict())
    assert isinstance(ours, MSEConceptModel)
    assert torch.equal(ours(concepts(2, 5)), base(concepts(2, 5)))
    with pytest.raises(DataError, match="a model of type through_decoder continues a text"):
        ours.prefill(concepts(1, 2), [0])
    with pytest.raises(ConfigError, match=r"Meta's code has no such model; .*got through_decoder"):
        to_meta(ours)


def test_golden_values():
    with torch.no_grad():
        out = small_model("through_decoder")(concepts(1, 4))
    got = [float(out.sum()), float(out.abs().sum()), float(out[0, 3, 5])]
    assert got == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [-14.972163, 45.186607, 0.268740]
