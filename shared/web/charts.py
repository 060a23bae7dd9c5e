"""Small charts, drawn by the server as SVG: lines over round numbers, and bars.

No script, and no library to draw. Colours are classes of `static/style.css` (`s1` to `s6`), so they
follow the reader's light or dark screen. Every word that is drawn is escaped, and a value that is
not finite is refused: a chart never shows what is not so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 6
MAX_POINTS = 120
LARGEST = 1e12
# In units of the drawing: its size, and the margins around what is drawn.
_WIDTH = 640.0
_HEIGHT = 240.0
_LEFT = 56.0
_RIGHT = 24.0
_TOP = 12.0
_BOTTOM = 40.0
_INTERVALS = 5
_EMPTY = "Nothing to show yet."

Values = Mapping[int, float]

_TEXT = Markup('<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>')
_RULE = Markup('<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>')
_DOT = Markup('<circle class="dot" cx="%.1f" cy="%.1f" r="2.5"><title>%s</title></circle>')
_PATH = Markup('<polyline class="line" points="%s"/>')
_GROUP = Markup('<g class="s%s">%s</g>')
_BAR = Markup(
    '<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>'
)
_KEY = Markup('<span class="key s%s">%s</span> ')
_FIGURE = Markup(
    '<figure class="chart"><svg viewBox="0 0 %.0f %.0f" role="img">'
    "<title>%s</title><desc>%s</desc>%s</svg>"
    "<figcaption>%s</figcaption></figure>"
)


def thin(
    series: Mapping[str, Values], most: int = MAX_POINTS
) -> tuple[dict[str, dict[int, float]], int]:
    """Return series of at most `most` values, the newest of each stretch of numbers.

    Args:
        series: Name to number (of a round) to value.
        most: How many values of one series, at least 2.

    Returns:
        The same series with values taken out, in rising order, and of how many consecutive numbers
        one is kept: 1 where nothing was taken out.
    """
    numbers = [number for values in series.values() for number in values]
    if not numbers:
        return {name: {} for name in series}, 1
    span = max(numbers) - min(numbers) + 1
    every = max(1, math.ceil(span / (most - 1)))
    thinned = {}
    for name, values in series.items():
        # A later number of the same stretch takes the place of an earlier one.
        newest = {number // every: number for number in sorted(values)}
        thinned[name] = {number: values[number] for number in newest.values()}
    return thinned, every


def line_chart(
    title: str,
    series: Mapping[str, Values],
    told: str,
    across: str = "round",
    write: Callable[[float], str] = "{:g}".format,
    bounds: tuple[float, float] = (-LARGEST, LARGEST),
    most: int = MAX_POINTS,
) -> Markup:
    """Draw a line for each series and a dot for each value; where numbers are missing is a gap.

    Args:
        title: What it shows, a few words.
        series: Name to number (of a round) to value; at most six.
        told: What it shows, one sentence, for those who hear it.
        across: What the numbers are.
        write: Makes words of a value.
        bounds: The least and the largest value that there can be.
        most: So many values of a series are drawn at most; see `thin`.

    Returns:
        A figure with its legend.

    Raises:
        ValueError: There are more series than colours, or a value cannot be drawn.
    """
    for of_one in series.values():
        _check(of_one.values())
    if len(series) > COLOURS:
        raise ValueError(f"a chart has colours for {COLOURS} series")
    shown, every = thin(series, most)
    values = [value for of_one in shown.values() for value in of_one.values()]
    if not values:
        return _empty(title, told)
    numbers = sorted({number for of_one in shown.values() for number in of_one})
    ticks = _ticks(min(values), max(values), *bounds)
    place = _Place(numbers[0], numbers[-1], ticks[0], ticks[-1])
    parts = [
        *_vertical_axis(place, [(tick, write(tick)) for tick in ticks]),
        *_horizontal_axis(place, across),
    ]
    for colour, (name, of_one) in enumerate(shown.items(), 1):
        drawn = _lines(place, of_one, every)
        for number, value in of_one.items():
            words = f"{name}, {across} {number}: {write(value)}"
            drawn.append(_DOT % (place.x(number), place.y(value), words))
        parts.append(_GROUP % (colour, Markup().join(drawn)))
    return _figure(title, told, parts, series)


def histogram(
    title: str,
    counts: Sequence[int],
    told: str,
    marks: Sequence[str] = (),
    expected: float | None = None,
) -> Markup:
    """Draw a bar for each count.

    Args:
        title: What it shows, a few words.
        counts: How many are in each bin; none is negative.
        told: What it shows, one sentence, for those who hear it.
        marks: Words under the bars, the first at the left edge, the last at the right one.
        expected: Where a line is drawn across, if anywhere: the count that each bin would have.

    Raises:
        ValueError: A count cannot be drawn.
    """
    _check([*counts, expected or 0.0])
    if min(counts, default=0) < 0:
        raise ValueError("a count is not negative")
    if not counts:
        return _empty(title, told)
    ticks = _ticks(0.0, max(1.0, *counts, expected or 0.0), 0.0, LARGEST)
    place = _Place(0, len(counts), ticks[0], ticks[-1])
    # A unit of paper shows between two bars, and the narrowest bar is still to be seen.
    width = max(place.x(1) - place.x(0) - 2, 0.5)
    bars = []
    for at, count in enumerate(counts):
        top = place.y(count)
        bars.append(_BAR % (place.x(at) + 1, top, width, place.y(0) - top, f"{count:,}"))
    parts = [
        *_vertical_axis(place, [(tick, f"{tick:,.0f}") for tick in ticks]),
        _GROUP % (1, Markup().join(bars)),
    ]
    if expected is not None:
        parts.append(_rule("axis", place.y(expected)))
    parts += _marks(place, marks, len(counts))
    return _figure(title, told, parts)


def _marks(place: _Place, marks: Sequence[str], count: int) -> list[Markup]:
    """Return words under bars, spread evenly from the left edge to the right one."""
    last = len(marks) - 1
    drawn = []
    for at, mark in enumerate(marks):
        # The outermost words stay on the paper.
        anchor = "middle"
        if at == 0:
            anchor = "start"
        elif at == last:
            anchor = "end"
        across = at * count / max(1, last)
        drawn.append(_TEXT % (place.x(across), _HEIGHT - _BOTTOM + 18, anchor, mark))
    return drawn


@dataclass(frozen=True)
class _Place:
    """Where numbers and values are on the paper."""

    first: int
    last: int
    low: float
    high: float

    def x(self, number: float) -> float:
        share = 0.5
        if self.last > self.first:
            share = (number - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _check(values: Iterable[float]) -> None:
    if not all(math.isfinite(value) and abs(value) <= LARGEST for value in values):
        raise ValueError(f"a chart takes finite values from {-LARGEST:g} to {LARGEST:g}")


def _ticks(least: float, most: float, lowest: float, highest: float) -> list[float]:
    """Return round values, at least two, that enclose all values.

    Args:
        least: The smallest value.
        most: The largest.
        lowest: The least that there can be; a tick below it only if it is not round.
        highest: As `lowest`.
    """
    # Values that are (almost) the same need some height too.
    apart = max(0.01, 1e-6 * abs(most))
    if most - least < apart:
        least = max(lowest, least - apart)
        most = min(highest, most + apart)
    step = _round_step((most - least) / _INTERVALS)
    # Rounding errors of the division must not add a tick.
    first = math.floor(least / step + 1e-9)
    last = math.ceil(most / step - 1e-9)
    return [tick * step for tick in range(first, last + 1)]


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5, 10, 20, ..., 0.1, 0.2, ... that is not less."""
    unit = 10.0 ** math.floor(math.log10(least))
    enough = least * (1 - 1e-9)
    return next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= enough)


