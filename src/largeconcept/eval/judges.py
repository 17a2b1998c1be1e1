"""What the judges of concepts share: a perceptron on concepts, its files, and scoring in batches.

Shape letters: N items, C concept dimension, F features.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from largeconcept.codec.sonar.files import announce_licence
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.io import (
    atomic_write_text,
    fetch_from_hub,
    is_hub_id,
    load_strict,
    read_json,
    read_safetensors,
    read_torch,
    require_folder,
    write_json,
    write_safetensors,
)

if TYPE_CHECKING:
    from largeconcept.types import ConceptCodec

FORMAT_VERSION = 1
PUBLISHED_FILES = ("model.pt", "mutox.pt")
BATCH = 4096
"""Items that go through the perceptron at once."""


class ConceptJudge(nn.Module, ABC):
    """A perceptron of linear layers with an activation between them, from features of concepts to one number.

    Args:
        sizes: F, widths of the hidden layers.
        concept_dim: C.
        licence: of the weights.
    """

    type_name: ClassVar[str]
    title: ClassVar[str]
    published: ClassVar[re.Pattern[str]]
    """Names of the published weights; the groups are the original's number of a layer, and ``weight`` or ``bias``."""
    activation: ClassVar[type[nn.Module]]

    def __init__(self, sizes: Sequence[int], concept_dim: int, licence: str) -> None:
        super().__init__()
        self.concept_dim = concept_dim
        self.hidden_dims = tuple(sizes[1:])
        self.licence = licence
        widths = [*sizes, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.eval()

    def perceptron(self, features_NF: Tensor) -> Tensor:
        """Return (N,) float32."""
        activate = self.activation()
        hidden = features_NF
        for i, layer in enumerate(self.layers):
            hidden = layer(activate(hidden) if i else hidden)
        return hidden.squeeze(-1)

    # ------------------------------------------------------------------ files

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the weights do not say by themselves, as plain data."""

    @classmethod
    @abstractmethod
    def build(cls, sizes: Sequence[int], concept_dim: int, where: object) -> Self:
        """Return an untrained judge whose layers have these input widths.

        Raises:
            CheckpointError: not the widths of this judge.
        """

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json``, ``model.safetensors`` and a card with the licence.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / "model.safetensors", self.state_dict())
        terms = ", not for commercial use" if "NC" in self.licence else ""
        card = ["---", f"license: {self.licence.lower()}", "---", "", f"# {self.title}", ""]
        card.append(f"The weights are Meta's, under {self.licence}{terms}.")
        atomic_write_text(folder / "README.md", "\n".join(card) + "\n")
        config = {"type": self.type_name, "format_version": FORMAT_VERSION, "concept_dim": self.concept_dim}
        write_json(folder / "config.json", {**config, **self.describe(), "licence": self.licence})
        return folder

    @classmethod
    def from_pretrained(cls, path: str | Path, *, concept_dim: int | None = None) -> Self:
        """Read a folder that :meth:`save_pretrained` wrote, or the published file.

        Args:
            path: the folder, a ``model.pt`` of Meta, a folder with one, or an id on the hub. A pickle is read without
                running code.
            concept_dim: C, which a published file does not say; that of SONAR, 1024, if left out.

        Raises:
            CheckpointError: no such file, damaged, or not of this judge.
            DependencyError: an id on the hub, and huggingface_hub is not installed.
        """
        path = fetch_from_hub(str(path), PUBLISHED_FILES) if is_hub_id(path) else Path(path).expanduser()
        if path.is_dir():
            published = (path / name for name in PUBLISHED_FILES)
            path = next((file for file in published if file.is_file()), path)
        if not path.is_dir():
            weights = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
            return cls._from_published(weights, path, concept_dim or 1024)
        config = read_json(require_folder(path, "judge") / "config.json")
        if not isinstance(config, dict) or config.get("type") != cls.type_name:
            got = config.get("type") if isinstance(config, dict) else type(config).__name__
            raise CheckpointError(
                f"not a saved {cls.title}", where=path / "config.json", got=got, expected=cls.type_name
            )
        where = path / "model.safetensors"
        weights, dim = read_safetensors(where), config.get("concept_dim")
        if not isinstance(dim, int) or concept_dim not in (None, dim):
            raise CheckpointError("another concept dimension", where=path, got=dim, expected=concept_dim or "a number")
        numbers = sorted({int(name.split(".")[1]) for name in weights if re.match(r"layers\.\d+\.weight$", name)})
        judge = cls.build([_width(weights[f"layers.{i}.weight"], where) for i in numbers], dim, where)
        load_strict(judge, weights, where)
        judge.licence = str(config.get("licence", judge.licence))
        return judge._announced()

    @classmethod
    def _from_published(cls, data: object, where: object, concept_dim: int) -> Self:
        """Return a judge out of what a published file holds."""
        if isinstance(data, Mapping) and isinstance(data.get("model"), Mapping):
            data = data["model"]
        names = {
            name: found
            for name in (data if isinstance(data, Mapping) else ())
            if isinstance(name, str) and (found := cls.published.match(name))
        }
        if not isinstance(data, Mapping) or not names:
            got = ", ".join(map(str, list(data)[:3])) if isinstance(data, Mapping) else type(data).__name__
            raise CheckpointError(f"not the weights of {cls.title}", where=where, got=got or "nothing")
        tensors = {(int(found[1]), found[2]): data[name] for name, found in names.items()}
        numbers = sorted({number for number, _ in tensors})
        weights = {}
        for place, number in enumerate(numbers):
            for kind in ("weight", "bias"):
                tensor = tensors.get((number, kind))
                if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                    raise CheckpointError(
                        "a weight is missing or not a tensor", where=where, expected=f"{number}.{kind}"
                    )
                weights[f"layers.{place}.{kind}"] = tensor.float()
        sizes = [_width(weights[f"layers.{place}.weight"], where) for place in range(len(numbers))]
        judge = cls.build(sizes, concept_dim, where)
        load_strict(judge, weights, where)
        return judge._announced()

    def _announced(self) -> Self:
        announce_licence(f"The weights of {self.title}", self.licence)
        return self

    # ------------------------------------------------------------------ scoring

    def checked(self, concepts: object, where: str, rows: int | None = None) -> Tensor:
        """Return (N, C) float32 concepts on the judge's device.

        Raises:
            DataError: a wrong shape, another number of rows, or a value that is not finite.
        """
        expected = f"({'N' if rows is None else rows}, {self.concept_dim})"
        if not isinstance(concepts, Tensor):
            raise DataError("not a tensor", where=where, got=type(concepts).__name__, expected=expected)
        fits = concepts.ndim == 2 and concepts.shape[1] == self.concept_dim and rows in (None, len(concepts))
        if not fits or not concepts.is_floating_point():
            got = f"{tuple(concepts.shape)} of {concepts.dtype}"
            raise DataError("not concepts of this judge", where=where, expected=f"{expected} floating", got=got)
        finite = concepts.isfinite().all(dim=1)
        if not bool(finite.all()):
            raise DataError("a value is not finite", where=f"{where}, row {int((~finite).nonzero()[0])}")
        return concepts.detach().to(self.layers[0].weight.device, torch.float32)  # type: ignore[arg-type]


def encoded(codec: ConceptCodec, sentences: Sequence[str], lang: str | Sequence[str] | None, dim: int) -> Tensor:
    """Return the concepts of sentences.

    Raises:
        ConfigError: the codec's concepts have another dimension than the judge's.
    """
    if codec.dim != dim:
        raise ConfigError(
            "the judge was made for another concept space",
            where="codec",
            got=f"{codec.dim} channels",
            expected=f"{dim} channels",
            hint="BLASER and MuTox judge concepts of SONAR",
        )
    return codec.encode(sentences, lang)


def _width(weight: Tensor, where: object) -> int:
    if weight.ndim != 2:
        raise CheckpointError("not a matrix", where=where, got=tuple(weight.shape))
    return weight.shape[1]
