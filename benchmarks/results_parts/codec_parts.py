"""The codec alone: what it writes back, under noise and in other languages, and whether translations lie together.

Shape letters: N sentences, C concept dimension, F form channels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.codec.metrics import best_matches
from largeconcept.eval.metrics.corpus_scores import by_document, chrf_counts, chrf_of
from largeconcept.eval.records import MODEL, RAW, raw_path, read_raw
from largeconcept.eval.statistics import Estimate, estimate, per_document, ratio
from largeconcept.eval.tasks import Context, load_task
from largeconcept.types import Document
from results_parts.inputs import LONG, SHORT, Inputs
from results_parts.store import Piece

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.5)
CLASSES = {"short": (0, SHORT), "long": (SHORT, LONG), "meaning": (0, SHORT)}
"""What is written back: sentences of so many characters; ``meaning`` the short ones, without the channels of form."""


class MeaningOnly:
    """A codec whose concepts hold no form: its channels, the last ones, are zero."""

    def __init__(self, codec: Any, form_dim: int) -> None:
        self.own, self.form_dim = codec, form_dim
        self.dim, self.languages, self.decode = codec.dim, codec.languages, codec.decode
        self.fingerprint = f"{codec.fingerprint}-meaning"

    def encode(self, sentences: Sequence[str], lang: Any = None, **more: Any) -> Tensor:
        """Return (N, C) concepts whose last F channels are 0."""
        concepts: Tensor = self.own.encode(sentences, lang, **more).clone()
        concepts[:, -self.form_dim :] = 0
        return concepts


def score(one: Estimate) -> dict[str, Any]:
    """Return an estimate as plain data, as scores are written everywhere."""
    found = {"value": one.mean, "low": one.low, "high": one.high}
    return {**{name: value if math.isfinite(value) else None for name, value in found.items()}, "n": one.n}


def mean_score(values: Sequence[float], owners: Sequence[Hashable], seed: int) -> dict[str, Any]:
    """Return a mean with its interval over what the values belong to."""
    labels = [str(owner) for owner in owners]
    return score(estimate(per_document(list(values), labels), ratio, n=len(values), seed=seed))


def cosines(left_NC: Tensor, right_NC: Tensor) -> list[float]:
    """Return the cosine of each row with that of the other table."""
    found: list[float] = F.cosine_similarity(left_NC.float(), right_NC.float(), dim=1).tolist()
    return found


# ---------------------------------------------------------------------- round trip and noise


def between(documents: Sequence[Document], low: int, high: int) -> Iterator[Document]:
    """Yield documents with those of their sentences that have more than ``low`` and at most ``high`` characters."""
    for document in documents:
        kept = tuple(text for text in document.sentences if low < len(text.strip()) <= high)
        if kept:
            yield replace(document, sentences=kept, paragraph_starts=(0,))


def codec_task(
    inputs: Inputs, name: str, codec: Any, documents: Sequence[Document], most: int, folder: Path, **more: Any
) -> dict[str, Any]:
    """Run one of the evaluation's codec tasks; return its result as plain data."""
    context = Context(
        pipeline=SimpleNamespace(codec=codec),  # type: ignore[arg-type] # all that these tasks look at
        documents=list(documents),
        seed=inputs.seed,
        folder=folder,
        settings={name: {"sentences": most, "num_beams": inputs.limits.beams, **more}},
    )
    return load_task(name)(context).to_dict()


