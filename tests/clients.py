"""Both APIs as a test meets them: the real app on real stores, in this process, without a socket between."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from command_api.app import create_app
from shared.http import CLOSING
from shared.settings import Settings
from tests.keys import OPERATOR, bearer

EUROS = {"currency": "EUR"}


@asynccontextmanager
async def client_of(app: FastAPI, token: str = OPERATOR) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an app that has started; it is shut down at the end. An empty token is not sent."""
    async with app.router.lifespan_context(app) as state:
        # This transport waits for the whole answer: one without an end is told to come to one at once.
        closing = asyncio.Event()
        closing.set()

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {}), "extensions": {CLOSING: closing}}, receive, send)

        headers = bearer(token) if token else {}
        transport = httpx2.ASGITransport(with_state, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://daybook", headers=headers, timeout=30) as client:
            yield client


class Commands:
    """Posts commands; what a test says is only what it is about."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """Header names with underscores; an Idempotency-Key is made up unless it is given."""
        named = {"idempotency-key": str(uuid.uuid4())} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.client.post(path, json=body, headers=named)

    async def user(self, email: str | None = None) -> str:
        answer = await self.post("/v1/users", {"name": "Ada", "email": email or f"{uuid.uuid4()}@example.com"})
        return created(answer)

    async def account(self, owner_id: str | None = None, balance: int = 0, **fields: Any) -> str:
        owner_id = owner_id or await self.user()
        account_id = created(await self.post("/v1/accounts", {"owner_id": owner_id, **EUROS, **fields}))
        if balance:
            created(await self.deposit(account_id, balance))
        return account_id

    async def deposit(self, account_id: str, amount: int, **headers: str) -> httpx2.Response:
        return await self.post("/v1/deposits", {"account_id": account_id, "amount": amount, **EUROS}, **headers)

    async def withdraw(self, account_id: str, amount: int, **headers: str) -> httpx2.Response:
        return await self.post("/v1/withdrawals", {"account_id": account_id, "amount": amount, **EUROS}, **headers)

    async def transfer(self, payer: str, payee: str, amount: int, **headers: str) -> httpx2.Response:
        body = {"from_account_id": payer, "to_account_id": payee, "amount": amount, **EUROS}
        return await self.post("/v1/transfers", body, **headers)


def created(answer: httpx2.Response) -> str:
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@asynccontextmanager
async def command_api(settings: Settings) -> AsyncIterator[Commands]:
    async with client_of(create_app(settings)) as client:
        yield Commands(client)
