"""The ceiling: the same apps with a route that only reads and answers, and FastAPI with nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from command_api.app import create_app as create_real_command_app
from command_api.transfer import TransferFunds
from query_api.app import create_app as create_real_query_app
from shared.garbage import calm_collector


def create_command_app() -> FastAPI:
    """The command API with `POST /echo`: through its middleware, found first by its router."""
    app = create_real_command_app()
    _add_echo(app)
    app.router.routes.insert(0, app.router.routes.pop())
    return app


def create_plain_app() -> FastAPI:
    """FastAPI with `POST /echo` and no middleware."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        calm_collector()
        yield

    app = FastAPI(lifespan=lifespan)
    _add_echo(app)
    app.get("/readyz")(_ready)
    return app


def create_query_app() -> FastAPI:
    """The query API with `GET /echo/{account_id}`."""
    app = create_real_query_app()

    @app.get("/echo/{account_id}")
    async def echo(account_id: str) -> dict[str, str | int]:
        return {"account_id": account_id, "currency": "EUR", "posted": 0, "held": 0, "available": 0}

    app.router.routes.insert(0, app.router.routes.pop())
    return app


def _add_echo(app: FastAPI) -> None:
    @app.post("/echo", status_code=201)
    async def echo(transfer: TransferFunds) -> TransferFunds:
        return transfer


async def _ready() -> dict[str, str]:
    return {"status": "ok"}
