"""Run folders for tests of reports, written by the same records that evaluations write."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from largeconcept.eval.records import MODEL, Difference, EvaluationResult, Score, TaskResult, write_raw
from largeconcept.eval.sweep_results import SettingResult, SweepResult
from largeconcept.io import write_json

HOSTILE = (
    '<script>alert("x")</script>',
    "</style></title><img src=http://evil.example/a.png onerror=alert(1)>",
    "'\"`&amp; ]]> <!-- --> \x00\x1b[31m \udc80 \u202eevil",
    "<a href='javascript:alert(1)'>x</a><svg onload=alert(1)>",
)
ITEMS = (
    (
        "moses",
        "eng_Latn",
        "Now Moses was keeping the flock. He came to the mountain of God.",
        "A bush burned with fire.",
    ),
    ("help", "deu_Latn", "Öffnen Sie die Einstellungen. Wählen Sie „Anzeige“.", "Klicken Sie auf Übernehmen."),
    ("arabic", "arb_Arab", "كان يا ما كان في قديم الزمان.", "عاش ملك عادل في مدينة بعيدة."),
    ("chinese", "zho_Hans", "从前有一座山。山上有一座庙。", "庙里有一个老和尚。"),
)
PREDICTORS = {MODEL: 0.0, "token_lm": -0.02, "copy_last": -0.3, "lead_3": -0.12, "reference": 1.0}


def write_evaluation(folder: Path, seed: int = 0, lift: float = 0.0, hostile: bool = False) -> Path:
    """Write an evaluation of two tasks with raw outputs."""
    draw = random.Random(seed)
    metrics = {
        "rouge_l": "higher",
        "chrf": "higher",
        "overlap_3": "none",
        "repetition_4": "lower",
        "length_ratio": "none",
    }
    scores: dict[str, dict[str, Score]] = {}
    differences: dict[str, dict[str, Difference]] = {}
    samples = []
    for name, shift in PREDICTORS.items():
        values = {
            m: (30 + 20 * i) * (1 + shift * (1 if d != "lower" else -1) + lift)
            for i, (m, d) in enumerate(metrics.items())
        }
        scores[name] = {m: Score(v, v * 0.94, v * 1.06, 40) for m, v in values.items()}
        if name != MODEL:
            own = scores[MODEL]
            differences[name] = {
                m: Difference(
                    (own[m].value or 0) - v,
                    (own[m].value or 0) - v - 2,
                    (own[m].value or 0) - v + 2,
                    0.0005 if abs((own[m].value or 0) - v) > 2 else 0.4,
                )
                for m, v in values.items()
            }
        records = []
        for number, (key, lang, source, reference) in enumerate(ITEMS * 3):
            text = HOSTILE[number % len(HOSTILE)] if hostile else f"{reference} ({name})"
            records.append(
                {
                    "key": f"{name}{number}",
                    "id": f"{key}-{number}" + (HOSTILE[0] if hostile else ""),
                    "lang": lang,
                    "target_lang": lang,
                    "source": [source] * 3 + list(HOSTILE if hostile else ()),
                    "reference": [reference],
                    "output": text,
                    "sentences": [text],
                    "seconds": 0.1,
                    "notes": {},
                    "metrics": {m: v * (1 + draw.gauss(0, 0.05)) for m, v in values.items()},
                }
            )
        samples.append(write_raw(folder, "continuation", name, records))
    noise = [0.0, 0.1, 0.2, 0.4, 0.8]
    curve = [40 * math.exp(-3 * x * (1 + 0.1 * seed)) for x in noise]
    extra = {
        "curves": {
            "Decoding under noise": {
                "x_label": "noise (share of the standard deviation)",
                "y_label": "auto-BLEU",
                "log_x": False,
                "log_y": False,
                "series": {
                    "eng_Latn": {
                        "x": noise,
                        "y": curve,
                        "low": [v * 0.9 for v in curve],
                        "high": [v * 1.1 for v in curve],
                    },
                    "deu_Latn": {"x": noise, "y": [v * 0.8 for v in curve], "low": None, "high": None},
                },
            }
        },
        "tables": {
            "Isotropy": {"columns": ["figure", "value"], "rows": [["mean norm", 16.4], ["participation ratio", 88.1]]}
        },
    }
    concepts = {
        MODEL: {
            "contrastive_accuracy": Score(0.925 + lift, 0.918 + lift, 0.932 + lift, 2255),
            "l2": Score(16.494, 16.284, 16.702, 2255),
        },
        "copy_last": {"contrastive_accuracy": Score(0.911, 0.904, 0.919, 2255), "l2": Score(20.72, 20.53, 20.91, 2255)},
        "training_mean": {"contrastive_accuracy": Score(0.5, 0.5, 0.5, 2255), "l2": Score(16.9, 16.7, 17.1, 2255)},
    }
    away = {
        "copy_last": {
            "contrastive_accuracy": Difference(0.0137, 0.008, 0.019, 0.001),
            "l2": Difference(-4.2, -4.4, -4.0, 0.001),
        },
        "training_mean": {
            "contrastive_accuracy": Difference(0.425, 0.41, 0.43, 0.001),
            "l2": Difference(-0.4, -0.5, -0.3, 0.001),
        },
    }
    title = HOSTILE[0] if hostile else "demo"
    EvaluationResult(
        {
            "next_concept": TaskResult(
                1, 149, {"contrastive_accuracy": "higher", "l2": "lower"}, concepts, away, extra=extra
            ),
            "continuation": TaskResult(
                1, 40, metrics, scores, differences, {"prompt": 4}, {"plan_first": "not a planning model"}, 12.5
            ),
        },
        {"model": f"pipeline-{title}", "data": "data/test"},
        seed=seed,
        left_out={"plan": "the model does not plan"},
        config_hash="0123456789abcdef",
        git={"revision": "0123456789abcdef0123", "changed": True},
        machine={"processor": "a processor", "torch": "2.13.0", "device": "cpu"},
        created="2026-01-02T03:04:05+00:00",
        samples=samples,
    ).save(folder)
    return folder


def write_training(folder: Path, steps: int = 400, seed: int = 0) -> Path:
    """Write the metrics of a training run."""
    draw = random.Random(seed)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        loss = 400 * math.exp(-step / 150) + 200 + draw.gauss(0, 6)
        lines.append(
            {
                "step": step,
                "loss": loss,
                "l2": loss / 20,
                "lr": 1e-3 * (1 - step / steps),
                "grad_norm": loss / 9,
                "concepts": step * 100,
                "time": 1e9 + step,
            }
        )
        if step % 50 == 0:
            lines.append({"step": step, "validation/ema/loss": loss + 5, "validation/ema/l2": loss / 20 + 0.3})
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def sweep_result() -> SweepResult:
    """A sweep over guidance, steps and initial noise."""
    grid = {
        "guidance_scale": [1.0, 2.0, 3.0, 6.0],
        "num_inference_steps": [3, 10, 40],
        "initial_noise_scale": [0.6, 1.0],
    }
    results = []
    for guidance in grid["guidance_scale"]:
        for steps in grid["num_inference_steps"]:
            for noise in grid["initial_noise_scale"]:
                value = 0.93 - 0.004 * abs(guidance - 3) - 0.02 / steps - 0.01 * (noise - 0.6)
                results.append(
                    SettingResult(
                        {"guidance_scale": guidance, "num_inference_steps": steps, "initial_noise_scale": noise},
                        {"contrastive_accuracy": Score(value, value - 0.006, value + 0.006, 2255)},
                        seconds=0.02 * steps,
                    )
                )
    results.sort(key=lambda one: -(one.scores["contrastive_accuracy"].value or 0))
    top = results[0].scores["contrastive_accuracy"].value or 0
    results[0].ties = True
    for one in results[1:]:
        gap = top - (one.scores["contrastive_accuracy"].value or 0)
        one.difference, one.ties = Difference(gap, gap - 0.003, gap + 0.003, 0.01), gap < 0.003
    default = results[-1]
    for place, one in enumerate(results[:-1]):
        gain = (one.scores["contrastive_accuracy"].value or 0) - (top - 0.02)
        one.from_default, one.p_holm = Difference(gain, gain - 0.003, gain + 0.003, 0.001), 0.02 + 0.03 * place
    return SweepResult(
        grid,
        "contrastive_accuracy",
        "higher",
        results,
        default=default,
        base={"guidance_rescale": 0.7},
        settings={"split": "validation"},
        num_documents=149,
        num_predictions=2255,
    )


def write_sweep(folder: Path) -> Path:
    """Write the record of a sweep."""
    write_json(folder / "sweep.json", sweep_result().to_dict())
    return folder


def write_cost(folder: Path) -> Path:
    """Write measurements of cost."""
    x = [256, 1024, 4096, 16384]
    write_json(
        folder / "cost.json",
        {
            "curves": {
                "Work by length of context": {
                    "x_label": "context (tokens)",
                    "y_label": "FLOPs",
                    "log_x": True,
                    "log_y": True,
                    "series": {
                        "concept model": {"x": x, "y": [2e10 * (v / 256) for v in x]},
                        "token model": {"x": x, "y": [1e10 * (v / 256) ** 1.4 for v in x]},
                    },
                }
            }
        },
    )
    return folder


def write_all(folder: Path, hostile: bool = False) -> Path:
    """Write two evaluations, a sweep, a training run and costs into one folder."""
    write_evaluation(folder / "eval-a", 0, hostile=hostile)
    write_evaluation(folder / "eval-b", 1, lift=0.02, hostile=hostile)
    write_sweep(folder / "sweep")
    write_training(folder / "two_tower", seed=1)
    write_training(folder / "mse", steps=3000, seed=2)
    write_cost(folder / "cost")
    return folder
