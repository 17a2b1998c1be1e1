"""Text to text: determinism, independence of the batch, languages, limits, and clear refusals."""

from __future__ import annotations

import warnings

import pytest
import torch

from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import ConfigError, DataError, LanguageError
from largeconcept.generate.pipeline import ConceptPipeline
from largeconcept.generate.texts import check_text, join_sentences
from largeconcept.hub import PromptRecord
from largeconcept.types import Document, TokenLoss

TEXT = "Tim had a red ball. The ball rolled away."
WRAPPED = (
    "The ball that his mother had found for Tim in the garden of the house\n  was as red as it had ever been before."
)
OTHER = "A dog took the ball. The dog ran home. Tim was sad."


class CountingCodec(ToyCodec):
    """Notes how often it is called and with what."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.encoded, self.decoded = [], []

    def encode(self, sentences, lang=None, **keywords):
        self.encoded.append((list(sentences), lang))
        return super().encode(sentences, lang, **keywords)

    def decode(self, concepts, lang, **keywords):
        self.decoded.append((len(concepts), lang, keywords))
        return super().decode(concepts, lang, **keywords)


@pytest.fixture(scope="module")
def pipe(make_pipeline) -> ConceptPipeline:
    return make_pipeline()


def test_output_is_complete(pipe):
    out = pipe(TEXT, seed=1)
    assert out.prompt_sentences == ("Tim had a red ball.", "The ball rolled away.")
    assert out.concepts.shape == (len(out.sentences), 16)
    assert out.concepts.dtype == torch.float32
    assert out.text == " ".join(out.sentences)
    assert out.lang == "eng_Latn"
    assert out.stop_reason == "length"
    assert len(out.sentences) == 3


@pytest.mark.parametrize("family", ["two_tower", "mse"])
def test_equal_seeds_equal_texts(make_pipeline, family):
    pipe = make_pipeline(family)
    assert torch.equal(pipe(TEXT, seed=5).concepts, pipe(TEXT, seed=5).concepts)


def test_seeds_matter_to_a_diffusion_model(pipe):
    assert not torch.allclose(pipe(TEXT, seed=5).concepts, pipe(TEXT, seed=6).concepts, atol=1e-3)


@pytest.mark.parametrize("family", ["two_tower", "mse"])
def test_a_text_does_not_feel_its_batch(make_pipeline, family):
    pipe = make_pipeline(family)
    alone = pipe(OTHER, seed=2)
    batch = pipe([TEXT, OTHER, "They played again."], seed=2)
    assert len(batch) == 3
    torch.testing.assert_close(batch[1].concepts, alone.concepts, atol=1e-5, rtol=1e-5)
    assert batch[1].sentences == alone.sentences
    assert batch[1].prompt_sentences == alone.prompt_sentences
    assert not torch.allclose(batch[0].concepts, alone.concepts, atol=1e-3)


def test_every_way_to_give_a_text(pipe):
    sentences = ["Tim had a red ball.", "The ball rolled away."]
    expected = pipe(TEXT).concepts
    document = Document("d", sentences=tuple(sentences))
    assert torch.equal(pipe(document).concepts, expected)
    assert torch.equal(pipe(Document("d", text=TEXT)).concepts, expected)
    many = pipe([sentences, document, TEXT])
    assert [out.prompt_sentences for out in many] == [tuple(sentences)] * 3
    for out in many:
        torch.testing.assert_close(out.concepts, expected, atol=1e-5, rtol=1e-5)
    assert pipe([]) == []


def test_one_call_of_the_codec_each_way(make_pipeline):
    codec = CountingCodec(16, ["Tim was sad."])
    pipe = make_pipeline(codec=codec)
    assert pipe.stop_vector is not None
    codec.encoded.clear()
    pipe([TEXT, OTHER], decoding={"method": "greedy"})
    assert [len(sentences) for sentences, _ in codec.encoded] == [5]
    assert [n for n, _, _ in codec.decoded] == [6]
    assert codec.decoded[0][2]["method"] == "greedy"


def test_wrapped_lines_are_encoded_as_one_sentence(make_pipeline):
    codec = CountingCodec(16)
    make_pipeline(codec=codec)(WRAPPED)
    assert ([" ".join(WRAPPED.split())], None) in codec.encoded


@pytest.mark.parametrize(
    ("keywords", "document_lang", "expected"),
    [
        ({}, None, "eng_Latn"),
        ({"input_lang": "de"}, None, "deu_Latn"),
        ({}, "fra_Latn", "fra_Latn"),
        ({"input_lang": "de"}, "fra_Latn", "deu_Latn"),
        ({"lang": "es", "input_lang": "de"}, "fra_Latn", "spa_Latn"),
    ],
)
def test_output_language(make_pipeline, keywords, document_lang, expected):
    codec = CountingCodec(16)
    out = make_pipeline(codec=codec)(Document("d", text=TEXT, lang=document_lang), **keywords)
    assert out.lang == expected
    assert codec.decoded[-1][1] == [expected] * 3


def test_input_language_reaches_the_codec_when_known_for_all(make_pipeline):
    codec = CountingCodec(16)
    pipe = make_pipeline(codec=codec)
    pipe([Document("a", text=TEXT, lang="deu_Latn"), Document("b", text="Tim was sad.", lang="fra_Latn")])
    assert (["Tim had a red ball.", "The ball rolled away.", "Tim was sad."], ["deu_Latn"] * 2 + ["fra_Latn"]) in (
        codec.encoded
    )
    codec.encoded.clear()
    pipe([Document("a", text=TEXT, lang="deu_Latn"), Document("b", text="Tim was sad.")])
    assert [lang for _, lang in codec.encoded] == [None]


def test_languages_that_cannot_be_written(pipe):
    with pytest.raises(LanguageError, match=r"cannot write.*zho_Hans"):
        pipe(TEXT, lang="zho_Hans")
    with pytest.raises(LanguageError):
        pipe(TEXT, lang="xx-nowhere")


@pytest.mark.parametrize("text", ["", "   \n\t ", "\u00a0\u2003"])
def test_empty_text(pipe, text):
    with pytest.raises(DataError, match="the text is empty"):
        pipe(text)
    with pytest.raises(DataError, match="text 1: the text is empty"):
        pipe([TEXT, text])
    with pytest.raises(DataError, match="the text is empty"):
        pipe.encode_text(text)
    with pytest.raises(DataError, match="the text is empty"):
        pipe.translate(text, "de")


@pytest.mark.parametrize("bad", [None, 3, b"bytes", [3], [["a", 3]], [[]], [b"bytes"], [["Fine.", "  "]]])
def test_what_is_no_text(pipe, bad):
    with pytest.raises(DataError):
        pipe(bad)


@pytest.mark.parametrize(("text", "place"), [("ab\0c", 2), ("é\ud800", 1), ("\udfff", 0)])
def test_characters_that_no_text_has(pipe, text, place):
    with pytest.raises(DataError, match=f"at position {place}"):
        pipe(text)
    with pytest.raises(DataError, match=f"at position {place}"):
        pipe([[text]])


def test_ordinary_characters_pass():
    check_text("plain\ttext\r\n \U0001f600 \u200d é \ufffd", "text")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"guidance_scal": 3}, "guidance_scale"),
        ({"max_concepts": 0}, "max_concepts"),
        ({"eta": "high"}, "eta"),
        ({"decoding": {"beams": 3}}, "num_beams"),
        ({"decoding": {"num_beams": 0}}, "num_beams"),
    ],
)
def test_options_are_checked(pipe, keywords, message):
    with pytest.raises(ConfigError, match=message):
        pipe(TEXT, **keywords)


def test_options_change_the_result(pipe):
    assert not torch.equal(pipe(TEXT).concepts, pipe(TEXT, num_inference_steps=2).concepts)
    assert len(pipe(TEXT, max_concepts=5).sentences) == 5


def test_stop_concept_ends_a_text(make_pipeline):
    pipe = make_pipeline()
    first = pipe(TEXT, max_concepts=4, seed=3)
    pipe._stop = first.concepts[2]
    out = pipe(TEXT, max_concepts=4, seed=3, stop_threshold=0.999)
    assert out.stop_reason == "stop_concept"
    assert len(out.sentences) == 2
    assert torch.equal(out.concepts, first.concepts[:2])


def test_stopping_at_once_gives_an_empty_text(make_pipeline):
    pipe = make_pipeline()
    pipe._stop = pipe(TEXT, seed=3).concepts[0]
    outs = pipe([TEXT, TEXT], seed=3, stop_threshold=0.99)
    assert [(out.text, out.sentences, tuple(out.concepts.shape)) for out in outs] == [("", (), (0, 16))] * 2


def test_no_stop_text(make_pipeline):
    pipe = make_pipeline(stop_text=None)
    assert pipe.stop_vector is None
    assert pipe(TEXT).stop_reason == "length"


def test_the_sentence_that_ends_texts_is_not_written(make_pipeline):
    pipe = make_pipeline()
    whole = pipe(TEXT, seed=3)
    assert len(whole.sentences) == 3
    pipe.stop_text, pipe._stop = whole.sentences[1], torch.full((16,), 1e-3)  # written, though the concept is another
    out = pipe(TEXT, seed=3, stop_threshold=0.9999)
    assert out.sentences == whole.sentences[:1] and len(out.concepts) == 1
    assert out.stop_reason == "stop_concept"


class SayingCodec(CountingCodec):
    """Gives the stop sentence a probability that depends on the concept's place among all that are asked for."""

    languages = ("eng_Latn", "deu_Latn")

    def __init__(self, *probabilities):
        super().__init__(16)
        self.probabilities, self.asked = probabilities, []

    def token_loss(self, concepts, sentences, lang):
        self.asked.append((sentences, lang))
        nats = -torch.tensor(self.probabilities).log()
        assert len(nats) == len(concepts)
        return TokenLoss(nats, torch.ones(len(nats)), torch.ones(len(nats)))

    def decoder_parameters(self):
        return []


