"""Affix concepts: fixed sentences around a document, encoded once when a dataset is built, so training needs no codec.

``End of text.`` closes a document (or a target) and teaches the model to stop; ``[MODEL]:`` stands between a source
and its target (the same two texts as in the recipes released with arXiv:2412.08821). A model tuned for several tasks
must be told which one is meant: each task has a sentence of its own that stands in the place of ``[MODEL]:``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from largeconcept.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from largeconcept.types import ConceptCodec

END_OF_TEXT = "End of text."
MODEL_PROMPT = "[MODEL]:"
Task = Literal["continue", "summarize", "expand"]
"""What a source of training data teaches: to go on with its documents, to write their targets, or to write the
documents of given targets."""
TASK_PROMPTS: dict[str, str] = {
    "summarize": "Summarise the text above.",
    "expand": "Write the text that is summarised above.",
}
"""Task of pairs -> the sentence between source and target, unless a source of training data says otherwise."""
DEFAULT_AFFIXES = (END_OF_TEXT, MODEL_PROMPT, *TASK_PROMPTS.values())
FILE = "affixes.safetensors"


@dataclass(frozen=True, slots=True)
class Affixes:
    """Affix concepts of one concept space.

    Attributes:
        codec_fingerprint: of the codec that encoded them.
        concepts: text -> (C,) float32.
        where: the file they came from.
    """

    codec_fingerprint: str
    concepts: Mapping[str, Tensor]
    where: str = ""

    def __getitem__(self, text: str) -> Tensor:
        """Return the (C,) float32 concept of an affix.

        Raises:
            DataError: the dataset was built without it.
        """
        try:
            return self.concepts[text]
        except KeyError:
            raise DataError(
                "the dataset has no such affix", where=self.where, got=text, hint=did_you_mean(text, self.concepts)
            ) from None


def encode_affixes(codec: ConceptCodec, texts: Sequence[str]) -> Affixes:
    """Encode affix texts, each by itself so that the vector does not depend on the others.

    Raises:
        DataError: the codec gives a vector that is not finite.
    """
    import torch

    lang = "eng_Latn" if "eng_Latn" in codec.languages else None
    concepts = {text: codec.encode([text], lang)[0].detach().float().cpu() for text in texts}
    for text, concept in concepts.items():
        if not bool(torch.isfinite(concept).all()):
            raise DataError("the codec gives a vector that is not finite", where=f"affix {text!r}")
    return Affixes(codec.fingerprint, concepts)


def write_affixes(folder: str | Path, affixes: Affixes) -> None:
    """Write ``affixes.safetensors`` into a dataset folder, atomically."""
    from largeconcept.io import write_safetensors

    metadata = {"codec_fingerprint": affixes.codec_fingerprint}
    write_safetensors(Path(folder) / FILE, dict(affixes.concepts), metadata)


def add_affixes(dataset: str | Path, texts: Sequence[str], codec: ConceptCodec) -> Affixes:
    """Encode texts that a built dataset has not got as affixes yet, and return all that it has then.

    Raises:
        DataError: no dataset, one of another concept space than the codec's, or a blank text.
    """
    old = read_affixes(dataset)
    if old.codec_fingerprint != codec.fingerprint:
        raise DataError(
            "the codec is of another concept space than the dataset",
            where=dataset,
            expected=f"fingerprint {old.codec_fingerprint}",
            got=f"fingerprint {codec.fingerprint}",
        )
    blank = next((text for text in texts if not text.strip()), None)
    if blank is not None:
        raise DataError("an affix needs a text", where=dataset, got=repr(blank))
    fresh = encode_affixes(codec, [text for text in dict.fromkeys(texts) if text not in old.concepts])
    every = Affixes(old.codec_fingerprint, {**old.concepts, **fresh.concepts}, old.where)
    if fresh.concepts:
        write_affixes(dataset, every)
    return every


def read_affixes(folder: str | Path) -> Affixes:
    """Read the affixes of a dataset.

    Raises:
        DataError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / FILE
    if not path.is_file():
        raise DataError("the dataset has no affix concepts", where=path, hint="build the dataset again")
    try:
        with safe_open(str(path), framework="pt") as file:
            fingerprint = (file.metadata() or {}).get("codec_fingerprint", "")
            concepts = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError("the affix file is damaged", where=path, got=error, hint="build the dataset again") from None
    return Affixes(fingerprint, concepts, str(path))
