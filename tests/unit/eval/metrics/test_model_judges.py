"""Judges of transformers: their arithmetic on tiny random models, and what happens without them."""

import copy
import json
import shutil
import sys
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from largeconcept.errors import CheckpointError, ConfigError, DataError, DependencyError
from largeconcept.eval.metrics.models import BERT_SCORE_LAYERS, BertScore, ColaJudge, Seahorse, match

LETTERS = "abcdefghijklmnopqrstuvwxyz.:01"
TRUE = torch.ones(2, dtype=torch.bool)


def test_a_match_by_hand():
    left = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    right = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    # Cosines: 1 and .71 of the first, 0 and .71 of the second.
    half = 0.5**0.5
    precision, recall = (1 + half) / 2, (1 + half) / 2
    assert match(left, TRUE, right, TRUE) == pytest.approx((precision, recall, precision))
    own = torch.tensor([False, True])
    found = match(left, TRUE, right, own)  # the first of the right may be matched, but needs none
    assert found == pytest.approx((precision, half, 2 * precision * half / (precision + half)))


def test_matches_are_symmetric_and_1_for_the_same():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(5, 4, generator=generator), torch.randn(3, 4, generator=generator)
    all_of = {n: torch.ones(n, dtype=torch.bool) for n in (3, 5)}
    there, back = match(left, all_of[5], right, all_of[3]), match(right, all_of[3], left, all_of[5])
    assert there == pytest.approx((back.recall, back.precision, back.f1))
    assert match(left, all_of[5], left, all_of[5]) == pytest.approx((1, 1, 1))
    assert match(left[:0], all_of[5][:0], right, all_of[3]) == (0, 0, 0)


@pytest.mark.parametrize(
    "load",
    [ColaJudge.from_pretrained, Seahorse.from_pretrained, BertScore.from_pretrained],
    ids=["cola", "seahorse", "bert_score"],
)
def test_a_missing_package_is_no_zero(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match=r"pip install 'largeconcept\[transformers\]'"):
        load()


def test_settings_that_have_to_be_known():
    with pytest.raises(ConfigError, match="which layer"):
        BertScore.from_pretrained("some/other")
    with pytest.raises(ConfigError, match="no such question"):
        Seahorse.from_pretrained(7)
    assert BERT_SCORE_LAYERS["roberta-large"] == 17


class Model:
    """Answers with fixed scores."""

    def __init__(self, scores=None, **config):
        self.config = SimpleNamespace(decoder_start_token_id=0, **config)
        self.scores = scores
        self.inputs = []

    def eval(self):
        return self

    def parameters(self):
        return iter([torch.zeros(1)])

    def __call__(self, input_ids, attention_mask, decoder_input_ids):
        assert decoder_input_ids.tolist() == [[0]] * len(input_ids)
        self.inputs += [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        return SimpleNamespace(logits=self.scores.expand(len(input_ids), 1, -1))


class Words:
    """One token a word; ids in order of appearance, from 2."""

    eos_token_id, pad_token_id = 1, 0

    def __init__(self):
        self.known = []

    def __call__(self, text, add_special_tokens=True):
        assert not add_special_tokens
        words = text.split()
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        return {"input_ids": [self.known.index(word) + 2 for word in words]}

    def decode(self, ids):
        return " ".join(self.known[i - 2] for i in ids)


def test_seahorse_by_hand():
    scores = torch.tensor([0.0, 0.0, 3.0, 1.0])  # the tokenizer's first word is "1", with id 2
    model, tokenizer = Model(scores), Words()
    judge = Seahorse(model, tokenizer, max_tokens=8)
    expected = float(scores.softmax(-1)[2])
    assert judge.score(["a b", ["c", "d e f g h"]], ["x", "y z"]) == pytest.approx([expected] * 2)
    read = [tokenizer.decode(ids[:-1]) for ids in model.inputs]
    assert sorted(read) == ["premise: a b hypothesis: x", "premise: c d e hypothesis: y z"]  # the summary stays whole
    assert all(ids[-1] == 1 and len(ids) <= 8 for ids in model.inputs)
    assert judge.score([], []) == []
    with pytest.raises(DataError, match="another number"):
        judge.score(["a"], [])


def test_the_answer_has_to_be_a_token():
    class Split(Words):
        def __call__(self, text, add_special_tokens=True):
            return super().__call__(" ".join(["_", *text]), add_special_tokens)

    with pytest.raises(CheckpointError, match="not one token"):
        Seahorse(Model(), Split())


# ------------------------------------------------------------------ tiny models


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer(transformers):
    tokenizers = pytest.importorskip("tokenizers")
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({piece: i for i, piece in enumerate([*special, *LETTERS])}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.WhitespaceSplit(),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), behavior="isolated"),
        ]
    )
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def bert(transformers, tokenizer, tmp_path_factory):
    """A folder with a tiny BERT and its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=2, initializer_range=1.0, **sizes
    )
    folder = tmp_path_factory.mktemp("bert")
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def roberta(transformers, tokenizer, tmp_path_factory):
    """A folder with a classifier of the architecture of the published weights, tiny."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=2, pad_token_id=0, initializer_range=1.0,
        **sizes,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("roberta")
    transformers.RobertaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.peer
