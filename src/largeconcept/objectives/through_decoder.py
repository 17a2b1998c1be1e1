"""SONAR-LLM's objective (arXiv:2508.05305, §3): token cross-entropy, back-propagated through the codec's decoder.

The prediction x̂_{i+1} of the next concept goes back to the codec's space and into its decoder, which is asked, under
teacher forcing, for the tokens y_1 … y_T of the sentence that really comes next (its end mark included):

    L_i = - Σ_t log p(y_t | y_<t, x̂_{i+1})

The loss is the mean over tokens (the paper's), or over sentences of their means over tokens. The decoder passes the
gradient on and stays as it is, or learns too (the paper reports a tenth less cross-entropy).

Note: through the decoder costs far more than the concept model itself, so ``max_sentences`` of a micro-batch may be
drawn; their loss is scaled up to stand for all. ``mse_weight`` adds the squared error of Base-LCM, over all concepts.

Note: a decoder that learns from predictions alone forgets how to write what the encoder says. ``round_trip`` asks it
for the same sentences from their own concepts too, disturbed as in the codec's own training.

Shape letters: B batch, S concepts, C concept dimension, N sentences scored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from largeconcept.config import Config
from largeconcept.errors import ConfigError, DataError
from largeconcept.objectives.base import masked_sum, normalized, squared_error

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, DifferentiableDecoder, Loss, TokenLoss


class ThroughDecoderObjectiveConfig(Config):
    """Settings of training through a decoder.

    Attributes:
        codec: name or folder of the codec; ``None`` takes the one that the data was built with.
        normalize: divide by the number of tokens, or average sentences of any length alike.
        max_sentences: most sentences of a micro-batch that go through the decoder; ``None`` for all.
        mse_weight: weight of the squared error of a concept, relative to the nats of its sentence (under
            ``normalize=sentence``: to its nats per token).
        train_decoder: train the decoder too (the encoder and the table of tokens that it shares stay, so concepts mean
            what they did); a run then leaves a codec of its own.
        form_reach: places of the form among which the decoder learns to find what followed the token just written
            (:class:`~largeconcept.codec.network.AutoencoderConfig`); what a model copies from the sentences it reads
            stands at their places. ``None``: as in the codec. Needs ``train_decoder`` and a codec of our own.
        round_trip: weight of the nats of the scored sentences from their own concepts, relative to those from
            predictions.
        round_trip_share: share of the scored sentences that this is asked for; they stand for all.
        round_trip_noise: largest standard deviation of the noise on these; each sentence draws its own.
        round_trip_fade: share of them whose form is faded, where the codec has one
            (:func:`largeconcept.objectives.codec.fade`).
        parts: most documents of a micro-batch of which a part of a sentence is asked for as well, from the meaning of
            the part and the form of the whole sentence, faded and noisy: so a decoder with a ``form_reach`` learns to
            find words at other places. Weighed like round trips. Needs ``train_decoder`` and a codec with a form.
        lang: language of documents that name none.
        english: affixes, which stand in English in documents of every language.
    """

    needs_sentences: ClassVar[bool] = True

    type: Literal["through_decoder"] = "through_decoder"
    codec: str | None = None
    normalize: Literal["token", "sentence"] = "token"
    max_sentences: int | None = Field(default=None, ge=1)
    mse_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    train_decoder: bool = False
    form_reach: int | None = Field(default=None, ge=0)
    round_trip: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    round_trip_share: float = Field(default=1.0, gt=0, le=1)
    round_trip_noise: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    round_trip_fade: float = Field(default=0.6, ge=0, le=1)
    parts: int = Field(default=0, ge=0)
    lang: str | None = None
    english: tuple[str, ...] = ("End of text.", "[MODEL]:", "End of paragraph.")

    @model_validator(mode="after")
    def _decoder_learns(self) -> Self:
        for name in ("form_reach", "parts"):
            if getattr(self, name) and not self.train_decoder:
                raise ValueError(f"{name} is for a decoder that learns: set train_decoder=true")
        if self.parts and not self.round_trip:
            raise ValueError("parts are weighed like round trips: set round_trip")
        return self


class ThroughDecoderObjective:
    """Negative log-likelihood of the next sentence under the decoder, from the predicted concept.

    ``count`` is the number of target tokens, or of target concepts under ``normalize=sentence``. Metrics:
    ``token_nats``, ``token_accuracy`` and, with ``round_trip``, ``round_trip_nats`` and, with ``parts``, ``part_nats``
    per token, ``mse`` per concept in normalised space.

    Args:
        config: settings.
        normalizer: of the model.
        decoder: the codec; else :meth:`open_codec` loads it.
    """

    def __init__(
        self,
        config: ThroughDecoderObjectiveConfig,
        normalizer: ConceptNormalizer,
        decoder: DifferentiableDecoder | None = None,
    ) -> None:
        self.config = config
        self.normalizer = normalizer
        self.decoder = decoder

    def open_codec(self, codec: str, fingerprint: str, device: torch.device | str = "cpu") -> None:
        """Load the decoder; it is frozen but for what ``config.train_decoder`` asks for.

        Args:
            codec: what the data was built with; ``config.codec`` goes before it.
            fingerprint: of the data's concept space.
            device: where to decode.

        Raises:
            ConfigError: the codec gives no token likelihoods, or is of another concept space.
            CheckpointError: it cannot be read.
        """
        from largeconcept.objectives.base import open_space

        space = open_space(self.config.codec or codec, fingerprint, device)
        if self.config.form_reach is not None:
            set_form_reach(space, self.config.form_reach)
        if self.config.parts:
            check_form(space, "objective.parts")
        self.decoder = as_decoder(space, self.config.codec or codec, train=self.config.train_decoder)

    def trained_parameters(self) -> list[nn.Parameter]:
        """See :class:`~largeconcept.objectives.base.TrainsCodec`."""
        return self.decoder.decoder_parameters() if self.config.train_decoder and self.decoder is not None else []

    def save_codec(self, folder: str | Path) -> None:
        """See :class:`~largeconcept.objectives.base.TrainsCodec`.

        Raises:
            ConfigError: codecs of this kind cannot be written.
        """
        from largeconcept.codec.autoencoder import AutoencoderCodec
        from largeconcept.codec.external import ExternalCodec
        from largeconcept.codec.sonar.codec import SonarCodec

        codec = self.decoder
        if not isinstance(codec, AutoencoderCodec | ExternalCodec | SonarCodec):
            raise ConfigError("codecs of this kind cannot be written after training", got=type(codec).__name__)
        # As a new codec of the same space: the one that was loaded answers for the files it came from.
        note = {**codec.metadata, "decoder": "trained on, with a concept model"}
        space = codec.fingerprint
        if isinstance(codec, AutoencoderCodec):
            AutoencoderCodec(codec.network, codec.tokenizer, note, space=space).save_pretrained(folder)
        elif isinstance(codec, ExternalCodec):
            codec.retrained(note).save_pretrained(folder)
        else:
            SonarCodec(codec.encoder, codec.decoder, codec.tokenizer, metadata=note, space=space).save_pretrained(
                folder
            )

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Return the loss of a batch; which sentences are scored is random, and what disturbs their own concepts.

        Raises:
            ConfigError: no decoder was given.
            DataError: the batch has no sentences, or a document has no language.
        """
        from largeconcept.types import Loss

        if self.decoder is None:
            raise ConfigError("the objective has no decoder", where="through_decoder", hint="call open_codec first")
        if batch.sentences is None:
            raise DataError("the batch has no sentences", where="through_decoder", hint="set data.sentences=true")
        x = normalized(self.normalizer, batch.concepts)
        mask = target_mask(batch)
        predicted = model(x, batch.lengths)[:, :-1]
        error = masked_sum(squared_error(predicted, x[:, 1:]), mask)
        num_targets = mask.sum().float()

        rows, columns = self._places(batch, mask, rng)
        sentences = [batch.sentences[b][i + 1] for b, i in zip(rows.tolist(), columns.tolist())]
        concepts = self.normalizer.denormalize(predicted[rows, columns])
        languages = self._languages(batch, rows.tolist(), sentences)
        scored = self.decoder.token_loss(concepts, sentences, languages)
        tokens = scored.num_tokens.sum().float()
        scale = num_targets / max(len(sentences), 1)
        if self.config.normalize == "token":
            nats, count = scored.nats.sum(), tokens * scale
        else:
            nats, count = (scored.nats / scored.num_tokens).sum(), num_targets
        metrics = {
            "token_nats": (scored.nats.detach().sum(), tokens),
            "token_accuracy": (scored.num_correct.sum().float(), tokens),
            "mse": (error.detach(), num_targets),
        }
        if self.config.round_trip:
            ids = batch.sample_ids[rows] * 65_536 + columns
            chosen = self._share(ids, rng)
            own = self._disturbed(batch.concepts[rows, columns + 1][chosen], ids[chosen], rng)
            texts, langs = ([each[i] for i in chosen.tolist()] for each in (sentences, languages))
            back = self.decoder.token_loss(own, texts, langs)
            again = back.nats if self.config.normalize == "token" else back.nats / back.num_tokens
            nats = nats + self.config.round_trip * (len(sentences) / max(len(texts), 1)) * again.sum()
            metrics["round_trip_nats"] = (back.nats.detach().sum(), back.num_tokens.sum().float())
        if self.config.parts:
            part = self._parts(batch, rng)
            again = part.nats if self.config.normalize == "token" else part.nats / part.num_tokens
            nats = nats + self.config.round_trip * (len(sentences) / max(len(part.nats), 1)) * again.sum()
            metrics["part_nats"] = (part.nats.detach().sum(), part.num_tokens.sum().float())
        return Loss(nats * scale + self.config.mse_weight * error, count, metrics)

    def _share(self, ids_N: Tensor, rng: StepRandom) -> Tensor:
        """Return which sentences also come from their own concepts, in order: ``round_trip_share`` of them."""
        drawn = rng.uniform("round_trip/share", ids_N, (1,)).flatten()
        return drawn.argsort()[: math.ceil(self.config.round_trip_share * len(ids_N))].sort().values

    def _disturbed(self, concepts_NC: Tensor, ids_N: Tensor, rng: StepRandom) -> Tensor:
        """Return concepts with noise, and with the form faded in a share of them."""
        from largeconcept.codec.rows import meaning_dim
        from largeconcept.objectives.codec import fade_form

        strength = rng.uniform("round_trip/strength", ids_N, (1,)) * self.config.round_trip_noise
        noisy = concepts_NC.float() + strength * rng.normal("round_trip/noise", ids_N, (concepts_NC.shape[1],))
        assert self.decoder is not None
        size = meaning_dim(self.decoder)
        if size == noisy.shape[1]:
            return noisy
        return fade_form(noisy, size, self.config.round_trip_fade, rng.uniform("round_trip/fade", ids_N, (3,)))

    def _parts(self, batch: ConceptBatch, rng: StepRandom) -> TokenLoss:
        """Score parts of sentences, from their own meaning and the form of the sentence."""
        import torch

        from largeconcept.codec.autoencoder import AutoencoderCodec

        codec = self.decoder
        assert isinstance(codec, AutoencoderCodec) and batch.sentences is not None
        drawn = rng.uniform("parts", batch.sample_ids, (5,)).cpu()
        found: list[tuple[int, int, str, str]] = []  # row, place, part, sentence
        for row, (where, *cut) in enumerate(drawn[:, :3].tolist()):
            place = int(where * len(batch.sentences[row]))
            sentence = batch.sentences[row][place]
            text = part_of(sentence, *cut)
            if text is not None and sentence not in self.config.english and len(found) < self.config.parts:
                found.append((row, place, text, sentence))
        rows, places = [one[0] for one in found], [one[1] for one in found]
        texts, whole = [one[2] for one in found], [one[3] for one in found]
        size, device = codec.meaning_dim, batch.concepts.device
        form = batch.concepts[rows, places, size:].float()
        with torch.no_grad():
            meaning = codec.encode(texts).clone().to(device)[:, :size]
        strength, noise = drawn[rows, 3:].to(device).unsqueeze(-1).unbind(1)
        own = torch.cat([meaning, (0.3 + 0.7 * strength) * form], dim=1)
        own = own + self.config.round_trip_noise * noise * rng.normal(
            "parts/noise", batch.sample_ids[rows], (own.shape[1],)
        )
        return codec.token_loss(own, texts, self._languages(batch, rows, whole))

    def _places(self, batch: ConceptBatch, mask: Tensor, rng: StepRandom) -> tuple[Tensor, Tensor]:
        """Return row and position of the predictions to decode, at most ``max_sentences``, in order."""
        limit = self.config.max_sentences
        if limit is not None and limit < mask.numel():
            drawn = rng.uniform("through_decoder", batch.sample_ids, (mask.shape[1],)).masked_fill(~mask, 2.0)
            chosen = drawn.flatten().argsort()[:limit]
            kept = mask.new_zeros(mask.numel())
            kept[chosen] = True
            mask = mask & kept.view_as(mask)
        rows, columns = mask.nonzero(as_tuple=True)
        return rows, columns

    def _languages(self, batch: ConceptBatch, rows: list[int], sentences: list[str]) -> list[str]:
        known = batch.languages or [None] * len(batch.concepts)
        languages = []
        for row, sentence in zip(rows, sentences, strict=True):
            lang = "eng_Latn" if sentence in self.config.english else known[row] or self.config.lang
            if lang is None:
                hint = "say it with objective.lang=eng_Latn"
                raise DataError("a document has no language, and the decoder needs one", got=sentence, hint=hint)
            languages.append(lang)
        return languages


