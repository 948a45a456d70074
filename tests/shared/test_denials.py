"""Events say who did what, the list of denials says who was denied, and neither they nor log lines hold secrets."""

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
from shared.identity import denials
from shared.identity.api_keys import key_id_of
from shared.identity.denials import OF_CALLERS, OF_STRANGERS, SOURCE_ITEMS
from shared.settings import Settings
from shared.stores.redis import open_redis
from tests.harness.clients import EUROS, Commands, client_of, created
from tests.harness.keys import OPERATOR, add_key, bearer, new_token
from tests.harness.running import Stack, environment_of, run_stack
from tests.harness.tokens import accepting_tokens, signed

PROXIED = {"x-forwarded-for": "203.0.113.77"}


@asynccontextmanager
async def both_apis(settings: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    async with AsyncExitStack() as exits:
        yield (
            await exits.enter_async_context(client_of(command_api.app.create_app(settings))),
            await exits.enter_async_context(client_of(query_api.app.create_app(settings))),
        )


async def recorded(client: httpx2.AsyncClient, enough: Callable[[list[Any]], bool], **headers: str) -> list[Any]:
    """The first page of denials, as soon as it has enough of them. Denials are recorded within a second."""
    async with asyncio.timeout(120):
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


async def test_an_event_names_its_caller_network_key_and_command(settings: Settings) -> None:
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


# ── denials ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_kind_of_denial_is_recorded_and_an_auditor_sees_it(settings: Settings) -> None:
    few = settings.model_copy(update={"trusted_proxies": "127.0.0.0/8", "rate_limit_address_per_minute": 3})
    auditor = bearer(await add_key(settings.database_url, "auditor", scopes=("ledger:read", "events:read")))
    async with both_apis(few) as (commands, queries):
        api = Commands(commands)
        ada, grace = await api.user(), await api.user()
        account = await api.account(grace)
        customer = bearer(await add_key(settings.database_url, "ada", user_id=ada))
        revoked = new_token()
        for _ in range(12):  # 401 three times (or some more, if Redis is slow), then 429
            await commands.post("/v1/users", json={}, headers=bearer(revoked) | PROXIED)
        await commands.post("/v1/accounts", json={}, headers=customer)  # 403
        await commands.patch(f"/v1/users/{grace}", json={"name": "Mine"}, headers=customer)  # foreign
        await queries.get("/v1/stats", headers={"daybook-ledger": "other"})  # of another tenant
        await queries.get(f"/v1/accounts/{uuid.UUID(int=7)}")  # an operator asks for a missing account: no denial
        items = await recorded(queries, lambda items: sum(item["count"] for item in items) >= 15, **auditor)
        about = {(item["code"], item["method"], item["path"]): item for item in items}
        assert about.keys() == {
            ("unauthorized", "POST", "/v1/users"),
            ("rate-limited", "POST", "/v1/users"),
            ("forbidden", "POST", "/v1/accounts"),
            ("not-found", "PATCH", f"/v1/users/{grace}"),
            ("not-found", "GET", "/v1/stats"),
        }
        stranger = about["unauthorized", "POST", "/v1/users"]
        assert (stranger["principal"], stranger["ledger_id"]) == ("", "main")
        assert sum(item["count"] for item in items if item["path"] == "/v1/users") == 12
        assert (stranger["address"], stranger["key_id"]) == ("203.0.113.77", key_id_of(revoked))
        foreign = about["not-found", "PATCH", f"/v1/users/{grace}"]
        assert (foreign["principal"], foreign["ledger_id"], foreign["api"]) == ("ada", "main", "commands")
        assert account not in json.dumps(items)


async def test_only_auditors_and_administrators_see_denials_and_only_of_their_ledger(settings: Settings) -> None:
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
        assert await recorded(queries, lambda _: True, **other) == []
        await commands.post("/v1/users", json={}, headers=bearer("nobody") | {"daybook-ledger": "other"})
        [item] = await recorded(queries, lambda items: len(items) >= 1, **other)
        assert (item["code"], item["ledger_id"]) == ("unauthorized", "other")


async def test_a_flood_of_equal_denials_is_one_item_each_second_and_hides_no_others(settings: Settings) -> None:
    async with both_apis(settings) as (commands, queries):
        await commands.post("/v1/users", json={}, headers=bearer("nobody"))
        for _ in range(200):
            await commands.post("/v1/accounts", json={}, headers=bearer("nobody"))
        items = await recorded(queries, lambda items: sum(item["count"] for item in items) >= 201)
        assert len(items) < 50
        assert "/v1/users" in {item["path"] for item in items}


@pytest.mark.slow
async def test_one_address_cannot_push_others_out_of_the_audit(settings: Settings) -> None:
    """Numbers in paths, invented methods, key ids and ledgers make no new items, and every attempt is counted.

    The attacker's attempts are more than the audit keeps, and come after those of others.
    """
    few = settings.model_copy(
        update={"refusals_max": 100, "trusted_proxies": "127.0.0.0/8", "rate_limit_address_per_minute": 1_000}
    )
    async with both_apis(few) as (commands, queries):
        await commands.post("/v1/deposits", json={}, headers=bearer("nobody") | {"x-forwarded-for": "198.51.100.9"})
        customer = bearer(await add_key(settings.database_url, "ada", user_id=await Commands(commands).user()))
        await commands.post("/v1/accounts", json={}, headers=customer)
        sent = 1_500
        for number in range(sent):
            named = {"daybook-ledger": f"l{number}"} if number % 3 == 0 else {}
            method, path = ("PATCH", f"/v1/users/{uuid.uuid4()}") if number % 2 else ("POST", f"/v1/accounts/{number}/close")
            await commands.request(method, path, json={}, headers=bearer(new_token()) | PROXIED | named)
        async with open_redis(settings) as redis:
            kept = await redis.xlen(OF_STRANGERS)
        assert kept <= SOURCE_ITEMS + 1
        items = await recorded(queries, lambda items: {"/v1/deposits", "/v1/accounts"} <= {item["path"] for item in items})
        assert {item["path"] for item in items if item["address"] == PROXIED["x-forwarded-for"]} <= {
            "/v1/users/*",
            "/v1/accounts/*/close",
        }
    # The merged attempts are stored when the process ends, or some minutes later.
    async with open_redis(settings) as redis:
        stored = [fields for _, fields in await redis.xrange(OF_STRANGERS)]
    counts = [int(fields["count"]) for fields in stored if fields["address"] == PROXIED["x-forwarded-for"]]
    assert sum(counts) == sent
    assert max(counts) >= sent - 1_000 - SOURCE_ITEMS
    assert len(counts) <= SOURCE_ITEMS + 2, "one merged item for 401, and one for 429"


@pytest.mark.slow
async def test_a_known_caller_cannot_push_strangers_or_other_callers_out(settings: Settings) -> None:
    few = settings.model_copy(update={"refusals_max": 5_000})
    async with both_apis(few) as (commands, queries):
        api = Commands(commands)
        loud, quiet = [bearer(await add_key(settings.database_url, name, user_id=await api.user())) for name in ("loud", "quiet")]
        await commands.post("/v1/users", json={}, headers=bearer("nobody"))
        await commands.post("/v1/accounts", json={}, headers=quiet)
        for _ in range(400):
            await commands.patch(f"/v1/users/{uuid.uuid4()}", json={"name": "Mine"}, headers=loud)
        items = await recorded(queries, lambda items: len(items) >= SOURCE_ITEMS)
        assert {"", "quiet", "loud"} == {item["principal"] for item in items}
        assert len([item for item in items if item["principal"] == "loud"]) == SOURCE_ITEMS
    async with open_redis(settings) as redis:
        [merged] = [fields for _, fields in await redis.xrange(OF_CALLERS) if fields["path"] == "*"]
    assert (merged["principal"], int(merged["count"])) == ("loud", 400 - SOURCE_ITEMS)


async def test_a_credential_that_has_ended_is_shown_to_its_own_ledger_and_to_no_other(settings: Settings) -> None:
    """An auditor of another ledger learns no address, id or key from requests that a tenant's own callers send."""
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    await connection.execute("INSERT INTO log_heads (ledger_id, position, hash, recorded_at) VALUES ('other', 0, '', now())")
    valid, revoked, expired = [await add_key(settings.database_url, name, ledger_id="other") for name in ("a", "b", "c")]
    await connection.execute("UPDATE api_keys SET revoked_at = now() WHERE principal = 'b'")
    await connection.execute("UPDATE api_keys SET expires_at = now() WHERE principal = 'c'")
    await connection.close()
    guessed = f"{revoked[:-3]}AAA"
    auditor = bearer(await add_key(settings.database_url, "auditor", scopes=("events:read",), ledger_id="other"))
    account = str(uuid.uuid4())
    async with both_apis(accepting_tokens(settings)) as (_, queries):
        path = f"/v1/accounts/{account}"
        for token in (revoked, expired, guessed, signed(ledger="other", iat=1, exp=2)):
            assert (await queries.get(path, headers=bearer(token))).status_code == 401
        assert (await queries.get(path, headers=bearer(valid) | {"daybook-ledger": "main"})).status_code == 404
        own = await recorded(queries, lambda items: len(items) >= 5, **auditor)
        assert {(item["principal"], item["path"]) for item in own} == {
            *((name, path) for name in ("a", "b", "c", "jwt:billing")),
            ("", "/v1/accounts/*"),
        }
        assert (await queries.get("/v1/refusals")).json()["items"] == []


async def test_unknown_parts_of_a_path_are_not_kept(settings: Settings) -> None:
    async with both_apis(settings) as (_, queries):
        customer = bearer(await add_key(settings.database_url, "ada", user_id=str(uuid.uuid4())))
        await queries.get(f"/v1/accounts/{OPERATOR}?password=hunter2", headers=bearer("nobody"))
        await queries.get("/v1/streams/ada.lovelace@example.com", headers=customer)
        items = await recorded(queries, lambda items: len(items) >= 2)
        assert {item["path"] for item in items} == {"/v1/accounts/*", "/v1/streams/*"}


async def test_denials_have_pages_and_a_maximum_number(settings: Settings) -> None:
    """The pages hold the denials of callers and of strangers in one order, each once."""
    few = settings.model_copy(update={"refusals_max": 300})
    item = {"code": "unauthorized", "api": "queries", "method": "GET", "address": "", "principal": "", "key_id": ""}
    async with both_apis(few) as (commands, queries), open_redis(settings) as redis:
        begin = int(time.time() * 1000) - 1_000
        for number in range(700):
            stream = (OF_CALLERS, OF_STRANGERS)[number % 2]
            fields: dict[Any, Any] = item | {"path": str(number), "ledger_id": "main", "request_id": "", "count": 1}
            await redis.xadd(stream, fields, id=f"{begin + number // 4}-{number % 4 // 2 + 1}")
        for token in ("nobody", OPERATOR):
            await commands.post("/v1/users", json={}, headers=bearer(token) | {"daybook-ledger": "main" * (token == "nobody")})
        await recorded(queries, lambda items: "/v1/users" in {item["path"] for item in items})
        async with asyncio.timeout(120):
            while (kept := [await redis.xlen(stream) for stream in (OF_CALLERS, OF_STRANGERS)])[1] > 400:
                await asyncio.sleep(0.1)
        seen: list[Any] = []
        address: str | None = "/v1/refusals?limit=70"
        while address:
            page = (await queries.get(address)).json()
            seen += page["items"]
            address = f"/v1/refusals?limit=70&cursor={page['next']}" if page["next"] else None
        assert len(seen) == sum(kept)
        assert len({each["path"] for each in seen}) == len(seen)
        assert [each["refused_at"] for each in seen] == sorted((each["refused_at"] for each in seen), reverse=True)


async def test_old_denials_are_removed(settings: Settings) -> None:
    long_ago = int(time.time() * 1000) - 31 * denials.DAY_MILLISECONDS
    async with open_redis(settings) as redis:
        for stream in (OF_CALLERS, OF_STRANGERS):
            await redis.xadd(stream, {"code": "unauthorized"}, id=f"{long_ago}-0")
        async with both_apis(settings) as (_, queries):
            assert (await queries.get("/v1/refusals")).json()["items"] == []
            async with asyncio.timeout(120):
                while await redis.xlen(OF_CALLERS) or await redis.xlen(OF_STRANGERS):
                    await asyncio.sleep(0.05)


async def test_without_redis_a_denial_is_still_answered_and_is_counted_as_dropped(
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
            state["denials"].record(scope, 403)
            async with asyncio.timeout(120):
                while not state["denials"].dropped:
                    await asyncio.sleep(0.1)
    finally:
        await server.stop()


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

NAME, EMAIL, AMOUNT, REFERENCE = "Zebulon Quagmire", "zebulon.quagmire@example.net", 918_273_645, "for the zeppelin"


@pytest.mark.slow
async def test_no_log_line_holds_a_secret_a_name_or_an_amount(settings: Settings, tmp_path: Path) -> None:
    """Errors are tried too: a database quotes the row that it rejects."""
    wrong = new_token()
    async with run_stack(settings, tmp_path, DAYBOOK_LOG_LEVEL="DEBUG") as stack:
        async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), trust_env=False, timeout=60) as client:
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
    """Sends requests that succeed and that fail, with planted names, amounts and tokens. Returns an account with money."""
    user = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    payer, payee = await api.account(user), await api.account(user)
    await api.post("/v1/deposits", {"account_id": payer, "amount": AMOUNT, **EUROS, "reference": REFERENCE})
    await api.transfer(payer, payee, AMOUNT)
    await api.transfer(payer, payee, AMOUNT)  # rejected: insufficient funds
    await api.post("/v1/users", {"name": NAME, "email": EMAIL})  # taken
    await api.post("/v1/users", {"name": NAME, "email": EMAIL, NAME: AMOUNT})
    await api.post(f"/v1/{EMAIL}", {})
    await api.client.post("/v1/users", content=f'{{"name": "{NAME}"', headers={"content-type": "application/json"})
    await api.client.post("/v1/users", json={}, headers=bearer(wrong))
    await api.client.get(f"/nowhere/{OPERATOR}?email={EMAIL}")
    first_name = NAME.partition(" ")[0]
    async with httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(), trust_env=False, timeout=60) as client:
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
    """Makes PostgreSQL reject every new event with an error that quotes it."""
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