def round_trip(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Write held-out sentences back: by language and length, and from their meaning alone."""
    classes = dict(CLASSES)
    if not inputs.form_dim:
        del classes["meaning"]
    found: dict[str, Any] = {}
    for lang in inputs.languages:
        for kind, (low, high) in classes.items():
            name = f"{kind} {lang}"
            found.setdefault(kind, {})[lang] = piece(
                name,
                lambda: _round_trip(inputs, lang, kind, low, high, piece.folder(name)),  # noqa: B023 - called now
            )
    return {
        "classes": found,
        "form_dim": inputs.form_dim,
        "dim": inputs.codec.dim,
        "beams": inputs.limits.beams,
    }


def _round_trip(inputs: Inputs, lang: str, kind: str, low: int, high: int, folder: Path) -> dict[str, Any]:
    documents = list(between(inputs.texts[lang], low, high))
    if sum(len(document.sentences) for document in documents) < 2:
        return {"n": 0}
    codec = MeaningOnly(inputs.codec, inputs.form_dim) if kind == "meaning" else inputs.codec
    task = codec_task(inputs, "codec_round_trip", codec, documents, inputs.limits.sentences, folder)
    scores = {name: task["scores"][MODEL][name] for name in ("auto_bleu", "chrf", "exact")}
    rows = read_raw(raw_path(folder, RAW, "codec_round_trip", MODEL))
    few = rows[:: max(1, len(rows) // inputs.limits.noisy)][: inputs.limits.noisy]
    there = inputs.judge.encode([row["source"] for row in few])
    # What is empty has no vector; a full stop says as little.
    back = inputs.judge.encode([row["output"] if row["output"].strip() else "." for row in few])
    scores["meaning"] = mean_score(cosines(there, back), range(len(few)), inputs.seed)
    examples = random.Random(inputs.seed).sample(rows, min(inputs.limits.samples, len(rows)))
    samples = [{"source": row["source"], "output": row["output"]} for row in examples]
    return {"n": task["n"], "documents": len(documents), "scores": scores, "samples": samples}


def noise(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Write short held-out sentences from concepts that noise has moved."""

    def one(lang: str) -> dict[str, Any]:
        documents = list(between(inputs.texts[lang], 0, SHORT))
        folder = piece.folder(lang)
        task = codec_task(
            inputs, "codec_noise", inputs.codec, documents, inputs.limits.noisy, folder, strengths=STRENGTHS
        )
        return {"n": task["n"], "scores": task["scores"][MODEL]}

    return {
        "strengths": list(STRENGTHS),
        "languages": {lang: piece(lang, lambda: one(lang)) for lang in inputs.languages},  # noqa: B023 - called now
    }


# ---------------------------------------------------------------------- across languages


def translation(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Write each language's concepts in each other language."""
    found: dict[str, Any] = {}
    for left, right in combinations(inputs.languages, 2):
        found |= piece(f"{left} {right}", lambda: _translate(inputs, left, right))  # noqa: B023 - called now
    return {"languages": list(inputs.languages), "pairs": found}


def _translate(inputs: Inputs, left: str, right: str) -> dict[str, Any]:
    rows = inputs.shared_pairs(left, right, inputs.limits.translated)
    if len(rows) < 2:
        return {}
    owners, seed = [row[0] for row in rows], inputs.seed
    texts = {left: [row[1] for row in rows], right: [row[2] for row in rows]}
    decoding = {"method": "beam" if inputs.limits.beams > 1 else "greedy", "num_beams": inputs.limits.beams}
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    another = [0] * len(rows)
    for here, there in zip(order, [*order[1:], order[0]], strict=True):  # a cycle: nobody keeps his own
        another[here] = there
    judged = {lang: inputs.judge.encode(one) for lang, one in texts.items()}

    def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        table = by_document([chrf_counts(hypotheses, references)], [owners])
        return score(estimate(table, chrf_of, n=len(rows), seed=seed))

    bare = MeaningOnly(inputs.codec, inputs.form_dim) if inputs.form_dim else None
    found = {}
    for source, target in ((left, right), (right, left)):
        written = inputs.codec.decode(inputs.codec.encode(texts[source], source), target, **decoding)
        vectors = inputs.judge.encode([text if text.strip() else "." for text in written])
        chosen = random.Random(seed).sample(range(len(rows)), min(inputs.limits.samples, 1))
        found[f"{source} {target}"] = {
            "n": len(rows),
            "chrf": chrf(written, texts[target]),
            "copy": chrf(texts[source], texts[target]),
            "other": chrf([texts[target][i] for i in another], texts[target]),
            "meaning": mean_score(cosines(judged[source], vectors), owners, seed),
            "meaning_human": mean_score(cosines(judged[source], judged[target]), owners, seed),
            "meaning_other": mean_score(cosines(judged[source], judged[target][another]), owners, seed),
            "samples": [
                {"source": texts[source][i], "output": written[i], "reference": texts[target][i]} for i in chosen
            ],
        }
        if bare is not None:
            without = inputs.codec.decode(bare.encode(texts[source], source), target, **decoding)
            found[f"{source} {target}"]["chrf_meaning"] = chrf(without, texts[target])
    return found


def search(inputs: Inputs, piece: Piece) -> dict[str, Any]:
    """Look for translations among all of them: in our space, in its meaning alone, and in an independent encoder's."""
    memory: dict[tuple[str, str], Tensor] = {}

    def vectors(space: str, lang: str, texts: list[str]) -> Tensor:
        # A sentence is in many pairs of languages; it is encoded once.
        fresh = list(dict.fromkeys(text for text in texts if (space, text) not in memory))
        if fresh:
            made = inputs.judge.encode(fresh) if space == "judge" else inputs.codec.encode(fresh, lang)
            memory.update(zip([(space, text) for text in fresh], made, strict=True))
        return torch.stack([memory[space, text] for text in texts])

    found = {}
    for left, right in combinations(inputs.languages, 2):
        found[f"{left} {right}"] = piece(f"{left} {right}", lambda: _search(inputs, left, right, vectors))  # noqa: B023
    return {"languages": list(inputs.languages), "pairs": found, "meaning": bool(inputs.form_dim)}


def _search(inputs: Inputs, left: str, right: str, vectors: Callable[..., Tensor]) -> dict[str, Any]:
    rows = inputs.shared_pairs(left, right, inputs.limits.searched)
    if len(rows) < 2:
        return {"n": len(rows)}
    texts = {left: [row[1] for row in rows], right: [row[2] for row in rows]}
    ours = [vectors("ours", lang, one) for lang, one in texts.items()]
    spaces = {"ours": ours, "judge": [vectors("judge", lang, one) for lang, one in texts.items()]}
    if inputs.form_dim:
        spaces["meaning"] = [one[:, : -inputs.form_dim] for one in ours]
    owners = [row[0] for row in rows]
    result: dict[str, Any] = {"n": len(rows)}
    right_in_judge = torch.ones(len(rows), dtype=torch.bool)
    for space, (here, there) in spaces.items():
        margin = torch.stack([wrong(here, there), wrong(there, here)])
        nearest = torch.stack([wrong_by_cosine(here, there), wrong_by_cosine(there, here)])
        if space == "judge":
            right_in_judge = ~margin.any(dim=0)
        result[space] = {
            "margin": _errors(margin, owners, inputs.seed),
            "cosine": _errors(nearest, owners, inputs.seed),
        }
    kept = right_in_judge.nonzero()[:, 0]
    if len(kept) > 1:
        names = [owners[i] for i in kept.tolist()]
        for space in [name for name in spaces if name != "judge"]:
            here, there = (one[kept] for one in spaces[space])
            both = torch.stack([wrong(here, there), wrong(there, here)])
            result[space]["margin_where_judge_finds"] = _errors(both, names, inputs.seed)
    return result


def wrong(left_NC: Tensor, right_NC: Tensor) -> Tensor:
    """Return (N,) whether the best match by ratio margin is another row than its own."""
    return best_matches(left_NC, right_NC) != torch.arange(len(left_NC))


def wrong_by_cosine(left_NC: Tensor, right_NC: Tensor) -> Tensor:
    """Return (N,) whether the row with the greatest cosine is another one than its own."""
    table = F.normalize(left_NC.float(), dim=1) @ F.normalize(right_NC.float(), dim=1).T
    return table.argmax(dim=1) != torch.arange(len(left_NC))


def _errors(flags_2N: Tensor, owners: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the errors of both directions and of either, in per cent."""
    there, back = (100.0 * one.double() for one in flags_2N)
    both = mean_score([*there.tolist(), *back.tolist()], [*owners, *owners], seed)
    return {"both": both, "there": float(there.mean()), "back": float(back.mean())}
