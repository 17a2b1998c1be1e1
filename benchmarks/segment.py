"""Speed and accuracy of the segmenters, in one run.

Accuracy is F1 of sentence boundaries on two small sets of hard cases that lie beside the tests; speed is CPU time on
one core, for ordinary and for hostile text. ``--type pysbd`` measures another segmenter.
"""

from __future__ import annotations

import argparse
import re
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencex

from largeconcept.segment import build_segmenter

CASES = Path(__file__).parent.parent / "tests" / "unit" / "segment"
ENGLISH = (
    "The harbour was quiet when the boat came in. Nobody had expected it before the evening, and Dr. Hale was asleep. "
    "An old man was mending a net; he did not look up. Why should he? It was 5 p.m. and the dog knew. "
)
GERMAN = "Der Hafen war still, als das Boot kam. Niemand hatte es z. B. am 3. Mai erwartet. Warum auch? "
CHINESE = "船来的时候，港口很安静。没有人想到它会在傍晚之前来到。“为什么？”他问。老人正在补网。"
HINDI = "नाव आई तो बंदरगाह शांत था। किसी ने शाम से पहले इसकी उम्मीद नहीं की थी। क्यों? "


def cases(path: Path) -> Iterator[tuple[str, str, set[int]]]:
    """Language, text, and where each sentence but the last ends."""
    lang = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            lang = heading[1]
        elif line and not line.startswith("#"):
            space = " " if " | " in line else ""
            sentences = [part.strip() for part in line.split("|")]
            ends, position = set(), -len(space)
            for sentence in sentences[:-1]:
                position += len(space) + len(sentence)
                ends.add(position)
            yield lang, space.join(sentences), ends


def library_alone(text: str, lang: str | None) -> set[int]:
    ends, position = set(), 0
    for sentence in sentencex.segment(lang or "en", text):
        position += len(sentence)
        ends.add(position - len(sentence) + len(sentence.rstrip()))
    return ends


def report_accuracy(name: str, find: Callable[[str, str | None], set[int]], guess: bool = False) -> None:
    for path in sorted(CASES.glob("*_cases.txt")):
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for lang, text, gold in cases(path):
            found = find(text, None if guess else lang) - {len(text)}
            for index, number in enumerate((len(found & gold), len(found - gold), len(gold - found))):
                counts[lang][index] += number
        right, wrong, missed = (sum(row[i] for row in counts.values()) for i in range(3))
        f1 = {lang: 200 * r / (2 * r + w + m) for lang, (r, w, m) in counts.items() if r + w + m}
        low = ", ".join(f"{lang} {value:.0f}" for lang, value in f1.items() if value < 100)
        total = 200 * right / (2 * right + wrong + missed)
        print(f"{name:28} {path.stem:13} {right + missed:4d} boundaries  F1 {total:5.1f}   below 100: {low}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", default="rule", choices=["rule", "pysbd", "sat"])
    parser.add_argument("--chars", type=int, default=1_000_000)
    arguments = parser.parse_args()
    uncapped = build_segmenter({"type": arguments.type, "max_chars": None})

    def find(text: str, lang: str | None) -> set[int]:
        return {span.end for span in uncapped.segment(text, lang)}

    report_accuracy(arguments.type, find)
    report_accuracy(f"{arguments.type}, language guessed", find, guess=True)
    report_accuracy("sentencex alone", library_alone)

    segmenter = build_segmenter({"type": arguments.type})
    size = arguments.chars
    paragraph = (ENGLISH * 3).strip() + "\n\n"
    wrapped = textwrap.fill((ENGLISH * 3).strip(), 76) + "\n\n"
    texts = {
        "English, paragraphs": ("en", paragraph),
        "English, hard-wrapped": ("en", wrapped),
        "English, one line": ("en", ENGLISH),
        "German, one line": ("de", GERMAN),
        "Chinese, one line": ("zh", CHINESE),
        "Hindi, one line": ("hi", HINDI),
        "no space anywhere": ("en", "a"),
        "a letter a line": ("en", "a\n"),
        "flags": ("en", "\U0001f1e9\U0001f1ea"),
        "combining marks": ("en", "a\u0301"),
        "NUL": ("en", "\0"),
    }
    segmenter.segment(ENGLISH, "en")
    for name, (lang, unit) in texts.items():
        text = (unit * (size // len(unit) + 1))[:size]
        begin = time.process_time()
        spans = segmenter.segment(text, lang)
        took = time.process_time() - begin
        print(f"{name:28} {len(text) / 1e6 / took:6.2f} Mchar/s  {len(spans) / took:9,.0f} sentences/s")


if __name__ == "__main__":
    main()
