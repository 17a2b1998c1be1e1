"""Judges that are models of ``transformers``: acceptability (CoLA), SEAHORSE and BERTScore.

Their weights are published, and loaded by name from the hub or from a folder; nothing is loaded before a judge is asked
for. Where the package or the weights are missing an error says so: a score that was not measured is not 0.

Shape letters: N texts, B batch, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from largeconcept.errors import CheckpointError, ConfigError, DataError, missing_extra
from largeconcept.eval.metrics.words import Text, joined, sentences

COLA = "cointegrated/roberta-large-cola-krishna2020"
COLA_ACCEPTABLE = 0
"""Class of acceptable sentences in these weights, whose configuration does not name them."""
SEAHORSE = "google/seahorse-large-q{question}"
SEAHORSE_QUESTIONS = {
    1: "comprehensible",
    2: "without repetition",
    3: "grammatical",
    4: "attributable to the source",
    5: "holds the main ideas of the source",
    6: "concise",
}
SEAHORSE_ONE = 333
"""Id of the answer "1" in the vocabulary of the published weights."""
BERT_SCORE = "bert-base-multilingual-cased"
BERT_SCORE_LAYERS = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "roberta-base": 10,
    "roberta-large": 17,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
"""Layer whose states agree best with human verdicts (https://github.com/Tiiiger/bert_score, ``utils.py``)."""


class ColaJudge:
    """How acceptable sentences are: the probability that a classifier trained on CoLA gives (arXiv:1805.12471).

    English only. The LCM paper reports the mean over the sentences of a text.

    Args:
        model: a classifier of two classes, on the device where the work is to be done.
        tokenizer: its (fast) tokenizer.
        acceptable: which class means acceptable: 0 in the weights that the LCM paper used, 1 in most others.
        max_tokens: longer sentences are judged in parts, whose mean counts.
        batch_size: parts that go through the model at once.

    Raises:
        ConfigError: not a class of the model, or a setting out of range.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, acceptable: int = 0, max_tokens: int = 512, batch_size: int = 16
    ) -> None:
        classes = int(model.config.num_labels)
        if not 0 <= acceptable < classes:
            raise ConfigError("not a class of the model", where="acceptable", got=acceptable, expected=f"< {classes}")
        _check(max_tokens, batch_size)
        self.model, self.tokenizer, self.acceptable = model.eval(), tokenizer, acceptable
        self.max_tokens, self.batch_size = max_tokens, batch_size

    @classmethod
    def from_pretrained(cls, name: str = COLA, *, acceptable: int | None = None, device: str = "cpu") -> ColaJudge:
        """Load a classifier.

        Args:
            name: of a model on the hub, or a folder.
            acceptable: see :class:`ColaJudge`; may be left out for the default weights, and for those whose
                configuration names a class ``acceptable``.
            device: where the work is to be done.

        Raises:
            ConfigError: other weights without ``acceptable``, or the class that is named so is another one.
            DependencyError: ``transformers`` is not installed.
            CheckpointError: there is no such classifier.
        """
        model, tokenizer = _load("AutoModelForSequenceClassification", name, device)
        named = _class_named("acceptable", getattr(model.config, "id2label", None))
        if acceptable is not None and named not in (None, acceptable):
            raise ConfigError("another class is named acceptable", where="acceptable", got=acceptable, expected=named)
        chosen = named if acceptable is None else acceptable
        if chosen is None and name == COLA:
            chosen = COLA_ACCEPTABLE
        if chosen is None:
            hint = "see the card of the model: 0 or 1, as cola=FOLDER:1"
            raise ConfigError("which class is acceptable?", where="acceptable", hint=hint)
        return cls(model, tokenizer, acceptable=chosen)

    @torch.no_grad()
    def score_sentences(self, texts: Sequence[str]) -> list[float]:
        """Return the probability in [0, 1] that each sentence is acceptable."""
        if not texts:
            return []
        parts = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            return_overflowing_tokens=True,
            padding=False,
        )
        owners = torch.tensor(parts["overflow_to_sample_mapping"])
        found = torch.zeros(len(owners), dtype=torch.float64)
        for rows in _batches([len(row) for row in parts["input_ids"]], self.batch_size):
            tokens, mask = _padded([parts["input_ids"][i] for i in rows], self.tokenizer, self.model)
            scores = self.model(input_ids=tokens, attention_mask=mask).logits.double().softmax(dim=-1)
            found[rows] = scores[:, self.acceptable].cpu()
        total = torch.zeros(len(texts), dtype=torch.float64).index_add_(0, owners, found)
        return (total / torch.bincount(owners, minlength=len(texts))).tolist()

    def score(self, texts: Sequence[Text]) -> list[float | None]:
        """Return the mean over the sentences of each text; ``None`` for a text without any.

        Raises:
            DataError: not a text.
        """
        cut = [[one for one in sentences(text, "eng_Latn") if one.strip()] for text in texts]
        found = iter(self.score_sentences([one for text in cut for one in text]))
        return [sum(next(found) for _ in text) / len(text) if text else None for text in cut]


class Seahorse:
    """Whether a summary is good in one of six ways: the probability that an mT5 answers "1" (arXiv:2305.13194).

    Questions 4 (attribution) and 5 (main ideas) are those of the LCM paper. It learned from verdicts on German,
    English, Russian, Spanish, Turkish and Vietnamese.

    Args:
        model: an encoder-decoder, on the device where the work is to be done.
        tokenizer: its tokenizer; it says which id the answer "1" has.
        max_tokens: longer inputs lose the end of the source, never the summary.
        batch_size: pairs that go through the model at once.

    Raises:
        CheckpointError: "1" is not one token.
        ConfigError: a setting out of range.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_tokens: int = 2048, batch_size: int = 4) -> None:
        _check(max_tokens, batch_size)
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_tokens, self.batch_size = max_tokens, batch_size
        ids = _ids(tokenizer, "1")
        if len(ids) != 1 or tokenizer.decode(ids).strip() != "1":
            raise CheckpointError('the answer "1" is not one token', where="tokenizer", got=ids)
        self.one = ids[0]

    @classmethod
    def from_pretrained(cls, question: int = 4, *, name: str | None = None, device: str = "cpu") -> Seahorse:
        """Load the judge of a question.

        Args:
            question: 1 to 6, see ``SEAHORSE_QUESTIONS``.
            name: of a model on the hub, or a folder; by default the published large weights.
            device: where the work is to be done.

        Raises:
            ConfigError: no such question.
            DependencyError: ``transformers`` is not installed.
            CheckpointError: there is no such model, or published weights with another vocabulary.
        """
        if question not in SEAHORSE_QUESTIONS:
            raise ConfigError("no such question", where="question", got=question, expected="1 to 6")
        place = name if name is not None else SEAHORSE.format(question=question)
        model, tokenizer = _load("AutoModelForSeq2SeqLM", place, device)
        judge = cls(model, tokenizer)
        if name is None and judge.one != SEAHORSE_ONE:
            raise CheckpointError('the answer "1" has another id', where=place, got=judge.one, expected=SEAHORSE_ONE)
        return judge

    @torch.no_grad()
    def score(self, sources: Sequence[Text], summaries: Sequence[Text]) -> list[float]:
        """Return the probability in [0, 1] of the answer "1" for each source and its summary.

        Note: a softmax over the whole vocabulary, as in the reference; the published models give nearly all of it to
        "0" and "1".

        Raises:
            DataError: another number of summaries, or not a text.
        """
        _same_number(sources, summaries, "summaries")
        end = [] if self.tokenizer.eos_token_id is None else [int(self.tokenizer.eos_token_id)]
        inputs = []
        for source, summary in zip(sources, summaries, strict=True):
            asked = (_ids(self.tokenizer, f"hypothesis: {_plain(summary)}") + end)[-self.max_tokens :]
            given = _ids(self.tokenizer, f"premise: {_plain(source)}")
            inputs.append(given[: self.max_tokens - len(asked)] + asked)
        found = torch.zeros(len(inputs), dtype=torch.float64)
        start = int(self.model.config.decoder_start_token_id)
        for rows in _batches([len(row) for row in inputs], self.batch_size):
            tokens, mask = _padded([inputs[i] for i in rows], self.tokenizer, self.model)
            first = torch.full((len(rows), 1), start, device=tokens.device)
            scores = self.model(input_ids=tokens, attention_mask=mask, decoder_input_ids=first).logits[:, 0]
            found[rows] = scores.double().softmax(dim=-1)[:, self.one].cpu()
        return found.tolist()


