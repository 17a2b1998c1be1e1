"""A build that is killed again and again, at random moments, ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BUILD = """
import re, sys, time
from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.types import Span

class Segmenter:
    def segment(self, text, lang=None):
        return [Span(m.start(), m.end(), text.count(chr(10), 0, m.start())) for m in re.finditer(r"\\S[^.]*[.]", text)]
    def describe(self):
        return {"type": "dots"}

class SlowCodec(ToyCodec):
    def encode(self, *args, **keywords):
        time.sleep(float(sys.argv[3]))
        return super().encode(*args, **keywords)

def progress(done, total, unit):
    if unit == "documents":
        print(done, flush=True)

print("ready", flush=True)
build_concepts(sys.argv[1], sys.argv[2], SlowCodec(24), Segmenter(), documents_per_shard=6, group_sentences=9,
               on_error="report", progress=progress)
print("finished", flush=True)
"""
KILLS = 5
DOCUMENTS = 120


def start(corpus: Path, out: Path, delay: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(corpus), str(out), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_builds_resume_to_the_same_bits(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    lines = [
        json.dumps({"id": f"d{i % 100}", "text": " ".join(f"Sentence {j} of {i}." for j in range(1 + i % 5))})
        for i in range(DOCUMENTS)
    ]
    lines[50] = "not JSON"
    corpus.write_text("\n".join(lines))
    whole = start(corpus, tmp_path / "whole", 0)
    assert "finished" in whole.communicate(timeout=120)[0]

    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    moments = random.Random(seed)
    reached = 0
    for _ in range(KILLS):
        process = start(corpus, tmp_path / "killed", 0.02)
        assert process.stdout is not None
        goal = reached + moments.randrange(2, DOCUMENTS // 7)
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= goal:
                reached = int(line)
                break
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL, "the kill came too late: the build had ended"
        assert reached < DOCUMENTS - 1
    last = start(corpus, tmp_path / "killed", 0)
    output = last.communicate(timeout=120)[0]
    assert "finished" in output
    assert int(output.split()[1]) >= 6, "the last build began from nothing"
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
