"""The metrics of a ledger's writer."""

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from command_api.writer.ledger_writer import CommandHandler
from command_api.writer.measurements import RETRY_CAUSES
from shared.histogram import Histogram


def writer_families(ledger_id: str, handler: CommandHandler, commands_max: int) -> list[Metric]:
    """Returns the metrics of a ledger's writer. They have no samples if this process has had no command for the ledger yet."""
    elected = GaugeMetricFamily(
        "daybook_writes", "1 if this process is elected to write to the ledger, else 0.", labels=["ledger"]
    )
    waiting = GaugeMetricFamily("daybook_commands_waiting", "Commands that no batch has taken yet.", labels=["ledger"])
    most = GaugeMetricFamily("daybook_commands_waiting_max", "The most commands that may wait.", labels=["ledger"])
    outcomes = CounterMetricFamily("daybook_commands", "Commands by how they ended.", labels=["ledger", "command", "outcome"])
    retries = CounterMetricFamily(
        "daybook_batch_retries", "How often a batch was begun anew, by its cause.", labels=["ledger", "cause"]
    )
    sizes = HistogramMetricFamily("daybook_batch_commands", "Commands in a transaction.", labels=["ledger"])
    help_ = "Time from the start of a transaction until PostgreSQL has confirmed its commit."
    commits = HistogramMetricFamily("daybook_commit_seconds", help_, labels=["ledger"])
    if writer := handler.writer(ledger_id):
        elected.add_metric([ledger_id], int(handler.writes(ledger_id)))
        waiting.add_metric([ledger_id], len(writer.queue))
        most.add_metric([ledger_id], commands_max)
        measured = writer.measurements
        for (command, outcome), count in measured.outcomes.items():
            outcomes.add_metric([ledger_id, command, outcome], count)
        for cause in RETRY_CAUSES:
            retries.add_metric([ledger_id, cause], measured.retries[cause])
        _add(sizes, ledger_id, measured.batch_commands)
        _add(commits, ledger_id, measured.commit_seconds)
    return [elected, waiting, most, outcomes, retries, sizes, commits]


def _add(family: HistogramMetricFamily, ledger_id: str, histogram: Histogram) -> None:
    family.add_metric([ledger_id], [*histogram.buckets()], histogram.total)
