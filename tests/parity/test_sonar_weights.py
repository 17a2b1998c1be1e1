"""The published weights give the published numbers. Opt-in, and nothing is downloaded:

    SONAR_DIR=/path/to/files pytest -m weights -s tests/parity/test_sonar_weights.py

In the folder: ``sonar_text_encoder.pt``, ``sonar_text_decoder.pt`` and ``sentencepiece.source.256000.model``; and, as
far as they are there, ``blaser-2.0-ref/model.pt``, ``blaser-2.0-qe/model.pt``, ``mutox.pt``, ``spenc.eng.pt``, and from
SONAR's tests ``audio_1.wav``, ``audio_2.wav`` and ``speech_embedding.pt``. The text weights alone take 7 GB of memory.

The numbers are those of the integration tests of github.com/facebookresearch/SONAR; the first channels of two
embeddings are from its README.
"""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytestmark = [pytest.mark.weights, pytest.mark.filterwarnings("ignore:.*not for commercial use:UserWarning")]

NOTICE = (
    "The text weights of SONAR, BLASER 2.0 and most speech encoders are licensed CC-BY-NC-4.0: "
    "not for commercial use. They are read from SONAR_DIR and not copied."
)
ENGLISH = ["Hello, my name is Paul", "I'm working as a teacher"]
FRENCH = ["Bonjour, mon nom est Paul", "Je travaille comme professeur."]


@pytest.fixture(scope="module")
def folder():
    place = os.environ.get("SONAR_DIR")
    if not place:
        pytest.skip("SONAR_DIR names no folder with the published weights")
    print(NOTICE)
    return Path(place)


def needed(folder, *names):
    """The first of some files that is there."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{folder} has no {names[0]}")
    return None


@pytest.fixture(scope="module")
def codec(folder):
    from largeconcept import load_codec

    needed(folder, "sonar_text_encoder.pt")
    needed(folder, "sonar_text_decoder.pt")
    return load_codec("sonar", path=folder, dtype="float32")


def test_first_channels(codec):
    got = codec.encode(["My name is SONAR.", "I can embed the sentences into vectorial space."], "eng_Latn")[:, :5]
    want = [[-0.005286, 0.002008, -0.000562, 0.006344, 0.006329], [-0.000330, -0.007055, 0.007644, 0.001841, 0.003727]]
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-3, atol=2e-6)  # they are given with six decimals


def test_similarities(codec):
    english, french = (F.normalize(codec.encode(*given)) for given in ((ENGLISH, "eng_Latn"), (FRENCH, "fra_Latn")))
    want = torch.tensor([[0.9367, 0.3658], [0.3787, 0.8596]])
    torch.testing.assert_close(english @ french.T, want, rtol=1e-4, atol=1e-4)


def test_translations(codec):
    concepts = codec.encode(ENGLISH, "eng_Latn")
    assert codec.decode(concepts, "fra_Latn", num_beams=5, max_length=200) == FRENCH
    both = codec.decode(concepts[[0, 0]], ["fra_Latn", "eng_Latn"], num_beams=5)
    assert both[0] == FRENCH[0] and "Paul" in both[1]


def test_logits(codec):
    concept = codec.encode(ENGLISH[:1], "eng_Latn")
    with torch.inference_mode():
        got = codec.decoder.logits(codec.decoder(concept, torch.tensor([[3, 333]])))[0]
    for part, want in (
        (got[0, :4], [-1.4572, -2.7325, -1.0546, 0.7818]),
        (got[0, -3:], [0.8982, 0.4996, -0.1487]),
        (got[1, :4], [2.4092, 6.9624, 3.6308, 9.4825]),
        (got[1, -4:], [3.8826, 3.8777, 3.2820, 3.3275]),
    ):
        torch.testing.assert_close(part, torch.tensor(want), rtol=1e-4, atol=1e-4)


def test_tokens(codec):
    assert codec.tokenizer.vocab_size == 256_206
    assert codec.tokenizer.language_id("eng_Latn") == 256_047
    assert codec.tokenizer.language_id("fra_Latn") == 256_057


def test_norms(codec):
    """Real concepts are short; what decodes them must not rescale them."""
    norms = codec.encode([*ENGLISH, *FRENCH], ["eng_Latn"] * 2 + ["fra_Latn"] * 2).norm(dim=1)
    assert float(norms.min()) > 0.1 and float(norms.max()) < 0.5


def test_order_does_not_matter(codec):
    words = ["xwz", "qazwsxedcrfvtg", "rtyuio", "asdfghjklmnbv", "zxcvb", "a longer sentence of some words"]
    together = codec.encode(words, "eng_Latn")
    alone = torch.cat([codec.encode([word], "eng_Latn") for word in words])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_long_text_is_cut_with_a_warning(codec):
    with pytest.warns(UserWarning, match="514"):
        codec.encode(["Hello! " * 1000], "eng_Latn")


@pytest.mark.parametrize(
    ("kind", "signs", "want"),
    [
        ("ref", (1, 1, 1), 5.255207538604736),
        ("ref", (1, 1, -1), 2.309619665145874),
        ("ref", (1, -1, 1), -2.178907632827759),
        ("qe", (1, 1), 4.981893062591553),
        ("qe", (1, -1), -0.8291061520576477),
    ],
)
def test_blaser(folder, kind, signs, want):
    from largeconcept.eval.blaser import Blaser

    judge = Blaser.from_pretrained(needed(folder, f"blaser-2.0-{kind}/model.pt", f"blaser-2.0-{kind}.pt"))
    assert judge.kind == kind
    concepts = [torch.full((1, 1024), sign / 32) for sign in signs]
    torch.testing.assert_close(judge.score(*concepts), torch.tensor([want]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "lang", "want"),
    [
        ("De peur que le pays ne se prostitue et ne se remplisse de crimes.", "fra_Latn", -19.7812),
        ("She worked hard and made a significant contribution to the team.", "eng_Latn", -53.5938),
    ],
)
def test_mutox(folder, codec, text, lang, want):
    from largeconcept.eval.mutox import MuTox

    judge = MuTox.from_pretrained(needed(folder, "mutox.pt"))
    assert float(judge.score_texts(codec, [text], lang)) == pytest.approx(want, abs=0.1)


@pytest.fixture(scope="module")
def spoken(folder, codec):
    from largeconcept.codec.speech.audio import read_audio

    needed(folder, "spenc.eng.pt")
    audio = [read_audio(needed(folder, name)).samples for name in ("audio_1.wav", "audio_2.wav")]
    return codec.encode_speech([torch.as_tensor(samples) for samples in audio], "eng_Latn")


def test_speech_products(spoken):
    want = torch.tensor([[0.0429819, 0.00286825]])
    torch.testing.assert_close(spoken[:1] @ spoken.T, want, rtol=1e-4, atol=1e-5)


def test_speech_embedding(spoken, folder):
    from largeconcept.io import read_torch

    want = read_torch(needed(folder, "speech_embedding.pt"))
    torch.testing.assert_close(spoken, want.float(), rtol=1e-3, atol=1e-5)


def test_speech_to_text(spoken, codec):
    assert codec.decode(spoken, "eng_Latn", num_beams=5) == [
        "Television reports show white smoke coming from the plant.",
        "These couples may choose to make an adoption plan for their baby.",
    ]
    assert codec.decode(spoken, "fra_Latn", num_beams=5) == [
        "Les rapports de la télévision montrent une fumée blanche provenant de l'usine.",
        "Ces couples peuvent décider de faire un plan d'adoption pour leur bébé.",
    ]
