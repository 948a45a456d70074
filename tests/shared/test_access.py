"""Callers read and move only what is theirs: every operation of both APIs, by every kind of caller, on own and foreign
things.

The walk takes its operations, their parameters and their bodies from the OpenAPI documents. A new route is walked by itself;
one with a parameter that this module has no value for fails until it is given an own and a foreign one.
"""

import asyncio
import copy
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any, Final

import asyncpg
import httpx2
import msgspec
import pytest
from fastapi import APIRouter
from pwdlib import PasswordHash
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

import command_api.app
import query_api.app
from command_api.credentials.login import LOGIN_EXAMPLE
from command_api.requests import CommandRoute
from projector.runner import Runner
from query_api.requests import QueryRoute
from shared.errors import Unauthorized
from shared.identity import passwords
from shared.identity.access import CUSTOMER_SCOPES, SCOPES
from shared.identity.api_keys import ApiKeys, key_id_of
from shared.identity.credential_cache import CACHE_SECONDS, CredentialCache
from shared.identity.credential_origin import Origin
from shared.identity.sessions import Sessions
from shared.log.user_events import UserDeactivated, UserErased, UserReactivated
from shared.proof import verifications
from shared.read_models import operations as read_models
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from shared.webhooks import store as webhooks
from shared.webhooks.store import WebhookPlace
from tests.harness import log
from tests.harness.clients import client_of
from tests.harness.keys import OPERATOR, add_key, new_token
from tests.harness.log import Book
from tests.harness.reporting import migrate_reporting
from tests.harness.tokens import accepting_tokens, signed

OPEN: Final = {"/livez", "/readyz", "/version"}
METHODS: Final = ("get", "post", "put", "patch", "delete")
MISSING: Final = str(uuid.UUID(int=404))


HOUSE: Final = [str(uuid.UUID(int=number)) for number in (6, 7, 8)]
"""The accounts of the house in exchanges."""


@dataclass(frozen=True)
class Things:
    """The values of names in paths, queries and bodies. The fields have these names."""

    user_id: str
    owner_id: str
    account_id: str
    from_account_id: str
    to_account_id: str
    transfer_id: str
    hold_id: str
    schedule_id: str
    stream: str
    name: str = "accounts"
    session_id: str = str(uuid.UUID(int=5))
    ledger_id: str = "main"
    day: str = "2000-01-01"
    webhook_id: str = MISSING
    delivery_id: str = MISSING
    operation_id: str = MISSING
    verification_id: str = MISSING
    key_id: str = "missingkey"
    house_from_account_id: str = HOUSE[0]
    house_to_account_id: str = HOUSE[1]
    remainder_account_id: str = HOUSE[2]

    @classmethod
    def of(cls, user_id: str, account_id: str, transfer_id: str, hold_id: str, schedule_id: str, payee: str) -> "Things":
        return cls(user_id, user_id, account_id, account_id, payee, transfer_id, hold_id, schedule_id, f"account-{account_id}")

    def ids(self) -> set[str]:
        return {self.user_id, self.account_id, self.transfer_id, self.hold_id, self.schedule_id}


@dataclass(frozen=True)
class Operation:
    """An operation of one of the APIs. `parameters` and `body` are as in the OpenAPI document."""

    api: str
    method: str
    path: str
    parameters: list[dict[str, Any]]
    body: dict[str, Any] | None
    access: dict[str, Any] | None
    security: list[Any] | None

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    def names(self, place: str) -> list[str]:
        return [parameter["name"] for parameter in self.parameters if parameter["in"] == place]

    @property
    def customers(self) -> bool:
        return bool(self.access and self.access["customers"])

    @property
    def operators(self) -> bool:
        return bool(self.access and self.access["operators"])

    def admits(self, role: str) -> bool:
        """True if it admits a caller that is no customer, and has all scopes that such a caller can have."""
        is_for_keys_only = bool(self.access and self.access["scopes"] == ["credentials:write"])
        return self.operators and not (is_for_keys_only and role.startswith("service")) and not self.for_all_ledgers

    @property
    def for_all_ledgers(self) -> bool:
        """True if it is for keys for all ledgers only. `tests/shared/test_keys_for_all_ledgers.py` tries these."""
        return bool(self.access and self.access.get("all_ledgers"))

    @property
    def needs_a_seal(self) -> bool:
        """True if it can only succeed on a sealed log. The log of these tests is never sealed."""
        return self.path.endswith(("/receipt", "/consistency"))

    @property
    def names_a_thing(self) -> bool:
        """True if its path or body names one thing. A list only has filters, and every ledger has the same read models."""
        return bool({*self.names("path")} - {"name"}) or '_id": "' in json.dumps(self.body)


