import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from largeconcept.codec.decoding import beam_search, write_tokens
from largeconcept.codec.network import EOS, AutoencoderConfig, AutoencoderNetwork, WritingState
from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.codec.sonar.writing import WritingState as SonarWritingState
from largeconcept.errors import ConfigError
from largeconcept.eval.cost import Flops, codec_flops, model_flops, text_flops
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import make_predictor
from largeconcept.models.energy import EnergyConfig
from largeconcept.models.flow import FlowConfig
from largeconcept.models.mse import MSEConfig
from largeconcept.models.one_tower import OneTowerConfig
from largeconcept.models.planning import PlanningConfig
from largeconcept.models.quantized import QuantizedConfig
from largeconcept.models.registry import build_model
from largeconcept.models.through_decoder import ThroughDecoderConfig
from largeconcept.models.token_lm import TokenLMConfig
from largeconcept.models.two_tower import TwoTowerConfig
from largeconcept.nn.residual_vq import QuantizerConfig, ResidualVectorQuantizer

DIM = 24
SIZES = {"concept_dim": DIM, "model_dim": 32, "num_heads": 2, "ffn_dim": 96}
LAYERS = {**SIZES, "num_layers": 3}
TOWERS = {**SIZES, "num_context_layers": 2, "num_denoiser_layers": 3}
QUANTIZED = {**LAYERS, "num_quantizers": 4, "codebook_size": 8}
STEPS = GenerationOptions(num_inference_steps=5)
PLAIN = GenerationOptions(num_inference_steps=5, guidance_scale=1.0)
CASES = {
    "mse": (MSEConfig(**LAYERS), STEPS),
    "mse, toy style": (MSEConfig.toy(**LAYERS), STEPS),
    "mse, copying": (MSEConfig(**LAYERS, copy_heads=3), STEPS),
    "through_decoder": (ThroughDecoderConfig(**{**LAYERS, "ffn_dim": None}, head_size=8), STEPS),
    "energy": (EnergyConfig(**LAYERS, num_head_layers=2), STEPS),
    "energy, candidates": (EnergyConfig(**LAYERS, num_head_layers=2, noise_dim=7), GenerationOptions(num_candidates=4)),
    "two_tower": (TwoTowerConfig(**TOWERS), STEPS),
    "two_tower, plain": (TwoTowerConfig(**TOWERS), PLAIN),
    "two_tower, many": (TwoTowerConfig(**TOWERS), GenerationOptions(num_inference_steps=40)),
    "flow": (FlowConfig(**TOWERS), STEPS),
    "flow, heun": (FlowConfig(**TOWERS), GenerationOptions(num_inference_steps=5, flow_solver="heun")),
    "flow, unconditioned": (FlowConfig(**TOWERS, self_conditioning=False), PLAIN),
    "one_tower": (OneTowerConfig(**LAYERS), STEPS),
    "one_tower, plain": (OneTowerConfig(**LAYERS), PLAIN),
    "quantized": (QuantizedConfig(**QUANTIZED), STEPS),
    "quantized, codebooks": (QuantizedConfig(**QUANTIZED, logits="codebook"), GenerationOptions(codebooks_per_step=2)),
    "quantized, continuous": (QuantizedConfig(**QUANTIZED, head="continuous"), PLAIN),
    "planning": (
        PlanningConfig(body=TwoTowerConfig(**TOWERS)),
        GenerationOptions(num_inference_steps=5, plain_ends=False),
    ),
}


def counted(work):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        work()
    return counter.get_total_flops()


def plain(module):
    """In float64 every product is torch's own, which the counter sees."""
    return module.double().eval().requires_grad_(False)


def generate(model, context, new, options):
    def noise(stream, rows, positions):
        return torch.randn(len(rows), DIM)

    predictor = make_predictor(model, options, noise, new)
    cache = predictor.start(torch.randn(1, context, DIM), [context], context + new)
    for i in range(new):
        predicted = predictor.predict(cache, [0])
        if i + 1 < new:
            predictor.extend(cache, predicted)


