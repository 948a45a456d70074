"""Apps that show the upper limit: both APIs with a route that only parses and answers, and FastAPI with only such a route."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from command_api.app import create_app as create_real_command_app
from command_api.domain.transfer import TransferFunds
from query_api.app import create_app as create_real_query_app
from shared.garbage_collection import calm_collector


def create_command_app() -> FastAPI:
    """Makes the command API with an additional first route `POST /echo`. The middleware of the API runs as usual."""
    app = create_real_command_app()
    _add_echo(app)
    app.router.routes.insert(0, app.router.routes.pop())
    return app


def create_plain_app() -> FastAPI:
    """Makes a FastAPI app with only the route `POST /echo` and no middleware."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        calm_collector()
        yield

    app = FastAPI(lifespan=lifespan)
    _add_echo(app)
    app.get("/readyz")(_ready)
    return app


def create_query_app() -> FastAPI:
    """Makes the query API with an additional route `GET /echo/{account_id}`."""
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