def operations() -> Iterator[Operation]:
    for api in (command_api.app, query_api.app):
        document = api.create_app(UNUSED).openapi()
        for path, methods in document["paths"].items():
            for method in methods.keys() & set(METHODS):
                declared = methods[method]
                yield Operation(
                    api=api.__name__.partition(".")[0],
                    method=method,
                    path=path,
                    parameters=declared.get("parameters", []),
                    body=_example(document, declared),
                    access=declared.get("x-access"),
                    security=declared.get("security"),
                )


def _example(document: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any] | None:
    """The body of an operation. Its example must have every id that its schema has."""
    if "requestBody" not in declared:
        return None
    body = declared["requestBody"]["content"]["application/json"]["schema"]
    reference = body.get("anyOf", [body])[0]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    ids = {name for name, field in schema["properties"].items() if '"uuid"' in json.dumps(field)} - {"id"}
    assert ids <= schema["example"].keys(), f"the example of {reference} must have {ids}"
    assert ids <= Things.__annotations__.keys(), f"say in Things what an own and a foreign one of {ids} are"
    return dict(schema["example"])


UNUSED: Final = Settings(
    database_url="postgresql://nowhere/x",
    mongo_url="mongodb://nowhere",
    redis_url="redis://nowhere",
    secret="x" * 32,
    master_keys=log.MASTER_KEY,
)
OPERATIONS: Final = [*operations()]
PUBLIC: Final = {"/v1/login", "/v1/password-resets"}
"""The operations that need no credential: they take a password or a reset token."""
WITH_AN_ENGINE: Final = {"/v1/search", "/v1/accounts/{account_id}/timeline"}
"""Operations that answer only with a store that not every machine has. Their own tests in `tests/query_api` try each caller."""
GUARDED: Final = [operation for operation in OPERATIONS if operation.path not in OPEN | PUBLIC | WITH_AN_ENGINE]


