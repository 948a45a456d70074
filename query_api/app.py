"""The ASGI app of the query API: its routes, the objects that exist as long as the app, its start and its end.

Each file in `query_api/resources` has one resource with its routes, parameters and answers. This file lists the resources in the
order of the OpenAPI document.
"""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final, TypedDict

from fastapi import APIRouter, FastAPI

from query_api.console import add_console
from query_api.cursors import Cursors
from query_api.doctor_reports import DoctorReports
from query_api.log_replica import open_replica
from query_api.log_tail import LogTails
from query_api.operations import lag_metrics, readiness_notes, store_checks
from query_api.reading import SWITCH_SECONDS, Reader
from query_api.resources import (
    accounts,
    activity,
    audit_records,
    caller,
    currencies,
    days,
    denials,
    doctor,
    entries,
    events,
    explanations,
    export,
    holds,
    keys,
    ledgers,
    limits,
    projections,
    read_model_operations,
    receipts,
    reports,
    schedules,
    seals,
    search,
    statements,
    statistics,
    timeline,
    transfers,
    trial_balance,
    users,
    verifications,
    webhooks,
)
from shared.garbage_collection import calm_collector
from shared.identity.authentication import Authentication, Connections, open_connections_of_strangers
from shared.identity.denials import DenialRecorder
from shared.logs import report_loop_errors, say
from shared.privacy.person_keys import PersonKeys
from shared.setting_values import read_secrets
from shared.settings import Settings, settings_or_exit
from shared.stores.all_stores import open_optional_stores
from shared.stores.doctor import require_safe
from shared.stores.mongo import open_mongo
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis, require_lasting_redis
from shared.stores.schema import require_schema
from shared.tracing import open_traces
from shared.web.direct_routes import DirectApp
from shared.web.draining import draining
from shared.web.health import Readiness, health_router
from shared.web.metrics import RequestDurations, metrics_router
from shared.web.startup import prepare_app

RESOURCES: Final = (
    users,
    export,
    accounts,
    entries,
    timeline,
    statements,
    transfers,
    holds,
    schedules,
    receipts,
    statistics,
    trial_balance,
    reports,
    search,
    activity,
    currencies,
    events,
    explanations,
    limits,
    ledgers,
    projections,
    read_model_operations,
    verifications,
    seals,
    days,
    denials,
    doctor,
    audit_records,
    keys,
    webhooks,
    caller,
)
router = APIRouter(routes=[route for resource in RESOURCES for route in resource.router.routes])


class QueryApiState(TypedDict):
    """The objects that exist from the start of the app until its end. Requests reach them through `request.state`."""

    settings: Settings
    authentication: Authentication
    denials: DenialRecorder
    requests: RequestDurations
    reader: Reader
    reports: Any
    """The `ReportQueries`, or None if SQL reporting is off."""
    search: Any
    """The `SearchQueries`, or None if search is off."""
    timeline: Any
    """The `TimelineQueries`, or None if the timeline is off."""
    log_tails: LogTails
    cursors: Cursors
    doctor_reports: DoctorReports
    person_keys: PersonKeys
    readiness: Readiness
    traces: Any
    """The `Traces`, or None if they are off."""


@asynccontextmanager
async def running_query_api(configured: Settings) -> AsyncIterator[QueryApiState]:
    """Opens the stores, starts the tasks of the API, and yields its state. At the end, ends and closes everything."""
    async with (
        open_postgres(configured, "daybook_query") as postgres,
        open_postgres(configured, "daybook_query", connections_max=1) as postgres_of_checks,
        open_replica(configured) as replica,
        open_mongo(configured, configured.mongo_timeout_ms) as mongo,
        open_redis(configured) as redis,
        open_optional_stores(configured, read_only=True) as optional,
        open_connections_of_strangers(configured, "daybook_query") as strangers,
        open_traces(configured, "query-api") as traces,
    ):
        await require_schema(postgres, configured.schema_wait_seconds)
        await require_lasting_redis(redis)
        await require_safe(configured, "daybook_query", say)
        authentication = Authentication(Connections(postgres, redis), strangers, configured)
        denials = DenialRecorder(redis, configured, "queries")
        log_tails = LogTails(postgres, redis, configured.event_streams_max)
        reader = Reader(postgres, mongo, redis, configured, optional, replica)
        notes = partial(readiness_notes, postgres_of_checks, redis, is_publishing=bool(configured.publish_url))
        readiness = Readiness(store_checks(postgres_of_checks, mongo, redis), notes)
        await readiness.start()
        calm_collector()
        report_loop_errors()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            with draining(readiness, configured.drain_ms / 1000):
                yield QueryApiState(
                    settings=configured,
                    authentication=authentication,
                    denials=denials,
                    requests=RequestDurations(),
                    reader=reader,
                    reports=_queries_of(optional, "sql", "query_api.report_queries", "ReportQueries"),
                    search=_queries_of(optional, "search", "query_api.search_queries", "SearchQueries"),
                    timeline=_queries_of(optional, "timeline", "query_api.timeline_queries", "TimelineQueries"),
                    log_tails=log_tails,
                    doctor_reports=DoctorReports(configured),
                    cursors=Cursors(*read_secrets(configured.secret.get_secret_value())),
                    person_keys=PersonKeys(configured),
                    readiness=readiness,
                    traces=traces,
                )
        finally:
            await readiness.close()
            await reader.positions.close()
            await log_tails.close()
            await authentication.close()
            await denials.close()


def _queries_of(optional: Mapping[str, Any], store: str, module: str, name: str) -> Any:
    """Returns the queries of an optional store, or None. Their module needs packages that are there only if it is in use."""
    return getattr(import_module(module), name)(optional[store]) if store in optional else None


def create_app(settings: Settings | None = None) -> FastAPI:
    """Makes the app of the query API. Without `settings`, reads the settings from the environment."""
    configured = settings or settings_or_exit()
    app = DirectApp(
        title="Daybook queries",
        version=version("daybook"),
        summary="Answers what is known about users, accounts and the movement of money.",
        description=DESCRIPTION,
        lifespan=lambda _: running_query_api(configured),
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_direct_routes(router, configured.cors_origins)
    app.include_router(health_router())
    app.include_router(metrics_router(lag_metrics))
    add_console(app, configured)
    prepare_app(app, configured.log_level)
    return app


DESCRIPTION: Final = """\
The header `Daybook-Position` of an answer is a position in the ledger's log: the answer includes all events up to it. To read
what you have written, send the `Daybook-Position` of the command as `Daybook-Min-Position`. The query then waits, for a bounded
time, until the read model has reached that position.

Lists have pages. Send `next` as `cursor` to get the next page. If a read model does not exist yet, the answer is 503 `rebuilding`
and never an empty result. Errors are `application/problem+json` with a stable `code`.
"""
