"""Models of transformers as predictors: tiny ones, made here, with random weights."""

from types import SimpleNamespace

import pytest

from largeconcept.errors import CheckpointError, DependencyError
from largeconcept.eval.hugging_face import HuggingFacePredictor, open_hugging_face
from largeconcept.eval.predictors import Item
from largeconcept.segment import build_segmenter
from largeconcept.types import Document


def item(lang="eng_Latn", target="eng_Latn", budget=2):
    source = Document("d", sentences=("Tim had a ball.", "It rolled away."), lang=lang)
    return Item("d", lang, target, source, ("He ran.",), budget)


def fake(encoder_decoder=False, template=None):
    model = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=encoder_decoder))
    return HuggingFacePredictor(model, SimpleNamespace(chat_template=template), build_segmenter(None))


def test_what_a_model_can_be_asked():
    plain, told, seq2seq = fake(), fake(template="{{ messages }}"), fake(encoder_decoder=True)
    assert plain.cannot("continue", [item()]) is None
    assert "chat template" in plain.cannot("summarize", [item()])
    assert "language" in plain.cannot("continue", [item(target="fra_Latn")])
    assert all(told.cannot(mode, [item(target="fra_Latn")]) is None for mode in ("continue", "summarize", "expand"))
    assert seq2seq.cannot("summarize", [item()]) is None
    assert "without a prompt" in seq2seq.cannot("continue", [item()])


def test_a_missing_package_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match=r"largeconcept\[transformers\]"):
        open_hugging_face("gpt2")


@pytest.mark.peer
def test_tiny_models_write(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", "Tim", "had", "a", "ball.", "It", "ran."])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    config = transformers.GPT2Config(vocab_size=9, n_positions=24, n_embd=8, n_layer=1, n_head=2, eos_token_id=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt")
    tokenizer.save_pretrained(tmp_path / "gpt")
    small = transformers.T5Config(
        vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0, eos_token_id=1
    )
    transformers.T5ForConditionalGeneration(small).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    for name, mode in (("gpt", "continue"), ("t5", "summarize")):
        predictor = open_hugging_face(str(tmp_path / name), device="cpu")
        assert predictor.name == name
        assert predictor.cannot(mode, [item()]) is None
        one, two = predictor.generate([item(), item(budget=1)], mode, 0)
        assert len(one.sentences) <= 2 and len(two.sentences) <= 1 and one.lang == "eng_Latn"
        assert predictor.generate([item(budget=1)], mode, 0)[0].sentences == two.sentences
        assert predictor.describe()["kind"] == ("causal" if name == "gpt" else "seq2seq")
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match="not a causal"):
        open_hugging_face(str(tmp_path / "none"), device="cpu")
