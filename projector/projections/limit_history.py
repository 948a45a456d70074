"""The read model `limit-history`: one document per change of the overdraft limit of an account or of what it may spend."""

from typing import Final, get_args

import msgspec

from projector.projections.changes import DocumentChanges
from projector.projections.projection import Projection
from shared.log.account_events import AccountLimitsChanged, AccountOpened, OverdraftLimitChanged
from shared.log.events import RecordedEvent
from shared.read_models.shapes import LIMIT_HISTORY, LIMIT_NAMES, LimitChange, entry_id, entry_position
from shared.timestamps import timestamp

LimitEvent = AccountOpened | OverdraftLimitChanged | AccountLimitsChanged


def project_limit_history(changes: DocumentChanges, recorded: RecordedEvent, event: LimitEvent) -> None:
    if isinstance(event, AccountLimitsChanged):
        overdraft_limit, limits = None, {name: getattr(event, name) for name in LIMIT_NAMES}
    else:
        overdraft_limit, limits = event.overdraft_limit, None
    change = LimitChange(recorded.position, timestamp(recorded.recorded_at), overdraft_limit, limits)
    changes.insert(entry_id(event.account_id, recorded.position), {"item": msgspec.json.encode(change).decode()})


LIMIT_HISTORY_PROJECTION: Final = Projection(
    LIMIT_HISTORY,
    DocumentChanges,
    handles=frozenset(get_args(LimitEvent)),
    project=project_limit_history,
    write_once=True,
    makes=dict.fromkeys(get_args(LimitEvent), 1),
    origin=entry_position,
)
