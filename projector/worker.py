"""Runs the projector as an arq worker: `arq projector.worker.WorkerSettings`.

arq keeps the process alive while Redis restarts, reports its health under `HEALTH_KEY`, and wakes the runner twice a minute. No
event goes through arq's queue. If the queue is lost, nothing else is: the projector reads its work from the log.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
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
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.due import EXPIRED_HOLDS, SCHEDULED_RUNS, DueTeller
from projector.live_workers import ALIVE_KEY
from projector.metrics_server import MetricsServer, open_metrics_server
from projector.operation_worker import CONNECTIONS_MAX as OPERATION_CONNECTIONS_MAX
from projector.operation_worker import OperationWorker
from projector.projections.projection import Projection
from projector.publishing.broker import open_broker
from projector.publishing.publisher import publishing
from projector.runner import Runner
from projector.sealing.sealer import make_sealer
from projector.sinks.mongo import drop_old_collections
from projector.verification_worker import VerificationWorker
from projector.webhooks.sender import CONNECTIONS_MAX, WebhookSender
from projector.worker_metrics import worker_metrics_text
from shared.errors import DaybookError, StoreUnavailable
from shared.garbage_collection import calm_collector
from shared.logs import configure_logs, kind_of, report_loop_errors, say
from shared.read_models.worker_reports import HEALTH_KEY
from shared.settings import Settings, read_settings
from shared.stores.all_stores import Stores, open_stores
from shared.stores.doctor import require_safe
from shared.stores.postgres import open_postgres, require_durable_postgres
from shared.stores.redis import find_server, redis_tls, require_lasting_redis
from shared.stores.redis_cluster import Place, names_cluster, read_cluster_url
from shared.stores.schema import require_schema
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running
from shared.tracing import Traces, open_traces

log = structlog.get_logger()

HEALTH_SECONDS: Final = 3
ARQ_SLOT: Final = "{arq:abort}"
"""arq changes its queue, the keys of a job and its key `arq:abort` in one transaction. This text in the name of the queue and of
each job keeps all of them in the slot of that key, so in a cluster they are on one server."""
QUEUE: Final = f"daybook:projector:{ARQ_SLOT}:queue"
ANSWER_SECONDS_MAX: Final = 2.0
RUNNER_DRAIN_SECONDS: Final = 5.0
STORES_CLOSE_SECONDS: Final = 2.0
QUEUE_PATIENCE: Final = 5
"""How many times the longest wait of a query arq waits for the server of a cluster."""
RECONNECT_SECONDS: Final = 0.05
RECONNECT_SECONDS_MAX: Final = 1.0
TWICE_A_MINUTE: Final = {0, 30}
EVERY_TEN_SECONDS: Final = set(range(5, 60, 10))
MINUTE_SECONDS: Final = 60

# arq's own commands are correct. If Redis answers one with an error, for example because memory is full, a later retry succeeds.
_RETRIED_BY_ARQ: Final[list[type[Exception]]] = [RedisConnectionError, RedisTimeoutError, ResponseError]
_FOR_EVER: Final = -1

Context = dict[str, Any]


async def require_stores(settings: Settings) -> None:
    """Checks that all stores answer and are safe to use. The broker may be away, but its packages must be installed.

    Raises:
        OperatorError: the schema is not the one of this code, or a store could lose acknowledged data.
        StoreUnavailable: a store does not answer.
    """
    if settings.publish_url:
        open_broker(settings)
    async with open_stores(settings, "daybook_projector") as stores:
        await _require("PostgreSQL", require_schema(stores.engine, settings.schema_wait_seconds), settings.schema_wait_seconds)
        await _require("PostgreSQL", require_durable_postgres(stores.engine))
        await _require("MongoDB", stores.mongo.command("ping"))
        await _require("Redis", require_lasting_redis(stores.redis))
    await require_safe(settings, "daybook_projector", say)


async def _require(store: str, check: Awaitable[Any], wait_seconds: int = 0) -> None:
    try:
        async with asyncio.timeout(wait_seconds + ANSWER_SECONDS_MAX):
            await check
    except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError) as error:
        raise StoreUnavailable(f"{store} does not answer ({type(error).__name__})") from error


async def start(
    context: Context,
    settings: Settings,
    runner_of: Callable[[Stores, Traces | None], Runner],
    metrics_server: MetricsServer | None,
    projections: Sequence[Projection[Any]] | None = None,
) -> None:
    """Opens the stores, and starts the runner and the server of metrics."""
    configure_logs(settings.log_level)
    report_loop_errors()
    logging.getLogger("arq").setLevel(logging.WARNING)
    context["stack"] = stack = AsyncExitStack()
    stores = await stack.enter_async_context(open_stores(settings, "daybook_projector"))
    await _drop_old_collections(stores)
    traces = await stack.enter_async_context(open_traces(settings, "worker"))
    context["runner"] = runner = runner_of(stores, traces)
    context["stores"] = stores
    context["holds"], context["runs"] = DueTeller(EXPIRED_HOLDS), DueTeller(SCHEDULED_RUNS)
    of_webhooks = await stack.enter_async_context(_open_for_leader(settings, CONNECTIONS_MAX))
    context["webhooks"] = keep_running("sender of webhooks", WebhookSender(of_webhooks, settings).run)
    await stack.enter_async_context(publishing(settings))
    of_operations = await stack.enter_async_context(_open_for_leader(settings, OPERATION_CONNECTIONS_MAX))
    operations = OperationWorker(stores._replace(engine=of_operations), settings, projections)
    context["operations"] = keep_running("worker of operations", operations.run)
    of_verifications = await stack.enter_async_context(_open_for_leader(settings, 1))
    verifying = VerificationWorker(of_verifications, settings)
    context["verifications"] = keep_running("worker of verifications", verifying.run)
    context["sealer"] = make_sealer(stores.engine, settings)
    if context["sealer"] is None:
        log.warning("no seals are made: DAYBOOK_SEAL_KEY is not set")
    context["running"] = running = asyncio.create_task(runner.run())
    # If the runner ends by itself, end the process, so that its supervisor starts a new one.
    running.add_done_callback(lambda _: signal.raise_signal(signal.SIGTERM))
    main = asyncio.current_task()
    if main is not None:
        main.add_done_callback(lambda _: _drain(context))
    calm_collector()
    if metrics_server:
        metrics_server.start(partial(worker_metrics_text, runner, stores, settings))
        stack.push_async_callback(asyncio.to_thread, metrics_server.stop)
    log.info("projector started")


def _open_for_leader(settings: Settings, connections_max: int) -> AbstractAsyncContextManager[AsyncEngine]:
    """Opens connections for work that one worker does for all: a lock on a session says which."""
    return open_postgres(settings, "daybook_projector", connections_max, keeps_session=True)


async def _drop_old_collections(stores: Stores) -> None:
    """Drops the collections of older code. If MongoDB does not answer, the next start does it."""
    try:
        if count := await drop_old_collections(stores.mongo):
            log.info("collections of an older version dropped", count=count)
    except PyMongoError as error:
        log.warning("collections of an older version are dropped later", error=kind_of(error))


def _drain(context: Context) -> None:
    """Stops the runner after arq's loop has ended, and ends the process if arq still waits for Redis some seconds later."""
    context["runner"].stop()
    asyncio.get_running_loop().call_later(
        RUNNER_DRAIN_SECONDS + STORES_CLOSE_SECONDS, sys.exit, "daybook projector: Redis does not answer"
    )