class Match(NamedTuple):
    """BERTScore of a text: precision, recall and their harmonic mean, without rescaling."""

    precision: float
    recall: float
    f1: float


class BertScore:
    """How well the tokens of a text and of its reference match by the cosine of their states (arXiv:1904.09675).

    Each token takes its best match in the other text; the mean over the text's tokens is the precision, over the
    reference's the recall. Without weights by frequency and without rescaling.

    Args:
        model: an encoder, on the device where the work is to be done.
        tokenizer: its tokenizer.
        layer: whose states are compared; 0 are the embeddings.
        max_tokens: longer texts are cut, as in the original.
        batch_size: texts that go through the model at once.

    Raises:
        ConfigError: no such layer, or a setting out of range.
    """

    def __init__(self, model: Any, tokenizer: Any, *, layer: int, max_tokens: int = 512, batch_size: int = 16) -> None:
        layers = int(model.config.num_hidden_layers)
        if not 0 <= layer <= layers:
            raise ConfigError("no such layer", where="layer", got=layer, expected=f"0 to {layers}")
        _check(max_tokens, batch_size)
        self.model, self.tokenizer, self.layer = model.eval(), tokenizer, layer
        self.max_tokens, self.batch_size = max_tokens, batch_size

    @classmethod
    def from_pretrained(cls, name: str = BERT_SCORE, *, layer: int | None = None, device: str = "cpu") -> BertScore:
        """Load an encoder.

        Args:
            name: of a model on the hub, or a folder.
            layer: see :class:`BertScore`; may be left out for those in ``BERT_SCORE_LAYERS``.
            device: where the work is to be done.

        Raises:
            ConfigError: other weights without ``layer``.
            DependencyError: ``transformers`` is not installed.
            CheckpointError: there is no such encoder.
        """
        place = BERT_SCORE_LAYERS.get(name) if layer is None else layer
        if place is None:
            raise ConfigError("which layer?", where="layer", hint="known for " + ", ".join(BERT_SCORE_LAYERS))
        model, tokenizer = _load("AutoModel", name, device)
        return cls(model, tokenizer, layer=place)

    def score(self, predictions: Sequence[Text], references: Sequence[Text]) -> list[Match]:
        """Return the match of each text with its reference; of an empty text, or with one, it is 0.

        Raises:
            DataError: another number of references, or not a text.
        """
        _same_number(predictions, references, "references")
        texts = [_plain(text) for text in (*predictions, *references)]
        states = dict(zip(dict.fromkeys(texts), self._states(list(dict.fromkeys(texts))), strict=True))
        pairs = zip(texts[: len(predictions)], texts[len(predictions) :], strict=True)
        return [match(*states[left], *states[right]) for left, right in pairs]

    @torch.no_grad()
    def _states(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        """Return for each text (T, C) states and (T,) which of them are of its own tokens, not marks of the model."""
        found: list[tuple[Tensor, Tensor]] = [(torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool))] * len(texts)
        if not texts:
            return found
        rows = self.tokenizer(texts, truncation=True, max_length=self.max_tokens, return_special_tokens_mask=True)
        ids, marks = rows["input_ids"], rows["special_tokens_mask"]
        for batch in _batches([len(row) for row in ids], self.batch_size):
            tokens, mask = _padded([ids[i] for i in batch], self.tokenizer, self.model)
            states = self.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states
            for place, i in enumerate(batch):
                own = ~torch.tensor(marks[i], dtype=torch.bool)
                found[i] = (states[self.layer][place, : len(ids[i])].float().cpu(), own)
        return found


