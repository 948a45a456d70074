"""Reports the progress of each read model, and the reason if it does not advance.

The report also works while MongoDB or Redis is down, because that is when operators need it.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
from pymongo.errors import PyMongoError

from query_api.reading import Reader
from shared.errors import NotFound, SchemaMismatch, StoreUnavailable
from shared.log.heads import Head, read_head
from shared.log.read import read_recorded_at
from shared.optional_stores import OPTIONAL_STORES
from shared.read_models.dead_letters import (
    NO_DEAD_LETTERS,
    DeadLetter,
    DeadLetterSummary,
    read_dead_letter_summary,
    read_dead_letters,
)
from shared.read_models.failures import ProjectionFailure, read_failures
from shared.read_models.generations import Generation, pointer_id, pointer_key, read_checkpoint
from shared.read_models.shapes import OPTIONAL_READ_MODELS, READ_MODELS, ReadModel
from shared.read_models.worker_reports import HEALTH_KEY, WORKERS_KEY, PhaseTimes, read_phase_times
from shared.stores.lock_holders import LockHolder, read_lock_holders
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

STORE_SECONDS: Final = 1.0
BEHIND_SECONDS: Final = 2.0
"""How long an event may wait before its read model counts as behind, in seconds."""

_STORE_NAMES: Final = {"mongo": "MongoDB", "redis": "Redis"} | {kind.name: kind.title for kind in OPTIONAL_STORES}


class ProjectionProgress(msgspec.Struct, frozen=True):
    """The progress of one read model.

    `number` is the live generation, or the generation that is being built if none is live. `position` is its checkpoint.
    """

    number: int | None = None
    position: int | None = None
    is_live: bool = False
    building: int | None = None
    building_position: int | None = None
    paused: str | None = None
    """The time at which an operator paused the read model, or None."""
    aside: DeadLetterSummary = NO_DEAD_LETTERS
    letter: DeadLetter | None = None
    """The first dead letter, or None."""
    answers: bool = True


class Obstacles(msgspec.Struct, frozen=True):
    """Possible reasons why the read models of a ledger do not advance."""

    failures: dict[str, ProjectionFailure]
    worker_progress: dict[str, PhaseTimes]
    has_worker: bool = True
    holder: LockHolder | None = None
    """A PostgreSQL connection whose lock blocks reads of the log, or None."""


async def list_progress(reader: Reader, ledger_id: str) -> tuple[int, list[dict[str, Any]]]:
    """Returns the last position of the ledger's log, and an item of `GET /v1/projections` for each read model.

    Raises:
        NotFound: there is no such ledger.
    """
    models = _models(reader)
    progresses, obstacles = await asyncio.gather(
        asyncio.gather(*(_read_progress(reader, model, ledger_id) for model in models)), _read_obstacles(reader, ledger_id)
    )
    # Read last, so that no read model seems to be ahead of the log.
    async with reader.postgres.connect() as connection:
        try:
            head = await read_head(connection, ledger_id)
        except NotFound:
            raise NotFound("There is no such ledger.") from None
    next_positions = {(progress.position or 0) + 1 for progress in progresses if (progress.position or 0) < head.position}
    recorded_at, holder = await _waiting(reader, ledger_id, next_positions)
    obstacles = msgspec.structs.replace(obstacles, holder=holder)
    return head.position, [
        _resource_of(model, progress, head, recorded_at, obstacles) for model, progress in zip(models, progresses, strict=True)
    ]


async def list_dead_letters(reader: Reader, ledger_id: str, name: str) -> tuple[int, list[DeadLetter] | None]:
    """Returns the last position of the ledger's log and the dead letters of a read model, or None if there is none of this name.

    They are those of the live generation, or else of the one that is being built.

    Raises:
        NotFound: there is no such ledger.
    """
    head = await reader.require_ledger(ledger_id)
    model = next((model for model in _models(reader) if model.name == name), None)
    if model is None:
        return head, None
    live, building, _ = await _pointer(reader, model, ledger_id)
    number = building if live is None else live
    if number is None:
        return head, []
    generation = Generation(model, ledger_id, number)
    if model.store in reader.optional:
        found: list[DeadLetter] = await reader.optional[model.store].read_letters(generation)
        return head, found
    return head, await read_dead_letters(reader.mongo, reader.redis, generation)


def _models(reader: Reader) -> tuple[ReadModel, ...]:
    """Returns the read models whose store is in use."""
    return (*READ_MODELS, *(model for model in OPTIONAL_READ_MODELS if model.store in reader.optional))


async def _waiting(reader: Reader, ledger_id: str, positions: Collection[int]) -> tuple[dict[int, datetime], LockHolder | None]:
    """Returns the recording times of the events at these positions, and the PostgreSQL connection whose lock blocks the log.

    A lock on the log blocks this function too. It then returns no times, only the connection. If nothing blocks the log, the
    connection is None.
    """
    if not positions:
        return {}, None
    recorded_at: dict[int, datetime] = {}
    with suppress(*POSTGRES_AND_REDIS_ERRORS):
        async with asyncio.timeout(STORE_SECONDS), reader.postgres.connect() as connection:
            recorded_at = await read_recorded_at(connection, ledger_id, positions)
    async with reader.postgres.connect() as connection:
        holders = [each for each in await read_lock_holders(connection) if each.waiting in {"daybook-projector", ""}]
    return recorded_at, holders[0] if holders else None


async def _read_obstacles(reader: Reader, ledger_id: str) -> Obstacles:
    failures: dict[str, ProjectionFailure] = {}
    with suppress(*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
        async with asyncio.timeout(STORE_SECONDS):
            failures = await read_failures(reader.mongo, reader.redis, ledger_id)
    with suppress(*POSTGRES_AND_REDIS_ERRORS):
        async with asyncio.timeout(STORE_SECONDS):
            worker_progress = await read_phase_times(reader.redis, ledger_id)
            return Obstacles(
                failures, worker_progress, bool(await reader.redis.exists(HEALTH_KEY) or await reader.redis.exists(WORKERS_KEY))
            )
    return Obstacles(failures, {})


async def _read_progress(reader: Reader, model: ReadModel, ledger_id: str) -> ProjectionProgress:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            live, building, paused = await _pointer(reader, model, ledger_id)
            position = await _position(reader, model, ledger_id, live)
            building_position = await _position(reader, model, ledger_id, building)
            is_live = live is not None and position is not None
            number = live if is_live else building
            aside, letter = await _aside(reader, model, ledger_id, number)
    except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError, SchemaMismatch, StoreUnavailable):
        return ProjectionProgress(answers=False)
    shown = position if is_live else building_position
    return ProjectionProgress(number, shown, is_live, building, building_position, paused, aside, letter)


async def _aside(
    reader: Reader, model: ReadModel, ledger_id: str, number: int | None
) -> tuple[DeadLetterSummary, DeadLetter | None]:
    if number is None:
        return NO_DEAD_LETTERS, None
    generation = Generation(model, ledger_id, number)
    if model.store in reader.optional:
        store = reader.optional[model.store]
        checkpoint = await store.read_checkpoint(generation)
        letters = await store.read_letters(generation) if checkpoint and checkpoint.aside.letters else []
        return checkpoint.aside if checkpoint else NO_DEAD_LETTERS, letters[0] if letters else None
    aside = await read_dead_letter_summary(reader.mongo, reader.redis, generation)
    letters = await read_dead_letters(reader.mongo, reader.redis, generation) if aside.letters else []
    return aside, letters[0] if letters else None


async def _pointer(reader: Reader, model: ReadModel, ledger_id: str) -> tuple[int | None, int | None, str | None]:
    if model.store in reader.optional:
        store = reader.optional[model.store]
        pointer, notes = await store.read_pointer(model, ledger_id), await store.read_notes(model, ledger_id)
        return pointer.live, pointer.building, notes.get("paused")
    if model.store == "mongo":
        found = await reader.mongo.pointers.find_one({"_id": pointer_id(model, ledger_id)}) or {}
        return found.get("live"), found.get("building"), found.get("paused")
    redis: Any = reader.redis  # redis-py has the same types for its sync and async clients
    live, building, paused = await redis.hmget(pointer_key(model, ledger_id), ["live", "building", "paused"])
    return int(live) if live else None, int(building) if building else None, paused


async def _position(reader: Reader, model: ReadModel, ledger_id: str, number: int | None) -> int | None:
    if number is None:
        return None
    if model.store in reader.optional:
        checkpoint = await reader.optional[model.store].read_checkpoint(Generation(model, ledger_id, number))
        return checkpoint.position if checkpoint else None
    return await read_checkpoint(reader.mongo, reader.redis, Generation(model, ledger_id, number))


def _resource_of(
    model: ReadModel, progress: ProjectionProgress, head: Head, recorded_at: dict[int, datetime], obstacles: Obstacles
) -> dict[str, Any]:
    if not progress.answers:
        return _resource(model, progress, "failed", None, None, f"{_STORE_NAMES[model.store]} does not answer")
    position = progress.position or 0
    since = recorded_at.get(position + 1)
    lag_seconds = max((head.now - since).total_seconds(), 0.0) if since else 0.0
    state, cause = _state(model, progress, head, lag_seconds, obstacles)
    # If the log is locked, the age of its events is unknown.
    is_known = since is not None or position >= head.position
    lag = round(lag_seconds, 3) if is_known else None
    return _resource(model, progress, state, max(head.position - position, 0), lag, cause)


def _resource(
    model: ReadModel,
    progress: ProjectionProgress,
    state: str,
    lag_events: int | None,
    lag_seconds: float | None,
    cause: str | None,
) -> dict[str, Any]:
    return {
        "name": model.name,
        "generation": progress.number,
        "state": state,
        "position": progress.position,
        "lag_events": lag_events,
        "lag_seconds": lag_seconds,
        "dead_letters": progress.aside.letters,
        "parked_streams": progress.aside.parked,
        "cause": cause,
    }


def _state(
    model: ReadModel, progress: ProjectionProgress, head: Head, lag_seconds: float, obstacles: Obstacles
) -> tuple[str, str | None]:
    """Returns the state of a read model, and its cause as a sentence for operators. The first state that applies is returned."""
    building, failure = _building(progress, head), obstacles.failures.get(model.name)
    is_behind = lag_seconds > BEHIND_SECONDS
    if progress.paused:
        return "paused", f"paused since {progress.paused}: resume it with `daybook projections resume {model.name}`"
    if failure:
        return "failed", f"{failure.cause} (since {failure.since})" + (f"; {obstacles.holder}" if obstacles.holder else "")
    if not progress.is_live:
        return "rebuilding", building or _waiting_for(model, progress, obstacles) or "no worker has begun to build it"
    if progress.letter:
        behind = f"; {_waiting_for(model, progress, obstacles)}" if is_behind else ""
        return "degraded", _put_aside(progress.letter, progress.aside) + behind
    if is_behind or (obstacles.holder and (progress.position or 0) < head.position):
        waiting = f"event {(progress.position or 0) + 1}, recorded {lag_seconds:.0f} s ago, is not applied yet: "
        return "behind", building or waiting + _waiting_for(model, progress, obstacles)
    return "live", building


def _waiting_for(model: ReadModel, progress: ProjectionProgress, obstacles: Obstacles) -> str:
    """Returns the reason why the read model does not advance, or not fast enough."""
    if obstacles.holder:
        return str(obstacles.holder)
    if not obstacles.has_worker:
        return f"no worker is running, or none can reach Redis (there is no key {HEALTH_KEY})"
    pace = obstacles.worker_progress.get(model.name)
    slow = pace.slow_part(_STORE_NAMES[model.store]) if pace else None
    if slow:
        return slow
    return "" if progress.number is None else "the worker has not reached it yet"


def _put_aside(letter: DeadLetter, aside: DeadLetterSummary) -> str:
    first = f"event {letter.position} ({letter.type}) could not be applied: {letter.cause}"
    more = f", nor could {aside.letters - 1} more" if aside.letters > 1 else ""
    behind = f"{aside.parked} streams are parked, with {aside.put_aside} later events"
    return f"{first}{more}; {behind}: `daybook dead-letters list`"


def _building(progress: ProjectionProgress, head: Head) -> str | None:
    if progress.building is None:
        return None
    return f"generation {progress.building} is being built: {progress.building_position or 0} of {head.position} events"
