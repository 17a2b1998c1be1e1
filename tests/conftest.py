"""Fixtures shared by several rooms: a pipeline with random weights and a codec without any."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest_helpers import SENTENCES

# The tensors of the tests are tiny: a second thread only waits, for seconds where other work shares the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def make_pipeline() -> Callable[..., Any]:
    """Return a function that builds a pipeline: ``family`` is mse or two_tower, other words go to ConceptPipeline."""

    def make(family: str = "two_tower", dim: int = 16, **keywords: Any) -> Any:
        import torch

        from largeconcept.codec.normalizer import ConceptNormalizer
        from largeconcept.codec.toy import ToyCodec
        from largeconcept.generate.pipeline import ConceptPipeline
        from largeconcept.models import build_model
        from largeconcept.segment import build_segmenter

        sizes: dict[str, Any] = {"concept_dim": dim, "model_dim": 16, "num_heads": 2}
        if family == "mse":
            sizes |= {"num_layers": 1}
        else:
            sizes |= {"num_context_layers": 1, "num_denoiser_layers": 1}
        sizes |= keywords.pop("model", {})
        codec = keywords.pop("codec", None) or ToyCodec(dim, SENTENCES)
        torch.manual_seed(0)
        options = {"num_inference_steps": 4, "max_concepts": 3, **keywords.pop("options", {})}
        return ConceptPipeline(
            build_segmenter(),
            codec,
            ConceptNormalizer.fit([codec.encode(SENTENCES)], method="standard"),
            build_model({"type": family, **sizes}),
            options if family != "mse" else {"max_concepts": options["max_concepts"]},
            device="cpu",
            **keywords,
        )

    return make


@dataclass(frozen=True)
class CliResult:
    """What a command line did."""

    status: int
    out: str
    err: str

    def error(self, *parts: str) -> None:
        """Demand one clear line that holds ``parts``, exit status 2, and nothing on standard output."""
        assert self.status == 2, self
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        for part in parts:
            assert part in lines[0], f"{part!r} is not in {lines[0]!r}"

    def ok(self) -> str:
        """Demand success; return standard output."""
        assert self.status == 0, self
        return self.out


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., CliResult]:
    """Return a function that runs a command line in this process."""

    def run_cli(*arguments: object, stdin: str | bytes = "") -> CliResult:
        from largeconcept.cli.main import run

        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        status = run([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return CliResult(status, out, err)

    return run_cli


@pytest.fixture(scope="session")
def saved_pipeline(make_pipeline, tmp_path_factory) -> Path:
    """A saved two-tower pipeline of 16 channels; do not change its files."""
    return Path(make_pipeline(max_length=12).save_pretrained(tmp_path_factory.mktemp("shared") / "pipeline"))


@pytest.fixture(scope="session")
def toy_codec(tmp_path_factory) -> Path:
    """The folder of a saved toy codec of 16 channels; do not change its files."""
    from largeconcept.codec.toy import ToyCodec

    folder = tmp_path_factory.mktemp("shared") / "toy16"
    ToyCodec(16, SENTENCES).save_pretrained(folder)
    return folder
