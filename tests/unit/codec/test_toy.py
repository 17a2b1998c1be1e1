from __future__ import annotations

import pytest
import torch

from largeconcept.codec import load_codec
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import DataError, LanguageError
from largeconcept.types import ConceptCodec


def test_toy_codec_recalls_what_it_saw(tmp_path) -> None:
    codec = ToyCodec(24)
    assert isinstance(codec, ConceptCodec)
    with pytest.raises(DataError, match="no sentence"):
        codec.decode(torch.zeros(1, 24), "eng_Latn")
    concepts = codec.encode(["It rains.", "A dog ran home."])
    assert torch.allclose(concepts.square().mean(1), torch.ones(2), atol=1e-4)
    assert codec.decode(concepts + 0.05, "eng_Latn") == ["It rains.", "A dog ran home."]
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path)
    assert again.fingerprint == codec.fingerprint != ToyCodec(25).fingerprint
    assert again.decode(concepts, "eng_Latn") == ["It rains.", "A dog ran home."]
    with pytest.raises(LanguageError):
        codec.decode(concepts, "jpn_Jpan")
    with pytest.raises(DataError, match="not finite"):
        codec.decode(concepts * torch.nan, "eng_Latn")
