"""The ``largeconcept`` command: finds the verb, loads its file alone, and turns errors into one line.

Exit status: 0 done, 1 a fault of the library or a broken pipe, 2 a mistake of the caller, 130 interrupted.
Set ``LARGECONCEPT_DEBUG=1`` to see tracebacks.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from largeconcept.errors import ConceptLMError, did_you_mean

Table = Mapping[str, "tuple[str, str | Table]"]

VERBS: Table = {
    "generate": (
        "largeconcept.cli.generate:generate",
        "Continue texts, concept by concept; with --plan, paragraph by paragraph.",
    ),
    "summarize": ("largeconcept.cli.generate:summarize", "Shorten texts with an instruction-tuned model."),
    "expand": (
        "largeconcept.cli.generate:expand",
        "Write longer texts from summaries with an instruction-tuned model.",
    ),
    "translate": ("largeconcept.cli.translate:translate", "Write texts in another language through their concepts."),
    "segment": ("largeconcept.cli.segment:segment", "Cut texts into sentences."),
    "encode": ("largeconcept.cli.concepts:encode", "Turn texts into concepts."),
    "decode": ("largeconcept.cli.concepts:decode", "Turn concepts into sentences."),
    "codec": (
        "Train and judge codecs.",
        {
            "train": (
                "largeconcept.cli.codec:train",
                "Train a codec on sentences and translations, or a decoder for another sentence encoder.",
            ),
            "eval": ("largeconcept.cli.codec:evaluate", "Measure how well a codec writes back what it read."),
            "bank": (
                "largeconcept.cli.codec:bank",
                "Give a sentence encoder a bank of sentences to write with.",
            ),
            "fragility": (
                "largeconcept.cli.codec:fragility",
                "Measure which sentences noise destroys, and predict it.",
            ),
        },
    ),
    "data": (
        "Build and check concept datasets.",
        {
            "build": ("largeconcept.cli.data:build", "Encode documents to a concept dataset."),
            "inspect": ("largeconcept.cli.data:inspect", "Check every promise of a concept dataset."),
            "prepare": ("largeconcept.cli.prepare:prepare", "Make training data from a corpus."),
            "affixes": ("largeconcept.cli.data:affixes", "List or add sentences that stand around documents."),
            "fetch": ("largeconcept.cli.data:fetch", "Fetch texts with summaries from the Hugging Face hub."),
            "corpus": (
                "Make text corpora.",
                {"debian": ("largeconcept.cli.data:debian", "Rebuild the multilingual corpus from Debian packages.")},
            ),
        },
    ),
    "normalizer": (
        "Fit normalizers.",
        {"fit": ("largeconcept.cli.normalizer:fit", "Fit a normalizer to the concepts of a dataset.")},
    ),
    "quantizer": (
        "Fit quantizers.",
        {
            "fit": (
                "largeconcept.cli.quantizer:fit",
                "Fit residual codebooks to the concepts of a dataset, in normalised space.",
            )
        },
    ),
    "train": ("largeconcept.cli.train:train", "Train a concept model from a recipe or a configuration file."),
    "train-default": (
        "largeconcept.cli.train_default:train_default",
        "Train codec and model and write the pipeline that ships.",
    ),
    "eval": (
        "Judge concept models, translations and sentences.",
        {
            "run": ("largeconcept.cli.evaluate:run", "Judge a model beside baselines: concepts, texts, codec."),
            "ls": ("largeconcept.cli.evaluate:ls", "List tasks, predictors and metrics of eval run."),
            "report": (
                "largeconcept.cli.report:report",
                "Write one HTML file about evaluations, sweeps and training runs.",
            ),
            "sweep": ("largeconcept.cli.sweep:sweep", "Find settings of generation that suit a model."),
            "blaser": ("largeconcept.cli.judge:blaser", "Judge translations with BLASER 2.0, on concepts of SONAR."),
            "mutox": ("largeconcept.cli.judge:mutox", "Judge how toxic sentences are, on concepts of SONAR."),
        },
    ),
    "export": ("largeconcept.cli.export:export", "Turn a training run into a saved pipeline."),
    "convert": (
        "Weights of others in, and back.",
        {
            "meta-lcm": ("largeconcept.cli.convert:meta_lcm", "Turn a checkpoint of Meta's LCM into a saved model."),
            "meta-lcm-export": (
                "largeconcept.cli.convert:meta_lcm_export",
                "Write a model in the layout of Meta's LCM.",
            ),
            "sonar": ("largeconcept.cli.convert:sonar", "Turn SONAR's published weights into a codec of our own."),
            "sonar-export": (
                "largeconcept.cli.convert:sonar_export",
                "Write SONAR's text encoder and decoder in a published layout.",
            ),
            "sonar-onnx": (
                "largeconcept.cli.convert:sonar_onnx",
                "Export SONAR's text encoder as an ONNX model, for onnxruntime.",
            ),
        },
    ),
    "recipes": (
        "List and show recipes.",
        {
            "ls": ("largeconcept.cli.recipes:ls", "List the recipes."),
            "show": ("largeconcept.cli.recipes:show", "Print the complete configuration of a recipe."),
        },
    ),
    "demo": ("largeconcept.cli.demo:demo", "Show what the shipped model can do, or run the whole path."),
    "doctor": ("largeconcept.cli.doctor:doctor", "Say what this machine and installation can do."),
}
"""Name -> ("module:function", help), or name -> (help, table) for a group."""

_CLICK_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def build_app(arguments: Sequence[str], table: Table = VERBS, description: str = "") -> typer.Typer:
    """Return the Typer application; only the verb that ``arguments`` name is imported, others are name and help."""
    app = typer.Typer(
        name="largeconcept",
        help=description or "Large Concept Models: language models that think in sentences instead of tokens.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(help=app.info.help)(_root if table is VERBS else _nothing)
    wanted = next((one for one in arguments if not one.startswith("-")), None)
    for name, (first, second) in table.items():
        if not isinstance(second, str):
            rest = list(arguments[list(arguments).index(name) + 1 :]) if name == wanted else []
            app.add_typer(build_app(rest, second, first), name=name, help=first)
        elif name == wanted:
            app.command(name, help=None)(_load(first))
        else:
            app.command(name, help=second)(_nothing)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; the only place that prints errors."""
    arguments = _with_help(arguments)
    with _quiet_streams(), warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            _check_verb(arguments)
            command = typer.main.get_command(build_app(arguments))
            status = command.main(args=list(arguments), prog_name="largeconcept", standalone_mode=False)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except BrokenPipeError:
            # Whoever read the output has gone; leave nothing behind that would fail again when Python exits.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except ConceptLMError as error:
            return _fail(str(error), 2)
        except _CLICK_ERROR as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "largeconcept"
            describe = getattr(error, "format_message", None)
            message = str(error if describe is None else describe()).rstrip(".")
            return _fail(f"{message}; see: {path} --help", 2)
        except Exception as error:
            return _fail(f"unexpected {type(error).__name__}: {error} (LARGECONCEPT_DEBUG=1 shows where)", 1)


