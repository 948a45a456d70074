"""A TCP proxy that cuts, delays and loses what it passes when a test tells it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes between clients and a server. After `arm`, it cuts the next connection on which the client sends a pattern.

    With `before`, the server does not get the pattern. Otherwise the server does its work, and only the reply is lost.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._pattern = b""
        self._before = False
        self._silent = False
        self.cuts = 0
        self.lingering = False
        """True if the proxy keeps the client's connection open after the server has closed its side, like a delayed close."""
        self.port = 0
        self.delay_seconds = 0.0
        """How long each piece of data is kept back, in both directions."""
        self.losing = False
        """True if the proxy takes data and passes none, like a network that drops everything. Connections stay open."""
        self._open: set[asyncio.StreamWriter] = set()

    def cut_all(self) -> None:
        """Cuts all connections at once."""
        self.cuts += len(self._open) // 2
        for writer in self._open:
            writer.transport.abort()

    def arm(self, pattern: bytes, *, before: bool = False, silent: bool = False) -> None:
        """Prepares to cut the next connection that sends `pattern`. With `silent`, it stays open but passes no more bytes."""
        self._pattern, self._before, self._silent = pattern, before, silent

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        cut = asyncio.Event()
        ends = {writer, server_writer}
        self._open |= ends
        try:
            await asyncio.gather(self._upstream(reader, server_writer, cut), self._downstream(server_reader, writer, cut))
        except OSError:
            pass
        finally:
            self._open -= ends
            writer.close()
            server_writer.close()

    async def _may_pass(self) -> bool:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        return not self.losing

    async def _upstream(self, client: asyncio.StreamReader, server: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await client.read(65536):
            if self._pattern and self._pattern in data:
                self._pattern = b""
                self.cuts += 1
                cut.set()
                while self._silent and await client.read(65536):
                    pass
                if self._before:
                    break
            if await self._may_pass():
                server.write(data)
                await server.drain()
        server.close()

    async def _downstream(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        """Passes the server's bytes to the client. After a cut, waits for the server's reply, so that its work is done."""
        while data := await server.read(65536):
            if cut.is_set():
                break
            if await self._may_pass():
                client.write(data)
                await client.drain()
        if not self.lingering:
            client.close()


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Starts a proxy to the server in `url`. Yields the proxy and the URL to use in place of `url`."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    async with Proxy(parts.hostname, parts.port).running() as proxy:
        yield proxy, url.replace(f":{parts.port}/", f":{proxy.port}/")
