"""Receivers of webhooks for tests: real HTTP servers that answer as a test wants, and remember what they got."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import orjson
from daybook_client.webhooks import verify_delivery

SECONDS: Final = 60.0
ACCEPTED: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer_of(status: int, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", "Content-Length: 0", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Received(NamedTuple):
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def members(self) -> Any:
        return orjson.loads(self.body)

    @property
    def position(self) -> int:
        return int(self.members["data"].get("position", 0))

    def verified(self, *secrets: str) -> bool:
        """Checks the signature as a receiver would. Raises if it is wrong."""
        return bool(verify_delivery(self.body, self.headers, *secrets))


class Receiver:
    """A receiver. `answer` takes a request and returns what to answer, or None to answer nothing and keep the connection.

    It may be a coroutine function.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Received], Awaitable[bytes | None] | bytes | None] = lambda _: ACCEPTED
        self.received: list[Received] = []
        self.port = 0
        self._more = asyncio.Condition()

    @property
    def positions(self) -> list[int]:
        return [each.position for each in self.received]

    async def until(self, check: Callable[["Receiver"], bool]) -> None:
        """Waits until what was received is so."""
        async with asyncio.timeout(SECONDS), self._more:
            await self._more.wait_for(lambda: check(self))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            request = Received(head[0].split(" ")[1], headers, body)
            async with self._more:
                self.received.append(request)
                self._more.notify_all()
            answer = self.answer(request)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiver(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Receiver]:
    started = Receiver()
    server = await asyncio.start_server(started.serve, host, port)
    started.port = server.sockets[0].getsockname()[1]
    try:
        yield started
    finally:
        server.close()
