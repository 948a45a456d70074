"""The read model `shifts`: how much money of each account occurred at another time than it was recorded, as trees of sums.

The balance that an account had at a moment is the balance that was recorded by then, plus the account's shifts up to the moment.
An entry that was recorded when it occurred shifts nothing and makes no document. Any other entry adds its amount at the moment
when it occurred, and takes it away at the moment when it was recorded. Where both moments lie in the same period, that changes
nothing and is left out.
"""

from typing import Final, get_args

from projector.projections.changes import DocumentChanges
from projector.projections.money_movements import postings
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import MoneyEvent
from shared.read_models.shapes import SHIFTS
from shared.read_models.sum_trees import add_at
from shared.timestamps import timestamp


def project_shifts(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    recorded_at = timestamp(recorded.recorded_at)
    if event.occurred_at is None or event.occurred_at == recorded_at:
        return
    for account_id, _, amount, _, _ in postings(event):
        sums: dict[str, dict[str, int]] = {}
        add_at(sums, account_id, event.occurred_at, amount)
        add_at(sums, account_id, recorded_at, -amount)
        for document_id, counts in sums.items():
            if any(counts.values()):
                changes.add(document_id, counts)


SHIFTS_PROJECTION: Final = Projection(
    SHIFTS,
    DocumentChanges,
    handles=frozenset(get_args(MoneyEvent)),
    project=project_shifts,
    large_batches=False,  # each change is an insertion or an addition, and each entry has up to 14 of them
)
