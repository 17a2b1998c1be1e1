"""How long it takes to open a pipeline of the size that ships, in a new process, and how large it is.

Weights are random: time and size do not depend on them. ``python benchmarks/loading.py [--out FOLDER]``
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

OPEN = """
import sys, time
began = time.perf_counter()
from largeconcept import ConceptPipeline
pipeline = ConceptPipeline.from_pretrained(sys.argv[1], device="cpu")
print(time.perf_counter() - began, time.process_time())
"""


def build(out: Path) -> tuple[int, int]:
    """Write a shipped pipeline with random weights; return the parameters of codec and model."""
    import torch

    from largeconcept.codec import load_codec
    from largeconcept.codec.autoencoder import AutoencoderCodec
    from largeconcept.codec.network import AutoencoderNetwork
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.models import build_model
    from largeconcept.recipes import default_cpu
    from largeconcept.segment import build_segmenter
    from largeconcept.train.export import ship_pipeline

    torch.manual_seed(0)
    tokenizer = load_codec("starter").tokenizer  # random weights, but a vocabulary that is one
    config = default_cpu.codec("unused").network.model_copy(update={"vocab_size": tokenizer.vocab_size})
    codec = AutoencoderCodec(AutoencoderNetwork(config), tokenizer)
    sizes = {"num_context_layers": 3, "num_denoiser_layers": 4, "model_dim": 256, "num_heads": 4}
    model = build_model({"type": "two_tower", "concept_dim": config.dim, **sizes})
    normalizer = ConceptNormalizer.identity(config.dim)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        ConceptPipeline(build_segmenter(), codec, normalizer, model, device="cpu").save_pretrained(whole)
        ship_pipeline(whole, out)
    return sum(p.numel() for p in codec.network.parameters()), sum(p.numel() for p in model.parameters())


def main() -> None:
    """Build, open three times, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep the pipeline here")
    given = parser.parse_args()
    from largeconcept.hub import folder_size

    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder) / "shipped"
        codec, model = build(out)
        print(f"codec {codec / 1e6:.1f} M, model {model / 1e6:.1f} M parameters: {folder_size(out) / 2**20:.1f} MiB")
        for number in range(3):
            done = subprocess.run([sys.executable, "-c", OPEN, str(out)], capture_output=True, text=True, check=True)
            wall, processor = map(float, done.stdout.split())
            print(f"opened in {wall:.2f} s, {processor:.2f} s of processor time ({'cold' if not number else 'again'})")


if __name__ == "__main__":
    main()
