"""SONAR at its released size, with random weights, stays within 6 GB on a processor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[3]
LIMIT = 6e9

SCRIPT = """
import resource, sys, time
import torch
ROWS = 50
from sonar_small import TEXT, small_tokenizer_model
from largeconcept.codec.sonar.codec import SonarCodec
from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.codec.sonar.tokenizer import LANGUAGES, SonarTokenizer

def drawn(module):
    torch.manual_seed(0)
    module.to(torch.bfloat16).to_empty(device="cpu")
    for name, weight in module.named_parameters():
        with torch.no_grad():
            if "norm.weight" in name:
                weight.fill_(1.0)
            else:
                weight.uniform_(-0.02, 0.02)
    return module

class Padded(SonarTokenizer):
    '''The small tokenizer with the table of the released one.'''
    @property
    def vocab_size(self):
        return 256_206

with torch.device("meta"):
    encoder, decoder = SonarEncoder(SonarEncoderConfig()), SonarDecoder(SonarDecoderConfig())
start = time.perf_counter()
codec = SonarCodec(drawn(encoder), drawn(decoder), Padded(small_tokenizer_model()))
made = time.perf_counter()
concepts = codec.encode(TEXT[:8], "eng_Latn")
encoded = time.perf_counter()
assert concepts.shape == (8, 1024) and bool(torch.isfinite(concepts).all())
written = codec.decode(concepts, ["eng_Latn", "fra_Latn"] * 4, num_beams=5, max_length=8)
assert len(written) == 8
# As many rows and steps as are ever written at once, all of them remembered: 10 sentences with 5 beams and 128 tokens.
with torch.inference_mode():
    state = codec.decoder.start(torch.zeros(ROWS, 1024), 130)
    for cache in (*state.keys, *state.values):
        cache.zero_()
    state.position = 129
    scores = codec.decoder.scores(codec.decoder.step(torch.full((ROWS,), 5), state), state).float().log_softmax(-1)
assert scores.shape == (ROWS, 256_206)
done = time.perf_counter()
print("seconds", round(made - start), round(encoded - made), round(done - encoded), file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kilobytes on Linux")
def test_the_released_size_within_six_gigabytes():
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    peak = 1024 * int(result.stdout.split()[-1])
    print(f"peak {peak / 1e9:.2f} GB; {result.stderr.strip().splitlines()[-1]}")
    assert peak < LIMIT
    assert peak > 3e9, "the weights alone are 3.2 GB: were they there?"
