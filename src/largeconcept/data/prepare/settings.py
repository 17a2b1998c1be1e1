"""Every choice about the training data of a model in one object; the defaults are those of the shipped model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from largeconcept.config import Config
from largeconcept.languages import flores

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]

SHARES = {"man": 0.5, "linuxdoc": 0.4, "pydoc": 0.4, "lilypond": 0.6, "anarchism": 0.7}
WEIGHTS = {
    "wesnoth": 2.0, "lohelp": 1.5, "gnome": 1.5, "kde": 1.5, "debhandbook": 1.5, "bible": 1.5, "commentary": 1.5,
    "austen": 2.0, "ddtp": 0.5, "man": 0.5, "linuxdoc": 0.4, "pydoc": 0.4, "lilypond": 0.6, "anarchism": 0.7,
}  # fmt: skip
LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "ita_Latn", "por_Latn")


class NearDuplicateConfig(Config):
    """What is too much like a held-out document to be trained on.

    Attributes:
        width: words of a shingle.
        bands, rows: shape of the MinHash signatures; see :mod:`largeconcept.data.prepare.near_duplicates`.
        similarity: exact Jaccard similarity of the shingles from which on a training document is left out.
        sentence_share: a document goes, too, when this share of its sentences stands in held-out documents.
        sentence_words: a sentence of at least so many words that stands in a held-out document leaves the documents
            that stay. Shorter ones are everybody's ("This package contains the documentation."): without them a model
            would not learn what is common. The codec's sentences are stricter: there no held-out sentence stays.
    """

    width: int = Field(5, ge=1)
    bands: int = Field(42, ge=1)
    rows: int = Field(3, ge=1)
    similarity: float = Field(0.5, gt=0, le=1)
    sentence_share: float = Field(0.5, gt=0, le=1)
    sentence_words: int = Field(8, ge=1)


class PairConfig(Config):
    """Which translation pairs are used.

    Attributes:
        exclude: sources whose pairs are not: their translations follow another version of the text.
        teacher: an encoder of sentences (:func:`largeconcept.codec.encoders.open_encoder`); pairs whose vectors are
            further apart than ``min_cosine`` are left out. Languages that the encoder is known not to read are not
            judged by it. ``None`` keeps all pairs.
        min_cosine: the least cosine of a pair.
        min_cosine_of: the same for single sources, where translations are freer.
    """

    exclude: tuple[str, ...] = ("crawl",)
    teacher: str | None = None
    min_cosine: float = Field(0.5, ge=-1, le=1)
    min_cosine_of: Mapping[str, float] = Field({"wesnoth": 0.4, "bible": 0.4})


class VocabularyConfig(Config):
    """The codec's SentencePiece model.

    Attributes:
        model: a ``.model`` file to use as it is; ``None`` trains one.
        size: pieces.
        sentences: sentences of each language to train on.
        sentences_of: the same for single languages.
    """

    model: str | None = None
    size: int = Field(12288, ge=300, le=65536)
    sentences: int = Field(65_000, ge=1)
    sentences_of: Mapping[str, int] = Field({"eng_Latn": 130_000})


class PrepareConfig(Config):
    """How a corpus becomes training data.

    Attributes:
        languages: FLORES-200 codes (BCP-47 is understood); their order is that of the codec's languages.
        min_chars, max_chars: sentences of the codec. Longer ones are cut as a segmenter cuts them, so that the codec
            sees the pieces that a Large Concept Model will ask of it.
        max_tokens: longer sentences are not in the codec's table.
        shares: source to the share of its sentences that the codec sees; 1 where not named. Reference manuals of one
            style would crowd out prose.
        weights: source to the weight of its concepts in the mixture of documents; 1 where not named. Stories, help and
            books count for more than lists of packages and manual pages.
        language_exponent: languages are mixed in proportion to (concepts)^exponent; 1 as they come, 0 evenly.
        near_duplicates, pairs, vocabulary: see there.
    """

    languages: tuple[str, ...] = LANGUAGES
    min_chars: int = Field(8, ge=1)
    max_chars: int = Field(200, ge=8)
    max_tokens: int = Field(128, ge=8)
    shares: Mapping[str, Share] = Field(SHARES)
    weights: Mapping[str, Weight] = Field(WEIGHTS)
    language_exponent: float = Field(0.5, ge=0, le=1)
    near_duplicates: NearDuplicateConfig = NearDuplicateConfig()
    pairs: PairConfig = PairConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()

    @field_validator("languages")
    @classmethod
    def _codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one language")
        return tuple(dict.fromkeys(flores(code) for code in value))

    @model_validator(mode="after")
    def _lengths_fit(self) -> PrepareConfig:
        if self.min_chars > self.max_chars:
            raise ValueError("min_chars is more than max_chars")
        return self