# ── the world ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class World:
    """Two customers who know nothing of each other, and a credential of every kind of caller."""

    clients: dict[str, httpx2.AsyncClient]
    tokens: dict[str, str]
    own: Things
    foreign: Things
    missing: Things
    settings: Settings
    sessions: Sessions
    writer: AsyncEngine

    async def log_in(self) -> None:
        """Begins a session of the customer with the password of the examples, whatever was set or ended before."""
        async with self.writer.begin() as connection:
            await passwords.put(connection, "main", self.own.user_id, PASSWORD_HASH, Origin(key_id_of(OPERATOR), CUSTOMER_SCOPES))
            version = await passwords.read_version(connection, "main", self.own.user_id)
        assert version
        self.tokens["member"] = (await self.sessions.begin("main", self.own.user_id, version, "unknown")).token

    async def send(self, role: str, operation: Operation, things: Things, **more: Any) -> httpx2.Response:
        """`headers` and `query` of the caller's choice; what is not an id is as in the operation's example."""
        token = self.tokens[role]
        headers = {"idempotency-key": str(uuid.uuid4()), "prefer": "wait=10"} | more.get("headers", {})
        if token:
            headers["authorization"] = f"Bearer {token}"
        await self.prepare(operation, things)
        path = operation.path.format(**{name: getattr(things, name, NO_THING) for name in operation.names("path")})
        return await self.clients[operation.api].request(
            operation.method.upper(), path, params=more.get("query"), headers=headers, json=_body(operation, things)
        )

    async def prepare(self, operation: Operation, things: Things) -> None:
        """Makes what an earlier request of the walk may have ended."""
        if things is not self.missing and "webhook_id" in operation.names("path"):
            await self._make_webhook(things.webhook_id)
        if things is not self.missing and "key_id" in operation.names("path"):
            await self._make_key(things.key_id)

    async def _make_webhook(self, webhook_id: str) -> None:
        """Adds a webhook with a delivery, unless the walk has not deleted it."""
        place = WebhookPlace("main", webhook_id)
        async with self.writer.begin() as connection:
            if await webhooks.insert(connection, place, "https://127.0.0.1/", [], [], b"secret", "key"):
                await webhooks.request_delivery(connection, place, webhook_id, "WebhookTested")

    async def _make_key(self, key_id: str) -> None:
        """Adds a key, or makes it valid again."""
        connection = await asyncpg.connect(self.settings.database_url, ssl=False)
        valid = "UPDATE api_keys SET revoked_at = NULL WHERE key_id = $1 RETURNING 1"
        if await connection.fetchval(valid, key_id) is None:
            await add_key(self.settings.database_url, key_id, token=new_token(key_id), scopes=AUDITOR)
        await connection.close()

    async def heads(self) -> list[Any]:
        """The last position of each log."""
        connection = await asyncpg.connect(self.settings.database_url, ssl=False)
        try:
            return [tuple(row) for row in await connection.fetch("SELECT ledger_id, position FROM log_heads ORDER BY 1")]
        finally:
            await connection.close()


def _body(operation: Operation, things: Things) -> dict[str, Any] | None:
    if operation.body is None:
        return None
    body: dict[str, Any] = _with_things(operation.body, things)
    for name in {"email", "name"} & body.keys():
        body[name] = f"{uuid.uuid4()}@example.com"
    if "transfer" in body:  # so that a change of a schedule changes something each time
        body["transfer"] = body["transfer"] | {"amount": int(uuid.uuid4()) % 10**6 + 1}
    if "url" in body:
        body["url"] = "https://127.0.0.1/"  # which needs no DNS
    if "mode" in body:
        body["mode"] = "atomic"  # which has one verdict, like every other command
    return body


def _with_things(example: Any, things: Things) -> Any:
    """The example with these ids in place of its own, at any depth."""
    if isinstance(example, list):
        return [_with_things(item, things) for item in example]
    if not isinstance(example, dict):
        return example
    return {
        name: getattr(things, name) if name in Things.__annotations__ else _with_things(value, things)
        for name, value in example.items()
    }


PASSWORD_HASH: Final = PasswordHash.recommended().hash(LOGIN_EXAMPLE)
NO_THING: Final = "1"
"""The values in paths that belong to no caller: the position of a seal."""
NOBODIES: Final = ("none", "unknown", "expired", "revoked", "forged", "deactivated")
AUDITOR: Final = ("ledger:read", "events:read")


