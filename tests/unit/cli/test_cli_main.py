"""The command itself: help, versions, unknown verbs, and what becomes of errors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib import import_module

import pytest
import typer

from largeconcept import __version__
from largeconcept.cli import main
from largeconcept.errors import CheckpointError


def leaves(table=main.VERBS, path=()):
    for name, (first, second) in table.items():
        if isinstance(second, str):
            yield (*path, name), first, second
        else:
            yield from leaves(second, (*path, name))


def groups(table=main.VERBS, path=()):
    for name, (_, second) in table.items():
        if not isinstance(second, str):
            yield (*path, name)
            yield from groups(second, (*path, name))


VERBS = [(path, target, about) for path, target, about in leaves() if path != ("demo",)]


@pytest.mark.parametrize(
    ("path", "target", "about"), VERBS, ids=lambda one: " ".join(one) if type(one) is tuple else ""
)
def test_every_verb_has_help(cli, path, target, about):
    text = cli(*path, "--help").ok()
    assert f"Usage: largeconcept {' '.join(path)}" in text
    assert "--help" in text
    module, _, function = target.partition(":")
    assert getattr(import_module(module), function).__doc__.splitlines()[0] == about


@pytest.mark.parametrize("path", list(groups()), ids=" ".join)
def test_every_group_lists_its_verbs(cli, path):
    assert cli(*path).ok() == cli(*path, "--help").ok()
    table = main.VERBS
    for name in path:
        table = table[name][1]
    for name in table:
        assert name in cli(*path).ok()


def test_no_argument_is_help(cli):
    text = cli().ok()
    assert text == cli("--help").ok()
    for name in main.VERBS:
        assert f"  {name} " in text


def test_version(cli):
    assert cli("--version").ok() == f"largeconcept {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["genrate"], ["unknown verb", "genrate", "did you mean generate?"]),
        (["data", "bild"], ["largeconcept data", "did you mean build?"]),
        (["data", "corpus", "debain"], ["did you mean debian?"]),
        (["xyzzy"], ["unknown verb", "valid: generate"]),
        (["generate", "--sede", "3"], ["No such option: --sede", "largeconcept generate --help"]),
        (["generate", "--seed", "three"], ["'--seed'", "valid integer"]),
        (["generate", "-n", "0"], ["--max-concepts"]),
        (["train"], ["Missing argument", "largeconcept train --help"]),
        (["data", "build", "x.txt"], ["--out"]),
        (["doctor", "extra"], ["unexpected extra argument"]),
    ],
)
def test_wrong_command_lines(cli, arguments, parts):
    cli(*arguments).error(*parts)


def stand_in(monkeypatch, function):
    monkeypatch.setattr(main, "_load", lambda target: function)


def test_library_errors_are_one_line(cli, monkeypatch):
    def verb() -> None:
        raise CheckpointError("broken\nin two lines", where="a\x1b[31m\r\nfile")

    stand_in(monkeypatch, verb)
    result = cli("doctor")
    result.error("broken", "in two lines")
    assert "\x1b" not in result.err


def test_unexpected_errors_say_how_to_see_more(cli, monkeypatch):
    def verb() -> None:
        raise ZeroDivisionError("by nothing")

    stand_in(monkeypatch, verb)
    monkeypatch.delenv("LARGECONCEPT_DEBUG", raising=False)
    result = cli("doctor")
    assert result.status == 1
    assert result.err == "error: unexpected ZeroDivisionError: by nothing (LARGECONCEPT_DEBUG=1 shows where)\n"
    monkeypatch.setenv("LARGECONCEPT_DEBUG", "1")
    result = cli("doctor")
    assert result.status == 1
    assert "Traceback" in result.err


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_interrupts_are_quiet(cli, monkeypatch, error):
    def verb() -> None:
        print("so far")
        raise error

    stand_in(monkeypatch, verb)
    result = cli("doctor")
    assert (result.status, result.out) == (130, "so far\n")
    assert "rror" not in result.err
    assert "Traceback" not in result.err


def test_exit_status_of_a_verb(cli, monkeypatch):
    def verb() -> None:
        raise typer.Exit(7)

    stand_in(monkeypatch, verb)
    assert cli("doctor").status == 7


def test_warnings_are_one_line(cli, monkeypatch):
    def verb() -> None:
        import warnings

        warnings.warn("look\nhere", UserWarning, stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)

    stand_in(monkeypatch, verb)
    result = cli("doctor")
    assert (result.status, result.err) == (0, "warning: look here\n")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "largeconcept.cli.main", *arguments]


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom largeconcept.cli.main import run\nstatus = run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pydantic', 'sacrebleu'} & set(sys.modules)\n"
        "assert status == 0 and not heavy, heavy"
    )
    times = []  # of the processor, so that a busy machine does not count
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5, times


def test_verbs_load_nothing_heavy_until_they_run():
    modules = sorted({target.partition(":")[0] for _, target, _ in VERBS})
    code = f"import sys\nfor name in {modules!r}:\n    __import__(name)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        command("segment"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"A short sentence stands here. " * 20_000)
        process.stdin.close()
        err = process.stderr.read()
        status = process.wait(timeout=60)
    assert err == b""
    assert status == 1


def test_a_terminal_without_unicode_gets_escapes():
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(
        command("segment", "--text", "Ça va → là. Bien."), env=environment, capture_output=True, check=True
    )
    assert done.stdout.decode("latin-1") == "Ça va \\u2192 là.\nBien.\n"


def test_control_c_in_a_real_process():
    code = (
        "import os, signal, sys, time\nfrom largeconcept.cli import main\n"
        # A shell without job control lets its background processes ignore the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def verb() -> None:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(30)\n"
        "main._load = lambda target: verb\nsys.exit(main.run(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, b"")
    assert b"Traceback" not in done.stderr


def test_an_interrupted_training_is_an_interrupt(cli, monkeypatch, tmp_path):
    from largeconcept.cli import train
    from largeconcept.train import loop

    result = loop.TrainResult(3, [1.0], tmp_path, interrupted=True)
    monkeypatch.setattr(train, "run_config", lambda *_: None)
    monkeypatch.setattr(loop.Trainer, "fit", lambda self: result)
    monkeypatch.setattr(loop.Trainer, "__init__", lambda self, *_, **__: None)
    done = cli("train", "tiny.mse")
    assert (done.status, done.out, done.err) == (130, "", "")
