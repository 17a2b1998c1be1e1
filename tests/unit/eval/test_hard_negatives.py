import pytest

from largeconcept.eval.hard_negatives import hard_negatives, names_in


def texts(kind, *arguments, **settings):
    return [one.text for one in hard_negatives(*arguments, **settings) if one.kind == kind]


def test_numbers():
    found = texts("number", "In 1984 there were 12,500 cats.", "eng_Latn")
    assert len(found) == 2
    for text in found:
        assert text != "In 1984 there were 12,500 cats."
        assert (
            text.startswith("In ") and text.endswith(" cats.") and len(text) == len("In 1984 there were 12,500 cats.")
        )
    assert texts("number", "Nothing to count.", "eng_Latn") == []
    assert texts("number", "०१ और", "hin_Deva") != ["०१ और"]
    assert texts("number", "Page 7 of 7.", None, most=1)[0].count("7") == 1


def test_names_are_swapped_for_others():
    assert names_in("Then Moses went to Egypt, where Aaron was. Nobody knew Moses.") == ["Moses", "Egypt", "Aaron"]
    found = texts("name", "Then Moses went to Egypt.", "eng_Latn", ["Paul", "Egypt"])
    assert set(found) == {"Then Paul went to Egypt.", "Then Moses went to Paul."}
    assert texts("name", "Then Moses went.", "eng_Latn", []) == []
    assert texts("name", "Then Moses went.", "eng_Latn", ["Moses"]) == []
    assert texts("name", "he said Go\\1.", "eng_Latn", [r"A\1"]) == [r"he said A\1\1."]  # nothing is a pattern


@pytest.mark.parametrize(
    ("lang", "plain", "negated"),
    [
        ("eng_Latn", "The door is open.", "The door is not open."),
        ("deu_Latn", "Die Tür ist offen.", "Die Tür ist nicht offen."),
        ("fra_Latn", "La porte est ouverte.", "La porte n’est pas ouverte."),
        ("fra_Latn", "Elle peut venir.", "Elle ne peut pas venir."),
        ("spa_Latn", "La puerta está abierta.", "La puerta no está abierta."),
        ("ita_Latn", "La porta è aperta.", "La porta non è aperta."),
        ("por_Latn", "A porta está aberta.", "A porta não está aberta."),
        ("nld_Latn", "De deur is open.", "De deur is niet open."),
    ],
)
def test_negations_come_and_go(lang, plain, negated):
    assert texts("negation", plain, lang) == [negated]
    assert texts("negation", negated, lang) == [plain]


def test_other_negations():
    assert texts("negation", "I can’t come.", "eng_Latn") == ["I can come."]
    assert texts("negation", "They weren't there.", "eng_Latn") == ["They were there."]
    assert texts("negation", "Er hat keine Zeit.", "deu_Latn") == ["Er hat eine Zeit."]
    assert texts("negation", "Go home!", "eng_Latn") == []
    assert texts("negation", "The door is open.", "pol_Latn") == []
    assert texts("negation", "The door is open.", None) == []


def test_the_same_sentence_gets_the_same_changes():
    sentence = "In 1984 Anna met Paul and Eva."
    one = hard_negatives(sentence, "eng_Latn", ["Tom", "Ida", "Max"], seed=1)
    assert one == hard_negatives(sentence, "eng_Latn", ["Max", "Tom", "Ida"], seed=1)
    assert one != hard_negatives(sentence, "eng_Latn", ["Tom", "Ida", "Max"], seed=2)
    assert len({item.text for item in one}) == len(one) and sentence not in {item.text for item in one}
    assert hard_negatives(sentence, "eng_Latn", ["Tom"], most=0) == []
