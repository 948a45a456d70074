"""Finds every place where Daybook's code can be interrupted, and reports when a running task reaches one of these places.

The places are the `await`s in the source, so production code needs no marks for tests, and a new `await` is found by itself.
A place is named by its function and its number in the function: `MongoSink.apply:2` is the second place that awaits there.
A list of such names stays correct when other functions of the file change.
"""

import ast
import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from pathlib import Path
from types import AsyncGeneratorType, FrameType, ModuleType
from typing import Any, Literal, NamedTuple

Moment = Literal["asleep", "awake"]
"""The state of a task at a point. `asleep`: it waits for an answer. `awake`: it has the answer but has not used it yet."""


class Point(NamedTuple):
    """A place in a function that awaits. `number` counts such places from 1; several awaits on one line are one place."""

    function: str
    number: int

    def __str__(self) -> str:
        return f"{self.function}:{self.number}"


def parse_point(name: str) -> Point:
    """Returns the point with this name, which is the text that `str(point)` gives."""
    function, _, number = name.rpartition(":")
    return Point(function, int(number))


Reached = Callable[[list[Point], Moment], None]
"""A function that is called with all points at which one task waits, the point in the outermost function first."""

Lines = dict[tuple[str, int], Point]
"""The points by path and line."""


def points_of(modules: Iterable[ModuleType]) -> set[Point]:
    """Returns every point in these modules."""
    return set(lines_of(modules).values())


def lines_of(modules: Iterable[ModuleType]) -> Lines:
    lines: Lines = {}
    seen: dict[str, str] = {}
    for module in modules:
        path = inspect.getsourcefile(module) or ""
        for function, function_lines in _awaiting(ast.parse(Path(path).read_text()), ""):
            where = seen.setdefault(function, path)
            assert where == path, f"{function} is in {where} and in {path}: a point would have two meanings"
            lines |= {(path, line): Point(function, number) for number, line in enumerate(sorted(function_lines), 1)}
    return lines


def _awaiting(node: ast.AST, inside: str) -> Iterator[tuple[str, set[int]]]:
    """Yields the qualified name of each function that awaits, and the lines of its awaits."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{child.name}" if inside else child.name
            if not isinstance(child, ast.ClassDef) and (lines := set(_lines_of_awaits(child))):
                yield name, lines
            yield from _awaiting(child, name)
        else:
            yield from _awaiting(child, inside)


def _lines_of_awaits(node: ast.AST) -> Iterator[int]:
    """Yields the lines of a function's awaits. Functions that are defined inside it are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield child.lineno
        if isinstance(child, ast.SetComp | ast.ListComp | ast.DictComp | ast.GeneratorExp) and any(
            generator.is_async for generator in child.generators
        ):
            yield child.lineno
        yield from _lines_of_awaits(child)


def watch(loop: asyncio.AbstractEventLoop, modules: Iterable[ModuleType], reached: Reached) -> None:
    """Makes every later task of the loop call `reached` when it starts to wait at a point and when it has its answer."""
    lines = lines_of(modules)

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        watched = _watched(coroutine, lines, reached) if inspect.iscoroutine(coroutine) else coroutine
        return asyncio.Task(watched, loop=loop, **more)

    loop.set_task_factory(factory)


async def _watched(coroutine: Coroutine[Any, Any, Any], lines: Lines, reached: Reached) -> Any:
    return await _Driven(coroutine, lines, reached)


class _Driven:
    """Runs a coroutine step by step and, each time that it waits, reports the points at which it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], lines: Lines, reached: Reached) -> None:
        self._coroutine = coroutine
        self._lines = lines
        self._reached = reached

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            points = self._points()
            self._reached(points, "asleep")
            value = error = None
            try:
                value = yield waited_for
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 # thrown into the coroutine in the next step
                error = thrown
            self._reached(points, "awake")

    def _points(self) -> list[Point]:
        """Returns the points at which the coroutine, and the coroutines that it awaits, wait now."""
        points = []
        waiting: Any = self._coroutine
        while (frame := _frame(waiting)) or (waiting := _behind(waiting)):
            if frame is None:
                continue
            if point := self._lines.get((frame.f_code.co_filename, frame.f_lineno)):
                points.append(point)
            waiting = _next(waiting)
        return points


def _frame(waiting: Any) -> FrameType | None:
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame: FrameType | None = getattr(waiting, name, None)
        if frame is not None:
            return frame
    return None


def _next(waiting: Any) -> Any:
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        if hasattr(waiting, name):
            return getattr(waiting, name)
    return None


def _behind(waiting: Any) -> Any:
    """Returns the generator behind an `anext`. Only the garbage collector knows which generator that is."""
    if type(waiting).__name__ not in {"async_generator_asend", "async_generator_athrow"}:
        return None
    return next((found for found in gc.get_referents(waiting) if isinstance(found, AsyncGeneratorType)), None)
