"""A codec whose encoder is somebody else's: any sentence encoder, with a decoder of ours, a bank, or none.

Large Concept Models need a sentence encoder with a decoder, and nothing of a particular one (arXiv:2412.08821, section
2.1). Here the encoder stays as it is; what it lacks is the way back: the decoder of our autoencoder, trained on the
encoder's vectors, or the nearest sentence of a bank (:mod:`largeconcept.codec.retrieval`).

Files of a saved codec: ``config.json`` names the encoder and its fingerprint, ``probes.safetensors`` holds vectors by
which a changed encoder is noticed, ``decoder/`` is a saved decoder. The encoder's weights are not copied.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from largeconcept.codec.autoencoder import AutoencoderCodec, Storage
from largeconcept.codec.encoders import Encode, ExternalEncoder, open_encoder
from largeconcept.codec.retrieval import RetrievalDecoder
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import (
    check_format_version,
    read_json,
    read_safetensors,
    require_folder,
    write_json,
    write_safetensors,
)
from largeconcept.languages import flores
from largeconcept.types import TokenLoss

FORMAT_VERSION = 1


class ExternalCodec:
    """Sentences to concepts by another encoder, and back by a decoder of ours.

    Args:
        encoder: the encoder.
        decoder: a trained decoder (an :class:`AutoencoderCodec` without an encoder), a bank, or ``None``: the codec
            then encodes, and says that it cannot write.
        metadata: what is known about it, written into ``config.json``.

    Raises:
        CheckpointError: the decoder is for concepts of another dimension or space.
    """

    def __init__(
        self,
        encoder: ExternalEncoder,
        decoder: AutoencoderCodec | RetrievalDecoder | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if decoder is not None and decoder.dim != encoder.dim:
            raise CheckpointError(
                "the decoder is for concepts of another dimension",
                where="codec",
                expected=encoder.dim,
                got=decoder.dim,
            )
        if isinstance(decoder, AutoencoderCodec) and decoder.fingerprint != encoder.fingerprint:
            raise CheckpointError(
                "the decoder is for another concept space",
                where="codec",
                expected=encoder.fingerprint,
                got=decoder.fingerprint,
            )
        self.encoder = encoder
        self.decoder = decoder
        self.metadata = dict(metadata or {})

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        """The encoder's: it alone decides the concept space."""
        return self.encoder.fingerprint

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes that ``decode`` can write; none without a decoder."""
        return () if self.decoder is None else self.decoder.languages

    @property
    def network(self) -> nn.Module | None:
        """The trained decoder's network, if there is one."""
        return self.decoder.network if isinstance(self.decoder, AutoencoderCodec) else None

    def encode(
        self, sentences: Sequence[str], lang: str | Sequence[str] | None = None, *, batch_tokens: int = 8192
    ) -> Tensor:
        """Return (N, C) float32 concepts of variance one.

        Args:
            sentences: one concept is made of each.
            lang: not used, but there is a warning where the encoder does not declare to read it.
            batch_tokens: not used; the encoder has its own ``batch_size``.

        Raises:
            DataError: a sentence is not a string or is empty, or the encoder fails on it.
        """
        if lang is not None and self.encoder.languages:
            given = {flores(code) for code in ([lang] if isinstance(lang, str) else lang)}
            foreign = sorted(given.difference(self.encoder.languages))
            if foreign:
                name = self.encoder.name or "the encoder"
                warnings.warn(f"{name} does not declare to read {', '.join(foreign)}", stacklevel=2)
        return self.encoder.encode(sentences)

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
    ) -> list[str]:
        """Return one sentence for each of the (N, C) concepts.

        A bank has nothing to choose and answers with its nearest sentence, whatever the settings; the arguments are
        those of :meth:`AutoencoderCodec.decode`.

        Raises:
            ConfigError: there is no decoder, or a setting is out of range.
            DataError: a wrong shape, or a value that is not finite.
            LanguageError: the decoder cannot write a language.
        """
        decoder = self._require_decoder()
        if isinstance(decoder, RetrievalDecoder):
            return decoder.decode(concepts, lang)
        return decoder.decode(
            concepts,
            lang,
            method=method,
            num_beams=num_beams,
            max_length=max_length,
            batch_tokens=batch_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )

    def token_loss(
        self, concepts: Tensor, sentences: Sequence[str], lang: str | Sequence[str], *, batch_tokens: int = 8192
    ) -> TokenLoss:
        """Say how well a trained decoder writes each sentence from its concept; see
        :meth:`AutoencoderCodec.token_loss`.

        Raises:
            ConfigError: there is no trained decoder.
        """
        return self._require_network().token_loss(concepts, sentences, lang, batch_tokens=batch_tokens)

    def decoder_parameters(self) -> list[nn.Parameter]:
        """Return the weights of a trained decoder; none of them moves the concept space.

        Raises:
            ConfigError: there is no trained decoder.
        """
        return list(self._require_network().network.parameters())

    def retrained(self, metadata: dict[str, Any]) -> ExternalCodec:
        """Return a codec of the same encoder and the trained decoder's weights as they are now.

        Raises:
            ConfigError: there is no trained decoder.
        """
        own = self._require_network()
        decoder = AutoencoderCodec(own.network, own.tokenizer, metadata, space=self.fingerprint)
        return ExternalCodec(self.encoder, decoder, metadata)

    def to(self, device: str | torch.device) -> Self:
        """Move a trained decoder to a device; the encoder stays where it is."""
        if isinstance(self.decoder, AutoencoderCodec):
            self.decoder.to(device)
        return self

    def _require_decoder(self) -> AutoencoderCodec | RetrievalDecoder:
        if self.decoder is None:
            raise ConfigError(
                "the codec is an encoder alone and cannot write",
                where=self.encoder.name or "external codec",
                hint="train a decoder for it (codec train --encoder) or give it sentences to choose from (codec bank)",
            )
        return self.decoder

    def _require_network(self) -> AutoencoderCodec:
        decoder = self._require_decoder()
        if not isinstance(decoder, AutoencoderCodec):
            raise ConfigError(
                "a bank of sentences has no likelihoods",
                where=self.encoder.name or "external codec",
                hint="train a decoder: codec train --encoder",
            )
        return decoder

    # ------------------------------------------------------------------ files

    def save_pretrained(self, folder: str | Path, storage: Storage | None = None) -> str:
        """Write the decoder and a reference to the encoder; return the fingerprint.

        Args:
            folder: made if it is missing.
            storage: of a trained decoder: ``float32`` or ``int8``; by default as it was loaded.
        """
        folder = Path(folder)
        kind = None
        if isinstance(self.decoder, AutoencoderCodec):
            kind = "autoencoder"
            self.decoder.save_pretrained(folder / "decoder", storage)
        elif self.decoder is not None:
            kind = "retrieval"
            self.decoder.save_pretrained(folder / "decoder")
        write_safetensors(folder / "probes.safetensors", {"probes": self.encoder.probes})
        write_json(
            folder / "config.json",
            {
                "type": "external",
                "format_version": FORMAT_VERSION,
                "encoder": {
                    "name": self.encoder.name,
                    "dim": self.encoder.dim,
                    "languages": list(self.encoder.languages),
                    "batch_size": self.encoder.batch_size,
                },
                "fingerprint": self.fingerprint,
                "decoder": kind,
                "metadata": self.metadata,
            },
        )
        return self.fingerprint

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, encoder: str | Encode | ExternalEncoder | None = None, device: str = "cpu"
    ) -> ExternalCodec:
        """Read a saved codec and open its encoder.

        Args:
            folder: of :meth:`save_pretrained`.
            encoder: where the encoder is now, or the function itself, instead of the name that was saved.
            device: of a sentence-transformers model.

        Raises:
            CheckpointError: a file is missing or damaged, or the encoder is not the one the codec was made for.
            ConfigError: the encoder was a function and is not given.
            DependencyError: the encoder's package is not installed.
        """
        folder = require_folder(folder, "codec")
        data = read_json(folder / "config.json")
        saved = data.get("encoder") if isinstance(data, dict) and data.get("type") == "external" else None
        if not isinstance(saved, dict) or data.get("decoder") not in (None, "autoencoder", "retrieval"):
            raise CheckpointError("not an external codec", where=folder / "config.json")
        check_format_version(data.get("format_version", 0), FORMAT_VERSION, folder / "config.json")
        chosen = encoder if encoder is not None else saved.get("name")
        if chosen is None:
            raise ConfigError(
                "the codec's encoder is a function, which cannot be saved",
                where=folder,
                hint="give it: load_codec(folder, encoder=function)",
            )
        opened = open_encoder(
            chosen,
            languages=tuple(map(str, saved.get("languages") or ())),
            batch_size=saved.get("batch_size"),
            device=device,
        )
        probes = read_safetensors(folder / "probes.safetensors").get("probes")
        if probes is None:
            raise CheckpointError("no probes", where=folder / "probes.safetensors")
        opened.check_probes(probes, folder)
        if opened.fingerprint != data.get("fingerprint"):
            raise CheckpointError(
                "the encoder is another one than the codec was made for",
                where=folder,
                expected=data.get("fingerprint"),
                got=opened.fingerprint,
                hint="give the encoder it was made with: load_codec(folder, encoder=…)",
            )
        decoder: AutoencoderCodec | RetrievalDecoder | None = None
        if data["decoder"] == "autoencoder":
            decoder = AutoencoderCodec.from_pretrained(folder / "decoder")
        elif data["decoder"] == "retrieval":
            decoder = RetrievalDecoder.from_pretrained(folder / "decoder")
        return cls(opened, decoder, data.get("metadata"))