@pytest.mark.parametrize("name", CASES)
def test_the_count_is_that_of_what_runs(name):
    config, options = CASES[name]
    torch.manual_seed(0)
    model = build_model(config)
    if config.type == "quantized":
        quantizer = ResidualVectorQuantizer(QuantizerConfig(dim=DIM, num_quantizers=4, codebook_size=8))
        quantizer.codebooks.normal_()
        model.set_codebooks(quantizer)
    plain(model)
    for context, new in ((1, 1), (19, 3)):
        flops = model_flops(config, context, new, options)
        assert flops.total == pytest.approx(counted(lambda c=context, n=new: generate(model, c, n, options)), rel=0.02)


def test_reading_alone_and_half_of_the_causal_products():
    config = MSEConfig(**LAYERS)
    model = plain(build_model(config))
    size = 300
    read = counted(lambda: model.decoder(torch.randn(1, size, DIM).double()))
    flops = model_flops(config, size, 1)
    assert flops.read == read
    half = model_flops(config, size, 1, causal_half=True)
    assert flops.read - half.read == 3 * 4 * 32 * (size * size - size * (size + 1) // 2)
    assert half.write == flops.write


def test_a_token_model():
    config = TokenLMConfig(vocab_size=50, model_dim=32, num_heads=2, num_layers=3)
    model = plain(build_model(config))

    def write(context, new):
        cache = model.prefill(torch.ones(1, context, dtype=torch.long))
        for i in range(new):
            token = model.logits(cache.state).argmax(dim=-1)
            if i + 1 < new:
                model.extend(cache, token)

    for context, new in ((1, 1), (50, 8)):
        assert model_flops(config, context, new).total == counted(lambda c=context, n=new: write(c, n))


@pytest.mark.parametrize(
    "kind", [{}, {"bottleneck": "kl"}, {"dim": 60, "form_dim": 40}, {"dim": 60, "form_dim": 40, "form_reach": 9}]
)
@pytest.mark.parametrize("beams", [1, 3])
def test_our_codec(kind, beams):
    shape = {"dim": 20, "width": 16, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 3, "vocab_size": 260}
    config = AutoencoderConfig(**{**shape, **kind})
    network = plain(AutoencoderNetwork(config))
    tokens = 11
    flops = codec_flops(config, tokens, num_beams=beams)
    assert flops.encode == counted(
        lambda: network.encode(torch.ones(1, tokens, dtype=torch.long), torch.tensor([tokens]))
    )
    measured = counted(lambda: write_exactly(network, beams, tokens))
    assert flops.decode == pytest.approx(measured, rel=0.01)


def write_exactly(network, beams, tokens):
    state = WritingState(network, torch.randn(1, network.config.dim).double(), torch.tensor([0]), tokens + 1)
    steps_of(state, beams, tokens)


def steps_of(state, beams, tokens):
    """Write as many tokens and the end; with beams, as many rows from the second step on."""
    for t in range(tokens + 1):
        rows = len(state.scores())
        if t == 0 and beams > 1:
            state.select(torch.zeros(beams, dtype=torch.long))
            rows = beams
        state.feed(torch.full((rows,), 5))


@pytest.mark.parametrize("beams", [1, 3])
def test_sonar(beams):
    shape = {"vocab_size": 90, "width": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 40}
    encoder, decoder = SonarEncoderConfig(**shape), SonarDecoderConfig(**shape, input_dim=12)
    tokens = 9
    flops = codec_flops((encoder, decoder), tokens, num_beams=beams)
    network = plain(SonarEncoder(encoder))
    assert flops.encode == counted(lambda: network(torch.ones(1, tokens + 2, dtype=torch.long), None))
    writer = plain(SonarDecoder(decoder))

    def write():
        state = SonarWritingState(writer, torch.randn(1, 12).double(), torch.tensor([7]), tokens + 1)
        if beams > 1:
            writer.logits(state._prompt)  # what the probability of the language takes
        steps_of(state, beams, tokens)

    assert flops.decode == counted(write)


def test_searches_take_the_steps_that_are_counted():
    """Greedy writing and a beam search really run the decoder as often as the formula says."""
    config = AutoencoderConfig(dim=20, width=16, num_heads=2, encoder_layers=1, decoder_layers=1, vocab_size=260)
    network = plain(AutoencoderNetwork(config))
    z, lang, tokens = torch.randn(1, 20).double(), torch.tensor([0]), 11
    greedy = counted(lambda: write_tokens(WritingState(network, z, lang, tokens), 1, tokens, forbidden=[EOS]))
    step = codec_flops(config, tokens).decode - codec_flops(config, tokens - 1).decode
    assert greedy + step == pytest.approx(codec_flops(config, tokens).decode, rel=0.01)  # the end mark is not written
    beam = counted(lambda: beam_search(WritingState(network, z, lang, tokens), 1, tokens, 3))
    assert beam <= codec_flops(config, tokens, num_beams=3).decode * 1.01


def test_a_planning_model_draws_twice_where_it_looks_for_ends():
    body = TwoTowerConfig(**TOWERS)
    config = PlanningConfig(body=body)
    once = model_flops(config, 10, 4, GenerationOptions(plain_ends=False))
    assert once == model_flops(body, 10, 4)
    twice = model_flops(config, 10, 4, GenerationOptions(plain_ends=True))
    extra = model_flops(body, 10, 1, PLAIN.model_copy(update={"num_inference_steps": 40})).write
    assert twice.read == once.read
    assert twice.write - once.write == pytest.approx(4 * extra, rel=0.02)
    regression = PlanningConfig(body=MSEConfig(**LAYERS))
    assert model_flops(regression, 10, 4) == model_flops(regression.body, 10, 4)


def test_a_text_is_its_sentences():
    codec = AutoencoderConfig()
    config = MSEConfig(**{**LAYERS, "concept_dim": codec.dim})
    sentence = codec_flops(codec, 27)
    flops = text_flops(config, 256, 54, codec)
    model = model_flops(config, 10, 2)  # 256 tokens are ten sentences
    assert flops == Flops(10 * sentence.encode, 0, model.read, model.write, 2 * sentence.decode)
    assert flops.to_dict()["total"] == flops.encode + flops.read + flops.write + flops.decode
    token = TokenLMConfig(vocab_size=50, model_dim=32, num_heads=2, num_layers=3)
    assert text_flops(token, 256, 54) == model_flops(token, 1 + 10 * 28, 2 * 28)


def test_the_paper_reads_long_contexts_more_cheaply_than_tokens_do():
    """Figure 13: beyond short sentences an LCM of 1.6 billion parameters grows more slowly than a token model."""
    lcm, token = TwoTowerConfig(), TokenLMConfig(vocab_size=32000, model_dim=2048, num_heads=16, num_layers=24)
    sonar = SonarEncoderConfig(), SonarDecoderConfig()

    def ratio(tokens, each):
        return text_flops(token, tokens, 135, sentence_tokens=each).total / (
            text_flops(lcm, tokens, 135, sonar, sentence_tokens=each).total
        )

    assert ratio(16384, 27) > ratio(4096, 27) > ratio(256, 27)
    assert ratio(4096, 27) > ratio(4096, 5)
    # Attention over tokens grows with the square; over concepts its share is negligible.
    growth = [text_flops(lcm, n, 135, sonar).total for n in (65536, 131072)]
    assert growth[1] / growth[0] < 2.05


def test_what_cannot_be_counted():
    with pytest.raises(ConfigError, match="context"):
        model_flops(MSEConfig(**LAYERS), 0, 1)
    with pytest.raises(ConfigError, match="new_tokens"):
        text_flops(MSEConfig(**LAYERS), 10, 0, AutoencoderConfig())
    with pytest.raises(ConfigError, match="codec"):
        text_flops(MSEConfig(**LAYERS), 10, 10)
    with pytest.raises(ConfigError, match="num_beams"):
        codec_flops(AutoencoderConfig(), 5, num_beams=0)
    with pytest.raises(ConfigError, match="not known"):
        model_flops(AutoencoderConfig(), 5, 5)
