"""SONAR as a codec: sentences (and speech) to concepts of 1024 channels, and concepts to sentences in 202 languages.

Shape letters: N sentences, T tokens, C concept dimension.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from largeconcept.codec.rows import by_length, check_concepts, too_long
from largeconcept.codec.sonar.files import Dtype
from largeconcept.codec.sonar.folder import space_fingerprint
from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
from largeconcept.codec.sonar.tokenizer import EOS, PAD, SonarTokenizer, truncate_ids
from largeconcept.codec.sonar.writing import WritingOptions, writable, write
from largeconcept.codec.speech.encoder import MAX_SECONDS
from largeconcept.codec.speech.encoders import SpeechEncoders
from largeconcept.codec.token_loss import token_cross_entropy
from largeconcept.errors import CheckpointError, ConfigError, DataError, LanguageError
from largeconcept.types import TokenLoss

if TYPE_CHECKING:
    from largeconcept.codec.speech.files import SpeechEncoder

OnLong = Literal["truncate", "error", "split"]
SpeechSources = Mapping[str, "str | Path | SpeechEncoder"]


class SonarCodec:
    """Sentences to concepts and back, with SONAR's encoder and decoder.

    Concepts are as the encoder gives them, not normalised: those of the released weights are about 0.2 long, and the
    decoder needs them so. Either half may be ``None``; what needs it then says so.

    Args:
        encoder, decoder: put into evaluation mode.
        tokenizer: of both.
        speech: speech encoders by language; see :class:`~largeconcept.codec.speech.encoders.SpeechEncoders`.
        space: fingerprint of the concept space, or a function that finds it, where it is not that of ``encoder`` as
            it is (its weights were rounded) or there is no encoder.
        metadata: what is known about the weights, as plain data; ``licence`` among it.
        forbid_unknown: never write the unknown piece, as ``⁇``.
        vocabulary: sample texts by language; see :meth:`restrict`.
        compile: compile the encoder and the decoder's step with ``torch.compile``; the first calls then take a minute.
            Meant for accelerators: on a CPU the library's own ways are as quick or quicker.

    Raises:
        CheckpointError: the parts do not fit one another.
        ConfigError: neither encoder nor decoder.
    """

    def __init__(
        self,
        encoder: SonarEncoder | None,
        decoder: SonarDecoder | None,
        tokenizer: SonarTokenizer,
        *,
        speech: SpeechEncoders | SpeechSources | None = None,
        space: str | Callable[[], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        forbid_unknown: bool = True,
        vocabulary: Mapping[str, Sequence[str]] | None = None,
        compile: bool = False,
    ) -> None:
        halves = {name: half for name, half in (("encoder", encoder), ("decoder", decoder)) if half is not None}
        for name, half in halves.items():
            if half.config.vocab_size != tokenizer.vocab_size:
                raise CheckpointError(
                    f"tokenizer and {name} have different vocabularies",
                    where="SONAR",
                    expected=f"a table of {tokenizer.vocab_size} rows, as the tokenizer has "
                    f"{tokenizer.num_pieces} pieces and {len(tokenizer.languages)} languages",
                    got=half.config.vocab_size,
                )
        if encoder is not None and decoder is not None and encoder.config.width != decoder.config.concept_dim:
            raise CheckpointError(
                "encoder and decoder have concepts of different sizes",
                where="SONAR",
                expected=f"{encoder.config.width} channels",
                got=f"{decoder.config.concept_dim}",
            )
        if not halves and not speech:
            raise ConfigError("neither encoder nor decoder", where="SONAR", hint="give at least one of them")
        self.encoder = None if encoder is None else encoder.eval()
        self.decoder = None if decoder is None else decoder.eval()
        self.tokenizer = tokenizer
        if not isinstance(speech, SpeechEncoders):
            speech = SpeechEncoders(speech, dim=self.dim if halves else None)
        self.speech = speech
        self.metadata = dict(metadata or {})
        self.forbid_unknown = forbid_unknown
        self._space = getattr(encoder, "space", None) if space is None else space  # an exported encoder knows its own
        self._vocabularies: dict[int, tuple[int, ...]] = {}
        # Of each half: tensors without effect, mapped from the file, and where they are from. Only saving needs them.
        self.dead: dict[str, Mapping[str, Tensor]] = {}
        self.sources: dict[str, Mapping[str, str]] = {}
        for lang, texts in (vocabulary or {}).items():
            self.restrict(lang, texts)
        if compile and encoder is not None:
            encoder.compile(dynamic=True)
        if compile and decoder is not None:
            decoder.compile_step()

    # ------------------------------------------------------------------ what it is

    @property
    def dim(self) -> int:
        """C, the number of channels of a concept."""
        if self.encoder is not None:
            return self.encoder.config.width
        if self.decoder is not None:
            return self.decoder.config.concept_dim
        return next(iter(self.speech.values())).dim

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes that can be read and written."""
        return self.tokenizer.languages

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean the same concept space: the encoder's weights as published, and the tokenizer.

        Finding it reads all of the encoder's weights, once; a saved folder knows it. The decoder does not enter.

        Raises:
            ConfigError: there is no encoder, and the space is not known either.
        """
        if callable(self._space):
            self._space = self._space()
        if self._space is None:
            encoder = self._needed_encoder("the fingerprint of the concept space")
            self._space = space_fingerprint(encoder.state_dict(), encoder.config.num_heads, self.tokenizer)
        return self._space

    @property
    def network(self) -> nn.ModuleDict:
        """Encoder and decoder as one module, to be moved or frozen together."""
        return nn.ModuleDict(dict(self.halves))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        parameter = next(self.network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def to(self, device: str | torch.device) -> Self:
        """Move networks and speech encoders to a device."""
        self.network.to(device)
        self.speech.to(device)
        return self

    def restrict(self, lang: str, texts: Sequence[str]) -> int:
        """Write a language only with the pieces of a sample of it, of ASCII characters, and the end mark.

        A third of the work of writing is the product with the output matrix, which then has tens of thousands of rows
        instead of 256 thousand. What the sample does not show cannot be written: take a large one.

        Args:
            texts: an empty list lifts the restriction.

        Returns:
            The number of ids that the language can be written with.
        """
        number = self.tokenizer.language_id(lang)
        if not texts:
            self._vocabularies.pop(number, None)
            return self.tokenizer.vocab_size
        self._vocabularies[number] = writable(self.tokenizer, texts)
        return len(self._vocabularies[number])

    # ------------------------------------------------------------------ to concepts

    def encode(
        self,
        sentences: Sequence[str],
        lang: str | Sequence[str] | None = None,
        *,
        batch_tokens: int = 8192,
        on_long: OnLong = "truncate",
    ) -> Tensor:
        """Return (N, C) float32 concepts on the CPU.

        NUL counts as a space and a lone surrogate as U+FFFD; typed marks (``</s>``, ``eng_Latn``) are plain text.

        Args:
            sentences: one concept is made of each.
            lang: language of all or of each, FLORES-200 or BCP-47. ``None`` means unknown: SONAR then reads the text as
                Greek, which its authors advise (issue 21 of github.com/facebookresearch/SONAR).
            batch_tokens: tokens, padding included, that go through the network at once; sentences are sorted by length.
            on_long: what to do with more than ``config.max_tokens`` tokens (514, language and end mark included): keep
                the beginning and the end mark, with a warning; fail; or cut into equal parts, encode each, and take
                their mean by number of tokens, as the encoder itself takes the mean of its states.

        Raises:
            DataError: a sentence is not a string, is empty, or is too long under ``on_long="error"``; or a concept is
                not finite (float16 overflowed, weights are damaged).
            LanguageError: SONAR does not know a language.
            ConfigError: there is no encoder.
        """
        encoder = self._needed_encoder("encoding")
        if isinstance(sentences, str):
            raise DataError("expected a list of sentences", where="encode", got="one string", hint="use [text]")
        if on_long not in ("truncate", "error", "split"):
            raise ConfigError("unknown choice", where="on_long", got=on_long, expected="truncate, error or split")
        if batch_tokens < 1:
            raise ConfigError("out of range", where="batch_tokens", got=batch_tokens, expected="≥ 1")
        starts = self.tokenizer.language_ids(lang, len(sentences))
        ids = [[start, *row, EOS] for start, row in zip(starts, self._pieces(sentences), strict=True)]
        limit = encoder.config.max_tokens
        ids, owner = _fitted(ids, limit, on_long)
        out = torch.empty(len(ids), self.dim)
        device = self.device
        for rows in by_length([len(row) for row in ids], batch_tokens):
            longest = max(len(ids[i]) for i in rows)
            tokens = torch.tensor([ids[i] + [PAD] * (longest - len(ids[i])) for i in rows], device=device)
            lengths = None
            if len(ids[rows[0]]) < longest:  # rows are sorted
                lengths = torch.tensor([len(ids[i]) for i in rows], device=device)
            with torch.inference_mode():  # not around the result, which may become the leaf of a graph
                out[torch.tensor(rows)] = encoder(tokens, lengths).cpu()
        finite = torch.isfinite(out).all(dim=1)
        if not bool(finite.all()):
            raise DataError(
                "the encoder gave values that are not finite",
                where=f"sentences[{owner[int((~finite).nonzero()[0])]}]",
                hint="load it with dtype='float32' or 'bfloat16'; if that does not help, its file is damaged",
            )
        if len(ids) == len(sentences):
            return out
        weight = torch.tensor([float(len(row)) for row in ids])
        place = torch.tensor(owner)
        total = torch.zeros(len(sentences)).index_add(0, place, weight)
        mean = torch.zeros(len(sentences), self.dim).index_add(0, place, out * weight[:, None])
        return mean / total[:, None]

    def encode_speech(
        self,
        audio: Sequence[Tensor],
        lang: str | Sequence[str],
        *,
        batch_frames: int = 4096,
        max_seconds: float = MAX_SECONDS,
        on_long: Literal["warn", "error"] = "warn",
    ) -> Tensor:
        """Return (N, C) float32 concepts of N spoken sentences.

        Args:
            audio: (S,) float32 samples at 16 kHz of each.
            lang: language of all or of each; SONAR has a network for each language.
            batch_frames, max_seconds, on_long: see :func:`largeconcept.codec.speech.encoder.encode_audio`.

        Raises:
            DataError: too short, silent, or not one channel of samples.
            LanguageError: there is no speech encoder for a language here.
        """
        return self.speech.encode(audio, lang, batch_frames=batch_frames, max_seconds=max_seconds, on_long=on_long)

    # ------------------------------------------------------------------ to text

    def decode(
        self,
        concepts: Tensor,
        lang: str | Sequence[str],
        *,
        method: str = "beam",
        num_beams: int = 5,
        max_length: int = 128,
        batch_tokens: int = 8192,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        length_penalty: float = 1.0,
        seed: int | None = None,
    ) -> list[str]:
        """Return one sentence for each of the (N, C) concepts.

        Args:
            concepts: on any device, any float type.
            lang: target language of all, or of each row; FLORES-200 or BCP-47.
            method: ``beam`` (the original's search, ``num_beams``, ``length_penalty``), ``greedy`` or ``sample``
                (``temperature``, ``top_k``, ``top_p``, ``seed``).
            max_length: most tokens of a sentence, at most those that the decoder has positions for.
            batch_tokens: bounds the sentences that are written at once: sentences × beams × ``max_length``. Each of
                these tokens takes 98 kB in the released decoder's cache (16 bits).

        Raises:
            DataError: a wrong shape or a value that is not finite.
            LanguageError: SONAR does not know a language.
            ConfigError: an unknown method, a setting out of range, or there is no decoder.
        """
        decoder = self._needed_decoder("decoding")
        options = WritingOptions(
            method=method,
            num_beams=num_beams,
            max_length=max_length,
            length_penalty=length_penalty,
            forbid_unknown=self.forbid_unknown,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        check_concepts(concepts, self.dim)
        rows = concepts.detach().to(device=self.device, dtype=torch.float32)
        numbers = self._target_ids(lang, len(rows))
        written = write(
            decoder, rows, numbers, options, vocabularies=self._vocabularies, batch_tokens=max(1, batch_tokens // 5)
        )
        return self.tokenizer.decode(written)

    def token_loss(
        self,
        concepts: Tensor,
        sentences: Sequence[str],
        lang: str | Sequence[str],
        *,
        batch_tokens: int = 8192,
        score_language: bool = False,
    ) -> TokenLoss:
        """Say how well the decoder writes each sentence from its concept, under teacher forcing.

        It reads ``</s> language t1 … tn`` and predicts ``t1 … tn </s>``. A sentence of more tokens than the decoder has
        positions for is cut there and has no end mark.

        Args:
            concepts: (N, C), on the codec's device; gradients flow to them, and to weights that are not frozen.
            sentences: N sentences.
            lang: language of all or of each.
            batch_tokens: tokens, padding included, that go through the decoder at once; sentences are sorted by length.
            score_language: also score the language after the first ``</s>``, as SONAR-LLM's loss does
                (github.com/FusionBrainLab/SONAR-LLM).

        Raises:
            DataError: a wrong shape or number, or a sentence that is empty or not a string.
            LanguageError: SONAR does not know a language.
            ConfigError: there is no decoder.
        """
        decoder = self._needed_decoder("token_loss")
        if concepts.ndim != 2 or concepts.shape != (len(sentences), self.dim):
            expected = f"({len(sentences)}, {self.dim})"
            raise DataError("wrong shape", where="concepts", expected=expected, got=tuple(concepts.shape))
        starts = self._target_ids(lang, len(sentences))
        limit = decoder.config.max_tokens + 1  # the last token is only predicted
        ids = [[EOS, start, *row, EOS][:limit] for start, row in zip(starts, self._pieces(sentences), strict=True)]
        first = 1 if score_language else 2
        device = concepts.device
        order: list[int] = []
        nats: list[Tensor] = []
        correct: list[Tensor] = []
        for rows in by_length([len(row) for row in ids], batch_tokens):
            order += rows
            longest = max(len(ids[i]) for i in rows)
            padded = torch.tensor([ids[i] + [PAD] * (longest - len(ids[i])) for i in rows], device=device)
            sizes = torch.tensor([len(ids[i]) for i in rows], device=device)
            index = torch.tensor(rows, device=device)
            states = decoder(concepts[index], padded[:, :-1])[:, first - 1 :]
            targets = padded[:, first:]
            real = torch.arange(first, longest, device=device) < sizes[:, None]
            scored = token_cross_entropy(states[real], decoder.embed_tokens.weight, targets[real])
            owner = torch.arange(len(rows), device=device).repeat_interleave(sizes - first)
            nats.append(concepts.new_zeros(len(rows), dtype=torch.float32).index_add(0, owner, scored[0]))
            correct.append(sizes.new_zeros(len(rows)).index_add(0, owner, scored[1].to(sizes.dtype)))
        lengths = torch.tensor([len(row) - first for row in ids], dtype=torch.long, device=device)
        if not nats:
            return TokenLoss(concepts.float().sum(dim=1), lengths, lengths)
        back = torch.tensor(order, device=device).argsort()
        return TokenLoss(torch.cat(nats)[back], lengths, torch.cat(correct)[back])

    def decoder_parameters(self) -> list[nn.Parameter]:
        """Return the decoder's weights: training them leaves every concept where it is.

        Raises:
            ConfigError: there is no decoder.
        """
        return list(self._needed_decoder("decoder_parameters").parameters())

    # ------------------------------------------------------------------ files

    def save_pretrained(self, path: str | Path, dtype: Dtype = "auto") -> str | None:
        """Write the codec as a folder of its own and return the fingerprint of its space, if that is known.

        Speech encoders are written too, from their files where they came from files.

        Args:
            path: made if it is missing; what it held of a saved SONAR is replaced.
            dtype: of the stored weights; ``auto`` is what they are in memory.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        from largeconcept.codec.sonar.loading import save_sonar

        return save_sonar(self, path, dtype)

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> SonarCodec:
        """Read a saved folder, or any other with SONAR's files; see
        :func:`largeconcept.codec.sonar.loading.load_sonar`."""
        from largeconcept.codec.sonar.loading import load_sonar

        return load_sonar(path, **options)

    # ------------------------------------------------------------------ parts

    @property
    def halves(self) -> dict[str, SonarEncoder | SonarDecoder]:
        """``encoder`` and ``decoder``, those that are there."""
        both: dict[str, SonarEncoder | SonarDecoder | None] = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: half for name, half in both.items() if half is not None}

    @property
    def space(self) -> str | None:
        """The fingerprint, or ``None`` where it is not known and cannot be found."""
        return None if self._space is None and self.encoder is None else self.fingerprint

    def _needed_encoder(self, what: str) -> SonarEncoder:
        if self.encoder is None:
            raise ConfigError(f"{what} needs SONAR's encoder", where="SONAR", hint="load it too: encoder=FILE")
        return self.encoder

    def _needed_decoder(self, what: str) -> SonarDecoder:
        if self.decoder is None:
            raise ConfigError(f"{what} needs SONAR's decoder", where="SONAR", hint="load it too: decoder=FILE")
        return self.decoder

    def _pieces(self, sentences: Sequence[str]) -> list[list[int]]:
        for i, sentence in enumerate(sentences):
            if not isinstance(sentence, str):
                raise DataError("not a string", where=f"sentences[{i}]", got=repr(sentence))
        pieces = self.tokenizer.pieces(sentences)
        for i, row in enumerate(pieces):
            if not row:
                raise DataError("an empty sentence", where=f"sentences[{i}]", got=repr(sentences[i]))
        return pieces

    def _target_ids(self, lang: str | Sequence[str], rows: int) -> list[int]:
        if lang is None or any(code is None for code in ([] if isinstance(lang, str) else lang)):
            raise LanguageError("a language to write in is needed", where="lang", got=None, expected="as fra_Latn")
        return self.tokenizer.language_ids(lang, rows)


def _fitted(ids: list[list[int]], limit: int, on_long: OnLong) -> tuple[list[list[int]], list[int]]:
    """Return rows of at most ``limit`` ids, and for each the number of the sentence that it belongs to."""
    marks, hint = ", language and end mark included", ", or use on_long='split'"
    if not too_long([len(row) for row in ids], limit, on_long, counted=marks, hint=hint):
        return ids, list(range(len(ids)))
    if on_long == "truncate":
        return [truncate_ids(row, limit) for row in ids], list(range(len(ids)))
    rows: list[list[int]] = []
    owner: list[int] = []
    for i, (start, *pieces, end) in enumerate(ids):
        parts = max(1, math.ceil(len(pieces) / (limit - 2)))
        bounds = [round(len(pieces) * part / parts) for part in range(parts + 1)]
        rows += [[start, *pieces[a:b], end] for a, b in itertools.pairwise(bounds)]
        owner += [i] * parts
    return rows, owner


__all__ = ["SonarCodec"]