def test_a_text_ends_where_the_decoder_would_most_likely_write_its_end(make_pipeline):
    codec = SayingCodec(0.3, 0.6, 0.9, 0.6, 0.1, 0.1, 0.2, 0.49, 0.4)
    outs = make_pipeline(codec=codec)([TEXT, OTHER, TEXT], seed=3, lang="de")
    assert [len(out.sentences) for out in outs] == [len(out.concepts) for out in outs] == [1, 0, 3]
    assert [out.stop_reason for out in outs] == ["stop_concept", "stop_concept", "length"]
    assert codec.asked == [(["End of text."] * 9, "eng_Latn")]  # in its own language, all in one call
    assert codec.decoded[0][0] == 4  # what comes after an end is not written at all
    later = make_pipeline(codec=SayingCodec(0.6, 0.6, 0.6))(TEXT, seed=3, min_concepts=2)
    assert len(later.sentences) == 1
    for other in ({"stop_text": None}, {"codec": SayingCodec(1.0)}):
        if "codec" in other:
            other["codec"].languages = ("deu_Latn",)
        assert make_pipeline(**{"codec": SayingCodec(1.0), **other})(TEXT, lang="de").stop_reason == "length"


def test_what_ends_texts_is_not_written_where_the_text_goes_on(make_pipeline):
    class Avoids(CountingCodec):
        def decode(self, concepts, lang, *, avoid="nothing was said", **keywords):
            self.avoided = avoid
            return super().decode(concepts, lang, **keywords)

    for stop_text, expected in (("The end.", "The end."), (None, "nothing was said")):
        codec = Avoids(16)
        make_pipeline(codec=codec, stop_text=stop_text)(TEXT, seed=3)
        assert codec.avoided == expected


