"""Both ways to a route answer alike: the direct one, and the one through FastAPI's middleware and router."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from pwdlib import PasswordHash
from starlette.types import Message

import command_api.app
import command_api.routes
import query_api.app
from command_api.requests import CommandRoute
from projector.runner import Runner
from query_api.requests import QueryRoute
from shared.identity import passwords
from shared.identity.access import CUSTOMER_SCOPES
from shared.identity.api_keys import key_id_of
from shared.identity.credential_origin import Origin
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from shared.stores.postgres import open_postgres
from shared.web.asgi_extensions import CLOSING
from tests.harness.keys import OPERATOR

pytestmark = pytest.mark.services

ADA, BOB, ACCOUNT, SAVINGS, DEPOSIT, TRANSFER = (str(uuid.UUID(int=n)) for n in range(1, 7))
HOLD = str(uuid.UUID(int=9))
MISSING = str(uuid.UUID(int=404))
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
NAMES = {"user_id": ADA, "account_id": ACCOUNT, "transfer_id": TRANSFER, "session_id": MISSING, "position": "1", "name": "users"}
SCHEDULE = str(uuid.UUID(int=13))
WEBHOOK = str(uuid.UUID(int=17))
NAMES |= {"key_id": "missingkey"}
NAMES |= {"webhook_id": WEBHOOK, "delivery_id": MISSING, "operation_id": MISSING, "verification_id": MISSING}
NAMES |= {"stream": f"account-{ACCOUNT}", "hold_id": HOLD, "schedule_id": SCHEDULE, "ledger_id": "main", "day": "2025-01-31"}


class Sent(NamedTuple):
    """A request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    query: str = ""


class Answered(NamedTuple):
    """An answer, without what differs from one answer to the next."""

    status: int
    headers: list[tuple[str, str]]
    body: str


def comparable(text: bytes) -> str:
    """Replaces times, tokens, counts of what a rate limit leaves, and ids that the test has not chosen itself."""
    shown = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME", text.decode())
    shown = re.sub(r"dbs_[0-9a-f]{32}_[\w-]{43}", "TOKEN", shown)
    shown = re.sub(r"whsec_[\w+/]{43}=", "SECRET", shown)
    shown = re.sub(r"dbr_[\w-]{43}", "TOKEN", shown)
    shown = re.sub(r";r=\d+;t=\d+", ";r=LEFT;t=SECONDS", shown)
    return re.sub(r"\b(?!00000000-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID", shown)


class Way:
    """One way to the routes of an app that has started."""

    def __init__(self, app: FastAPI, state: Mapping[str, Any], *, direct: bool) -> None:
        self._app = app
        self._state = state
        self._direct = direct

    async def send(self, sent: Sent) -> Answered:
        closing = asyncio.Event()
        closing.set()  # ends an answer that has no end by itself
        length = {"content-length": str(len(sent.body))}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "http",
            "path": sent.path,
            "raw_path": sent.path.encode(),
            "query_string": sent.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in (length | dict(sent.headers)).items()],
            "client": ("192.0.2.1", 50_000),
            "server": ("daybook", 80),
            "state": dict(self._state),
            "extensions": {CLOSING: closing},
        }
        messages: list[Message] = []
        bodies = [sent.body]

        async def receive() -> Message:
            if not bodies:
                await asyncio.Event().wait()  # the caller stays
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        answer = self._app.__call__ if self._direct else lambda *arguments: FastAPI.__call__(self._app, *arguments)
        await answer(scope, receive, send)
        start, *parts = messages
        headers = [(name.decode(), comparable(value)) for name, value in start["headers"]]
        return Answered(start["status"], headers, comparable(b"".join(part.get("body", b"") for part in parts)))


@asynccontextmanager
async def way_to(app: FastAPI, *, direct: bool) -> AsyncIterator[Way]:
    async with app.router.lifespan_context(app) as state:
        yield Way(app, state or {}, direct=direct)


async def differing(direct: Way, routed: Way, requests: Iterator[Sent]) -> list[tuple[Sent, Answered, Answered]]:
    """The requests that are answered differently, with both answers."""
    found = []
    for request in requests:
        answers = await direct.send(request), await routed.send(request)
        if answers[0] != answers[1] and not _grew_meanwhile(request, *answers):
            found.append((request, *answers))
    return found


