"""A subscriber sees every committed event once and in order, under appends that race, linger and are rolled back.

The same check is held against three ways to follow a table that look right, and finds what each of them loses: so it can see.
`make prove` appends 20,000 times.
"""

import asyncio
import multiprocessing
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg
import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.feed import Feed
from shared.log.account_events import AccountOpened
from shared.log.money_events import FundsTransferred
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.log import PERSON_KEYS, append, append_within
from tests.harness.running import Servers

pytestmark = pytest.mark.services

WRITERS: Final = 3
TASKS: Final = 4
ACCOUNTS: Final = [str(uuid.UUID(int=number)) for number in range(1, 7)]
DAWDLE_SECONDS: Final = 0.004

Seen = list[tuple[int, Mapping[str, int]]]
"""Each event in the order of arrival: its position, and its version in each of its streams."""


class LostError(AssertionError):
    """A subscriber missed an event or got it out of order."""


def check(seen: Seen, committed: set[int]) -> None:
    """Raises:
    LostError: not every committed event once, or a stream's versions not one after another.
    """
    positions = [position for position, _ in seen]
    if missing := committed - set(positions):
        raise LostError(f"{len(missing)} events never seen, {min(missing)} first")
    if len(positions) != len(set(positions)):
        raise LostError("seen twice")
    versions: defaultdict[str, int] = defaultdict(int)
    for position, streams in seen:
        for stream_id, version in streams.items():
            versions[stream_id] += 1
            if version != versions[stream_id]:
                raise LostError(f"at {position}, version {version} of {stream_id} came where {versions[stream_id]} was due")


# ── many who write ───────────────────────────────────────────────────────────────────────────────────────────────────


class TakenBackError(Exception):
    """A writer rolls back instead of committing."""


Write = Callable[[Any, random.Random], Awaitable[list[int]]]
"""Writes one transaction and returns the positions that it committed."""


def write_many(write: str, database: Any, seed: int, count: int) -> list[int]:
    """Runs in a process of its own."""
    return asyncio.run(_write_many(write, database, seed, count))


