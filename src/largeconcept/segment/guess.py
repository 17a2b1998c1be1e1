"""A quick guess at the language of a text: its script, then its commonest words. Good enough to choose rules by."""

from __future__ import annotations

import re
from collections import Counter

import regex

_SAMPLE = 4000

# One group a script; the language is the one that most text in that script is in.
_SCRIPTS = {
    "Latin": "eng_Latn", "Han": "zho_Hans", "Hangul": "kor_Hang", "Cyrillic": "rus_Cyrl", "Arabic": "arb_Arab",
    "Greek": "ell_Grek", "Hebrew": "heb_Hebr", "Devanagari": "hin_Deva", "Bengali": "ben_Beng", "Thai": "tha_Thai",
    "Tamil": "tam_Taml", "Telugu": "tel_Telu", "Gujarati": "guj_Gujr", "Gurmukhi": "pan_Guru", "Kannada": "kan_Knda",
    "Malayalam": "mal_Mlym", "Oriya": "ory_Orya", "Sinhala": "sin_Sinh", "Armenian": "hye_Armn",
    "Georgian": "kat_Geor", "Ethiopic": "amh_Ethi", "Khmer": "khm_Khmr", "Lao": "lao_Laoo", "Myanmar": "mya_Mymr",
    "Tibetan": "bod_Tibt", "Tifinagh": "tzm_Tfng", "Ol_Chiki": "sat_Olck",
}  # fmt: skip
_SCRIPT = regex.compile("|".join(f"(?P<{name}>\\p{{{name}}}+)" for name in _SCRIPTS))
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_ASCII_TEXT = re.compile(r"[ -~\s]*")
_WORD = re.compile(r"[^\W\d_]+")

# Function words that are frequent in one language and rare in the others of the same script.
_WORDS = {
    "eng_Latn": "the of and to in is that it was for with as be this are from by not have you his they which",
    "deu_Latn": "der die und den von zu das mit sich des auf für ist im dem nicht ein eine als auch es werden wird",
    "fra_Latn": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne ce il sont avec",
    "spa_Latn": "de la que el en y los del se las por un para con no una su al lo como más pero sus es este",
    "por_Latn": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao das são você",
    "ita_Latn": "di e il la che in un a per è una sono con non del si da come le dei nel della al anche gli alla",
    "nld_Latn": "de het een van en in is dat op te zijn met voor niet aan er om als dan maar bij ook naar wordt",
    "swe_Latn": "och i att det som en på är av för med den till inte om ett han men var jag från kan har eller",
    "dan_Latn": "og i at det er en til af på for med den der ikke de som et kan har fra eller jeg skal også vil",
    "nob_Latn": "og i det er en til av på for med den ikke de som et kan har fra eller jeg skal også vil ble",
    "pol_Latn": "i w na z się nie do to że jest o jak za od po przez dla są lub ale tym który może oraz",
    "ces_Latn": "a v se na je že o z s do i to k pro ve by za od jsou nebo jako po které při není ale lze",
    "slk_Latn": "a v sa na je že o z s do i to k pre vo by za od sú alebo ako po ktoré pri nie ale možno",
    "hun_Latn": "a az és hogy nem is egy ez meg csak de ha van vagy mint el volt még azt már lehet ezt lesz",
    "fin_Latn": "ja on ei se että en oli mutta hän ovat joka kun niin tai myös kuin jos voi sen tämä mitä",
    "tur_Latn": "bir ve bu da de için ile ne o çok gibi daha olarak kadar sonra en var ama olan değil ya her",
    "ron_Latn": "de și în a la cu pe nu din să care un o este mai pentru sunt că ce se fost au sau prin",
    "cat_Latn": "de la i el que a en els per les un amb una del és no es al com més són aquest pot dels ha",
    "vie_Latn": "và của là có không các được cho trong một với này người những để khi đã từ cũng như",
    "ind_Latn": "yang dan di untuk dengan dari ini pada dalam itu adalah tidak akan ke atau oleh dapat anda",
    "rus_Cyrl": "и в не на что с по как это для из к от он а но или его она если при же все так вы может",
    "ukr_Cyrl": "і в не на що з до як це для у та від він за але або його є ви якщо при щоб цей може",
    "bul_Cyrl": "на и да се в за е от не са по с че като това си което или при може той ако като тази",
    "srp_Cyrl": "и у је да се на за од са не као су што који или то до по би може није али које овај",
    "pes_Arab": "و در به از که این را با است برای آن یک تا می شود بر های شما خود یا",
    "urd_Arab": "کے میں کی ہے سے اور کا کو پر ہیں نے یہ کہ ایک لئے جو بھی آپ کر نہیں",
    "arb_Arab": "في من على أن إلى هذا عن التي مع لا ما هو كان ذلك أو بعد الذي هذه",
}  # fmt: skip
_BY_WORD: dict[str, list[str]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _BY_WORD.setdefault(_word, []).append(_language)


def guess_language(text: str) -> str:
    """Return the FLORES-200 code of the language that the first 4,000 characters of ``text`` are most likely in.

    The script decides; among languages of one script the one whose function words are the most frequent, and where none
    occur the most widely written one. A text without letters counts as English.
    """
    sample = text[:_SAMPLE]
    script = "Latin"
    if _ASCII_TEXT.fullmatch(sample) is None:
        counts: Counter[str] = Counter()
        for match in _SCRIPT.finditer(sample):
            counts[match.lastgroup] += len(match[0])
        kana = len(_KANA.findall(sample))
        counts["Han"] = 3 * (counts["Han"] + kana)  # one character says as much as about three letters
        if counts["Han"] and counts["Han"] >= max(counts.values()):
            return "jpn_Jpan" if 30 * kana >= counts["Han"] else "zho_Hans"
        if counts:
            script = max(counts, key=lambda name: counts[name])
    scores: Counter[str] = Counter()
    suffix = _SCRIPTS[script][3:]
    for word in _WORD.findall(sample.lower()):
        for language in _BY_WORD.get(word, ()):
            if language.endswith(suffix):
                # A word that several languages share says less.
                scores[language] += 12 // len(_BY_WORD[word])
    return max(scores, key=lambda language: scores[language]) if scores else _SCRIPTS[script]


__all__ = ["guess_language"]
