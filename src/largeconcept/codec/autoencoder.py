"""Our own concept space: an autoencoder codec that is trained on text and shipped with the library.

Encoding needs no language; decoding starts from a target language. Files of a saved codec: ``config.json`` (network,
storage, fingerprint, metadata), ``model.safetensors`` (float32, or int8 rows with scales) and ``tokenizer.model``.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from largeconcept.codec.avoiding import Avoiding
from largeconcept.codec.decoding import DecoderState, SamplingOptions, beam_search, write_tokens
from largeconcept.codec.network import EOS, PAD, AutoencoderConfig, AutoencoderNetwork, WritingState
from largeconcept.codec.rows import by_length, check_concepts, too_long
from largeconcept.codec.token_loss import token_cross_entropy
from largeconcept.codec.tokenizer import Tokenizer, clean
from largeconcept.devices import without_values
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError, did_you_mean
from largeconcept.int8 import dequantize_rows, quantize_rows
from largeconcept.io import (
    check_format_version,
    fingerprint,
    load_strict,
    read_json,
    read_safetensors,
    require_folder,
    write_json,
    write_safetensors,
)
from largeconcept.languages import flores
from largeconcept.types import TokenLoss

FORMAT_VERSION = 1
Storage = Literal["float32", "int8"]


class AutoencoderCodec:
    """Sentences to concepts and back, with a trained :class:`AutoencoderNetwork`.

    Args:
        network: the trained network; put into evaluation mode.
        tokenizer: its vocabulary.
        metadata: what is known about the training, written into ``config.json``.
        space: fingerprint of the codec whose encoder this one has, when only the decoder was trained further: its
            concepts are that codec's.
    """

    def __init__(
        self,
        network: AutoencoderNetwork,
        tokenizer: Tokenizer,
        metadata: dict[str, Any] | None = None,
        space: str | None = None,
    ) -> None:
        if tokenizer.vocab_size != network.config.vocab_size:
            raise CheckpointError(
                "tokenizer and network have different vocabularies",
                where="codec",
                expected=network.config.vocab_size,
                got=tokenizer.vocab_size,
            )
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.metadata = dict(metadata or {})
        # Tensors as they lie on disk: kept so that saving a loaded codec again gives the same fingerprint.
        self._stored: tuple[Storage, dict[str, Tensor]] | None = None
        self._fingerprint: str | None = None
        self._space = space

    @property
    def config(self) -> AutoencoderConfig:
        """Shape of the network."""
        return self.network.config

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        return self.network.config.dim

    @property
    def meaning_dim(self) -> int:
        """Channels that say what a sentence means, the first ones; those after them say how it is worded."""
        return self.network.config.meaning_dim

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes that ``decode`` can write."""
        return self.network.config.languages

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean the same concept space: :attr:`weights_fingerprint`, or that of the codec whose
        encoder this one kept."""
        return self.weights_fingerprint if self._space is None else self._space

    @property
    def is_rounded(self) -> bool:
        """Whether it was loaded from int8 files: saving it again loses nothing more."""
        return self._stored is not None and self._stored[0] == "int8"

    @property
    def weights_fingerprint(self) -> str:
        """Hash of weights as stored, vocabulary and shape."""
        if self._fingerprint is None:
            storage, stored = self._stored or ("float32", dict(self.network.state_dict()))
            self._fingerprint = _fingerprint(stored, self.tokenizer, self.config, storage)
        return self._fingerprint

    # ------------------------------------------------------------------ text to concepts

    @torch.inference_mode()
    def encode(
        self,
        sentences: Sequence[str],
        lang: str | Sequence[str] | None = None,
        *,
        batch_tokens: int = 8192,
        on_long: Literal["truncate", "error"] = "truncate",
    ) -> Tensor:
        """Return (N, C) float32 concepts of variance one.

        Args:
            sentences: one concept is made of each.
            lang: not needed and not used; accepted so that codecs can be exchanged.
            batch_tokens: tokens, padding included, that go through the network at once; sentences are sorted by length.
            on_long: what to do with a sentence of more than ``config.max_tokens`` tokens: keep its beginning with a
                warning, or fail.

        Raises:
            DataError: a sentence is not a string, is empty, or is too long under ``on_long="error"``.
        """
        if isinstance(sentences, str):
            raise DataError("expected a list of sentences", where="encode", got="one string", hint="use [text]")
        _check_sentences(sentences)
        ids = self.tokenizer.encode(list(sentences))
        limit = self.config.max_tokens
        if too_long([len(row) for row in ids], limit, on_long):
            ids = [row[:limit] for row in ids]
        with torch.inference_mode(False):  # the caller may want gradients with respect to the concepts
            out = torch.empty(len(ids), self.dim)
        device = self.network.embedding.weight.device
        for rows in by_length([len(row) for row in ids], batch_tokens):
            longest = max(len(ids[i]) for i in rows)
            tokens = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in rows], device=device)
            lengths = torch.tensor([len(ids[i]) for i in rows], device=device)
            encoded = self.network.encode(tokens, lengths)
            out[torch.tensor(rows)] = encoded[:, : self.dim].float().cpu()
        return out

    # ------------------------------------------------------------------ concepts to text

    @torch.inference_mode()
    def decode(
        self,
        concepts: Tensor,
        lang: str | Sequence[str],
        *,
        method: str = "beam",
        num_beams: int = 4,
        max_length: int = 128,
        batch_tokens: int = 8192,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        avoid: str | None = None,
    ) -> list[str]:
        """Return one sentence for each of the (N, C) concepts.

        Args:
            concepts: on any device, any float type.
            lang: target language, one for all or one per row; FLORES-200 or BCP-47.
            method: ``beam`` (mean log-probability, ``num_beams``), ``greedy`` or ``sample`` (``temperature``,
                ``top_k``, ``top_p``, ``seed``).
            max_length: most tokens of a sentence, at most ``config.max_tokens``.
            batch_tokens: bounds the rows that are written at once (rows × beams × ``max_length``).
            avoid: a sentence not to write, however likely (:mod:`largeconcept.codec.avoiding`).

        Raises:
            DataError: a wrong shape, a value that is not finite, or nothing to ``avoid``.
            LanguageError: the codec cannot write a language.
            ConfigError: an unknown method or a setting out of range.
        """
        check_concepts(concepts, self.dim)
        weight = self.network.embedding.weight
        rows = concepts.detach().to(device=weight.device, dtype=weight.dtype)
        number = self._language_indices(lang, len(rows))
        if method not in ("beam", "greedy", "sample"):
            raise ConfigError("unknown decoding method", where="method", got=method, expected="beam, greedy or sample")
        if num_beams < 1 or max_length < 1 or temperature <= 0 or not 0 < top_p <= 1 or top_k < 0:
            raise ConfigError(
                "a decoding setting is out of range",
                got=f"{num_beams=} {max_length=} {temperature=} {top_k=} {top_p=}",
            )
        max_length = min(max_length, self.config.max_tokens)
        beams = num_beams if method == "beam" else 1
        group = max(1, 16 * batch_tokens // (max_length * beams))
        generator = torch.Generator()
        if seed is not None:
            generator.manual_seed(seed)
        else:
            generator.seed()
        if avoid is not None:
            _check_sentences([avoid])
        avoided = None if avoid is None else self.tokenizer.encode([avoid])[0]
        written: list[list[int]] = []
        for start in range(0, len(rows), group):
            part, langs = rows[start : start + group], number[start : start + group]
            state: DecoderState = WritingState(self.network, part, langs, max_length)
            if avoided is not None:
                state = Avoiding(state, avoided)
            if method == "beam" and num_beams > 1:
                written += beam_search(state, len(part), max_length, num_beams)
            else:
                options = SamplingOptions(temperature, top_k, top_p) if method == "sample" else None
                written += write_tokens(state, len(part), max_length, generator, options)
        return self.tokenizer.decode(written)

    def token_loss(
        self, concepts: Tensor, sentences: Sequence[str], lang: str | Sequence[str], *, batch_tokens: int = 8192
    ) -> TokenLoss:
        """Say how well the decoder writes each sentence from its concept, under teacher forcing.

        As in the codec's own training: the language comes first, then the tokens of the sentence, and the end mark is
        predicted too. A sentence of more than ``config.max_tokens`` tokens is cut there and has no end mark.

        Args:
            concepts: (N, C), on the codec's device; gradients flow to them, and to weights that are not frozen.
            sentences: N sentences.
            lang: language of all or of each.
            batch_tokens: tokens, padding included, that go through the decoder at once; sentences are sorted by length.

        Raises:
            DataError: a wrong shape or number, or a sentence that is empty or not a string.
            LanguageError: the codec cannot write a language.
        """
        if concepts.ndim != 2 or concepts.shape != (len(sentences), self.dim):
            expected = f"({len(sentences)}, {self.dim})"
            raise DataError("wrong shape", where="concepts", expected=expected, got=tuple(concepts.shape))
        _check_sentences(sentences)
        number = self._language_indices(lang, len(sentences))
        limit = self.config.max_tokens
        ids = self.tokenizer.encode(list(sentences))
        targets = [row[:limit] if len(row) > limit else [*row, EOS] for row in ids]
        device = concepts.device
        order: list[int] = []
        nats: list[Tensor] = []
        correct: list[Tensor] = []
        for rows in by_length([len(row) for row in targets], batch_tokens):
            order += rows
            longest = max(len(targets[i]) for i in rows)
            padded = torch.tensor([targets[i] + [PAD] * (longest - len(targets[i])) for i in rows], device=device)
            sizes = torch.tensor([len(targets[i]) for i in rows], device=device)
            index = torch.tensor(rows, device=device)
            states = self.network.decode_hidden(concepts[index], padded[:, :-1], number[index])
            real = torch.arange(longest, device=device) < sizes[:, None]
            scored = token_cross_entropy(states[real], self.network.embedding.weight, padded[real])
            owner = torch.arange(len(rows), device=device).repeat_interleave(sizes)
            nats.append(concepts.new_zeros(len(rows), dtype=torch.float32).index_add(0, owner, scored[0]))
            correct.append(sizes.new_zeros(len(rows)).index_add(0, owner, scored[1].to(sizes.dtype)))
        back = torch.tensor(order, device=device).argsort()
        lengths = torch.tensor([len(row) for row in targets], device=device)
        if not nats:
            return TokenLoss(concepts.float().sum(dim=1), lengths.long(), lengths.long())
        return TokenLoss(torch.cat(nats)[back], lengths, torch.cat(correct)[back])

    def set_form_reach(self, places: int) -> None:
        """Let the decoder find words among the first places of the form, anew; concepts stay what they are.

        The new weights want training (``through_decoder`` with ``form_reach``).
        """
        space = self.fingerprint
        self.network.set_form_reach(places)
        self.network.to(self.network.embedding.weight.device)
        self._space, self._stored, self._fingerprint = space, None, None

    def decoder_parameters(self) -> list[nn.Parameter]:
        """Return the decoder's own weights: training them leaves every concept where it is.

        The table of token embeddings is not among them, because the encoder reads with it too.
        """
        network = self.network
        parts: list[nn.Module] = [network.decoder, network.to_memory, network.to_bias, network.language]
        if network.binding is not None:
            parts += [network.binding.unbind, network.binding.unbind_written, network.binding.scale]
        parts += [] if network.reader is None else [network.reader]
        return [network.decoder_positions, *(p for part in parts for p in part.parameters())]

    def _language_indices(self, lang: str | Sequence[str], rows: int) -> Tensor:
        codes = [lang] * rows if isinstance(lang, str) else list(lang)
        if len(codes) != rows:
            raise LanguageError("one language per row is needed", where="lang", expected=rows, got=len(codes))
        numbers = []
        for code in codes:
            full = flores(code)
            if full not in self.languages:
                raise LanguageError(
                    "this codec cannot write the language", got=code, hint=did_you_mean(full, self.languages)
                )
            numbers.append(self.languages.index(full))
        return torch.tensor(numbers, dtype=torch.long, device=self.network.embedding.weight.device)

    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device."""
        self.network.to(device)
        return self

    # ------------------------------------------------------------------ files

    def save_pretrained(self, folder: str | Path, storage: Storage | None = None) -> str:
        """Write the codec and return the fingerprint of its weights.

        Args:
            folder: made if it is missing.
            storage: ``float32``, or ``int8`` (a quarter of the size, weights rounded); by default as it was loaded.
        """
        storage = storage or (self._stored[0] if self._stored else "float32")
        if self._stored is not None and self._stored[0] == storage:
            stored = self._stored[1]
        else:
            weights = {name: tensor.detach().cpu() for name, tensor in self.network.state_dict().items()}
            stored = quantize_rows(weights) if storage == "int8" else weights
        mark = _fingerprint(stored, self.tokenizer, self.config, storage)
        folder = Path(folder)
        write_safetensors(folder / "model.safetensors", stored)
        self.tokenizer.save(folder / "tokenizer.model")
        write_json(
            folder / "config.json",
            {
                "type": "autoencoder",
                "format_version": FORMAT_VERSION,
                "network": self.config.to_dict(),
                "storage": storage,
                "fingerprint": mark,
                "metadata": self.metadata,
                **({} if self._space is None else {"space": self._space}),
            },
        )
        return mark

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AutoencoderCodec:
        """Read a saved codec.

        Raises:
            CheckpointError: a file is missing, damaged, of a newer format, or does not belong to the others.
        """
        folder = require_folder(folder, "codec")
        data = read_json(folder / "config.json")
        if not isinstance(data, dict) or data.get("type") != "autoencoder" or "network" not in data:
            raise CheckpointError("not an autoencoder codec", where=folder / "config.json")
        check_format_version(data.get("format_version", 0), FORMAT_VERSION, folder / "config.json")
        config = AutoencoderConfig.from_dict(data["network"], where=str(folder / "config.json"))
        storage: Storage = "int8" if data.get("storage") == "int8" else "float32"
        stored = read_safetensors(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(folder / "tokenizer.model")
        with without_values():
            network = AutoencoderNetwork(config)
        network.to_empty(device="cpu")
        load_strict(network, dequantize_rows(stored), folder / "model.safetensors")
        codec = cls(network, tokenizer, data.get("metadata"), data.get("space"))
        codec._stored = (storage, stored)
        expected = data.get("fingerprint")
        if expected is not None and codec.weights_fingerprint != expected:
            raise CheckpointError(
                "weights or vocabulary do not match the codec's fingerprint",
                where=folder,
                expected=expected,
                got=codec.weights_fingerprint,
                hint="a file was changed or replaced; copy the folder again",
            )
        return codec


def _check_sentences(sentences: Sequence[str]) -> None:
    for i, sentence in enumerate(sentences):
        if not isinstance(sentence, str) or not clean(sentence):
            raise DataError(
                "an empty sentence" if isinstance(sentence, str) else "not a string",
                where=f"sentences[{i}]",
                got=repr(sentence),
            )


def _fingerprint(stored: dict[str, Tensor], tokenizer: Tokenizer, config: AutoencoderConfig, storage: str) -> str:
    # Options that came later count only where they are used, so that older codecs keep their names.
    later = {name for name in ("form_dim", "form_reach", "teacher_dim") if not getattr(config, name)}
    fields = {name: value for name, value in config.to_dict().items() if name not in later}
    shape = json.dumps([storage, fields], sort_keys=True).encode()
    return fingerprint(stored, hashlib.sha256(tokenizer.model).digest(), shape)
