import json
from types import SimpleNamespace

import pytest
import torch

from largeconcept.codec.metrics import best_matches, bleu, noise_curve, xsim_error
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.records import MODEL, TaskResult, read_raw
from largeconcept.eval.report.reading import read_extra
from largeconcept.eval.tasks import TASKS, Context, LeftOut, load_task
from largeconcept.eval.tasks.sentences import aligned_sentences, sentences_of_languages
from largeconcept.types import Document

ENGLISH = [
    "The door of house {} is open.",
    "Nobody in Paris saw the {} cats of Anna that evening in winter.",
    "It rained for {} days, and the river was high.",
]
GERMAN = [
    "Die Tür von Haus {} ist offen.",
    "Niemand in Paris sah an jenem Abend im Winter die {} Katzen von Anna.",
    "Es regnete {} Tage lang, und der Fluss war hoch.",
]


def documents(number=8):
    return [
        Document(f"d{i}", sentences=tuple(text.format(10 + 7 * i + j) for j, text in enumerate(texts)), lang=lang)
        for i in range(number)
        for lang, texts in (("eng_Latn", ENGLISH), ("deu_Latn", GERMAN))
    ]


class Translator(ToyCodec):
    """A toy that reads German as its English translation, so both have one concept; it remembers English alone."""

    def __init__(self, texts):
        super().__init__()
        english = {d.id: d.sentences for d in texts if d.lang == "eng_Latn"}
        self.meaning = {b: a for d in texts if d.lang == "deu_Latn" for a, b in zip(english[d.id], d.sentences)}
        self.back = {a: b for b, a in self.meaning.items()}

    def encode(self, sentences, lang=None, **_):
        return super().encode([self.meaning.get(text, text) for text in sentences])

    def decode(self, concepts, lang, **_):
        languages = [lang] * len(concepts) if isinstance(lang, str) else lang
        found = super().decode(concepts, languages)
        return [self.back.get(a, a) if code == "deu_Latn" else a for a, code in zip(found, languages, strict=True)]


class Blind(ToyCodec):
    """Puts everything in one place, but for a little noise."""

    def encode(self, sentences, lang=None, **_):
        return torch.ones(len(sentences), self.dim) + 1e-3 * super().encode(sentences)


def context(codec=None, texts=None, **more):
    texts = documents() if texts is None else texts
    pipeline = SimpleNamespace(codec=codec or Translator(texts))
    return Context(pipeline, documents=texts, **more)


def run(name, where):
    result = load_task(name)(where)
    again = TaskResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.metrics == result.metrics
    assert set(result.metrics) == set(result.scores[MODEL])
    read_extra(result.extra, name)  # a report can show it
    for score in result.scores[MODEL].values():
        assert score.low - 1e-9 <= score.value <= score.high + 1e-9
    return result


def test_the_tasks_are_named():
    names = [name for name, info in TASKS.items() if info.kind == "codec"]
    assert names == ["codec_round_trip", "codec_noise", "codec_translation", "codec_space"]


def test_a_perfect_codec_writes_back_what_it_read(tmp_path):
    told = []
    where = context(folder=tmp_path, progress=lambda *a: told.append(a))
    result = run("codec_round_trip", where)
    scores = result.scores[MODEL]
    for name in ("auto_bleu", "chrf", "auto_bleu/eng_Latn", "auto_bleu/deu_Latn"):
        assert scores[name].value == pytest.approx(100) and scores[name].low == pytest.approx(100)
    assert scores["exact"].value == 1.0 and result.n == 48 and told[-1] == (2, 2, "languages")
    rows = result.extra["tables"]["Auto-BLEU by language and length"]["rows"]
    assert sum(row[2] for row in rows) == 48 and {row[0] for row in rows} == {"eng_Latn", "deu_Latn"}
    assert {row[1] for row in rows} == {"26–50", "51–100"}
    raw = read_raw(tmp_path / "raw" / "codec_round_trip" / f"{MODEL}.jsonl")
    assert len(raw) == 48 and all(line["output"] == line["source"] and line["metrics"]["exact"] == 1 for line in raw)


class Forgetful(ToyCodec):
    """Writes every second sentence without its last words."""

    def decode(self, concepts, lang, **_):
        found = super().decode(concepts, "eng_Latn")
        return [text if i % 2 else " ".join(text.split()[:-3]) for i, text in enumerate(found)]


def test_the_mean_over_languages_is_of_corpus_scores():
    texts = documents()
    codec = Forgetful()
    where = context(codec, texts, settings={"codec_round_trip": {"sentences": 12}})
    scores = run("codec_round_trip", where).scores[MODEL]
    languages = sentences_of_languages(where, 12)
    each = [bleu(codec.decode(codec.encode(group.texts), lang), group.texts, lang) for lang, group in languages.items()]
    assert scores["auto_bleu"].value == pytest.approx(sum(each) / 2)
    assert scores["auto_bleu/deu_Latn"].value == pytest.approx(each[0])
    assert scores["exact"].value == pytest.approx(0.5) and scores["auto_bleu"].low < scores["auto_bleu"].high < 100


