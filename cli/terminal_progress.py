"""Shows the progress of long work: as a bar on a terminal, and as one line of JSON per second elsewhere."""

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

LINE_SECONDS: Final = 1.0


class TerminalProgress:
    """A context manager that shows the progress of a task. It writes to stderr, because stdout is for results."""

    def __init__(
        self, label: str, total: int, unit: str, stream: TextIO | None = None, memory: Callable[[], int] | None = None
    ) -> None:
        """`memory` returns the memory in use, in MiB, which is shown too. `unit` names what is counted, such as "events".

        The progress goes to `stream`. The default is stderr.
        """
        self._memory = memory
        stream = stream or sys.stderr
        self._label, self._total, self._unit, self._stream = label, total, unit, stream
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar: Bar | None = None
        if stream.isatty():
            columns = (
                SpinnerColumn(),
                TextColumn(label),
                BarColumn(),
                MofNCompleteColumn(),
                _RateColumn(unit),
                TimeRemainingColumn(),
                *((_MemoryColumn(memory),) if memory else ()),
            )
            self._bar = Bar(*columns, console=Console(file=stream))
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        else:
            self._write_line()

    def advance(self, count: int = 1) -> None:
        self._done += count
        if self._bar:
            self._bar.advance(self._task, count)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._write_line()

    def extend(self, total: int) -> None:
        """Sets a new total, because there is more to do than was known at the start."""
        self._total = total
        if self._bar:
            self._bar.update(self._task, total=total)

    def _write_line(self) -> None:
        self._last_line = time.monotonic()
        rate = self._done / max(self._last_line - self._started, 1e-9)
        # More than the total may be done, because a log can grow while it is read.
        left = max(self._total - self._done, 0) / rate if rate else None
        line = {
            "task": self._label,
            "done": self._done,
            "total": self._total,
            f"{self._unit}_per_second": round(rate),
            "seconds_left": None if left is None else round(left, 1),
        }
        if self._memory:
            line["memory_mib"] = self._memory()
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


class _MemoryColumn(ProgressColumn):
    def __init__(self, memory: Callable[[], int]) -> None:
        super().__init__()
        self._memory = memory

    def render(self, task: Task) -> Text:  # noqa: ARG002 # the same for every task
        return Text(f"{self._memory():,} MiB")


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} {self._unit}/s")
