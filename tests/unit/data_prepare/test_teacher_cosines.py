from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from largeconcept.codec.encoders import wrap_encoder
from largeconcept.data.pairs import SourcedPair
from largeconcept.data.prepare import teacher as judged


def vectors(texts: list[str]) -> np.ndarray:
    """Letters counted: a sentence and its anagram are the same."""
    return np.array([[1.0 + text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)


class Encoder:
    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[list[str]] = []
        self.stop_after = stop_after

    def __call__(self, texts: list[str]) -> np.ndarray:
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return vectors(texts)


def pair(english: str, other: str, lang: str = "deu_Latn") -> SourcedPair:
    return SourcedPair("kde", lang, english, other)


def test_cosines_are_those_of_the_vectors_in_the_order_of_the_pairs() -> None:
    pairs = [pair("hag", "ggg"), pair("abc", "cba"), pair("abc", "ddd", "fra_Latn"), pair("bad", "cab")]
    found = judged.cosines_of(wrap_encoder(Encoder()), pairs)
    left, right = vectors([p.english for p in pairs]), vectors([p.other for p in pairs])
    wanted = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert found[1] == pytest.approx(1)


def test_languages_that_the_encoder_does_not_read_are_not_judged() -> None:
    pairs = [pair("abc", "cba"), pair("abc", "cba", "dan_Latn")]
    found = judged.cosines_of(wrap_encoder(Encoder(), languages=["en", "de"]), pairs)
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])


def test_stopped_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "CHUNK", 3)
    pairs = [pair("a" * i + "b", "b" * (i % 4) + "c") for i in range(1, 11)]
    wanted = judged.cosines_of(wrap_encoder(Encoder()), pairs)
    stopping = Encoder()
    encoder = wrap_encoder(stopping)
    stopping.stop_after = len(stopping.calls) + 2
    with pytest.raises(KeyboardInterrupt):
        judged.cosines_of(encoder, pairs, tmp_path)
    going_on = Encoder()
    encoder = wrap_encoder(going_on)
    before = len(going_on.calls)
    seen: list[tuple[int, int]] = []
    found = judged.cosines_of(encoder, pairs, tmp_path, lambda done, total: seen.append((done, total)))
    assert found.tolist() == wanted.tolist()
    assert seen[0] == (6, 10)
    assert seen[-1] == (10, 10)
    assert len(going_on.calls) - before == 2  # the last chunks of three and of one
    again = Encoder()
    encoder = wrap_encoder(again)
    before = len(again.calls)
    assert judged.cosines_of(encoder, pairs, tmp_path).tolist() == wanted.tolist()
    assert len(again.calls) == before
    # Other pairs are other work.
    assert len(judged.cosines_of(encoder, pairs[:4], tmp_path)) == 4
    assert len(again.calls) > before
