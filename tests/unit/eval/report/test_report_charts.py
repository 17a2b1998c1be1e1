"""Plots put values where they belong."""

import math
from itertools import pairwise

import pytest
from html_checks import check_safe, everything, parse

from largeconcept.eval.report.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Dot,
    Series,
    heat_map,
    line_chart,
    linear_ticks,
    log_ticks,
    scatter,
    short,
)


def points(drawing, number=0):
    line = parse(drawing).all("polyline", "line")[number]
    return [tuple(map(float, point.split(","))) for point in line.attributes["points"].split()]


def test_a_line_goes_through_its_values():
    drawing = line_chart("t", [Series("a", [0, 1, 2, 4], [10, 20, 30, 50])], x_label="x", y_label="y")
    found = points(drawing)
    assert len(found) == 4
    slopes = {round((y1 - y0) / (x1 - x0), 2) for (x0, y0), (x1, y1) in pairwise(found)}
    assert len(slopes) == 1 and slopes.pop() < 0  # up on the page is less
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in found)


def test_logarithmic_axes():
    series = [Series("a", [256, 1024, 4096], [1e9, 1e11, 1e13])]
    found = points(line_chart("t", series, x_label="x", y_label="y", log_x=True, log_y=True))
    assert found[1] == pytest.approx([(found[0][0] + found[2][0]) / 2, (found[0][1] + found[2][1]) / 2], abs=0.2)
    with_zero = [Series("a", [0, 1], [0, 5])]
    assert points(line_chart("t", with_zero, x_label="x", y_label="y", log_x=True, log_y=True))


def test_gaps_single_points_and_nothing():
    broken = line_chart("t", [Series("a", [0, 1, 2], [1, math.nan, 3])], x_label="x", y_label="y")
    assert len(points(broken)) == 2
    single = parse(line_chart("t", [Series("a", [1], [7])], x_label="x", y_label="y"))
    assert single.all("circle") and not single.all("polyline")
    assert "No finite values" in line_chart("t", [Series("a", [1], [math.inf])], x_label="x", y_label="y")
    assert "No finite values" in line_chart("t", [], x_label="x", y_label="y")


def test_many_points_are_thinned_to_means_with_their_range():
    size = 10_000
    drawing = line_chart("t", [Series("a", range(size), [i % 2 for i in range(size)])], x_label="x", y_label="y")
    assert len(points(drawing)) <= 160 and len(drawing) < 20_000
    heights = {y for _, y in points(drawing)}
    assert max(heights) - min(heights) < 5
    assert parse(drawing).all("path", "band")


def test_intervals_are_bands():
    series = [
        Series("a", [0, 1], [1, 2], [0.5, 1.5], [1.5, 2.5]),
        Series("b", [0, 1], [1, 2], [None, 1.0], [None, 3.0]),
    ]
    root = parse(line_chart("t", series, x_label="x", y_label="y"))
    assert len(root.all("path", "band")) == 1  # one end is no band
    assert [li.words() for li in root.all("li")] == ["a", "b"]


def test_heat_map_is_stronger_where_it_is_better():
    values = [[1.0, 2.0], [3.0, None]]
    for higher, strongest in ((True, 2), (False, 0)):
        root = parse(heat_map("t", "x", "y", ["1", "2"], ["a", "b"], values, higher_is_better=higher, best=(1, 0)))
        cells = [one for one in root.all("rect") if "fill-opacity" in one.attributes]
        strength = [float(one.attributes["fill-opacity"]) for one in cells]
        assert strength.index(max(strength)) == strongest and len(cells) == 3
        assert [one.words() for one in root.all("rect", "best")] == ["y b, x 1: 3 (best)"]
        assert len(root.all("rect", "none")) == 1
    near = parse(heat_map("t", "x", "y", ["1", "2"], ["a", "b"], values, target=2.1))
    strength = [float(one.attributes["fill-opacity"]) for one in near.all("rect") if "fill-opacity" in one.attributes]
    assert strength.index(max(strength)) == 1 and strength.index(min(strength)) == 0  # 2 is nearest, 1 farthest
    assert "No finite values" in heat_map("t", "x", "y", ["1"], ["a"], [[None]])
    assert "0.92" in heat_map("t", "x", "y", ["1"], ["a"], [[0.92]])


def test_scatter_joins_what_belongs_together():
    dots = [Dot(0, 0, "English", 0, "one"), Dot(1, 1, "German", 0, "eins"), Dot(2, 0, "English", 1, "<two>")]
    root = parse(scatter("t", dots, x_label="x", y_label="y")).all("svg", "plot")[0]
    assert len(root.all("circle", "dot")) == 3 and len(root.all("line", "tie")) == 2
    assert [one.words() for one in root.all("text", "inside")] == ["1", "1", "2"]
    assert not parse(scatter("t", dots, x_label="x", y_label="y", linked=False)).all("line", "tie")


def test_hostile_names():
    bad = '"><script>alert(1)</script>'
    root = parse(line_chart(bad, [Series(bad, [0, 1], [1, 2])], x_label=bad, y_label=bad))
    assert "script" not in {one.name for one in everything(root)}
    with pytest.raises(AssertionError):
        check_safe(parse(f"<p>{bad}</p>"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.92346, "0.9235"), (-3, "−3"), (1234.4, "1234"), (16384, "16.4k"), (2.5e9, "2.5G"), (1e-5, "1e-05"),
     (math.nan, "–")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert short(value) == text


def test_ticks_are_round_and_inside():
    assert linear_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert log_ticks(1e9, 1e13) == [1e9, 1e10, 1e11, 1e12, 1e13]
    assert log_ticks(256, 1024) == [256, 512, 1024]
    for low, high in ((0.1, 0.13), (-5, 7), (1e-9, 2e-9), (1, 1e6)):
        assert all(low <= tick <= high * 1.0001 for tick in linear_ticks(low, high))
        assert 2 <= len(linear_ticks(low, high)) <= 11
    assert Axis(1, 100, 0, 10, log=True).place(10) == pytest.approx(5)