@torch.no_grad()
def test_cola_is_the_probability_of_its_class(roberta):
    judge = ColaJudge.from_pretrained(roberta, acceptable=1)
    judge.batch_size = 2

    def probability(text):
        return float(judge.model(**judge.tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0, 1])

    texts = ["abc def.", "a", "hello there everyone."]
    assert judge.score_sentences(texts) == pytest.approx([probability(text) for text in texts], rel=1e-4)
    assert judge.score([texts, "", ["a", " "]]) == [
        pytest.approx(sum(map(probability, texts)) / 3, rel=1e-4),
        None,
        pytest.approx(probability("a"), rel=1e-4),
    ]
    judge.max_tokens = 8  # six letters and two marks
    assert judge.score_sentences(["abcdefghij"])[0] == pytest.approx(
        (probability("abcdef") + probability("ghij")) / 2, rel=1e-4
    )
    with pytest.raises(ConfigError, match="not a class"):
        ColaJudge(judge.model, judge.tokenizer, acceptable=2)


@pytest.mark.peer
def test_which_class_is_acceptable_is_asked_of_the_weights(roberta, tmp_path):
    with pytest.raises(ConfigError, match="which class is acceptable"):
        ColaJudge.from_pretrained(roberta)
    shutil.copytree(roberta, tmp_path / "named")
    file = tmp_path / "named" / "config.json"
    config = json.loads(file.read_text())
    names = {"0": "unacceptable", "1": "Acceptable"}
    file.write_text(json.dumps({**config, "id2label": names, "label2id": {v: int(k) for k, v in names.items()}}))
    assert ColaJudge.from_pretrained(str(tmp_path / "named")).acceptable == 1
    assert ColaJudge.from_pretrained(str(tmp_path / "named"), acceptable=1).acceptable == 1
    with pytest.raises(ConfigError, match="another class is named acceptable"):
        ColaJudge.from_pretrained(str(tmp_path / "named"), acceptable=0)


@pytest.mark.peer
def test_the_published_weights_are_read_as_they_were_meant(monkeypatch):
    """Their configuration says LABEL_0 and LABEL_1; class 0 is the acceptable one."""
    config = SimpleNamespace(num_labels=2, id2label={0: "LABEL_0", 1: "LABEL_1"})
    model = SimpleNamespace(config=config, eval=lambda: None)
    monkeypatch.setattr("largeconcept.eval.metrics.models._load", lambda *words: (model, None))
    assert ColaJudge.from_pretrained().acceptable == 0


@pytest.mark.peer
@torch.no_grad()
def test_bert_score_is_that_of_the_package(bert):
    theirs = pytest.importorskip("bert_score.utils")
    judge = BertScore.from_pretrained(bert, layer=2)
    judge.tokenizer.cls_token, judge.tokenizer.sep_token = "<s>", "</s>"
    model = copy.deepcopy(judge.model)
    model.encoder.layer = model.encoder.layer[:2]
    left, right = ["abcd", "hello there", "a"], ["bxaqy", "hello", "zzz a"]
    weights = defaultdict(lambda: 1.0, {1: 0.0, 2: 0.0})  # the package's, for the marks
    found = theirs.bert_cos_score_idf(model, right, left, judge.tokenizer, weights, device="cpu")
    for mine, other in zip(judge.score(left, right), found.tolist(), strict=True):
        assert mine == pytest.approx(tuple(other), rel=1e-4)


@pytest.mark.peer
@torch.no_grad()
def test_bert_score_is_the_greedy_match_of_a_layer(bert):
    judge = BertScore.from_pretrained(bert, layer=2)
    judge.batch_size = 2

    def states(text):
        return judge.model(**judge.tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[2][0]

    left, right = "abcd", "bxaqy"
    cosine = torch.nn.functional.cosine_similarity(states(left)[:, None], states(right)[None], dim=-1)
    precision, recall = (
        float(cosine.amax(1)[1:-1].mean()),
        float(cosine.amax(0)[1:-1].mean()),
    )
    found, same, empty = judge.score([left, "hello", ""], [right, ["hello"], "a"])
    assert found[:2] == pytest.approx((precision, recall), rel=1e-4)
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-4)
    assert same == pytest.approx((1, 1, 1)) and empty == (0, 0, 0)
    with pytest.raises(ConfigError, match="no such layer"):
        BertScore(judge.model, judge.tokenizer, layer=4)


@pytest.mark.peer
@torch.no_grad()
def test_seahorse_reads_an_mt5(transformers, tokenizer, tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "initializer_factor": 5.0}
    config = transformers.MT5Config(
        vocab_size=len(tokenizer), decoder_start_token_id=0, pad_token_id=0, eos_token_id=2, **sizes
    )
    transformers.MT5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = Seahorse.from_pretrained(name=str(tmp_path))
    assert judge.one == tokenizer.convert_tokens_to_ids("1")
    found = judge.score(["abc", "hello there"], ["ab", "hey"])
    for value, source, summary in zip(found, ["abc", "hello there"], ["ab", "hey"], strict=True):
        ids = tokenizer(f"premise: {source} hypothesis: {summary}", add_special_tokens=False)["input_ids"] + [2]
        scores = judge.model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
        assert value == pytest.approx(float(scores.softmax(-1)[judge.one]), rel=1e-3)
    assert found[0] != pytest.approx(found[1], rel=1e-3)


@pytest.mark.peer
def test_folders_without_a_judge_are_refused(transformers, tmp_path):
    for load in (ColaJudge.from_pretrained, BertScore.from_pretrained):
        with pytest.raises(CheckpointError, match="cannot load the judge"):
            load(str(tmp_path), **({"acceptable": 0} if load == ColaJudge.from_pretrained else {"layer": 1}))
