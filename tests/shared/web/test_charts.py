"""Charts: what is drawn is what was given, however hostile the words and extreme the numbers."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from shared.web.charts import COLOURS, LARGEST, MAX_POINTS, histogram, line_chart, thin

HOSTILE = "</title><script>alert(1)</script>\"'&"
PERCENT = "{:.1%}".format


def drawn(chart: Any) -> ElementTree.Element:
    """Parse a figure: it is well-formed, and nothing in it is a script, a style or an address."""
    figure = ElementTree.fromstring(str(chart))
    allowed = {
        "figure",
        "svg",
        "title",
        "desc",
        "g",
        "line",
        "polyline",
        "circle",
        "rect",
        "text",
        "figcaption",
        "span",
    }
    assert {each.tag for each in figure.iter()} <= allowed
    assert not {name for each in figure.iter() for name in each.attrib} & {
        "style",
        "href",
        "onload",
    }
    svg = figure.find("svg")
    assert svg is not None and svg.get("role") == "img" and svg.get("viewBox") == "0 0 640 240"
    for each in svg.iter():
        for name, limit in (
            ("x", 640),
            ("cx", 640),
            ("x1", 640),
            ("y", 240),
            ("cy", 240),
            ("y1", 240),
            ("height", 240),
        ):
            assert 0 <= float(each.get(name, 0)) <= limit, f"{name} of {each.tag} is on the paper"
    return figure


def titles(figure: ElementTree.Element) -> list[str]:
    """Return what the dots or bars say of themselves."""
    return [str(each.findtext("title")) for each in figure.iter() if each.tag in ("circle", "rect")]


def words(figure: ElementTree.Element) -> list[str]:
    return [str(each.text) for each in figure.iter("text")]


def test_line_chart_has_a_dot_for_each_value_and_a_name_for_each_line() -> None:
    series = {"package": {2: 0.75, 1: 0.5, 3: 0.875}, "cat": {1: 0.25}}
    figure = drawn(
        line_chart("Accuracy", series, "How often it is right.", write=PERCENT, bounds=(0, 1))
    )
    assert titles(figure) == [
        "package, round 1: 50.0%",
        "package, round 2: 75.0%",
        "package, round 3: 87.5%",
        "cat, round 1: 25.0%",
    ]
    assert [each.get("class") for each in figure.iter("g")] == ["s1", "s2"]
    assert [(each.get("class"), each.text) for each in figure.iter("span")] == [
        ("key s1", "package"),
        ("key s2", "cat"),
    ]
    assert (figure.findtext("svg/title"), figure.findtext("svg/desc")) == (
        "Accuracy",
        "How often it is right.",
    )
    points = [
        (float(each.get("cx", 0)), float(each.get("cy", 0))) for each in figure.iter("circle")
    ]
    assert points[0][0] < points[1][0] < points[2][0] and points[0][1] > points[1][1] > points[2][1]
    assert words(figure)[:6] == ["20.0%", "40.0%", "60.0%", "80.0%", "100.0%", "1"]


def test_line_breaks_where_rounds_have_no_value() -> None:
    figure = drawn(line_chart("", {"a": {1: 1, 2: 2, 5: 3, 6: 1, 9: 2}}, ""))
    lines = [str(each.get("points")).split() for each in figure.iter("polyline")]
    assert [len(line) for line in lines] == [2, 2] and len(titles(figure)) == 5


@pytest.mark.parametrize(
    "values",
    [
        {1: 0.5},
        {7: 0.5, 8: 0.5},
        {1: 0.0},
        {1: 1.0, 2: 1.0},
        {1: LARGEST, 2: -LARGEST},
        {1: 1e-300, 2: 0.0},
        {2**31: 5, 1: 5},
        {1: -3.25},
        {1: LARGEST, 2: LARGEST - 1e-3},
    ],
    ids=str,
)
def test_extreme_values_are_drawn_on_the_paper(values: dict[int, float]) -> None:
    figure = drawn(line_chart("", {"a": values}, ""))
    assert len(titles(figure)) == len(values) and len(words(figure)) >= 4


@pytest.mark.parametrize("values", [{1: 0.0, 2: 0.0}, {1: 1.0}, {1: 0.004, 2: 1.0}], ids=str)
def test_axis_of_shares_stays_between_none_and_all(values: dict[int, float]) -> None:
    figure = drawn(line_chart("", {"a": values}, "", write=PERCENT, bounds=(0, 1)))
    shares = [float(each.removesuffix("%")) for each in words(figure) if each.endswith("%")]
    assert len(shares) > 1 and min(shares) >= 0 and max(shares) <= 100


@pytest.mark.parametrize("series", [{}, {"a": {}}, {"a": {}, "b": {}}], ids=str)
def test_chart_without_values_says_so(series: dict[str, dict[int, float]]) -> None:
    assert words(drawn(line_chart("", series, ""))) == ["Nothing to show yet."]
    assert words(drawn(histogram("", [], ""))) == ["Nothing to show yet."]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2 * LARGEST], ids=str)
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        line_chart("", {"a": {1: 0.5, 2: value}}, "")
    with pytest.raises(ValueError, match="finite"):
        histogram("", [1, 2], "", expected=value)


def test_hidden_value_that_is_no_number_is_refused_too() -> None:
    series = {"a": {number: math.nan if number == 2 else 0.5 for number in range(1000)}}
    with pytest.raises(ValueError, match="finite"):
        line_chart("", series, "")


def test_more_series_than_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="6 series"):
        line_chart("", {str(number): {1: 1} for number in range(COLOURS + 1)}, "")


def test_hostile_words_are_only_words() -> None:
    for figure in (
        drawn(
            line_chart(HOSTILE, {HOSTILE: {1: 1, 2: 2}}, HOSTILE, HOSTILE, lambda value: HOSTILE)
        ),
        drawn(histogram(HOSTILE, [1, 2], HOSTILE, [HOSTILE, HOSTILE])),
    ):
        assert figure.findtext("svg/title") == figure.findtext("svg/desc") == HOSTILE
        assert HOSTILE in words(figure)


@pytest.mark.parametrize("count", [1, 119, 120, 121, 1000, 100_000])
@pytest.mark.parametrize("start", [0, 1, 59])
def test_long_series_are_thinned_and_keep_their_newest_value(count: int, start: int) -> None:
    values = {number: number / 1e6 for number in range(start, start + count)}
    chosen, every = thin({"a": values, "b": {start: 0.5}})
    kept = chosen["a"]
    assert min(count, MAX_POINTS // 2) <= len(kept) <= MAX_POINTS and list(kept) == sorted(kept)
    assert (
        kept.items() <= values.items() and start + count - 1 in kept and chosen["b"] == {start: 0.5}
    )
    assert (every == 1) is (count < MAX_POINTS)
    assert max((b - a for a, b in zip(kept, list(kept)[1:], strict=False)), default=0) <= every


def test_thinned_line_is_whole_where_nothing_is_missing() -> None:
    series = {"a": {number: 1.0 for number in range(1, 1001) if not 500 <= number < 600}}
    figure = drawn(line_chart("", series, "", most=60))
    assert len(list(figure.iter("polyline"))) == 2 and 30 < len(titles(figure)) <= 60


def test_histogram_has_a_bar_for_each_count_as_high_as_it() -> None:
    figure = drawn(
        histogram("Numbers", [100, 50, 0, 200], "How many.", ["0", "half", "all"], expected=87.5)
    )
    bars = list(figure.iter("rect"))
    heights = [float(bar.get("height", -1)) for bar in bars]
    assert titles(figure) == ["100", "50", "0", "200"]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2) and heights[2] == 0
    assert heights[3] == pytest.approx(2 * heights[0], abs=0.2)
    (line,) = [each for each in figure.iter("line") if each.get("class") == "axis"]
    bottom = float(bars[0].get("y", 0)) + heights[0]
    assert bottom - float(line.get("y1", 0)) == pytest.approx(heights[3] * 87.5 / 200, abs=0.2)
    assert words(figure)[-3:] == ["0", "half", "all"]


def test_histogram_of_nothing_but_zeros_is_flat_and_a_negative_count_is_refused() -> None:
    assert [bar.get("height") for bar in drawn(histogram("", [0, 0], "")).iter("rect")] == [
        "0.0",
        "0.0",
    ]
    with pytest.raises(ValueError, match="negative"):
        histogram("", [1, -1], "")


def test_chart_is_small() -> None:
    values = {number: 0.9 + number / 1e5 for number in range(1, 251)}
    chart = line_chart(
        "", {f"detector-{letter}": values for letter in "abcd"}, "", write=PERCENT, most=60
    )
    assert len(re.findall("<circle", str(chart))) <= 240 and len(str(chart)) < 32_000
