"""Each point that the tests of killed workers name exists, and points are found and named as they say."""

import asyncio
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.harness.await_points import Moment, Point, parse_point, points_of, watch
from tests.harness.mortal_workers import PATH
from tests.harness.projecting_points import (
    END_ABANDONED,
    FOREIGN_FUNCTIONS,
    FOREIGN_POINTS,
    PARKING,
    following_points,
    parking_points,
)

POINTS = {str(point) for point in points_of(PATH)}
FUNCTIONS = {point.function for point in points_of(PATH)}


@pytest.mark.parametrize("name", sorted(PARKING | FOREIGN_POINTS | {str(END_ABANDONED)}))
def test_every_point_that_is_named_exists(name: str) -> None:
    assert name in POINTS, f"see `python -m {following_points.__module__}` for the points that there are"


@pytest.mark.parametrize("name", sorted(FOREIGN_FUNCTIONS))
def test_every_function_that_is_named_awaits(name: str) -> None:
    assert name in FUNCTIONS


def test_no_point_is_excused_twice() -> None:
    assert not PARKING & FOREIGN_POINTS
    assert not {name for name in PARKING | FOREIGN_POINTS if parse_point(name).function in FOREIGN_FUNCTIONS}
    assert not following_points() & parking_points()
    assert len(parking_points()) == len(PARKING)


class Sleeper:
    async def nap(self) -> None:
        await asyncio.sleep(0)
        _ = [each async for each in self.twice()], await asyncio.sleep(0, 1)

    async def twice(self) -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
            yield


def test_a_point_is_the_number_of_an_await_in_its_function() -> None:
    found = {str(point) for point in points_of([sys.modules[__name__]]) if point.function.startswith("Sleeper")}
    assert found == {"Sleeper.nap:1", "Sleeper.nap:2", "Sleeper.twice:1"}


def test_a_task_reports_each_point_that_it_comes_to() -> None:
    met: list[tuple[set[Point], Moment]] = []
    with asyncio.Runner() as runner:
        watch(runner.get_loop(), [sys.modules[__name__]], lambda points, moment: met.append((set(points), moment)))
        runner.run(Sleeper().nap())
    first, second, inner = Point("Sleeper.nap", 1), Point("Sleeper.nap", 2), Point("Sleeper.twice", 1)
    assert [points for points, moment in met if moment == "asleep"] == [{first}, {second, inner}, {second, inner}, {second}]
    assert [moment for _, moment in met] == ["asleep", "awake"] * 4


def test_a_name_that_two_modules_share_is_an_error(tmp_path: Path) -> None:
    modules = [_module(tmp_path / name, "async def f():\n    await g()\n") for name in ("one.py", "other.py")]
    with pytest.raises(AssertionError, match="two meanings"):
        points_of(modules)


def _module(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    return module
