"""The readiness checks of the query API, the notes that `/readyz` adds, and the metrics of the read models."""

from contextlib import suppress
from functools import partial
from typing import Any, Final

from fastapi import Request
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from query_api.progress import list_progress
from query_api.reading import Reader
from shared.metrics_text import process_families, task_families
from shared.proof.seal_store import last_sealed_at
from shared.publishing.checkpoints import in_words, read_published
from shared.read_models.lag_metrics import LagFamilies
from shared.read_models.worker_reports import UnhealthyReadModels, read_unhealthy_read_models
from shared.stores.mongo import MongoDatabase
from shared.stores.store_errors import REDIS_ERRORS
from shared.supervision import tasks_in_words
from shared.timestamps import timestamp
from shared.web.health import StoreCheck, ask_postgres, ask_redis

UNKNOWN: Final = "unknown: no worker reports on them"


def store_checks(postgres: AsyncEngine, mongo: MongoDatabase, redis: "Redis") -> dict[str, StoreCheck]:
    """Returns the readiness checks: the query API needs all three stores."""
    return {
        "postgres": partial(ask_postgres, postgres),
        "mongo": partial(mongo.command, "ping"),
        "redis": partial(ask_redis, redis),
    }


async def readiness_notes(postgres: AsyncEngine, redis: "Redis", *, is_publishing: bool = False) -> dict[str, Any]:
    """Returns the time of the last seal, the health of the read models and, if `is_publishing`, how far events are published.

    Logs are sealed only if a worker has a seal key.
    """
    async with postgres.connect() as connection:
        sealed_at = await last_sealed_at(connection)
        published = {"publishing": in_words(await read_published(connection))} if is_publishing else {}
    report = await _read_reports(redis)
    never = "never: no worker with a DAYBOOK_SEAL_KEY has sealed an event yet"
    return {
        "sealed_at": timestamp(sealed_at) if sealed_at else never,
        "read_models": _read_model_health(report),
        "worker_tasks": tasks_in_words(report.tasks) if report else UNKNOWN,
        **published,
    }


async def _read_reports(redis: "Redis") -> UnhealthyReadModels | None:
    """Returns what the workers report, or None if no worker does or Redis does not answer.

    In a cluster, only the server that has the reports may be away, and this process goes on with the others.
    """
    with suppress(*REDIS_ERRORS):
        return await read_unhealthy_read_models(redis)
    return None


def _read_model_health(report: UnhealthyReadModels | None) -> str:
    """Returns the health of the read models of all ledgers in one line, as the workers report it."""
    if report is None:
        return UNKNOWN
    if report.failed or report.degraded:
        return f"degraded: {len(report.failed)} have stopped, {len(report.degraded)} have dead letters"
    return "ok"


async def lag_metrics(request: Request, ledger_id: str) -> list[Metric]:
    """Returns metrics of how far the read models of a ledger are behind its log, and of their dead letters."""
    reader: Reader = request.state.reader
    head, items = await list_progress(reader, ledger_id)
    report = await _read_reports(reader.redis)
    position = GaugeMetricFamily("daybook_log_position", "The last position of the log.", labels=["ledger"])
    position.add_metric([ledger_id], head)
    help_ = "Streams that a read model does not apply any further because of dead letters."
    parked = GaugeMetricFamily("daybook_projection_parked_streams", help_, labels=["ledger", "projection"])
    lag = LagFamilies()
    for item in items:
        failed = item["state"] == "failed"
        lag.add(ledger_id, item["name"], item["lag_events"], item["lag_seconds"], item["dead_letters"], failed=failed)
        parked.add_metric([ledger_id, item["name"]], item["parked_streams"])
    tasks = task_families("worker_task", report.tasks if report else {})
    process = process_families(reader.postgres, request.state.settings)
    return [*process, position, *lag.families, parked, *tasks]
