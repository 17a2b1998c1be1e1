"""Predictors of text that need no model: what a score has to be compared with before it means anything.

==================  ====================================================================================================
``copy_last``       the last sentence of the source, over and over; as a summary once
``lead_K``          the first K sentences of the source (translated through their concepts, where another language is
                    asked for): the usual baseline of summarisation
``mean_vector``     the mean concept of the training data, decoded: what a regression without context would say
``nearest_train``   what followed the training sentence that is nearest to the source's last one; the target of the
                    nearest training document, or the document of the nearest target: a model that is no better has
                    memorised, or learnt less than a look-up
``shuffled``        the reference of another document: fluent, human, about something else. A metric that cannot tell it
                    from a good answer does not measure content
``reference``       what the author wrote: what metrics that need no reference say of human text (the row "ground truth"
                    of the LCM paper's tables)
``constant``        always the same text, for tests of metrics
==================  ====================================================================================================

Shape letters: N concepts of the training data, C concept dimension.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from largeconcept.data.documents import name_of
from largeconcept.errors import ConfigError
from largeconcept.eval.predictors import Item, Mode, Output, grouped, written
from largeconcept.eval.records import digest

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.data.reader import ConceptDataset, ConceptDocument
    from largeconcept.types import ConceptCodec

TRAIN_CONCEPTS = 200_000
"""Most concepts of the training data that are searched."""


class CopyLast:
    """Repeat the source's last sentence, the text of the next-concept baseline of that name; as a summary say it once.

    Args:
        codec: translates it where another language is asked for; without it such items cannot be done.
    """

    whole = False
    name = "copy_last"

    def __init__(self, codec: ConceptCodec | None = None) -> None:
        self.codec = codec

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on; see :class:`~largeconcept.eval.predictors.Predictor`."""
        return {"kind": self.name, "codec": None if self.codec is None else self.codec.fingerprint}

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        return _cannot_translate(self.codec, items)

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write."""
        outputs = []
        for item in items:
            began = time.perf_counter()
            copied = _in_its_language(self.codec, item, item.source.sentences[-1:])
            sentences = copied if mode == "summarize" else copied * item.max_concepts
            outputs.append(written(sentences, item.target_lang, seconds=time.perf_counter() - began))
        return outputs


class Lead:
    """The first sentences of the source.

    Args:
        number: how many.
        codec: translates them where another language is asked for; without it such items cannot be done.

    Raises:
        ConfigError: a number below 1.
    """

    whole = False

    def __init__(self, number: int, codec: ConceptCodec | None = None) -> None:
        if number < 1:
            raise ConfigError("out of range", where="lead", got=number, expected="at least 1 sentence")
        self.number, self.codec = number, codec
        self.name = f"lead_{number}"

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on."""
        return {
            "kind": "lead",
            "number": self.number,
            "codec": None if self.codec is None else self.codec.fingerprint,
        }

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        return _cannot_translate(self.codec, items)

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write."""
        outputs = []
        for item in items:
            began = time.perf_counter()
            sentences = _in_its_language(self.codec, item, item.source.sentences[: self.number])
            outputs.append(written(sentences, item.target_lang, seconds=time.perf_counter() - began))
        return outputs


class MeanVector:
    """The mean concept of the training data, decoded in the language that is asked for.

    Args:
        mean: (C,).
        codec: writes it.
    """

    whole = False
    name = "mean_vector"

    def __init__(self, mean: Tensor, codec: ConceptCodec) -> None:
        self.mean, self.codec = mean.detach().float().cpu(), codec
        self._written: dict[str, str] = {}

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on."""
        return {"kind": self.name, "mean": _bytes_digest(self.mean), "codec": self.codec.fingerprint}

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        unwritable = {item.target_lang for item in items} - set(self.codec.languages)
        return f"the codec does not write {', '.join(sorted(unwritable))}" if unwritable else None

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write."""
        for lang in {item.target_lang for item in items} - set(self._written):
            self._written[lang] = self.codec.decode(self.mean.unsqueeze(0), lang)[0]
        return [written([self._written[item.target_lang]] * item.max_concepts, item.target_lang) for item in items]


class NearestTrain:
    """What the training data says in the nearest place.

    A text is continued by the sentences after the training sentence whose concept has the greatest cosine to that of
    the source's last sentence; it is summarised by the target of the training document whose mean concept is nearest to
    the source's, and expanded by the document whose target's is. Only training texts in the language that is asked for
    are searched, whatever the language of the source.

    Args:
        train: the training split.
        codec: of its concepts.
        limit: most concepts to search; whole documents are taken in order.
    """

    whole = False
    name = "nearest_train"

    def __init__(self, train: ConceptDataset, codec: ConceptCodec, limit: int = TRAIN_CONCEPTS) -> None:
        self.train, self.codec, self.limit = train, codec, limit

    @cached_property
    def _documents(self) -> list[ConceptDocument]:
        return list(_first_documents(self.train, self.limit))

    @cached_property
    def _places(self) -> dict[str | None, tuple[Tensor, list[tuple[int, int]]]]:
        """Language -> unit concepts (N, C) that another one follows, and (document, place) of each."""
        import torch

        rows: dict[str | None, list[Tensor]] = {}
        places: dict[str | None, list[tuple[int, int]]] = {}
        for number, document in enumerate(self._documents):
            if len(document.concepts) > 1:
                rows.setdefault(document.lang, []).append(document.concepts[:-1])
                places.setdefault(document.lang, []).extend((number, i) for i in range(len(document.concepts) - 1))
        return {lang: (_unit(torch.cat(parts)), places[lang]) for lang, parts in rows.items()}

    @cached_property
    def _pairs(self) -> dict[str | None, list[int]]:
        """Language -> the numbers of documents with a target."""
        chosen: dict[str | None, list[int]] = {}
        for number, document in enumerate(self._documents):
            if document.target_sentences and document.target_concepts is not None:
                chosen.setdefault(document.lang, []).append(number)
        return chosen

    @cached_property
    def _document_means(self) -> dict[str | None, Tensor]:
        """Language -> unit mean concepts (documents, C) of the documents of pairs."""
        return {lang: _means([self._documents[i].concepts for i in numbers]) for lang, numbers in self._pairs.items()}

    @cached_property
    def _target_means(self) -> dict[str | None, Tensor]:
        """Language -> unit mean concepts (documents, C) of the targets of pairs."""
        targets = {lang: [self._documents[i].target_concepts for i in numbers] for lang, numbers in self._pairs.items()}
        return {lang: _means([one for one in found if one is not None]) for lang, found in targets.items()}

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on."""
        texts = hashlib.sha256()
        for document in self._documents:
            texts.update("\0".join([document.id, *document.sentences, *(document.target_sentences or ())]).encode())
        return {"kind": self.name, "train": texts.hexdigest()[:16], "codec": self.codec.fingerprint}

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        pairs = mode in ("summarize", "expand")
        found: Mapping[str | None, object] = self._pairs if pairs else self._places
        if not found:
            return f"the training data has {'no summaries' if pairs else 'no text of two sentences'}"
        absent = {item.target_lang for item in items} - set(found) if None not in found else set()
        what = "summaries" if pairs else "text"
        return f"the training data has no {what} in {', '.join(sorted(map(str, absent)))}" if absent else None

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write."""
        outputs: list[Output | None] = [None] * len(items)
        for (lang,), places in grouped(items, "target_lang").items():
            began = time.perf_counter()
            asked = [items[place] for place in places]
            texts = (
                self._nearest(asked, lang, mode) if mode in ("summarize", "expand") else self._followers(asked, lang)
            )
            seconds = (time.perf_counter() - began) / len(places)
            for place, sentences in zip(places, texts, strict=True):
                outputs[place] = written(sentences[: items[place].max_concepts], lang, seconds=seconds)
        return [output for output in outputs if output is not None]

    def _followers(self, items: Sequence[Item], lang: str) -> list[list[str]]:
        concepts, places = self._places.get(lang) or self._places[None]
        asked = _unit(self.codec.encode([item.source.sentences[-1] for item in items], self._known(lang)))
        found = [places[i] for i in (asked.to(concepts) @ concepts.T).argmax(dim=1).tolist()]
        return [self._documents[number].sentences[place + 1 :] for number, place in found]

    def _nearest(self, items: Sequence[Item], lang: str, mode: Mode) -> list[list[str]]:
        """Return the targets of the nearest documents, or the documents of the nearest targets."""
        means = self._document_means if mode == "summarize" else self._target_means
        there = lang if lang in means else None
        asked = [self.codec.encode(list(item.source.sentences), self._known(item.lang)) for item in items]
        best = (_means(asked).to(means[there]) @ means[there].T).argmax(dim=1).tolist()
        found = [self._documents[self._pairs[there][i]] for i in best]
        return [list((one.target_sentences or ()) if mode == "summarize" else one.sentences) for one in found]

    def _known(self, lang: str | None) -> str | None:
        return lang if lang in self.codec.languages else None


class Shuffled:
    """The reference of another document's item in the same language: a control that knows everything but the topic."""

    whole = True
    name = "shuffled"

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on."""
        return {"kind": self.name}

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        lonely = [
            lang for (lang,), places in grouped(items, "target_lang").items() if len(self._documents(items, places)) < 2
        ]
        return f"there is only one document in {lonely[0]}" if lonely else None

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write; all items must be given at once."""
        outputs: list[Output | None] = [None] * len(items)
        for (lang,), places in grouped(items, "target_lang").items():
            # A cycle through the documents in a random order gives no item its own reference, nor that of another part
            # or version of its document; the order hangs on ids alone.
            groups = self._documents(items, places)
            order = sorted(groups, key=lambda name: digest([seed, name]))
            for name, other in zip(order, [*order[1:], order[0]], strict=True):
                for number, place in enumerate(groups[name]):
                    outputs[place] = written(items[groups[other][number % len(groups[other])]].reference, lang)
        return [output for output in outputs if output is not None]

    def _documents(self, items: Sequence[Item], places: Sequence[int]) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for place in places:
            groups.setdefault(name_of(items[place].id), []).append(place)
        return groups


