from __future__ import annotations

import pytest
import torch

from largeconcept.codec.metrics import bleu, chrf, evaluate_codec, noise_curve, round_trip, xsim_error
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import DataError

TEXTS = [f"The {w} stands near the old river bank." for w in ("tower", "mill", "horse", "boat", "house", "tree")]


def test_perfect_codec_gets_full_marks() -> None:
    result = round_trip(ToyCodec(), TEXTS, "eng_Latn")
    assert result.auto_bleu == pytest.approx(100) and result.chrf == pytest.approx(100) and result.exact == 1
    with pytest.raises(DataError, match="no sentences"):
        round_trip(ToyCodec(), [], "eng_Latn")


def test_bleu_reads_chinese_by_characters() -> None:
    hypothesis, reference = ["他们今天在河边等雨。"], ["他们今天在河边等船。"]
    assert bleu(hypothesis, reference, "zho_Hans") > 50 > bleu(hypothesis, reference, "eng_Latn")
    assert bleu(["a b c d"], ["a b c d"]) == pytest.approx(100)
    assert 0 < chrf(["the tower"], ["the towers"]) < 100


def test_noise_curve_falls() -> None:
    curve = noise_curve(ToyCodec(16), TEXTS, "eng_Latn", (0.0, 5.0))
    assert curve[0] == (0.0, pytest.approx(100)) and curve[1][1] < 90


def test_xsim_by_hand() -> None:
    left = torch.eye(5)
    assert xsim_error(left, left + 0.01) == 0
    assert xsim_error(left, left[[1, 0, 2, 3, 4]]) == pytest.approx(0.4)
    # A hub: right row 4 has the largest cosine to everything; the margin sees through it, plain cosine would not.
    right = torch.eye(6)[:, :5] * 0.5
    right[5] = 1
    left6 = torch.cat([torch.eye(5) + 0.55, torch.ones(1, 5)])
    plain = (torch.nn.functional.normalize(left6, dim=1) @ torch.nn.functional.normalize(right, dim=1).T).argmax(1)
    assert plain.tolist() == [5] * 6
    assert xsim_error(left6, right) < 0.2
    with pytest.raises(DataError, match="same shape"):
        xsim_error(torch.zeros(2, 3), torch.zeros(3, 3))


def test_report_holds_everything() -> None:
    report = evaluate_codec(
        ToyCodec(), {"eng_Latn": TEXTS}, {("eng_Latn", "deu_Latn"): [(t, t) for t in TEXTS]}, strengths=(0.0, 0.1)
    ).to_dict()
    assert report["round_trips"][0]["auto_bleu"] == pytest.approx(100)
    assert report["xsim"] == {"eng_Latn → deu_Latn": 0.0}
    assert report["translations"]["eng_Latn → deu_Latn"] == pytest.approx(100)
    assert [s for s, _ in report["noise"]["eng_Latn"]] == [0.0, 0.1]


def test_a_judge_compares_what_is_written_in_its_own_space():
    """The toy codec gives back what it saw; a codec that mixes two sentences up has both wrong for the judge."""
    codec = ToyCodec(32)

    def judge(sentences):
        return ToyCodec(48).encode(sentences)

    found = round_trip(codec, TEXTS, "eng_Latn", judge=judge)
    assert found.meaning == pytest.approx(1) and found.meaning_error == 0
    assert round_trip(codec, TEXTS, "eng_Latn").meaning is None
    mixed = ToyCodec(32)
    mixed.decode = lambda concepts, lang, **_: [TEXTS[1], TEXTS[0], *TEXTS[2:]]
    wrong = round_trip(mixed, TEXTS, "eng_Latn", judge=judge)
    assert wrong.meaning_error == pytest.approx(2 / len(TEXTS)) and wrong.meaning < 0.99
    mixed.decode = lambda concepts, lang, **_: [""] * len(TEXTS)
    assert round_trip(mixed, TEXTS, "eng_Latn", judge=judge).meaning < wrong.meaning
    report = evaluate_codec(codec, {"eng_Latn": TEXTS}, strengths=(), judge=judge)
    assert report.round_trips[0].meaning == pytest.approx(1)


def test_of_an_encoder_alone_there_is_the_retrieval_error():
    from largeconcept.codec.encoders import wrap_encoder
    from largeconcept.codec.external import ExternalCodec

    codec = ExternalCodec(wrap_encoder(ToyCodec(32).encode))
    pairs = {("eng_Latn", "deu_Latn"): [(text, text + "!") for text in TEXTS]}
    report = evaluate_codec(codec, {"eng_Latn": TEXTS}, pairs)
    assert report.round_trips == [] and report.translations == {} and report.noise == {}
    assert report.xsim == {"eng_Latn → deu_Latn": 0.0}
