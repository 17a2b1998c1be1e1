"""Language codes: FLORES-200 is used everywhere inside; BCP-47 and ISO 639 are accepted at the door.

A FLORES-200 code is an ISO 639-3 code and an ISO 15924 script, ``eng_Latn``. ``flores`` maps what people type (``en``,
``pt-BR``, ``zh-TW``, ``eng``, ``de_DE.UTF-8``) to it, ``bcp47`` goes back. Plain data, no dependency.
"""

from __future__ import annotations

import difflib
import re

from largeconcept.errors import LanguageError

# One line a language: FLORES-200 code, shortest BCP-47 tag that maps back to it, English name.
# A tag without script marks the default where a language is listed in two scripts.
_TABLE = """
ace_Arab ace-Arab Acehnese (Arabic script)
ace_Latn ace Acehnese (Latin script)
acm_Arab acm Mesopotamian Arabic
acq_Arab acq Ta'izzi-Adeni Arabic
aeb_Arab aeb Tunisian Arabic
afr_Latn af Afrikaans
ajp_Arab ajp South Levantine Arabic
aka_Latn ak Akan
als_Latn sq Tosk Albanian
amh_Ethi am Amharic
apc_Arab apc North Levantine Arabic
arb_Arab ar Modern Standard Arabic
arb_Latn ar-Latn Modern Standard Arabic (romanised)
ars_Arab ars Najdi Arabic
ary_Arab ary Moroccan Arabic
arz_Arab arz Egyptian Arabic
asm_Beng as Assamese
ast_Latn ast Asturian
awa_Deva awa Awadhi
ayr_Latn ay Central Aymara
azb_Arab azb South Azerbaijani
azj_Latn az North Azerbaijani
bak_Cyrl ba Bashkir
bam_Latn bm Bambara
ban_Latn ban Balinese
bel_Cyrl be Belarusian
bem_Latn bem Bemba
ben_Beng bn Bengali
bho_Deva bho Bhojpuri
bjn_Arab bjn-Arab Banjar (Arabic script)
bjn_Latn bjn Banjar (Latin script)
bod_Tibt bo Standard Tibetan
bos_Latn bs Bosnian
bug_Latn bug Buginese
bul_Cyrl bg Bulgarian
cat_Latn ca Catalan
ceb_Latn ceb Cebuano
ces_Latn cs Czech
cjk_Latn cjk Chokwe
ckb_Arab ckb Central Kurdish
crh_Latn crh Crimean Tatar
cym_Latn cy Welsh
dan_Latn da Danish
deu_Latn de German
dik_Latn dik Southwestern Dinka
dyu_Latn dyu Dyula
dzo_Tibt dz Dzongkha
ell_Grek el Greek
eng_Latn en English
epo_Latn eo Esperanto
est_Latn et Estonian
eus_Latn eu Basque
ewe_Latn ee Ewe
fao_Latn fo Faroese
fij_Latn fj Fijian
fin_Latn fi Finnish
fon_Latn fon Fon
fra_Latn fr French
fur_Latn fur Friulian
fuv_Latn ff Nigerian Fulfulde
gaz_Latn om West Central Oromo
gla_Latn gd Scottish Gaelic
gle_Latn ga Irish
glg_Latn gl Galician
grn_Latn gn Guarani
guj_Gujr gu Gujarati
hat_Latn ht Haitian Creole
hau_Latn ha Hausa
heb_Hebr he Hebrew
hin_Deva hi Hindi
hne_Deva hne Chhattisgarhi
hrv_Latn hr Croatian
hun_Latn hu Hungarian
hye_Armn hy Armenian
ibo_Latn ig Igbo
ilo_Latn ilo Ilocano
ind_Latn id Indonesian
isl_Latn is Icelandic
ita_Latn it Italian
jav_Latn jv Javanese
jpn_Jpan ja Japanese
kab_Latn kab Kabyle
kac_Latn kac Jingpho
kam_Latn kam Kamba
kan_Knda kn Kannada
kas_Arab ks Kashmiri (Arabic script)
kas_Deva ks-Deva Kashmiri (Devanagari script)
kat_Geor ka Georgian
kaz_Cyrl kk Kazakh
kbp_Latn kbp Kabiyè
kea_Latn kea Kabuverdianu
khk_Cyrl mn Halh Mongolian
khm_Khmr km Khmer
kik_Latn ki Kikuyu
kin_Latn rw Kinyarwanda
kir_Cyrl ky Kyrgyz
kmb_Latn kmb Kimbundu
kmr_Latn ku Northern Kurdish
knc_Arab knc-Arab Central Kanuri (Arabic script)
knc_Latn knc Central Kanuri (Latin script)
kon_Latn kg Kikongo
kor_Hang ko Korean
lao_Laoo lo Lao
lij_Latn lij Ligurian
lim_Latn li Limburgish
lin_Latn ln Lingala
lit_Latn lt Lithuanian
lmo_Latn lmo Lombard
ltg_Latn ltg Latgalian
ltz_Latn lb Luxembourgish
lua_Latn lua Luba-Kasai
lug_Latn lg Ganda
luo_Latn luo Luo
lus_Latn lus Mizo
lvs_Latn lv Standard Latvian
mag_Deva mag Magahi
mai_Deva mai Maithili
mal_Mlym ml Malayalam
mar_Deva mr Marathi
min_Arab min-Arab Minangkabau (Arabic script)
min_Latn min Minangkabau (Latin script)
mkd_Cyrl mk Macedonian
mlt_Latn mt Maltese
mni_Beng mni Meitei (Bengali script)
mos_Latn mos Mossi
mri_Latn mi Maori
mya_Mymr my Burmese
nld_Latn nl Dutch
nno_Latn nn Norwegian Nynorsk
nob_Latn nb Norwegian Bokmål
npi_Deva ne Nepali
nso_Latn nso Northern Sotho
nus_Latn nus Nuer
nya_Latn ny Nyanja
oci_Latn oc Occitan
ory_Orya or Odia
pag_Latn pag Pangasinan
pan_Guru pa Eastern Panjabi
pap_Latn pap Papiamento
pbt_Arab ps Southern Pashto
pes_Arab fa Western Persian
plt_Latn mg Plateau Malagasy
pol_Latn pl Polish
por_Latn pt Portuguese
prs_Arab prs Dari
quy_Latn qu Ayacucho Quechua
ron_Latn ro Romanian
run_Latn rn Rundi
rus_Cyrl ru Russian
sag_Latn sg Sango
san_Deva sa Sanskrit
sat_Olck sat Santali
scn_Latn scn Sicilian
shn_Mymr shn Shan
sin_Sinh si Sinhala
slk_Latn sk Slovak
slv_Latn sl Slovenian
smo_Latn sm Samoan
sna_Latn sn Shona
snd_Arab sd Sindhi
som_Latn so Somali
sot_Latn st Southern Sotho
spa_Latn es Spanish
srd_Latn sc Sardinian
srp_Cyrl sr Serbian
ssw_Latn ss Swati
sun_Latn su Sundanese
swe_Latn sv Swedish
swh_Latn sw Swahili
szl_Latn szl Silesian
tam_Taml ta Tamil
taq_Latn taq Tamasheq (Latin script)
taq_Tfng taq-Tfng Tamasheq (Tifinagh script)
tat_Cyrl tt Tatar
tel_Telu te Telugu
tgk_Cyrl tg Tajik
tgl_Latn tl Tagalog
tha_Thai th Thai
tir_Ethi ti Tigrinya
tpi_Latn tpi Tok Pisin
tsn_Latn tn Tswana
tso_Latn ts Tsonga
tuk_Latn tk Turkmen
tum_Latn tum Tumbuka
tur_Latn tr Turkish
twi_Latn tw Twi
tzm_Tfng tzm Central Atlas Tamazight
uig_Arab ug Uyghur
ukr_Cyrl uk Ukrainian
umb_Latn umb Umbundu
urd_Arab ur Urdu
uzn_Latn uz Northern Uzbek
vec_Latn vec Venetian
vie_Latn vi Vietnamese
war_Latn war Waray
wol_Latn wo Wolof
xho_Latn xh Xhosa
ydd_Hebr yi Eastern Yiddish
yor_Latn yo Yoruba
yue_Hant yue Yue Chinese
zho_Hans zh-Hans Chinese (Simplified)
zho_Hant zh-Hant Chinese (Traditional)
zsm_Latn ms Standard Malay
zul_Latn zu Zulu
"""

