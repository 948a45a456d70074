"""The metrics of the worker: how far each read model of each ledger is, and how long what is due has waited."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pymongo.errors import PyMongoError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.due import EXPIRED_HOLDS, SCHEDULED_RUNS, oldest_due_seconds
from projector.follower import FollowerState
from projector.runner import Runner
from shared.log.read import read_recorded_at
from shared.metrics_text import metrics_text, process_families
from shared.publishing.checkpoints import read_published
from shared.read_models.lag_metrics import LagFamilies
from shared.settings import Settings
from shared.stores.all_stores import Stores
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

STORES_SECONDS: Final = 3.0
"""The longest wait for what only the stores know. Without it, the other metrics are still answered."""


async def worker_metrics_text(runner: Runner, stores: Stores, settings: Settings) -> bytes:
    """Returns the metrics of this worker in the format of Prometheus."""
    states = runner.states()
    ages, due, published = await asyncio.gather(
        _lag_seconds(stores.engine, states), _due_family(stores), _publishing_families(stores.engine, settings)
    )
    return metrics_text([*process_families(stores.engine, settings), *_follower_families(states, ages), due, *published])


Ages = dict[tuple[str, str], float]
"""The age of the oldest event that a read model has not applied yet, in seconds, by (ledger id, name of the read model)."""


async def _lag_seconds(engine: AsyncEngine, states: Sequence[FollowerState]) -> Ages:
    """Asks PostgreSQL only about ledgers of which a read model is behind. Leaves out what it does not answer."""
    ages: Ages = {}
    behind: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for state in states:
        if state.position is not None and state.position < state.head:
            behind[state.ledger_id].append((state.name, state.position + 1))
        elif state.position is not None:
            ages[state.ledger_id, state.name] = 0.0
    if not behind:
        return ages
    with suppress(*POSTGRES_AND_REDIS_ERRORS):
        async with asyncio.timeout(STORES_SECONDS), engine.connect() as connection:
            now = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
            for ledger_id, waiting in behind.items():
                recorded_at = await read_recorded_at(connection, ledger_id, {position for _, position in waiting})
                for name, position in waiting:
                    if position in recorded_at:
                        ages[ledger_id, name] = max((now - recorded_at[position]).total_seconds(), 0.0)
    return ages


def _follower_families(states: Sequence[FollowerState], ages: Ages) -> list[Metric]:
    lag = LagFamilies()
    labels = ["ledger", "projection"]
    events = CounterMetricFamily(
        "daybook_projection_events", "Events that this worker has applied to a read model.", labels=labels
    )
    seconds = CounterMetricFamily(
        "daybook_projection_seconds", "Time that this worker has spent on a read model, by phase.", labels=[*labels, "phase"]
    )
    for state in states:
        about = state.ledger_id, state.name
        lag_events = None if state.position is None else max(state.head - state.position, 0)
        lag.add(*about, lag_events, ages.get(about), state.dead_letters, failed=state.has_failed)
        events.add_metric(about, state.events)
        for phase, spent in state.seconds.items():
            seconds.add_metric([*about, phase], spent)
    return [*lag.families, events, seconds]


async def _due_family(stores: Stores) -> Metric:
    family = GaugeMetricFamily(
        "daybook_oldest_due_seconds",
        "How long the oldest expired hold, or due run of a schedule, has waited to be recorded; 0 if none waits.",
        labels=["ledger", "kind"],
    )
    for kind in (EXPIRED_HOLDS, SCHEDULED_RUNS):
        with suppress(*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
            async with asyncio.timeout(STORES_SECONDS):
                for ledger_id, seconds in (await oldest_due_seconds(stores, kind)).items():
                    family.add_metric([ledger_id, kind.stream_prefix], seconds)
    return family


async def _publishing_families(engine: AsyncEngine, settings: Settings) -> list[Metric]:
    """Returns how far each ledger is published. Nothing if DAYBOOK_PUBLISH_URL is not set."""
    if not settings.publish_url:
        return []
    help_ = "Events that the broker has not acknowledged yet."
    events = GaugeMetricFamily("daybook_publishing_lag_events", help_, labels=["ledger"])
    help_ = "Age of the oldest event that the broker has not acknowledged yet."
    seconds = GaugeMetricFamily("daybook_publishing_lag_seconds", help_, labels=["ledger"])
    failed = GaugeMetricFamily("daybook_publishing_failed", "1 if the last attempt to publish failed, else 0.", labels=["ledger"])
    with suppress(*POSTGRES_AND_REDIS_ERRORS):
        async with asyncio.timeout(STORES_SECONDS), engine.connect() as connection:
            for ledger in await read_published(connection):
                events.add_metric([ledger.ledger_id], ledger.lag_events)
                seconds.add_metric([ledger.ledger_id], ledger.lag_seconds)
                failed.add_metric([ledger.ledger_id], float(ledger.is_failing))
    return [events, seconds, failed]