@asynccontextmanager
async def world_of(stores: Settings) -> AsyncIterator[World]:
    book, settings = (
        Book(),
        accepting_tokens(stores.model_copy(update={"rate_limit_address_per_minute": 10_000, "webhook_networks": "127.0.0.1"})),
    )
    people = [book.create_user() for _ in range(2)]
    accounts = [book.open_account(person.user_id) for person in people]
    house = [msgspec.structs.replace(book.open_account(book.new_id()), account_id=each) for each in HOUSE]
    payees = [book.open_account(person.user_id) for person in people]
    deposits = [book.deposit(account.account_id, 1_000_000) for account in accounts]
    holds = [book.place_hold(account.account_id, 100_000) for account in accounts]
    ends = zip(accounts, payees, strict=True)
    schedules = [book.plan(payer, payee.account_id, 5) for payer, payee in ends]
    async with AsyncExitStack() as exits:
        writer = await exits.enter_async_context(open_postgres(settings, "daybook_command"))
        former = book.create_user()
        await log.append(
            writer,
            [
                *people,
                *accounts,
                *house,
                *payees,
                *deposits,
                *holds,
                *schedules,
                former,
                UserDeactivated(user_id=former.user_id),
                book.close_day(),
            ],
        )
        await log.make_ledger(writer, "other")
        elsewhere = Book(1)
        await log.append(writer, [elsewhere.create_user(), elsewhere.close_day(), elsewhere.close_day()], "other")
        clients = {
            "command_api": await exits.enter_async_context(client_of(command_api.app.create_app(settings), "")),
            "query_api": await exits.enter_async_context(client_of(query_api.app.create_app(settings), "")),
        }
        own, foreign = (
            Things.of(
                person.user_id, account.account_id, deposit.transfer_id, hold.hold_id, schedule.schedule_id, payee.account_id
            )
            for person, account, deposit, hold, schedule, payee in zip(
                people, accounts, deposits, holds, schedules, payees, strict=True
            )
        )
        own, foreign = (replace(each, webhook_id=book.new_id()) for each in (own, foreign))
        own, foreign = (replace(each, delivery_id=each.webhook_id, operation_id=book.new_id()) for each in (own, foreign))
        own, foreign = (replace(each, verification_id=book.new_id()) for each in (own, foreign))
        own, foreign = (replace(each, key_id=f"{name}key") for each, name in ((own, "ownowno"), (foreign, "foreign")))
        async with writer.begin() as connection:
            for each, name in ((own, "days"), (foreign, "holds")):
                await verifications.request(connection, "main", each.verification_id, "why", "operator")
                await verifications.cancel(connection, "main", each.verification_id)
                await read_models.request(connection, "main", each.operation_id, name, "rebuild", None, "why", "operator")
        missing = Things.of(MISSING, MISSING, MISSING, MISSING, MISSING, own.to_account_id)
        tokens = await _tokens(settings, own.user_id, foreign.user_id, former.user_id)
        sessions = Sessions(writer, await exits.enter_async_context(open_redis(settings)), settings)
        yield World(clients, tokens, own, foreign, missing, settings, sessions, writer)


async def _tokens(settings: Settings, own: str, foreign: str, former: str) -> dict[str, str]:
    url = settings.database_url
    tokens = {
        "none": "",
        "unknown": new_token(),
        "operator": OPERATOR,
        "auditor": await add_key(url, "auditor", scopes=AUDITOR),
        "customer": await add_key(url, "customer", user_id=own),
        "stranger": await add_key(url, "stranger", user_id=foreign),
        "expired": await add_key(url, "expired", lifetime=timedelta(seconds=-1)),
        "revoked": await add_key(url, "revoked"),
        "elsewhere": await add_key(url, "elsewhere", ledger_id="other"),
        "deactivated": await add_key(url, "deactivated", user_id=former),
        "service": signed(),
        "auditing-service": signed(sub="audits", scope=" ".join(AUDITOR)),
        "service-elsewhere": signed(ledger="other"),
        "forged": signed(aud="elsewhere"),
    }
    connection = await asyncpg.connect(url, ssl=False)
    await connection.execute("UPDATE api_keys SET revoked_at = now() WHERE principal = 'revoked'")
    await connection.close()
    return tokens


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with projected_world(settings) as world:
        yield world


