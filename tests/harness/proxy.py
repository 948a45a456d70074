"""A TCP proxy that cuts connections when a test tells it to."""

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
        self._passing = asyncio.Event()
        self._passing.set()
        self.cuts = 0
        self.lingering = False
        """True if the proxy keeps the client's connection open after the server has closed its side, like a delayed close."""
        self.port = 0

    def arm(self, pattern: bytes, *, before: bool = False, silent: bool = False) -> None:
        """Prepares to cut the next connection that sends `pattern`. With `silent`, it stays open but passes no more bytes."""
        self._pattern, self._before, self._silent = pattern, before, silent

    def silence(self) -> None:
        """Passes no more bytes from now on. All connections stay open, as when a network loses every packet."""
        self._passing.clear()

    def resume(self) -> None:
        self._passing.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        cut = asyncio.Event()
        try:
            await asyncio.gather(self._upstream(reader, server_writer, cut), self._downstream(server_reader, writer, cut))
        except OSError:
            pass
        finally:
            writer.close()
            server_writer.close()

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
            await self._passing.wait()
            server.write(data)
            await server.drain()
        server.close()

    async def _downstream(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        """Passes the server's bytes to the client. After a cut, waits for the server's reply, so that its work is done."""
        while data := await server.read(65536):
            if cut.is_set():
                break
            await self._passing.wait()
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
