"""What a pipeline does to texts around the model: check, cut into sentences, translate, join, write.

Shape letters: n concepts, C concept dimension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from largeconcept.codec.rows import check_concepts
from largeconcept.config import Config
from largeconcept.data.affixes import encode_affixes
from largeconcept.errors import DataError, LanguageError, did_you_mean
from largeconcept.languages import flores
from largeconcept.types import Document

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.types import ConceptCodec, Segmenter

C = TypeVar("C", bound=Config)
DEFAULT_LANGUAGE = "eng_Latn"
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_SCRIPTS_WITHOUT_SPACES = ("Hans", "Hant", "Jpan")

TextInput = str | Document | Sequence[str]
"""One text: a string, a :class:`Document`, or its sentences."""


class DecodingOptions(Config):
    """How concepts are written: the arguments of ``ConceptCodec.decode``."""

    method: Literal["beam", "greedy", "sample"] = "beam"
    num_beams: int = Field(4, ge=1)
    max_length: int = Field(128, ge=1)
    batch_tokens: int = Field(8192, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None


def translate(
    text: str | Document | Sequence[str | Document],
    lang: str,
    *,
    segmenter: Segmenter,
    codec: ConceptCodec,
    input_lang: str | None = None,
    decoding: DecodingOptions | Mapping[str, Any] | None = None,
) -> str | list[str]:
    """Translate by encoding each sentence and decoding its concept in ``lang``; paragraphs stay paragraphs.

    Args:
        text: a string or a Document, or a list of them.
        lang: language to write.
        segmenter, codec: the two parts that are needed; there is no model in this.
        input_lang: language of the input, for a segmenter or codec that wants to know.
        decoding: options for writing.

    Returns:
        The translated text, or a list of them when a list was given.

    Raises:
        DataError: a text without a sentence, or with characters that are no text.
        LanguageError: an unknown language, or one that the codec cannot write.
    """
    import torch

    code = writable(codec, lang)
    options = as_config(DecodingOptions, decoding, "decoding")
    many = not isinstance(text, str | Document)
    documents = [as_document(text, "text")] if isinstance(text, str | Document) else as_documents(text)[0]
    pieces = [split(document, segmenter, input_lang, document.where or document.id) for document in documents]
    if not pieces:
        return []
    rows = [[sentence for sentence, _ in row] for row in pieces]
    concepts = encode_documents(codec, documents, rows, [input_language(input_lang, one) for one in documents])
    written = iter(codec.decode(torch.cat(concepts), code, **options.model_dump()))
    results = []
    for row in pieces:
        text_out, sentences = "", [next(written) for _ in row]
        space = sentence_space(code)
        for i, sentence in enumerate(sentences):
            gap = row[i][1]
            text_out += sentence if i == 0 else (gap if gap is not None else space) + sentence
        results.append(text_out)
    return results if many else results[0]


def encode_documents(
    codec: ConceptCodec,
    documents: Sequence[Document | None],
    rows: Sequence[Sequence[str]],
    languages: Sequence[str | None],
    prefix: Sequence[str] = (),
    suffix: Sequence[str] = (),
) -> list[Tensor]:
    """Encode sentences of each document in one call; what was heard keeps its concepts.

    A row of other sentences than those that its document begins or ends with (where a plan was put in front) is encoded
    as text. Affixes are encoded as datasets do it: each by itself, whatever the language of the document.

    Raises:
        DataError: concepts of a document that do not fit its sentences or the codec.
    """
    import torch

    heard = [_heard(document, row, codec.dim) for document, row in zip(documents, rows, strict=True)]
    read = [row if own is None else () for row, own in zip(rows, heard, strict=True)]
    encoded = encode_rows(codec, read, languages)
    bodies = [one if own is None else own.to(one) for one, own in zip(encoded, heard, strict=True)]
    if not prefix and not suffix:
        return bodies
    affixes = encode_affixes(codec, [*prefix, *suffix])
    before, after = ([affixes[text][None] for text in texts] for texts in (prefix, suffix))
    return [torch.cat([*before, body.float().cpu(), *after]) for body in bodies]


def _heard(document: Document | None, row: Sequence[str], dim: int) -> Tensor | None:
    """Return the concepts of a row of sentences, if its document has them and begins or ends with these sentences."""
    if document is None or document.concepts is None:
        return None
    concepts: Tensor = document.concepts
    check_concepts(concepts, dim)
    if len(concepts) != len(document.sentences):
        raise DataError(
            "not as many concepts as sentences",
            where=document.where or document.id,
            expected=len(document.sentences),
            got=len(concepts),
        )
    first = len(concepts) - len(row)
    if document.sentences[first:] == tuple(row):
        return concepts[first:].detach()
    return concepts[: len(row)].detach() if document.sentences[: len(row)] == tuple(row) else None


def encode_rows(codec: ConceptCodec, rows: Sequence[Sequence[str]], languages: Sequence[str | None]) -> list[Tensor]:
    """Encode rows of sentences in one call; ``languages`` has one code a row, used when all of them are known."""
    import torch

    flat = [sentence for row in rows for sentence in row]
    known = [code for row, code in zip(rows, languages) for _ in row if code is not None]
    if not flat:
        return [torch.zeros(0, codec.dim) for _ in rows]
    concepts = codec.encode(flat, known if len(known) == len(flat) else None)
    return list(torch.split(concepts, [len(row) for row in rows]))


def split(document: Document, segmenter: Segmenter, input_lang: str | None, where: str) -> list[tuple[str, str | None]]:
    """Return the sentences of a document, each with the break before it when it begins a paragraph.

    Raises:
        DataError: no sentence, NUL, or lone surrogates.
    """
    if document.sentences:
        starts = set(document.paragraph_starts) - {0}
        pieces = [(sentence, "\n\n" if i in starts else None) for i, sentence in enumerate(document.sentences)]
        for i, (sentence, _) in enumerate(pieces):
            check_text(sentence, f"{where}, sentence {i}")
            if not sentence.strip() and document.concepts is None:  # a person may say what a codec cannot write
                raise DataError("the sentence is empty", where=f"{where}, sentence {i}")
        return pieces
    text = document.text
    check_text(text, where)
    pieces = []
    end, paragraph = 0, 0
    for span in segmenter.segment(text, input_language(input_lang, document)):
        broken = bool(pieces) and span.paragraph != paragraph
        # A sentence of a wrapped text is encoded as datasets are built: every run of white space is one space.
        pieces.append((" ".join(span.of(text).split()), text[end : span.start] if broken else None))
        end, paragraph = span.end, span.paragraph
    if not pieces:
        what = "only white space" if text else "nothing"
        raise DataError("the text is empty", where=where, expected="at least one sentence", got=what)
    return pieces


def as_sentences(document: Document, segmenter: Segmenter, input_lang: str | None = None) -> Document:
    """Return the document with its sentences, segmented where it came without.

    Raises:
        DataError: no sentence, NUL, or lone surrogates.
    """
    if document.sentences:
        return document
    pieces = split(document, segmenter, input_lang, document.where or document.id)
    starts = (0, *(i for i, (_, gap) in enumerate(pieces) if gap is not None))
    return replace(document, sentences=tuple(sentence for sentence, _ in pieces), paragraph_starts=starts)


def check_text(text: str, where: str) -> None:
    """Refuse characters that no text has.

    Raises:
        DataError: NUL or a lone surrogate; names the position.
    """
    match = _NOT_TEXT.search(text)
    if match is None:
        return
    character = match.group()
    name = "a NUL character" if character == "\0" else f"a lone surrogate (U+{ord(character):04X})"
    raise DataError(
        f"{name} at position {match.start()}", where=where, hint="remove it, or read the file in its own encoding"
    )


def writable(codec: ConceptCodec, lang: str) -> str:
    """Return the FLORES-200 code of ``lang`` if ``codec`` can write it.

    Raises:
        LanguageError: unknown, or not among the codec's languages.
    """
    code = flores(lang)
    if code not in codec.languages:
        alone = (
            "it is an encoder alone: train a decoder for it (codec train --encoder) or give it sentences (codec bank)"
        )
        hint = did_you_mean(code, codec.languages) if codec.languages else alone
        raise LanguageError("this codec cannot write the language", where="lang", got=code, hint=hint)
    return code


def sentence_space(lang: str) -> str:
    """Return what stands between two sentences of a language: a space, or nothing in Chinese and Japanese."""
    return "" if lang.endswith(_SCRIPTS_WITHOUT_SPACES) else " "


def join_sentences(sentences: Sequence[str], lang: str) -> str:
    """Join sentences of one language to a text."""
    return sentence_space(lang).join(sentences)


def as_document(text: object, where: str) -> Document:
    """Return a string, a Document or a list of sentences as a Document.

    Raises:
        DataError: anything else, or an empty list.
    """
    if isinstance(text, Document):
        return text
    if isinstance(text, str):
        return Document(id=where, text=text)
    if isinstance(text, Sequence) and not isinstance(text, bytes) and all(isinstance(one, str) for one in text):
        if not text:
            raise DataError("the list of sentences is empty", where=where)
        return Document(id=where, sentences=tuple(text))
    raise DataError(
        "not a text", where=where, expected="a string, a Document or a list of sentences", got=type(text).__name__
    )


def as_documents(text: str | Document | Sequence[TextInput]) -> tuple[list[Document], bool]:
    """Return the input as Documents, and whether it was a list of texts.

    Raises:
        DataError: something that is no text; names its place in the list.
    """
    if isinstance(text, str | Document):
        return [as_document(text, "text")], False
    if isinstance(text, bytes) or not isinstance(text, Sequence):
        raise DataError(
            "not a text", where="text", expected="a string, a Document or a list of them", got=type(text).__name__
        )
    return [as_document(one, f"text {i}") for i, one in enumerate(text)], True


def input_language(input_lang: str | None, document: Document) -> str | None:
    """Return the FLORES-200 code of the input: the one given, else the Document's own, else ``None``."""
    code = input_lang or document.lang
    return None if code is None else flores(code)


def as_config(cls: type[C], given: C | Mapping[str, Any] | None, where: str) -> C:
    """Return a configuration from itself, from plain data, or with defaults from ``None``."""
    if given is None:
        return cls()
    return given if isinstance(given, cls) else cls.from_dict(given, where=where)
