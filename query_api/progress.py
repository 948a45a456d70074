"""How far each read model is, and why it is not further.

Answers also when MongoDB or Redis does not: that is when it is asked.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
from pymongo.errors import PyMongoError

from query_api.reading import Reader
from shared.connections import STORE_ERRORS
from shared.dead_letters import NOTHING_ASIDE, Aside, Letter, read_aside, read_letters
from shared.errors import NotFound
from shared.event_store import Head, read_head, read_recorded_at
from shared.locks import Holder, read_holders
from shared.pace import REPORT_KEY, Pace, read_paces
from shared.read_models import (
    HEALTH_KEY,
    READ_MODELS,
    Generation,
    ReadModel,
    Trouble,
    pointer_id,
    pointer_key,
    read_checkpoint,
    read_troubles,
)

STORE_SECONDS: Final = 1.0
BEHIND_SECONDS: Final = 2.0
"""A read model that has not taken an event for longer is behind; before that, it is on its way."""

_STORE_NAMES: Final = {"mongo": "MongoDB", "redis": "Redis"}


class Place(msgspec.Struct, frozen=True):
    """Where a read model is. `number` is the generation that readers see, or the one that is being built for want of one."""

    number: int | None = None
    position: int | None = None
    is_live: bool = False
    building: int | None = None
    building_position: int | None = None
    paused: str | None = None
    """Since when."""
    aside: Aside = NOTHING_ASIDE
    letter: Letter | None = None
    """The first of them."""
    answers: bool = True


class Clues(msgspec.Struct, frozen=True):
    """What may keep read models from going on, besides themselves."""

    troubles: dict[str, Trouble]
    paces: dict[str, Pace]
    has_worker: bool = True
    holder: Holder | None = None
    """Who holds a lock that reading the log waits for."""


async def list_progress(reader: Reader, ledger_id: str) -> tuple[int, list[dict[str, Any]]]:
    """The head of the ledger's log, and one item for each read model.

    Raises:
        NotFound: there is no such ledger.
    """
    places, clues = await asyncio.gather(
        asyncio.gather(*(_place(reader, model, ledger_id) for model in READ_MODELS)), _clues(reader, ledger_id)
    )
    # Asked for last, so that no read model seems to be ahead of the log.
    async with reader.postgres.connect() as connection:
        try:
            head = await read_head(connection, ledger_id)
        except NotFound:
            raise NotFound("There is no such ledger.") from None
    next_positions = {(place.position or 0) + 1 for place in places if (place.position or 0) < head.position}
    recorded_at, holder = await _waiting(reader, ledger_id, next_positions)
    clues = msgspec.structs.replace(clues, holder=holder)
    return head.position, [
        _item(model, place, head, recorded_at, clues) for model, place in zip(READ_MODELS, places, strict=True)
    ]


async def _waiting(reader: Reader, ledger_id: str, positions: Collection[int]) -> tuple[dict[int, datetime], Holder | None]:
    """When the events were recorded that are still to be taken, and who holds a lock that is in the way.

    Whoever has locked the log keeps us from reading it, too: then only that is told.
    """
    if not positions:
        return {}, None
    recorded_at: dict[int, datetime] = {}
    with suppress(*STORE_ERRORS):
        async with asyncio.timeout(STORE_SECONDS), reader.postgres.connect() as connection:
            recorded_at = await read_recorded_at(connection, ledger_id, positions)
    async with reader.postgres.connect() as connection:
        holders = [each for each in await read_holders(connection) if each.waiting in {"daybook-projector", ""}]
    return recorded_at, holders[0] if holders else None


async def _clues(reader: Reader, ledger_id: str) -> Clues:
    troubles: dict[str, Trouble] = {}
    with suppress(*STORE_ERRORS, PyMongoError):
        async with asyncio.timeout(STORE_SECONDS):
            troubles = await read_troubles(reader.mongo, reader.redis, ledger_id)
    with suppress(*STORE_ERRORS):
        async with asyncio.timeout(STORE_SECONDS):
            paces = await read_paces(reader.redis, ledger_id)
            return Clues(troubles, paces, bool(await reader.redis.exists(HEALTH_KEY) or await reader.redis.exists(REPORT_KEY)))
    return Clues(troubles, {})


async def _place(reader: Reader, model: ReadModel, ledger_id: str) -> Place:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            live, building, paused = await _pointer(reader, model, ledger_id)
            position = await _position(reader, model, ledger_id, live)
            building_position = await _position(reader, model, ledger_id, building)
            is_live = live is not None and position is not None
            number = live if is_live else building
            aside, letter = await _aside(reader, model, ledger_id, number)
    except (*STORE_ERRORS, PyMongoError):
        return Place(answers=False)
    shown = position if is_live else building_position
    return Place(number, shown, is_live, building, building_position, paused, aside, letter)


async def _aside(reader: Reader, model: ReadModel, ledger_id: str, number: int | None) -> tuple[Aside, Letter | None]:
    if number is None:
        return NOTHING_ASIDE, None
    generation = Generation(model, ledger_id, number)
    aside = await read_aside(reader.mongo, reader.redis, generation)
    letters = await read_letters(reader.mongo, reader.redis, generation) if aside.letters else []
    return aside, letters[0] if letters else None


async def _pointer(reader: Reader, model: ReadModel, ledger_id: str) -> tuple[int | None, int | None, str | None]:
    if model.store == "mongo":
        found = await reader.mongo.read_models.find_one({"_id": pointer_id(model, ledger_id)}) or {}
        return found.get("live"), found.get("building"), found.get("paused")
    redis: Any = reader.redis  # redis-py types its commands for both its clients at once
    live, building, paused = await redis.hmget(pointer_key(model, ledger_id), ["live", "building", "paused"])
    return int(live) if live else None, int(building) if building else None, paused


async def _position(reader: Reader, model: ReadModel, ledger_id: str, number: int | None) -> int | None:
    if number is None:
        return None
    return await read_checkpoint(reader.mongo, reader.redis, Generation(model, ledger_id, number))


def _item(model: ReadModel, place: Place, head: Head, recorded_at: dict[int, datetime], clues: Clues) -> dict[str, Any]:
    if not place.answers:
        return _progress(model, place, "failed", None, None, f"{_STORE_NAMES[model.store]} does not answer")
    position = place.position or 0
    since = recorded_at.get(position + 1)
    lag_seconds = max((head.now - since).total_seconds(), 0.0) if since else 0.0
    state, cause = _state(model, place, head, lag_seconds, clues)
    # Who has locked the log hides how old its events are.
    is_known = since is not None or position >= head.position
    lag = round(lag_seconds, 3) if is_known else None
    return _progress(model, place, state, max(head.position - position, 0), lag, cause)


def _progress(
    model: ReadModel, place: Place, state: str, lag_events: int | None, lag_seconds: float | None, cause: str | None
) -> dict[str, Any]:
    return {
        "name": model.name,
        "generation": place.number,
        "state": state,
        "position": place.position,
        "lag_events": lag_events,
        "lag_seconds": lag_seconds,
        "dead_letters": place.aside.letters,
        "parked_streams": place.aside.parked,
        "cause": cause,
    }


def _state(model: ReadModel, place: Place, head: Head, lag_seconds: float, clues: Clues) -> tuple[str, str | None]:
    """The first that is so, with what an operator has to know of it."""
    building, trouble = _building(place, head), clues.troubles.get(model.name)
    is_behind = lag_seconds > BEHIND_SECONDS
    if place.paused:
        return "paused", f"paused since {place.paused}: `daybook projections resume {model.name}` lets it go on"
    if trouble:
        return "failed", f"{trouble.cause} (since {trouble.since})" + (f"; {clues.holder}" if clues.holder else "")
    if not place.is_live:
        return "rebuilding", building or _waiting_for(model, place, clues) or "no worker has begun to build it"
    if place.letter:
        behind = f"; {_waiting_for(model, place, clues)}" if is_behind else ""
        return "degraded", _put_aside(place.letter, place.aside) + behind
    if is_behind or (clues.holder and (place.position or 0) < head.position):
        waiting = f"event {(place.position or 0) + 1}, recorded {lag_seconds:.0f} s ago, is not in: "
        return "behind", building or waiting + _waiting_for(model, place, clues)
    return "live", building


def _waiting_for(model: ReadModel, place: Place, clues: Clues) -> str:
    """Why nothing happens, or not enough of it."""
    if clues.holder:
        return str(clues.holder)
    if not clues.has_worker:
        return f"no worker runs, or none that reaches Redis (there is no key {HEALTH_KEY})"
    pace = clues.paces.get(model.name)
    slow = pace.slow_part(_STORE_NAMES[model.store]) if pace else None
    if slow:
        return slow
    return "" if place.number is None else "the worker has not come to it"


def _put_aside(letter: Letter, aside: Aside) -> str:
    first = f"event {letter.position} ({letter.type}) could not be applied: {letter.cause}"
    more = f", nor could {aside.letters - 1} more" if aside.letters > 1 else ""
    behind = f"{aside.parked} streams are parked, and {aside.put_aside} events behind"
    return f"{first}{more}; {behind}: `daybook dead-letters list`"


def _building(place: Place, head: Head) -> str | None:
    if place.building is None:
        return None
    return f"generation {place.building} is being built: {place.building_position or 0} of {head.position} events"
