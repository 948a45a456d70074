"""The reason why a read model is behind is named wherever an operator looks."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from query_api.app import create_app
from shared.log.events import RecordedEvent
from shared.log.heads import lock_head
from shared.read_models.worker_reports import PhaseTimes
from shared.settings import Settings
from shared.stores.lock_holders import read_lock_holders
from shared.stores.postgres import open_postgres
from shared.web.stack_status import look_at_stack
from tests.harness.clients import client_of
from tests.harness.log import Book
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.running import Servers, with_default_limits
from tests.harness.terminals import daybook
from tests.projector.test_dead_letters import Poison, Three, others
from tests.shared.test_metrics import scrape, value

services = pytest.mark.services
HEAD = "SELECT FROM log_heads FOR UPDATE"


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    # Read models must be behind, and fail, within a short time.
    async with open_ledger(with_default_limits(settings)) as opened:
        yield opened


class Asked:
    """Asks the query API as an operator does."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def progress(self, name: str) -> dict[str, Any]:
        answer = await self.client.get(f"/v1/projections/{name}")
        assert answer.status_code == 200, answer.text
        item: dict[str, Any] = answer.json()
        return item

    async def says(self, name: str, state: str, *parts: str) -> bool:
        item = await self.progress(name)
        return item["state"] == state and all(part in (item["cause"] or "") for part in parts)


@pytest_asyncio.fixture
async def asked(settings: Settings) -> AsyncIterator[Asked]:
    async with client_of(create_app(settings)) as client:
        yield Asked(client)


@pytest.mark.parametrize(
    ("pace", "says"),
    [
        (PhaseTimes("waiting", 0, 0, 0, 0, 0), None),
        (
            PhaseTimes("waiting", 0, reading=0.1, folding=0.1, writing=1.8, events=200),
            "writing to Redis takes 90% of the time",
        ),
        (
            PhaseTimes("waiting", 0, reading=3, folding=0.5, writing=0.5, events=200),
            "reading the log takes 75% .* at 50 events/s",
        ),
        (PhaseTimes("folding", 0.1, reading=0, folding=1, writing=0, events=3), "the projection's function takes 100%"),
        (
            PhaseTimes("writing", 12, reading=1, folding=1, writing=13, events=0),
            "writing to Redis has taken 12 s, and goes on",
        ),
    ],
)
def test_the_part_that_takes_the_time_is_named(pace: PhaseTimes, says: str | None) -> None:
    part = pace.slow_part("Redis")
    if says is None:
        assert part is None
    else:
        assert part
        assert re.search(says, part)


@pytest.mark.slow
@services
async def test_a_missing_worker_is_named(ledger: Ledger, asked: Asked) -> None:
    await ledger.append(Book().history(20))
    await ledger.build()
    await ledger.append([Book(seed=2).create_user()])
    await eventually(lambda: asked.says("users", "behind", "event 21, recorded", "no worker is running"))
    assert (await asked.client.get("/readyz")).json()["read_models"].startswith("unknown: no worker")
    code, out, _ = await daybook(ledger.settings, "status").ended()
    assert (code, "gives no sign of life" in out) == (1, True)


@pytest.mark.slow
@services
@pytest.mark.parametrize("name", ["accounts", "balances"])
async def test_the_event_that_parks_streams_is_named(ledger: Ledger, asked: Asked, name: str) -> None:
    three, poison = Three(), Poison(name, Three.POISON)
    await ledger.append([*three.events, *three.go_on()])
    async with ledger.followed(poison.projection, *others(name)):
        await eventually(lambda: asked.says(name, "degraded", "event 8 (FundsDeposited)", "RuntimeError", "dead-letters list"))
        await eventually(lambda: is_degraded(asked))
        item = await asked.progress(name)
        assert (item["dead_letters"], item["parked_streams"], item["lag_events"]) == (1, 2, 0)
        samples = await scrape(asked.client)
    about = {"ledger": "main", "projection": name}
    assert value(samples, "daybook_projection_dead_letters", **about) == 1
    assert value(samples, "daybook_projection_parked_streams", **about) == 2
    for other in others(name):
        assert (await asked.progress(other.name))["state"] == "live"


async def is_degraded(asked: Asked) -> bool:
    text: str = (await asked.client.get("/readyz")).json()["read_models"]
    return text == "degraded: 0 have stopped, 1 have dead letters"


