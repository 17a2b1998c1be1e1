"""Corrections to what the rule library finds: boundaries that cannot be, and some that it misses.

All are local: they look at a few characters around a place, and hold for any language unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

_CLOSING = r"[\"'”’»›)\]」』]"
_OPENING = r"[\"'“„«‹(\[¿¡]"

# Abbreviations that stand before a number: page, number, figure, volume, clock, street, verse …
_BEFORE_NUMBER = regex.compile(
    r"(?<!\p{L})(?:pp?|pgs?|pags?|págs?|pág|ss|S|Abb|Abs|Abschn|Anm|Art|art|arts|Aufl|ayet|Bd|Bde|bl|blz|bls|bol|cap|caps"
    r"|cáp|cf|ch|chap|chs|cit|ca|Ca|č|čl|ed|eds|eq|Eq|Eqs|f|fasc|fig|figs|Fig|Figs|fol|Gl|Hft|hl|kap|Kap|kl|Kl|l|lib|n"
    r"|nn|no|nos|No|Nos|nr|Nr|Nrn|num|núm|núms|nº|obr|par|Par|pkt|pt|Pt|poz|Rn|rozdz|rys|sec|Sec|sect|sez|sid|Sp"
    r"|st|str|Str|strony|t|tab|Tab|tabl|tav|tel|Tel|tít|tom|v|Vers|Vol|vol|vols|vv|vyd|Z|Ziff|zob|zv"
    r"|гл|д|ж|илл|кв|корп|л|м|оф|п|пп|разд|рис|ред|с|см|ср|ст|стр|т|табл|тел|тт|ул|ч|σ|σελ|αρ|εικ)\.$"
)
# Abbreviations that stand before a name.
_BEFORE_NAME = regex.compile(
    r"(?<!\p{L})(?:Mr|Mrs|Ms|Mx|Messrs|Dr|Drs|Dra|Drª|Prof|Profs|Rev|Hon|Gen|Col|Lt|Sgt|Capt|Cpt|Cmdr|St|Ste|Sr|Sra|Srta"
    r"|Jr|Gov|Sen|Rep|Pres|M|MM|Mme|Mlle|Mmes|Mlles|Mgr|Me|Sig|sig|Sigg|dott|Dott|prof|avv|Avv|ing|Ing|arch|on|Hr|Fr"
    r"|Frl|Hrn|Dipl|Mag|Hl|Dhr|dhr|mevr|Mevr|Mw|mw|drs|mr|ds|ir|gen|płk|inż|hab|kard|ks|bp|abp|św|Bc|MUDr|JUDr"
    r"|RNDr|PhDr|doc|sv|Sv|dr|д-р|проф|акад|доц|ген|гр|св|пл|κ|κα|κ\.κ|δρ|D|Da|Dña|Excmo|Ilmo|Ud|Uds)\.$"
)
# Enumerations end with these, and so may a sentence.
_MAYBE_LAST = regex.compile(
    r"(?:(?<!\p{L})(?:etc|usw|u\.\s?s\.\s?w|ecc|enz|itd|itp|atd|apod|tj|osv|o\.s\.v|m\.m|m\.fl|jne|ym|stb|vb|vs|ş\.b"
    r"|κ\.\s?λπ|κ\.\s?ά|т\.\s?[дп]|др|пр|и\s?др)\.|[\w-]{2,}\.[\w-]{2,}\.|\b[Nn]o\.|\.\.\.|…)$"
)
_STOP = regex.compile(rf"[.…]{_CLOSING}*\s+(?={_OPENING}*(?!I\b)\p{{Lu}})")
_BRACKETED = regex.compile(rf"[.!?…][)\]]\s+(?={_OPENING}*\p{{Lu}})")
_CAPITAL = regex.compile(r"\p{Lu}")
_SMALL_NEXT = regex.compile(rf"(?:[–—-]\s*)?{_OPENING}*\p{{Ll}}")
_CLOSED_QUOTE = regex.compile(rf"[.!?…]{_CLOSING}+$")
_JOINED_INITIALS = regex.compile(r"(?<!\p{L})\p{Lu}\p{Ll}?\.-\p{Lu}\.$")
_NUMERAL = regex.compile(r"(?<![\d.,])(?:\d{1,3}|[IVX]+)\.$")
_FIRST_WORD = regex.compile(rf"{_OPENING}*(\p{{L}}+)")
# What follows a closing quote and shows that the sentence goes on.
_JAPANESE_ON = regex.compile(r"(?:と|って|などと|という|とか|の|を|に|は|が|も|で|へ|から|まで|なんて|だ|です|，|、)")
_CHINESE_SAID = regex.compile(r"[^。！？，、；：“”「」]{0,6}?[问問说說道喊叫答想][道着著]?[。，！？：、]")

# German writes every noun with a capital, so that a capital alone does not show a new sentence; these words do.
_GERMAN_OPENERS = (
    "Aber Alle Allerdings Als Also Am An Andere Auch Auf Aus Außerdem Bei Beide Beim Bis Bitte Da Dabei Dadurch Dafür"
    " Dagegen Daher Damals Damit Danach Daneben Dann Daran Darauf Daraus Darin Darüber Darum Das Dass Davon Davor Dazu"
    " Dem Den Denn Dennoch Der Deren Des Deshalb Dessen Die Dies Diese Diesem Diesen Dieser Dieses Doch Dort Du Durch"
    " Ein Eine Einem Einen Einer Eines Einige Er Erst Es Etwa Falls Für Ganz Gegen Geben Gibt Hat Heute Hier Hierzu Ich"
    " Ihm Ihn Ihnen Ihr Ihre Ihren Im Immer In Indem Infolge Ist Ja Jede Jedem Jeden Jeder Jedes Jedoch Jetzt Kann Kein"
    " Keine Kommt Man Manche Manchmal Mehr Mein Meine Mit Nach Nachdem Natürlich Nein Nicht Nichts Noch Nun Nur Ob"
    " Obwohl Oder Oft Ohne Schließlich Schon Sehr Sein Seine Seit Sie Siehe Sind So Sobald Somit Sondern Später Statt"
    " Trotz Trotzdem Über Um Und Uns Unser Unsere Unter Viele Vielleicht Vom Von Vor Während War Waren Warum Was Weil"
    " Weiter Welche Wenn Wer Werden Wie Wieder Will Wir Wird Wo Wurde Zu Zuerst Zum Zunächst Zur Zwar Zwischen"
)
_GERMAN_OPENING = frozenset(_GERMAN_OPENERS.split())


def correct(text: str, starts: Sequence[int], lang: str) -> list[int]:
    """Return the starts of sentences without those that cannot be one, and with some that were missed.

    Args:
        text: the text, a few hundred characters of a paragraph.
        starts: where a library lets sentences begin, ascending, without the first.
        lang: FLORES-200 code.
    """
    capitals = _CAPITAL.search(text) is not None  # else a small letter says nothing: some people write without
    kept = {start for start in starts if not _goes_on(text, start, lang, capitals)}
    for match in _STOP.finditer(text):
        stop, start = match.start() + 1, match.end()
        if start in kept or not _MAYBE_LAST.search(text[max(0, stop - 24) : stop]):
            continue
        if lang != "deu_Latn" or _opens_german_sentence(text, start):
            kept.add(start)
    result: list[int] = []
    bracketed = {match.end() for match in _BRACKETED.finditer(text)} - kept
    for start in sorted(kept | bracketed):
        if start in kept or text[result[-1] if result else 0] in "([":
            result.append(start)  # a sentence in brackets ends with its bracket
    return [start for start in result if 0 < start < len(text)]


def _goes_on(text: str, start: int, lang: str, capitals: bool) -> bool:
    """Return whether the sentence before ``start`` goes on there."""
    head = text[max(0, start - 24) : start]
    before = head.rstrip()
    after = text[start : start + 24]
    if before.endswith("."):
        if len(before) == len(head) and (after[:1].isalnum() or after[:1] in "-–_/@"):
            return not _is_cjk(after[0])  # inside a word
        if capitals and _SMALL_NEXT.match(after):
            return True
        if after[:1].isdigit() and _BEFORE_NUMBER.search(before):
            return True
        if _JOINED_INITIALS.search(before):
            return True
        if _BEFORE_NAME.search(before) and not before.endswith((" M.", " D.")):
            return True
        if lang == "fra_Latn" and regex.search(r"(?<!\p{L})M\.$", before):
            return True
        return lang == "deu_Latn" and bool(_NUMERAL.search(before)) and not _opens_german_sentence(text, start)
    if _CLOSED_QUOTE.search(before):
        return _SMALL_NEXT.match(after) is not None
    if lang == "jpn_Jpan" and before.endswith(("」", "』")):
        return _JAPANESE_ON.match(after) is not None
    if lang.startswith(("zho", "yue")) and before.endswith(("”", "」", "』")):
        return _CHINESE_SAID.match(after) is not None
    return False


def _opens_german_sentence(text: str, position: int) -> bool:
    word = _FIRST_WORD.match(text, position)
    return word is not None and word[1] in _GERMAN_OPENING


def _is_cjk(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3"


__all__ = ["correct"]
