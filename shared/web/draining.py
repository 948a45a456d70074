"""Ends an API without a failed request: on SIGTERM, it first lets balancers and clients go elsewhere, and only then ends.

In order: `/readyz` answers 503 and each answer ends its connection, for as long as the settings say. No new connection comes in,
and those that have come in are accepted. The server closes its listeners, answers what is under way and shuts the app down.

By itself, uvicorn closes its listeners at once. The system then resets connections that have come in and were not accepted yet.
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from uvicorn import Server

from shared.web.health import Readiness

ACCEPT_SECONDS: Final = 0.3
"""The time in which connections that have come in are accepted, and their first requests arrive."""

_SO_ATTACH_FILTER: Final = 26
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of the TCP header that has the flags
    (0x45, 0, 1, 0x02),  # if SYN is set, go on, otherwise leave out one step
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
)
"""A packet filter of Linux that drops what opens a connection. Each step: code, jump if true, jump if false, operand."""


@contextmanager
def draining(readiness: Readiness, seconds: float) -> Iterator[None]:
    """While this is open, SIGTERM makes the app serve for `seconds` longer before uvicorn ends. A second SIGTERM ends it at once.

    Without a running uvicorn in this process, this does nothing.
    """
    end = signal.getsignal(signal.SIGTERM)
    server = getattr(end, "__self__", None)
    if not isinstance(server, Server) or not callable(end):
        yield
        return
    signal.signal(signal.SIGTERM, _Drain(readiness, seconds, server, end).on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, end)


class _Drain:
    """What happens between SIGTERM and the end of uvicorn."""

    def __init__(
        self, readiness: Readiness, seconds: float, server: Server, end: Callable[[int, FrameType | None], object]
    ) -> None:
        self._readiness = readiness
        self._seconds = seconds
        self._server = server
        self._end = end
        self._loop = asyncio.get_running_loop()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._readiness.is_ending:
            self._end(number, frame)
        else:
            self._readiness.is_ending = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self._seconds, self._take_no_more)

    def _take_no_more(self) -> None:
        servers = getattr(self._server, "servers", ())  # uvicorn sets it after the app's start
        refuse_new_connections(each for server in servers for each in server.sockets)
        self._loop.call_later(ACCEPT_SECONDS, self._end, signal.SIGTERM, None)


def refuse_new_connections(listeners: Iterable[socket.socket]) -> None:
    """Lets no new connection come in. Those that have come in can still be accepted.

    A client that tries to connect tries again after a second, as after every lost packet. It is refused if the listener is closed
    by then. Where the system has no such filter, this does nothing.
    """
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(steps))
    for listener in listeners:
        with suppress(OSError), socket.socket(fileno=os.dup(listener.fileno())) as same:  # uvloop's own objects take no options
            same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
