"""Reads the metrics of the command API, for `daybook top`."""

from collections import Counter
from typing import NamedTuple

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from shared.web.api_client import TIMEOUT_SECONDS, bearer


class CommandCounts(NamedTuple):
    """What one process of the command API has counted since it started."""

    by_outcome: Counter[str]
    waiting: int
    """Commands that no batch has taken yet."""


def read_command_counts(command_url: str, api_key: str, ledger: str | None) -> CommandCounts | None:
    """Returns the counts of the caller's ledger. None if the caller may not see metrics, or there is no answer in time."""
    headers = bearer(api_key) | ({"Daybook-Ledger": ledger} if ledger else {})
    try:
        answer = httpx2.get(f"{command_url}/metrics", headers=headers, timeout=TIMEOUT_SECONDS)
    except httpx2.TransportError:
        return None
    if not answer.is_success:
        return None
    counted, waiting = Counter[str](), 0
    for sample in (sample for family in text_string_to_metric_families(answer.text) for sample in family.samples):
        if sample.name == "daybook_commands_total":
            counted[sample.labels["outcome"]] += int(sample.value)
        elif sample.name == "daybook_commands_waiting":
            waiting += int(sample.value)
    return CommandCounts(counted, waiting)