@asynccontextmanager
async def projected_world(settings: Settings) -> AsyncIterator[World]:
    """With the projector at work, and at the end of the log."""
    async with AsyncExitStack() as exits:
        folder = exits.enter_context(TemporaryDirectory())
        settings = settings.model_copy(update={"reporting_url": f"sqlite+aiosqlite:///{folder}/reports.sqlite"})
        await migrate_reporting(settings.reporting_url or "")
        world = await exits.enter_async_context(world_of(settings))
        stores = await exits.enter_async_context(open_stores(settings, "daybook_projector"))
        runner = Runner(stores, settings)
        running = asyncio.create_task(runner.run())
        read_models = (
            "/users",
            "/accounts",
            "/transfers",
            "/holds",
            "/schedules",
            f"/accounts/{world.own.account_id}/entries",
            "/stats",
            "/activity",
            "/reports/users",
        )
        everywhere = [(f"/v1{path}", "main", "operator") for path in read_models]
        positions = dict(await world.heads())
        for path, ledger, role in [*everywhere, ("/v1/users", "other", "elsewhere")]:
            headers = {"daybook-ledger": ledger, "daybook-min-position": str(positions[ledger]), "prefer": "wait=10"}
            headers["authorization"] = f"Bearer {world.tokens[role]}"
            answer = await world.clients["query_api"].get(path, headers=headers)
            assert answer.status_code == 200, answer.text
        yield world
        runner.stop()
        await running


def anonymous(answer: httpx2.Response, things: Things) -> tuple[int, str, str | None]:
    """An answer without what must differ: the request's id, and the ids that the caller has sent."""
    text = answer.text
    for sent in (*things.ids(), things.to_account_id):
        text = text.replace(sent, "…")
    body = {k: v for k, v in json.loads(text).items() if k != "request_id"}
    return answer.status_code, json.dumps(body, sort_keys=True), answer.headers.get("daybook-position")


# ── declarations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_operation_but_health_declares_its_access_rule() -> None:
    assert {operation.path for operation in OPERATIONS if operation.access is None} == OPEN
    assert all(operation.security for operation in OPERATIONS if operation.path not in OPEN | PUBLIC)
    assert {operation.path for operation in OPERATIONS if operation.access and operation.access.get("anybody")} == PUBLIC
    assert len(GUARDED) > 20


@pytest.mark.parametrize("route_class", [CommandRoute, QueryRoute])
def test_a_route_without_an_access_rule_cannot_be_made(route_class: Any) -> None:
    async def endpoint() -> None: ...

    with pytest.raises(TypeError, match="states no rule of access"):
        APIRouter(route_class=route_class).add_api_route("/v1/new", endpoint)


def test_no_route_bypasses_the_access_rules() -> None:
    for api, route_class in ((command_api.app, CommandRoute), (query_api.app, QueryRoute)):
        app = api.create_app(UNUSED)
        others = {getattr(route, "path", "?") for route in app.router.routes if not isinstance(route, route_class)}
        included = {path for path in others if path.startswith("/v1")}
        assert not included


# ── the walk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.services
async def test_only_health_and_documentation_answer_without_a_valid_credential(world: World) -> None:
    before = await world.heads()
    bodies = set()
    for role, operation in itertools.product(NOBODIES, GUARDED):
        answer = await world.send(role, operation, world.own)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="daybook"'), f"{role}: {operation}"
        bodies.add(anonymous(answer, world.own))
    assert len(bodies) == 1, "the answer does not say why"
    for api, path in itertools.product(world.clients, [*OPEN, "/docs", "/openapi.json", "/problems/unauthorized"]):
        assert (await world.clients[api].get(path)).status_code == 200
    assert await world.heads() == before


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("role", ["customer", "member"])
async def test_a_customer_reads_and_moves_only_what_it_owns(world: World, role: str) -> None:
    """With an API key, and having logged in."""
    for operation in GUARDED:
        await world.log_in()
        before = await world.heads()
        foreign, missing = [await world.send(role, operation, things) for things in (world.foreign, world.missing)]
        assert not operation.names_a_thing or await world.heads() == before, f"{operation} on a foreign thing was recorded"
        own = await world.send(role, operation, world.own)
        if not operation.customers:
            assert {answer.status_code for answer in (own, foreign, missing)} == {403}, f"{operation} is not for customers"
            continue
        assert own.is_success, f"{operation} on an own thing: {own.text}"
        if not operation.names_a_thing:
            shown = own.json()
            is_own = isinstance(shown, dict) and shown.get("user_id") == world.own.user_id  # the answer about the caller
            assert is_own or (shown if isinstance(shown, list) else shown["items"]), f"{operation} shows nothing"
        assert not any(each in own.text for each in world.foreign.ids()), f"{operation} shows foreign things"
        if operation.names_a_thing:
            assert foreign.status_code == 404, f"{operation} on a foreign thing: {foreign.text}"
            assert anonymous(foreign, world.foreign) == anonymous(missing, world.missing), str(operation)
            assert set(foreign.headers) == set(missing.headers), str(operation)


