"""Acts on credentials and limits are recorded with caller, network and time, in a chain that shows every change."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

import command_api.app
import query_api.app
from projector.verify.audit import verify_audit
from projector.verify.difference import DifferenceFound
from projector.verify.trusted_seals import TrustedSeals
from shared.identity.api_keys import key_id_of, make_key, revoke_key, rotate_key
from shared.identity.audit_records import NO_LEDGER, ActCaller, record, record_anywhere
from shared.settings import Settings
from shared.stores.postgres import open_postgres, open_postgres_as_owner
from shared.stores.redis import open_redis
from tests.harness.clients import Commands, client_of
from tests.harness.keys import OPERATOR, add_key, bearer
from tests.harness.passwords import give_password

pytestmark = pytest.mark.services

EMAIL, PASSWORD, OTHER_PASSWORD = "ada@example.com", "correct horse battery", "staple battery horse"
PROXIED = {"x-forwarded-for": "203.0.113.77"}
CALLER = ActCaller("operator:of a test")


@asynccontextmanager
async def both_apis(settings: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    behind = settings.model_copy(update={"trusted_proxies": "127.0.0.1"})
    async with AsyncExitStack() as exits:
        commands, queries = [
            await exits.enter_async_context(client_of(module.create_app(behind))) for module in (command_api.app, query_api.app)
        ]
        yield commands, queries


async def listed(queries: httpx2.AsyncClient, query: str = "limit=100", token: str = OPERATOR) -> list[dict[str, Any]]:
    answer = await queries.get(f"/v1/audit-records?{query}", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def log_in(commands: httpx2.AsyncClient, password: str = PASSWORD, **headers: str) -> httpx2.Response:
    body = {"email": EMAIL, "password": password}
    return await commands.post("/v1/login", json=body, headers=PROXIED | {k.replace("_", "-"): v for k, v in headers.items()})


# ── acts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_every_act_on_credentials_has_a_record_with_its_caller(settings: Settings) -> None:
    """And no record holds a secret, a name or an address. An auditor sees them all."""
    auditor = await add_key(settings.database_url, "auditor", scopes=("ledger:read", "events:read"))
    async with both_apis(settings) as (commands, queries):
        ada = await Commands(commands).user(EMAIL)
        issued = await commands.post(f"/v1/users/{ada}/reset-token", headers=PROXIED)
        reset = {"token": issued.json()["token"], "password": PASSWORD}
        assert (await commands.post("/v1/password-resets", json=reset, headers=PROXIED)).status_code == 204
        assert (await log_in(commands, OTHER_PASSWORD)).status_code == 401
        first, second, third = [(await log_in(commands)).json() for _ in range(3)]
        path, headers = f"/v1/users/{ada}/sessions", bearer(first["token"]) | PROXIED
        await commands.delete(f"{path}/{second['session_id']}", headers=headers)
        await commands.delete(path, headers=headers)
        fourth = (await log_in(commands)).json()
        headers = bearer(fourth["token"]) | PROXIED
        for current in (OTHER_PASSWORD, PASSWORD):
            body = {"password": OTHER_PASSWORD, "current_password": current}
            await commands.put(f"/v1/users/{ada}/password", json=body, headers=headers)
        items = await listed(queries, token=auditor)
        everything = json.dumps(items)
    operator, user = key_id_of(OPERATOR), f"user:{ada}"
    acts = [(item["act"], item["caller"]["principal"], item["caller"]["key_id"]) for item in reversed(items)]
    assert acts == [
        ("limits-changed", "process:command-api", None),
        ("reset-token-issued", "operator", operator),
        ("password-set", None, None),
        ("login-denied", None, None),
        *[("session-begun", user, None)] * 3,
        ("session-ended", user, first["session_id"]),
        ("sessions-ended", user, first["session_id"]),
        ("session-begun", user, None),
        ("password-denied", user, fourth["session_id"]),
        ("password-set", user, fourth["session_id"]),
    ]
    assert {item["caller"]["network"] for item in items[:-1]} == {"203.0.113.0/24"}
    assert items[-2]["caller"]["request_id"] == issued.headers["request-id"]
    assert items[3]["data"] == {"user_id": ada, "session_ids": [third["session_id"], first["session_id"]]}
    assert {item["data"]["origin_key_id"] for item in items if "origin_key_id" in item["data"]} == {operator}
    secrets = (EMAIL, PASSWORD, OTHER_PASSWORD, "Ada", "203.0.113.77", reset["token"][4:], first["token"].split("_", 2)[2])
    assert not [secret for secret in secrets if secret in everything]


async def test_keys_and_limits_have_records_with_their_caller(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_admin") as admin, admin.begin() as connection:
        made = await make_key(connection, "billing", ["ledger:read"], lifetime=timedelta(days=1), caller=CALLER)
        rotated = await rotate_key(connection, key_id_of(made), timedelta(hours=1), CALLER)
        await revoke_key(connection, key_id_of(made), CALLER)
    few = settings.model_copy(update={"rate_limit_caller_per_minute": 1_000})
    for limits in (settings, settings, few):
        async with client_of(command_api.app.create_app(limits)):
            pass
    async with both_apis(few) as (_, queries):
        items = list(reversed(await listed(queries)))
    assert [item["act"] for item in items] == ["key-made", "key-rotated", "key-revoked", "limits-changed", "limits-changed"]
    assert items[0]["data"]["scopes"] == ["ledger:read"]
    assert items[1]["data"] == {
        "key_id": key_id_of(made),
        "new_key_id": key_id_of(rotated),
        "lifetime_seconds": 86_400,
        "overlap_seconds": 3_600,
    }
    assert {item["caller"]["principal"] for item in items[:3]} == {"operator:of a test"}
    assert items[-1]["data"]["rate_limit_caller_per_minute"] == 1_000
    assert not any(token.split("_", 2)[2] in json.dumps(items) for token in (made, rotated))


async def test_audit_records_are_read_in_pages_and_only_with_the_scope_and_of_the_own_ledger(settings: Settings) -> None:
    reader = await add_key(settings.database_url, "reader", scopes=("ledger:read", "ops:admin"))
    async with both_apis(settings) as (commands, queries):
        ada = await Commands(commands).user(EMAIL)
        for _ in range(4):
            assert (await commands.post(f"/v1/users/{ada}/reset-token")).status_code == 200
        async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
            await record(connection, "other", "login-denied", {"user_id": None}, CALLER)
        whole, found, path = await listed(queries), [], "/v1/audit-records?limit=2"
        while path:
            page = (await queries.get(path)).json()
            found += page["items"]
            path = page["next"] and f"/v1/audit-records?limit=2&cursor={page['next']}"
        assert found == whole
        assert [item["audit_position"] for item in found] == [5, 4, 3, 2, 1]
        assert (await queries.get("/v1/audit-records", headers=bearer(reader))).status_code == 403


@pytest.mark.parametrize("ledger_id", ["main", "nowhere"])
async def test_a_denied_login_costs_the_same_statements_if_the_ledger_is_missing(settings: Settings, ledger_id: str) -> None:
    statements: list[str] = []
    async with open_postgres(settings, "daybook_command") as engine:
        async with engine.begin() as connection:
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
            await record_anywhere(connection, ledger_id, "login-denied", {"user_id": None}, CALLER)
        assert len(statements) == 4
        async with engine.connect() as connection:
            chains = (await connection.execute(text("SELECT ledger_id FROM audit_records"))).scalars().all()
    assert chains == [ledger_id if ledger_id == "main" else NO_LEDGER]


@pytest.mark.slow
@pytest.mark.parametrize("act", ["reset token", "password", "login", "logout", "key"])
async def test_an_act_is_not_done_without_its_record(settings: Settings, act: str) -> None:
    async with both_apis(settings) as (commands, _), open_redis(settings) as redis, open_postgres_as_owner(settings) as owner:
        ada = await Commands(commands).user(EMAIL)
        assert (await give_password(commands, ada, PASSWORD)).status_code == 204
        begun = (await log_in(commands)).json()
        token = (await commands.post(f"/v1/users/{ada}/reset-token")).json()["token"]
        async with owner.begin() as connection:
            await connection.execute(text("REVOKE INSERT ON audit_records FROM daybook_command, daybook_admin"))
        before = await _credentials(owner, redis)
        match act:
            case "reset token":
                answer = await commands.post(f"/v1/users/{ada}/reset-token")
            case "password":
                answer = await commands.post("/v1/password-resets", json={"token": token, "password": OTHER_PASSWORD})
            case "login":
                answer = await log_in(commands)
            case "logout":
                answer = await commands.delete(f"/v1/users/{ada}/sessions/{begun['session_id']}")
            case _:
                answer = await _make_key(settings)
        assert answer.status_code >= 500
        assert await _credentials(owner, redis) == before


async def _make_key(settings: Settings) -> httpx2.Response:
    """Makes a key, with an answer in the form of the other acts."""
    try:
        async with open_postgres(settings, "daybook_admin") as admin, admin.begin() as connection:
            await make_key(connection, "billing", ["ledger:read"], caller=CALLER)
    except Exception as error:  # noqa: BLE001 # whatever kept it
        return httpx2.Response(503, text=str(error))
    return httpx2.Response(200)


async def _credentials(owner: AsyncEngine, redis: "Redis") -> list[Any]:
    async with owner.connect() as connection:
        tables = ("SELECT version FROM passwords", "SELECT token_hash FROM password_resets", "SELECT key_id FROM api_keys")
        rows = [(await connection.execute(text(statement))).scalars().all() for statement in tables]
    return [*rows, sorted([key async for key in redis.scan_iter("daybook:session*")])]


# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────────


NO_SEALS: Final = TrustedSeals({}, None, is_own=True)


async def make_records(settings: Settings, count: int) -> None:
    """Makes this many records at the same time."""

    async def make(engine: AsyncEngine, number: int) -> None:
        async with engine.begin() as connection:
            await record(connection, "main", "login-denied", {"user_id": f"number {number}"}, CALLER)

    patient = settings.model_copy(update={"database_pool_timeout_ms": 60_000, "database_lock_timeout_ms": 60_000})
    async with open_postgres(patient, "daybook_command") as engine:
        await asyncio.gather(*(make(engine, number) for number in range(count)))


async def difference(settings: Settings) -> str:
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        try:
            await verify_audit(connection, "main", NO_SEALS)
        except DifferenceFound as found:
            return str(found)
    return ""


async def test_records_made_at_once_are_one_chain(settings: Settings) -> None:
    await make_records(settings, 20)
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        assert (await verify_audit(connection, "main", NO_SEALS)).records == 20
        moments = (await connection.execute(text("SELECT recorded_at FROM audit_records ORDER BY position"))).scalars().all()
    assert moments == sorted(moments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE audit_records SET act = 'key-made' WHERE position = 3", "position 3 "),
        ("UPDATE audit_records SET data = '{}' WHERE position = 3", "position 3 "),
        ('UPDATE audit_records SET metadata = metadata || \'{"principal": "eve"}\' WHERE position = 3', "position 3 "),
        ("UPDATE audit_records SET metadata = metadata - 'network' WHERE position = 3", "position 3 "),
        ("UPDATE audit_records SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 3", "position 3 "),
        ("UPDATE audit_records SET hash = 'x' WHERE position = 3", "position 3 "),
        ("DELETE FROM audit_records WHERE position = 3", "expected 3, found 4"),
        ("DELETE FROM audit_records WHERE position = 1", "expected 1, found 2"),
        ("UPDATE audit_records SET position = -1 WHERE position = 5", "expected 1, found -1"),
    ],
)
async def test_a_change_to_an_audit_record_is_found_where_it_is(settings: Settings, change: str, where: str) -> None:
    """Also one by an administrator, whom no trigger stops."""
    await make_records(settings, 5)
    assert await difference(settings) == ""
    async with open_postgres_as_owner(settings) as owner:
        with pytest.raises(Exception, match="append-only"):
            async with owner.begin() as connection:
                await connection.execute(text(change))
        async with owner.begin() as connection:
            await connection.execute(text("ALTER TABLE audit_records DISABLE TRIGGER USER"))
            await connection.execute(text(change))
    assert where in await difference(settings)
