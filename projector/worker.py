"""The projector as an arq worker: `arq projector.worker.WorkerSettings`.

arq hosts: it keeps the process alive through restarts of Redis, reports health under `HEALTH_KEY`, and wakes the runner now
and then. It never carries an event, and nothing is lost with its queue: the log is what there is to do.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import structlog
import uvloop
from arq import cron
from arq.connections import ArqRedis
from arq.cron import CronJob
from pymongo.errors import PyMongoError
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from projector.projections import PROJECTIONS, Projection
from projector.runner import Runner
from projector.sealing import make_sealer
from shared.connections import (
    STORE_ERRORS,
    open_stores,
    redis_tls,
    require_durable_postgres,
    require_lasting_redis,
    require_schema,
)
from shared.doctor import require_safe
from shared.errors import DaybookError, StoreUnavailable
from shared.garbage import calm_collector
from shared.logs import configure_logs, kind_of, say
from shared.read_models import HEALTH_KEY
from shared.settings import Settings, read_settings

log = structlog.get_logger()

HEALTH_SECONDS: Final = 3
QUEUE: Final = "daybook:projector:queue"
ANSWER_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
TWICE_A_MINUTE: Final = {0, 30}
MINUTE_SECONDS: Final = 60

# arq's own commands are sound: when Redis refuses one, for want of memory or disk say, it does so only for now.
_PASSING: Final[list[type[Exception]]] = [RedisConnectionError, RedisTimeoutError, ResponseError]
_FOR_EVER: Final = -1

Context = dict[str, Any]


async def require_stores(settings: Settings) -> None:
    """Raises:
    OperatorError: the schema is not ours, or a store could lose what was acknowledged.
    StoreUnavailable: one does not answer.
    """
    async with open_stores(settings, "daybook_projector") as (engine, mongo, redis):
        await _require("PostgreSQL", require_schema(engine, settings.schema_wait_seconds), settings.schema_wait_seconds)
        await _require("PostgreSQL", require_durable_postgres(engine))
        await _require("MongoDB", mongo.command("ping"))
        await _require("Redis", require_lasting_redis(redis))
    await require_safe(settings, "daybook_projector", say)


async def _require(store: str, check: Awaitable[Any], wait_seconds: int = 0) -> None:
    try:
        async with asyncio.timeout(wait_seconds + ANSWER_SECONDS):
            await check
    except (*STORE_ERRORS, PyMongoError) as error:
        raise StoreUnavailable(f"{store} does not answer ({type(error).__name__})") from error


async def start(context: Context, settings: Settings, projections: Sequence[Projection[Any]]) -> None:
    """Opens the stores and lets the runner go."""
    configure_logs(settings.log_level)
    logging.getLogger("arq").setLevel(logging.WARNING)
    context["stack"] = stack = AsyncExitStack()
    stores = await stack.enter_async_context(open_stores(settings, "daybook_projector"))
    context["runner"] = runner = Runner(*stores, settings, projections)
    context["sealer"] = make_sealer(stores.engine, settings)
    if context["sealer"] is None:
        log.warning("no seals are made: DAYBOOK_SEAL_KEY is not set")
    context["running"] = running = asyncio.create_task(runner.run())
    # Without a runner the worker ends, so that whoever supervises it starts another.
    running.add_done_callback(lambda _: signal.raise_signal(signal.SIGTERM))
    main = asyncio.current_task()
    if main is not None:
        main.add_done_callback(lambda _: _drain(context))
    calm_collector()
    log.info("projector started")


def _drain(context: Context) -> None:
    """The loop of arq has ended. Its closing waits for Redis, for ever if need be; ours does not."""
    context["runner"].stop()
    asyncio.get_running_loop().call_later(DRAIN_SECONDS + CLOSE_SECONDS, sys.exit, "daybook projector: Redis does not answer")


async def stop(context: Context) -> None:
    """Lets the batches under way end. A runner that had ended by itself makes the process fail."""
    running: asyncio.Task[None] | None = context.get("running")
    if running is not None:
        context["runner"].stop()
        await asyncio.wait([running], timeout=DRAIN_SECONDS)
        running.cancel()
        await asyncio.wait([running])
    await context["stack"].aclose()
    if running is not None and not running.cancelled() and (error := running.exception()):
        log.error("projector failed", exc_info=error)
        sys.exit(1)
    log.info("projector stopped")


async def look(ctx: Context, *_args: Any, **_kwargs: Any) -> None:
    """One more way in which a projector that missed something comes to look."""
    ctx["runner"].wake()


class PatientConnection(AbstractConnection):
    """Waits until Redis is back, however long that takes: arq itself would end the worker."""

    async def connect(self) -> None:
        seconds = PAUSE_SECONDS
        while True:
            try:
                await super().connect()  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                log.warning("arq waits for Redis", error=kind_of(error))
            else:
                return
            await asyncio.sleep(seconds)
            seconds = min(seconds * 2, PAUSE_SECONDS_MAX)


def make_pool(settings: Settings) -> ArqRedis:
    """For arq alone; what the runner uses has time limits."""
    pool = ConnectionPool.from_url(
        settings.redis_url,
        socket_connect_timeout=settings.redis_timeout_ms / 1000,
        retry=Retry(ExponentialBackoff(cap=PAUSE_SECONDS_MAX, base=PAUSE_SECONDS), _FOR_EVER),
        retry_on_error=_PASSING,
        **redis_tls(settings.redis_url),
    )
    # Over TLS, TCP or a socket, as the URL says.
    pool.connection_class = type("Connection", (PatientConnection, pool.connection_class), {})
    return ArqRedis(pool, default_queue_name=QUEUE, job_serializer=msgspec.json.encode, job_deserializer=msgspec.json.decode)


async def seal(ctx: Context, *_args: Any, **_kwargs: Any) -> None:
    """What fails now is sealed the next time."""
    try:
        await ctx["sealer"].seal_all()
    except (*STORE_ERRORS, OSError) as error:
        log.warning("not sealed", error=type(error).__name__)


def _cron_jobs(settings: Settings) -> list[CronJob]:
    jobs = [cron(look, second=TWICE_A_MINUTE)]
    if settings.seal_key is not None:
        minutes = settings.seal_seconds // MINUTE_SECONDS
        if minutes:
            jobs.append(cron(seal, minute=set(range(0, 60, minutes)), second=0))
        else:
            jobs.append(cron(seal, second=set(range(0, 60, settings.seal_seconds))))
    return jobs


def make_worker_settings(settings: Settings, projections: Sequence[Projection[Any]] = PROJECTIONS) -> type:
    """What the command `arq` takes: a class whose attributes are the arguments of `arq.Worker`."""

    async def on_startup(context: Context) -> None:
        await start(context, settings, projections)

    attributes = {
        "redis_pool": make_pool(settings),
        "on_startup": staticmethod(on_startup),
        "on_shutdown": staticmethod(stop),
        "cron_jobs": _cron_jobs(settings),
        "queue_name": QUEUE,
        "health_check_key": HEALTH_KEY,
        "health_check_interval": HEALTH_SECONDS,
        "keep_result": 0,
        "job_serializer": msgspec.json.encode,
        "job_deserializer": msgspec.json.decode,
    }
    return type("WorkerSettings", (), attributes)


def __getattr__(name: str) -> type:
    """`WorkerSettings` is made when `arq` asks for it: importing this module reads no settings and needs no store."""
    if name != "WorkerSettings":
        raise AttributeError(name)
    try:
        settings = read_settings()
        asyncio.run(require_stores(settings))
    except DaybookError as error:
        sys.exit(f"daybook projector: {error}")
    asyncio.set_event_loop(uvloop.new_event_loop())
    return make_worker_settings(settings)