# Other codes for the same languages: macrolanguages, ISO 639-2/B, withdrawn codes. Value: BCP-47 tag of the table.
_ALIASES = {
    "no nor": "nb", "zh zho chi cmn": "zh-Hans", "zh-yue": "yue", "iw": "he", "in": "id", "ji yid": "yi", "jw": "jv",
    "mo mol rum": "ro", "fil": "tl", "ara": "ar", "fas per": "fa", "msa may zlm": "ms", "sqi alb": "sq", "aze": "az",
    "uzb": "uz", "lav": "lv", "ekk": "et", "mon": "mn", "nep": "ne", "ori": "or", "pus": "ps", "que": "qu",
    "aym": "ay", "orm": "om", "mlg": "mg", "kur": "ku", "swa": "sw", "din": "dik", "ful": "ff", "kau kr": "knc",
    "gug": "gn", "ktu": "kg", "sro": "sc", "ger": "de", "fre": "fr", "dut": "nl", "cze": "cs", "slo": "sk",
    "gre": "el", "ice": "is", "arm": "hy", "geo": "ka", "mac": "mk", "bur": "my", "tib": "bo", "wel": "cy",
    "baq": "eu", "mao": "mi", "scc": "sr", "scr": "hr",
}  # fmt: skip
# Regions that decide the script of a language whose tag names none.
_REGION_SCRIPT = {("zh", "tw"): "hant", ("zh", "hk"): "hant", ("zh", "mo"): "hant", ("ku", "iq"): "arab"}
# Script labels that stand for the one FLORES-200 uses, and languages filed under another name by their script.
_TAG_ALIASES = {
    "sat-beng": "sat_Olck",  # NLLB and SONAR file the same Ol Chiki text under this label
    "ko-kore": "kor_Hang",
    "ja-hira": "jpn_Jpan",
    "ku-arab": "ckb_Arab",
    "az-arab": "azb_Arab",
}

