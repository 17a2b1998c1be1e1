from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from largeconcept.errors import CheckpointError
from largeconcept.io import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    fingerprint,
    load_strict,
    read_json,
    read_safetensors,
    read_torch,
    require_folder,
    safetensors_metadata,
    stream_safetensors,
    write_json,
    write_safetensors,
)

TENSORS = {
    "matrix": torch.arange(6.0).view(2, 3),
    "empty": torch.zeros(0),
    "scalar": torch.tensor(3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "mask": torch.tensor([True, False]),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Atomic writes


def test_a_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    atomic_write_text(path, "Größe")
    assert path.read_text(encoding="utf-8") == "Größe"
    atomic_write_bytes(path, b"\0new")
    assert path.read_bytes() == b"\0new"
    assert names(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("broken")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    calls: list[str] = []

    def crash(*_: Any) -> None:
        calls.append(step)
        raise OSError("no power")

    monkeypatch.setattr(os if step == "fsync" else Path, step, crash)
    with pytest.raises(OSError, match="no power"):
        atomic_write_text(path, "new")
    assert calls == [step]
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_data_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), replace(self, to))[1])
    atomic_write_text(tmp_path / "file.txt", "new")
    assert order == ["sync", "rename", "sync"]  # the last one is the folder


def test_a_kill_never_leaves_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    code = (
        "import sys\nfrom largeconcept.io import write_json\nn = 0\n"
        "while True:\n    n += 1\n    write_json(sys.argv[1], {'n': n, 'list': [n] * 20000})\n"
    )
    random.seed(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = read_json(path)
        assert content["list"] == [content["n"]] * 20000
        assert [name for name in names(tmp_path) if not name.endswith(".tmp")] == ["file.json"]
        path.unlink()


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_path(path) as one, atomic_path(path) as two:
        assert one != two
        assert one.parent == two.parent == tmp_path
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"
    assert names(tmp_path) == ["file.txt"]


# JSON


def test_json_there_and_back(tmp_path: Path) -> None:
    value = {"text": "Größe\n\0", "numbers": [1, 2.5, None, True], "nested": {"a": []}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    write_json(tmp_path / "a.json", {"text": "\ud800 é"})
    assert read_json(tmp_path / "a.json") == {"text": "\ud800 é"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"nope", b"[" * 100_000, b"1" * 10_000, b'{"a": 1}}']
)
def test_broken_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read JSON") as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for read in (read_json, read_safetensors):
        with pytest.raises(CheckpointError, match="file not found"):
            read(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot read JSON"):
        read_json(tmp_path)
    with pytest.raises(CheckpointError, match="file not found"):
        read_safetensors(tmp_path)


# Tensors


def test_tensors_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "model.safetensors"
    shared = torch.arange(4.0)
    write_safetensors(path, {**TENSORS, "one": shared, "two": shared, "column": TENSORS["matrix"][:, 1]})
    again = read_safetensors(path)
    assert sorted(again) == sorted([*TENSORS, "one", "two", "column"])
    for name, tensor in TENSORS.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor)
    assert torch.equal(again["two"], shared) and torch.equal(again["column"], torch.tensor([1.0, 4.0]))
    assert names(path.parent) == ["model.safetensors"]


def test_every_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS, {"note": "x"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="truncated or of another format"):
            read_safetensors(path)


def test_a_damaged_file_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(generator.choice([1, 3])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            read_safetensors(path)
        except CheckpointError:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0" * 100, b"\xff" * 100, b"", b"version https://git-lfs\n" * 5])
def test_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path)
    assert str(path) in str(caught.value)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch
    from safetensors import SafetensorError

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot write the weights.*No space left"):
        write_safetensors(tmp_path / "model.safetensors", TENSORS)
    assert names(tmp_path) == []


def test_weights_must_fit_exactly() -> None:
    module = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strict(module, good, "here")
    assert torch.equal(module.weight, torch.ones(2, 3))
    with pytest.raises(CheckpointError, match=r"here: 1 weights are missing; expected bias"):
        load_strict(module, {"weight": torch.zeros(2, 3)}, "here")
    with pytest.raises(CheckpointError, match=r"here: 1 weights are not of this model; got extra"):
        load_strict(module, {**good, "extra": torch.ones(1)}, "here")
    with pytest.raises(
        CheckpointError, match=r"here: weight: a weight has another shape; expected \(2, 3\); got \(3, 2\)"
    ):
        load_strict(module, {**good, "weight": torch.zeros(3, 2)}, "here")
    assert torch.equal(module.weight, torch.ones(2, 3))


def test_a_fingerprint_tells_weights_apart() -> None:
    base = fingerprint(TENSORS)
    assert len(base) == 16 and int(base, 16) >= 0
    assert fingerprint(dict(reversed(TENSORS.items()))) == base
    assert fingerprint({**TENSORS, "matrix": TENSORS["matrix"].t().contiguous().t()}) == base
    others = [
        {**TENSORS, "matrix": TENSORS["matrix"] + 1e-6},
        {**TENSORS, "matrix": TENSORS["matrix"].view(3, 2)},
        {**TENSORS, "matrix": TENSORS["matrix"].double()},
        {**TENSORS, "other": TENSORS["empty"]},
        {},
    ]
    found = {base, *(fingerprint(tensors) for tensors in others)}
    found |= {fingerprint(TENSORS, b""), fingerprint(TENSORS, b"ab"), fingerprint(TENSORS, b"a", b"b")}
    assert len(found) == 9


def test_the_fingerprint_is_part_of_the_format() -> None:
    # Saved pipelines hold fingerprints of their codec: this number may not change.
    assert fingerprint({"a": torch.tensor([1.0, 2.0])}, b"vocabulary") == "36fa6850f32394e7"


def test_a_folder_is_required(tmp_path: Path) -> None:
    assert require_folder(str(tmp_path), "codec") == tmp_path
    with pytest.raises(CheckpointError, match="no such folder; expected a saved codec"):
        require_folder(tmp_path / "none", "codec")
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="is a file, not a folder"):
        require_folder(tmp_path / "file", "codec")


