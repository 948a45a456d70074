"""Transports between uvicorn's answers and the connection: fewer writes, and no chunks for clients of HTTP/1.0."""

import asyncio
from collections.abc import Callable
from typing import Final

_CHUNKED: Final = b"transfer-encoding: chunked\r\n\r\n"
"""How the head of an answer in chunks ends. uvicorn writes this header last."""


class OneWrite(asyncio.Transport):
    """A transport that sends the head and the body of an answer together, in one packet and one system call instead of two.

    uvicorn writes the head first. This transport holds the head back until the next write, or until the next turn of the event
    loop if no body follows. What is written after the end of the connection is dropped: its reader has left.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
        """`end` closes the connection when an answer was the last one."""
        super().__init__()
        self.transport = transport
        self._loop = loop
        self._end = end
        self._held = b""
        self._is_ended = False

    def write(self, data: bytes) -> None:  # type: ignore[override] # uvicorn writes only bytes
        if self._held:
            held, self._held = self._held, b""
            if not self.transport.is_closing():
                self.transport.write(held + data)
        elif data and not self._is_ended:
            self._held = data
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self._held:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._is_ended = True
        self._end()

    def is_closing(self) -> bool:
        return self.transport.is_closing()


class Unchunked(asyncio.Transport):
    """Sends an answer of any length to a client of HTTP/1.0, which knows no chunks: the answer ends with its connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._is_chunked: bool | None = None

    def write(self, data: bytes) -> None:  # type: ignore[override] # uvicorn writes only bytes
        """Writes the head, and later what is in each chunk. uvicorn writes the whole head, or a whole chunk, at once."""
        if self._is_chunked is None:
            self._is_chunked = data.endswith(_CHUNKED)
            data = data.removesuffix(_CHUNKED) + b"\r\n" if self._is_chunked else data
        elif self._is_chunked:
            size, _, rest = data.partition(b"\r\n")
            data = rest[: int(size or b"0", 16)]
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
