"""A ledger in which nothing happens has no task and no round trip of its own, and yet its read models are looked after."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
import pytest_asyncio
import sqlalchemy.event

from projector.examiner import Examiner, LogEnd, judge
from projector.failures import Failures
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS_BY_NAME
from projector.runner import Runner
from projector.sinks.protocols import LiveCheckpoint
from projector.sinks.registry import make_sinks
from shared.errors import Rebuilding
from shared.read_models.dead_letters import DeadLetterSummary
from shared.read_models.failures import read_failures
from shared.read_models.generations import live_generation
from shared.read_models.shapes import USERS, ReadModel
from shared.read_models.stored_state import Checkpoint
from shared.read_models.worker_reports import read_unhealthy_read_models
from shared.settings import Settings
from tests.harness.log import Book, append, make_ledger
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.projector.test_dead_letters import Poison

services = pytest.mark.services

FEW: Final[list[Projection[Any]]] = [PROJECTIONS_BY_NAME["users"], PROJECTIONS_BY_NAME["balances"]]
"""One read model in each store, so that many ledgers are built quickly."""

LEDGERS: Final = 12
END: Final = LogEnd(7, "07")


@pytest_asyncio.fixture
async def main(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


def ids(count: int) -> list[str]:
    return ["main", *(f"tenant-{number}" for number in range(1, count))]


async def fill(main: Ledger, count: int) -> dict[str, int]:
    """Makes ledgers with a few events each. Returns their heads by id."""
    for ledger_id in ids(count)[1:]:
        await make_ledger(main.writer, ledger_id)
    return {ledger_id: await append(main.writer, Book(seed=1).history(8), ledger_id) for ledger_id in ids(count)}


@asynccontextmanager
async def running(main: Ledger, **more: Any) -> AsyncIterator[Runner]:
    runner = Runner(main.stores, main.settings, more.pop("projections", FEW), **more)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await task


async def position_of(main: Ledger, model: ReadModel, ledger_id: str) -> int | None:
    try:
        return (await live_generation(main.stores.mongo, main.stores.redis, model, ledger_id)).position
    except Rebuilding:
        return None


async def are_at(main: Ledger, heads: dict[str, int]) -> bool:
    positions = [await position_of(main, each.model, ledger_id) == head for ledger_id, head in heads.items() for each in FEW]
    return all(positions)


def follower_tasks() -> int:
    return sum(task.get_name() == "followers of logs" for task in asyncio.all_tasks())


async def has_followers(count: int) -> bool:
    return follower_tasks() == count


# ── what an examination finds ────────────────────────────────────────────────────────────────────────────────────────


def checkpoint(position: int = 7, log_hash: str = "07", **more: Any) -> LiveCheckpoint:
    return LiveCheckpoint(3, Checkpoint(position, log_hash, **{"model_version": USERS.version, **more}))


@pytest.mark.parametrize(
    ("live", "end", "has_failed", "is_sound", "is_behind"),
    [
        (checkpoint(), END, False, True, False),
        (checkpoint(5, "05"), END, False, True, True),
        (None, END, False, False, False),
        (checkpoint(8, "08"), END, False, False, False),
        (checkpoint(7, "other"), END, False, False, False),
        (checkpoint(model_version=USERS.version + 1), END, False, False, False),
        (checkpoint(), LogEnd(7, "07", {"users": frozenset({4})}), False, False, False),
        (checkpoint(5, "05"), LogEnd(7, "07", {"users": frozenset({6})}), False, True, True),
        (
            checkpoint(aside=DeadLetterSummary(skipped=frozenset({4}))),
            LogEnd(7, "07", {"users": frozenset({4})}),
            False,
            True,
            False,
        ),
        (checkpoint(), END, True, False, False),
    ],
    ids=[
        *("at the end", "behind", "lost", "beyond the end", "of another log", "of other code"),
        *("made before a skip", "before an event to skip", "made after a skip", "with a stored failure"),
    ],
)
def test_a_read_model_is_judged_by_its_checkpoint_and_the_end_of_the_log(
    live: LiveCheckpoint | None, end: LogEnd, *, has_failed: bool, is_sound: bool, is_behind: bool
) -> None:
    found = judge(USERS, live, end, has_failed=has_failed)
    assert (found.is_sound, found.is_behind) == (is_sound, is_behind)


@services
async def test_an_examination_takes_as_many_round_trips_for_many_ledgers_as_for_two(main: Ledger) -> None:
    heads = await fill(main, LEDGERS)
    async with running(main):
        await eventually(lambda: are_at(main, heads))
    stores, statements = main.stores, list[str]()
    sqlalchemy.event.listen(
        stores.engine.sync_engine, "before_cursor_execute", lambda *execution: statements.append(execution[2])
    )
    examiner = Examiner(stores.engine, make_sinks(stores), Failures(stores.mongo, stores.redis), FEW)

    async def queries() -> int:
        counters = (await stores.mongo.client.admin.command("serverStatus"))["opcounters"]
        return int(counters["query"]) + int(counters["getmore"])

    async def trips(count: int) -> tuple[int, int]:
        statements.clear()
        before = await queries()
        found = await examiner.examine(ids(count))
        assert [each.is_quiet(len(FEW)) for each in found.values()] == [True] * count
        return len(statements), await queries() - before

    assert await trips(LEDGERS) == await trips(2) == (1, 3)


# ── awake and asleep ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@services
async def test_only_a_ledger_that_moves_has_tasks(main: Ledger) -> None:
    heads = await fill(main, LEDGERS)
    async with running(main):
        await eventually(lambda: are_at(main, heads))
    async with running(main, awake_seconds=0):
        for ledger_id in ("tenant-7", "tenant-3"):
            heads[ledger_id] = await append(main.writer, [Book(seed=2).create_user()], ledger_id)
            await eventually(lambda: are_at(main, heads))
            await eventually(partial(has_followers, 0))  # the next examination lets it fall asleep
    assert heads["tenant-7"] == 9


@services
async def test_read_models_of_sleeping_ledgers_are_built_again_when_they_are_lost(main: Ledger) -> None:
    heads = await fill(main, 3)
    async with running(main):
        await eventually(lambda: are_at(main, heads))
    async with running(main):
        await eventually(partial(has_followers, 0))
        await main.wipe()
        await eventually(lambda: are_at(main, heads))


@services
async def test_a_failure_that_a_dead_worker_has_stored_is_cleared_although_nothing_else_is_to_do(main: Ledger) -> None:
    heads = await fill(main, 2)
    async with running(main):
        await eventually(lambda: are_at(main, heads))
    stores = main.stores
    for projection in FEW:
        await Failures(stores.mongo, stores.redis).note(projection.model, "tenant-1", 3, OSError("the disk is full"))
    assert set(await read_failures(stores.mongo, stores.redis, "tenant-1")) == {"users", "balances"}

    async def no_failures() -> bool:
        return not await read_failures(stores.mongo, stores.redis, "tenant-1")

    async with running(main):
        await eventually(no_failures)


@services
async def test_dead_letters_of_a_sleeping_ledger_are_reported(main: Ledger) -> None:
    heads = await fill(main, 2)
    poisoned = [PROJECTIONS_BY_NAME["users"], Poison("balances", 5).projection]
    async with running(main, projections=poisoned):
        await eventually(lambda: are_at(main, heads))
    await main.stores.redis.delete("daybook:projector:workers")

    async def are_reported() -> bool:
        seen = await read_unhealthy_read_models(main.stores.redis)
        return seen is not None and seen.degraded == ["main/balances", "tenant-1/balances"]

    async with running(main):
        await eventually(are_reported)
        assert follower_tasks() == 0
