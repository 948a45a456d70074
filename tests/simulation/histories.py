"""One history: clients and faults, then calm; and what must be true at its end. Repeat one with `python -m tests.simulation`."""

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

import msgspec
import structlog

from shared.log.read import StoredEvent
from shared.timestamps import timestamp
from tests.simulation.clients import KEY, KEYLESS, Client, KeptReply, Wish
from tests.simulation.memory_log import CommittedBatch, moment
from tests.simulation.money_rules import Money, WrongError, require
from tests.simulation.virtual_time import StuckError
from tests.simulation.world import PROJECTIONS, SETTLED_SECONDS_MAX, Plant, World, simulate

CLIENTS: Final = 2
WORKERS_EVERY: Final = 16
HANDOVER_EVERY: Final = 4
"""In these, the command APIs elect one of them to write. In the others, each writes what it is sent."""
POLL_SECONDS: Final = 0.25


class History(msgspec.Struct, frozen=True):
    """The numbers of a history. Equal seeds have equal digests."""

    commands: int
    attempts: int
    strikes: int
    terms: int
    """How often the lease of the writer went to a process that did not have it."""
    messages: int
    """What the command APIs sent each other."""
    events: int
    settled_seconds: float
    digest: str


def run_history(
    seed: int, plant: Plant | None = None, *, has_workers: bool | None = None, has_handover: bool | None = None
) -> History:
    """Runs the history of a seed and checks it.

    Every `WORKERS_EVERY`th has workers, unless `has_workers` says otherwise, and every `HANDOVER_EVERY`th has a handover.

    Raises:
        WrongError: it breaks a promise. The message says how to repeat it.
    """
    found: list[History] = []

    async def live(world: World) -> None:
        found.append(await _live(world))

    try:
        with _silence(), _whole_garbage():
            simulate(
                seed,
                live,
                plant or Plant(),
                has_workers=seed % WORKERS_EVERY == 0 if has_workers is None else has_workers,
                has_handover=seed % HANDOVER_EVERY == 0 if has_handover is None else has_handover,
            )
    except (AssertionError, StuckError, TimeoutError) as error:
        raise WrongError(f"{error or type(error).__name__}\nrepeat it: python -m tests.simulation {seed}") from error
    return found[0]


@contextmanager
def _silence() -> Iterator[None]:
    """Drops what the product logs about the faults. Most of the time of a history would go into its tracebacks."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _whole_garbage() -> Iterator[None]:
    """Collects garbage after a history, and not within it: that takes a tenth less time, and no finalizer runs in between."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(0)


async def _live(world: World) -> History:
    clients = [Client(world, f"client{number}") for number in range(CLIENTS)]
    striking = asyncio.create_task(world.strike())
    living = [asyncio.create_task(client.live()) for client in clients]
    await striking
    calm_at = world.loop.time()
    try:
        async with asyncio.timeout(SETTLED_SECONDS_MAX):
            await asyncio.gather(*living)
            while not _is_settled(world):
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        waiting = [wish for client in clients for wish in client.wishes if wish.reply is None]
        raise WrongError(f"not settled: {waiting or _progress(world)}") from None
    check(world, [wish for client in clients for wish in client.wishes])
    tables = world.log.tables
    story = [(event.type, event.position, timestamp(event.recorded_at)) for event in tables.events]
    return History(
        commands=sum(len(client.wishes) for client in clients),
        attempts=sum(client.attempts for client in clients),
        strikes=world.strikes,
        terms=tables.lease.term if tables.lease else 0,
        messages=world.sockets.messages,
        events=len(tables.events),
        settled_seconds=world.loop.time() - calm_at,
        digest=sha256(repr(story).encode()).hexdigest(),
    )


def _progress(world: World) -> dict[str, int]:
    stores = {"mongo": world.mongo, "redis": world.redis}
    lives = {projection.name: stores[projection.model.store].live(projection.name) for projection in PROJECTIONS}
    return {name: live.checkpoint.position if live else -1 for name, live in lives.items()}


