"""How a model that was not tuned to a task is asked for it: by a sentence after the text, as a person would go on.

GPT-2 summarised after ``TL;DR:`` (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section
3.6). The sentence is in the language that is to be written, which is all that tells a token model which one is meant.
"""

from __future__ import annotations

from typing import Literal

from largeconcept.generate.texts import DEFAULT_LANGUAGE

QUESTIONS: dict[str, dict[str, str]] = {
    "summarize": {
        "ces_Latn": "Stručně řečeno:",
        "dan_Latn": "Kort sagt:",
        "deu_Latn": "Kurz gesagt:",
        "eng_Latn": "In short:",
        "fra_Latn": "En bref :",
        "ita_Latn": "In breve:",
        "jpn_Jpan": "要するに：",
        "kor_Hang": "요약하면:",
        "nld_Latn": "Kortom:",
        "pol_Latn": "W skrócie:",
        "por_Latn": "Em resumo:",
        "rus_Cyrl": "Короче говоря:",
        "slk_Latn": "Stručne povedané:",
        "spa_Latn": "En resumen:",
        "swe_Latn": "Kort sagt:",
        "ukr_Cyrl": "Коротше кажучи:",
        "zho_Hans": "简而言之：",
    },
    "expand": {
        "ces_Latn": "Podrobně:",
        "dan_Latn": "I detaljer:",
        "deu_Latn": "Ausführlich:",
        "eng_Latn": "In detail:",
        "fra_Latn": "En détail :",
        "ita_Latn": "In dettaglio:",
        "jpn_Jpan": "詳しくは：",
        "kor_Hang": "자세히:",
        "nld_Latn": "In detail:",
        "pol_Latn": "Szczegółowo:",
        "por_Latn": "Em detalhe:",
        "rus_Cyrl": "Подробно:",
        "slk_Latn": "Podrobne:",
        "spa_Latn": "En detalle:",
        "swe_Latn": "I detalj:",
        "ukr_Cyrl": "Докладно:",
        "zho_Hans": "具体来说：",
    },
}
"""Task -> language -> what stands after the text."""


def question(task: Literal["summarize", "expand"], lang: str, *, cross_lingual: bool = False) -> str | None:
    """Return what asks for a text in a language.

    Args:
        task: what is asked for.
        lang: of what is to be written.
        cross_lingual: whether the text that is read is in another language. Then only a question in ``lang`` will do;
            else one in English stands for those that are missing.
    """
    known = QUESTIONS[task]
    return known.get(lang) if cross_lingual else known.get(lang, known[DEFAULT_LANGUAGE])


__all__ = ["QUESTIONS", "question"]
