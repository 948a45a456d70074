"""Reports that workers write about their work. They explain why a read model is behind the log.

The reports are stored in Redis and expire when no worker renews them. Nothing depends on them.

    daybook:{main}:pace         hash: read model → JSON of a `PhaseTimes`
    daybook:projector:workers   sorted set: the ids of the workers that reported in the last hour, with the time of the report
    daybook:projector:report:<worker>   JSON of an `UnhealthyReadModels`, for all ledgers

With several workers, readers get the reports of all together.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from redis.asyncio import Redis

from shared.supervision import TaskHealth

Phase = Literal["waiting", "reading", "folding", "writing"]

HEALTH_KEY: Final = "daybook:projector:{arq:abort}:health"
"""The Redis key that exists while a projector is alive. It expires a few seconds after the projector has ended.

The text in braces keeps it beside the queue of arq in a cluster: see `projector.worker`.
"""

WORKERS_KEY: Final = "daybook:projector:workers"
"""The Redis key that exists while a worker reports."""
WORKERS_KEPT_SECONDS: Final = 3_600

REPORT_INTERVAL_SECONDS: Final = 1.0
REPORT_LIFETIME_SECONDS: Final = 10
STUCK_SECONDS: Final = 2.0
"""An unfinished phase that has taken longer than this is shown as the reason why a read model is behind."""


class PhaseTimes(msgspec.Struct, frozen=True):
    """The seconds that a worker recently spent in each phase of one read model, and the number of events that it handled.

    `phase` is the current phase, which has lasted `phase_seconds` so far.
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
        """Returns a sentence about the phase that takes the most time; None if the worker did nothing recently."""
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


class UnhealthyReadModels(msgspec.Struct, frozen=True):
    """The unhealthy read models, as "ledger/name". The `degraded` ones have dead letters; the `failed` ones have stopped.

    `tasks` is the health of the endless tasks of the workers, summed by name.
    """

    degraded: list[str]
    failed: list[str]
    tasks: Mapping[str, TaskHealth] = {}


class ReadModelReport(msgspec.Struct, frozen=True):
    """A worker's report about one read model."""

    ledger_id: str
    name: str
    phase_times: PhaseTimes
    is_degraded: bool
    has_failed: bool


def phase_times_key(ledger_id: str) -> str:
    return f"daybook:{{{ledger_id}}}:pace"


async def read_phase_times(redis: "Redis", ledger_id: str) -> dict[str, PhaseTimes]:
    """Returns the phase times of a ledger's read models, by the name of the read model."""
    client: Any = redis  # redis-py's types do not tell its asynchronous client from the blocking one
    found = await client.hgetall(phase_times_key(ledger_id))
    return {name: msgspec.json.decode(value, type=PhaseTimes) for name, value in found.items()}


async def read_unhealthy_read_models(redis: "Redis") -> UnhealthyReadModels | None:
    """Returns what all workers last reported about all ledgers; None if no worker has reported recently."""
    client: Any = redis
    workers = await client.zrange(WORKERS_KEY, 0, -1)
    async with client.pipeline(transaction=False) as pipe:
        for worker in workers:
            pipe.get(_report_key(worker))
        found = [text for text in await pipe.execute() if text]
    return _together([msgspec.json.decode(text, type=UnhealthyReadModels) for text in found]) if found else None


def _together(reports: Sequence[UnhealthyReadModels]) -> UnhealthyReadModels:
    """Returns one report for several workers. A read model is unhealthy if one worker says so."""
    degraded = {name for report in reports for name in report.degraded}
    failed = {name for report in reports for name in report.failed}
    tasks: dict[str, TaskHealth] = {}
    for report in reports:
        for name, health in report.tasks.items():
            tasks[name] = tasks[name].with_more(health) if name in tasks else health
    return UnhealthyReadModels(sorted(degraded), sorted(failed), tasks)


def _report_key(worker_id: str) -> str:
    return f"daybook:projector:report:{worker_id}"


async def publish_reports(
    redis: "Redis",
    worker_id: str,
    reports: Iterable[ReadModelReport],
    degraded: Iterable[str],
    tasks: Mapping[str, TaskHealth],
) -> None:
    """Writes the reports of a worker, which expire after `REPORT_LIFETIME_SECONDS`.

    `degraded` are read models with dead letters that no report is about, because their ledger is asleep, as "ledger/name".

    Phase times are written only for ledgers that have a busy read model. The list of unhealthy read models is always written.
    """
    reports = list(reports)
    busy = {report.ledger_id for report in reports if report.phase_times.is_busy}
    async with redis.pipeline(transaction=False) as pipe:
        for report in reports:
            if report.ledger_id in busy:
                key = phase_times_key(report.ledger_id)
                pipe.hset(key, report.name, msgspec.json.encode(report.phase_times).decode())
        for ledger_id in busy:
            pipe.expire(phase_times_key(ledger_id), REPORT_LIFETIME_SECONDS)
        all_degraded = sorted({*degraded, *_names(reports, "is_degraded")})
        unhealthy = UnhealthyReadModels(all_degraded, _names(reports, "has_failed"), tasks)
        pipe.set(_report_key(worker_id), msgspec.json.encode(unhealthy), ex=REPORT_LIFETIME_SECONDS)
        now = time.time()
        pipe.zadd(WORKERS_KEY, {worker_id: now})
        pipe.zremrangebyscore(WORKERS_KEY, 0, now - WORKERS_KEPT_SECONDS)
        pipe.expire(WORKERS_KEY, REPORT_LIFETIME_SECONDS)
        await pipe.execute()


def _names(reports: Iterable[ReadModelReport], flag: Literal["is_degraded", "has_failed"]) -> list[str]:
    return sorted(f"{report.ledger_id}/{report.name}" for report in reports if getattr(report, flag))
