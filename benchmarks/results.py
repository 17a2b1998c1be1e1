"""Judge the model that ships, and write ``docs/results.md``.

    python benchmarks/results.py --pipeline default --prepared PREPARED --data DATASET [--token-lm RUN]
        [--english-only PIPELINE] [--float PIPELINE] [--out runs/results] [--page docs/results.md]

``--pipeline`` is a folder, or ``default`` for the one that ships; ``--prepared`` what ``largeconcept data prepare``
wrote; ``--data`` a concept dataset of the pipeline's space, for baselines that look things up. Each part is measured
once and kept in ``--out`` under a key of everything it depends on; what was stopped goes on where it was.

``--part NAME`` measures and prints one part (``--part list`` names them), ``--limit N`` makes every part small,
``--render-only`` writes the page from what is there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from results_parts.inputs import Inputs, Limits, find_pipeline
from results_parts.page import section, write
from results_parts.parts import PARTS
from results_parts.store import Store

from largeconcept.errors import ConceptLMError

PLACES = ("prepared", "data", "token_lm", "english_only", "float_pipeline")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="default", help="folder, or default for the one that ships")
    parser.add_argument("--prepared", type=Path, help="prepared corpus: held-out documents and pairs")
    parser.add_argument("--data", type=Path, help="concept dataset of the same space")
    parser.add_argument("--token-lm", type=Path, help="run of a token model of like size")
    parser.add_argument("--english-only", type=Path, help="pipeline with the same codec, tuned on English alone")
    parser.add_argument("--float", dest="float_pipeline", type=Path, help="the pipeline before rounding")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="where results are kept")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--part", action="append", choices=[*PARTS, "list"], help="these alone; prints, writes no page")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="most of everything, for a quick look")
    parser.add_argument("--render-only", action="store_true", help="measure nothing")
    for one in fields(Limits):
        parser.add_argument(f"--{one.name}", type=int, default=one.default, help=f"default {one.default}")
    return parser.parse_args(given)


def inputs_of(given: argparse.Namespace) -> Inputs:
    limits = Limits(**{one.name: getattr(given, one.name) for one in fields(Limits)})
    return Inputs(
        find_pipeline(given.pipeline),
        **{name: getattr(given, name) for name in PLACES},
        split=given.split,
        seed=given.seed,
        limits=limits.at_most(given.limit),
    )


def command_of(given: argparse.Namespace, part: str | None = None) -> str:
    """Return the command that measures everything, or a part, without the folders of this machine."""
    known = None if part is None else PARTS[part]
    words = ["python benchmarks/results.py", f"--pipeline {'default' if given.pipeline == 'default' else 'PIPELINE'}"]
    flags = {"float_pipeline": "float"}
    for name in PLACES:
        if getattr(given, name) is not None and (known is None or name in known.uses + known.beside):
            flag = flags.get(name, name.replace("_", "-"))
            words.append(f"--{flag} {flag.upper().replace('-', '_')}")
    limits = [one for one in fields(Limits) if known is None or one.name in known.limits]
    changed = {one.name: getattr(given, one.name) for one in limits if getattr(given, one.name) != one.default}
    for name, default in (("split", "test"), ("seed", 0), ("limit", None)):
        if getattr(given, name) != default:
            changed[name] = getattr(given, name)
    words += [f"--{name} {value}" for name, value in changed.items()]
    return folded([*words, *([f"--part {part}"] if part else [])])


def folded(words: list[str], width: int = 100) -> str:
    """Return words of a command on lines of a shell."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def measured(inputs: Inputs, store: Store, wanted: list[str], *, only_read: bool = False) -> dict[str, Any]:
    """Return part → record; measure what is not there unless ``only_read``."""
    found: dict[str, Any] = {}
    for name in wanted:
        part = PARTS[name]
        missing = [need for need in part.needs if getattr(inputs, need) is None]
        if missing:
            store.say(f"{name}: left out, without --{missing[0].replace('_', '-')}")
            continue
        key = store.key(name, part.version, part.uses, part.limits)
        if only_read:
            record = store.find(name, key)
            if record is None:
                store.say(f"{name}: not measured on these inputs")
                continue
            found[name] = record
        else:
            found[name] = store.once(name, key, lambda piece: part.measure(inputs, piece))  # noqa: B023 - called now
    return found


def main() -> int:
    given = arguments()
    if given.part and "list" in given.part:
        print("\n".join(PARTS))
        return 0
    try:
        inputs = inputs_of(given)
        store = Store(given.out, inputs, lambda line: print(line, file=sys.stderr, flush=True))
        wanted = list(given.part or PARTS)
        found = measured(inputs, store, wanted, only_read=given.render_only)
        if given.part:
            for name in wanted:
                if name in found:
                    print("\n".join(section(name, _with_writing(found, inputs, store), {})))
            return 0
        for path in write(found, lambda part: command_of(given, part), given.page):
            print(f"{path}: {path.stat().st_size:,} bytes", file=sys.stderr)
    except ConceptLMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _with_writing(found: dict[str, Any], inputs: Inputs, store: Store) -> dict[str, Any]:
    """Zero-shot summaries are compared with those of the model that saw all languages, if these are there."""
    if "zero_shot" not in found or "writing" in found:
        return found
    return found | measured(inputs, store, ["writing"], only_read=True)


if __name__ == "__main__":
    sys.exit(main())