async def stop(context: Context) -> None:
    """Stops the runner after its current batches, and closes the stores. Exits with 1 if the runner failed before."""
    running: asyncio.Task[None] | None = context.get("running")
    if running is not None:
        await end_tasks(context["webhooks"], context["operations"], context["verifications"])
        context["runner"].stop()
        await asyncio.wait([running], timeout=RUNNER_DRAIN_SECONDS)
        await end_tasks(running)
    await context["stack"].aclose()
    if running is not None and not running.cancelled() and (error := running.exception()):
        log.error("projector failed", exc_info=error)
        sys.exit(1)
    log.info("projector stopped")


async def look(ctx: Context, *_args: Any, **_kwargs: Any) -> None:
    """Wakes the runner, in case it missed a wake-up."""
    ctx["runner"].wake()


class PatientConnection(AbstractConnection):
    """A connection that retries until Redis answers again. Without it, arq would end the worker."""

    host: str
    port: int
    find_server: Callable[[], Awaitable[Place]] | None = None
    """Finds the server of a cluster that has the queue. A server that has it no longer refuses a command, and arq tries again."""

    async def connect(self) -> None:
        seconds = RECONNECT_SECONDS
        while True:
            try:
                if self.find_server and not self.is_connected:
                    self.host, self.port = await self.find_server()
                await super().connect()  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                log.warning("arq waits for Redis", error=kind_of(error))
            else:
                return
            await asyncio.sleep(seconds)
            seconds = min(seconds * 2, RECONNECT_SECONDS_MAX)


