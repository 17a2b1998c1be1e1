from __future__ import annotations

import json
import warnings

import pytest
import torch
from conftest_helpers import truncate_file

from largeconcept.codec import load_codec
from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.network import WritingState
from largeconcept.codec.rows import by_length
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError
from largeconcept.types import ConceptCodec

TEXTS = ["The old tower.", "Rain.", "Seven boats wait near the river for rain and winter."]


def test_it_is_a_codec_and_order_and_batches_do_not_matter(codec: AutoencoderCodec) -> None:
    assert isinstance(codec, ConceptCodec)
    together = codec.encode(TEXTS)
    assert together.shape == (3, 16) and together.dtype == torch.float32
    for budget in (1, 20):
        assert torch.allclose(codec.encode(TEXTS, batch_tokens=budget), together, atol=1e-5)
    assert torch.allclose(codec.encode(TEXTS[::-1]).flip(0), together, atol=1e-5)
    assert torch.equal(codec.encode(TEXTS, "deu_Latn"), together)
    assert codec.encode([]).shape == (0, 16)
    assert codec.decode(codec.encode([]), "en") == []


def test_concepts_may_become_the_leaf_of_a_graph(codec: AutoencoderCodec) -> None:
    assert codec.encode(["A red ball."]).requires_grad_().is_leaf


def test_decoding_methods_and_languages(codec: AutoencoderCodec) -> None:
    concepts = codec.encode(TEXTS)
    for method in ("greedy", "beam"):
        out = codec.decode(concepts, "en", method=method, max_length=8)
        assert len(out) == 3 and all(isinstance(text, str) for text in out)
        assert out == codec.decode(concepts.double(), "eng_Latn", method=method, max_length=8)
    one = codec.decode(concepts, ["en", "de", "fra_Latn"], method="greedy", max_length=8)
    assert one[1] == codec.decode(concepts[1:2], "deu_Latn", method="greedy", max_length=8)[0]
    sampled = codec.decode(concepts, "es", method="sample", seed=3, max_length=8)
    assert sampled == codec.decode(concepts, "es", method="sample", seed=3, max_length=8)


@pytest.mark.parametrize(
    ("bad", "match"),
    [(["fine", ""], r"sentences\[1\].*empty"), ([" \n"], "empty"), ([None], "not a string"), ("text", "list of")],
)
def test_bad_sentences(codec: AutoencoderCodec, bad: object, match: str) -> None:
    with pytest.raises(DataError, match=match):
        codec.encode(bad)  # type: ignore[arg-type]


def test_bad_concepts_and_settings(codec: AutoencoderCodec) -> None:
    with pytest.raises(DataError, match=r"\(N, 16\)"):
        codec.decode(torch.zeros(2, 15), "en")
    broken = torch.zeros(3, 16)
    broken[2, 4] = torch.nan
    with pytest.raises(DataError, match=r"concepts, row 2"):
        codec.decode(broken, "en")
    with pytest.raises(LanguageError):
        codec.decode(torch.zeros(1, 16), "xx-nonsense")
    with pytest.raises(LanguageError, match="cannot write"):
        codec.decode(torch.zeros(1, 16), "jpn_Jpan")
    with pytest.raises(LanguageError, match="one language per row"):
        codec.decode(torch.zeros(2, 16), ["en"])
    with pytest.raises(ConfigError, match="method"):
        codec.decode(torch.zeros(1, 16), "en", method="magic")
    with pytest.raises(ConfigError, match="temperature"):
        codec.decode(torch.zeros(1, 16), "en", temperature=0.0)


