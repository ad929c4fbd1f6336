"""Charts as SVG, written by hand: lines or points over two axes. A reader needs a browser and we need no library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 48
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart."""
_STYLE = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:14px}.grid{stroke:#ddd}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One pair of axes; both begin at 0."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]
    is_scatter: bool = False


def draw(charts: Sequence[Chart]) -> str:
    """An SVG document with the charts one below the other."""
    height = HEIGHT * len(charts)
    parts = "".join(
        f'<g transform="translate(0 {HEIGHT * index})">{"".join(_chart(each))}</g>\n'
        for index, each in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<style>{_STYLE}</style>\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n{parts}</svg>\n'
    )


def ticks(most: float) -> list[float]:
    """From 0 to `most` or a little more, four to eight of them, at round numbers."""
    if not most > 0 or math.isinf(most):
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(power * each for each in (1, 2, 5, 10) if most / (power * each) <= 8)
    return [step * index for index in range(math.ceil(most / step - 1e-9) + 1)]


def _chart(chart: Chart) -> Iterator[str]:
    points = [point for line in chart.lines.values() for point in line]
    xs, ys = (ticks(max((point[axis] for point in points), default=0)) for axis in (0, 1))
    yield f'<text class="title" x="{_LEFT}" y="18">{escape(chart.title)}</text>'
    for value in ys:
        at = _y(value, ys)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text x="{_LEFT - 6}" y="{at + 4}" text-anchor="end">{value:g}</text>'
    for value in xs:
        yield f'<text x="{_x(value, xs)}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
    yield f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{escape(chart.x)}</text>'
    yield f'<text x="{_LEFT}" y="34">{escape(chart.y)}</text>'
    for index, (name, line) in enumerate(chart.lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        places = [(_x(x, xs), _y(y, ys)) for x, y in line]
        yield from _points(places, colour) if chart.is_scatter else _line(places, colour)
        place = f'x="{WIDTH - _RIGHT}" y="{18 + 14 * index}" text-anchor="end"'
        yield f'<text {place} style="fill:{colour}">{escape(name)}</text>'


def _line(places: Points, colour: str) -> Iterator[str]:
    path = " ".join(f"{x},{y}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    if len(places) <= 24:
        yield from _points(places, colour, radius=3)


def _points(places: Points, colour: str, radius: float = 2) -> Iterator[str]:
    for x, y in places:
        yield f'<circle cx="{x}" cy="{y}" r="{radius:g}" fill="{colour}" fill-opacity=".7"/>'


def _x(value: float, xs: Sequence[float]) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * value / xs[-1], 1)


def _y(value: float, ys: Sequence[float]) -> float:
    return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / ys[-1], 1)
