"""Features and conformer against transformers' classes of Seamless, with random weights. Needs transformers.

pip install transformers && pytest -m peer tests/parity/test_speech_peer.py
"""

import pytest
import torch
from speech_small import chirp, small_speech_encoder, voice

from largeconcept.codec.speech import conformer
from largeconcept.codec.speech.features import log_mel

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def seamless():
    pytest.importorskip("transformers")
    return pytest.importorskip("transformers.models.seamless_m4t.modeling_seamless_m4t")


@pytest.mark.parametrize(
    "audio",
    [chirp(2.0), chirp(0.35), voice(3.0), voice(0.045), voice(2.0)[:-37], 0.001 * voice(1.0)],
    ids=["chirp", "short chirp", "voice", "shortest", "odd", "quiet"],
)
def test_features(seamless, audio):
    extractor = pytest.importorskip("transformers").SeamlessM4TFeatureExtractor()
    answer = extractor(audio.numpy(), sampling_rate=16_000, return_tensors="pt")
    expected = answer.input_features[0][answer.attention_mask[0].bool()]
    assert len(expected) >= 1
    torch.testing.assert_close(log_mel(audio), expected, atol=1e-3, rtol=0)
    assert (log_mel(audio) - expected).abs().mean() < 1e-5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("lengths", [[50, 33, 7], [1], [2, 1], [280, 129, 128]])
def test_conformer(seamless, attention, lengths):
    from transformers import SeamlessM4TConfig

    ours = small_speech_encoder(seed=len(lengths), kernel_size=31)
    sizes = ours.config
    config = SeamlessM4TConfig(
        hidden_size=sizes.model_dim,
        speech_encoder_layers=sizes.num_layers,
        speech_encoder_attention_heads=sizes.num_heads,
        speech_encoder_intermediate_size=sizes.ffn_dim,
        conv_depthwise_kernel_size=sizes.kernel_size,
        feature_projection_input_dim=160,
        position_embeddings_type="relative",
        speech_encoder_hidden_act="swish",
        attn_implementation=attention,
    )
    front = seamless.SeamlessM4TConformerFeatureProjection(config).eval()
    front.load_state_dict(ours.feature_projection.state_dict())
    peer = seamless.SeamlessM4TConformerEncoder(config).eval()
    missing, unexpected = peer.load_state_dict(ours.encoder.state_dict(), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    longest = max(lengths)
    assert longest != 280 or longest > 2 * conformer.QUERY_BLOCK  # more than one block of queries, and a rest
    features = torch.randn(len(lengths), longest, 160, generator=torch.Generator().manual_seed(longest))
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        hidden = front(features)
        answer = peer(hidden[0] if isinstance(hidden, tuple) else hidden, attention_mask=real.long())
        expected = answer if isinstance(answer, torch.Tensor) else answer[0]
        got = ours.encoder(ours.feature_projection(features), ~real)
    assert expected[real].std() > 0.5
    torch.testing.assert_close(got[real], expected[real], atol=1e-5, rtol=1e-5)