def test_long_sentences_are_cut_with_a_warning_or_refused(codec: AutoencoderCodec) -> None:
    long = "tower river " * 40
    with pytest.warns(UserWarning, match="were cut; the first is number 1"):
        out = codec.encode(["Rain.", long])
    assert torch.isfinite(out).all()
    with pytest.raises(DataError, match=r"sentences\[0\].*too long"):
        codec.encode([long], on_long="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encode(["Rain."])


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_save_load_save_keeps_the_fingerprint(codec: AutoencoderCodec, tmp_path, storage: str) -> None:
    mark = codec.save_pretrained(tmp_path / "a", storage)
    loaded = AutoencoderCodec.from_pretrained(tmp_path / "a")
    assert loaded.fingerprint == mark and loaded.metadata == {"note": "random"}
    assert loaded.save_pretrained(tmp_path / "b") == mark
    again = load_codec(tmp_path / "b")
    assert again.fingerprint == mark
    assert torch.equal(again.encode(TEXTS), loaded.encode(TEXTS))
    if storage == "float32":
        assert codec.fingerprint == mark
        assert torch.equal(codec.encode(TEXTS), loaded.encode(TEXTS))
    else:
        assert codec.fingerprint != mark, "rounded weights are another concept space"
        cosine = torch.cosine_similarity(codec.encode(TEXTS), loaded.encode(TEXTS))
        assert cosine.min() > 0.98
        size = (tmp_path / "a" / "model.safetensors").stat().st_size
        assert size < 0.5 * sum(p.numel() * 4 for p in codec.network.parameters())


def test_damaged_folders_say_what_is_wrong(codec: AutoencoderCodec, tmp_path) -> None:
    folder = tmp_path / "c"
    codec.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())

    def rewrite(**changes: object) -> None:
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    rewrite(fingerprint="0" * 16)
    with pytest.raises(CheckpointError, match="fingerprint"):
        load_codec(folder)
    rewrite(format_version=99)
    with pytest.raises(CheckpointError, match="newer version"):
        load_codec(folder)
    rewrite(type="other")
    with pytest.raises(CheckpointError, match="not a saved codec"):
        load_codec(folder)
    rewrite(network={**config["network"], "dim": 20})
    with pytest.raises(CheckpointError, match="another shape"):
        load_codec(folder)
    rewrite(network={**config["network"], "width_": 20})
    with pytest.raises(ConfigError, match=r"did you mean (network\.)?width"):
        load_codec(folder)
    rewrite()
    truncate_file(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*truncated"):
        load_codec(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="not found"):
        load_codec(folder)


def test_names(tmp_path) -> None:
    assert load_codec("toy").dim == 32
    with pytest.raises(ConfigError, match="did you mean starter"):
        load_codec("startr")
    with pytest.raises(CheckpointError, match="no such folder"):
        load_codec(tmp_path / "missing")


def test_batches_respect_the_budget() -> None:
    lengths = [5, 1, 9, 3, 3, 20, 2]
    groups = by_length(lengths, 12)
    assert sorted(i for group in groups for i in group) == list(range(7))
    assert all(max(lengths[i] for i in g) * len(g) <= 12 or len(g) == 1 for g in groups)


@pytest.mark.parametrize("options", [{"method": "greedy"}, {"num_beams": 3}, {"method": "sample", "seed": 1}])
def test_a_sentence_can_be_avoided(codec: AutoencoderCodec, options: dict[str, object]) -> None:
    """Where its first token would come first another one does; it may stand at any other place."""
    concepts = torch.randn(40, codec.dim, generator=torch.Generator().manual_seed(5))
    heads, seen, scores = [], [], WritingState.scores
    for avoid in (None, "Rain."):
        rows: list[torch.Tensor] = []

        def noted(state: WritingState, rows: list[torch.Tensor] = rows) -> torch.Tensor:
            found = scores(state)
            rows.append(found)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WritingState, "scores", noted)
            codec.decode(concepts, "eng_Latn", max_length=4, avoid=avoid, **options)  # type: ignore[arg-type]
        first = codec.tokenizer.encode(["Rain."])[0][0]
        heads.append(rows[0][:, first])
        seen.append(torch.cat(rows[1:])[:, first])
    with pytest.raises(DataError):
        codec.decode(concepts, "eng_Latn", avoid="", **options)  # type: ignore[arg-type]
    assert not torch.isinf(heads[0]).any() and torch.isinf(heads[1]).all()
    assert not torch.isinf(seen[1]).any()
