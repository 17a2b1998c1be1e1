"""The multilingual corpus, rebuilt from Debian packages: ``build_corpus(out)``. See ``docs/corpus.md``."""

from largeconcept.data.debian.build import CorpusReport, PartReport, build_corpus
from largeconcept.data.debian.parts import PARTS, Part

__all__ = ["PARTS", "CorpusReport", "Part", "PartReport", "build_corpus"]
