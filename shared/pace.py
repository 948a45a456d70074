"""What workers tell of themselves while they work, for those who ask why a read model is behind.

It stands in Redis and goes by itself when no worker tells it any more. Best effort: nothing depends on it.

    daybook:{main}:pace         hash: read model → JSON of a `Pace`
    daybook:projector:report    JSON of a `Report`, about all ledgers
"""

from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec
from redis.asyncio import Redis

Phase = Literal["waiting", "reading", "folding", "writing"]

REPORT_KEY: Final = "daybook:projector:report"
TELL_SECONDS: Final = 1.0
"""How often a worker tells."""

LASTS_SECONDS: Final = 10
STUCK_SECONDS: Final = 2.0
"""A phase that has taken so long without an end is what a read model waits for."""


class Pace(msgspec.Struct, frozen=True):
    """How a worker got on with one read model lately: seconds in each phase, and the events that they were for.

    `phase` is what it does now, for `phase_seconds` so far.
    """

    phase: Phase
    phase_seconds: float
    reading: float
    folding: float
    writing: float
    events: float

    @property
    def is_busy(self) -> bool:
        return self.phase != "waiting" or self.events >= 1

    def slow_part(self, store: str) -> str | None:
        """What takes the time; None where there is nothing to tell."""
        names = {"reading": "reading the log", "folding": "the projection's function", "writing": f"writing to {store}"}
        if self.phase in names and self.phase_seconds > STUCK_SECONDS:
            return f"{names[self.phase]} has taken {self.phase_seconds:.0f} s, and goes on"
        seconds = {"reading": self.reading, "folding": self.folding, "writing": self.writing}
        total = sum(seconds.values())
        if total == 0:
            return None
        slowest = max(seconds, key=lambda phase: seconds[phase])
        share, rate = seconds[slowest] / total, self.events / total
        return f"{names[slowest]} takes {share:.0%} of the time, at {rate:.0f} events/s"


class Report(msgspec.Struct, frozen=True):
    """Names of read models, as «ledger/name»: those that have put events aside, and those that do not go on."""

    degraded: list[str]
    failed: list[str]


class Told(msgspec.Struct, frozen=True):
    """What a worker tells of one read model."""

    ledger_id: str
    name: str
    pace: Pace
    is_degraded: bool
    has_failed: bool


def pace_key(ledger_id: str) -> str:
    return f"daybook:{{{ledger_id}}}:pace"


async def read_paces(redis: "Redis", ledger_id: str) -> dict[str, Pace]:
    client: Any = redis  # redis-py types its commands for both its clients at once
    found = await client.hgetall(pace_key(ledger_id))
    return {name: msgspec.json.decode(value, type=Pace) for name, value in found.items()}


async def read_report(redis: "Redis") -> Report | None:
    """None where no worker has told anything lately."""
    client: Any = redis
    found = await client.get(REPORT_KEY)
    return msgspec.json.decode(found, type=Report) if found else None


async def tell(redis: "Redis", told: Iterable[Told]) -> None:
    """For `LASTS_SECONDS`. Of ledgers that nothing happens in, only what is not well is told."""
    told = list(told)
    busy = {each.ledger_id for each in told if each.pace.is_busy}
    async with redis.pipeline(transaction=False) as pipe:
        for each in told:
            if each.ledger_id in busy:
                pipe.hset(pace_key(each.ledger_id), each.name, msgspec.json.encode(each.pace).decode())
        for ledger_id in busy:
            pipe.expire(pace_key(ledger_id), LASTS_SECONDS)
        report = Report(_names(told, "is_degraded"), _names(told, "has_failed"))
        pipe.set(REPORT_KEY, msgspec.json.encode(report), ex=LASTS_SECONDS)
        await pipe.execute()


def _names(told: Iterable[Told], what: str) -> list[str]:
    return sorted(f"{each.ledger_id}/{each.name}" for each in told if getattr(each, what))
