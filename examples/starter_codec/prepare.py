"""Prepare the training data of the starter codec: vocabulary and sentence table from a full corpus.

    python examples/starter_codec/prepare.py DOCUMENTS.jsonl.xz PAIRS.tsv.xz --out runs/starter
    largeconcept codec train --config examples/starter_codec/config.yaml --out runs/starter --int8 DOCUMENTS.jsonl.xz

The corpus is what ``largeconcept data corpus debian`` makes. Documents whose key is 13 modulo 40 are held out, in every
language at once and sentence by sentence: the test part of the sample corpus is cut from them. Reference pages of one
style are thinned, so that they do not crowd out prose.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import random
from collections import defaultdict
from pathlib import Path

from largeconcept.codec.tokenizer import Tokenizer, clean
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.languages import flores
from largeconcept.train.codec_job import read_pairs

LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn")
SHARES = {"man": 0.5, "linuxdoc": 0.4, "pydoc": 0.4, "lilypond": 0.6, "anarchism": 0.7}
VOCABULARY_SAMPLE = {"eng_Latn": 160_000}
SHORTEST, LONGEST = 8, 200


def held_out(source: str, identifier: str) -> bool:
    """Tell whether a document belongs to the part no codec trains on; all translations of one share the answer."""
    if source == "bible":
        identifier = identifier.split(":", 1)[1]
    return int(hashlib.sha1(f"{source}/{identifier}".encode()).hexdigest(), 16) % 40 == 13


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=10240)
    arguments = parser.parse_args()
    random.seed(0)
    sentences: dict[str, dict[str, str]] = defaultdict(dict)
    held: set[str] = set()
    with lzma.open(arguments.documents, "rt", encoding="utf-8") as file:
        for line in file:
            document = json.loads(line)
            lang = flores(document["lang"].replace("_", "-"))
            if lang not in LANGUAGES:
                continue
            apart = held_out(document["src"], document["id"])
            for text in map(clean, document["sents"]):
                if not SHORTEST <= len(text) <= LONGEST:
                    continue
                if apart:
                    held.add(text)
                else:
                    sentences[lang].setdefault(text, document["src"])
    kept = [
        (lang, text)
        for lang, found in sentences.items()
        for text, source in found.items()
        if text not in held and random.random() < SHARES.get(source, 1.0)
    ]
    pairs = [
        (la, a, lb, b)
        for la, a, lb, b in ((la, clean(a), lb, clean(b)) for la, a, lb, b in read_pairs([arguments.pairs]))
        if lb in LANGUAGES and {a, b}.isdisjoint(held) and all(SHORTEST <= len(t) <= LONGEST for t in (a, b))
    ]
    by_language: dict[str, list[str]] = defaultdict(list)
    for lang, text in kept:
        by_language[lang].append(text)
    sample: list[str] = []
    for lang, texts in by_language.items():
        sample += random.sample(texts, min(VOCABULARY_SAMPLE.get(lang, 90_000), len(texts)))
    tokenizer = Tokenizer.train(sample, arguments.vocab_size, num_threads=2)
    table = SentenceTable.build(tokenizer.encode, kept, pairs, languages=LANGUAGES, max_tokens=100)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(arguments.out / "tokenizer.model")
    table.save(arguments.out / "sentences.npz")
    tokens = int(table.offsets[-1])
    print(f"{len(table):,} sentences, {len(table.pairs):,} pairs, {tokens:,} tokens; {len(held):,} sentences held out")


if __name__ == "__main__":
    main()
