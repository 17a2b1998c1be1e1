from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pyarrow", "sentencepiece", "sacrebleu", "safetensors")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "module",
    ["", ".errors", ".types", ".config", ".io", ".languages", ".segment"],
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, largeconcept{module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    assert run(code) == ""


def test_import_takes_less_than_three_tenths_of_a_second() -> None:
    code = "import time; begin = time.process_time(); import largeconcept; print(time.process_time() - begin)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def test_importing_the_segmenter_takes_less_than_a_second() -> None:
    code = (
        "import time; begin = time.process_time()\nfrom largeconcept.segment import build_segmenter\n"
        "build_segmenter().segment('One. Two.')\nprint(time.process_time() - begin)"
    )
    assert min(float(run(code)) for _ in range(3)) < 1.0


def test_public_names_are_listed_and_unknown_ones_refused() -> None:
    import largeconcept

    assert set(largeconcept._LAZY) <= set(dir(largeconcept)) == set(largeconcept.__all__)
    assert largeconcept.ConceptLMError.__name__ == "ConceptLMError"
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        _ = largeconcept.Pipeline