def _grew_meanwhile(request: Sent, *answers: Answered) -> bool:
    """True for a page of denials: the denied requests of this test are recorded while it runs, so its items differ."""
    if request.path != "/v1/refusals" or {answer.status for answer in answers} != {200}:
        return False
    # An answer to HEAD has no body.
    first, second = ({**json.loads(answer.body or b"{}"), "items": [], "next": None} for answer in answers)
    names = [[name for name, _ in answer.headers] for answer in answers]
    return bool(first == second and {*names[0]} ^ {*names[1]} <= {"link"})


def without_limits(settings: Settings) -> Settings:
    limits = {"rate_limit_address_per_minute": 1_000_000, "rate_limit_caller_per_minute": 1_000_000}
    return settings.model_copy(update=limits | {"webhook_networks": "127.0.0.1"})


def with_credential(**headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {OPERATOR}"} | {name.replace("_", "-"): value for name, value in headers.items()}


def wrong_paths(method: str, template: str, body: bytes, headers: Mapping[str, str]) -> Iterator[Sent]:
    """The path of a route with something else in its variable part, with another end, and with another method."""
    for value in (MISSING, "not-an-id", "", "a/b", "%2F", "é"):
        yield Sent(method, re.sub(r"\{\w+\}", value, template), body, headers)
    path = template.format(**NAMES)
    for wrong in (f"{path}/", f"{path}/more", path.upper(), f"/{path}", path.removesuffix("s")):
        yield Sent(method, wrong, body, headers)
    for other in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "BREW"):
        if other != method:
            yield Sent(other, path, body, headers)


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MONEY = {"amount": 100, "currency": "EUR"}
PAYMENT = {"from_account_id": ACCOUNT, "to_account_id": SAVINGS, **MONEY}
EXCHANGE = {
    "from_account_id": ACCOUNT,
    "house_from_account_id": SAVINGS,
    "house_to_account_id": str(uuid.UUID(int=14)),
    "to_account_id": str(uuid.UUID(int=15)),
    "remainder_account_id": str(uuid.UUID(int=16)),
    "from_currency": "EUR",
    "to_currency": "USD",
    "from_amount": 1,
    "rate": "1.0834",
}
COMMANDS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/users", {"id": ADA, "name": "Ada", "email": EMAIL}),
    ("POST", "/v1/users", {"id": BOB, "name": "Bob", "email": "bob@example.com"}),
    ("PATCH", "/v1/users/{user_id}", {"name": "Ada L."}),
    ("POST", "/v1/accounts", {"id": ACCOUNT, "owner_id": ADA, "currency": "EUR"}),
    ("POST", "/v1/accounts", {"id": SAVINGS, "owner_id": ADA, "currency": "EUR"}),
    ("POST", "/v1/deposits", {"id": DEPOSIT, "account_id": ACCOUNT, "amount": 1_000, "currency": "EUR"}),
    ("POST", "/v1/withdrawals", {"id": str(uuid.UUID(int=7)), "account_id": ACCOUNT, **MONEY}),
    ("POST", "/v1/transfers", {"id": TRANSFER, **PAYMENT}),
    ("POST", "/v1/transfers/batch", {"mode": "independent", "transfers": [{"id": str(uuid.UUID(int=8)), **PAYMENT}]}),
    ("POST", "/v1/batch", {"commands": [{"type": "deposit", "id": str(uuid.UUID(int=12)), "account_id": ACCOUNT, **MONEY}]}),
    ("POST", "/v1/exchanges", {"id": str(uuid.UUID(int=13)), **EXCHANGE}),
    ("POST", "/v1/transfers/{transfer_id}/reverse", {"id": str(uuid.UUID(int=11)), "amount": 30}),
    ("POST", "/v1/holds", {"id": HOLD, "account_id": ACCOUNT, **MONEY}),
    ("POST", "/v1/holds/{hold_id}/capture", {"id": str(uuid.UUID(int=10)), "amount": 30}),
    ("POST", "/v1/holds/{hold_id}/release", None),
    ("POST", "/v1/schedules", {"id": SCHEDULE, "transfer": PAYMENT, "at": "2199-01-01T00:00:00Z"}),
    ("PATCH", "/v1/schedules/{schedule_id}", {"transfer": {"amount": 7}}),
    ("POST", "/v1/schedules/{schedule_id}/cancel", None),
    ("PUT", "/v1/accounts/{account_id}/overdraft-limit", {"overdraft_limit": 50}),
    ("PATCH", "/v1/accounts/{account_id}", {"metadata": {"iban": "DE02"}}),
    ("PUT", "/v1/accounts/{account_id}/limits", {"per_day": 5_000}),
    ("POST", "/v1/accounts/{account_id}/freeze", None),
    ("POST", "/v1/accounts/{account_id}/unfreeze", None),
    ("PUT", "/v1/users/{user_id}/password", {"password": PASSWORD, "current_password": PASSWORD}),
    ("POST", "/v1/users/{user_id}/reset-token", None),
    ("POST", "/v1/password-resets", {"token": f"dbr_{'A' * 43}", "password": PASSWORD}),
    ("POST", "/v1/login", {"email": EMAIL, "password": PASSWORD}),
    ("GET", "/v1/users/{user_id}/sessions", None),
    ("DELETE", "/v1/users/{user_id}/sessions/{session_id}", None),
    ("DELETE", "/v1/users/{user_id}/sessions", None),
    ("POST", "/v1/days/{day}/close", None),
    ("POST", "/v1/users/{user_id}/deactivate", None),
    ("POST", "/v1/users/{user_id}/reactivate", None),
    ("POST", "/v1/accounts/{account_id}/close", None),
    ("POST", "/v1/ledgers", {"id": "acme"}),
    ("PUT", "/v1/ledgers/{ledger_id}/settings", {"transfer_max": {"EUR": 5}}),
    ("POST", "/v1/ledgers/{ledger_id}/close", None),
    ("POST", "/v1/webhooks", {"id": WEBHOOK, "url": "https://127.0.0.1/"}),
    ("POST", "/v1/webhooks/{webhook_id}/test", None),
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/repeat", None),
    ("POST", "/v1/webhooks/{webhook_id}/rotate-secret", {"overlap_seconds": 5}),
    ("PATCH", "/v1/webhooks/{webhook_id}", {"types": ["FundsDeposited"]}),
    ("DELETE", "/v1/webhooks/{webhook_id}", None),
    ("POST", "/v1/keys/{key_id}/rotate", {"overlap_seconds": 5}),
    ("POST", "/v1/keys/{key_id}/revoke", None),
    # Without a worker, each first operation is answered after a second, and all others exclude each other.
    ("POST", "/v1/projections/{name}/rebuild", {"reason": "why"}),
    ("POST", "/v1/projections/{name}/rollback", {"reason": "why"}),
    ("POST", "/v1/projections/{name}/pause", {"reason": "why"}),
    ("POST", "/v1/projections/{name}/resume", {"reason": "why"}),
    ("POST", "/v1/projections/{name}/dead-letters/retry", {"reason": "why"}),
    ("POST", "/v1/projections/{name}/dead-letters/{position}/skip", {"reason": "why"}),
    ("POST", "/v1/verifications", {"reason": "why"}),
    ("POST", "/v1/verifications/{verification_id}/cancel", None),
    ("POST", "/v1/users/{user_id}/erase", None),
]


