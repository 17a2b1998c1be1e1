"""Summaries and expansions: of a dataset that keeps them, into other languages, by models that were not tuned to it."""

import json
from dataclasses import replace

import pytest
import torch
from letter_tokenizer import LetterTokenizer

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.data.reader import ConceptDataset
from largeconcept.eval.harness import evaluate
from largeconcept.eval.predictors import Item, TokenModelPredictor
from largeconcept.eval.records import read_raw
from largeconcept.eval.text_baselines import CopyLast, NearestTrain, Shuffled
from largeconcept.eval.zero_shot import QUESTIONS, question
from largeconcept.generate.token_lm import TokenOptions
from largeconcept.hub import PromptRecord
from largeconcept.languages import flores
from largeconcept.models import TokenLM, TokenLMConfig
from largeconcept.types import Document

TASKS = ["summarize", "summarize_into", "expand"]
WORDS = ("red", "ball", "old", "bridge", "small", "dog", "green", "door", "long", "river", "cold", "night")


def sentence(number, lang):
    """A sentence of its own for every number; the number alone says which sentences are translations."""
    return " ".join(WORDS[(number * 5 + 7 * i) % len(WORDS)] + lang[:2] for i in range(4)) + f" {number}."


def rows(documents=6, length=5, languages=("eng_Latn", "deu_Latn")):
    return [
        {
            "id": f"d{n}",
            "lang": lang,
            "sentences": [sentence(10 * n + i, lang) for i in range(length)],
            **({"summary": sentence(10 * n + 9, lang)} if n != 1 else {}),
        }
        for lang in languages
        for n in range(documents)
    ]


class Letters(LetterTokenizer):
    """With the letters of questions in German."""

    vocab_size = 400


class Bilingual(ToyCodec):
    """One concept for a sentence and its translation, told by the number in it."""

    languages = ("eng_Latn", "deu_Latn")

    def __init__(self):
        super().__init__(16, [text for row in rows() for text in [*row["sentences"], row.get("summary", "-")]])

    def _vector(self, text):
        digits = "".join(c for c in text if c.isdigit())
        return super()._vector(sentence(int(digits), "eng_Latn") if digits else text)

    def decode(self, concepts, lang, **more):
        found = super().decode(concepts, "eng_Latn", **more)
        asked = [lang] * len(found) if isinstance(lang, str) else list(lang)
        numbers = ["".join(c for c in text if c.isdigit()) for text in found]
        return [sentence(int(n), code) if n else text for n, code, text in zip(numbers, asked, found, strict=True)]


@pytest.fixture(scope="module")
def codec():
    return Bilingual()


@pytest.fixture(scope="module")
def data(tmp_path_factory, codec):
    folder = tmp_path_factory.mktemp("summaries")
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    for split in ("train", "test"):  # the same texts: a look-up knows them all
        build_concepts(folder / "all.jsonl", folder / "data", codec=codec, split=split)
    return folder / "data"


@pytest.fixture(scope="module")
def pipe(make_pipeline, codec):
    return make_pipeline("mse", codec=codec)


def token_model(prompts=None):
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "model_dim": 16, "num_heads": 2, "num_layers": 1}
    model = TokenLM(TokenLMConfig(**sizes))
    return TokenModelPredictor(model, Letters(), TokenOptions(max_tokens=4), prompts=prompts)


def test_every_predictor_stands_in_every_table(pipe, data, tmp_path):
    given = ["default", token_model()]
    result = evaluate(pipe, TASKS, data=data, predictors=given, limit=6, out=tmp_path, metrics="none")
    assert list(result.tasks) == TASKS and not result.left_out
    everyone = {"model", "copy_last", "lead_3", "mean_vector", "nearest_train", "shuffled", "reference", "token_lm"}
    for name, task in result.tasks.items():
        assert set(task.scores) == everyone and not task.left_out, name
        assert task.n == 6 and task.scores["reference"]["rouge_lsum"].value == pytest.approx(100)
        table = task.extra["tables"]["Asked without having been tuned to it"]
        assert [row[0] for row in table["rows"]] == ["model", "token_lm"]
        raw = read_raw(tmp_path / "raw" / name / "model.jsonl")
        assert len(raw) == 6 and all(line["notes"]["zero_shot"] for line in raw)
        assert not any(
            set(line["source"]) & {text for one in QUESTIONS.values() for text in one.values()} for line in raw
        )
    raw = read_raw(tmp_path / "raw" / "summarize_into" / "reference.jsonl")
    assert {line["lang"] for line in raw} == {"eng_Latn", "deu_Latn"}
    for line in raw:  # the dataset names versions apart; they are found all the same
        number = int(line["id"][1:].partition("#")[0])
        assert line["target_lang"] != line["lang"] and number != 1
        assert line["sentences"] == [sentence(10 * number + 9, line["target_lang"])]
    # Copies and first sentences are written in the language that is asked for.
    for name, place in (("copy_last", slice(-1, None)), ("lead_3", slice(3))):
        for line in read_raw(tmp_path / "raw" / "summarize_into" / f"{name}.jsonl"):
            digits = [int(text.split()[-1][:-1]) for text in line["source"][place]]
            assert line["sentences"] == [sentence(number, line["target_lang"]) for number in digits]


def test_a_look_up_among_pairs_finds_what_was_memorised(pipe, data):
    settings = {name: {"length": 5} for name in TASKS}
    found = evaluate(pipe, TASKS, data=data, predictors="nearest_train,shuffled", settings=settings, metrics="none")
    for task in found.tasks.values():
        assert task.scores["nearest_train"]["rouge_2"].value == pytest.approx(100)
        assert task.scores["shuffled"]["rouge_2"].value < 60
    assert found.tasks["summarize"].n == 10  # one of six documents has no summary, in both languages
    assert found.tasks["summarize"].scores["model"]["rouge_l"].n == 5  # versions count as one document