def test_noise_only_hurts():
    settings = {"codec_noise": {"strengths": [0.0, 0.5, 3.0], "sentences": 24}}
    result = run("codec_noise", context(settings=settings, seed=3))
    values = [one.value for one in result.scores[MODEL].values()]
    assert values[0] == pytest.approx(100) and values[0] >= values[1] > values[2]
    curve = result.extra["curves"]["Auto-BLEU under noise"]["series"]
    assert set(curve) == {"all", "eng_Latn", "deu_Latn"}
    assert curve["all"]["x"] == [0.0, 0.5, 3.0] and curve["all"]["y"] == values
    where = context(settings=settings)
    english = sentences_of_languages(where, 24)["eng_Latn"].texts
    same = noise_curve(where.pipeline.codec, english, "eng_Latn", (0.0, 0.5, 3.0), seed=3, method="greedy")
    assert curve["eng_Latn"]["y"] == pytest.approx([y for _, y in same], abs=1e-6)
    for wrong in ([], [0.5, 0.1], [-1.0], [float("nan")]):
        with pytest.raises(ConfigError, match="strengths"):
            load_task("codec_noise")(context(settings={"codec_noise": {"strengths": wrong}}))


def test_translations_of_one_concept_are_found():
    result = run("codec_translation", context())
    scores = result.scores[MODEL]
    assert scores["translation_chrf"].value == pytest.approx(100)
    assert scores["xsim"].value == scores["xsim_hard"].value == 0.0
    tables = result.extra["tables"]
    assert [row[:3] for row in tables["Aligned sentences"]["rows"]] == [
        ["deu_Latn", "eng_Latn", 24],
        ["eng_Latn", "deu_Latn", 24],
    ]
    offered = {row[0]: row[1] for row in tables["Changed sentences taken for the translation"]["rows"]}
    # Some changed sentences happen to be others of the collection, which are no mistakes to offer.
    assert 40 <= offered["number"] <= 48 and offered["name"] > 0 and offered["negation"] > 0
    assert result.n == 48 and result.metrics == {"translation_chrf": "higher", "xsim": "lower", "xsim_hard": "lower"}


class Numberless(Translator):
    """Knows the subject, and confuses numbers and negations."""

    def _vector(self, sentence):
        kept = " ".join(word for word in sentence.split() if not any(c.isdigit() for c in word) and word != "not")
        return super()._vector(kept) + 1e-4 * super()._vector(sentence)


def test_a_codec_without_facts_errs_among_changed_sentences():
    texts = documents(1)  # more of them differ in numbers alone
    plain = run(
        "codec_translation", context(Numberless(texts), texts, settings={"codec_translation": {"hard_negatives": 0}})
    )
    assert set(plain.scores[MODEL]) == {"translation_chrf", "xsim"} and plain.scores[MODEL]["xsim"].value == 0

    class Noisy(Numberless):
        def encode(self, sentences, lang=None, **_):
            z = super().encode(sentences)
            return z + 1e-3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(len(sentences)))

    hard = run("codec_translation", context(Noisy(texts), texts))
    assert hard.scores[MODEL]["xsim"].value == 0 and hard.scores[MODEL]["xsim_hard"].value > 0.1
    taken = {row[0]: row[2] for row in hard.extra["tables"]["Changed sentences taken for the translation"]["rows"]}
    assert taken["number"] > 0


def test_a_collapsed_codec_is_seen():
    healthy, blind = (run("codec_space", context(codec)).scores[MODEL] for codec in (Translator(documents()), Blind()))
    assert blind["mean_cosine"].low > 0.99 > healthy["mean_cosine"].high
    assert blind["variance"].high < 0.01 < healthy["variance"].low


def test_concepts_of_the_dataset_are_taken_where_they_are():
    dataset = [SimpleNamespace(id=f"d{i}", concepts=torch.randn(30, 6)) for i in range(9)]
    where = context(texts=[], codec=ToyCodec(), settings={"codec_space": {"concepts": 100}})
    where.dataset = dataset
    result = run("codec_space", where)
    assert result.n == 100 and result.scores[MODEL]["participation_ratio"].value == pytest.approx(6, rel=0.4)


# --- what is judged


def test_sentences_are_spread_over_documents():
    texts = [
        Document(f"d{i}", sentences=tuple(f"s{i} {j}" for j in range(n)), lang="eng_Latn")
        for i, n in enumerate((1, 2, 50, 50))
    ]
    found = sentences_of_languages(context(ToyCodec(), texts), 23)["eng_Latn"]
    counts = [found.owners.count(f"d{i}") for i in range(4)]
    assert counts == [1, 2, 10, 10] and len(set(found.texts)) == 23
    assert "s2 45" in found.texts and "s2 0" in found.texts  # from all over the document
    few = sentences_of_languages(context(ToyCodec(), texts, limit=3), 100)["eng_Latn"]
    assert set(few.owners) == {"d0", "d1", "d2"}


