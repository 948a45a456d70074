"""A TCP proxy that loses what we tell it to lose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes both ways between a client and a server. Once `armed`, it cuts the connection on which `pattern` is sent:

    `before` the server sees it, or after: then the server does its work and the reply is lost.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._pattern = b""
        self._before = False
        self._silent = False
        self.cuts = 0
        self.lingering = False
        """Whether a client is not told that the server has closed its connection: a close that is still on its way."""
        self.port = 0

    def arm(self, pattern: bytes, *, before: bool = False, silent: bool = False) -> None:
        """For the next connection that sends `pattern`, once. `silent`: it is not closed, and nothing comes through any more."""
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
            server.write(data)
            await server.drain()
        server.close()

    async def _downstream(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        """After a cut the server's bytes are read and lost, so that what it was doing is surely done."""
        while data := await server.read(65536):
            if cut.is_set():
                break
            client.write(data)
            await client.drain()
        if not self.lingering:
            client.close()


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to the server in `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    async with Proxy(parts.hostname, parts.port).running() as proxy:
        yield proxy, url.replace(f":{parts.port}/", f":{proxy.port}/")
