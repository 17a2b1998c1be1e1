from __future__ import annotations

import subprocess
import sys

import pytest

from largeconcept.errors import LanguageError
from largeconcept.languages import FLORES_200, bcp47, flores, is_language_tag, language_name


def test_there_are_204_codes_with_names() -> None:
    assert len(FLORES_200) == 204
    assert len(set(FLORES_200.values())) == 204
    for code, name in FLORES_200.items():
        language, script = code.split("_")
        assert len(language) == 3 and language.islower()
        assert len(script) == 4 and script.istitle()
        assert name and name == name.strip()


def test_known_codes_are_in_the_list() -> None:
    # The odd ones: two scripts, no script on the tag, a language listed by a variety.
    assert {"arb_Latn", "min_Arab", "taq_Tfng", "kas_Deva", "zho_Hant", "yue_Hant", "zsm_Latn", "ajp_Arab"} <= set(
        FLORES_200
    )
    assert FLORES_200["eng_Latn"] == "English"
    assert FLORES_200["nob_Latn"] == "Norwegian Bokmål"


@pytest.mark.parametrize("code", sorted(FLORES_200))
def test_every_code_survives_the_way_to_bcp47_and_back(code: str) -> None:
    assert flores(code) == code
    assert flores(bcp47(code)) == code
    assert flores(code.upper().replace("_", "-")) == code
    assert is_language_tag(bcp47(code))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("en", "eng_Latn"),
        ("EN", "eng_Latn"),
        (" en ", "eng_Latn"),
        ("eng", "eng_Latn"),
        ("en-US", "eng_Latn"),
        ("en_GB.UTF-8", "eng_Latn"),
        ("de_DE@euro", "deu_Latn"),
        ("ger", "deu_Latn"),
        ("pt-BR", "por_Latn"),
        ("es-419", "spa_Latn"),
        ("de-DE-1996", "deu_Latn"),
        ("zh", "zho_Hans"),
        ("zh-Hans", "zho_Hans"),
        ("zh-CN", "zho_Hans"),
        ("zh-TW", "zho_Hant"),
        ("zho-HK", "zho_Hant"),
        ("zh-Hant-HK", "zho_Hant"),
        ("zh-Hans-TW", "zho_Hans"),
        ("zh-yue", "yue_Hant"),
        ("cmn-Hant", "zho_Hant"),
        ("sr", "srp_Cyrl"),
        ("no", "nob_Latn"),
        ("nor_Latn", "nob_Latn"),
        ("nn", "nno_Latn"),
        ("ar", "arb_Arab"),
        ("ar-Latn", "arb_Latn"),
        ("fa", "pes_Arab"),
        ("sw", "swh_Latn"),
        ("iw", "heb_Hebr"),
        ("ku", "kmr_Latn"),
        ("ku-Arab", "ckb_Arab"),
        ("fil-PH", "tgl_Latn"),
        ("ace", "ace_Latn"),
        ("sat_Beng", "sat_Olck"),
        ("ko-Kore", "kor_Hang"),
    ],
)
def test_what_people_type(given: str, code: str) -> None:
    assert flores(given) == code


def test_bcp47_is_short_and_unique() -> None:
    assert bcp47("eng_Latn") == "en"
    assert bcp47("pt-BR") == "pt"
    assert bcp47("zho_Hant") == "zh-Hant"
    assert bcp47("ace_Arab") == "ace-Arab"
    assert bcp47("arz_Arab") == "arz"
    assert len({bcp47(code) for code in FLORES_200}) == 204


def test_language_name() -> None:
    assert language_name("fr") == "French"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("English", "did you mean eng_Latn (English)?"),
        ("engLatn", "did you mean eng_Latn (English)?"),
        ("frnch", "did you mean fra_Latn (French)?"),
        ("deutsch", "did you mean deu_Latn (German)?"),
        ("chinese", "did you mean zho_Hans (Chinese (Simplified))?"),
        ("acehnese", "did you mean ace_Latn (Acehnese (Latin script))?"),
        ("sr-Latn", "did you mean srp_Cyrl (Serbian)?"),
        ("eng_Cyrl", "did you mean eng_Latn (English)?"),
    ],
)
def test_a_wrong_code_gets_a_suggestion(given: str, hint: str) -> None:
    with pytest.raises(LanguageError) as caught:
        flores(given)
    assert caught.value.hint == hint
    assert given in str(caught.value) and "eng_Latn" in str(caught.value)


@pytest.mark.parametrize(
    "given", ["", "  ", "en\0", "e", "xx", "tlh", "hbs", "x" * 100_000, "\ud800", "en fr", "日本", "en-US!", "en-"]
)
def test_an_unknown_code_is_refused_in_one_short_line(given: str) -> None:
    with pytest.raises(LanguageError) as caught:
        flores(given)
    message = str(caught.value)
    assert "unknown language" in message and "\n" not in message and len(message) < 500
    with pytest.raises(LanguageError):
        bcp47(given)


@pytest.mark.parametrize("given", [None, 5, b"en", ["en"]])
def test_a_code_that_is_no_string_is_refused(given: object) -> None:
    with pytest.raises(LanguageError, match="unknown language"):
        flores(given)  # type: ignore[arg-type]


def test_the_form_of_a_tag() -> None:
    assert all(is_language_tag(tag) for tag in ["en", "tlh", "xx", "zh-Hant-TW", "eng_Latn", "pt-BR", "sr@latin"])
    assert not any(
        is_language_tag(tag) for tag in ["", "e", "english", "en-", "12", "en US", None, 5, "en" + "-abcdefgh" * 10]
    )


def test_import_is_light() -> None:
    code = "import sys, largeconcept.languages; print(any(m in sys.modules for m in ('torch', 'pydantic', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
