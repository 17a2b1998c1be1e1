import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from largeconcept.codec.network import AutoencoderConfig, AutoencoderNetwork
from largeconcept.errors import ConfigError
from largeconcept.eval.cost import text_flops
from largeconcept.eval.measure import Measured, _mark, _peak, cost_record, measure_context, median_run
from largeconcept.eval.report.reading import read_extra
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import MSEConfig, TwoTowerConfig
from largeconcept.models.registry import build_model
from largeconcept.models.token_lm import TokenLMConfig

CODEC = AutoencoderConfig(
    dim=16, width=16, num_heads=2, encoder_layers=1, decoder_layers=1, vocab_size=260, max_tokens=12
)
SIZES = {"concept_dim": 16, "model_dim": 16, "num_heads": 2, "ffn_dim": 32}
STEPS = GenerationOptions(num_inference_steps=2, stop_threshold=-1.0)


@pytest.fixture(scope="module")
def codec():
    return AutoencoderNetwork(CODEC)


@pytest.mark.parametrize(
    "config", [MSEConfig(**SIZES, num_layers=1), TwoTowerConfig(**SIZES, num_context_layers=1, num_denoiser_layers=1)]
)
def test_a_concept_model(config, codec):
    model = build_model(config).train()
    found = measure_context(model, 50, 12, codec, STEPS, sentence_tokens=6, repeats=2)
    assert found.context_tokens == 54 and found.new_tokens == 12  # whole sentences
    assert set(found.seconds) == {"encode", "write", "decode"} and min(found.seconds.values()) > 0
    assert found.flops == text_flops(config, 54, 12, CODEC, STEPS, sentence_tokens=6, causal_half=True)
    assert model.training
    assert len(found.runs) == 2 and found.total_seconds == min(found.runs)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["seconds"]["total"] == pytest.approx(sum(found.seconds.values()))


def test_no_text_ends_early(codec, monkeypatch):
    """With a threshold of -1 every concept would be a stop concept."""
    written = []
    whole = AutoencoderNetwork.step

    def step(self, embedded, *rest):
        written.append(len(embedded))
        return whole(self, embedded, *rest)

    monkeypatch.setattr(AutoencoderNetwork, "step", step)
    measure_context(build_model(MSEConfig(**SIZES, num_layers=1)), 12, 24, codec, STEPS, sentence_tokens=6)
    assert written == [4] * 7  # four sentences of six tokens, and the end


def test_a_token_model_writes_as_many_tokens():
    config = TokenLMConfig(vocab_size=40, model_dim=16, num_heads=2, num_layers=1)
    model = build_model(config)
    read, scored = [], []
    model.prefill, whole = (lambda *a, f=model.prefill: read.append(a[0].shape) or f(*a)), model.logits
    model.logits = lambda states: scored.append(len(states)) or whole(states)
    found = measure_context(model, 50, 12, sentence_tokens=6)
    assert read == [(1, 1 + 9 * 7)] and len(scored) == 2 * 7
    assert set(found.seconds) == {"read", "write"}
    assert found.flops == text_flops(config, 54, 12, sentence_tokens=6, causal_half=True)


def test_memory_beyond_what_was_there():
    before = _mark(torch.device("cpu"))
    if before is None:
        pytest.skip("this system does not tell")
    held = torch.ones(1 << 22)  # 16 MB
    passing = torch.ones(1 << 24).sum()  # 64 MB, freed at once
    peak = _peak(torch.device("cpu"))
    assert 70e6 < peak - before < 110e6
    again = _mark(torch.device("cpu"))
    assert _peak(torch.device("cpu")) - again < 10e6
    assert held.sum() + passing > 0


def test_longer_contexts_take_more_memory():
    config = TokenLMConfig(vocab_size=40, model_dim=64, num_heads=2, num_layers=4)
    model = build_model(config)
    short, long = (measure_context(model, tokens, 6, sentence_tokens=6) for tokens in (60, 6000))
    if short.peak_bytes is None:
        pytest.skip("this system does not tell")
    keys_values = 4 * 2 * 64 * 4 * 7000
    assert long.peak_bytes - short.peak_bytes > 0.8 * keys_values
    assert long.total_seconds > short.total_seconds


