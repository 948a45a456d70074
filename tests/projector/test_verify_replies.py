"""Stored replies follow from the log: `daybook verify` finds each that was changed, removed or added."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.log.heads import read_head
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.command_api.test_dry_runs import many, postings
from tests.command_api.test_exchange_requests import exchange, parties
from tests.harness.clients import Commands, command_api, created
from tests.harness.running import Servers

pytestmark = pytest.mark.services


@pytest_asyncio.fixture
async def superuser(settings: Settings, servers: Servers) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(servers.postgres.superuser_url, database=make_url(settings.database_url).database)
    yield connection
    await connection.close()


async def limit_and_describe(commands: Commands, account_id: str) -> None:
    """Changes what the account may spend, and its metadata: to something, to the same again, and to nothing."""
    path, client = f"/v1/accounts/{account_id}", commands.client
    for number, (per_day, metadata) in enumerate(((50, {"iban": "DE02"}), (50, {"iban": "DE02"}), (None, None))):
        await client.put(f"{path}/limits", json={"per_day": per_day}, headers={"Idempotency-Key": f"limits-{number}"})
        await commands.withdraw(account_id, 51, idempotency_key=f"limited-{number}")
        await client.patch(path, json={"metadata": metadata}, headers={"Idempotency-Key": f"metadata-{number}"})


async def fill(settings: Settings) -> None:
    """Sends commands of every kind with idempotency keys: accepted, rejected, without effect, one by one and many at once."""
    async with command_api(settings) as commands:
        users = [
            created(await commands.post("/v1/users", {"name": "Ada", "email": f"a{n}@example.com"}, idempotency_key=f"user-{n}"))
            for n in range(3)
        ]
        accounts = [await commands.account(user, balance=1_000) for user in users]
        body = {"owner_id": users[0], "currency": "EUR", "overdraft_limit": 70}
        accounts.append(created(await commands.post("/v1/accounts", body, idempotency_key="account")))
        for number in range(5):
            paid = created(await commands.transfer(accounts[0], accounts[1], 10, idempotency_key=f"t-{number}"))
            await commands.post(f"/v1/transfers/{paid}/reverse", {"amount": number + 1}, idempotency_key=f"reverse-{number}")
            await commands.post(f"/v1/transfers/{paid}/reverse", {}, idempotency_key=f"rest-{number}")
        await fill_many(commands, *accounts[:2])
        await commands.withdraw(accounts[0], 10**6, idempotency_key="rejected")
        await commands.withdraw(accounts[3], 70, idempotency_key="overdraft")
        for number, limit in enumerate((90, 90, 60)):
            await commands.client.put(
                f"/v1/accounts/{accounts[3]}/overdraft-limit",
                json={"overdraft_limit": limit},
                headers={"Idempotency-Key": f"limit-{number}"},
            )
        await limit_and_describe(commands, accounts[3])
        for turn in range(2):
            for word in ("freeze", "unfreeze"):
                await commands.post(f"/v1/accounts/{accounts[2]}/{word}", idempotency_key=f"{word}-{turn}")
        await commands.post(f"/v1/accounts/{accounts[2]}/unfreeze", idempotency_key="no-effect")
        items = [
            {"from_account_id": accounts[0], "to_account_id": accounts[1], "amount": n + 1, "currency": "EUR"} for n in range(4)
        ]
        for mode in ("independent", "atomic"):
            await commands.post("/v1/transfers/batch", {"mode": mode, "transfers": items}, idempotency_key=mode)
        for number, fields in enumerate(({}, {"to_account_id": accounts[1], "expires_at": "2199-01-01T00:00:00Z"}, {})):
            body = {"account_id": accounts[0], "amount": 20, "currency": "EUR", **fields}
            hold_id = created(await commands.post("/v1/holds", body, idempotency_key=f"hold-{number}"))
            if number < 2:
                body = {"amount": 5, "reference": "part", "final": bool(number)}
                created(await commands.post(f"/v1/holds/{hold_id}/capture", body, idempotency_key=f"capture-{number}"))
        await commands.post(f"/v1/holds/{hold_id}/release", idempotency_key="release")
        await commands.post(f"/v1/holds/{hold_id}/release", idempotency_key="release-again")
        for number, changes in enumerate(({"name": "Eve"}, {"metadata": {"number": "4711"}}, {"metadata": None})):
            key = {"Idempotency-Key": f"user-{number}"}
            await commands.client.patch(f"/v1/users/{users[0]}", json=changes, headers=key)
        for word in ("deactivate", "deactivate", "reactivate"):
            await commands.post(f"/v1/users/{users[1]}/{word}", idempotency_key=f"{word}-{len(users)}")
        await commands.post(f"/v1/users/{users[1]}/deactivate", idempotency_key="deactivate-again")
        await commands.post(f"/v1/users/{users[2]}/erase", idempotency_key="erase")


async def fill_many(commands: Commands, payer: str, payee: str) -> None:
    """Sends batches of commands of many kinds, and transfers with postings, and exchanges."""
    ends = await parties(commands)
    for number, mode in enumerate(("independent", "atomic")):
        await commands.post("/v1/batch", many(payer, payee, mode, 30 + 10 * number), idempotency_key=f"many-{mode}")
        created(await commands.post("/v1/transfers", postings(payer, payee, 5), idempotency_key=f"postings-{number}"))
        created(await exchange(commands, ends, 10, "1.05", f"exchange-{number}"))


async def fault(settings: Settings) -> str:
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, "main")).position
        _, replies = await verify_events(connection, "main", head, DOMAIN, PersonKeys(settings), lambda _: None)
    return replies.fault


async def test_every_kind_of_reply_follows_from_the_log(settings: Settings, superuser: asyncpg.Connection) -> None:
    await fill(settings)
    assert await superuser.fetchval("SELECT count(*) FROM idempotency_keys") > 20
    assert await fault(settings) == ""


@pytest.mark.slow
async def test_each_reply_that_is_changed_moved_or_removed_is_found(settings: Settings, superuser: asyncpg.Connection) -> None:
    """Goes through all replies. Of a rejection only the form is checked, because it left no event to follow from."""
    await fill(settings)
    missed = []
    for row in await superuser.fetch("SELECT * FROM idempotency_keys"):
        changes: list[tuple[str, Any]] = [("status", 500), ("request_hash", b""), ("body", row["body"] + b" "), ("body", b"{}")]
        if row["position"]:
            changes += [("position", None), ("position", row["position"] + 1), ("body", _richer(row["body"]))]
        for column, value in changes:
            where = "WHERE principal = $2 AND key = $3"
            before = row[column]
            await superuser.execute(f"UPDATE idempotency_keys SET {column} = $1 {where}", value, row["principal"], row["key"])
            if not await fault(settings):
                missed.append((row["key"], column, value))
            await superuser.execute(f"UPDATE idempotency_keys SET {column} = $1 {where}", before, row["principal"], row["key"])
    assert missed == []
    await superuser.execute("DELETE FROM idempotency_keys WHERE key = 't-2'")
    assert "the log needs one, and there is none" in await fault(settings)


def _richer(body: bytes) -> bytes:
    """Returns the body with another amount or version."""
    prefix = b"sealed:" if body.startswith(b"sealed:") else b""
    members = orjson.loads(body.removeprefix(prefix))
    inner = members["body"] if prefix else members
    name = next(name for name in ("amount", "version", "results", "postings") if name in inner)
    inner[name] = inner[name][:-1] if name in {"results", "postings"} else inner[name] + 1
    return prefix + orjson.dumps(members)
