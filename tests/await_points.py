"""Every place where code of ours can be interrupted: its `await`s, found in the source and recognised as they are reached.

Nothing in the code itself has to name them, so production carries no fault points, and an `await` that is new is one more.
"""

import ast
import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable
from pathlib import Path
from types import AsyncGeneratorType, FrameType, ModuleType
from typing import Any, Literal, NamedTuple

Moment = Literal["asleep", "awake"]
"""What is awaited was asked for and has not come; or it has come, and nothing has been done with it."""


class Point(NamedTuple):
    file: str
    line: int


Reached = Callable[[list[Point], Moment], None]
"""Told all places that a task waits in at once: a caller's, the one that it called, and so on."""


def points_of(modules: Iterable[ModuleType], without: frozenset[str] = frozenset()) -> set[Point]:
    """All that can be awaited in modules, but for the functions that are named."""
    found: set[Point] = set()
    for module in modules:
        path = Path(inspect.getsourcefile(module) or "")
        _collect(ast.parse(path.read_text()), path.name, without, found)
    return found


def _collect(node: ast.AST, file: str, without: frozenset[str], found: set[Point]) -> None:
    if isinstance(node, ast.AsyncFunctionDef) and node.name in without:
        return
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
        found.add(Point(file, node.lineno))
    if isinstance(node, ast.SetComp | ast.ListComp | ast.DictComp | ast.GeneratorExp) and any(
        g.is_async for g in node.generators
    ):
        found.add(Point(file, node.lineno))
    for child in ast.iter_child_nodes(node):
        _collect(child, file, without, found)


def watch(loop: asyncio.AbstractEventLoop, modules: Iterable[ModuleType], reached: Reached) -> None:
    """From now on, every task of the loop reports when it comes to a point, and when it goes on from there."""
    files = {inspect.getsourcefile(module) or "": Path(inspect.getsourcefile(module) or "").name for module in modules}

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        watched = _watched(coroutine, files, reached) if inspect.iscoroutine(coroutine) else coroutine
        return asyncio.Task(watched, loop=loop, **more)

    loop.set_task_factory(factory)


async def _watched(coroutine: Coroutine[Any, Any, Any], files: dict[str, str], reached: Reached) -> Any:
    return await _Driven(coroutine, files, reached)


class _Driven:
    """Does with a coroutine what the event loop does, and looks where it stands each time that it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], files: dict[str, str], reached: Reached) -> None:
        self._coroutine = coroutine
        self._files = files
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
            except BaseException as thrown:  # noqa: BLE001 # handed on to where it belongs
                error = thrown
            self._reached(points, "awake")

    def _points(self) -> list[Point]:
        """Our own places in the chain of who waits for whom."""
        points = []
        waiting: Any = self._coroutine
        while (frame := _frame(waiting)) or (waiting := _behind(waiting)):
            if frame is None:
                continue
            if frame.f_code.co_filename in self._files:
                points.append(Point(self._files[frame.f_code.co_filename], frame.f_lineno))
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
    """What `anext` of an asynchronous generator waits for says only the collector."""
    if type(waiting).__name__ not in {"async_generator_asend", "async_generator_athrow"}:
        return None
    return next((found for found in gc.get_referents(waiting) if isinstance(found, AsyncGeneratorType)), None)
