"""What was wanted of the model that ships, what it reaches, and by how much it misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results_parts.inputs import SHORT
from results_parts.text import Scores, figure, number, pooled, shares

Results = Mapping[str, Mapping[str, Any]]
"""Part → what was measured in it."""
ENOUGH = 100
"""Pairs below which a retrieval error says little."""
AUTO_BLEU, XSIM, TOKEN_LM, ZERO_SHOT = 70.0, 5.0, 90.0, 80.0
ENGLISH = "eng_Latn"


@dataclass(frozen=True)
class Target:
    """One row of the first table.

    Attributes:
        name: what is wanted.
        reached: what was measured, in words; ``None`` if it was not.
        missed: how much is missing, above 0 where the target is missed.
        unit: of what is missing.
        sure: whether the interval leaves no doubt.
    """

    name: str
    reached: str | None = None
    missed: float = 0.0
    unit: str = ""
    sure: bool = True

    @property
    def verdict(self) -> str:
        """Return met or by how much not, in words."""
        if self.reached is None:
            return "not measured"
        if self.missed > 0:
            digits = 1 if self.missed >= 0.05 else 3
            return f"**missed by {number(self.missed, digits)}{self.unit}**" + ("" if self.sure else ", within chance")
        return "met" if self.sure else "met, within chance"


def targets(results: Results) -> list[Target]:
    """Return all targets, in their order."""
    return [_auto_bleu(results), _xsim(results), *_baselines(results), _token_lm(results), _zero_shot(results)]


def searched(results: Results, space: str = "ours", kind: str = "margin") -> dict[tuple[str, str], Scores]:
    """Return the retrieval error of each two languages with enough pairs, in per cent."""
    pairs = results["search"]["pairs"] if "search" in results else {}
    found = {}
    for key, one in pairs.items():
        left, right = key.split()
        if one["n"] >= ENOUGH and space in one and kind in one[space]:
            found[left, right] = one[space][kind]["both"]
    return found


def summaries(results: Results, task: str = "summarize") -> dict[str, Mapping[str, Any]]:
    """Return language → items of a task of writing."""
    languages = results["writing"]["languages"] if "writing" in results else {}
    return {lang: one["items"][task] for lang, one in languages.items() if task in one["items"]}


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def _beside(results: Results, other: str) -> tuple[list[Mapping[str, Any]], str]:
    """Return the summaries of each language that has them of another predictor too, and in how many that is so."""
    every = list(summaries(results).values())
    known = [one for one in every if other in one]
    return known, "" if len(known) == len(every) else f" (in {len(known)} of {len(every)} languages)"


def _least(name: str, score: Scores, wanted: float, unit: str = "") -> Target:
    """At least so much is wanted."""
    sure = score["low"] >= wanted or score["high"] < wanted
    return Target(name, figure(score, 1, unit), max(0.0, wanted - score["value"]), unit, sure)


def _auto_bleu(results: Results) -> Target:
    name = f"English auto-BLEU ≥ {AUTO_BLEU:g}, sentences of at most {SHORT} characters"
    one = results.get("round_trip", {}).get("classes", {}).get("short", {}).get(ENGLISH)
    return Target(name) if not one or not one["n"] else _least(name, one["scores"]["auto_bleu"], AUTO_BLEU)


def _xsim(results: Results) -> Target:
    name = f"xsim error ≤ {XSIM:g} %, mean over language pairs"
    found = searched(results)
    if not found:
        return Target(name)
    values = {pair: one["value"] for pair, one in found.items()}
    met = sum(value <= XSIM for value in values.values())
    reached = f"{number(mean(list(values.values())))} %; {met} of {len(values)} pairs of languages are within"
    meaning = searched(results, "meaning")
    if meaning:
        reached += f"; by meaning alone {number(mean([one['value'] for one in meaning.values()]))} %"
    return Target(name, reached, max(0.0, mean(list(values.values())) - XSIM), " points")


def _baselines(results: Results) -> list[Target]:
    found = []
    for other, words in (("lead_1", "the first sentence (lead-1)"), ("nearest_train", "the nearest training text")):
        name = f"ROUGE-L of summaries above {words}"
        groups, among = _beside(results, other)
        if not groups:
            found.append(Target(name))
            continue
        own, its = (pooled(groups, who, "rouge_l") for who in ("model", other))
        apart = pooled(groups, "model", "rouge_l", other)
        reached = f"{figure(own)} against {figure(its)}{among}"
        sure = not apart["low"] <= 0 <= apart["high"]
        # Equal is not above: what is missing is said to be more than nothing.
        missed = 0.0 if apart["value"] > 0 else max(-apart["value"], 1e-3)
        found.append(Target(name, reached, missed, "", sure))
    return found


def _token_lm(results: Results) -> Target:
    name = f"ROUGE-L of summaries ≥ {TOKEN_LM:g} % of the matched token model's"
    groups, among = _beside(results, "token_lm")
    if not groups:
        return Target(name)
    whole = {
        "ids": [id for one in groups for id in one["ids"]],
        **{
            who: {"rouge_l": [value for one in groups for value in one[who]["rouge_l"]]}
            for who in ("model", "token_lm")
        },
    }
    found = _least(name, shares([whole], whole, "model", "rouge_l", "token_lm"), TOKEN_LM, " %")
    return replace(found, reached=f"{found.reached}{among}")


def _zero_shot(results: Results) -> Target:
    name = f"Zero-shot summaries in other languages: ROUGE-L ≥ {ZERO_SHOT:g} % of that in English"
    known = {lang: one["items"] for lang, one in results.get("zero_shot", {}).items() if "items" in one}
    others = [one for lang, one in known.items() if lang != ENGLISH]
    if ENGLISH not in known or not others:
        return Target(name)
    return _least(name, shares(others, known[ENGLISH], "model", "rouge_l"), ZERO_SHOT, " %")
