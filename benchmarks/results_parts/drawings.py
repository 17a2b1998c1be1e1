"""The report's charts as files of their own: in a page they are styled by it, here they carry their style along."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from largeconcept.eval.report.charts import WIDTH, Series, heat_map, legend, line_chart
from largeconcept.eval.report.markup import escape
from largeconcept.languages import language_name

MOST_BYTES = 60_000
SHOWN = 560
"""Width at which a page shows a drawing, in pixels."""
_EDGE = 16  # room for names of languages, which are longer than figures
_COLOURS = ("#2563c9", "#c2410c", "#15803d", "#8b2fd6", "#be185d", "#0e7490", "#94600a", "#57534e")
_SERIES = "".join(f".s{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, c in enumerate(_COLOURS, 1))
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    ".grid{stroke:#e4e9f0}.axis{stroke:#5a6473}.tick{font-size:12px;fill:#5a6473}.label{font-size:12px;fill:#1b2028}"
    ".end{text-anchor:end}.mid,.value{text-anchor:middle}.value{font-size:12.5px;fill:#1b2028;font-weight:500}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.band{opacity:.16}"
    ".mark{stroke:#fff;stroke-width:1.2}.cell{fill:#2253c4}.cell.none{fill:#e4e9f0}.title{font-size:13px;font-weight:600}"
)
_DRAWING = re.compile(r"<svg[^>]*viewBox=\"0 0 (\d+) (\d+)\"[^>]*class=\"plot\"[^>]*>(.*?)</svg>", re.DOTALL)
_KEY = re.compile(r"<svg[^>]*class=\"key\"[^>]*>(.*?)</svg>", re.DOTALL)


def alone(title: str, figure: str, names: Sequence[str] = ()) -> str:
    """Return a figure of the report as an SVG file.

    Args:
        title: written above the drawing.
        figure: what :mod:`largeconcept.eval.report.charts` drew.
        names: of the series, for a legend.
    """
    drawing = _DRAWING.search(figure)
    if drawing is None:
        raise ValueError(f"nothing was drawn: {title}")
    height, body = float(drawing[2]), drawing[3]
    keys = _KEY.findall(legend(names)) if len(names) > 1 else []
    parts, x, y = [], 58.0, height + 40.0
    for name, key in zip(names, keys):
        wide = 46.0 + 7.0 * len(name)
        if x + wide > WIDTH:
            x, y = 58.0, y + 20.0
        parts.append(
            f'<svg x="{x:.0f}" y="{y - 10:.0f}" width="26" height="12" viewBox="0 0 26 12">{key}</svg>'
            f'<text class="label" x="{x + 31:.0f}" y="{y:.0f}">{escape(name)}</text>'
        )
        x += wide
    bottom = y + 10.0 if parts else height + 24.0
    made = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_EDGE} 0 {WIDTH + _EDGE:.0f} {bottom:.0f}" '
        f'width="{SHOWN}" height="{bottom * SHOWN / (WIDTH + _EDGE):.0f}" role="img">'
        f'<style>{_STYLE}{_SERIES}</style><rect x="{-_EDGE}" width="100%" height="100%" fill="#fff"/>'
        f'<text class="title" x="0" y="17">{escape(title)}</text><g transform="translate(0 22)">{body}</g>'
        f"{''.join(parts)}</svg>\n"
    )
    if len(made.encode()) > MOST_BYTES:
        raise ValueError(f"{title}: {len(made.encode()):,} bytes, more than {MOST_BYTES:,}")
    return made


def noise_chart(data: Mapping[str, Any]) -> str:
    """Draw auto-BLEU by strength of noise, a line for each language."""
    title = "Auto-BLEU of concepts under noise"
    series = []
    for lang, one in data["languages"].items():
        points = [one["scores"][f"auto_bleu/{strength:g}"] for strength in data["strengths"]]
        series.append(
            Series(
                language_name(lang),
                data["strengths"],
                [point["value"] for point in points],
                [point["low"] for point in points],
                [point["high"] for point in points],
            )
        )
    figure = line_chart(title, series, x_label="noise, in standard deviations of a concept", y_label="auto-BLEU")
    return alone(title, figure, [one.name for one in series])


def matrix_chart(
    title: str,
    across: str,
    languages: Sequence[str],
    values: Mapping[tuple[str, str], float | None],
    *,
    higher_is_better: bool,
) -> str:
    """Draw a value for each two languages: rows the one that is read, columns the one that is written or searched."""
    names = [language_name(lang) for lang in languages]
    rows = [[values.get((left, right)) for right in languages] for left in languages]
    figure = heat_map(title, across, "", names, names, rows, higher_is_better=higher_is_better)
    return alone(title, figure)
