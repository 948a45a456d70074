"""Draws measurements as small SVG plots."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from bench.measurement import Column, Measurement, number

WIDTH: Final = 800
LABEL_WIDTH: Final = 320
ROW: Final = 26
TOP: Final = 34
INK: Final = "#24292f"
PALE: Final = "#8c959f"
BLUE: Final = "#1f6feb"

Point = tuple[float, float]


def bars(title: str, measurements: Iterable[Measurement], column: Column) -> str:
    """Returns a plot with a bar for each median, and a line from the smallest to the largest sample."""
    shown = [each for each in measurements if column in each.samples]
    most = max(max(each.samples[column]) for each in shown)
    scale = (WIDTH - LABEL_WIDTH - 90) / most
    rows = [_bar(TOP + index * ROW, each, column, scale) for index, each in enumerate(shown)]
    return _svg(title, TOP + len(shown) * ROW + 10, rows)


def _bar(y: float, each: Measurement, column: Column, scale: float) -> str:
    samples = each.samples[column]
    width, low, high = (LABEL_WIDTH + value * scale for value in (each.median(column), min(samples), max(samples)))
    middle = y + ROW / 2 - 3
    return (
        f'<text x="{LABEL_WIDTH - 8}" y="{middle + 4:.0f}" text-anchor="end">{escape(each.name)}</text>'
        f'<rect x="{LABEL_WIDTH}" y="{y:.0f}" width="{width - LABEL_WIDTH:.1f}" height="{ROW - 6}" fill="{BLUE}"/>'
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="{INK}" stroke-width="2"/>'
        f'<text x="{max(width, high) + 6:.1f}" y="{middle + 4:.0f}">{number(each.median(column), column)}</text>'
    )


def lines(title: str, points: Sequence[Point], x_unit: str, y_unit: str) -> str:
    """Returns a plot with one line. Both axes begin at 0."""
    height, left, bottom = 250, 60, 220
    x_most, y_most = (max(point[axis] for point in points) or 1 for axis in (0, 1))
    x_scale, y_scale = (WIDTH - left - 30) / x_most, (bottom - TOP - 10) / y_most
    path = "L".join(f"{left + x * x_scale:.1f} {bottom - y * y_scale:.1f}" for x, y in points)
    parts = [
        f'<path d="M{left} {TOP}V{bottom}H{WIDTH - 20}" fill="none" stroke="{PALE}"/>',
        f'<text x="{left - 6}" y="{TOP + 10}" text-anchor="end">{y_most:,.0f}</text>',
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{left - 6}" y="{TOP + 26}" text-anchor="end" fill="{PALE}">{escape(y_unit)}</text>',
        f'<text x="{WIDTH - 20}" y="{bottom + 16}" text-anchor="end">{x_most:,.0f} {escape(x_unit)}</text>',
        f'<path d="M{path}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>',
    ]
    return _svg(title, height, parts)


def _svg(title: str, height: int, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">'
    )
    background = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    heading = f'<text x="12" y="20" font-weight="600">{escape(title)}</text>'
    return "\n".join([head, background, heading, *parts, "</svg>"]) + "\n"