# What people call their language, for suggestions only.
_OWN_NAMES = {
    "deutsch": "deu_Latn", "français": "fra_Latn", "francais": "fra_Latn", "español": "spa_Latn",
    "espanol": "spa_Latn", "castellano": "spa_Latn", "italiano": "ita_Latn", "português": "por_Latn",
    "nederlands": "nld_Latn", "polski": "pol_Latn", "svenska": "swe_Latn", "dansk": "dan_Latn", "norsk": "nob_Latn",
    "norwegian": "nob_Latn", "suomi": "fin_Latn", "čeština": "ces_Latn", "magyar": "hun_Latn", "türkçe": "tur_Latn",
    "русский": "rus_Cyrl", "українська": "ukr_Cyrl", "ελληνικά": "ell_Grek", "mandarin": "zho_Hans",
    "中文": "zho_Hans", "日本語": "jpn_Jpan", "한국어": "kor_Hang", "العربية": "arb_Arab", "farsi": "pes_Arab",
    "עברית": "heb_Hebr", "हिन्दी": "hin_Deva", "filipino": "tgl_Latn",
}  # fmt: skip

_ROWS = [line.split(" ", 2) for line in _TABLE.strip().splitlines()]

FLORES_200: dict[str, str] = {code: name for code, _, name in _ROWS}
"""The 204 FLORES-200 codes with their English names."""

_BCP47 = {code: tag for code, tag, _ in _ROWS}


