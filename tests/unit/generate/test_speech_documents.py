"""What is heard becomes a Document, and pipelines work with its concepts, not with a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from largeconcept.codec.speech.audio import Audio, write_wav
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import ConfigError, DataError, LanguageError
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.generate.speech import hear, heard_language, speak, spoken_sentences
from largeconcept.generate.texts import encode_documents, translate
from largeconcept.segment import build_segmenter
from largeconcept.types import Document

SAID = ("One word.", "Two more words.", "Three long words here.", "Four.")


class EarCodec(ToyCodec):
    """Hears the sentence whose number is the length of a piece in seconds, and remembers what it was given."""

    def __init__(self, dim: int = 16, sentences: Sequence[str] = SAID, languages: Sequence[str] = ("eng",)) -> None:
        super().__init__(dim, sentences)
        self.speech = dict.fromkeys(languages)
        self.heard: list[tuple[list[Tensor], str]] = []
        self.read: list[str] = []

    def encode(self, sentences: Sequence[str], lang: Any = None, *, batch_tokens: int = 8192) -> Tensor:
        self.read += sentences
        return super().encode(sentences, lang, batch_tokens=batch_tokens)

    def encode_speech(self, audio: Sequence[Tensor], lang: str) -> Tensor:
        self.heard.append((list(audio), lang))
        concepts = super().encode([SAID[round(len(one) / 16000 - 0.3) - 1] for one in audio])
        return concepts + 0.01  # near the sentence, and not the same

    @property
    def fingerprint(self) -> str:
        raise AssertionError("finding it may read gigabytes")


@pytest.fixture
def talk(tmp_path):
    """Three bursts of 1, 2 and 3 seconds."""
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    rng, parts = np.random.default_rng(0), [np.zeros(16000)]
    for seconds in (1, 2, 3):
        parts += [0.1 * rng.standard_normal(16000 * seconds), np.zeros(16000)]
    write_wav(tmp_path / "talk.wav", Audio(np.concatenate(parts).astype(np.float32), 16000))
    return tmp_path / "talk.wav"


def test_a_talk_becomes_a_document(talk):
    codec = EarCodec()
    document = hear(talk, codec, "en")
    assert document.sentences == SAID[:3]
    assert (document.lang, document.id, document.where) == ("eng_Latn", str(talk), str(talk))
    assert document.concepts.shape == (3, 16) and document.concepts.dtype == torch.float32
    ((pieces, lang),) = codec.heard
    assert lang == "eng" and [one.dtype for one in pieces] == [torch.float32] * 3
    expected = [(1, 2), (3, 5), (6, 9)]
    assert np.allclose(document.times, expected, atol=0.2)
    for piece, (start, end) in zip(pieces, document.times, strict=True):
        assert len(piece) == round(16000 * (end - start))
        assert float(piece[4000:8000].abs().mean()) > 0.05
    assert not codec.read


def test_what_was_understood_is_written_in_the_language_spoken(talk, monkeypatch):
    codec = EarCodec(languages=("fra",))
    written = []
    monkeypatch.setattr(codec, "decode", lambda concepts, lang, **options: written.append((lang, options)) or ["a"] * 3)
    assert hear(talk, codec, decoding={"num_beams": 2}).lang == "fra_Latn"
    ((lang, options),) = written
    assert lang == "fra_Latn" and options["num_beams"] == 2


def test_pieces_can_be_of_other_lengths(talk):
    assert len(hear(talk, EarCodec(), "en", max_seconds=2.0).sentences) > 3
    with pytest.raises(ConfigError, match="max_seconds"):
        hear(talk, EarCodec(), "en", max_seconds=0)


def test_no_transcript_is_written_where_none_is_wanted_or_possible(talk, monkeypatch):
    with_words = hear(talk, EarCodec(), "en")
    codec = EarCodec()
    monkeypatch.setattr(codec, "decode", None)
    silent = hear(talk, codec, "en", transcribe=False)
    assert silent.sentences == ("", "", "")
    assert torch.equal(silent.concepts, with_words.concepts)
    codec.decoder = None  # as SONAR without its half that writes
    assert hear(talk, codec, "en").sentences == ("", "", "")
    del codec.decoder
    codec.speech = {"pol": None}
    assert hear(talk, codec, "pl").sentences == ("", "", "")


def test_which_language(talk):
    assert heard_language(EarCodec(), None) == ("eng", "eng_Latn")
    both = EarCodec(languages=("cmn", "spa"))
    assert heard_language(both, "zh-TW") == ("cmn", "zho_Hant")
    assert heard_language(both, "es") == ("spa", "spa_Latn")
    with pytest.raises(ConfigError, match=r"which language is spoken\?.*spa_Latn, zho_Hans.*--input-lang"):
        hear(talk, both)
    with pytest.raises(LanguageError, match=r"does not hear.*spa_Latn, zho_Hans; got eng_Latn \(English\).*--speech"):
        hear(talk, both, "en")
    with pytest.raises(LanguageError, match="unknown language"):
        hear(talk, both, "tlh")


@pytest.mark.parametrize("codec", [ToyCodec(), EarCodec(languages=())])
def test_a_codec_without_ears(talk, codec):
    with pytest.raises(ConfigError, match=r"has no speech encoder.*convert sonar --speech"):
        hear(talk, codec, "en")


def test_silence(tmp_path):
    pytest.importorskip("soundfile")
    write_wav(tmp_path / "a.wav", Audio(np.zeros(16000, np.float32), 16000))
    with pytest.raises(DataError, match=r"a\.wav: no speech is heard.*1\.0 s of silence"):
        hear(tmp_path / "a.wav", EarCodec(), "en")


# --- pipelines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(make_pipeline) -> ConceptPipeline:
    class Ear(EarCodec):
        fingerprint = ToyCodec(16).fingerprint  # type: ignore[assignment]

    pipe: ConceptPipeline = make_pipeline("mse", codec=Ear(), max_length=16, stop_text=None)
    pipe.codec.read.clear()  # type: ignore[attr-defined]
    return pipe


def test_heard_concepts_are_continued_and_nothing_is_read(pipeline, talk):
    document = hear(talk, pipeline.codec, "en")
    output = pipeline(document, seed=1)
    assert output.prompt_sentences == SAID[:3]
    assert output.lang == "eng_Latn"
    assert pipeline.codec.read == []
    expected = pipeline.continue_concepts(document.concepts, seed=1)
    assert torch.equal(output.concepts, expected.concepts)
    # The same sentences as text give other concepts, and so does a document whose concepts moved.
    assert not torch.equal(output.concepts, pipeline(Document("a", sentences=SAID[:3]), seed=1).concepts)
    moved = replace(document, concepts=document.concepts.roll(1, 0))
    assert not torch.equal(output.concepts, pipeline(moved, seed=1).concepts)


def test_texts_and_talks_in_one_batch(pipeline, talk):
    document = hear(talk, pipeline.codec, "en")
    alone = pipeline(document, seed=1)
    first, second, third = pipeline(["Four.", document, Document("x", sentences=("One word.",))], seed=1)
    assert pipeline.codec.read == ["Four.", "One word."]
    torch.testing.assert_close(second.concepts, alone.concepts, atol=1e-4, rtol=1e-3)
    assert (first.prompt_sentences, third.prompt_sentences) == (("Four.",), ("One word.",))


def test_a_long_talk_loses_its_beginning(pipeline, talk):
    document = hear(talk, pipeline.codec, "en")
    long = replace(document, sentences=document.sentences * 6, concepts=document.concepts.repeat(6, 1), times=None)
    with pytest.warns(UserWarning, match="has 18 sentences; the model reads the last 13"):
        output = pipeline(long, seed=1, max_concepts=3)
    assert output.prompt_sentences == (SAID[:3] * 6)[-13:]
    kept = pipeline.continue_concepts(long.concepts[-13:], seed=1, max_concepts=3)
    assert torch.equal(output.concepts, kept.concepts)


def test_prompts_of_a_task_stand_around_what_was_heard(pipeline, talk):
    from largeconcept.hub import PromptRecord

    pipeline.prompts["summarize"] = PromptRecord(prefix=("Read this.", "All."), suffix=("Sum it up.",))
    document = hear(talk, pipeline.codec, "en")
    output = pipeline.summarize(document, ratio=0.7, seed=1)
    assert pipeline.codec.read == ["Read this.", "All.", "Sum it up."]
    affixes = ToyCodec(16).encode(pipeline.codec.read)
    whole = torch.cat((affixes[:2], document.concepts, affixes[2:]))
    assert torch.equal(output.concepts, pipeline.continue_concepts(whole, seed=1, max_concepts=2).concepts)


@pytest.mark.parametrize("transcribe", [True, False])
def test_what_was_heard_is_planned_on(pipeline, make_pipeline, talk, transcribe):
    from largeconcept.models import PlanningConfig, build_model

    planner = make_pipeline(codec=pipeline.codec, stop_text=None)
    planner.model = build_model(PlanningConfig(body=planner.model.config, plan="first_sentence")).eval()
    planner.model.set_break(torch.ones(16))
    pipeline.codec.read.clear()
    document = hear(talk, pipeline.codec, "en", transcribe=transcribe)
    options = {"seed": 1, "max_paragraphs": 1, "max_paragraph_concepts": 2}
    planned = planner.plan([document, "It rains."], **options)
    assert planned[0].prompt_sentences == document.sentences
    assert pipeline.codec.read == ["It rains."]


def test_translations_and_plain_concepts(talk):
    codec = EarCodec()
    document = hear(talk, codec, "en")
    assert translate(document, "spa_Latn", segmenter=build_segmenter(), codec=codec) == " ".join(SAID[:3])
    assert codec.read == []
    sentences, concepts = ConceptPipeline.encode_text(_Parts(codec), document)  # type: ignore[arg-type]
    assert tuple(sentences) == SAID[:3] and torch.equal(concepts, document.concepts)


class _Parts:
    """As much of a pipeline as encoding needs."""

    def __init__(self, codec: EarCodec) -> None:
        self.codec, self.segmenter = codec, build_segmenter()

    _sentences = ConceptPipeline._sentences


def test_what_could_not_be_written_down_is_no_error(pipeline, talk):
    document = hear(talk, pipeline.codec, "en", transcribe=False)
    assert pipeline(document, seed=1).prompt_sentences == ("", "", "")
    with pytest.raises(DataError, match="the sentence is empty"):
        pipeline(replace(document, concepts=None))


def test_concepts_that_do_not_fit(pipeline, talk):
    document = hear(talk, pipeline.codec, "en")
    with pytest.raises(DataError, match=r"talk\.wav: not as many concepts as sentences; expected 3; got 2"):
        pipeline(replace(document, concepts=document.concepts[:2]))
    with pytest.raises(DataError, match=r"expected \(N, 16\); got \(3, 8\)"):
        pipeline(replace(document, concepts=document.concepts[:, :8]))
    with pytest.raises(DataError, match="not finite"):
        pipeline(replace(document, concepts=document.concepts / 0))


def test_rows_that_a_plan_was_put_into_are_read():
    codec = EarCodec()
    document = Document("a", sentences=("One word.", "Four."), concepts=torch.ones(2, 16))
    plain, planned, none = encode_documents(
        codec, [document, document, None], [["Four."], ["Plan.", "Four."], ["Two more words."]], [None] * 3
    )
    assert torch.equal(plain, torch.ones(1, 16)) and planned.shape == (2, 16) and none.shape == (1, 16)
    assert codec.read == ["Plan.", "Four.", "Two more words."]


# --- speaking -------------------------------------------------------------------------------------------------------


def test_speak_cuts_texts_into_sentences():
    pytest.importorskip("espeakng_loader")
    text = "It rained. Tim was sad."
    assert spoken_sentences(text, "en") == ["It rained.", "Tim was sad."]
    audio = speak(text, "en", pause=2.0)
    assert audio.seconds == pytest.approx(speak(["It rained.", "Tim was sad."], "en", pause=0.0).seconds + 2.0)


def test_what_was_spoken_can_be_heard(tmp_path):
    """The whole circle but for the codec: three sentences spoken, written, read, cut: three pieces."""
    for package in ("espeakng_loader", "soundfile", "soxr"):
        pytest.importorskip(package)
    sentences = ["Tim had a very red ball.", "It rolled away from him.", "A dog took it and ran home."]
    write_wav(tmp_path / "a.wav", speak(sentences, "eng_Latn", pause=0.6))
    document = hear(tmp_path / "a.wav", EarCodec(), "en")
    assert len(document.times) == 3
