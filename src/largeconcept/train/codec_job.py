"""From text files to a saved codec in one call: vocabulary, sentence table, training, files.

Parallel documents (the same id in two languages, with as many sentences in each) give translation pairs; a table of
pairs may be given besides.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from largeconcept.codec import load_codec
from largeconcept.codec.autoencoder import AutoencoderCodec
from largeconcept.codec.encoders import open_encoder
from largeconcept.codec.external import ExternalCodec
from largeconcept.codec.network import AutoencoderNetwork
from largeconcept.codec.tokenizer import Tokenizer, clean
from largeconcept.data.documents import family_of, read_documents
from largeconcept.data.pairs import read_sourced_pairs
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.io import require_folder
from largeconcept.train import checkpoint
from largeconcept.train.codec_trainer import CodecTrainConfig, CodecTrainer, build_codec_optimizers, is_of_encoder
from largeconcept.train.codec_vectors import table_concepts
from largeconcept.types import Document

Pair = tuple[str, str, str, str]
MAX_CHARS = 400  # longer "sentences" are not sentences; they would also make the longest batches


def read_pairs(paths: Iterable[str | Path]) -> Iterator[Pair]:
    """Read translation pairs: tab-separated ``source, language, English, other``, plain, ``.gz`` or ``.xz``.

    Yields:
        (eng_Latn, English text, language, other text).

    Raises:
        DataError: a missing file, or a line without four columns (with its number).
        LanguageError: an unknown language.
    """
    for pair in read_sourced_pairs(paths):
        yield "eng_Latn", pair.english, pair.lang, pair.other


def parallel_pairs(documents: Iterable[Document]) -> list[Pair]:
    """Pair the sentences of documents that share an id, stand in two languages and have as many sentences.

    They must be of one source, but for a language at the end of its name.
    """
    groups: dict[tuple[str | None, str], list[Document]] = defaultdict(list)
    for document in documents:
        if document.lang is not None:
            groups[(family_of(document), document.id)].append(document)
    pairs: list[Pair] = []
    for group in groups.values():
        for a, b in itertools.combinations(group, 2):
            if a.lang != b.lang and len(a.sentences) == len(b.sentences):
                pairs.extend(
                    (a.lang or "", x, b.lang or "", y) for x, y in zip(a.sentences, b.sentences, strict=True) if x != y
                )
    return pairs


def train_codec(
    inputs: Sequence[str | Path],
    config: CodecTrainConfig,
    *,
    pairs: Sequence[str | Path] = (),
    storage: str = "float32",
    metadata: dict[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> AutoencoderCodec | ExternalCodec:
    """Train a codec on documents and save it to ``<out>/codec``.

    With ``encoder`` only a decoder is trained, on concepts that the encoder makes of all sentences first.

    Args:
        inputs: files or globs that ``read_documents`` understands, with languages.
        config: the run; ``network.languages`` chooses which languages are used.
        pairs: tables that :func:`read_pairs` understands.
        storage: ``float32`` or ``int8`` files.
        metadata: added to the codec's ``config.json``.
        on_progress: called with sentences done and in all while another encoder makes their vectors.

    Raises:
        DataError: no usable sentence.
    """
    out = Path(config.out)
    origin = None if config.start is None else _origin(config.start)
    if origin is not None:
        config = config.model_copy(update={"network": origin.config})
    encoder = None if config.encoder is None else open_encoder(config.encoder)
    if encoder is not None:
        alone = {"dim": encoder.dim, "encoder_layers": 0, "bottleneck": "unit_variance"}
        config = config.model_copy(update={"network": config.network.model_copy(update=alone)})
    teacher = None if config.teacher is None else open_encoder(config.teacher)
    teacher_dim = 0 if teacher is None else teacher.dim
    config = config.model_copy(update={"network": config.network.model_copy(update={"teacher_dim": teacher_dim})})
    if origin is not None:
        origin.network.set_teacher(teacher_dim)
    codes = config.network.languages
    tokenizer_path, table_path = out / "tokenizer.model", out / "sentences.npz"
    if not (tokenizer_path.is_file() and table_path.is_file()):
        documents = [d for d in read_documents(inputs) if d.lang in codes]
        texts = [(d.lang or "", clean(s)) for d in documents for s in d.sentences if 0 < len(s) <= MAX_CHARS]
        texts = [(lang, text) for lang, text in texts if text]
        if not texts:
            raise DataError(
                "no sentence in the codec's languages",
                where=", ".join(map(str, inputs)),
                expected=", ".join(codes),
                hint="documents need a lang field and sentences",
            )
        links = [
            (la, clean(a), lb, clean(b))
            for la, a, lb, b in itertools.chain(parallel_pairs(documents), read_pairs(pairs))
            if la in codes and lb in codes and 0 < len(a) <= MAX_CHARS and 0 < len(b) <= MAX_CHARS
        ]
        sample = [text for _, text in texts]
        random.Random(config.seed).shuffle(sample)
        if origin is not None:
            tokenizer = origin.tokenizer
        else:
            tokenizer = Tokenizer.train(sample[:500_000], config.network.vocab_size, seed=config.seed)
        table = SentenceTable.build(
            tokenizer.encode, texts, links, languages=codes, max_tokens=config.network.max_tokens
        )
        table.save(table_path)
        tokenizer.save(tokenizer_path)
    tokenizer, table = Tokenizer.from_file(tokenizer_path), SentenceTable.load(table_path)
    concepts = None if encoder is None else table_concepts(encoder, table, tokenizer, out, on_progress)
    taught = None if teacher is None else table_concepts(teacher, table, tokenizer, out, on_progress)
    network = None if origin is None else origin.network
    CodecTrainer(config, table, network=network, concepts=concepts, teacher=taught).fit()
    return export_codec(out, out / "codec", storage=storage, metadata=metadata)


def export_codec(
    run: str | Path, out: str | Path, *, storage: str = "float32", metadata: dict[str, Any] | None = None
) -> AutoencoderCodec | ExternalCodec:
    """Save the codec of a run folder as its newest checkpoint has it, whether the run is finished or not.

    Args:
        run: folder of a codec run.
        out: folder of the saved codec.
        storage: ``float32`` or ``int8``.
        metadata: added to what the run knows.

    Raises:
        CheckpointError: no run, or no checkpoint in it.
    """
    folder = require_folder(run, "codec run")
    newest = checkpoint.latest(folder)
    if newest is None:
        raise CheckpointError("no checkpoint yet", where=folder)
    state = checkpoint.read_state(newest)
    config = CodecTrainConfig.from_dict(state["config"], where=str(newest))
    network = AutoencoderNetwork(config.network)
    checkpoint.load(newest, network, build_codec_optimizers(network, config), None)
    network.set_teacher(0)  # of use in training only
    table = SentenceTable.load(folder / "sentences.npz")
    known = {
        "sentences": len(table),
        "pairs": len(table.pairs),
        "table_tokens": int(table.offsets[-1]),
        "steps": state["step"],
        "minutes": round(float(state["seconds"]) / 60, 1),
        "tokens_seen": int(state.get("tokens", 0)),
    }
    tokenizer = Tokenizer.from_file(folder / "tokenizer.model")
    about = {**known, **(metadata or {})}
    encoder = None if config.encoder is None else open_encoder(config.encoder)
    space = _space(config, network) if encoder is None else encoder.fingerprint
    own = AutoencoderCodec(network, tokenizer, about, space=space)
    codec = own if encoder is None else ExternalCodec(encoder, own, about)
    codec.save_pretrained(out, "int8" if storage == "int8" else "float32")
    return type(codec).from_pretrained(out)


def _origin(name: str) -> AutoencoderCodec:
    codec = load_codec(name)
    if not isinstance(codec, AutoencoderCodec):
        raise ConfigError("not a codec that can be trained", where="start", got=name, expected="a saved autoencoder")
    return codec


def _space(config: CodecTrainConfig, network: AutoencoderNetwork) -> str | None:
    """Return the fingerprint of the space that a run with a quantizer kept; ``None`` for a space of its own."""
    if config.quantizer is None or config.start is None:
        return None
    origin = _origin(config.start)
    before = dict(origin.network.named_parameters())
    for name, parameter in network.named_parameters():
        if is_of_encoder(name) and not torch.equal(parameter, before[name]):
            raise CheckpointError(
                "the codec that the run started from has another encoder now", where=f"start: {config.start}", got=name
            )
    return origin.fingerprint