@pytest.mark.services
async def test_no_filter_shows_a_customer_what_others_own(world: World) -> None:
    walked = 0
    for operation in GUARDED:
        for name in set(operation.names("query")) & Things.__annotations__.keys() if operation.customers else ():
            answers = [
                await world.send("customer", operation, world.own, query={name: getattr(things, name)})
                for things in (world.foreign, world.missing)
            ]
            assert anonymous(answers[0], world.foreign) == anonymous(answers[1], world.missing), f"{operation} ?{name}="
            assert answers[0].json()["items"] == []
            walked += 1
    assert walked >= 2


@pytest.mark.services
async def test_a_cursor_of_another_caller_is_invalid(world: World) -> None:
    walked = 0
    for operation in GUARDED:
        if "cursor" not in operation.names("query") or not operation.customers or operation.names_a_thing:
            continue
        issued = await world.send("operator", operation, world.own, query={"limit": "1"})
        cursor = {"limit": "1", "cursor": issued.json()["next"]}
        for role in ("customer", "elsewhere"):
            answer = await world.send(role, operation, world.own, query=cursor)
            assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid"), f"{role}: {operation}"
        assert (await world.send("auditor", operation, world.own, query=cursor)).is_success
        walked += 1
    assert walked >= 3


@pytest.mark.slow
@pytest.mark.services
async def test_an_idempotency_key_belongs_to_its_caller(world: World) -> None:
    for operation in GUARDED:
        if operation.api != "command_api" or operation.method == "get":
            continue
        key = {"headers": {"idempotency-key": f"walk {operation}"}}
        first = await world.send("operator", operation, world.foreign, **key)
        for role in ("customer", "stranger", "elsewhere"):
            answer = await world.send(role, operation, world.foreign, **key)
            assert "idempotency-replayed" not in answer.headers, f"{role}: {operation}"
            assert answer.text != first.text
        assert answer.json().get("code") != "idempotency-key-reused", str(operation)


@pytest.mark.services
async def test_access_is_checked_for_each_transfer_of_a_batch(world: World) -> None:
    """Foreign accounts among a customer's transfers are missing, and the other transfers are made."""
    transfers = [
        {"from_account_id": things.account_id, "to_account_id": world.own.to_account_id, "amount": 1, "currency": "EUR"}
        for things in (world.own, world.foreign, world.missing)
    ]
    headers = {"authorization": f"Bearer {world.tokens['customer']}", "idempotency-key": "each"}
    answer = await world.clients["command_api"].post("/v1/transfers/batch", json={"transfers": transfers}, headers=headers)
    assert [result["status"] for result in answer.json()["results"]] == [201, 404, 404]


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("role", ["auditor", "auditing-service"])
async def test_an_auditor_reads_everything_and_changes_nothing(world: World, role: str) -> None:
    before = await world.heads()
    for operation in GUARDED:
        answer = await world.send(role, operation, world.foreign)
        if operation.access and operation.access["scopes"] == ["ops:admin"]:
            assert answer.status_code == 403, f"{operation} is about processes, and for those who run them"
        elif operation.method == "get":
            assert answer.is_success or operation.needs_a_seal, f"{operation}: {answer.text}"
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), str(operation)
    assert await world.heads() == before


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("role", ["operator", "service"])
async def test_an_operator_may_do_everything(world: World, role: str) -> None:
    for operation in GUARDED:
        answer = await world.send(role, operation, world.foreign)
        if not operation.admits(role):
            assert answer.status_code == 403, f"{operation}: {answer.text}"
            continue
        assert answer.status_code not in {401, 403, 404} or operation.needs_a_seal, f"{operation}: {answer.text}"


