"""Texts to embeddings and embeddings to texts, as the original's own pipelines gave them: all parts at once."""

import pytest
import sonar_original
import torch

from largeconcept import load_codec
from largeconcept.codec.sonar.tokenizer import truncate_ids

pytestmark = pytest.mark.filterwarnings("ignore:.*not for commercial use:UserWarning")
IO = sonar_original.tensors("pipelines")
DATA = sonar_original.records("pipelines")
PROMPT_AND_END = 3


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Loaded from files as Meta publishes them."""
    folder = tmp_path_factory.mktemp("sonar")
    for half in ("encoder", "decoder"):
        torch.save(sonar_original.half_file(half, "pipelines"), folder / f"sonar_text_{half}.pt")
    (folder / "sentencepiece.source.256000.model").write_bytes(sonar_original.tokenizer_model())
    return load_codec("sonar", path=folder, num_heads=sonar_original.HEADS)


@pytest.mark.parametrize("lang", ["eng_Latn", "zho_Hant"])
def test_embeddings(codec, lang):
    """Any text, in batches by length; the last one is longer than the encoder and has a test of its own."""
    got = codec.encode(DATA["texts"][:-1], lang, batch_tokens=100)
    torch.testing.assert_close(got, IO[f"embeddings/{lang}"][:-1], rtol=0, atol=5e-6)


def test_a_long_text_as_the_original_cuts_it(codec):
    """The original keeps 514 ids and loses the end mark; ours keeps the mark, so its concept is another one."""
    text = DATA["texts"][-1]
    ids = codec.tokenizer.encode([text], "eng_Latn")[0]
    assert len(ids) > 514
    cut = truncate_ids(ids, keep_end=False)
    with torch.inference_mode():
        original = codec.encoder(torch.tensor([cut]), None)
    torch.testing.assert_close(original, IO["embeddings/eng_Latn"][-1:], rtol=0, atol=5e-6)
    with pytest.warns(UserWarning, match="514"):
        ours = codec.encode([text], "eng_Latn")
    assert 1e-4 < float((ours - original).abs().max()) < 0.1


def test_texts(codec):
    assert len({one["text"] for one in DATA["written"]}) > 15
    embeddings = IO["embeddings/eng_Latn"]
    for beams, max_total in sorted({(one["beams"], one["max_total"]) for one in DATA["written"]}):
        cases = [one for one in DATA["written"] if (one["beams"], one["max_total"]) == (beams, max_total)]
        got = codec.decode(
            embeddings[[one["row"] for one in cases]],
            [one["language"] for one in cases],
            num_beams=beams,
            max_length=max_total - PROMPT_AND_END,
        )
        assert got == [one["text"] for one in cases]


def test_greedy_is_a_beam_of_one(codec):
    cases = [one for one in DATA["written"] if one["beams"] == 1]
    embeddings = IO["embeddings/eng_Latn"][[one["row"] for one in cases]]
    languages = [one["language"] for one in cases]
    got = codec.decode(embeddings, languages, method="greedy", max_length=12 - PROMPT_AND_END)
    assert got == [one["text"] for one in cases]
