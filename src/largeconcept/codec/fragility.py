"""Fragility: how badly a codec writes a sentence whose concept was disturbed (arXiv:2412.08821, table 6).

The paper defines, for a sentence w with concept x,

    fragility(w) = - E_{alpha, eps} [ score(w, decode(denormalize(sqrt(1 - alpha) normalize(x) + sqrt(alpha) eps))) ]

with alpha from 0.1 to 0.9 and eps standard normal. Here scores lie between 0 and 1, so fragility lies between -1 (comes
back unharmed from any noise) and 0 (never comes back).

A :class:`FragilityScorer` predicts it from the concept alone, on a scale that begins at 0: ``F = 1 + fragility`` lies
between 0 (robust) and 1 (fragile). Diffusion training can weigh concepts by ``sigmoid(a F + b)``.

Note: a = -4 and b = 3.5 are the paper's; on which scale its F lies is not clear. On that of 0 to 1 they weigh a robust
concept 0.97 and a fragile one 0.38; on that of -1 to 0 all weights would lie between 0.97 and 1.

Shape letters: N sentences, A noise levels, C concept dimension, D hidden width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.codec.metrics import bleu_tokenizer
from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.config import Config
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import CheckpointError, ConfigError, DataError, did_you_mean
from largeconcept.io import (
    atomic_path,
    atomic_write_text,
    fingerprint,
    load_strict,
    read_json,
    read_safetensors,
    require_folder,
    write_json,
    write_safetensors,
)

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

_PATIENCE = 10  # checks without a better scorer before fitting ends
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ScoreName = Literal["auto_bleu", "chrf"]
Score = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""``score(written, sentences)``: one number between 0 and 1 for each pair, 1 where they are alike."""


@dataclass(frozen=True, slots=True)
class Fragility:
    """How some sentences stand noise.

    Attributes:
        concepts: (N, C) float32, in the codec's space.
        alphas: A noise levels; alpha is the noise's share of the variance.
        scores: (N, A) float32 between 0 and 1.
    """

    concepts: Tensor
    alphas: tuple[float, ...]
    scores: Tensor

    @property
    def values(self) -> Tensor:
        """(N,) fragility as the paper defines it, between -1 (robust) and 0 (fragile)."""
        return -self.scores.mean(dim=1)


def measure_fragility(
    codec: ConceptCodec,
    sentences: Sequence[str],
    lang: str | Sequence[str],
    normalizer: ConceptNormalizer | None = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    score: ScoreName | Score = "auto_bleu",
    seed: int = 0,
    batch: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
    **decoding: Any,
) -> Fragility:
    """Decode the noised concepts of sentences and compare.

    The noise of a sentence depends on seed, text and noise level alone, so its score does not depend on the others.

    Args:
        codec: any codec.
        sentences: N of them.
        lang: of all, or one for each; decoding writes the language of the sentence.
        normalizer: of the concept space; by default the mean and standard deviation of these concepts, which takes at
            least two sentences.
        alphas: noise levels between 0 and 1.
        score: ``auto_bleu`` (sentence BLEU with effective order), ``chrf``, or a function; see :data:`Score`.
        seed: of the noise.
        batch: concepts decoded at once.
        on_progress: called with the number of decoded concepts, and that of all.
        decoding: passed to ``codec.decode``; greedy unless ``method`` says otherwise.

    Raises:
        DataError: no sentences, a wrong number of languages, or scores that are not one number for each sentence.
        ConfigError: no noise level, one outside of 0 to 1, or an unknown score.
    """
    langs = [lang] * len(sentences) if isinstance(lang, str) else list(lang)
    levels = tuple(float(alpha) for alpha in alphas)
    if not sentences or len(langs) != len(sentences):
        raise DataError(
            "one language for each of one or more sentences is needed", got=f"{len(sentences)}, {len(langs)}"
        )
    if not levels or any(not 0.0 <= alpha <= 1.0 for alpha in levels):
        raise ConfigError("out of range", where="alphas", got=levels, expected="numbers between 0 and 1")
    concepts = codec.encode(list(sentences), langs)
    if normalizer is None:
        normalizer = ConceptNormalizer.fit([concepts], "standard")
    clean = normalizer.normalize(concepts)
    ids = torch.tensor([_number(text, code) for text, code in zip(sentences, langs, strict=True)])
    scores = torch.zeros(len(sentences), len(levels))
    settings = {"method": "greedy", **decoding}
    done = 0
    for start in range(0, len(sentences), batch):
        rows = slice(start, start + batch)
        for column, alpha in enumerate(levels):
            noise = StepRandom(seed, round(alpha * 1e6)).normal("fragility", ids[rows], (codec.dim,))
            noised = normalizer.denormalize((1.0 - alpha) ** 0.5 * clean[rows] + alpha**0.5 * noise)
            written = codec.decode(noised, langs[rows], **settings)
            scores[rows, column] = _scored(score, written, sentences[rows], langs[rows])
            done += len(written)
            if on_progress is not None:
                on_progress(done, len(sentences) * len(levels))
    return Fragility(concepts, levels, scores)