def commands() -> Iterator[Sent]:
    """Each command as it should be, and before that in all ways in which it should not."""
    for number, (method, template, fields) in enumerate(COMMANDS):
        path = template.format(**NAMES)
        body = json.dumps(fields).encode() if fields else b""
        headers = with_credential(content_type="application/json", idempotency_key=f"key-{number}")
        yield Sent(method, path, body)
        yield Sent(method, path, body, headers | {"authorization": "Bearer dbk_nobody"})
        yield Sent(method, path, body, headers | {"idempotency-key": "\x7f"})
        yield Sent(method, path, body, headers | {"if-match": '"v77"'})
        yield Sent(method, path, body, headers | {"if-match": "7"})
        yield Sent(method, path, body, headers | {"daybook-ledger": "other"})
        yield Sent(method, path, body, headers | {"daybook-ledger": "Ö"})
        if fields:
            yield Sent(method, path, body, headers | {"content-type": "text/plain"})
            for wrong in (b"", b"{", b"[]", b'{"unknown": 1}', json.dumps({**fields, "unknown": 1}).encode(), b" " * 2_000_000):
                yield Sent(method, path, wrong, headers)
        yield from wrong_paths(method, template, body, with_credential(content_type="application/json"))
        yield Sent(method, path, body, headers, "unknown=1")
        yield Sent(method, path, body, headers)
        yield Sent(method, path, body, headers | {"idempotency-key": "another"})


