"""The metrics that every process has, and the text in which Prometheus reads them.

Counting is fast and knows nothing of Prometheus. Objects of the Prometheus client are made only when somebody reads the metrics.
No label contains a person's name or an id of a user, an account or a transfer.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from shared.supervision import TaskHealth, task_health

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(families: Iterable[Metric]) -> bytes:
    """Returns these metrics, and those of Python and of the operating system, in the format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(families))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


def process_families(engine: AsyncEngine, settings: Settings) -> list[Metric]:
    """Returns the metrics of this process: its version, its endless tasks, and the connections of its engine to PostgreSQL."""
    info = InfoMetricFamily("daybook", "The version of Daybook.", {"version": version("daybook")})
    return [info, *task_families("task", task_health()), *_pool_families(engine, settings)]


def task_families(name: str, tasks: Mapping[str, TaskHealth]) -> list[Metric]:
    """Returns how often the endless tasks of a process have failed, and how many are failing now."""
    help_ = "How often an endless task failed and was started again."
    failures = CounterMetricFamily(f"daybook_{name}_failures", help_, labels=["task"])
    failing = GaugeMetricFamily(f"daybook_{name}_failing", "Endless tasks that failed a moment ago.", labels=["task"])
    for task, health in tasks.items():
        failures.add_metric([task], health.failures)
        failing.add_metric([task], health.failing)
    return [failures, failing]


def _pool_families(engine: AsyncEngine, settings: Settings) -> list[Metric]:
    pool: Any = engine.pool  # the type of every pool, of which only a pool with a queue counts its connections
    connections = GaugeMetricFamily(
        "daybook_postgres_connections", "Connections of the pool to PostgreSQL, by whether they are in use.", labels=["state"]
    )
    connections.add_metric(["in_use"], pool.checkedout())
    connections.add_metric(["idle"], pool.checkedin())
    most = settings.database_pool_size + settings.database_pool_overflow_max
    return [connections, GaugeMetricFamily("daybook_postgres_connections_max", "The most connections of the pool.", most)]


class _Ready(Collector):
    """A Prometheus collector that returns a fixed list of metrics."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