def _is_settled(world: World) -> bool:
    """True if nothing is left to do: what is due is recorded, and each read model is at the head of the log."""
    if world.workers and any(position != world.log.tables.position for position in _progress(world).values()):
        return False
    now = timestamp(moment(world.loop.time()))
    money = Money()
    for event in world.log.tables.events:
        money.apply(event.decoded({}).event, timestamp(event.recorded_at))
    is_due = any(due and due <= now for due in money.due.values())
    is_over = any(not hold.is_over and not hold.counts(now) for hold in money.holds.values())
    return not (is_due or is_over)


# ── what must be true ────────────────────────────────────────────────────────────────────────────────────────────────


def check(world: World, wishes: list[Wish]) -> None:
    """Checks the log, the replies and the read models of a history that has settled."""
    tables = world.log.tables
    _check_log(tables.events, tables.members)
    _check_decisions(tables.batches, tables.events, {wish.key: wish for wish in wishes})
    by_key: dict[str, list[StoredEvent]] = {}
    for event in tables.events:
        metadata = msgspec.json.decode(event.metadata)
        if key := metadata.get(KEY) or metadata.get(KEYLESS):
            by_key.setdefault(key, []).append(event)
    for wish in wishes:
        _check_reply(wish, by_key.get(wish.key, []))
    if world.workers:
        _check_read_models(world)


def _check_log(events: list[StoredEvent], members: dict[str, dict[int, int]]) -> None:
    hash_before = b""
    for position, event in enumerate(events, 1):
        require(event.position == position, f"there is no position {position}")
        require(event.computed_hash(hash_before) == event.hash, f"the chain breaks at {position}")
        hash_before = event.hash
    for stream_id, versions in members.items():
        require(list(versions) == list(range(1, len(versions) + 1)), f"{stream_id} has a gap: {versions}")
        require(list(versions.values()) == sorted(versions.values()), f"{stream_id} is out of order: {versions}")
    times = [event.recorded_at for event in events]
    require(times == sorted(times), "time went back")


def _check_decisions(batches: list[CommittedBatch], events: list[StoredEvent], wishes: dict[str, Wish]) -> None:
    """Decides every command again, with rules of our own."""
    money = Money()
    first = len(events) - sum(len(batch.events) for batch in batches)
    for event in events[:first]:
        money.apply(event.decoded({}).event, timestamp(event.recorded_at))
    for batch in batches:
        now = timestamp(batch.now)
        pending = list(batch.events)
        is_exact = all(KEY in msgspec.json.decode(event.metadata) for event in batch.events)
        for reply in batch.replies:
            while pending and reply.position is not None and pending[0].position <= reply.position:
                money.apply(pending.pop(0).decoded({}).event, now)
            kept = msgspec.json.decode(reply.body, type=KeptReply)
            if kept.code and is_exact:
                wish = wishes[reply.key]
                require(money.may_be_refused(wish.fields, kept.code, now), f"{wish} was refused with {kept.code} at {now}")
        for event in pending:
            money.apply(event.decoded({}).event, now)


def _check_reply(wish: Wish, events: list[StoredEvent]) -> None:
    recorded = [event.type for event in events]
    if wish.is_keyless:
        require(len(recorded) <= 1, f"{wish} was sent once, and the log has {recorded}")
    if wish.reply is None:
        require(wish.is_keyless, f"{wish} has no reply")
        return
    kept = msgspec.json.decode(wish.reply.body, type=KeptReply)
    if wish.is_keyless and recorded and kept.code is None and not kept.events:
        return  # its connection to the writer ended, and it was found in the log
    require(recorded == kept.events, f"{wish} was answered with {kept.events}, and the log has {recorded}")
    if events:
        require(events[-1].position == kept.position, f"{wish} was answered with another position")


def _check_read_models(world: World) -> None:
    """Each read model is the fold of the log: nothing lost, nothing doubled, nothing skipped. Its readers never went back."""
    require(not (back := world.mongo.steps_back + world.redis.steps_back), str(back))
    events = [event.decoded({}) for event in world.log.tables.events]
    for projection in PROJECTIONS:
        changes = projection.new_changes()
        projection.fold(changes, events)
        expected: dict[str, Any] = {}
        changes.apply_to(expected)
        live = (world.mongo if projection.model.store == "mongo" else world.redis).live(projection.name)
        require(live is not None and live.content == expected, f"{projection.name} is not the fold of the log")