def part_of(sentence: str, start: float, size: float) -> str | None:
    """Return some words that follow each other, not all of them; ``None`` if there are fewer than four.

    Args:
        sentence: words between white space.
        start, size: two numbers in [0, 1) that say which.
    """
    words = sentence.split()
    if len(words) < 4:
        return None
    first = int(start * (len(words) - 1))
    most = len(words) - first - (first == 0)  # the whole is no part
    return " ".join(words[first : first + 2 + int(size * (most - 1))])


def as_decoder(codec: object, name: object, *, train: bool = False) -> DifferentiableDecoder:
    """Return a codec as a decoder with gradients, its weights frozen; with ``train`` not those that decode alone.

    Raises:
        ConfigError: it gives no token likelihoods.
    """
    from largeconcept.types import DifferentiableDecoder

    if not isinstance(codec, DifferentiableDecoder):
        raise ConfigError("the codec gives no token likelihoods to train through", where="objective.codec", got=name)
    network: nn.Module | None = getattr(codec, "network", None)
    if network is not None:
        network.requires_grad_(False)
    for parameter in codec.decoder_parameters() if train else ():
        parameter.requires_grad_(True)
    return codec


def set_form_reach(codec: object, places: int) -> None:
    """Let a codec's decoder find words among so many places of the form; one that does already stays as it is.

    Raises:
        ConfigError: the codec has no form, or fewer places.
    """
    from largeconcept.codec.autoencoder import AutoencoderCodec

    where = "objective.form_reach"
    check_form(codec, where)
    assert isinstance(codec, AutoencoderCodec)
    if places > codec.config.max_tokens:
        raise ConfigError("a form has fewer places", where=where, got=places, expected=codec.config.max_tokens)
    if codec.config.form_reach != places:
        codec.set_form_reach(places)


def check_form(codec: object, where: str) -> None:
    """Refuse a codec that has no channels of form.

    Raises:
        ConfigError: it has none.
    """
    from largeconcept.codec.autoencoder import AutoencoderCodec

    if not isinstance(codec, AutoencoderCodec) or not codec.config.form_dim:
        raise ConfigError("the codec has no channels of form", where=where, got=type(codec).__name__)


def target_mask(batch: ConceptBatch) -> Tensor:
    """Return (B, S - 1) bool: entry i says whether concept i + 1 is a target."""
    import torch

    position = torch.arange(1, batch.concepts.shape[1], device=batch.concepts.device)
    mask = position < batch.lengths[:, None]
    return mask if batch.source_lengths is None else mask & (position >= batch.source_lengths[:, None])
