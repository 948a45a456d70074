"""The ASGI app of the command API. Opens connections and background tasks at the start, and closes them at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypedDict

from fastapi import FastAPI, Request
from prometheus_client.core import Metric
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.credentials.key_changes import ApiKeyChanges
from command_api.credentials.login import Login
from command_api.credentials.password_changes import PasswordChanges
from command_api.due_runs import make_due_runs
from command_api.expired_holds import record_expired_holds
from command_api.requested_operations import RequestedOperations
from command_api.requested_skips import record_requested_skips
from command_api.requested_verifications import RequestedVerifications
from command_api.routes import router
from command_api.webhook_registration import Webhooks
from command_api.writer.handover import Handover
from command_api.writer.ledger_writer import CommandHandler
from command_api.writer.wake_up import Waker
from command_api.writer_metrics import writer_families
from shared.garbage_collection import calm_collector
from shared.identity import audit_records
from shared.identity.audit_records import ActCaller
from shared.identity.authentication import Authentication, Connections, open_connections_of_strangers
from shared.identity.denials import DenialRecorder
from shared.logs import report_loop_errors, say
from shared.metrics_text import process_families
from shared.settings import Settings, settings_or_exit
from shared.stores.doctor import require_safe
from shared.stores.postgres import open_postgres, require_durable_postgres
from shared.stores.redis import open_redis
from shared.stores.schema import require_schema
from shared.supervision import end_tasks, keep_running
from shared.tracing import open_traces
from shared.web.direct_routes import DirectApp
from shared.web.draining import draining
from shared.web.health import Readiness, StoreCheck, ask_postgres, health_router
from shared.web.metrics import RequestDurations, metrics_router
from shared.web.startup import prepare_app

COMMAND_API_DESCRIPTION: Final = """\
Every command is synchronous and durable: when you receive the answer, the events of the command are on disk. Amounts of money are
integers in minor units.

Send an `Idempotency-Key` with each command that moves money. You can repeat a request with the same key: it takes effect only
once, and you always get the same answer. Errors are `application/problem+json` with a stable `code`.
"""


RECORDED_LIMITS: Final = (
    "rate_limit_caller_per_minute",
    "rate_limit_address_per_minute",
    "session_idle_seconds",
    "session_max_seconds",
    "password_hashes_at_once",
)
"""The settings whose changes have audit records."""


class CommandApiState(TypedDict):
    """The objects that exist from the start of the app until its end. Requests reach them through `request.state`."""

    settings: Settings
    handler: CommandHandler
    login: Login
    passwords: PasswordChanges
    keys: ApiKeyChanges
    authentication: Authentication
    denials: DenialRecorder
    requests: RequestDurations
    webhooks: Webhooks
    operations: RequestedOperations
    verifications: RequestedVerifications
    engine: AsyncEngine
    readiness: Readiness
    traces: Any
    """The `Traces`, or None if they are off."""


def store_checks(engine: AsyncEngine) -> dict[str, StoreCheck]:
    """Returns the readiness checks: only PostgreSQL must answer. Without Redis, commands still succeed.

    The worker then applies their events a moment later, because it gets no wake-up.
    """
    return {"postgres": partial(ask_postgres, engine)}


async def writer_metrics(request: Request, ledger_id: str) -> list[Metric]:
    """Returns the metrics of the process and of the ledger's writer."""
    handler: CommandHandler = request.state.handler
    process = process_families(request.state.engine, request.state.settings)
    return [*process, *writer_families(ledger_id, handler, request.state.settings.command_queue_max)]


async def record_limits(engine: AsyncEngine, settings: Settings) -> None:
    """Records the limits of this process in each ledger where they differ from the last record of limits."""
    async with engine.begin() as connection:
        limits = {name: getattr(settings, name) for name in RECORDED_LIMITS}
        await audit_records.record_limits(connection, limits, ActCaller("process:command-api"))


def _start_recorders(redis: Redis, engine: AsyncEngine, handler: CommandHandler) -> list[asyncio.Task[None]]:
    """Starts the tasks that record what the worker tells."""
    return [
        keep_running("recorder of skips", partial(record_requested_skips, redis, engine, handler)),
        keep_running("recorder of expired holds", partial(record_expired_holds, redis, handler)),
        keep_running("maker of due runs", partial(make_due_runs, redis, handler)),
    ]


@asynccontextmanager
async def running_command_api(configured: Settings) -> AsyncIterator[CommandApiState]:
    """Opens the stores, starts the tasks of the API, and yields its state. At the end, ends and closes everything."""
    async with (
        open_postgres(configured, "daybook_command") as engine,
        open_postgres(configured, "daybook_command", connections_max=1) as engine_of_checks,
        open_postgres(configured, "daybook_command", connections_max=1) as engine_of_election,
        open_redis(configured) as redis,
        open_connections_of_strangers(configured, "daybook_command") as strangers,
        open_traces(configured, "command-api") as traces,
    ):
        await require_schema(engine, configured.schema_wait_seconds)
        await require_durable_postgres(engine)
        await require_safe(configured, "daybook_command", say)
        await record_limits(engine, configured)
        waker = Waker(redis, configured.wake_timeout_ms)
        handover = Handover(engine_of_election, configured.handover_folder)
        handler = CommandHandler(engine, configured, waker.wake, handover)
        await handover.start(handler.accept)
        recorders = _start_recorders(redis, engine, handler)
        login = Login(engine, strangers.engine, redis, configured)
        authentication = Authentication(Connections(engine, redis), strangers, configured)
        denials = DenialRecorder(redis, configured, "commands")
        readiness = Readiness(store_checks(engine_of_checks))
        await readiness.start()
        calm_collector()
        report_loop_errors()
        try:
            with draining(readiness, configured.drain_ms / 1000):
                yield CommandApiState(
                    settings=configured,
                    handler=handler,
                    login=login,
                    passwords=PasswordChanges(engine, login),
                    keys=ApiKeyChanges(engine),
                    authentication=authentication,
                    denials=denials,
                    requests=RequestDurations(),
                    webhooks=Webhooks(engine, configured),
                    operations=RequestedOperations(engine, configured),
                    verifications=RequestedVerifications(engine),
                    engine=engine,
                    readiness=readiness,
                    traces=traces,
                )
        finally:
            await readiness.close()
            await end_tasks(*recorders)
            await handover.resign()
            await handler.close()
            await handover.close()
            login.close()
            await authentication.close()
            await denials.close()
            await waker.close()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Makes the app of the command API. Without `settings`, reads the settings from the environment."""
    configured = settings or settings_or_exit()
    app = DirectApp(
        title="Daybook commands",
        version=version("daybook"),
        summary="Records users, accounts and the movement of money.",
        description=COMMAND_API_DESCRIPTION,
        lifespan=lambda _: running_command_api(configured),
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_direct_routes(router, configured.cors_origins)
    app.include_router(health_router())
    app.include_router(metrics_router(writer_metrics))
    prepare_app(app, configured.log_level)
    return app