def test_streamed_safetensors_are_read_back(tmp_path):
    tensors = {**TENSORS, "odd": torch.arange(3, dtype=torch.uint8), "transposed": torch.arange(6.0).view(2, 3).t()}
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    asked: list[str] = []

    def make(name: str) -> torch.Tensor:
        asked.append(name)
        return tensors[name]

    stream_safetensors(tmp_path / "a.safetensors", layout, make, {"format": "mine"})
    back = read_safetensors(tmp_path / "a.safetensors")
    assert sorted(asked) == sorted(back) == sorted(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor)
    assert safetensors_metadata(tmp_path / "a.safetensors") == {"format": "mine"}
    assert fingerprint(back) == fingerprint(tensors)


def test_a_streamed_file_is_whole_or_not_there(tmp_path):
    layout = {"a": (torch.float32, (2,)), "b": (torch.float32, (2,))}
    with pytest.raises(CheckpointError, match="not as announced"):
        stream_safetensors(tmp_path / "a.safetensors", layout, lambda name: torch.zeros(2 if name == "a" else 3))
    with pytest.raises(CheckpointError, match="cannot be stored"):
        stream_safetensors(tmp_path / "a.safetensors", {"a": (torch.complex64, (2,))}, lambda _: torch.zeros(2))
    assert names(tmp_path) == []


def test_modules_in_a_checkpoint_only_when_named(tmp_path):
    table = nn.Embedding(5, 2)
    torch.save({"embed_tokens": table, "state_dict": {"a": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="objects other than tensors"):
        read_torch(tmp_path / "a.pt")
    data = read_torch(tmp_path / "a.pt", [nn.Embedding])
    assert torch.equal(data["embed_tokens"].weight, table.weight)
    with pytest.raises(CheckpointError, match="objects other than tensors"):
        read_torch(tmp_path / "a.pt")


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/never",)


def test_no_code_of_a_checkpoint_runs(tmp_path, monkeypatch):
    torch.save({"a": Evil()}, tmp_path / "a.pt")
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("code ran"))
    with pytest.raises(CheckpointError, match="objects other than tensors"):
        read_torch(tmp_path / "a.pt", [nn.Embedding])