def measure_to_file(
    codec: ConceptCodec,
    rows: Sequence[tuple[str, str]],
    path: str | Path,
    normalizer: ConceptNormalizer | None = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    score: ScoreName = "auto_bleu",
    seed: int = 0,
    group: int = 500,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fragility:
    """Measure (sentence, language) pairs and write a line of JSON for each; go on where a killed call stopped.

    Lines hold ``sentence``, ``lang``, ``fragility`` and ``scores``. Until all are written they stand in a file beside
    ``path``, with the settings in its first line; it is used again only under the same settings.

    Raises:
        DataError, ConfigError: as :func:`measure_fragility`.
        OSError: the file cannot be written.
    """
    if not rows:
        raise DataError("no sentences", where="fragility")
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    concepts = codec.encode([text for text, _ in rows], [lang for _, lang in rows])
    if normalizer is None:
        normalizer = ConceptNormalizer.fit([concepts], "standard")
    about = {
        "codec": codec.fingerprint,
        "normalizer": fingerprint(normalizer.state_dict()),
        "alphas": list(alphas),
        "score": score,
        "seed": seed,
    }
    known = _known(part, about)
    missing = [row for row in rows if row not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("a" if known else "w", encoding="utf-8") as file:
        if not known:
            file.write(json.dumps(about) + "\n")
        for start in range(0, len(missing), group):
            some = missing[start : start + group]
            before = (len(rows) - len(missing) + start) * len(alphas)
            found = measure_fragility(
                codec,
                [text for text, _ in some],
                [lang for _, lang in some],
                normalizer,
                alphas=alphas,
                score=score,
                seed=seed,
                on_progress=_after(before, len(rows) * len(alphas), on_progress),
            )
            for row, scores in zip(some, found.scores.tolist(), strict=True):
                known[row] = scores
                file.write(json.dumps({"row": row, "scores": scores}) + "\n")
            file.flush()
    result = Fragility(concepts, tuple(float(alpha) for alpha in alphas), torch.tensor([known[row] for row in rows]))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for (text, lang), value in zip(rows, result.values.tolist(), strict=True):
            line = {"sentence": text, "lang": lang, "fragility": value, "scores": known[text, lang]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    part.unlink()
    return result


def _after(before: int, total: int, on_progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
    """Return a report for a part of the work that follows ``before`` of ``total`` units."""

    def report(done: int, _: int) -> None:
        if on_progress is not None:
            on_progress(before + done, total)

    return report


def _known(part: Path, about: dict[str, Any]) -> dict[tuple[str, str], list[float]]:
    """Return what a call that was killed had measured under these settings; its last line may be half written."""
    known: dict[tuple[str, str], list[float]] = {}
    if not part.is_file():
        return known
    lines = part.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        if json.loads(lines[0]) != about:
            return {}
        for line in lines[1:]:
            data = json.loads(line)
            known[data["row"][0], data["row"][1]] = data["scores"]
    except (ValueError, KeyError, TypeError, IndexError):
        if known:  # the rest is measured again; the broken line must not stay in front of it
            whole = [json.dumps({"row": row, "scores": scores}) for row, scores in known.items()]
            atomic_write_text(part, "\n".join([json.dumps(about), *whole]) + "\n")
    return known


class FragilityConfig(Config):
    """What is written beside the weights of a scorer.

    Attributes:
        dim: C.
        hidden_dim: D.
        quantiles: of F over the concepts that the scorer was fitted on: 101 numbers, from smallest to largest.
        metadata: what is known about measuring and fitting.
        format_version: of this folder.
    """

    type: Literal["fragility"] = "fragility"
    dim: int = Field(ge=1)
    hidden_dim: int = Field(default=256, ge=1)
    quantiles: tuple[float, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    format_version: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class FragilityFit:
    """How well a scorer predicts.

    Attributes:
        r2: coefficient of determination on held-out sentences; 0 is no better than their mean.
        correlation: Pearson's, on held-out sentences.
        train_r2: on the sentences that it was fitted on.
        num_train, num_held_out: how many of each.
    """

    r2: float
    correlation: float
    train_r2: float
    num_train: int
    num_held_out: int


class FragilityScorer(nn.Module):
    """Three linear layers from a concept to ``F = 1 + fragility``, between 0 (robust) and 1 (fragile).

    Args:
        config: sizes.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, config: FragilityConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("center", torch.zeros(config.dim))
        self.register_buffer("scale", torch.ones(config.dim))
        self.input_proj = nn.Linear(config.dim, config.hidden_dim)
        self.hidden_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.output_proj = nn.Linear(config.hidden_dim, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, concepts: Tensor) -> Tensor:
        """Map (…, C) concepts of the codec's space to (…,) float32 between 0 and 1."""
        if concepts.shape[-1] != self.config.dim:
            raise DataError(
                "concepts of another dimension",
                where="fragility scorer",
                expected=self.config.dim,
                got=tuple(concepts.shape),
                hint="it was fitted on another concept space",
            )
        h = self.dropout(F.silu(self.input_proj((concepts.float() - self.center) / self.scale)))
        h = self.dropout(F.silu(self.hidden_proj(h)))
        return torch.sigmoid(self.output_proj(h).squeeze(-1))

    def mean_weight(self, a: float, b: float) -> float:
        """Return the mean of ``sigmoid(a F + b)`` over the concepts that the scorer was fitted on."""
        if not self.config.quantiles:
            return 1.0
        return float(torch.sigmoid(a * torch.tensor(self.config.quantiles, dtype=torch.float64) + b).mean())

    @classmethod
    def fit(
        cls,
        concepts: Tensor,
        values: Tensor,
        *,
        hidden_dim: int = 256,
        held_out: float = 0.2,
        steps: int = 2000,
        lr: float = 1e-3,
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> tuple[FragilityScorer, FragilityFit]:
        """Fit a scorer to (N, C) concepts and their (N,) measured fragility, between -1 and 0.

        A share ``held_out`` is kept apart for the figures. A tenth of the rest decides after how many updates, at most
        ``steps``, the scorer is best, which keeps small data from being learnt by heart.

        Raises:
            DataError: fewer than 20 sentences, different numbers of both, values outside of the range, or not finite.
            ConfigError: a setting out of range.
        """
        number = len(values)
        if concepts.ndim != 2 or values.shape != (len(concepts),) or number < 20:
            expected = "(N, C) concepts and (N,) values with N of 20 or more"
            got = f"{tuple(concepts.shape)} and {tuple(values.shape)}"
            raise DataError("too few or ill-shaped data", where="fragility scorer", expected=expected, got=got)
        if not bool(torch.isfinite(concepts).all()) or not bool(((values >= -1) & (values <= 0)).all()):
            raise DataError("not finite, or fragility outside of -1 to 0", where="fragility scorer")
        if not 0.0 < held_out < 0.9 or steps < 1 or hidden_dim < 1 or lr <= 0.0:
            raise ConfigError("a setting is out of range", got=f"{held_out=} {steps=} {hidden_dim=} {lr=}")
        order = StepRandom(seed).permutation("fragility", torch.zeros(1, dtype=torch.int64), number)[0]
        size = max(round(held_out * number), 2)
        test, rest = order[:size], order[size:]
        check, train = rest[: max(len(rest) // 10, 2)], rest[max(len(rest) // 10, 2) :]
        x, y = concepts.detach().float().cpu(), (1.0 + values.detach().float()).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scorer = cls(FragilityConfig(dim=x.shape[1], hidden_dim=hidden_dim))
            scorer.center.copy_(x[train].mean(0))
            scorer.scale.copy_(x[train].std(0).clamp(min=1e-6))
            mean = y[train].mean().clamp(0.01, 0.99)
            with torch.no_grad():  # start from the mean
                scorer.output_proj.weight.mul_(0.1)
                scorer.output_proj.bias.fill_(float(torch.logit(mean)))
            _train(scorer, x, y, train, check, steps, lr)
        with torch.no_grad():
            predicted = scorer(x)
        fit = FragilityFit(
            _r2(predicted[test], y[test]),
            _correlation(predicted[test], y[test]),
            _r2(predicted[rest], y[rest]),
            len(rest),
            len(test),
        )
        quantiles = torch.quantile(predicted[rest].double(), torch.linspace(0, 1, 101, dtype=torch.float64))
        scorer.config = FragilityConfig.from_dict(
            {
                **scorer.config.to_dict(),
                "quantiles": quantiles.tolist(),
                "metadata": {**(metadata or {}), "fit": asdict(fit)},
            }
        )
        return scorer, fit

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        write_safetensors(Path(folder) / "model.safetensors", self.state_dict())
        write_json(Path(folder) / "config.json", self.config.to_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> FragilityScorer:
        """Read what :meth:`save_pretrained` wrote, frozen and in evaluation mode.

        Raises:
            CheckpointError: files are missing, damaged, or describe something else.
        """
        path = require_folder(folder, "fragility scorer")
        data = read_json(path / "config.json")
        if not isinstance(data, dict) or data.get("type") != "fragility":
            raise CheckpointError("not a fragility scorer", where=path / "config.json")
        try:
            scorer = cls(FragilityConfig.from_dict(data))
        except ConfigError as error:
            raise CheckpointError(error.problem, where=path / "config.json", got=error.got) from None
        load_strict(scorer, read_safetensors(path / "model.safetensors"), path / "model.safetensors")
        return scorer.eval().requires_grad_(False)


def _train(scorer: FragilityScorer, x: Tensor, y: Tensor, train: Tensor, check: Tensor, steps: int, lr: float) -> None:
    """Fit in place and leave the weights that were best on ``check``, in evaluation mode."""
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=lr, weight_decay=0.01)
    best, kept = float("inf"), {name: tensor.clone() for name, tensor in scorer.state_dict().items()}
    every, waited = max(steps // 50, 1), 0
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            scorer.eval()
            with torch.no_grad():
                error = float((scorer(x[check]) - y[check]).square().mean())
            waited += 1
            if error < best:
                best, kept, waited = error, {name: tensor.clone() for name, tensor in scorer.state_dict().items()}, 0
            scorer.train()
        if step == steps or waited == _PATIENCE:
            break
        rows = train[torch.randint(len(train), (64,))]
        loss = (scorer(x[rows]) - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scorer.load_state_dict(kept)
    scorer.eval().requires_grad_(False)


def _number(text: str, lang: str) -> int:
    digest = hashlib.blake2b(f"{lang}\n{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _scored(score: ScoreName | Score, written: Sequence[str], sentences: Sequence[str], langs: Sequence[str]) -> Tensor:
    """Return (N,) scores between 0 and 1."""
    if callable(score):
        given = [float(value) for value in score(written, sentences)]
        if len(given) != len(sentences) or any(not 0.0 <= value <= 1.0 for value in given):
            raise DataError("a score is not one number between 0 and 1 for each sentence", where="score", got=given[:5])
        return torch.tensor(given)
    if score == "auto_bleu":
        from sacrebleu.metrics.bleu import BLEU

        metrics: dict[str, Any] = {
            lang: BLEU(tokenize=bleu_tokenizer(lang), effective_order=True) for lang in set(langs)
        }
    elif score == "chrf":
        from sacrebleu.metrics.chrf import CHRF

        metrics = dict.fromkeys(langs, CHRF())
    else:
        raise ConfigError("unknown score", where="score", got=score, hint=did_you_mean(str(score), get_args(ScoreName)))
    values = [
        float(metrics[lang].sentence_score(one, [other]).score) / 100.0
        for one, other, lang in zip(written, sentences, langs, strict=True)
    ]
    return torch.tensor(values).clamp(0.0, 1.0)


def _r2(predicted: Tensor, wanted: Tensor) -> float:
    spread = (wanted - wanted.mean()).square().sum()
    return 0.0 if float(spread) == 0.0 else float(1.0 - (wanted - predicted).square().sum() / spread)


def _correlation(predicted: Tensor, wanted: Tensor) -> float:
    a, b = predicted - predicted.mean(), wanted - wanted.mean()
    size = a.norm() * b.norm()
    return 0.0 if float(size) == 0.0 else float((a * b).sum() / size)
