"""Sends values between two command processes of one machine, in frames over a Unix socket.

A frame is the length of its content and the content, pickled. All values that are sent in one turn of the event loop share a
frame, so a batch of commands costs one write and one wake-up. Pickle can run code of the sender. So a socket is in a folder that
only its user can enter, and a connection is used only if its other end runs as the same user and from the same code: such a
process can do everything that this one can. The same code also means that both ends know the same commands.
"""

import asyncio
import functools
import hashlib
import os
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

_LENGTH: Final = struct.Struct(">I")
_CREDENTIALS: Final = struct.Struct("3i")
"""The process, user and group at the other end of a Unix socket."""
_ROOT: Final = Path(__file__).parents[2]
_ROOMS: Final = ("command_api", "shared")


@functools.cache
def code_hash() -> bytes:
    """Returns a hash of the code that a command goes through."""
    files = [path for room in _ROOMS for path in sorted((_ROOT / room).rglob("*.py"))]
    named = [f"{path.relative_to(_ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(named).encode()).digest()


class FrameConnection(asyncio.Protocol):
    """One end of a connection. It is open once the other end has shown that it runs from the same code."""

    def __init__(self, received: Callable[["FrameConnection", Any], None], ended: Callable[["FrameConnection"], None]) -> None:
        """Makes an end that calls `received` with each value, in order, and `ended` once when no more will come."""
        self._received = received
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._incoming = bytearray()
        self._outgoing: list[Any] = []
        self.is_open = False

    def send(self, value: Any) -> None:
        """Sends a value at the end of this turn of the event loop. Does nothing after the end of the connection."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(value)

    def close(self) -> None:
        """Ends the connection after the values that were sent before."""
        self._flush()
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection now. What the other end was sent may be lost."""
        if self._transport:
            self._transport.abort()

    def _flush(self) -> None:
        values, self._outgoing = self._outgoing, []
        if not values or not self.is_open or not self._transport:
            return
        try:
            content = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
        except Exception:  # an error in our code; nobody must wait for what was not sent
            log.exception("a value cannot be sent to another process")
            self.abort()
            return
        self._transport.write(_LENGTH.pack(len(content)) + content)

    # ── called by the event loop ─────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a Unix socket's transport can write
        if _user_at(transport.get_extra_info("socket").fileno()) == os.geteuid():
            self._transport.write(code_hash())  # type: ignore[union-attr]  # set above
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        if not self.is_open and not self._opens():
            return
        while len(self._incoming) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                return
            content = bytes(self._incoming[_LENGTH.size : end])
            del self._incoming[:end]
            for value in pickle.loads(content):  # noqa: S301 # of a process that may do what this one may: see above
                self._received(self, value)

    def _opens(self) -> bool:
        size = len(code_hash())
        if len(self._incoming) < size:
            return False
        if self._incoming[:size] != code_hash():
            self.abort()
            return False
        del self._incoming[:size]
        self.is_open = True
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        self._ended(self)


def _user_at(descriptor: int) -> int:
    """Returns the id of the user that runs the process at the other end of a Unix socket."""
    with socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as other:
        return int(_CREDENTIALS.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])