class Reference:
    """The reference itself: repetition, coherence, perplexity and entropy mean little without those of human text."""

    whole = False
    name = "reference"

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on."""
        return {"kind": self.name}

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        return None if all(item.reference for item in items) else "there are items without a reference"

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write."""
        return [written(item.reference, item.target_lang) for item in items]


class Constant:
    """Always the same sentences, whatever is asked.

    Args:
        text: a sentence, or several.

    Raises:
        ConfigError: nothing to say.
    """

    whole = False
    name = "constant"

    def __init__(self, *text: str) -> None:
        if not text or not all(one.strip() for one in text):
            raise ConfigError("nothing to say", where="constant", expected="a text", got=text)
        self.sentences = text

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on."""
        return {"kind": self.name, "sentences": list(self.sentences)}

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not: it always can."""
        return None

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write."""
        return [written(self.sentences, item.target_lang) for item in items]


def _first_documents(dataset: ConceptDataset, limit: int) -> Iterator[ConceptDocument]:
    count = 0
    for document in dataset:
        count += len(document.concepts)
        if count > limit:
            return
        yield document


def _cannot_translate(codec: ConceptCodec | None, items: Sequence[Item]) -> str | None:
    """Return why sentences of the sources cannot be written in the languages that are asked for."""
    foreign = {item.target_lang for item in items if item.cross_lingual}
    if foreign and codec is None:
        return "copies the text's own language"
    unwritable = foreign - set(codec.languages if codec is not None else ())
    return f"the codec does not write {', '.join(sorted(unwritable))}" if unwritable else None


def _in_its_language(codec: ConceptCodec | None, item: Item, sentences: Sequence[str]) -> list[str]:
    """Return sentences of an item's source in the language that is asked for, through their concepts."""
    if not item.cross_lingual or codec is None:
        return list(sentences)
    known = item.lang if item.lang in codec.languages else None
    return codec.decode(codec.encode(list(sentences), known), item.target_lang)


def _means(texts: Sequence[Tensor]) -> Tensor:
    """Return (texts, C) unit means of the unit concepts of each text."""
    import torch

    return _unit(torch.stack([_unit(one).mean(dim=0) for one in texts]))


def _unit(x: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(x.detach().float().cpu(), dim=-1)


def _bytes_digest(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16]


__all__ = ["TRAIN_CONCEPTS", "Constant", "CopyLast", "Lead", "MeanVector", "NearestTrain", "Reference", "Shuffled"]
