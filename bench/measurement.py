"""What was measured, and what it should have been."""

import operator
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

Column = Literal[
    "per second",
    "p50 ms",
    "p99 ms",
    "documents per second",
    "seconds",
    "peak MiB",
    "bytes per event",
    "growth",
    "API µs",
    "PostgreSQL µs",
    "MongoDB µs",
    "Redis µs",
    "load µs",
    "µs of one transfer",
]

DIGITS: Final[dict[Column, int]] = {"p50 ms": 2, "p99 ms": 2, "seconds": 2, "growth": 2}
"""Decimal places; other columns have none."""


class Measurement:
    """One thing that was measured, a few times; each column holds one sample for each round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: dict[Column, list[float]] = {}

    def add(self, values: dict[Column, float]) -> None:
        for column, value in values.items():
            self.samples.setdefault(column, []).append(value)

    def median(self, column: Column) -> float:
        return statistics.median(self.samples[column])

    def cell(self, column: Column) -> str:
        """The median, and the spread where there was more than one round."""
        samples = self.samples.get(column)
        if not samples:
            return ""
        middle, low, high = (number(value, column) for value in (statistics.median(samples), min(samples), max(samples)))
        return middle if len(samples) == 1 else f"{middle} ({low}–{high})"


def number(value: float, column: Column) -> str:
    return f"{value:,.{DIGITS.get(column, 0)}f}"


class Section:
    """What one benchmark has to say. `notes` are sentences that stand below its table."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.measurements: dict[str, Measurement] = {}
        self.notes: list[str] = []
        self.plots: dict[str, str] = {}
        """File name → SVG."""

    def measurement(self, name: str) -> Measurement:
        return self.measurements.setdefault(name, Measurement(name))

    @property
    def columns(self) -> list[Column]:
        """In the order in which they first appear."""
        return list(dict.fromkeys(column for each in self.measurements.values() for column in each.samples))


class Figure(msgspec.Struct, frozen=True):
    """A column of a measurement, by name."""

    measurement: str
    column: Column = "per second"


class Target(msgspec.Struct, frozen=True):
    """`figure` is at least (or at most) `bound` times the yardstick, or at least `bound` itself where there is none."""

    what: str
    benchmark: str
    figure: Figure
    comparison: Literal["≥", "≤"]
    bound: float
    yardstick: Figure | None = None

    def says(self) -> str:
        if self.yardstick is None:
            return f"{self.comparison} {number(self.bound, self.figure.column)} {self.figure.column}"
        return f"{self.comparison} {self.bound:g} × {self.yardstick.measurement}"


class Verdict(msgspec.Struct, frozen=True):
    """What became of a target. Texts are as people read them; `reached` is None where it was not measured."""

    measured: str = ""
    yardstick: str = ""
    ratio: str = ""
    reached: bool | None = None


_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {"≥": operator.ge, "≤": operator.le}


def judge(target: Target, sections: Iterable[Section]) -> Verdict:
    """Of the target's own benchmarks: others may call what they measure by the same name."""
    named = [section for section in sections if section.name in target.benchmark.split()]
    measurements = {name: each for section in named for name, each in section.measurements.items()}
    samples = _samples(measurements, target.figure)
    if not samples:
        return Verdict()
    reached = _COMPARISONS[target.comparison]
    measured = measurements[target.figure.measurement].cell(target.figure.column)
    if target.yardstick is None:
        return Verdict(measured, reached=reached(statistics.median(samples), target.bound))
    yardsticks = _samples(measurements, target.yardstick)
    if not yardsticks:
        return Verdict(measured)
    ratio = _ratio(samples, yardsticks)
    yardstick = measurements[target.yardstick.measurement].cell(target.yardstick.column)
    return Verdict(measured, yardstick, f"{ratio:.2f}", reached=reached(ratio, target.bound))


def _samples(measurements: dict[str, Measurement], figure: Figure) -> Sequence[float]:
    found = measurements.get(figure.measurement)
    return found.samples.get(figure.column, []) if found else []


def _ratio(samples: Sequence[float], yardsticks: Sequence[float]) -> float:
    """The median of each round's ratio: what slows a whole round down slows both. Other rounds, other medians."""
    if len(samples) == len(yardsticks):
        return statistics.median(a / b for a, b in zip(samples, yardsticks, strict=True))
    return statistics.median(samples) / statistics.median(yardsticks)