def make_pool(settings: Settings) -> ArqRedis:
    """Returns a Redis client for arq only, which waits for Redis without a limit. The runner's client has time limits."""
    url, more, members = settings.redis_url, {}, {}
    if names_cluster(url):
        [first, *_], url_of = read_cluster_url(url)
        url = url_of(first)
        # A server that was lost with its machine ends no connection, and another one has the queue by then.
        more = {"socket_timeout": settings.redis_timeout_ms * QUEUE_PATIENCE / 1000}
        members = {"find_server": staticmethod(partial(find_server, settings, QUEUE))}
    pool = ConnectionPool.from_url(
        url,
        socket_connect_timeout=settings.redis_timeout_ms / 1000,
        retry=Retry(ExponentialBackoff(cap=RECONNECT_SECONDS_MAX, base=RECONNECT_SECONDS), _FOR_EVER),
        retry_on_error=_RETRIED_BY_ARQ,
        **redis_tls(url),
        **more,
    )
    # `from_url` has chosen a connection class by the URL: for TLS, TCP or a socket. Keep it as the base class.
    pool.connection_class = type("Connection", (PatientConnection, pool.connection_class), members)
    return ArqRedis(pool, default_queue_name=QUEUE, job_serializer=msgspec.json.encode, job_deserializer=msgspec.json.decode)


async def seal(ctx: Context, *_args: Any, **_kwargs: Any) -> None:
    """Seals all ledgers. If a store fails, the next run seals what is missing."""
    try:
        await ctx["sealer"].seal_all()
    except (*POSTGRES_AND_REDIS_ERRORS, OSError) as error:
        log.warning("not sealed", error=type(error).__name__)


async def find_due_holds(ctx: Context, *_args: Any, **_kwargs: Any) -> None:
    """Tells the command APIs which holds have expired, so that they record it."""
    await ctx["holds"].tell(ctx["stores"])


async def find_due_runs(ctx: Context, *_args: Any, **_kwargs: Any) -> None:
    """Tells the command APIs which runs of schedules are due, so that they make them."""
    await ctx["runs"].tell(ctx["stores"])


def _cron_jobs(settings: Settings) -> list[CronJob]:
    jobs = [_cron(look, second=TWICE_A_MINUTE), _cron(find_due_holds, second=EVERY_TEN_SECONDS)]
    jobs.append(_cron(find_due_runs, second=EVERY_TEN_SECONDS))
    if settings.seal_key is not None:
        minutes = settings.seal_seconds // MINUTE_SECONDS
        if minutes:
            jobs.append(_cron(seal, minute=set(range(0, 60, minutes)), second=0))
        else:
            jobs.append(_cron(seal, second=set(range(0, 60, settings.seal_seconds))))
    return jobs


def _cron(job: Any, **when: Any) -> CronJob:
    return cron(job, name=f"{ARQ_SLOT}:{job.__name__}", **when)


def make_worker_settings(
    settings: Settings, projections: Sequence[Projection[Any]] | None = None, alive_key: str = ALIVE_KEY
) -> type:
    """Returns the class that the command `arq` needs. Its attributes are the arguments of `arq.Worker`.

    The worker shares the ledgers with the workers that have the same `alive_key`.

    Raises:
        SettingsInvalid: the port of the metrics cannot be opened.
    """
    metrics_server = open_metrics_server(settings)

    def runner_of(stores: Stores, traces: Traces | None) -> Runner:
        return Runner(stores, settings, projections, alive_key=alive_key, traces=traces)

    async def on_startup(context: Context) -> None:
        await start(context, settings, runner_of, metrics_server, projections)

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
    """Makes `WorkerSettings` when `arq` first accesses it. Importing this module reads no settings and needs no store."""
    if name != "WorkerSettings":
        raise AttributeError(name)
    try:
        settings = read_settings()
        asyncio.run(require_stores(settings))
        worker_settings = make_worker_settings(settings)
    except DaybookError as error:
        sys.exit(f"daybook projector: {error}")
    asyncio.set_event_loop(uvloop.new_event_loop())
    return worker_settings
