"""The Unix sockets between the simulated processes of one machine, over which they hand commands to each other.

A connection loses nothing and keeps the order while both ends live. It ends when a process is killed, and in rough weather also
by itself: before the other end got what was sent, or after it. Then the sender does not know which.
"""

import asyncio
import atexit
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.simulation.virtual_time import Process, this_process
from tests.simulation.weather import Weather

_FOLDER: Final = tempfile.TemporaryDirectory(prefix="daybook-simulation-")
SOCKET_FOLDER: Final = Path(_FOLDER.name)
"""The product makes a folder for its sockets private, and renames the new ones. The files here are empty."""
SECONDS: Final = (0.000_02, 0.000_2)
STEP_SECONDS: Final = 0.000_001
"""The least time between the arrivals of two messages, so that none overtakes another."""

LOSSES_OF_1000: Final = 150
"""Many, because few commands are sent over such a connection in a history."""

_REAL: Final = socket.socketpair()
"""The product asks the kernel which user is at the other end of a socket. All simulated sockets show this one for that."""
for each in _REAL:
    atexit.register(each.close)

Factory = Callable[[], Any]


class MemorySockets:
    """The listening sockets of a machine."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.messages = 0
        self._listeners: dict[str, tuple[Factory, Process]] = {}

    async def listen(self, factory: Factory, path: str) -> "MemoryListener":
        Path(path).touch()
        name = Path(path).stem  # stays the same when the socket is renamed
        self._listeners[name] = factory, this_process()
        return MemoryListener(self._listeners, name)

    async def connect(self, factory: Factory, path: str) -> tuple["MemoryEnd", Any]:
        """Connects to the process that listens there. If that process is frozen, it takes the connection when it goes on.

        Raises:
            ConnectionRefusedError: nobody listens there.
        """
        await asyncio.sleep(self.weather.random.uniform(*SECONDS))
        accept, other = self._listeners.get(Path(path).stem, (None, None))
        if accept is None or other is None or not other.alive:
            raise ConnectionRefusedError
        here, there = MemoryEnd(self, this_process()), MemoryEnd(self, other)
        here.peer, there.peer = there, here
        here.post(there.open, accept)
        here.open(factory)
        return here, here.protocol


class MemoryListener:
    """What `create_unix_server` returns: the method of `asyncio.AbstractServer` that the product uses."""

    def __init__(self, listeners: dict[str, tuple[Factory, Process]], name: str) -> None:
        self._listeners = listeners
        self._name = name

    def close(self) -> None:
        self._listeners.pop(self._name, None)


class MemoryEnd(asyncio.Transport):
    """One end of a connection."""

    peer: "MemoryEnd"

    def __init__(self, sockets: MemorySockets, process: Process) -> None:
        super().__init__()
        self.protocol: Any = None
        self.process = process
        self._sockets = sockets
        self._arrives_at = 0.0
        self._is_closed = False
        process.at_death[self] = self._end

    def open(self, factory: Factory) -> None:
        if not self._is_closed:
            self.protocol = factory()
            self.protocol.connection_made(self)

    def get_extra_info(self, _: str, default: Any = None) -> Any:  # noqa: ARG002 # the product asks for the socket
        return _REAL[0]

    def post(self, act: Callable[..., None], *arguments: Any) -> None:
        """Has the other end do something after all that was posted before, unless its process has died."""
        now = asyncio.get_running_loop().time()
        soon = now + self._sockets.weather.random.uniform(*SECONDS)
        self._arrives_at = max(soon, self._arrives_at + STEP_SECONDS)
        self.peer.process.call_later(self._arrives_at - now, self.peer.act, act, *arguments)

    def act(self, act: Callable[..., None], *arguments: Any) -> None:
        if self.process.alive:
            act(*arguments)

    def write(self, data: Any) -> None:
        if self._is_closed:
            return
        self._sockets.messages += 1
        loss = self._sockets.weather.loss(LOSSES_OF_1000)
        if loss in {"none", "reply"}:
            self.post(self.peer.receive, bytes(data))
        if loss != "none":
            self.close()

    def receive(self, data: bytes) -> None:
        if not self._is_closed:
            self.protocol.data_received(data)

    def close(self) -> None:
        self._end()
        self.process.call_later(0, self.act, self.lose)

    abort = close

    def is_closing(self) -> bool:
        return self._is_closed

    def _end(self) -> None:
        """Closes this end. The other one hears of it after all that was sent before."""
        if not self._is_closed:
            self._is_closed = True
            self.process.at_death.pop(self, None)
            self.post(self.peer.hear_end)

    def hear_end(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.process.at_death.pop(self, None)
            self.lose()

    def lose(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost(None)