def _vertical_axis(place: _Place, ticks: Iterable[tuple[float, str]]) -> list[Markup]:
    rules: list[Markup] = []
    words: list[Markup] = []
    for value, said in ticks:
        height = place.y(value)
        rules.append(_rule("grid", height))
        words.append(_TEXT % (_LEFT - 6, height + 4, "end", said))
    return rules + words


def _rule(kind: str, height: float) -> Markup:
    return _RULE % (kind, _LEFT, height, _WIDTH - _RIGHT, height)


def _horizontal_axis(place: _Place, across: str) -> list[Markup]:
    span = place.last - place.first
    every = max(1, math.ceil(_round_step(span / _INTERVALS or 1.0)))
    first = math.ceil(place.first / every) * every
    numbers = range(first, place.last + 1, every)
    marks = [
        _TEXT % (place.x(number), _HEIGHT - _BOTTOM + 18, "middle", number) for number in numbers
    ]
    return [*marks, _TEXT % (_WIDTH - _RIGHT, _HEIGHT - 6, "end", across)]


def _lines(place: _Place, values: Values, every: int) -> list[Markup]:
    """Return a line through each stretch of values without a gap."""
    stretches: list[list[str]] = []
    before: int | None = None
    for number, value in values.items():
        if before is None or number // every - before // every > 1:
            stretches.append([])
        stretches[-1].append(f"{place.x(number):.1f},{place.y(value):.1f}")
        before = number
    # A single value has its dot, and no line.
    return [_PATH % " ".join(points) for points in stretches if len(points) > 1]


def _empty(title: str, told: str) -> Markup:
    return _figure(title, told, [_TEXT % (_LEFT, _HEIGHT / 2, "start", _EMPTY)])


def _figure(title: str, told: str, parts: Iterable[Markup], names: Iterable[str] = ()) -> Markup:
    legend = Markup().join(_KEY % (colour, name) for colour, name in enumerate(names, 1))
    return _FIGURE % (_WIDTH, _HEIGHT, title, told, Markup().join(parts), legend)