def test_what_cannot_be_measured(codec):
    model = build_model(MSEConfig(**SIZES, num_layers=1))
    with pytest.raises(ConfigError, match="codec"):
        measure_context(model, 10, 10)
    with pytest.raises(ConfigError, match="sentence_tokens"):
        measure_context(model, 10, 10, codec, sentence_tokens=12)
    with pytest.raises(ConfigError, match="other sizes"):
        measure_context(build_model(MSEConfig(**{**SIZES, "concept_dim": 8}, num_layers=1)), 10, 10, codec)
    with pytest.raises(ConfigError, match="repeats"):
        measure_context(model, 10, 10, codec, sentence_tokens=6, repeats=0)


def test_the_run_in_the_middle_counts():
    flops = text_flops(MSEConfig(**SIZES, num_layers=1), 54, 12, CODEC, sentence_tokens=6)
    runs = [Measured(54, 12, flops, {"write": t, "read": 0.5}, p) for t, p in ((2.0, 10), (0.5, 30), (9.5, 20))]
    found = median_run(runs)
    assert found.total_seconds == 2.5 and found.runs == (2.5, 1.0, 10.0) and found.peak_bytes == 30
    assert found.spread == pytest.approx(9 / 2.5) and runs[0].spread is None
    assert median_run(runs[1:]).total_seconds == 1.0  # of an even number the quicker one
    assert median_run([runs[0], replace(runs[1], peak_bytes=None)]).peak_bytes is None
    assert found.to_dict()["runs"] == [2.5, 1.0, 10.0]
    curve = cost_record({"a": [found]}, {})["curves"]["Time, codec included"]["series"]["a"]
    assert (curve["y"], curve["low"], curve["high"]) == ([2.5], [1.0], [10.0])
    with pytest.raises(ConfigError, match="same work"):
        median_run([runs[0], replace(runs[1], context_tokens=60)])
    with pytest.raises(ConfigError, match="0 runs"):
        median_run([])


def test_records_are_read_by_the_report():
    flops = text_flops(MSEConfig(**SIZES, num_layers=1), 54, 12, CODEC, sentence_tokens=6)
    rows = {
        "a": [Measured(54, 12, flops, {"write": 0.5}, 2_000_000), Measured(108, 12, flops, {"write": 1.0}, None)],
        "b": [Measured(54, 12, flops, {"read": 0.25, "write": 0.25}, 1_000_000)],
    }
    extra = read_extra(json.loads(json.dumps(cost_record(rows, {"clock": "wall clock"}))), "cost.json")
    assert [plot.title for plot in extra.plots] == [
        "Operations, codec included",
        "Time, codec included",
        "Peak memory beyond the weights",
    ]
    assert extra.plots[1].y_label == "seconds, wall clock"
    seconds = extra.plots[1].series
    assert seconds["a"].x == [54, 108] and seconds["a"].y == [0.5, 1.0] and seconds["b"].y == [0.5]
    assert all(plot.log_x and plot.log_y for plot in extra.plots)
    assert len(extra.tables[0].rows) == 3 and extra.tables[0].rows[1][-1] == "–"


def test_the_benchmark(tmp_path, monkeypatch, capsys):
    file = Path(__file__).parents[3] / "benchmarks" / "context_cost.py"
    spec = importlib.util.spec_from_file_location("context_cost", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    options = ["--quick", "--contexts", "54", "108", "--repeats", "2", "--steps", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["context_cost.py", *options])
    script.main()
    printed = capsys.readouterr().out
    assert "token LM / two-tower (s)" in printed and "| 108 |" in printed
    record = json.loads((tmp_path / "cost.json").read_text())
    assert set(record["rows"]) == {"Base-LCM", "two-tower", "token LM"}
    assert all(len(row["runs"]) == 2 for rows in record["rows"].values() for row in rows)
    sizes = record["settings"]["parameters"]
    assert abs(sizes["token LM"] / sizes["two-tower"] - 1) <= 0.05
    svg = (tmp_path / "cost.svg").read_text()
    assert svg.startswith("<svg") and svg.count("<polyline") >= 6 and "GFLOP" in svg
