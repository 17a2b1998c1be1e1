"""The metrics by name: which way is better, what each needs, where it is from.

They are pure functions of texts (a string or its sentences) or of tensors. A metric that nothing can be said of is
``None`` or left out, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric is.

    Attributes:
        name: as in results.
        direction: which way is better; ``none`` where neither is by itself.
        needs: besides the prediction: ``reference``, ``source``, ``codec``, ``encoder`` (an outside one), ``human``
            (many human texts), ``evaluator`` (a causal language model), ``samples`` (two of each item) or
            ``extra:NAME`` (an optional package).
        source: paper or address.
        version: raised when figures change.
        unit: what a value is of, for people.
    """

    name: str
    direction: Direction
    needs: tuple[str, ...]
    source: str
    version: int = 1
    unit: str = ""


_LCM = "arXiv:2412.08821"
_BLASER = "https://aclanthology.org/2024.findings-emnlp.943"
_ALL = (
    MetricInfo("rouge_1", "higher", ("reference",), "https://aclanthology.org/W04-1013", unit="%"),
    MetricInfo("rouge_2", "higher", ("reference",), "https://aclanthology.org/W04-1013", unit="%"),
    MetricInfo("rouge_l", "higher", ("reference",), "https://aclanthology.org/W04-1013", unit="%"),
    MetricInfo("rouge_lsum", "higher", ("reference",), "https://aclanthology.org/W04-1013", unit="%"),
    MetricInfo("chrf", "higher", ("reference",), "https://aclanthology.org/W15-3049", unit="%"),
    MetricInfo("overlap_3", "none", ("source",), f"{_LCM}, section 4.1", unit="share"),
    MetricInfo("repetition_4", "lower", (), f"{_LCM}, section 4.1", version=2, unit="per distinct run"),
    MetricInfo("seq_rep_4", "lower", (), "arXiv:1908.04319, equation 8", unit="share"),
    MetricInfo("distinct_1", "higher", (), "arXiv:1510.03055", unit="share"),
    MetricInfo("distinct_2", "higher", (), "arXiv:1510.03055", unit="share"),
    MetricInfo("distinct_3", "higher", (), "arXiv:1510.03055", unit="share"),
    MetricInfo("length_ratio", "none", ("reference",), f"{_LCM}, section 4.2", unit="words"),
    MetricInfo("coherence", "none", ("codec",), "doi:10.1080/01638539809545029", unit="cosine"),
    MetricInfo("coherence_outside", "none", ("encoder", "extra:use"), "arXiv:1907.04307", unit="cosine"),
    MetricInfo("divergence", "higher", ("codec", "human"), "arXiv:2102.01454", unit="area"),
    MetricInfo("perplexity", "none", ("evaluator",), "arXiv:2409.02908", unit="per token"),
    MetricInfo("entropy", "none", (), "arXiv:2409.02908", unit="nats per word"),
    MetricInfo("mutual_information", "higher", ("evaluator",), f"{_LCM}, section 2.4.2", unit="nats per token"),
    MetricInfo("brier_lm", "higher", ("samples", "reference"), "arXiv:2510.27688", unit="× 100"),
    *(MetricInfo(f"brier_{n}", "higher", ("samples", "reference"), "arXiv:2510.27688") for n in range(1, 5)),
    MetricInfo("cola", "higher", ("extra:transformers",), f"{_LCM}, section 4.1", unit="probability"),
    *(
        MetricInfo(f"seahorse_q{n}", "higher", ("source", "extra:transformers"), "arXiv:2305.13194", unit="probability")
        for n in range(1, 7)
    ),
    MetricInfo("blaser_qe", "higher", ("reference", "codec", "extra:weights"), _BLASER, unit="1 to 5"),
    MetricInfo("blaser_ref", "higher", ("reference", "source", "codec", "extra:weights"), _BLASER, unit="1 to 5"),
    MetricInfo("mutox", "lower", ("codec", "extra:weights"), "arXiv:2401.05060", unit="probability"),
    MetricInfo("bert_score", "higher", ("reference", "extra:transformers"), "arXiv:1904.09675", unit="F1"),
    # Of predicted concepts; mutual information, above, is of their text.
    MetricInfo("l2", "lower", ("reference",), f"{_LCM}, section 2.4.2", unit="distance"),
    MetricInfo("contrastive_accuracy", "higher", ("reference",), f"{_LCM}, section 2.4.2", unit="share"),
    MetricInfo("contrastive_accuracy_in_batch", "higher", ("reference",), f"{_LCM}, section 2.4.2", unit="share"),
    MetricInfo("paraphrase", "none", ("reference", "source"), f"{_LCM}, section 2.4.2", unit="ratio"),
    MetricInfo("round_trip_l2", "lower", ("reference", "codec"), f"{_LCM}, section 2.4.2", unit="distance"),
    # Of a codec; by language or strength of noise with that behind a stroke, as auto_bleu/deu_Latn.
    MetricInfo("auto_bleu", "higher", ("codec",), f"{_LCM}, section 3.1", unit="%"),
    MetricInfo("exact", "higher", ("codec",), f"{_LCM}, section 3.1", unit="share"),
    MetricInfo("translation_chrf", "higher", ("codec", "reference"), "https://aclanthology.org/W15-3049", unit="%"),
    MetricInfo("xsim", "lower", ("codec", "reference"), "arXiv:1811.01136, equation 2", unit="share"),
    MetricInfo("xsim_hard", "lower", ("codec", "reference"), "arXiv:2306.12907, section 3", unit="share"),
    MetricInfo("norm", "none", ("codec",), _LCM, unit="length"),
    MetricInfo("variance", "none", ("codec",), _LCM, unit="squared length"),
    MetricInfo("participation_ratio", "higher", ("codec",), "https://doi.org/10.1101/214262", unit="directions"),
    MetricInfo("isotropy", "higher", ("codec",), "https://doi.org/10.1101/214262", unit="share"),
    MetricInfo("mean_cosine", "lower", ("codec",), "arXiv:1909.00512, section 3", unit="cosine"),
)
METRICS: dict[str, MetricInfo] = {info.name: info for info in _ALL}
