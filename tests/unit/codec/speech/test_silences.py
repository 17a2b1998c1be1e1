"""Recordings cut at silences: every sound is in a piece, pieces are in order, and pauses of known place are found."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.codec.speech.silences import Piece, cut
from largeconcept.errors import ConfigError, DataError

RATE = 16000


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables: four times a second its level sinks by 12 dB, never for long enough to be a pause."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * rng.standard_normal(len(t)) * (0.625 + 0.375 * np.sin(2 * np.pi * 4 * t + 0.5))).astype(np.float32)


def recording(parts: list[tuple[float, float]], noise: float = 1e-4, end: float = 1.0, seed: int = 0):
    """Pauses and voices in turns over background noise: the samples, and begin and end of each voice."""
    rows, places, t = [], [], 0.0
    for i, (pause, seconds) in enumerate(parts):
        t += pause
        rows += [np.zeros(round(pause * RATE), np.float32), voice(seconds, seed + i)]
        places.append((t, t + seconds))
        t += seconds
    samples = np.concatenate([*rows, np.zeros(round(end * RATE), np.float32)])
    rng = np.random.default_rng(seed + 99)
    return samples + noise * rng.standard_normal(len(samples)).astype(np.float32), places


def check(pieces: list[Piece], seconds: float, longest: float = 30.0) -> None:
    """What holds of all pieces."""
    for piece in pieces:
        assert 0 <= piece.start < piece.end <= seconds + 1e-9
        assert piece.end - piece.start <= longest + 1e-9
    for before, after in itertools.pairwise(pieces):
        assert before.end <= after.start


# --- pauses of known place ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-3, 1e-2, 0.02])
def test_sentences_between_pauses_are_found(noise):
    """From no noise at all to 11 dB below the voice."""
    samples, places = recording([(0.7, 2.0), (0.6, 3.5), (1.5, 1.2), (0.5, 5.0)], noise)
    pieces = cut(samples)
    assert len(pieces) == 4
    for piece, (start, end) in zip(pieces, places, strict=True):
        assert start - 0.2 <= piece.start <= start - 0.05
        assert end + 0.05 <= piece.end <= end + 0.2


def test_pauses_inside_a_sentence_do_not_cut():
    samples, places = recording([(0.5, 2.0), (0.3, 2.0), (0.7, 2.0)])
    pieces = cut(samples)
    assert len(pieces) == 2
    assert pieces[0].start < places[0][0] and pieces[0].end > places[1][1]
    assert len(cut(samples, min_pause=0.2)) == 3
    assert len(cut(samples, min_pause=1.0)) == 1


def test_a_gain_changes_nothing():
    samples, _ = recording([(0.7, 2.0), (0.6, 3.5), (1.5, 1.2)])
    expected = cut(samples)
    for gain in (0.01, 0.3, 30.0):
        assert cut((gain * samples).astype(np.float32)) == expected


def test_an_offset_and_a_drift_are_no_sound():
    samples, _ = recording([(0.7, 2.0), (0.6, 3.5)])
    assert cut(samples + np.float32(0.3)) == cut(samples)
    drift = np.linspace(-0.2, 0.2, len(samples), dtype=np.float32)
    assert len(cut(samples + drift)) == 2


def test_background_that_grows_is_followed():
    """A fan is switched on after a minute: 40 dB more background, and the pauses are still found."""
    samples, places = recording([(0.8, 4.0)] * 24, noise=0.0)
    rng = np.random.default_rng(5)
    level = np.where(np.arange(len(samples)) < 60 * RATE, 1e-4, 1e-2).astype(np.float32)
    pieces = cut(samples + level * rng.standard_normal(len(samples)).astype(np.float32))
    assert len(pieces) >= 21  # for a quarter of a minute either threshold is wrong
    for start, end in places:
        if not 45 < start < 76:
            assert any(abs(one.start + 0.15 - start) < 0.06 and abs(one.end - 0.15 - end) < 0.06 for one in pieces)


def test_eight_bits_a_sample():
    samples, _ = recording([(0.7, 2.0), (0.6, 3.5), (1.5, 1.2)], noise=0.0)
    assert len(cut((np.round(samples * 128) / 128).astype(np.float32))) == 3


def test_clicks_are_dropped_and_short_words_join_what_is_near():
    samples, places = recording([(0.5, 0.03), (2.0, 3.0), (0.6, 0.4), (0.5, 3.0), (3.0, 0.4)])
    pieces = cut(samples)
    assert len(pieces) == 3  # "Yes." is 0.6 s after one sentence and 0.5 s before another; the last word stays alone
    assert pieces[0].start > 2.0 and pieces[0].end < places[2][0]
    assert pieces[1].start < places[2][0] and pieces[1].end > places[3][1]
    assert len(cut(samples, min_seconds=0.0)) == 4


def test_spoken_sentences_of_espeak():
    """Real phonemes: quiet consonants at the ends of words stay inside their pieces."""
    pytest.importorskip("espeakng_loader")
    soxr = pytest.importorskip("soxr")
    from largeconcept.codec.speech.espeak import EspeakSynthesizer

    rows, places, t = [], [], 0
    for sentence in ("Tim had a red ball.", "The ball rolled away, past the fence.", "It is his fifth.", "Stop this."):
        audio = EspeakSynthesizer().speak(sentence, "eng_Latn")
        sound = soxr.resample(audio.samples, audio.rate, RATE)
        loud = np.flatnonzero(np.abs(sound) > 1e-3)
        sound = sound[loud[0] : loud[-1] + 1]
        rows += [np.zeros(RATE * 7 // 10, np.float32), sound]
        places.append(((t + RATE * 7 // 10) / RATE, (t + RATE * 7 // 10 + len(sound)) / RATE))
        t += RATE * 7 // 10 + len(sound)
    clean = np.concatenate([*rows, np.zeros(RATE, np.float32)])
    for noise in (0.0, 1e-3, 5e-3):
        pieces = cut(
            clean + noise * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32), min_seconds=0
        )
        assert len(pieces) == 4
        for piece, (start, end) in zip(pieces, places, strict=True):
            assert piece.start <= start + 0.03 and piece.end >= end - 0.06


# --- long stretches -------------------------------------------------------------------------------------------------


def test_a_long_stretch_is_cut_where_it_is_quietest():
    samples = voice(50.0)
    samples[24 * RATE : 24 * RATE + RATE // 4] *= 0.05  # a breath, too short for a pause
    pieces = cut(samples)
    assert len(pieces) == 2
    assert pieces[0].end == pieces[1].start == pytest.approx(24.125, abs=0.1)
    assert (pieces[0].start, pieces[1].end) == (0.0, 50.0)


@pytest.mark.parametrize("seconds", [30.0, 30.01, 31.0, 59.9, 60.0, 61.0, 100.0])
def test_stretches_without_a_pause(seconds):
    pieces = cut(voice(seconds))
    check(pieces, seconds)
    assert pieces[0].start == 0.0 and pieces[-1].end == pytest.approx(seconds, abs=0.05)
    assert all(before.end == after.start for before, after in itertools.pairwise(pieces))
    assert min(piece.end - piece.start for piece in pieces) >= min(seconds, 10.0) - 0.01


def test_padding_does_not_make_a_piece_too_long():
    samples, places = recording([(1.0, 29.9)])
    (piece,) = cut(samples)
    assert piece.start <= places[0][0] and piece.end >= places[0][1] and piece.end - piece.start <= 30.0


def test_padding_is_shared_where_pauses_are_short():
    samples, _ = recording([(0.5, 2.0), (0.5, 2.0)])
    first, second = cut(samples, padding=5.0)
    assert first.end == second.start == pytest.approx(2.75, abs=0.03)
    assert first.start == 0.0


# --- nothing, or something else -------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(1), np.zeros(100000), np.full(100000, 0.7)])
def test_silence_gives_no_piece(samples):
    assert cut(samples.astype(np.float32)) == []


def test_quiet_noise_is_silence_and_loud_noise_is_sound():
    noise = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)
    assert cut(1e-5 * noise) == []
    assert cut(0.1 * noise) == [(0.0, 5.0)]


def test_a_tone_is_sound():
    tone = np.sin(np.arange(3 * RATE) * 0.1).astype(np.float32)
    assert cut(tone) == [(0.0, 3.0)]


@pytest.mark.parametrize("number", [1, 100, 300, 1440])
def test_shorter_than_a_tenth_of_a_second(number):
    assert cut(voice(1.0)[:number]) == []


def test_wrong_samples():
    with pytest.raises(DataError, match=r"expected \(S,\), mono; got \(2, 5\)"):
        cut(np.zeros((2, 5), np.float32))
    for value in (np.nan, np.inf):
        samples = voice(2.0)
        samples[RATE] = value
        with pytest.raises(DataError, match=r"not finite, about 1\.00 s"):
            cut(samples)


@pytest.mark.parametrize(
    "lengths",
    [{"min_pause": 0.0}, {"max_seconds": 0.5}, {"min_seconds": 16.0}, {"padding": -1.0}, {"min_pause": math.nan}],
)
def test_impossible_lengths(lengths):
    with pytest.raises(ConfigError, match=next(iter(lengths))):
        cut(voice(1.0), **lengths)


# --- properties -----------------------------------------------------------------------------------------------------

PARTS = st.lists(st.tuples(st.floats(0.05, 2.0), st.floats(0.2, 6.0)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    PARTS,
    st.sampled_from([0.0, 1e-5, 1e-3, 5e-3]),
    st.floats(2.0, 12.0),
    st.floats(0.0, 1.0),
    st.floats(0.1, 1.0),
    st.integers(0, 1000),
)
def test_pieces_hold_all_sounds(parts, noise, longest, padding, pause, seed):
    samples, places = recording(parts, noise, seed=seed)
    pieces = cut(samples, max_seconds=longest, padding=padding, min_pause=pause, min_seconds=min(1.0, longest / 2))
    check(pieces, len(samples) / RATE, longest)
    covered = np.zeros(len(samples), bool)
    for piece in pieces:
        covered[round(piece.start * RATE) : round(piece.end * RATE)] = True
    for start, end in places:  # the first and last frame of a sound may be as quiet as a syllable's trough
        assert covered[round((start + 0.06) * RATE) : round((end - 0.06) * RATE)].all()
    if noise < 5e-3:
        assert np.abs(samples[~covered]).max(initial=0) < 0.5


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30000), st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0, 1e6])), max_size=12),
    st.integers(0, 100),
)
def test_any_levels_in_a_row(blocks, seed):
    """Whatever comes: ordered, inside, not too long."""
    rng = np.random.default_rng(seed)
    rows = [level * rng.standard_normal(number) for number, level in blocks]
    samples = np.concatenate([*rows, np.zeros(0)]).astype(np.float32)
    check(cut(samples, max_seconds=2.0), len(samples) / RATE, 2.0)
