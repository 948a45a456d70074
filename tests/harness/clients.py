"""Clients for tests of both APIs. The real app runs in this process on real stores; requests reach it without a socket."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import httpx2
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from command_api.app import create_app
from shared.settings import Settings
from shared.web.asgi_extensions import CLOSING
from tests.harness.keys import OPERATOR, bearer

EUROS = {"currency": "EUR"}
SERVED_SECONDS: Final = 60.0
BUSY_CODES: Final = ("store-unavailable", "overloaded")
"""The codes of problems that a busy machine can cause at any time."""


class PatientTransport(httpx2.ASGITransport):
    """Passes requests to an app, and repeats those that a busy machine answers with 503, as a client should.

    Repeats only requests that take effect once: with an Idempotency-Key, or with a method that is idempotent.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        end = time.monotonic() + SERVED_SECONDS
        while _is_busy(response := await super().handle_async_request(request)):
            body = await response.aread()
            response = httpx2.Response(response.status_code, headers=response.headers, content=body)
            if not ("idempotency-key" in request.headers or request.method != "POST") or time.monotonic() > end:
                break
            if not any(f'"code":"{code}"'.encode() in body for code in BUSY_CODES):
                break
            await asyncio.sleep(float(response.headers["retry-after"]))
            request = httpx2.Request(request.method, request.url, headers=request.headers, content=content)
        return response


def _is_busy(response: httpx2.Response) -> bool:
    return response.status_code == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" in response.headers


@asynccontextmanager
async def client_of(app: FastAPI, token: str = OPERATOR, *, is_patient: bool = True) -> AsyncIterator[httpx2.AsyncClient]:
    """Starts the app, yields a client of it, and shuts the app down. An empty token is not sent.

    A client that is not patient gets each 503, for tests of what causes one.
    """
    async with app.router.lifespan_context(app) as state:
        # This transport waits for the whole answer, so an endless stream of events must end at once.
        closing = asyncio.Event()
        closing.set()

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {}), "extensions": {CLOSING: closing}}, receive, send)

        headers = bearer(token) if token else {}
        kind = PatientTransport if is_patient else httpx2.ASGITransport
        transport = kind(with_state, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://daybook", headers=headers, timeout=60) as client:
            yield client


async def served(ask: Callable[[], Awaitable[httpx2.Response]], pause_seconds: float | None = None) -> httpx2.Response:
    """Repeats a request until the answer is not a 503 with `Retry-After`, and returns that answer.

    On a busy machine, such a 503 is correct at any time. The pause is `pause_seconds`, or by default what `Retry-After` says.
    `ask` must send a command with the same Idempotency-Key each time.
    """
    end = time.monotonic() + SERVED_SECONDS
    while (answer := await ask()).status_code == 503 and "retry-after" in answer.headers:
        assert time.monotonic() < end, f"it did not recover: {answer.text}"
        await asyncio.sleep(float(answer.headers["retry-after"]) if pause_seconds is None else pause_seconds)
    return answer


class Commands:
    """Posts commands with defaults for everything that a test does not name."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """Posts a command. Header names have underscores for hyphens. Without an `idempotency_key`, a random one is sent."""
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
async def command_api(settings: Settings, *, is_patient: bool = True) -> AsyncIterator[Commands]:
    async with client_of(create_app(settings), is_patient=is_patient) as client:
        yield Commands(client)
