"""The command API without what was done to make it fast, to show what each step gave."""

import gc
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from command_api.app import create_app

DEFAULT_THRESHOLD: Final = (700, 10, 10)
"""Python's own."""


def create_plain_app() -> ASGIApp:
    """Each request goes through FastAPI's middleware and router, and the garbage collector works as Python sets it up."""
    return _with_default_collector(_routed_by_fastapi(create_app()))


def create_calm_app() -> ASGIApp:
    """As the plain one, with the collector calmed."""
    return _routed_by_fastapi(create_app())


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
