"""Sentences that differ from a sentence in one fact: another number, another name, a negation more or less.

A codec that keeps the subject of a sentence but not its facts finds the right translation among sentences of other
subjects, and not among these. The idea is that of xsim++ (arXiv:2306.12907, section 3), which takes its replacements
from a knowledge of entities and an antonym dictionary of English.

Note: here numbers are changed digit by digit, names are words with a capital letter inside a sentence (in German that
is any noun) and are swapped for those of other sentences, and negations come from short lists for seven languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import regex

Kind = Literal["number", "name", "negation"]
KINDS: tuple[Kind, ...] = ("number", "name", "negation")
_NUMBER = regex.compile(r"\p{Nd}+")
# A capital that does not begin the sentence, or a sentence within it.
_NAME = regex.compile(r"(?<=[\p{L}\p{N},;)]\s)\p{Lu}[\p{L}\p{M}]+")


@dataclass(frozen=True, slots=True)
class HardNegative:
    """A changed sentence, and what was changed in it."""

    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Negation:
    """How a language negates.

    Attributes:
        remove: (pattern, replacement); the first that applies turns a negated sentence around.
        verbs: verbs that are often negated.
        add: what such a verb becomes, ``{}`` being the verb.
    """

    remove: tuple[tuple[str, str], ...]
    verbs: str
    add: str


_NEGATIONS: dict[str, _Negation] = {
    "eng_Latn": _Negation(
        (
            (r"\bcan(?:['’]t|not)\b", "can"),
            (r"\bwon['’]t\b", "will"),
            (r"\b(is|are|was|were|do|does|did|has|have|had|could|should|would|must)n['’]t\b", r"\1"),
            (r"\bnot ", ""),
            (r"\bnever\b", "always"),
        ),
        "is|are|was|were|will|can|could|should|would|must|may|has|have|had",
        "{} not",
    ),
    "deu_Latn": _Negation(
        ((r"\bnicht ", ""), (r"\b([Kk])ein(e[mnrs]?)?\b", r"ein\2"), (r"\bnie\b", "immer")),
        "ist|sind|war|waren|wird|werden|wurde|kann|können|muss|müssen|soll|sollte|hat|haben|hatte",
        "{} nicht",
    ),
    "fra_Latn": _Negation(
        ((r"\b[Nn]e (\p{L}+) (?:pas|plus|jamais)\b", r"\1"), (r"\b[Nn]['’](\p{L}+) (?:pas|plus|jamais)\b", r"\1")),
        "est|sont|était|étaient|peut|peuvent|doit|doivent|sera|seront|fut|avait",
        "ne {} pas",
    ),
    "spa_Latn": _Negation(
        ((r"\b[Nn]o ", ""), (r"\bnunca\b", "siempre")),
        "es|son|era|eran|fue|está|están|puede|pueden|debe|deben|tiene|será|ha|han",
        "no {}",
    ),
    "ita_Latn": _Negation(
        ((r"\b[Nn]on ", ""), (r"\bmai\b", "sempre")),
        "è|sono|era|erano|può|possono|deve|devono|ha|hanno|sarà",
        "non {}",
    ),
    "por_Latn": _Negation(
        ((r"\b[Nn]ão ", ""), (r"\bnunca\b", "sempre")),
        "é|são|era|foi|está|estão|pode|podem|deve|devem|tem|será",
        "não {}",
    ),
    "nld_Latn": _Negation(
        ((r"\bniet ", ""), (r"\bgeen\b", "een"), (r"\bnooit\b", "altijd")),
        "is|zijn|was|waren|wordt|worden|kan|kunnen|moet|moeten|heeft|hebben",
        "{} niet",
    ),
}


def names_in(sentence: str) -> list[str]:
    """Return the words of a sentence that look like names, each once."""
    return list(dict.fromkeys(_NAME.findall(sentence)))


def hard_negatives(
    sentence: str, lang: str | None, names: Sequence[str] = (), *, most: int = 2, seed: int = 0
) -> list[HardNegative]:
    """Return sentences with one fact changed; none where nothing can be changed.

    Args:
        sentence: the sentence.
        lang: its FLORES-200 code, for negations.
        names: words to take for its names, those of other sentences in its language.
        most: changed sentences of a kind at most.
        seed: of the draws, together with the sentence itself.
    """
    draw = Random(f"{seed} {sentence}")
    made = [
        *(HardNegative(text, "number") for text in _numbers(sentence, draw)[:most]),
        *(HardNegative(text, "name") for text in _names(sentence, names, draw)[:most]),
        *(HardNegative(text, "negation") for text in _negations(sentence, lang)[:most]),
    ]
    return [one for one in {one.text: one for one in made}.values() if one.text != sentence]


def _numbers(sentence: str, draw: Random) -> list[str]:
    found = []
    for match in _NUMBER.finditer(sentence):
        digits = match.group()
        other = digits
        while other == digits:
            first = "123456789" if digits[0] != "0" or len(digits) == 1 else "0123456789"
            other = draw.choice(first) + "".join(draw.choice("0123456789") for _ in digits[1:])
        found.append(sentence[: match.start()] + other + sentence[match.end() :])
    draw.shuffle(found)
    return found


def _names(sentence: str, names: Sequence[str], draw: Random) -> list[str]:
    own = names_in(sentence)
    others = sorted(set(names) - set(own))
    if not others:
        return []
    draw.shuffle(own)
    return [_swapped(sentence, name, draw.choice(others)) for name in own]


def _swapped(sentence: str, name: str, other: str) -> str:
    return str(regex.sub(rf"\b{regex.escape(name)}\b", lambda _: other, sentence))


def _negations(sentence: str, lang: str | None) -> list[str]:
    known = _NEGATIONS.get(lang or "")
    if known is None:
        return []
    for pattern, replacement in known.remove:
        if regex.search(pattern, sentence):
            return [regex.sub(pattern, replacement, sentence, count=1)]
    match = regex.search(rf"\b({known.verbs})\b", sentence)
    if match is None:
        return []
    verb = match.group()
    negated = known.add.format(verb)
    if lang == "fra_Latn" and verb[0] in "aeéiouh":
        negated = f"n’{verb} pas"
    return [sentence[: match.start()] + negated + sentence[match.end() :]]