async def give_ada_a_password(settings: Settings) -> None:
    """Stores one before she is created, because denied logins would make the next ones wait."""
    hash_ = PasswordHash.recommended().hash(PASSWORD)
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        await passwords.put(connection, "main", ADA, hash_, Origin(key_id_of(OPERATOR), CUSTOMER_SCOPES))


@pytest.mark.slow
async def test_a_command_is_answered_alike_on_both_ways(settings: Settings, elsewhere: Settings) -> None:
    """On two ledgers that get the same commands, since a command has its effect only once."""
    routes = [route for route in command_api.routes.router.routes if isinstance(route, CommandRoute)]
    assert {(method, template) for method, template, _ in COMMANDS} == {
        (method, route.path) for route in routes for method in route.methods or ()
    }
    for each in (settings, elsewhere):
        await give_ada_a_password(each)
    async with AsyncExitStack() as exits:
        direct, routed = [
            await exits.enter_async_context(way_to(command_api.app.create_app(without_limits(each)), direct=way))
            for each, way in ((settings, True), (elsewhere, False))
        ]
        assert await differing(direct, routed, commands()) == []


# ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def queries(position: int) -> Iterator[Sent]:
    """Each query as it should be, and in all ways in which it should not."""
    headers = with_credential(daybook_min_position=str(position), prefer="wait=10, handling=strict")
    for route in query_api.app.router.routes:
        assert isinstance(route, QueryRoute)
        path = route.path.format(**NAMES)
        yield Sent("GET", path, headers=headers, query="from=1" if path.endswith("consistency") else "")
        yield Sent("GET", path)
        yield Sent("GET", path, headers=headers | {"authorization": "Bearer dbk_nobody"})
        yield Sent("GET", path, headers=headers | {"daybook-ledger": "other"})
        yield Sent("GET", path, headers=headers | {"daybook-min-position": "x"})
        yield Sent("GET", path, headers=headers | {"daybook-min-position": str(position + 1), "prefer": "wait=0"})
        yield Sent("GET", path, headers=headers | {"if-none-match": "*"})
        yield Sent("GET", path, headers=headers | {"accept": "application/x-ndjson"})
        yield Sent("GET", path, headers=headers | {"last-event-id": "x"})
        for wrong in ("unknown=1", "limit=0", "limit=1&limit=2", "limit=1", "cursor=forged", "&".join(["a=1"] * 60)):
            yield Sent("GET", path, headers=headers, query=wrong)
        yield from wrong_paths("GET", route.path, b"", headers)


@pytest.mark.slow
async def test_a_query_is_answered_alike_on_both_ways(settings: Settings) -> None:
    asking = without_limits(settings)
    async with AsyncExitStack() as exits:
        commanding = await exits.enter_async_context(way_to(command_api.app.create_app(asking), direct=True))
        position = 0
        for number, (method, template, fields) in enumerate(COMMANDS[:10]):
            headers = with_credential(content_type="application/json", idempotency_key=f"key-{number}")
            sent = Sent(method, template.format(**NAMES), json.dumps(fields).encode(), headers)
            position = int(dict((await commanding.send(sent)).headers)["daybook-position"])
        stores = await exits.enter_async_context(open_stores(settings, "daybook_projector"))
        runner = Runner(stores, settings)
        running = asyncio.create_task(runner.run())
        app = query_api.app.create_app(asking)
        direct = await exits.enter_async_context(way_to(app, direct=True))
        found = await direct.send(next(queries(position)))
        assert found.status == 200, found
        routed = await exits.enter_async_context(way_to(app, direct=False))
        runner.stop()
        await running
        assert await differing(direct, routed, queries(position)) == []
