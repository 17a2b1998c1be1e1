"""The token model: what looks at what, caches, tables, files, one stored number."""

import pytest
import torch
from variants import small_model

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import generate_concepts, predict_teacher_forced
from largeconcept.models import TokenLM, TokenLMConfig, load_model, save_model
from largeconcept.models.token_lm import document_tokens

GOLDEN = [56.196308, 397.50217, -1.3631466]


@pytest.fixture
def model():
    return small_model("token_lm")


def text(batch=2, size=9, seed=0):
    return torch.randint(4, 100, (batch, size), generator=torch.Generator().manual_seed(seed))


def test_a_document_is_written_with_its_marks():
    assert document_tokens([[7, 8], [9]]) == [1, 7, 8, 2, 9, 2]
    assert document_tokens([[7, 8], [9]], ended=True) == [1, 7, 8, 2, 9, 2, 1]
    assert document_tokens([]) == [1]


def test_a_token_changes_no_earlier_state(model):
    with torch.no_grad():
        before = model(text())
        for place in range(9):
            other = text()
            other[:, place] = 3
            moved = (model(other) - before).abs().amax(dim=(0, 2)) > 1e-6
            assert moved.nonzero().flatten().tolist() == list(range(place, 9))


def test_cached_equals_uncached(model):
    tokens, lengths = text(3, 12), [7, 1, 4]
    with torch.no_grad():
        expected = model(tokens)
        cache, parts = model.prefill(tokens[:, :7], lengths), model.prefill(tokens[:2, :7], lengths[:2])
        parts.join(model.prefill(tokens[2:, :4], lengths[2:]))
        rows = [0, 1, 2]
        for i in range(5):
            at = [lengths[row] + i for row in rows]
            assert cache.lengths == parts.lengths == at
            torch.testing.assert_close(cache.state, expected[rows, [n - 1 for n in at]], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(parts.state, cache.state, rtol=1e-4, atol=1e-5)
            if i == 2:
                for one in (cache, parts):
                    one.select([2, 0])
                rows, at = [2, 0], [at[2], at[0]]
            for one in (cache, parts):
                model.extend(one, tokens[rows, at])


def test_beginnings_of_a_text_that_was_read_once(model):
    tokens = text(2, 9)
    rows, lengths = [0, 0, 1, 0], [3, 9, 5, 1]
    with torch.no_grad():
        expected = model(tokens)
        cache, states = model.read(tokens)
        part = model.beginnings(cache, states, rows, lengths)
        torch.testing.assert_close(part.state, expected[rows, [n - 1 for n in lengths]])
        new = torch.tensor([50, 60, 70, 80])
        model.extend(part, new)
        for place, (row, length) in enumerate(zip(rows, lengths)):
            alone = model(torch.cat((tokens[row, :length], new[place : place + 1])).unsqueeze(0))
            torch.testing.assert_close(part.state[place], alone[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_tables_and_files(tmp_path, tied):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "model_dim": 16, "num_heads": 2, "num_layers": 1, "tie_embeddings": tied}
    model = TokenLM(TokenLMConfig(**sizes)).eval()
    tables = 50 * 16 * (1 if tied else 2)
    assert sum(p.numel() for p in model.parameters()) == model.num_body_parameters + tables
    assert (model.output_table is model.embedding.weight) == tied
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    tokens = text() % 50
    assert isinstance(again, TokenLM) and again.config == model.config
    assert torch.equal(again.logits(again(tokens)), model.logits(model(tokens)))
    assert model.logits(model(tokens)).shape == (2, 9, 50)


def test_it_is_no_concept_model(model):
    x = torch.zeros(1, 2, 16)
    for call in (
        lambda: generate_concepts(model, [x[0]], ConceptNormalizer.identity(16)),
        lambda: predict_teacher_forced(model, x),
    ):
        with pytest.raises(ConfigError, match=r"cannot generate concepts; got token_lm.*generate\.token_lm"):
            call()


def test_wrong_inputs_are_named(model):
    for call, message in (
        (lambda: model(text()[0]), r"tokens: wrong shape or type; expected \(B, T\) integers"),
        (lambda: model(text().float()), "torch.float32"),
        (lambda: model(text()[:, :0]), "wrong shape"),
        (lambda: model.prefill(text(), [3, 0]), "text 1: an empty text"),
        (lambda: model.prefill(text(), [3]), "lengths do not fit"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(ConfigError, match="unknown key"):
        TokenLMConfig.from_dict({"concept_dim": 16})


def test_golden_values(model):
    with torch.no_grad():
        out = model.logits(model(text(1, 5)))
    assert [float(out.sum()), float(out.abs().sum()), float(out[0, 3, 5])] == pytest.approx(GOLDEN, rel=1e-4)
