"""Makes variants of the command API, each without one of the steps that made it faster."""

import gc
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from command_api.app import create_app
from command_api.writer.command_request import AcceptedCommand
from command_api.writer.ledger_writer import BatchInFlight, LedgerWriter
from shared.web.transports import OneWrite

DEFAULT_THRESHOLD: Final = (700, 10, 10)
"""The default thresholds of Python's garbage collector."""


def create_collected_app() -> ASGIApp:
    """Makes the app with Python's default garbage collection."""
    return _with_default_collector(create_app())


def create_routed_app() -> ASGIApp:
    """Makes the app that serves every request with FastAPI's middleware and router."""
    return _routed_by_fastapi(create_app())


def create_two_writes_app() -> FastAPI:
    """Makes the app that writes the head and the body of an answer separately, as uvicorn does."""

    def write(self: OneWrite, data: bytes) -> None:
        self.transport.write(data)

    OneWrite.write = write  # type: ignore[method-assign]
    return create_app()


def create_in_turn_app() -> FastAPI:
    """Makes the app whose batches do not overlap: a batch begins after the one before is answered, with all waiting commands."""

    async def next_batch(self: LedgerWriter, before: BatchInFlight) -> list[AcceptedCommand]:
        await before.verdicts
        before.answer()
        return self.queue.take(writing=len(self.queue))

    LedgerWriter.next_batch = next_batch  # type: ignore[method-assign]
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
