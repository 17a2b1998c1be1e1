"""The languages that SONAR hears, their files and licences. Importing this module does not import torch.

Source: the tables of README.md and LICENSE.md and the cards of github.com/facebookresearch/SONAR.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from largeconcept.errors import LanguageError, did_you_mean
from largeconcept.languages import flores, language_name

MIT = "MIT"
NON_COMMERCIAL = "CC-BY-NC-4.0"

_ADDRESS = "https://dl.fbaipublicfiles.com/SONAR/"
_MIT_LANGUAGES = (
    "arb_Arab cat_Latn cym_Latn dan_Latn deu_Latn est_Latn fin_Latn fra_Latn ind_Latn ita_Latn kor_Hang nld_Latn "
    "pes_Arab por_Latn ron_Latn spa_Latn swe_Latn swh_Latn tgl_Latn tur_Latn uzn_Latn"
)
_NC_LANGUAGES = (
    "asm_Beng bel_Cyrl ben_Beng bos_Latn bul_Cyrl ces_Latn zho_Hans guj_Gujr heb_Hebr hin_Deva hrv_Latn jpn_Jpan "
    "kan_Knda lao_Laoo lit_Latn lvs_Latn mal_Mlym mar_Deva mkd_Cyrl mlt_Latn npi_Deva ory_Orya pan_Guru pol_Latn "
    "rus_Cyrl slk_Latn slv_Latn snd_Arab srp_Cyrl tam_Taml tel_Telu tha_Thai ukr_Cyrl urd_Arab vie_Latn yue_Hant"
)


class SpeechLanguage(NamedTuple):
    """A language that SONAR hears.

    Attributes:
        code: of three letters, as in the name of the file.
        flores: FLORES-200 code of the same language in writing.
        file: as published.
        licence: of the file, by the lists in SONAR's LICENSE.md. The English file is in neither list and is counted as
            non-commercial, as SONAR's other models are.
    """

    code: str
    flores: str
    file: str
    licence: str

    @property
    def name(self) -> str:
        """In English."""
        return "Mandarin Chinese" if self.code == "cmn" else language_name(self.flores)

    @property
    def address(self) -> str:
        """Where Meta publishes the file."""
        return _ADDRESS + self.file


def _languages() -> Iterable[SpeechLanguage]:
    yield SpeechLanguage("eng", "eng_Latn", "spenc.eng.pt", NON_COMMERCIAL)
    for listed, version, licence in ((_MIT_LANGUAGES, "v3ap", MIT), (_NC_LANGUAGES, "v5ap", NON_COMMERCIAL)):
        for known in listed.split():
            code = "cmn" if known == "zho_Hans" else known[:3]
            yield SpeechLanguage(code, known, f"spenc.{version}.{code}.pt", licence)


LANGUAGES: dict[str, SpeechLanguage] = {language.code: language for language in _languages()}
"""The 58 published encoders: 57 that SONAR's LICENSE.md lists, and English."""

_BY_FLORES = {language.flores: language for language in LANGUAGES.values()} | {"zho_Hant": LANGUAGES["cmn"]}


def speech_language(lang: str) -> SpeechLanguage:
    """Return the entry of a language.

    Args:
        lang: the code in the name of the file (``cmn``), a FLORES-200 code (``zho_Hans``) or a BCP-47 tag (``zh-CN``);
            the script does not matter to speech where both are Chinese.

    Raises:
        LanguageError: not a language, or SONAR has no speech encoder for it.
    """
    if isinstance(lang, str) and lang.strip().lower() in LANGUAGES:
        return LANGUAGES[lang.strip().lower()]
    known = flores(lang)
    if known not in _BY_FLORES:
        raise LanguageError(
            "SONAR has no speech encoder for the language",
            got=f"{lang} ({language_name(known)})",
            hint=did_you_mean(known[:3], LANGUAGES),
        )
    return _BY_FLORES[known]


def language_of_file(name: str) -> SpeechLanguage | None:
    """Return the language that a published file is for, by its name; ``None`` if it was renamed."""
    parts = name.split(".")
    if parts[0] != "spenc" or not 3 <= len(parts) <= 4 or parts[-1] not in ("pt", "safetensors"):
        return None
    return LANGUAGES.get(parts[-2])


__all__ = ["LANGUAGES", "MIT", "NON_COMMERCIAL", "SpeechLanguage", "language_of_file", "speech_language"]