@pytest.mark.slow
@pytest.mark.services
async def test_a_key_is_denied_without_the_scope_and_needs_no_other(world: World) -> None:
    for scope in SCOPES:
        others = [other for other in SCOPES if other != scope]
        world.tokens[scope] = await add_key(world.settings.database_url, f"only-{scope.replace(':', '-')}", scopes=[scope])
        world.tokens["others"] = await add_key(world.settings.database_url, f"not-{scope.replace(':', '-')}", scopes=others)
        for operation in GUARDED:
            scopes = operation.access["scopes"] if operation.access else []
            if not operation.operators or operation.for_all_ledgers:
                continue
            alone = await world.send(scope, operation, world.missing)
            assert (alone.status_code == 403) == (scope not in scopes), f"{scope}: {operation}"
            without = await world.send("others", operation, world.missing)
            assert (without.status_code == 403) == (scopes == [scope]), f"all but {scope}: {operation}"


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("role", ["elsewhere", "service-elsewhere"])
async def test_another_ledger_answers_like_a_missing_one(world: World, role: str) -> None:
    before = await world.heads()
    for operation in GUARDED:
        there = [
            await world.send(role, operation, world.own, headers={"daybook-ledger": ledger}) for ledger in ("main", "nowhere")
        ]
        if not operation.admits(role):
            assert [answer.status_code for answer in there] == [403, 403], str(operation)
            continue
        assert [answer.status_code for answer in there] == [404, 404] or operation.needs_a_seal, str(operation)
        assert anonymous(there[0], world.own) == anonymous(there[1], world.own), str(operation)
        if operation.path == "/v1/refusals":
            continue  # shows what this very caller has tried above, sooner or later
        here = await world.send(role, operation, world.own)
        assert not any(each in here.text for each in world.own.ids()) or here.status_code == 404, (
            f"{operation} shows another ledger"
        )
        assert here.is_success is False or operation.method == "get" or not operation.names_a_thing, str(operation)
    assert (await world.heads())[0] == before[0], "nothing was written to the other ledger"


@pytest.mark.slow
@pytest.mark.services
async def test_a_paying_customer_learns_nothing_about_the_payee_s_balance(world: World) -> None:
    [transfer] = [operation for operation in GUARDED if str(operation) == "POST /v1/transfers"]
    paying = copy.copy(world.own.__dict__) | {"to_account_id": world.foreign.account_id}
    answer = await world.send("customer", transfer, Things(**paying))
    assert answer.status_code == 201, answer.text
    assert [balance["account_id"] for balance in answer.json()["balances"]] == [world.own.account_id]


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.services
async def test_every_bad_credential_is_a_401(settings: Settings) -> None:
    key_id, secret = key_id_of(OPERATOR), OPERATOR.split("_", 2)[2]
    bad = [
        *(
            "",
            "Bearer",
            "Bearer ",
            OPERATOR,
            f"Basic {OPERATOR}",
            f"Bearer  {OPERATOR}",
            f"Bearer {OPERATOR} ",
            f"Token {OPERATOR}",
        ),
        *(f"Bearer {OPERATOR[:-1]}", f"Bearer {OPERATOR}x", f"Bearer {OPERATOR.upper()}", f"Bearer dbk_{key_id}_{'A' * 43}"),
        *(
            f"Bearer dbk_{'a' * 10}_{secret}",
            f"Bearer dbk_{key_id}",
            "Bearer dbk__",
            "Bearer ' OR 1=1 --",
            f"Bearer {'x' * 100_000}",
        ),
        *(f"Bearer {OPERATOR}, Bearer {OPERATOR}", f"Bearer {OPERATOR}\x00", "Bearer ünïcode", f"Bearer dbk_{'é' * 10}_{secret}"),
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
    ]
    async with open_postgres(settings, "daybook_query") as engine:
        keys = CredentialCache(ApiKeys(engine))
        assert (await keys.principal([f"Bearer {OPERATOR}"])).principal == "operator"
        assert (await keys.principal([f"bearer {OPERATOR}"])).principal == "operator"
        for headers in ([], [f"Bearer {OPERATOR}"] * 2, *([header] for header in bad)):
            with pytest.raises(Unauthorized):
                await keys.principal(headers)
        await keys.close()


