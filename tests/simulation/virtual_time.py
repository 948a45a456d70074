"""An event loop whose clock advances only when every task waits, and processes that can be killed at any await.

A simulation of a minute takes some milliseconds, and the same seed gives the same history: nothing depends on the machine.
A killed process does what kill -9 does: none of its tasks takes another step, and no `finally` runs. What it has sent is sent.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, Final


class Process:
    """A process of the simulation. All tasks and timers that it starts are its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.at_death: dict[object, Callable[[], None]] = {}
        """What the kernel of the machine does when the process is killed: it closes its connections."""
        self._context = Context()
        self._context.run(_PROCESS.set, self)

    def __repr__(self) -> str:
        return self.name

    def kill(self) -> None:
        self.alive = False
        while self.at_death:
            self.at_death.popitem()[1]()

    def call_later(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Sets a timer of this process, whichever process runs now."""
        asyncio.get_running_loop().call_later(seconds, act, *arguments, context=self._context)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task of this process, whichever process runs now."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())


_PROCESS: ContextVar[Process] = ContextVar("process")


def this_process() -> Process:
    """Returns the process that runs now."""
    return _PROCESS.get()


class StuckError(Exception):
    """Every task waits for another one, and no timer is set: nothing would ever happen again."""


class VirtualHandle:
    """A callback that the loop will call: `asyncio.Handle` and `asyncio.TimerHandle` without what a simulation never asks for."""

    __slots__ = ("_when", "args", "call", "context", "is_cancelled")

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...], context: Context, when: float) -> None:
        self.call = call
        self.args = args
        self.context = context
        self.is_cancelled = False
        self._when = when

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without I/O. `time` is virtual, in seconds from 0.

    Callbacks run in the order of asyncio's own loop. That loop also looks at sockets and compares timers in Python, which was a
    third of the time of a history.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._soon: deque[VirtualHandle] = deque()
        self._timers: list[tuple[float, int, VirtualHandle]] = []
        self._timers_made = 0
        self._frozen: dict[Process | None, list[VirtualHandle]] = {}
        """What the frozen processes would have done in the meantime."""
        self.sockets: Any = None
        """The Unix sockets of the machine: an object that can listen and connect."""

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # its types say what the arguments of a callback are
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> VirtualHandle:
        handle = VirtualHandle(callback, args, copy_context() if context is None else context, self._now)
        if _is_dead(context):
            handle.is_cancelled = True
        else:
            self._soon.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> VirtualHandle:
        handle = VirtualHandle(callback, args, copy_context() if context is None else context, when)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> VirtualHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Moves the clock to the next timer if nothing else is to do, and then runs what is due."""
        soon, timers = self._soon, self._timers
        while timers and timers[0][2].is_cancelled:
            heappop(timers)
        if not soon:
            if not timers:
                raise StuckError
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            soon.append(heappop(timers)[2])
        for _ in range(len(soon)):
            handle = soon.popleft()
            if handle.is_cancelled:
                continue
            if self._frozen and (frozen := self._frozen.get(_process_of(handle.context))) is not None:
                frozen.append(handle)
                continue
            try:
                handle.context.run(handle.call, *handle.args)
            except Exception as error:  # noqa: BLE001 # what asyncio does with it
                self.call_exception_handler({"message": f"an error in {handle.call}", "exception": error})

    def _asyncgen_finalizer_hook(self, generator: Any) -> None:
        """Drops a generator that a killed process has left. It would run its `finally` whenever Python collects garbage."""

    async def create_unix_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], path: str
    ) -> Any:
        return await self.sockets.listen(protocol_factory, path)

    async def create_unix_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], path: str
    ) -> Any:
        return await self.sockets.connect(protocol_factory, path)

    def freeze(self, process: Process) -> None:
        """Stops a process as SIGSTOP does. What others send to it waits."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: Process) -> None:
        """Lets a frozen process go on. All its timers that are due in the meantime are late."""
        self._soon.extend(self._frozen.pop(process, ()))

    def kill(self, process: Process) -> None:
        """Kills a process: whatever it would do next does not happen."""
        process.kill()
        self._frozen.pop(process, None)
        for handle in (*self._soon, *(timer[2] for timer in self._timers)):
            if _is_dead(handle.context):
                handle.cancel()


def _process_of(context: Context) -> Process | None:
    return context.get(_PROCESS)


def _is_dead(context: Context | None) -> bool:
    process = _process_of(context) if context is not None else None
    return process is not None and not process.alive


CLOSINGS_MAX: Final = 20


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]], seconds_max: float) -> Any:
    """Runs a coroutine on a new virtual loop, and then throws away all tasks that are left. They must not wait any more.

    Raises:
        TimeoutError: it has not ended after `seconds_max` of virtual time.
        StuckError: nothing would happen any more.
    """
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    tasks: list[asyncio.Task[Any]] = []
    loop.set_task_factory(lambda loop, work, **more: _noted(tasks, asyncio.Task(work, loop=loop, **more)))
    try:
        return loop.run_until_complete(asyncio.wait_for(main(loop), seconds_max))
    finally:
        for task in tasks:
            _throw_away(task)
        asyncio.set_event_loop(None)
        loop.close()


def _noted(tasks: list[asyncio.Task[Any]], task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    tasks.append(task)
    return task


def _throw_away(task: asyncio.Task[Any]) -> None:
    """Ends a task without another step of it, also if it catches what would end it."""
    if task.done():
        if not task.cancelled():
            task.exception()
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 # what asyncio's own gather does
    work: Any = task.get_coro()
    for _ in range(CLOSINGS_MAX):
        with suppress(BaseException):
            work.close()
        if work.cr_frame is None:
            return
