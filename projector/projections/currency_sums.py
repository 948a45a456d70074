"""The read model `currency-sums`: what the accounts of each currency, and the outside world, had at any place in the past.

It has trees of sums by position, and trees of shifts as the read model `shifts` has. Money that moves between accounts changes no
sum and makes no document: only what comes from the outside world or goes to it does.
"""

from collections import Counter
from typing import Final, get_args

from projector.projections.changes import DocumentChanges
from projector.projections.money_movements import postings
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import MoneyEvent
from shared.read_models.shapes import CURRENCY_SUMS, recorded_sum, shifted_sum
from shared.read_models.sum_trees import POSITIONS, add_at, place_of
from shared.timestamps import timestamp


def project_currency_sums(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    recorded_at = timestamp(recorded.recorded_at)
    sums: dict[str, dict[str, int]] = {}
    for (currency, side), amount in _changed(event).items():
        if amount:
            add_at(sums, recorded_sum(currency, side), place_of(recorded.position), amount, POSITIONS)
            if event.occurred_at not in {None, recorded_at}:
                add_at(sums, shifted_sum(currency, side), event.occurred_at or recorded_at, amount)
                add_at(sums, shifted_sum(currency, side), recorded_at, -amount)
    for document_id, counts in sums.items():
        if any(counts.values()):
            changes.add(document_id, counts)


def _changed(event: MoneyEvent) -> Counter[tuple[str, str]]:
    """Returns what an event adds to each side of each currency. Each side is counted on its own, as in `statistics`."""
    changed = Counter[tuple[str, str]]()
    for _, currency, amount, _, _ in postings(event):
        changed[currency, "accounts"] += amount
    for posting in event.postings():
        if posting.account_id is None:
            changed[posting.currency, "outside"] += posting.amount
    return changed


CURRENCY_SUMS_PROJECTION: Final = Projection(
    CURRENCY_SUMS,
    DocumentChanges,
    handles=frozenset(get_args(MoneyEvent)),
    project=project_currency_sums,
    large_batches=False,  # each change is an insertion or an addition, as in `shifts`
)
