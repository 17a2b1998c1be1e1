from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from largeconcept.errors import CheckpointError, DependencyError
from largeconcept.segment import build_segmenter


class FakeSaT:
    """Has the call signature of wtpsplit's class; splits at "|" with a probability that the text names."""

    made: list[dict[str, Any]] = []  # noqa: RUF012
    calls: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, model: str, tokenizer_name_or_path: str = "default") -> None:
        if model == "nowhere":
            raise OSError("nowhere is not a local folder and is not a valid model identifier")
        self.made.append({"model": model, "tokenizer": tokenizer_name_or_path, "device": "cpu", "half": False})

    def half(self) -> FakeSaT:
        self.made[-1]["half"] = True
        return self

    def to(self, device: str) -> FakeSaT:
        self.made[-1]["device"] = device
        return self

    def split(self, texts: list[str], threshold: float | None = None, split_on_input_newlines: bool = True) -> Any:
        self.calls.append({"texts": texts, "threshold": threshold, "newlines": split_on_input_newlines})
        for text in texts:
            parts = text.split("|")
            yield [part + "|" for part in parts[:-1]] + parts[-1:]


@pytest.fixture
def wtpsplit(monkeypatch: pytest.MonkeyPatch) -> type[FakeSaT]:
    module = types.ModuleType("wtpsplit")
    module.SaT = FakeSaT  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wtpsplit", module)
    monkeypatch.setattr(FakeSaT, "made", [])
    monkeypatch.setattr(FakeSaT, "calls", [])
    return FakeSaT


def test_sat_gives_exact_spans(wtpsplit: type[FakeSaT]) -> None:
    text = "one two|three \ud800\n\n  four|five\r\nsix"
    segmenter = build_segmenter({"type": "sat", "threshold": 0.01, "max_chars": 10})
    spans = segmenter.segment(text)
    assert [(span.paragraph, span.of(text)) for span in spans] == [
        (0, "one two|"),
        (0, "three \ud800"),
        (1, "four|"),
        (1, "five"),
        (2, "six"),
    ]
    assert wtpsplit.calls == [
        {"texts": ["one two|three \ufffd", "four|five", "six"], "threshold": 0.01, "newlines": False}
    ]


def test_a_backend_sees_no_line_breaks(wtpsplit: type[FakeSaT]) -> None:
    text = "The quick brown fox jumps over the lazy dog and\r\nruns|away."
    spans = build_segmenter({"type": "sat"}).segment(text)
    assert wtpsplit.calls[0]["texts"] == ["The quick brown fox jumps over the lazy dog and  runs|away."]
    assert [span.of(text) for span in spans] == [text[:-5], "away."]


def test_sat_takes_model_tokenizer_and_device(wtpsplit: type[FakeSaT]) -> None:
    build_segmenter({"type": "sat"})
    build_segmenter({"type": "sat", "model": "sat-6l", "tokenizer": "folder", "device": "cuda"})
    assert wtpsplit.made == [
        {"model": "sat-3l-sm", "tokenizer": "default", "device": "cpu", "half": False},
        {"model": "sat-6l", "tokenizer": "folder", "device": "cuda", "half": True},
    ]


def test_sat_caps_sentences(wtpsplit: type[FakeSaT]) -> None:
    segmenter = build_segmenter({"type": "sat", "max_chars": 12})
    assert segmenter.sentences("aaa bbb ccc, ddd eee fff") == ["aaa bbb ccc,", "ddd eee fff"]
    assert segmenter.sentences("") == []


def test_sat_without_weights_says_what_to_do(wtpsplit: type[FakeSaT]) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: cannot load the SaT model.*give a folder"):
        build_segmenter({"type": "sat", "model": "nowhere"})


@pytest.mark.parametrize(("kind", "package"), [("sat", "wtpsplit"), ("pysbd", "pysbd")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError) as caught:
        build_segmenter({"type": kind})
    assert f"pip install 'largeconcept[{kind}]'" in str(caught.value)
    assert package in str(caught.value)


class FakePysbd:
    """Splits at "|"; cannot do text with "crash" in it."""

    languages: list[str] = []  # noqa: RUF012

    def __init__(self, language: str, clean: bool) -> None:
        assert not clean
        self.languages.append(language)

    def segment(self, text: str) -> list[str]:
        if "crash" in text:
            raise ValueError("unbalanced parenthesis")
        return [part.strip() for part in text.split("|")]


@pytest.fixture
def pysbd(monkeypatch: pytest.MonkeyPatch) -> type[FakePysbd]:
    module, submodule = types.ModuleType("pysbd"), types.ModuleType("pysbd.languages")
    module.Segmenter = FakePysbd  # type: ignore[attr-defined]
    submodule.LANGUAGE_CODES = {"en": object, "de": object}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pysbd", module)
    monkeypatch.setitem(sys.modules, "pysbd.languages", submodule)
    monkeypatch.setattr(FakePysbd, "languages", [])
    return FakePysbd


def test_pysbd_gives_exact_spans_in_its_languages(pysbd: type[FakePysbd]) -> None:
    segmenter = build_segmenter({"type": "pysbd"})
    text = "A. B|one one|one one. C"
    assert [span.of(text) for span in segmenter.segment(text, "deu_Latn")] == ["A. B|", "one one|", "one one. C"]
    segmenter.segment(text, "de")
    segmenter.segment(text, "en")
    assert pysbd.languages == ["de", "en"]


def test_pysbd_falls_back_on_the_rules(pysbd: type[FakePysbd]) -> None:
    segmenter = build_segmenter({"type": "pysbd"})
    assert segmenter.sentences("Det regnar|nu. Sedan slutar det.", "sv") == ["Det regnar|nu.", "Sedan slutar det."]
    assert segmenter.sentences("A crash|here. Then more.", "en") == ["A crash|here.", "Then more."]
    assert pysbd.languages == ["en"]


def test_the_real_pysbd_where_it_is_installed() -> None:
    pytest.importorskip("pysbd")
    segmenter = build_segmenter({"type": "pysbd"})
    text = "Dr. Smith came. He sat down. He sat down."
    spans = segmenter.segment(text, "en")
    assert [span.of(text) for span in spans] == ["Dr. Smith came.", "He sat down.", "He sat down."]