@pytest.mark.services
async def test_the_use_of_a_key_is_noted_and_its_end_takes_effect_within_seconds(settings: Settings) -> None:
    token = await add_key(settings.database_url, "short", lifetime=timedelta(seconds=1))
    async with open_postgres(settings, "daybook_command") as engine:
        keys = CredentialCache(ApiKeys(engine))
        principal = await keys.principal([f"Bearer {token}"])
        assert (principal.principal, principal.ledger_id, principal.user_id) == ("short", "main", None)
        await keys.close()
        verified_at = time.monotonic()
        while await _is_valid(keys, token):
            await asyncio.sleep(0.05)
        assert time.monotonic() - verified_at < CACHE_SECONDS, "it is remembered no longer than the key is valid"
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    assert await connection.fetchval("SELECT last_used_at IS NOT NULL FROM api_keys WHERE principal = 'short'")
    await connection.close()


async def _is_valid(keys: CredentialCache, token: str) -> bool:
    try:
        await keys.principal([f"Bearer {token}"])
    except Unauthorized:
        return False
    return True


@pytest.mark.services
async def test_a_customer_s_key_is_not_valid_while_its_user_is_not_active(settings: Settings) -> None:
    user = Book().create_user()
    token = await add_key(settings.database_url, "customer", user_id=user.user_id)
    async with open_postgres(settings, "daybook_command") as writer, open_postgres(settings, "daybook_query") as engine:
        assert not await _is_valid(CredentialCache(ApiKeys(engine)), token), "there is no such user yet"
        for fact, valid in (
            (user, True),
            (UserDeactivated(user_id=user.user_id), False),
            (UserReactivated(user_id=user.user_id), True),
            (UserErased(user_id=user.user_id, email_hash=user.email_hash, status_before="active"), False),
        ):
            await log.append(writer, [fact])
            keys = CredentialCache(ApiKeys(engine))
            assert await _is_valid(keys, token) is valid, type(fact).__name__
            await keys.close()


@pytest.mark.slow
@pytest.mark.services
async def test_a_repeated_credential_costs_no_look_up_and_a_deactivation_takes_effect_within_seconds(settings: Settings) -> None:
    user = Book().create_user()
    token = await add_key(settings.database_url, "customer", user_id=user.user_id)
    async with open_postgres(settings, "daybook_command") as engine:
        await log.append(engine, [user])
        keys, asked = CredentialCache(ApiKeys(engine)), 0

        def count(*_: Any) -> None:
            nonlocal asked
            asked += 1

        event.listen(engine.sync_engine, "before_cursor_execute", count)
        await asyncio.gather(*(keys.principal([f"Bearer {token}"]) for _ in range(100)))
        await keys.close()
        assert asked == 3, "the key, its user, and the note that it was used; for all hundred"
        await log.append(engine, [UserDeactivated(user_id=user.user_id)])
        while await _is_valid(keys, token):
            await asyncio.sleep(0.05)
        await keys.close()