def test_a_limit_counts_documents_and_not_their_versions():
    found = sentences_of_languages(context(limit=2), 100)
    assert {lang: len(group.texts) for lang, group in found.items()} == {"deu_Latn": 6, "eng_Latn": 6}
    unpaired = [Document(f"x{i}", sentences=("Alone here.",), lang="eng_Latn") for i in range(5)]
    pairs = aligned_sentences(context(texts=[*unpaired, *documents()], limit=2), 100)
    assert {len(left.texts) for left, _ in pairs.values()} == {6}


def named(ids, languages=("eng_Latn", "deu_Latn", "eng_Latn"), sources=None):
    texts = {"eng_Latn": ENGLISH, "deu_Latn": GERMAN}
    found = [
        Document(i, sentences=tuple(texts[lang]), lang=lang, source=source)
        for i, lang, source in zip(ids, languages, sources or [None] * len(ids))
    ]
    return context(ToyCodec(), found)


def test_a_dataset_names_versions_by_their_language():
    pairs = aligned_sentences(named(["a", "a#deu_Latn"]), 100)
    assert pairs["eng_Latn", "deu_Latn"][0].texts == ENGLISH and set(pairs["deu_Latn", "eng_Latn"][0].owners) == {"a"}
    with pytest.raises(LeftOut):
        aligned_sentences(named(["a", "a#deu_Latn", "a"]), 100)  # which English one is it?
    for ids in (["a", "b"], ["a", "a#2"]):
        with pytest.raises(LeftOut):
            aligned_sentences(named(ids), 100)
    assert set(sentences_of_languages(named(["a", "a#deu_Latn"]), 100)["eng_Latn"].owners) == {"a"}


def test_parts_are_aligned_each_with_its_own_and_count_as_one_document():
    where = named(["a", "a#deu_Latn", "a#2", "a#2#deu_Latn"], ("eng_Latn", "deu_Latn") * 2)
    where.limit = 1
    english = aligned_sentences(where, 100)["eng_Latn", "deu_Latn"][0]
    assert english.texts == 2 * ENGLISH and set(english.owners) == {"a"}


def test_sources_may_be_named_after_their_language():
    for sources in (["help-en-us", "help-de"], ["help.en", "help.de"], ["help", "help"]):
        assert aligned_sentences(named(["a", "a"], sources=sources), 100)
    for sources in (["help-en", "manual-de"], ["help-fr", "help-de"], ["help-web", "help-de"]):
        with pytest.raises(LeftOut):
            aligned_sentences(named(["a", "a"], sources=sources), 100)


def test_what_cannot_be_judged_is_left_out():
    polish = [Document("d", sentences=("Ala ma kota.", "Kot ma Alę."), lang="pol_Latn")]
    for name in ("codec_round_trip", "codec_noise", "codec_translation", "codec_space"):
        with pytest.raises(LeftOut, match="no "):
            load_task(name)(context(ToyCodec(), polish))
    alone = [d for d in documents() if d.lang == "eng_Latn"]
    with pytest.raises(LeftOut, match="two languages"):
        load_task("codec_translation")(context(ToyCodec(), alone))
    with pytest.raises(LeftOut, match="two held-out documents"):
        load_task("codec_space")(context(ToyCodec(), alone[:1]))


# --- matches by margin


def test_best_matches_by_hand():
    left = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right = torch.tensor([[0.9, 0.1], [0.1, 0.9], [1.0, 0.0]])
    assert best_matches(left, right, 1).tolist() == [2, 1]
    assert xsim_error(left, right[:2], 1) == 0.0 and xsim_error(left, right[:2].flip(0), 1) == 1.0
    with pytest.raises(DataError, match="two on each side"):
        best_matches(left[:1], right)
    with pytest.raises(DataError, match="shape"):
        best_matches(left, torch.ones(3, 5))
    with pytest.raises(DataError, match="same shape"):
        xsim_error(left, right)


def test_judges_read_translations():
    asked = []

    def judge(judged):
        asked.append(judged)
        return [float(len(text[0])) if lang == "deu_Latn" else None
                for text, lang in zip(judged.texts, judged.langs, strict=True)]  # fmt: skip

    plain = context()
    result = run("codec_translation", context(metrics={"blaser_qe": judge, "cola": judge}))
    assert len(asked) == 2 and all(one.translations for one in asked)  # both ways, and CoLA is of no translations
    german = next(one for one in asked if one.langs[0] == "deu_Latn")
    assert set(german.source_langs) == {"eng_Latn"} and german.references == german.texts != german.sources
    lengths = [len(text) for document in documents() if document.lang == "deu_Latn" for text in document.sentences]
    assert result.scores[MODEL]["blaser_qe"].value == pytest.approx(sum(lengths) / len(lengths))
    assert result.metrics["blaser_qe"] == "higher" and "cola" not in result.metrics
    assert "blaser_qe" not in run("codec_translation", plain).metrics