def test_a_dataset_without_summaries_says_so(pipe, codec, data, tmp_path):
    file = tmp_path / "plain.jsonl"
    file.write_text("".join(json.dumps({**row, "summary": None}) + "\n" for row in rows()))
    build_concepts(file, tmp_path / "data", codec=codec, split="test")
    result = evaluate(pipe, TASKS, data=tmp_path / "data", predictors="none", metrics="none")
    assert not result.tasks and all("summary" in reason for reason in result.left_out.values())
    train = NearestTrain(ConceptDataset(tmp_path / "data", "test"), codec)
    item = Item("d", "eng_Latn", "eng_Latn", Document("d", sentences=("A b.",)), ("A.",), 1)
    assert "no summaries" in train.cannot("summarize", [item]) and train.cannot("continue", [item]) is None
    here = NearestTrain(ConceptDataset(data, "train"), codec)
    assert here.cannot("expand", [item]) is None
    assert "fra_Latn" in here.cannot("expand", [replace(item, target_lang="fra_Latn")])


def item(target="eng_Latn", **more):
    source = Document("d", sentences=("A b.", "C d."), lang="eng_Latn")
    return Item("d", "eng_Latn", target, source, ("E.",), 1, **more)


def test_a_question_stands_after_the_text_unless_a_model_was_tuned(make_pipeline, codec, monkeypatch):
    asked = item(question="In short:")
    seen = []
    for prompts in ({}, {"summarize": PromptRecord(suffix=("Now shorter.",))}):
        pipe = make_pipeline("mse", codec=codec, prompts=prompts)
        from largeconcept.eval.predictors import ConceptModelPredictor

        one = ConceptModelPredictor(pipe)
        assert one.cannot("summarize", [asked]) is None
        assert ("not tuned" in (one.cannot("summarize", [item()]) or "")) == (not prompts)
        monkeypatch.setattr(
            codec,
            "encode",
            lambda texts, *a, _own=ToyCodec.encode, **k: (seen.append(list(texts)), _own(codec, texts))[1],
        )
        (output,) = one.generate([asked], "summarize", 0)
        assert bool(output.notes.get("zero_shot")) == (not prompts)
        monkeypatch.undo()
    read = [[text for text in texts if text in ("In short:", "Now shorter.")] for texts in seen]
    assert [texts for texts in read if texts] == [["In short:"], ["Now shorter."]]


def test_a_token_model_reads_its_own_prompt_or_the_question(monkeypatch):
    import largeconcept.generate.token_lm as module

    plain, tuned = token_model(), token_model({"summarize": "Sum up."})
    asked, foreign = item(question="In short:"), item("deu_Latn", question="Kurz gesagt:")
    assert plain.cannot("summarize", [asked, foreign]) is tuned.cannot("summarize", [asked, foreign]) is None
    assert "not tuned" in plain.cannot("summarize", [item()]) and tuned.cannot("summarize", [item()]) is None
    assert "language" in tuned.cannot("summarize", [item("deu_Latn")])
    assert "language" in plain.cannot("continue", [foreign]) and "plan" in plain.cannot("plan", [asked])
    assert plain.describe() != tuned.describe()
    read = []

    def remember(model, tokenizer, prompts, options):
        read.extend(map(tuple, prompts))
        return [["X."] for _ in prompts]

    monkeypatch.setattr(module, "continue_sentences", remember)
    for predictor in (plain, tuned):
        outputs = predictor.generate([asked, foreign], "summarize", 0)
        assert [one.notes.get("zero_shot", False) for one in outputs] == [predictor is plain, True]
    text = ("A b.", "C d.")
    assert read == [(*text, "In short:"), (*text, "Kurz gesagt:"), (*text, "Sum up."), (*text, "Kurz gesagt:")]


def test_the_control_takes_no_version_or_part_of_the_same_document():
    ids = ["a", "a#deu_Latn", "a#2", "b", "c", "c#2#deu_Latn"]
    items = [replace(item(), id=id, reference=(f"{id}.",)) for id in ids]
    control = Shuffled()
    assert control.cannot("summarize", items) is None and "only one" in control.cannot("summarize", items[:3])
    for seed in range(8):
        outputs = control.generate(items, "summarize", seed)
        assert all(one.sentences[0][0] != id[0] for one, id in zip(outputs, ids, strict=True))
        assert len({one.sentences[0][0] for one in outputs}) == 3


def test_questions_are_known_by_language():
    assert set(QUESTIONS) == {"summarize", "expand"}
    for known in QUESTIONS.values():
        assert {"eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn"} <= set(known)
        assert all(flores(code) == code and text.strip() == text for code, text in known.items())
    assert question("summarize", "deu_Latn") == question("summarize", "deu_Latn", cross_lingual=True) == "Kurz gesagt:"
    assert question("summarize", "swh_Latn") == "In short:"
    assert question("summarize", "swh_Latn", cross_lingual=True) is None


def test_copying_needs_a_codec_for_other_languages(codec):
    assert CopyLast().cannot("summarize", [item()]) is None
    assert "own language" in CopyLast().cannot("summarize", [item("deu_Latn")])
    assert "fra_Latn" in CopyLast(codec).cannot("summarize", [item("fra_Latn")])
    budget = replace(item(), max_concepts=3)
    (short,), (long,) = (CopyLast().generate([budget], mode, 0) for mode in ("summarize", "expand"))
    assert short.sentences == ("C d.",) and long.sentences == ("C d.",) * 3
