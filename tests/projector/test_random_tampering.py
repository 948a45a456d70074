"""Somebody who can write everywhere changes one thing at random. `daybook verify` finds it, or docs/proof.md says why not.

The tampering is drawn from a seed, so that a failed one can be repeated. After each, all stores are as they were.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from command_api.past_history import DOMAIN
from projector.projections.registry import PROJECTIONS
from projector.verify.ledger import CheckOutcome, CheckVerdict, verify_ledger
from shared.errors import DaybookError
from shared.settings import Settings
from tests.harness.documents import documents_of
from tests.harness.log import Book
from tests.harness.progress import hide_progress
from tests.harness.projecting import Ledger, open_ledger
from tests.harness.running import Servers
from tests.harness.seals import SealedLog, sealed_log, sealing
from tests.projector.test_verify_replies import fill

pytestmark = pytest.mark.services

TABLES: Final = ("events", "stream_events", "streams", "log_heads", "idempotency_keys", "seals", "seal_nodes", "person_keys")
NOT_PROMISED: Final = {
    ("streams", "fold_version"): "nothing uses a snapshot of another fold version",
    ("idempotency_keys", "key"): "the log does not hold keys",
    ("idempotency_keys", "request_hash"): "the log does not hold hashes of requests",
    ("idempotency_keys", "principal"): "the log does not hold who was rejected",
}
"""Table and column → why no check finds a well-formed change. docs/proof.md lists each."""

CHANGED: Final = {
    "int8": "{0} + (CASE WHEN random() < 0.5 THEN 1 ELSE -1 END) * (1 + floor(random() * 3))::int",
    "int2": "{0} + 1",
    "text": "{0} || 'x'",
    "bytea": "set_byte({0}, floor(random() * length({0}))::int, floor(random() * 256)::int)",
    "jsonb": "jsonb_set({0}, ARRAY[(SELECT k FROM jsonb_object_keys({0}) k ORDER BY random() LIMIT 1)], '\"forged\"')",
    "timestamptz": "{0} + (random() - 0.5) * interval '3 days'",
    "uuid": "gen_random_uuid()",
}
"""Type of a column → an expression that makes another value from it."""

Undo = Callable[[], Awaitable[Any]]


class Attacker:
    """Changes one thing at random, and can undo it."""

    def __init__(self, log: SealedLog, ledger: Ledger, chance: random.Random) -> None:
        self.superuser: asyncpg.Connection = log.superuser
        self.ledger = ledger
        self.file = log.file
        self.chance = chance

    async def save(self) -> None:
        await self.superuser.execute("CREATE SCHEMA saved")
        for table in TABLES:
            await self.superuser.execute(f"CREATE TABLE saved.{table} AS TABLE public.{table}")

    async def tamper(self) -> tuple[str, Undo]:
        """Returns what was changed, or an empty text if nothing was, and how to undo it."""
        return await self.chance.choice((self._row, self._row, self._row, self._document, self._key, self._seal_line))()

    # ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _row(self) -> tuple[str, Undo]:
        table = self.chance.choice(TABLES)
        columns = await self.superuser.fetch(
            "SELECT column_name, udt_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1",
            table,
        )
        count = await self.superuser.fetchval(f"SELECT count(*) FROM {table}")
        if not count:
            return "", _nothing
        row = f"ctid = (SELECT ctid FROM {table} ORDER BY {table}::text OFFSET {self.chance.randrange(count)} LIMIT 1)"
        is_rejection = table == "idempotency_keys" and await self.superuser.fetchval(
            f"SELECT position IS NULL FROM {table} WHERE {row}"
        )
        name, kind = self.chance.choice(columns)
        if (table, name) in NOT_PROMISED or is_rejection:
            return "", _nothing
        if self.chance.random() < 0.2 and not await self._is_optional(table, row):
            statement = f"DELETE FROM {table} WHERE {row}"
        else:
            await self.superuser.execute("SELECT setseed($1)", self.chance.random())
            statement = f"UPDATE {table} SET {name} = {CHANGED[kind].format(name)} WHERE {row}"
        try:
            done = await self.superuser.execute(statement)
        except asyncpg.PostgresError:
            return "", _nothing  # not a value that the column can have
        if done.endswith(" 0") or await self._is_as_saved(table):
            return "", _nothing
        return statement, lambda: self._restore(table)

    async def _is_optional(self, table: str, row: str) -> bool:
        """True for a reply to a command that does not move money: nothing says that its caller sent an idempotency key."""
        if table != "idempotency_keys":
            return False
        position = await self.superuser.fetchval(f"SELECT position FROM {table} WHERE {row}")
        kind = await self.superuser.fetchval("SELECT type FROM events WHERE position = $1", position)
        return not str(kind).startswith("Funds")

    async def _is_as_saved(self, table: str) -> bool:
        gone, new = f"TABLE saved.{table} EXCEPT TABLE {table}", f"TABLE {table} EXCEPT TABLE saved.{table}"
        return not await self.superuser.fetchval(f"SELECT EXISTS ({gone}) OR EXISTS ({new})")

    async def _restore(self, table: str) -> None:
        await self.superuser.execute(f"DELETE FROM {table}; INSERT INTO {table} TABLE saved.{table}")

    # ── MongoDB and Redis ────────────────────────────────────────────────────────────────────────────────────────────

    async def _document(self) -> tuple[str, Undo]:
        name = self.chance.choice([each.model.name for each in PROJECTIONS if each.model.store == "mongo"])
        documents = documents_of(self.ledger.stores.mongo, name)
        found = await documents.all()
        if not found:  # the history has no schedule, for example
            return "", _nothing
        document = self.chance.choice(found)

        async def undo() -> None:
            await documents.clear()
            await documents.insert(*found)

        how = self.chance.randrange(3)
        if how == 0:
            await documents.delete(document["_id"])
        elif how == 1:
            await documents.insert(document | {"_id": f"forged {self.chance.random()}", "position": 1})
        else:
            field = self.chance.choice([field for field in document if field != "_id"])
            await documents.set({field: "forged"}, {"_id": document["_id"]})
        return f"{name}, {how}", undo

    async def _key(self) -> tuple[str, Undo]:
        redis: Any = self.ledger.stores.redis
        keys = sorted([key async for key in redis.scan_iter(match="daybook:{main}:*:1:*")])
        key = self.chance.choice(keys)
        dumped, kind = await redis.execute_command("DUMP", key, NEVER_DECODE=True), await redis.type(key)

        async def undo() -> None:
            await redis.restore(key, 0, dumped, replace=True)

        if self.chance.random() < 0.3:
            await (redis.delete(key) if self.chance.random() < 0.5 else redis.expire(key, 10_000))
        elif kind == "hash":
            await redis.hset(key, self.chance.choice(sorted(await redis.hkeys(key))), "77")
        elif kind == "zset":
            await redis.zadd(key, {self.chance.choice(await redis.zrange(key, 0, -1)): 777})
        elif kind == "list":
            await redis.lset(key, self.chance.randrange(await redis.llen(key)), "{}")
        else:
            await redis.set(key, "7")
        return f"{key}, {kind}", undo

    # ── published seals ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _seal_line(self) -> tuple[str, Undo]:
        before = self.file.read_bytes()
        place = self.chance.randrange(len(before))
        cut, changed = (
            before[:place],
            before[:place] + bytes([before[place] ^ (1 << self.chance.randrange(7))]) + before[place + 1 :],
        )
        after = self.chance.choice((cut, changed))
        self.file.write_bytes(after)

        async def undo() -> None:
            self.file.write_bytes(before)

        return f"seals, {after[: place + 1][-20:]!r}", undo


async def _nothing() -> None:
    pass


async def verified(settings: Settings) -> bool:
    """True if `daybook verify` reports a difference or refuses to go on. A store that is too slow to answer is asked again."""
    outcomes: list[CheckOutcome] = []
    while True:
        try:
            verdicts = await verify_ledger(settings, "main", None, DOMAIN, hide_progress, outcomes.append)
        except TimeoutError:
            continue
        except DaybookError:
            return True
        return verdicts != {CheckVerdict.OK}


@pytest.mark.proof(10, 1_000)
async def test_a_change_anywhere_is_found(settings: Settings, servers: Servers, tmp_path: Path, seeds: Iterator[int]) -> None:
    await fill(settings)
    sealed = sealing(settings, tmp_path)
    async with sealed_log(sealed, servers) as log, open_ledger(sealed) as ledger:
        await log.seal()
        await log.record(Book(7).history(300))
        await log.seal()
        await ledger.build()
        attacker = Attacker(log, ledger, random.Random())
        await attacker.save()
        assert not await verified(sealed)
        for seed in seeds:
            attacker.chance.seed(seed)
            what, undo = await attacker.tamper()
            while not what:
                what, undo = await attacker.tamper()
            assert await verified(sealed), f"seed {seed}: {what}"
            await undo()
        assert not await verified(sealed), "everything was undone"