async def _write_many(write: str, database: Any, seed: int, count: int) -> list[int]:
    async with OPENERS[write](database) as opened:
        tasks = [_write_some(WRITES[write], opened, random.Random(f"{seed} {task}"), count // TASKS) for task in range(TASKS)]
        return [position for positions in await asyncio.gather(*tasks) for position in positions]


async def _write_some(write: Write, opened: Any, chance: random.Random, count: int) -> list[int]:
    committed = []
    for _ in range(count):
        with suppress(TakenBackError):
            try:
                committed += await write(opened, chance)
            except DBAPIError as error:  # waited too long for a lock: taken back, too
                if getattr(error.orig, "sqlstate", None) not in {"55P03", "57014"}:
                    raise RuntimeError(str(error)) from None  # the error itself does not come whole through a pipe
    return committed


async def dawdle(chance: random.Random) -> None:
    if chance.random() < 0.5:
        await asyncio.sleep(chance.uniform(0, DAWDLE_SECONDS))


async def write_ours(engine: AsyncEngine, chance: random.Random) -> list[int]:
    events = [_transfer(chance) for _ in range(chance.randrange(1, 4))]
    async with engine.begin() as connection:
        await dawdle(chance)
        position = await append_within(connection, events)
        await dawdle(chance)
        if chance.random() < 0.1:
            raise TakenBackError
    return list(range(position - len(events) + 1, position + 1))


def _transfer(chance: random.Random) -> FundsTransferred:
    payer, payee = chance.sample(ACCOUNTS, 2)
    return FundsTransferred(
        transfer_id=str(uuid.UUID(int=chance.getrandbits(128))),
        from_account_id=payer,
        to_account_id=payee,
        amount=1,
        currency="EUR",
        from_balance=0,
        to_balance=0,
    )


async def write_naively(pool: Any, chance: random.Random) -> list[int]:
    """Writes to a table with a sequence. Versions are right, because each stream's row is locked."""
    committed = []
    async with pool.acquire() as connection, connection.transaction():
        for stream_id in sorted(chance.sample(ACCOUNTS, chance.randrange(1, 4))):
            version = await connection.fetchval(
                "UPDATE naive_streams SET version = version + 1 WHERE stream_id = $1 RETURNING version", stream_id
            )
            await dawdle(chance)
            streams = orjson.dumps({stream_id: version}).decode()
            committed.append(
                await connection.fetchval("INSERT INTO naive_events (streams) VALUES ($1) RETURNING position", streams)
            )
            await dawdle(chance)
        if chance.random() < 0.1:
            raise TakenBackError
    return committed


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    async with open_postgres(settings, "daybook_command") as engine:
        yield engine


@asynccontextmanager
async def _pool(url: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(url, min_size=TASKS, max_size=TASKS) as pool:
        yield pool


WRITES: Final[dict[str, Write]] = {"ours": write_ours, "naively": write_naively}
OPENERS: Final[dict[str, Callable[[Any], Any]]] = {"ours": _engine, "naively": _pool}


async def written(write: str, database: Any, count: int, subscriber: asyncio.Event) -> set[int]:
    """Returns what several processes committed. Tells the subscriber when they are done."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(WRITERS, mp_context=multiprocessing.get_context("spawn")) as processes:
        writers = [
            loop.run_in_executor(processes, write_many, write, database, seed, count // WRITERS) for seed in range(WRITERS)
        ]
        committed = {position for positions in await asyncio.gather(*writers) for position in positions}
    subscriber.set()
    return committed


@asynccontextmanager
async def open_elsewhere(url: str) -> AsyncIterator[None]:
    """Holds a transaction with an id open in another database of the cluster."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.fetchval("SELECT pg_current_xact_id()")
            yield
    finally:
        await connection.close()


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.proof(400, 20_000)
async def test_a_subscriber_sees_every_committed_event_once_and_in_order(
    settings: Settings, servers: Servers, repetitions: int
) -> None:
    """Nothing holds it up either: a transaction in another database stays open until it has seen everything."""
    done = asyncio.Event()
    async with open_postgres(settings, "daybook_command") as engine:
        opened = [AccountOpened(account_id=each, owner_id=each, currency="EUR", overdraft_limit=0) for each in ACCOUNTS]
        first = await append(engine, opened)
        async with open_elsewhere(servers.postgres.superuser_url):
            following = asyncio.create_task(follow(engine, done))
            committed = await written("ours", settings, repetitions, done) | set(range(1, first + 1))
            positions = await following
        async with engine.connect() as connection:
            rows = (await connection.execute(text("SELECT position, stream_id, version FROM stream_events"))).all()
            versions: defaultdict[int, dict[str, int]] = defaultdict(dict)
            for position, stream_id, version in rows:
                versions[position][stream_id] = version
    check([(position, versions[position]) for position in positions], committed)
    assert positions == list(range(1, len(committed) + 1))


async def follow(engine: AsyncEngine, done: asyncio.Event) -> list[int]:
    """Reads until nothing more comes after the writers are done."""
    feed = Feed(engine, "main", PERSON_KEYS)
    seen: list[int] = []
    log_hash = b""
    while True:
        is_last = done.is_set()
        page = await feed.next_events(len(seen), log_hash, feed)
        seen += [recorded.position for recorded in page]
        if page:
            log_hash = page[-1].hash
        elif is_last:
            return seen
        else:
            await asyncio.sleep(0.002)


# ── what looks right ─────────────────────────────────────────────────────────────────────────────────────────────────

NAIVE_TABLES: Final = """
    CREATE TABLE naive_events (position bigserial PRIMARY KEY, xid xid8 DEFAULT pg_current_xact_id(), streams text);
    CREATE TABLE naive_streams (stream_id text PRIMARY KEY, version bigint DEFAULT 0);
"""
BARRIER: Final = "xid < pg_snapshot_xmin(pg_current_snapshot())"
SHAPES: Final = {
    "sequence": "SELECT xid::text, position, streams FROM naive_events WHERE position > $2 AND $1 <> '' ORDER BY position",
    "barrier": f"""
        SELECT xid::text, position, streams FROM naive_events WHERE position > $2 AND $1 <> '' AND {BARRIER} ORDER BY position
    """,
    "by transaction": f"""
        SELECT xid::text, position, streams FROM naive_events WHERE (xid, position) > ($1::text::xid8, $2) AND {BARRIER}
        ORDER BY naive_events.xid, position
    """,
}
LOSSES: Final = {"sequence": "never seen", "barrier": "never seen", "by transaction": "came where"}


@pytest.mark.slow
async def test_the_check_finds_what_naive_subscribers_lose(settings: Settings) -> None:
    """All of them follow the same writers."""
    async with asyncpg.create_pool(settings.database_url, min_size=len(SHAPES), max_size=len(SHAPES)) as pool:
        await pool.execute(NAIVE_TABLES)
        await pool.executemany("INSERT INTO naive_streams (stream_id) VALUES ($1)", [(each,) for each in ACCOUNTS])
        done = asyncio.Event()
        following = {shape: asyncio.create_task(follow_naively(pool, query, done)) for shape, query in SHAPES.items()}
        committed = await written("naively", settings.database_url, 600, done)
        for shape, task in following.items():
            seen = await task
            with pytest.raises(LostError, match=LOSSES[shape]):
                check(seen, committed)


async def follow_naively(pool: Any, query: str, done: asyncio.Event) -> Seen:
    seen: Seen = []
    last: tuple[str, int] = ("0", 0)
    while True:
        is_last = done.is_set()
        rows: Iterable[Any] = await pool.fetch(query, *last)
        for xid, position, streams in rows:
            seen.append((position, orjson.loads(streams)))
            last = (xid, position)
        if is_last and not rows:
            return seen
        await asyncio.sleep(0.001)
