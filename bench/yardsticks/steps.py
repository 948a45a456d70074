"""The command API without what was done to make it fast, to show what each step gave."""

import gc
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from command_api.app import create_app
from command_api.handler import LedgerWriter, Waiting, Writing
from shared.protocol import OneWrite

DEFAULT_THRESHOLD: Final = (700, 10, 10)
"""Python's own."""


def create_plain_app() -> ASGIApp:
    """Each request goes through FastAPI's middleware and router, and the garbage collector works as Python sets it up."""
    return _with_default_collector(_routed_by_fastapi(create_in_turn_app()))


def create_calm_app() -> ASGIApp:
    """As the plain one, with the collector calmed."""
    return _routed_by_fastapi(create_in_turn_app())


def create_two_writes_app() -> ASGIApp:
    """The head of an answer goes by itself, as uvicorn sends it."""

    def write(self: OneWrite, data: bytes) -> None:
        self.transport.write(data)

    OneWrite.write = write  # type: ignore[method-assign]
    return create_in_turn_app()


def create_in_turn_app() -> FastAPI:
    """A batch takes all who wait, and nothing is done for it before the one before is written and answered."""

    async def next_after(self: LedgerWriter, before: Writing) -> Waiting:
        await before.verdicts
        before.answer()
        return self.next_batch(self._batch_max)

    LedgerWriter.next_after = next_after  # type: ignore[method-assign]
    return create_app()


def _routed_by_fastapi(app: FastAPI) -> ASGIApp:
    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        await FastAPI.__call__(app, scope, receive, send)

    return routed


def _with_default_collector(app: ASGIApp) -> ASGIApp:
    async def collected(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_when_restored(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                gc.unfreeze()
                gc.set_threshold(*DEFAULT_THRESHOLD)
            await send(message)

        await app(scope, receive, send_when_restored if scope["type"] == "lifespan" else send)

    return collected
