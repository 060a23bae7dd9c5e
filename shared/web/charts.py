"""Small charts, drawn by the server as SVG: lines over round numbers, and bars. No script, and no
library to draw.

Colours are classes of `static/style.css` (`s1` to `s6`), so they follow the reader's light or dark
screen. Every word that is drawn is escaped, and what is no number is refused: a chart never shows
what is not so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

COLOURS, MAX_POINTS, LARGEST = 6, 120, 1e12
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640.0, 240.0, 56.0, 24.0, 12.0, 40.0
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
    '<figure class="chart"><svg viewBox="0 0 %.0f %.0f"'
    ' role="img"><title>%s</title><desc>%s</desc>%s</svg><figcaption>%s</figcaption></figure>'
)


def thin(
    series: Mapping[str, Values], most: int = MAX_POINTS
) -> tuple[dict[str, dict[int, float]], int]:
    """Return series of at most `most` values, and of how many consecutive numbers each time the
    newest value is kept.

    Args:
        series: Name to number (of a round) to value.
        most: How many values of one series, at least 2.

    Returns:
        The same series with values taken out, in rising order, and the number: 1 where nothing was.
    """
    numbers = [number for values in series.values() for number in values]
    every = max(1, math.ceil((max(numbers) - min(numbers) + 1) / (most - 1))) if numbers else 1
    kept = {
        name: {number // every: number for number in sorted(values)}
        for name, values in series.items()
    }
    return {
        name: {number: series[name][number] for number in chosen.values()}
        for name, chosen in kept.items()
    }, every


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
        ValueError: There are more series than colours, or a value is none that can be drawn.
    """
    shown, every = thin(series, most)
    values = [value for of_one in shown.values() for value in of_one.values()]
    _check(value for of_one in series.values() for value in of_one.values())
    if len(series) > COLOURS:
        raise ValueError(f"a chart has colours for {COLOURS} series")
    if not values:
        return _figure(title, told, [_TEXT % (_LEFT, _HEIGHT / 2, "start", _EMPTY)])
    numbers = sorted({number for of_one in shown.values() for number in of_one})
    ticks = _ticks(min(values), max(values), *bounds)
    place = _Place(numbers[0], numbers[-1], ticks[0], ticks[-1])
    parts = [
        *_vertical_axis(place, [(tick, write(tick)) for tick in ticks]),
        *_horizontal_axis(place, across),
    ]
    for colour, (name, of_one) in enumerate(shown.items(), 1):
        told_of = [
            _DOT % (place.x(number), place.y(value), f"{name}, {across} {number}: {write(value)}")
            for number, value in of_one.items()
        ]
        parts.append(_GROUP % (colour, Markup().join([*_lines(place, of_one, every), *told_of])))
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
        ValueError: A count is none that can be drawn.
    """
    _check([*counts, expected or 0.0])
    if min(counts, default=0) < 0:
        raise ValueError("a count is not negative")
    if not counts:
        return _figure(title, told, [_TEXT % (_LEFT, _HEIGHT / 2, "start", _EMPTY)])
    ticks = _ticks(0.0, max(1.0, *counts, expected or 0.0), 0.0, LARGEST)
    place = _Place(0, len(counts), ticks[0], ticks[-1])
    width = place.x(1) - place.x(0)
    bars = [
        _BAR
        % (
            place.x(at) + 1,
            place.y(count),
            max(width - 2, 0.5),
            place.y(0) - place.y(count),
            f"{count:,}",
        )
        for at, count in enumerate(counts)
    ]
    parts = [
        *_vertical_axis(place, [(tick, f"{tick:,.0f}") for tick in ticks]),
        _GROUP % (1, Markup().join(bars)),
    ]
    if expected is not None:
        parts.append(_RULE % ("axis", _LEFT, place.y(expected), _WIDTH - _RIGHT, place.y(expected)))
    for at, mark in enumerate(marks):
        anchor = "start" if at == 0 else "end" if at == len(marks) - 1 else "middle"
        across = at * len(counts) / max(1, len(marks) - 1)
        parts.append(_TEXT % (place.x(across), _HEIGHT - _BOTTOM + 18, anchor, mark))
    return _figure(title, told, parts)


@dataclass(frozen=True)
class _Place:
    """Where numbers and values are on the paper."""

    first: int
    last: int
    low: float
    high: float

    def x(self, number: float) -> float:
        share = (number - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return (
            _HEIGHT
            - _BOTTOM
            - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)
        )


def _check(values: Iterable[float]) -> None:
    if not all(math.isfinite(value) and abs(value) <= LARGEST for value in values):
        raise ValueError(f"a chart takes finite values from {-LARGEST:g} to {LARGEST:g}")


def _ticks(least: float, most: float, lowest: float, highest: float) -> list[float]:
    """Return round values, at least two, that enclose all values; outside the bounds only where
    these are not round.
    """
    apart = max(0.01, 1e-6 * abs(most))
    if most - least < apart:
        least, most = max(lowest, least - apart), min(highest, most + apart)
    step = _round_step((most - least) / _INTERVALS)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [tick * step for tick in range(first, last + 1)]


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5, 10, 20, ..., 0.1, 0.2, ... that is not less."""
    unit = 10.0 ** math.floor(math.log10(least))
    return next(
        factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= least * (1 - 1e-9)
    )


def _vertical_axis(place: _Place, ticks: Iterable[tuple[float, str]]) -> list[Markup]:
    rules, words = [], []
    for value, said in ticks:
        rules.append(_RULE % ("grid", _LEFT, place.y(value), _WIDTH - _RIGHT, place.y(value)))
        words.append(_TEXT % (_LEFT - 6, place.y(value) + 4, "end", said))
    return rules + words


def _horizontal_axis(place: _Place, across: str) -> list[Markup]:
    every = max(1, math.ceil(_round_step((place.last - place.first) / _INTERVALS or 1.0)))
    numbers = range(math.ceil(place.first / every) * every, place.last + 1, every)
    marks = [
        _TEXT % (place.x(number), _HEIGHT - _BOTTOM + 18, "middle", number) for number in numbers
    ]
    return [*marks, _TEXT % (_WIDTH - _RIGHT, _HEIGHT - 6, "end", across)]


def _lines(place: _Place, values: Values, every: int) -> list[Markup]:
    """Return a line through each stretch of values without a gap."""
    numbers = list(values)
    breaks = [
        at
        for at, (one, other) in enumerate(pairwise(numbers), 1)
        if other // every - one // every > 1
    ]
    stretches = [numbers[start:end] for start, end in pairwise([0, *breaks, len(numbers)])]
    points = [
        [f"{place.x(number):.1f},{place.y(values[number]):.1f}" for number in each]
        for each in stretches
    ]
    return [_PATH % " ".join(stretch) for stretch in points if len(stretch) > 1]


def _figure(title: str, told: str, parts: Iterable[Markup], names: Iterable[str] = ()) -> Markup:
    legend = Markup().join(_KEY % (colour, name) for colour, name in enumerate(names, 1))
    return _FIGURE % (_WIDTH, _HEIGHT, title, told, Markup().join(parts), legend)
