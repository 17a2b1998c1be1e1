"""From a corpus to training data: ``prepare_corpus(corpus, out)``. See ``docs/corpus.md``."""

from largeconcept.data.prepare.job import PrepareReport, prepare_corpus
from largeconcept.data.prepare.settings import LANGUAGES, PrepareConfig
from largeconcept.data.prepare.splits import document_key, split_of

__all__ = ["LANGUAGES", "PrepareConfig", "PrepareReport", "document_key", "prepare_corpus", "split_of"]