def _build_index() -> dict[str, str]:
    """Lower-case tag, with or without script, to FLORES-200 code."""
    index: dict[str, str] = {}
    by_script: dict[str, dict[str, str]] = {}
    for code, tag, _ in _ROWS:
        language, _, script = code.lower().partition("_")
        primary = tag.lower().partition("-")[0]
        by_script.setdefault(primary, {})[script] = code
        index[f"{language}-{script}"] = index[f"{primary}-{script}"] = index[tag.lower()] = code
        if "-" not in tag:
            index[language] = code
    for names, tag in _ALIASES.items():
        primary = tag.lower().partition("-")[0]
        for name in names.split():
            index[name] = index[tag.lower()]
            for script, code in by_script[primary].items():
                index.setdefault(f"{name}-{script}", code)
    return index | _TAG_ALIASES


_INDEX = _build_index()
_WELL_FORMED = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})*")


def is_language_tag(code: object) -> bool:
    """Return whether ``code`` has the form of a language tag, in FLORES-200 (``pt-BR``) or not (``tlh``)."""
    return isinstance(code, str) and len(code) <= 64 and _WELL_FORMED.fullmatch(_plain(code)) is not None


def flores(code: str) -> str:
    """Return the FLORES-200 code of a language.

    Args:
        code: a FLORES-200 code, a BCP-47 tag, an ISO 639 code of two or three letters, or a POSIX locale; upper and
            lower case, ``-`` and ``_`` are all the same. A region is ignored unless it decides the script (``zh-TW``).

    Raises:
        LanguageError: the language is not one of the 204, or not in the script asked for; says which is nearest.
    """
    if is_language_tag(code):
        found = _lookup(_plain(code))
        if found is not None:
            return found
    raise LanguageError(
        "unknown language",
        got=repr(code) if not isinstance(code, str) or not code.strip() else code,
        expected="a FLORES-200 code such as eng_Latn, or a tag such as en or pt-BR",
        hint=_suggestion(code),
    )


def bcp47(code: str) -> str:
    """Return the shortest BCP-47 tag of a language: ``eng_Latn`` gives ``en``, ``zho_Hant`` gives ``zh-Hant``.

    ``flores(bcp47(code)) == flores(code)`` for every code.

    Raises:
        LanguageError: as :func:`flores`.
    """
    return _BCP47[flores(code)]


def language_name(code: str) -> str:
    """Return the English name of a language: ``fr`` gives ``French``.

    Raises:
        LanguageError: as :func:`flores`.
    """
    return FLORES_200[flores(code)]


def _plain(code: str) -> str:
    """``de_DE.UTF-8@euro`` to ``de_DE``."""
    return code.strip().partition(".")[0].partition("@")[0]


def _lookup(code: str) -> str | None:
    primary, *rest = code.replace("_", "-").lower().split("-")
    if rest and f"{primary}-{rest[0]}" in _INDEX:
        return _INDEX[f"{primary}-{rest[0]}"]
    if any(len(part) == 4 and part.isalpha() for part in rest):
        return None  # a script was asked for, and the language is not listed in it
    for part in rest:
        script = _REGION_SCRIPT.get((_canonical(primary), part))
        if script is not None:
            return _INDEX[f"{primary}-{script}"]
    return _INDEX.get(primary)


def _canonical(primary: str) -> str:
    """``zho`` to ``zh``: the primary tag of the table."""
    code = _INDEX.get(primary)
    return primary if code is None else _BCP47[code].partition("-")[0]


def _suggestion(code: object) -> str:
    if not isinstance(code, str) or not code.strip():
        return "see largeconcept.languages.FLORES_200 for all codes"
    word = _plain(code)[:40].casefold()
    names = {name.casefold(): known for known, name in FLORES_200.items()}
    for name, known in list(names.items()):  # "chinese" is the script that the bare tag stands for
        names.setdefault(name.partition(" (")[0], _INDEX.get(known[:3].lower(), known))
    names |= _OWN_NAMES
    found = names.get(word) or _INDEX.get(re.split("[-_]", word)[0])
    if found is None:
        keys = {known.casefold(): known for known in FLORES_200} | names
        match = difflib.get_close_matches(word, list(keys), n=1, cutoff=0.75)
        found = keys[match[0]] if match else None
    if found is None:
        return "see largeconcept.languages.FLORES_200 for all codes"
    return f"did you mean {found} ({FLORES_200[found]})?"


__all__ = ["FLORES_200", "bcp47", "flores", "is_language_tag", "language_name"]
