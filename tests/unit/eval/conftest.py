"""Fixtures of the tests of evaluation."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_gpt(tmp_path_factory) -> Path:
    """A tiny GPT-2 with random weights and a tokenizer of bytes, saved in a folder."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [], unk_token=None)
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    torch.manual_seed(0)
    sizes = {"n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)
    )
    folder = tmp_path_factory.mktemp("gpt")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
