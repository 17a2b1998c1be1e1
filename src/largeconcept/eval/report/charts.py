"""Plots as inline SVG, drawn for 420 units of width so that their text stays readable on a phone.

Colours are custom properties of the page (``--series-1`` …), so plots follow its light or dark scheme. Series also
differ in dashes and marks, and every point has a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from largeconcept.eval.report.markup import Markup, tag

WIDTH, HEIGHT = 420.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 20.0, 12.0, 40.0
_MOST_POINTS = 160
_INFINITE = 1e100
"""What is greater would leave nothing of an axis for other values."""
NUM_COLOURS = 8
_DASHES = (None, "7 3", "2 3", "9 3 2 3")
_MARKS = 4


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart; points with a value that is not finite are left out.

    Attributes:
        name: in the legend.
        x, y: of its points, ``x`` ascending.
        low, high: ends of the interval of each point, where known.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic axis from data to the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is drawn."""
        low, high, at = (
            (math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values to write at the axis."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    marks: bool | None = None,
) -> Markup:
    """Draw lines with their intervals, and a legend where there are several.

    Args:
        title: what the chart shows; also its caption.
        series: the lines.
        x_label, y_label: what the axes show.
        log_x, log_y: logarithmic axes, used where all values are positive.
        marks: draw each point; by default where lines have few.
    """
    drawn = [one for one in (_thinned(_finite(one)) for one in series) if one.x]
    if not drawn:
        return figure(title, tag("p", "No finite values.", class_="quiet"))
    xs = [x for one in drawn for x in one.x]
    ys = [y for one in drawn for y in one.y]
    ends = [v for one in drawn for v in (*(one.low or ()), *(one.high or ())) if v is not None and abs(v) < _INFINITE]
    log_x, log_y = log_x and min(xs) > 0, log_y and min([*ys, *ends]) > 0
    across = _axis(xs, _LEFT, WIDTH - _RIGHT, log_x, 0.0)
    up = _axis([*ys, *ends], HEIGHT - _BOTTOM, _TOP, log_y, 0.06)
    body = [_frame(across, up, x_label, y_label)]
    if marks is None:
        marks = all(len(one.x) <= 24 for one in drawn)
    for number, one in enumerate(drawn):
        body.append(_band(one, number, across, up))
    for number, one in enumerate(drawn):
        body.append(_line(one, number, across, up, marks))
    names = ", ".join(f"{one.name} from {short(one.y[0])} to {short(one.y[-1])}" for one in drawn)
    alt = f"{title}. {y_label} against {x_label}: {names}."
    return figure(title, svg(alt, body), legend([one.name for one in drawn]) if len(drawn) > 1 else None)


def heat_map(
    title: str,
    x_label: str,
    y_label: str,
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    higher_is_better: bool = True,
    target: float | None = None,
    best: tuple[int, int] | None = None,
) -> Markup:
    """Draw a grid of values; the better, the stronger the colour.

    Args:
        title: what it shows.
        x_label, y_label: names of the two settings.
        columns, rows: values of the settings.
        values: a row of numbers for each of ``rows``; ``None`` where nothing was measured.
        higher_is_better: which end is strong.
        target: the nearer to this the stronger, instead of an end.
        best: (row, column) to mark.
    """
    values = [[None if v is None or not abs(v) < _INFINITE else v for v in row] for row in values]
    known = [v for row in values for v in row if v is not None]
    if not known:
        return figure(title, tag("p", "No finite values.", class_="quiet"))
    low, high = min(known), max(known)
    farthest = max(abs(v - target) for v in known) if target is not None else 0.0
    left, top, bottom = 64.0, 10.0, 44.0
    wide = (WIDTH - left - 10.0) / max(len(columns), 1)
    tall = min(max(150.0 / max(len(rows), 1), 30.0), 48.0)
    height = top + tall * len(rows) + bottom
    body: list[Markup] = []
    for j, row in enumerate(values):
        y = top + j * tall
        body.append(tag("text", rows[j], x=left - 8, y=y + tall / 2 + 4, class_="tick end"))
        for i, value in enumerate(row):
            x = left + i * wide
            shape = {"x": x + 1.5, "y": y + 1.5, "width": wide - 3, "height": tall - 3, "rx": 4.0}
            if value is None:
                body.append(tag("rect", class_="cell none", **shape))
                body.append(tag("text", "–", x=x + wide / 2, y=y + tall / 2 + 4, class_="tick mid"))
                continue
            share = 0.5 if high == low else (value - low) / (high - low)
            share = share if higher_is_better else 1.0 - share
            if target is not None:
                share = 1.0 - abs(value - target) / farthest if farthest else 0.5
            is_best = best == (j, i)
            tip = f"{y_label} {rows[j]}, {x_label} {columns[i]}: {short(value)}{' (best)' if is_best else ''}"
            body.append(
                tag(
                    "rect",
                    tag("title", tip),
                    class_="cell best" if is_best else "cell",
                    fill_opacity=f"{0.05 + 0.5 * share:.2f}",
                    **shape,
                )
            )
            if wide >= 34:
                body.append(
                    tag("text", _in_cell(value, high - low), x=x + wide / 2, y=y + tall / 2 + 4, class_="value")
                )
    for i, name in enumerate(columns):
        body.append(tag("text", name, x=left + (i + 0.5) * wide, y=height - bottom + 16, class_="tick mid"))
    body.append(tag("text", x_label, x=left + wide * len(columns) / 2, y=height - 8, class_="label mid"))
    middle = top + tall * len(rows) / 2
    body.append(
        tag("text", y_label, x=14.0, y=middle, class_="label mid", transform=f"rotate(-90 14 {middle:.0f})"),
    )
    alt = (
        f"{title}. {len(rows)} values of {y_label} by {len(columns)} of {x_label}; from {short(low)} to {short(high)}."
    )
    return figure(title, svg(alt, body, height=height))


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a scatter plot; points of equal ``group`` share a colour, of equal ``link`` a line."""

    x: float
    y: float
    group: str
    link: int
    tip: str


def scatter(title: str, dots: Sequence[Dot], *, x_label: str, y_label: str, linked: bool = True) -> Markup:
    """Draw points with a colour for each group and their number inside; ``linked`` ones lead to their middle."""
    groups = list(dict.fromkeys(dot.group for dot in dots))
    height = 340.0
    across = _axis([dot.x for dot in dots], _LEFT, WIDTH - _RIGHT - 8, False, 0.05)
    up = _axis([dot.y for dot in dots], height - _BOTTOM, _TOP + 8, False, 0.05)
    body = [_frame(across, up, x_label, y_label, height=height)]
    for link in dict.fromkeys(dot.link for dot in dots) if linked else ():
        same = [dot for dot in dots if dot.link == link]
        if len(same) > 1:
            x, y = sum(d.x for d in same) / len(same), sum(d.y for d in same) / len(same)
            for dot in same:
                ends = {"x1": across.place(x), "y1": up.place(y), "x2": across.place(dot.x), "y2": up.place(dot.y)}
                body.append(tag("line", class_="tie", **ends))
    for dot in dots:
        colour = groups.index(dot.group) % NUM_COLOURS + 1
        x, y = across.place(dot.x), up.place(dot.y)
        mark = tag("circle", cx=x, cy=y, r=8.0, class_=f"dot f{colour}")
        label = tag("text", dot.link + 1, x=x, y=y + 3.2, class_="inside")
        body.append(tag("g", tag("title", dot.tip), mark, label))
    alt = f"{title}. {len(dots)} points in {len(groups)} groups: {', '.join(groups)}."
    return figure(title, svg(alt, body, height=height), legend(groups, filled=True))


def interval_bar(low: float, value: float, high: float, ends: tuple[float, float]) -> Markup:
    """Return a tiny drawing of an estimate and its interval on the scale ``ends``, as wide as a table's cell."""
    width = 84.0
    axis = Axis(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1.0, 4.0, width - 4.0)
    body = [
        tag("path", d=f"M{axis.place(low):.1f} 5H{axis.place(high):.1f}"),
        tag("circle", cx=axis.place(value), cy=5, r=3),
    ]
    # Said in figures right above it, so it is only decoration for those who cannot see it.
    return tag("svg", *body, viewBox=f"0 0 {width:.0f} 10", class_="bar", aria_hidden="true")


def svg(alt: str, body: Sequence[Markup], height: float = HEIGHT) -> Markup:
    """Return a drawing with a text for those who cannot see it."""
    return tag(
        "svg",
        tag("title", alt),
        *body,
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        role="img",
        aria_label=alt,
        class_="plot",
    )


def figure(title: str, drawing: Markup, below: Markup | None = None) -> Markup:
    """Return a plot with its caption."""
    return tag("figure", tag("figcaption", title), drawing, below)


def legend(names: Sequence[str], filled: bool = False) -> Markup:
    """Return which colour, dash and mark stands for what."""
    items = []
    for number, name in enumerate(names):
        colour = number % NUM_COLOURS + 1
        if filled:
            sample = [tag("circle", cx=13.0, cy=6.0, r=5.5, class_=f"dot f{colour}")]
        else:
            line = tag(
                "line", x1=1.0, x2=25.0, y1=6.0, y2=6.0, class_=f"line s{colour}", stroke_dasharray=_dash(number)
            )
            sample = [line, _mark(13.0, 6.0, number)]
        key = tag("svg", *sample, viewBox="0 0 26 12", class_="key", aria_hidden="true", focusable="false")
        items.append(tag("li", key, name))
    return tag("ul", items, class_="legend")


def short(value: float) -> str:
    """Return a number with four significant digits at most, thousands as k, M, G … where they are whole magnitudes."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 10_000:
        power = min(int(math.log10(size)) // 3, 6)
        return f"{value / 1000**power:.3g}{' kMGTPE'[power]}"
    if size and size < 0.001:
        return f"{value:.2g}"
    text = f"{value:.4g}" if size < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round values between two ends."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between two ends, or of two or linear steps where they are close."""
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    if len(powers) >= 3:
        return [10.0**p for p in powers][:: max(len(powers) // 5, 1)]
    twos = range(math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9) + 1)
    if len(twos) >= 2:
        return [2.0**p for p in twos][:: max(len(twos) // 5, 1)]
    return linear_ticks(low, high, 3)


# --- inside ----------------------------------------------------------------------------------------------------------


def _axis(values: Sequence[float], start: float, end: float, log: bool, margin: float) -> Axis:
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        low, high = (low / 1.5, high * 1.5) if log else (low - pad, high + pad)
    elif margin and log:
        factor = (high / low) ** margin
        low, high = low / factor, high * factor
    elif margin:
        pad = (high - low) * margin
        low, high = low - pad, high + pad
    return Axis(low, high, start, end, log)


def _frame(across: Axis, up: Axis, x_label: str, y_label: str, height: float = HEIGHT) -> Markup:
    bottom = height - _BOTTOM
    parts = []
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", short(tick), x=_LEFT - 7, y=y + 4, class_="tick end"))
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(tag("text", short(tick), x=x, y=bottom + 17, class_="tick mid"))
    parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis"))
    parts.append(tag("text", x_label, x=(_LEFT + WIDTH - _RIGHT) / 2, y=height - 6, class_="label mid"))
    middle = (bottom + _TOP) / 2
    parts.append(
        tag("text", y_label, x=12.0, y=middle, class_="label mid", transform=f"rotate(-90 12 {middle:.0f})"),
    )
    return tag("g", parts)


def _band(one: Series, number: int, across: Axis, up: Axis) -> Markup:
    if one.low is None or one.high is None:
        return Markup("")
    known = [
        (across.place(x), up.place(low), up.place(high))
        for x, low, high in zip(one.x, one.low, one.high)
        if low is not None and high is not None and abs(low) < _INFINITE and abs(high) < _INFINITE
    ]
    if len(known) < 2:
        return Markup("")
    there = [f"{x:.1f},{y:.1f}" for x, _, y in known]
    back = [f"{x:.1f},{y:.1f}" for x, y, _ in reversed(known)]
    return tag("path", d=f"M{' '.join(there)} {' '.join(back)}Z", class_=f"band f{number % NUM_COLOURS + 1}")


def _line(one: Series, number: int, across: Axis, up: Axis, marks: bool) -> Markup:
    points = [(across.place(x), up.place(y)) for x, y in zip(one.x, one.y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    colour = number % NUM_COLOURS + 1
    parts = [
        tag("polyline", points=path, class_=f"line s{colour}", stroke_dasharray=_dash(number))
        if len(points) > 1
        else None
    ]
    if marks or len(points) == 1:
        for (x, y), at, value in zip(points, one.x, one.y):
            parts.append(tag("g", tag("title", f"{one.name}, {short(at)}: {short(value)}"), _mark(x, y, number)))
    return tag("g", parts)


def _dash(number: int) -> str | None:
    return _DASHES[number // 2 % len(_DASHES)]


def _mark(x: float, y: float, number: int) -> Markup:
    kind = f"mark f{number % NUM_COLOURS + 1}"
    shape, r = number % _MARKS, 3.6
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=r, class_=kind)
    if shape == 1:
        return tag("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, class_=kind)
    if shape == 2:
        return tag("path", d=f"M{x:.1f},{y - r - 1:.1f}l{r + 1:.1f},{2 * r:.1f}h{-2 * r - 2:.1f}Z", class_=kind)
    return tag("path", d=f"M{x:.1f},{y - r - 1:.1f}l4.6,4.6l-4.6,4.6l-4.6,-4.6Z", class_=kind)


def _finite(one: Series) -> Series:
    keep = [i for i, (x, y) in enumerate(zip(one.x, one.y)) if abs(x) < _INFINITE and abs(y) < _INFINITE]
    return Series(
        one.name,
        [one.x[i] for i in keep],
        [one.y[i] for i in keep],
        None if one.low is None else [one.low[i] for i in keep],
        None if one.high is None else [one.high[i] for i in keep],
    )


def _thinned(one: Series) -> Series:
    """Replace many points by the means of neighbours, with their least and greatest as a band."""
    if len(one.x) <= _MOST_POINTS:
        return one
    size = math.ceil(len(one.x) / _MOST_POINTS)
    groups = [slice(i, i + size) for i in range(0, len(one.x), size)]
    return Series(
        one.name,
        [sum(one.x[g]) / len(one.x[g]) for g in groups],
        [sum(one.y[g]) / len(one.y[g]) for g in groups],
        [min(one.y[g]) for g in groups],
        [max(one.y[g]) for g in groups],
    )


def _in_cell(value: float, spread: float) -> str:
    """As many digits as tell the cells of a map apart, five characters at most."""
    if abs(value) >= 1000:
        return short(value)
    digits = 2 if spread == 0 else min(max(2 - math.floor(math.log10(spread)), 0), 4)
    return f"{value:.{digits}f}"[:6].replace("-", "−")


__all__ = ["Axis", "Dot", "Series", "figure", "heat_map", "interval_bar", "legend", "line_chart", "scatter", "short"]
