"""A small random SONAR: its tokenizer, encoder, decoder and codec, with every weight drawn, norms and biases too.

What the released networks hide behind ones and zeros shows here: no weight is neutral. The text is in eight scripts,
so every piece but the control ids can occur.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from largeconcept.codec.sonar.network import SonarDecoder, SonarEncoder
    from largeconcept.codec.sonar.tokenizer import SonarTokenizer

PIECES = 320
WIDTH, LAYERS, HEADS, FFN = 32, 2, 4, 64

TEXT = (
    "Tim had a red ball. The ball rolled away, and Tim ran after it.",
    "A dog took the ball and ran home with it; Tim was sad.",
    "His mother found the ball in the garden at 10:30, and they played again.",
    "It was cold in 1984: minus 12.5 degrees, and the river was frozen for 47 days.",
    "Tim avait une balle rouge. La balle a roulé, et Tim a couru après.",
    "Un chien a pris la balle et est rentré à la maison ; Tim était triste.",
    "Tim hatte einen roten Ball. Der Ball rollte weg, und Tim lief ihm nach.",
    "Ein Hund nahm den Ball und lief nach Hause, über die Brücke, zur Straße.",
    "Tim tenía una pelota roja. La pelota rodó lejos y Tim corrió tras ella.",
    "У Тима был красный мяч. Мяч укатился, и Тим побежал за ним.",
    "Собака взяла мяч и убежала домой. Тиму было грустно.",
    "Ο Τιμ είχε μια κόκκινη μπάλα. Η μπάλα κύλησε μακριά.",
    "蒂姆有一个红色的球。球滚走了，蒂姆追了上去。狗把球带回了家。",
    "ティムは赤いボールを持っていました。犬がボールを取りました。",
    "팀은 빨간 공을 가지고 있었다. 개가 공을 가져갔다.",
    "كان لدى تيم كرة حمراء. تدحرجت الكرة بعيدا وركض تيم خلفها.",
    "टिम के पास एक लाल गेंद थी। गेंद लुढ़क गई और टिम उसके पीछे दौड़ा।",
)
"""What the small tokenizer is trained on; good sentences for tests, too."""


@functools.cache
def small_tokenizer_model() -> bytes:
    """A SentencePiece file as SONAR's: BPE, nmt_nfkc, ``<unk> 0``, ``<s> 1``, ``</s> 2``, no padding."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 4),
        model_writer=out,
        model_type="bpe",
        vocab_size=PIECES,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


@functools.cache
def small_tokenizer() -> SonarTokenizer:
    """All 202 languages, :data:`PIECES` pieces."""
    from largeconcept.codec.sonar.tokenizer import SonarTokenizer

    return SonarTokenizer(small_tokenizer_model())


def randomise(module: nn.Module, seed: int) -> Any:
    """Draw every parameter: norms around 1, biases around 0, matrices large enough that texts vary."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * noise if "norm.weight" in name else 0.1 * noise)
            elif "embed" in name:
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(3 * noise / parameter[0].numel() ** 0.5)
    return module.eval().requires_grad_(False)


def small_encoder(seed: int = 0, **sizes: int) -> SonarEncoder:
    """A random encoder; ``sizes`` are fields of its configuration."""
    from largeconcept.codec.sonar.config import SonarEncoderConfig
    from largeconcept.codec.sonar.network import SonarEncoder

    return randomise(SonarEncoder(SonarEncoderConfig(**_sizes(max_tokens=64) | sizes)), seed)


def small_decoder(seed: int = 0, **sizes: int) -> SonarDecoder:
    """A random decoder whose texts end at many lengths; ``sizes`` are fields of its configuration."""
    import torch

    from largeconcept.codec.sonar.config import SonarDecoderConfig
    from largeconcept.codec.sonar.network import SonarDecoder

    decoder = randomise(SonarDecoder(SonarDecoderConfig(**_sizes(max_tokens=64) | sizes)), seed + 1000)
    with torch.no_grad():
        decoder.embed_tokens.weight[3] *= 3  # the score of </s> varies more than others, so it wins now and then
    return decoder


def small_codec(seed: int = 0, **options: Any) -> Any:
    """A whole :class:`~largeconcept.codec.sonar.codec.SonarCodec`; ``options`` are its keywords."""
    from largeconcept.codec.sonar.codec import SonarCodec

    return SonarCodec(small_encoder(seed), small_decoder(seed), small_tokenizer(), **options)


def _sizes(**more: int) -> dict[str, int]:
    sizes = {"width": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "ffn_dim": FFN}
    return {"vocab_size": small_tokenizer().vocab_size, **sizes, **more}