def match(left: Tensor, left_own: Tensor, right: Tensor, right_own: Tensor) -> Match:
    """Return the match of (T, C) states of two texts.

    Args:
        left: (T, C) of the text.
        left_own: (T,) which of them count; the others (start, end) may be matched only, as in the original.
        right: (U, C) of the reference.
        right_own: (U,).
    """
    if not bool(left_own.any()) or not bool(right_own.any()):
        return Match(0.0, 0.0, 0.0)
    unit = torch.nn.functional.normalize
    cosines = unit(left.double(), dim=-1) @ unit(right.double(), dim=-1).T
    precision = float(cosines.amax(dim=1)[left_own].mean())
    recall = float(cosines.amax(dim=0)[right_own].mean())
    both = precision + recall
    return Match(precision, recall, 2 * precision * recall / both if both else 0.0)


def _load(kind: str, name: str, device: str) -> tuple[Any, Any]:
    """Return a model and its tokenizer.

    Raises:
        DependencyError: ``transformers`` is not installed.
        CheckpointError: there is no such model.
    """
    try:
        import transformers
    except ImportError:
        raise missing_extra("transformers", "transformers") from None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        model = getattr(transformers, kind).from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise CheckpointError("cannot load the judge", where=name, got=error) from None
    return model.to(device), tokenizer


def _class_named(word: str, labels: Any) -> int | None:
    """Return the class that a configuration gives this name, if there is one."""
    if not isinstance(labels, dict):
        return None
    return next((int(number) for number, name in labels.items() if str(name).strip().lower() == word), None)


def _plain(text: Text) -> str:
    """Return a text on one line."""
    return " ".join(joined(text).split())


def _ids(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the places of texts of like lengths."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded(rows: Sequence[Sequence[int]], tokenizer: Any, model: Any) -> tuple[Tensor, Tensor]:
    """Return (B, T) tokens, padded on the right, and (B, T) int64 where they are real, on the model's device."""
    device, longest = next(model.parameters()).device, max(len(row) for row in rows)
    pad = int(tokenizer.pad_token_id or 0)
    tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return tokens, mask


def _same_number(left: Sequence[Text], right: Sequence[Text], where: str) -> None:
    if len(left) != len(right):
        raise DataError("another number of texts", where=where, got=len(right), expected=len(left))


def _check(max_tokens: int, batch_size: int) -> None:
    for name, value, least in (("max_tokens", max_tokens, 8), ("batch_size", batch_size, 1)):
        if value < least:
            raise ConfigError("out of range", where=name, got=value, expected=f"at least {least}")
