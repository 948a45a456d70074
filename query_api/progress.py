"""How far each read model is, and why it is not further.

Answers also when MongoDB or Redis does not: that is when it is asked.
"""

import asyncio
from datetime import datetime
from typing import Any, Final

import msgspec
from pymongo.errors import PyMongoError

from query_api.reading import Reader
from shared.connections import STORE_ERRORS
from shared.errors import NotFound
from shared.event_store import Head, read_head, read_recorded_at
from shared.read_models import (
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
    answers: bool = True


async def list_progress(reader: Reader, ledger_id: str) -> tuple[int, list[dict[str, Any]]]:
    """The head of the ledger's log, and one item for each read model.

    Raises:
        NotFound: there is no such ledger.
    """
    places, troubles = await asyncio.gather(
        asyncio.gather(*(_place(reader, model, ledger_id) for model in READ_MODELS)), _troubles(reader, ledger_id)
    )
    # Asked for last, so that no read model seems to be ahead of the log.
    async with reader.postgres.connect() as connection:
        try:
            head = await read_head(connection, ledger_id)
        except NotFound:
            raise NotFound("There is no such ledger.") from None
        next_positions = {(place.position or 0) + 1 for place in places}
        recorded_at = await read_recorded_at(connection, ledger_id, next_positions)
    return head.position, [
        _item(model, place, head, recorded_at, troubles.get(model.name)) for model, place in zip(READ_MODELS, places, strict=True)
    ]


async def _troubles(reader: Reader, ledger_id: str) -> dict[str, Trouble]:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            return await read_troubles(reader.mongo, reader.redis, ledger_id)
    except (*STORE_ERRORS, PyMongoError):
        return {}


async def _place(reader: Reader, model: ReadModel, ledger_id: str) -> Place:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            live, building, paused = await _pointer(reader, model, ledger_id)
            position = await _position(reader, model, ledger_id, live)
            building_position = await _position(reader, model, ledger_id, building)
    except (*STORE_ERRORS, PyMongoError):
        return Place(answers=False)
    if live is None or position is None:
        return Place(building, building_position, building=building, building_position=building_position, paused=paused)
    return Place(live, position, is_live=True, building=building, building_position=building_position, paused=paused)


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


def _item(
    model: ReadModel, place: Place, head: Head, recorded_at: dict[int, datetime], trouble: Trouble | None
) -> dict[str, Any]:
    if not place.answers:
        return _progress(model, place, "failed", None, None, f"{_STORE_NAMES[model.store]} does not answer")
    position = place.position or 0
    since = recorded_at.get(position + 1)
    lag_seconds = max((head.now - since).total_seconds(), 0.0) if since else 0.0
    state, cause = _state(model, place, head, lag_seconds, trouble)
    return _progress(model, place, state, max(head.position - position, 0), round(lag_seconds, 3), cause)


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
        "cause": cause,
    }


def _state(model: ReadModel, place: Place, head: Head, lag_seconds: float, trouble: Trouble | None) -> tuple[str, str | None]:
    building = _building(place, head)
    if place.paused:
        return "paused", f"paused since {place.paused}: `daybook projections resume {model.name}` lets it go on"
    if trouble:
        return "failed", f"{trouble.cause} (since {trouble.since})"
    if not place.is_live:
        return "rebuilding", building or "no worker has begun to build it"
    if lag_seconds > BEHIND_SECONDS:
        waiting = f"no worker has taken event {(place.position or 0) + 1}, recorded {lag_seconds:.0f} s ago"
        return "behind", building or waiting
    return "live", building


def _building(place: Place, head: Head) -> str | None:
    if place.building is None:
        return None
    return f"generation {place.building} is being built: {place.building_position or 0} of {head.position} events"
