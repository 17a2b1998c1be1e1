"""SONAR's text encoder as an ONNX model: for machines without torch's quick types, in float32 or with int8 weights.

A folder holds ``encoder.onnx`` (inputs ``tokens`` (N, T) and ``lengths`` (N,) int64, output ``concepts`` (N, C)
float32; both axes are open), its weights in ``encoder.onnx.data``, ``tokenizer.model``, and ``config.json`` with the
shape, the concept space and the licence. With int8 the matrices of the layers have one scale for each output channel,
and the rows that they are multiplied with one scale each time (onnxruntime's dynamic quantisation); embeddings, norms,
softmax and mean stay in float32.

Needs the extra ``onnx``. Shape letters: N sentences, T tokens, C concept dimension.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from largeconcept.codec.sonar.config import SonarEncoderConfig
from largeconcept.codec.sonar.network import SonarEncoder
from largeconcept.codec.sonar.tokenizer import SonarTokenizer
from largeconcept.errors import CheckpointError, ConfigError, missing_extra
from largeconcept.io import atomic_write_bytes, check_format_version, read_json, require_folder, write_json

if TYPE_CHECKING:
    from largeconcept.codec.sonar.codec import SonarCodec

TYPE = "sonar-onnx"
FORMAT_VERSION = 1
MODEL, WEIGHTS, TOKENIZER = "encoder.onnx", "encoder.onnx.data", "tokenizer.model"


def export_onnx(codec: SonarCodec, path: str | Path, *, int8: bool = False) -> dict[str, Any]:
    """Write the encoder of a codec as an ONNX model and return the folder's ``config.json``.

    With int8 this needs up to five times the encoder's float32 weights in memory, 15 GB for the released one.

    Args:
        codec: its encoder is exported in float32, whatever type its weights have.
        path: a new or empty folder, or one of an earlier export, which is replaced.
        int8: quantise the matrices of the layers: a third of the size.

    Raises:
        ConfigError: the codec has no encoder, or ``path`` holds something else.
        DependencyError: the extra ``onnx`` is not installed.
    """
    if codec.encoder is None:
        raise ConfigError("there is no encoder to export", where="SONAR", hint="load it too: encoder=FILE")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        from onnxruntime import quantization
    except ImportError as error:
        raise missing_extra(error.name or "onnx", "onnx") from None
    folder = Path(path)
    _check_target(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)  # what is there now is no longer whole
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as room:
        plain = Path(room) / MODEL
        _export(codec.encoder, plain)
        written = plain
        if int8:
            written = Path(room) / "int8" / MODEL
            written.parent.mkdir()
            _quantize(quantization, plain, written)
        for part in (WEIGHTS, MODEL):
            (written.parent / part).replace(folder / part)
        (folder / WEIGHTS).chmod((folder / MODEL).stat().st_mode)  # the quantiser makes it readable by its owner only
    atomic_write_bytes(folder / TOKENIZER, codec.tokenizer.model)
    config = {
        "type": TYPE,
        "format_version": FORMAT_VERSION,
        "encoder": codec.encoder.config.to_dict(),
        "weights": "int8" if int8 else "float32",
        "space": codec.space,
        "licence": codec.metadata.get("licence"),
    }
    write_json(folder / "config.json", config)
    return config


class SonarOnnxEncoder(SonarEncoder):
    """An exported encoder, run by onnxruntime in the place of a :class:`SonarEncoder`.

    It has no parameters: it cannot be trained, saved, compiled or moved, and always computes on the CPU.

    Args:
        path: folder that :func:`export_onnx` wrote.
        threads: of onnxruntime; by default as many as torch has.

    Attributes:
        space: fingerprint of the concept space.
        folder: where it was read from.
        metadata: ``licence`` and ``weights``, as far as they are known.

    Raises:
        CheckpointError: not such a folder, or damaged.
        DependencyError: the extra ``onnx`` is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        nn.Module.__init__(self)
        self.folder = require_folder(path, "exported SONAR encoder")
        data = read_json(self.folder / "config.json")
        if not isinstance(data, dict) or data.get("type") != TYPE or "encoder" not in data:
            raise CheckpointError("not an exported SONAR encoder", where=self.folder / "config.json", expected=TYPE)
        check_format_version(data.get("format_version", 0), FORMAT_VERSION, self.folder / "config.json")
        self.config = SonarEncoderConfig.from_dict(data["encoder"], where=str(self.folder / "config.json"))
        self.space: str | None = data.get("space")
        self.metadata = {key: data[key] for key in ("licence", "weights") if data.get(key)}
        self._session = _session(self.folder / MODEL, threads or torch.get_num_threads())

    def tokenizer(self) -> SonarTokenizer:
        """Read the tokenizer that was exported with it."""
        return SonarTokenizer.from_file(self.folder / TOKENIZER)

    def forward(self, tokens_NT: Tensor, lengths_N: Tensor | None) -> Tensor:
        """Return (N, C) float32 concepts on the device of the tokens; as :meth:`SonarEncoder.forward`."""
        sentences, longest = tokens_NT.shape
        if longest > self.config.max_tokens:
            raise CheckpointError(
                "more tokens than the network has positions",
                where="sonar",
                got=longest,
                expected=f"at most {self.config.max_tokens}, the language and </s> included",
            )
        if lengths_N is None:
            lengths_N = torch.full((sentences,), longest)
        if not sentences:
            return torch.empty(0, self.config.width, device=tokens_NT.device)
        given = {"tokens": tokens_NT.cpu().numpy(), "lengths": lengths_N.cpu().numpy()}
        return torch.from_numpy(self._session.run(["concepts"], given)[0]).to(tokens_NT.device)

    def states(self, tokens_NT: Tensor, lengths_N: Tensor | None) -> NoReturn:
        """The states of single tokens are not among the outputs."""
        raise _weightless("has no states of single tokens")

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """There are no weights to be had."""
        raise _weightless("cannot be saved or looked at")

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Has no effect, and says so."""
        warnings.warn("an exported SONAR encoder is compiled already", stacklevel=3)


def is_exported(path: object) -> bool:
    """Tell whether a path is a folder of :func:`export_onnx`."""
    if not isinstance(path, str | Path) or not (Path(path) / "config.json").is_file():
        return False
    data = read_json(Path(path) / "config.json")
    return isinstance(data, dict) and data.get("type") == TYPE


def _export(encoder: SonarEncoder, file: Path) -> None:
    with torch.device("meta"):
        plain = SonarEncoder(encoder.config)
    weights = {name: tensor.detach().cpu().float() for name, tensor in encoder.state_dict().items()}
    plain.load_state_dict(weights, assign=True)
    plain.eval().requires_grad_(False)
    limit = encoder.config.max_tokens
    # Sizes of one are taken for fixed ones.
    tokens, lengths = torch.full((2, 3), 4), torch.tensor([3, 2])
    plain(tokens, lengths)  # the table of positions becomes a constant
    rows = torch.export.Dim("sentences")
    shapes = {"tokens_NT": {0: rows, 1: torch.export.Dim("length", min=2, max=limit)}, "lengths_N": {0: rows}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about names of axes and operators of other packages
        torch.onnx.export(
            plain,
            (tokens, lengths),
            file,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["tokens", "lengths"],
            output_names=["concepts"],
            external_data=True,
            verbose=False,
        )


def _quantize(quantization: Any, plain: Path, written: Path) -> None:
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # advice on preparing networks for images
    try:
        quantization.quantize_dynamic(
            plain,
            written,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=True,
        )
    finally:
        logger.setLevel(level)


def _session(model: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise CheckpointError("onnxruntime cannot load the model", where=model, got=error) from None


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError("a file is in the way", where=folder, expected="a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_exported(folder):
        raise ConfigError("the folder holds something else", where=folder, expected="a new or empty folder")


def _weightless(what: str) -> ConfigError:
    return ConfigError(
        f"an exported SONAR encoder {what}", where="SONAR", hint="load the weights that it was exported from"
    )
