"""Who did what stands in the events, who was refused in the list of refusals, and secrets in neither nor in a log."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

import command_api.app
import query_api.app
from dev.servers import Redis
from shared import refusals
from shared.api_keys import key_id_of
from shared.connections import open_redis
from shared.refusals import STREAM
from shared.settings import Settings
from tests.clients import EUROS, Commands, client_of, created
from tests.keys import OPERATOR, add_key, bearer, new_token
from tests.running import Stack, environment_of, run_stack

PROXIED = {"x-forwarded-for": "203.0.113.77"}


@asynccontextmanager
async def both_apis(settings: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    async with AsyncExitStack() as exits:
        yield (
            await exits.enter_async_context(client_of(command_api.app.create_app(settings))),
            await exits.enter_async_context(client_of(query_api.app.create_app(settings))),
        )


async def recorded(client: httpx2.AsyncClient, enough: Callable[[list[Any]], bool], **headers: str) -> list[Any]:
    """The first page of refusals, once there are enough: they are recorded a second later."""
    async with asyncio.timeout(10):
        while True:
            answer = await client.get("/v1/refusals?limit=100", headers=headers)
            assert answer.status_code == 200, answer.text
            if enough(items := answer.json()["items"]):
                return list(items)
            await asyncio.sleep(0.1)


async def events_of(settings: Settings) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        return [json.loads(row["metadata"]) for row in await connection.fetch("SELECT metadata FROM events ORDER BY position")]
    finally:
        await connection.close()


# ── who did what ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_says_who_caused_it_from_where_with_which_key_and_command(settings: Settings) -> None:
    behind_proxy = settings.model_copy(update={"trusted_proxies": "127.0.0.0/8"})
    async with client_of(command_api.app.create_app(behind_proxy)) as client:
        answer = await client.post("/v1/users", json={"name": "Ada", "email": "ada@example.com"}, headers=PROXIED)
        created(answer)
    [metadata] = await events_of(settings)
    assert metadata == {
        "principal": "operator",
        "key_id": key_id_of(OPERATOR),
        "command": "CreateUser",
        "network": "203.0.113.0/24",
        "request_id": answer.headers["request-id"],
    }


# ── who was refused ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_kind_of_refusal_is_recorded_and_an_auditor_sees_it(settings: Settings) -> None:
    few = settings.model_copy(update={"trusted_proxies": "127.0.0.0/8", "rate_limit_address_per_minute": 3})
    auditor = bearer(await add_key(settings.database_url, "auditor", scopes=("ledger:read", "events:read")))
    async with both_apis(few) as (commands, queries):
        api = Commands(commands)
        ada, grace = await api.user(), await api.user()
        account = await api.account(grace)
        customer = bearer(await add_key(settings.database_url, "ada", user_id=ada))
        revoked = new_token()
        for _ in range(5):  # 401 three times, then 429
            await commands.post("/v1/users", json={}, headers=bearer(revoked) | PROXIED)
        await commands.post("/v1/accounts", json={}, headers=customer)  # 403
        await commands.patch(f"/v1/users/{grace}", json={"name": "Mine"}, headers=customer)  # foreign
        await queries.get("/v1/stats", headers={"daybook-ledger": "other"})  # of another tenant
        await queries.get(f"/v1/accounts/{uuid.UUID(int=7)}")  # an operator asks for what is not there: no refusal
        items = await recorded(queries, lambda items: len(items) >= 5, **auditor)
        about = {(item["code"], item["method"], item["path"]): item for item in items}
        assert about.keys() == {
            ("unauthorized", "POST", "/v1/users"),
            ("rate-limited", "POST", "/v1/users"),
            ("forbidden", "POST", "/v1/accounts"),
            ("not-found", "PATCH", f"/v1/users/{grace}"),
            ("not-found", "GET", "/v1/stats"),
        }
        stranger = about["unauthorized", "POST", "/v1/users"]
        assert (stranger["count"], stranger["principal"], stranger["ledger_id"]) == (3, "", "")
        assert (stranger["address"], stranger["key_id"]) == ("203.0.113.77", key_id_of(revoked))
        foreign = about["not-found", "PATCH", f"/v1/users/{grace}"]
        assert (foreign["principal"], foreign["ledger_id"], foreign["api"]) == ("ada", "main", "commands")
        assert account not in json.dumps(items)


async def test_only_auditors_and_administrators_see_refusals_and_only_of_their_ledger(settings: Settings) -> None:
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    await connection.execute("INSERT INTO log_heads (ledger_id, position, hash, recorded_at) VALUES ('other', 0, '', now())")
    await connection.close()
    other = bearer(await add_key(settings.database_url, "auditor", scopes=("events:read",), ledger_id="other"))
    reader = bearer(await add_key(settings.database_url, "reader", scopes=("ledger:read",)))
    async with both_apis(settings) as (commands, queries):
        assert (await queries.get("/v1/refusals", headers=reader)).status_code == 403
        await commands.post("/v1/users", json={}, headers=bearer("nobody"))
        items = await recorded(queries, lambda items: len(items) >= 2)
        assert {item["code"] for item in items} == {"forbidden", "unauthorized"}
        assert [item["code"] for item in await recorded(queries, lambda _: True, **other)] == ["unauthorized"]


async def test_a_flood_of_refusals_is_one_entry_for_each_second_and_does_not_hide_others(settings: Settings) -> None:
    async with both_apis(settings) as (commands, queries):
        await commands.post("/v1/users", json={}, headers=bearer("nobody"))
        for _ in range(200):
            await commands.post("/v1/accounts", json={}, headers=bearer("nobody"))
        items = await recorded(queries, lambda items: sum(item["count"] for item in items) >= 201)
        assert len(items) < 50
        assert "/v1/users" in {item["path"] for item in items}


async def test_what_stands_in_a_path_by_mistake_is_not_kept(settings: Settings) -> None:
    async with both_apis(settings) as (_, queries):
        customer = bearer(await add_key(settings.database_url, "ada", user_id=str(uuid.uuid4())))
        await queries.get(f"/v1/accounts/{OPERATOR}?password=hunter2", headers=bearer("nobody"))
        await queries.get("/v1/streams/ada.lovelace@example.com", headers=customer)
        items = await recorded(queries, lambda items: len(items) >= 2)
        assert {item["path"] for item in items} == {"/v1/accounts/*", "/v1/streams/*"}


async def test_refusals_have_pages_and_a_bound(settings: Settings) -> None:
    few = settings.model_copy(update={"refusals_max": 200})
    async with both_apis(few) as (commands, queries), open_redis(settings) as redis:
        for _ in range(10):
            for _ in range(100):
                await commands.patch(f"/v1/users/{uuid.uuid4()}", json={}, headers=bearer("nobody"))
            await asyncio.sleep(1.1)
        kept = await redis.xlen(STREAM)
        assert 200 <= kept <= 400
        seen: list[str] = []
        address: str | None = "/v1/refusals?limit=70"
        while address:
            page = (await queries.get(address)).json()
            seen += [item["path"] for item in page["items"]]
            address = f"/v1/refusals?limit=70&cursor={page['next']}" if page["next"] else None
        assert len(seen) == kept
        assert len(set(seen)) >= 200


async def test_old_refusals_are_forgotten(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "SEND_SECONDS", 0.1)
    long_ago = int(time.time() * 1000) - 31 * refusals.DAY_MILLISECONDS
    async with open_redis(settings) as redis:
        await redis.xadd(STREAM, {"code": "unauthorized"}, id=f"{long_ago}-0")
        async with both_apis(settings) as (_, queries):
            assert (await queries.get("/v1/refusals")).json()["items"] == []
            async with asyncio.timeout(5):
                while await redis.xlen(STREAM):
                    await asyncio.sleep(0.05)


async def test_without_redis_a_refusal_is_answered_all_the_same_and_counted_as_lost(
    settings: Settings, server_folder: Path
) -> None:
    server = Redis("redis-audit", server_folder)
    await server.start()
    try:
        lonely = settings.model_copy(update={"redis_url": server.url})
        app = command_api.app.create_app(lonely)
        async with app.router.lifespan_context(app) as state:
            assert state
            await server.kill()
            scope: Any = {"headers": [], "method": "GET", "path": "/v1/users", "state": {"request_id": "1"}}
            state["refusals"].note(scope, 403)
            async with asyncio.timeout(10):
                while not state["refusals"].dropped:
                    await asyncio.sleep(0.1)
            for number in range(refusals.WAITING_MAX + 50):
                state["refusals"].note({**scope, "path": f"/{number}"}, 403)
            assert state["refusals"].dropped >= 51
    finally:
        await server.stop()


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

NAME, EMAIL, AMOUNT, REFERENCE = "Zebulon Quagmire", "zebulon.quagmire@example.net", 918_273_645, "for the zeppelin"


async def test_no_log_holds_a_secret_a_person_or_an_amount(settings: Settings, tmp_path: Path) -> None:
    """Also not where things go wrong: a database quotes the row that it refuses."""
    wrong = new_token()
    async with run_stack(settings, tmp_path, DAYBOOK_LOG_LEVEL="DEBUG") as stack:
        async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), trust_env=False, timeout=20) as client:
            api = Commands(client)
            account_id = await _drive(api, stack, wrong)
            await _break_the_database(settings)
            assert (await api.deposit(account_id, AMOUNT)).status_code == 503
            assert (await api.post("/v1/users", {"name": NAME, "email": EMAIL.replace("net", "org")})).status_code == 503
    logs = "\n".join(path.read_text(errors="replace") for path in tmp_path.glob("*.log"))
    assert "ViolationError" in logs, "nothing went wrong, so nothing was tried"
    for planted in (*NAME.split(), EMAIL, "quagmire", str(AMOUNT), REFERENCE, OPERATOR, wrong, *_secrets(settings)):
        assert planted not in logs, f"{planted!r} is in a log"


async def _drive(api: Commands, stack: Stack, wrong: str) -> str:
    """What goes well and what does not, with planted names, amounts and tokens everywhere. Gives an account with money."""
    user = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    payer, payee = await api.account(user), await api.account(user)
    await api.post("/v1/deposits", {"account_id": payer, "amount": AMOUNT, **EUROS, "reference": REFERENCE})
    await api.transfer(payer, payee, AMOUNT)
    await api.transfer(payer, payee, AMOUNT)  # refused for want of funds
    await api.post("/v1/users", {"name": NAME, "email": EMAIL})  # taken
    await api.post("/v1/users", {"name": NAME, "email": EMAIL, NAME: AMOUNT})
    await api.post(f"/v1/{EMAIL}", {})
    await api.client.post("/v1/users", content=f'{{"name": "{NAME}"', headers={"content-type": "application/json"})
    await api.client.post("/v1/users", json={}, headers=bearer(wrong))
    await api.client.get(f"/nowhere/{OPERATOR}?email={EMAIL}")
    first_name = NAME.partition(" ")[0]
    async with httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(), trust_env=False, timeout=20) as client:
        for path in (
            f"/v1/users?search={first_name}",
            f"/v1/users/{user}",
            f"/v1/users?email={EMAIL}",
            "/v1/events",
        ):
            await client.get(path, headers={"daybook-min-position": "5", "prefer": "wait=5"})
        await client.get(f"/v1/transfers?amount[gte]={AMOUNT}&cursor={wrong}")
    return payee


async def _break_the_database(settings: Settings) -> None:
    """Every new event is refused, with an error that quotes it."""
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        await connection.execute("""
            CREATE FUNCTION quote_row() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'cannot store %', NEW USING ERRCODE = 'check_violation'; END $$
        """)
        await connection.execute("CREATE TRIGGER broken BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION quote_row()")
    finally:
        await connection.close()


def _secrets(settings: Settings) -> list[str]:
    values = environment_of(settings)
    passwords = [httpx2.URL(value).password for value in values.values() if "://" in value]
    return [*filter(None, passwords), *(values[name] for name in ("DAYBOOK_SECRET", "DAYBOOK_MASTER_KEYS"))]