def test_stop_vector_is_the_concept_of_the_stop_text(pipe):
    assert torch.equal(pipe.stop_vector, pipe.codec.encode(["End of text."])[0])


@pytest.mark.parametrize(
    ("keywords", "kept"),
    [({"max_length": 6}, 3), ({"model": {"positions": "learned", "max_positions": 5}}, 3), ({"max_length": 2}, 1)],
)
def test_long_prompts_keep_their_end_and_say_so(make_pipeline, keywords, kept):
    codec = CountingCodec(16)
    pipe = make_pipeline("mse", codec=codec, **keywords)
    sentences = [f"Sentence number {i}." for i in range(9)]
    assert pipe.stop_vector is not None
    codec.encoded.clear()
    with pytest.warns(UserWarning, match=f"9 sentences.*last {kept} "):
        out = pipe([sentences])[0]
    assert out.prompt_sentences == tuple(sentences[-kept:])
    assert [given for given, _ in codec.encoded] == [sentences[-kept:]]
    assert torch.allclose(out.concepts, pipe([sentences[-kept:]])[0].concepts, atol=1e-5)
    with pytest.warns(UserWarning, match="last"):
        pipe.continue_concepts(codec.encode(sentences))


def test_short_prompts_do_not_warn(make_pipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_pipeline(max_length=6)(TEXT)


def test_no_room_for_a_prompt(make_pipeline):
    pipe = make_pipeline("mse", model={"positions": "learned", "max_positions": 5})
    with pytest.raises(ConfigError, match=r"max_concepts.*at most 5.*5 positions"):
        pipe(TEXT, max_concepts=6)
    assert len(pipe("Tim was sad.", max_concepts=5).sentences) == 5


def test_continue_concepts_equals_the_call(pipe):
    sentences, concepts = pipe.encode_text(TEXT)
    assert sentences == ["Tim had a red ball.", "The ball rolled away."]
    new = pipe.continue_concepts(concepts, seed=4)
    assert torch.equal(new.concepts, pipe(TEXT, seed=4).concepts)
    assert pipe.decode(new.concepts, "eng_Latn") == list(pipe(TEXT, seed=4).sentences)


@pytest.mark.parametrize(
    "concepts", [torch.zeros(16), torch.zeros(2, 8), torch.zeros(0, 16), torch.full((2, 16), float("nan"))]
)
def test_concepts_that_cannot_be_continued(pipe, concepts):
    with pytest.raises(DataError, match="concepts"):
        pipe.continue_concepts(concepts)


def test_decode_checks_and_accepts_one_language_a_row(pipe):
    concepts = pipe.codec.encode(["Tim was sad.", "The dog ran home."])
    assert pipe.decode(concepts, ["en", "de"]) == ["Tim was sad.", "The dog ran home."]
    assert pipe.decode(torch.zeros(0, 16)) == []
    with pytest.raises(DataError, match="row 1"):
        pipe.decode(torch.stack([concepts[0], torch.full((16,), float("inf"))]))
    with pytest.raises(DataError, match="another codec"):
        pipe.decode(torch.zeros(2, 5))


def test_translate_keeps_paragraphs(pipe):
    text = "\nTim had a red ball. The ball rolled away.\n\n\nTim was sad.\n"
    assert pipe.translate(text, "de") == "Tim had a red ball. The ball rolled away.\n\n\nTim was sad."
    assert pipe.translate([text, "Tim was sad."], "de")[1] == "Tim was sad."
    assert pipe.translate([], "de") == []
    document = Document("d", sentences=("Tim was sad.", "The dog ran home."), paragraph_starts=(0, 1))
    assert pipe.translate(document, "de") == "Tim was sad.\n\nThe dog ran home."


def test_chinese_and_japanese_have_no_space_between_sentences():
    assert join_sentences(["一。", "二。"], "zho_Hans") == "一。二。"
    assert join_sentences(["One.", "Two."], "eng_Latn") == "One. Two."


@pytest.mark.parametrize("task", ["summarize", "expand"])
def test_tasks_need_a_tuned_model(pipe, task):
    with pytest.raises(ConfigError, match=f"not tuned to {task}"):
        getattr(pipe, task)(TEXT)


def test_summaries_use_the_declared_prompt(make_pipeline, tmp_path):
    codec = CountingCodec(16)
    pipe = make_pipeline(codec=codec, prompts={"summarize": PromptRecord(prefix=("Read:",), suffix=("[MODEL]:",))})
    out = pipe.summarize(OTHER, ratio=0.4, seed=1)
    assert (["A dog took the ball.", "The dog ran home.", "Tim was sad."], None) in codec.encoded
    for given in (["Read:"], ["[MODEL]:"]):
        assert (given, "eng_Latn") in codec.encoded
    assert out.prompt_sentences == ("A dog took the ball.", "The dog ran home.", "Tim was sad.")
    assert len(out.sentences) == 1
    assert len(pipe.summarize(OTHER, max_concepts=2).sentences) == 2
    many = pipe.summarize([OTHER, "Tim was sad."], ratio=0.7)
    assert [len(one.sentences) for one in many] == [2, 1]
    with pytest.raises(ConfigError, match="ratio"):
        pipe.summarize(OTHER, ratio=0)
    pipe.save_pretrained(tmp_path / "p")
    again = ConceptPipeline.from_pretrained(tmp_path / "p", device="cpu")
    assert again.summarize(OTHER, ratio=0.4, seed=1).text == out.text
    with pytest.raises(ConfigError, match="summarize"):
        again.expand(OTHER)


def test_prompts_stand_in_english_in_texts_of_every_language(make_pipeline, monkeypatch):
    """As datasets encode them: by themselves."""
    codec = CountingCodec(16)
    pipe = make_pipeline(codec=codec, prompts={"expand": PromptRecord(suffix=("Expand it.",))})
    monkeypatch.setattr(type(codec), "languages", ("deu_Latn", "eng_Latn"), raising=False)
    pipe.expand("Tim war traurig.", input_lang="de", lang="eng_Latn", seed=0)
    languages = {tuple(given): lang for given, lang in codec.encoded}
    assert (languages["Tim war traurig.",], languages["Expand it.",]) == (["deu_Latn"], "eng_Latn")


def test_long_documents_of_tasks_keep_their_beginning(make_pipeline):
    codec = CountingCodec(16)
    pipe = make_pipeline("mse", codec=codec, max_length=8, prompts={"summarize": PromptRecord(suffix=("In short:",))})
    sentences = [f"Sentence number {i}." for i in range(9)]
    with pytest.warns(UserWarning, match=r"9 sentences.*first 5 "):
        out = pipe.summarize([sentences], max_concepts=2)[0]
    assert out.prompt_sentences == tuple(sentences[:5])
    assert (sentences[:5], None) in codec.encoded
    heard = Document("heard", sentences=tuple(sentences), concepts=codec.encode(sentences))
    codec.encoded.clear()
    with pytest.warns(UserWarning, match="first 5 "):
        again = pipe.summarize(heard, max_concepts=2)
    assert sentences[:5] not in [given for given, _ in codec.encoded]
    assert torch.equal(again.concepts, out.concepts)


def test_unknown_device(make_pipeline):
    pipe = make_pipeline()
    with pytest.raises(ConfigError, match="device"):
        pipe.to("nonsense")