def main() -> None:
    """Entry point of the ``largeconcept`` command."""
    sys.exit(run(sys.argv[1:]))


def one_line(text: str) -> str:
    """Return ``text`` on one line with control characters escaped."""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _fail(message: str, status: int) -> int:
    if os.environ.get("LARGECONCEPT_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {one_line(message)}", file=sys.stderr)  # noqa: T201 - the command line prints
    return status


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {one_line(str(message))}", file=sys.stderr)  # noqa: T201 - the command line prints


@contextlib.contextmanager
def _quiet_streams() -> Iterator[None]:
    """Let a terminal that cannot show a character show its escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    yield


def _with_help(arguments: Sequence[str]) -> list[str]:
    """A group without a verb, like no arguments at all, asks for help."""
    table: Any = VERBS
    for argument in arguments:
        if not isinstance(table, dict) or argument not in table:
            return list(arguments)
        table = table[argument][1]
    return [*arguments, "--help"] if isinstance(table, dict) else list(arguments)


def _check_verb(arguments: Sequence[str]) -> None:
    """Name the nearest verb for one that does not exist."""
    table: Any = VERBS
    path = ["largeconcept"]
    for argument in arguments:
        if argument.startswith("-") or not isinstance(table, dict):
            break
        if argument not in table:
            raise ConceptLMError("unknown verb", where=" ".join(path), got=argument, hint=did_you_mean(argument, table))
        path.append(argument)
        table = table[argument][1]


def _load(target: str) -> Any:
    module, _, function = target.partition(":")
    return getattr(import_module(module), function)


def _nothing() -> None:
    """Stand in for a verb that was not asked for."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from largeconcept import __version__

        typer.echo(f"largeconcept {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the command itself."""


if __name__ == "__main__":
    main()
