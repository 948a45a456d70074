"""Holds measurements, and judges whether they reach their targets."""

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
    "published per second",
    "seconds",
    "peak MiB",
    "bytes per event",
    "growth",
    "API µs",
    "worker µs",
    "PostgreSQL µs",
    "MongoDB µs",
    "Redis µs",
    "load µs",
    "all µs",
    "readable p50 ms",
    "readable p99 ms",
    "bytes of one transfer",
    "% of a core",
    "MiB",
    "µs of one transfer",
]

DIGITS: Final[dict[Column, int]] = {"p50 ms": 2, "p99 ms": 2, "seconds": 2, "growth": 2, "% of a core": 1}
"""Column → number of decimal places. Figures of other columns are shown as whole numbers."""


class Measurement:
    """The samples of one measured thing. Each column has one sample for each round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: dict[Column, list[float]] = {}

    def add(self, values: dict[Column, float]) -> None:
        for column, value in values.items():
            self.samples.setdefault(column, []).append(value)

    def median(self, column: Column) -> float:
        return statistics.median(self.samples[column])

    def cell(self, column: Column) -> str:
        """Returns the median as text. With more than one round, adds the smallest and the largest sample."""
        samples = self.samples.get(column)
        if not samples:
            return ""
        middle, low, high = (number(value, column) for value in (statistics.median(samples), min(samples), max(samples)))
        return middle if len(samples) == 1 else f"{middle} ({low}–{high})"


def number(value: float, column: Column) -> str:
    return f"{value:,.{DIGITS.get(column, 0)}f}"


class Section:
    """The results of one benchmark. `notes` are sentences that are printed below its table."""

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
        """Returns all columns, in the order of their first appearance."""
        return list(dict.fromkeys(column for each in self.measurements.values() for column in each.samples))


class Figure(msgspec.Struct, frozen=True):
    """The name of a figure: a benchmark's measurement and its column."""

    measurement: str
    column: Column = "per second"


class Target(msgspec.Struct, frozen=True):
    """A target: `figure` must be at least (or at most) `bound` times the yardstick. Without a yardstick, `bound` is the limit."""

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


class TargetOutcome(msgspec.Struct, frozen=True):
    """The verdict on a target, with texts for people. `reached` is None if the figure was not measured."""

    measured: str = ""
    yardstick: str = ""
    ratio: str = ""
    reached: bool | None = None


_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {"≥": operator.ge, "≤": operator.le}


def judge(target: Target, sections: Iterable[Section]) -> TargetOutcome:
    """Returns the verdict on a target. Looks only at the target's own benchmarks, because others may use the same names."""
    named = [section for section in sections if section.name in target.benchmark.split()]
    measurements = {name: each for section in named for name, each in section.measurements.items()}
    samples = _samples(measurements, target.figure)
    if not samples:
        return TargetOutcome()
    reached = _COMPARISONS[target.comparison]
    measured = measurements[target.figure.measurement].cell(target.figure.column)
    if target.yardstick is None:
        return TargetOutcome(measured, reached=reached(statistics.median(samples), target.bound))
    yardsticks = _samples(measurements, target.yardstick)
    if not yardsticks:
        return TargetOutcome(measured)
    ratio = _ratio(samples, yardsticks)
    yardstick = measurements[target.yardstick.measurement].cell(target.yardstick.column)
    return TargetOutcome(measured, yardstick, f"{ratio:.2f}", reached=reached(ratio, target.bound))


def _samples(measurements: dict[str, Measurement], figure: Figure) -> Sequence[float]:
    found = measurements.get(figure.measurement)
    return found.samples.get(figure.column, []) if found else []


def _ratio(samples: Sequence[float], yardsticks: Sequence[float]) -> float:
    """Returns the median of the ratios of all rounds. A slow round slows both figures, so its ratio stays about the same."""
    if len(samples) == len(yardsticks):
        return statistics.median(a / b for a, b in zip(samples, yardsticks, strict=True))
    return statistics.median(samples) / statistics.median(yardsticks)