@pytest.mark.slow
@services
async def test_a_slow_projection_is_named(ledger: Ledger, asked: Asked) -> None:
    real = PROJECTIONS_BY_NAME["balances"]

    def project(changes: Any, event: RecordedEvent, fact: Any) -> None:
        time.sleep(0.02)
        real.project(changes, event, fact)

    slow: Projection[Any] = msgspec.structs.replace(real, project=project)
    settings = ledger.settings.model_copy(update={"projector_batch_events_max": 10})
    async with ledger.followed(slow, *others("balances"), settings=settings):
        await ledger.caught_up(await ledger.append(Book().history(10)))
        await ledger.append(Book(seed=1).history(600))
        await eventually(lambda: asked.says("balances", "behind", "the projection's function takes", "events/s"))


@pytest.mark.slow
@services
async def test_a_session_that_holds_a_lock_is_named(ledger: Ledger, asked: Asked, servers: Servers) -> None:
    await ledger.append(Book().history(20))
    async with ledger.followed():
        await ledger.caught_up(20)
    await ledger.append([Book(seed=2).create_user()])
    async with locked(servers, ledger.settings, "LOCK TABLE events IN ACCESS EXCLUSIVE MODE") as pid:
        await eventually(lambda: asked.says("users", "behind", f"session {pid}", f"pg_terminate_backend({pid})"))
        async with ledger.followed():
            await eventually(lambda: asked.says("users", "failed", f"session {pid}"))
            _, out, err = await daybook(ledger.settings, "status").ended()
            assert f"session {pid}" in out, out + err
    async with ledger.followed():
        await eventually(lambda: asked.says("users", "live"))


@services
async def test_a_session_that_locks_a_table_is_shown_at_once(ledger: Ledger, servers: Servers) -> None:
    """It has kept nobody waiting yet, or only for a moment, when the status looks."""
    async with locked(servers, ledger.settings, "LOCK TABLE events IN ACCESS EXCLUSIVE MODE") as pid:
        assert [(each.pid, each.locks_table) for each in (await look_at_stack(ledger.settings)).lock_holders] == [(pid, True)]


@services
async def test_a_session_that_keeps_commands_waiting_is_named_in_the_status(ledger: Ledger, servers: Servers) -> None:
    await ledger.append(Book().history(20))
    patient = ledger.settings.model_copy(update={"database_lock_timeout_ms": 30_000, "database_statement_timeout_ms": 30_000})
    async with open_postgres(patient, "daybook_command") as engine, locked(servers, ledger.settings, HEAD) as pid:
        waiting = asyncio.create_task(waits_for_the_head(engine))
        async with ledger.stores.engine.connect() as connection:
            await eventually(lambda: is_waited_for(connection, pid))
            # A session that waits for a row has a lock of its own on that row. It must not be taken for one that locks a table.
            assert [each.pid for each in await read_lock_holders(connection)] == [pid]
        expected = re.compile(rf"daybook-command waits: .*session {pid} holds a lock, for \d+ s or longer")
        await eventually(lambda: status_says(ledger.settings, expected))
    await waiting


async def status_says(settings: Settings, expected: re.Pattern[str]) -> bool:
    _, out, _ = await daybook(settings, "status").ended()
    return bool(expected.search(out))


async def waits_for_the_head(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await lock_head(connection, "main")


async def is_waited_for(connection: AsyncConnection, pid: int) -> bool:
    return any(each.pid == pid and each.waiting == "daybook-command" for each in await read_lock_holders(connection))


@asynccontextmanager
async def locked(servers: Servers, settings: Settings, statement: str) -> AsyncIterator[int]:
    """Holds a transaction open, as a forgotten session does."""
    database = settings.database_url.rpartition("/")[2]
    connection = await asyncpg.connect(servers.postgres.superuser_url.rpartition("/")[0] + f"/{database}")
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield connection.get_server_pid()
    finally:
        await connection.close()


@services
async def test_a_read_model_that_keeps_up_has_no_cause(ledger: Ledger, asked: Asked) -> None:
    async with ledger.followed():
        await ledger.caught_up(await ledger.append(Book().history(50)))
        for projection in PROJECTIONS:
            item = await asked.progress(projection.name)
            assert (item["state"], item["cause"], item["lag_seconds"]) == ("live", None, 0.0)
        await eventually(lambda: is_well(asked))


async def is_well(asked: Asked) -> bool:
    return bool((await asked.client.get("/readyz")).json()["read_models"] == "ok")
