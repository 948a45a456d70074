"""The read model `balances`: the fields of each account as a hash in Redis."""

from typing import Final, get_args

from projector.projections.account_fields import account_counts, account_fields
from projector.projections.changes import KeyChanges
from projector.projections.projection import Projection
from shared.log.account_events import AccountEvent, AccountOpened
from shared.log.events import RecordedEvent
from shared.log.streams import account_stream
from shared.read_models.shapes import BALANCES

_ACCOUNT_KEY: Final = "account:"


def project_balances(changes: KeyChanges, recorded: RecordedEvent, event: AccountEvent) -> None:
    for account_id, fields in account_fields(recorded, event):
        key = f"{_ACCOUNT_KEY}{account_id}"
        changes.set(key, fields)
        changes.count(key, account_counts(event, account_id))


def _origin(key: str) -> str:
    return account_stream(key.removeprefix(_ACCOUNT_KEY))


BALANCES_PROJECTION: Final = Projection(
    BALANCES,
    KeyChanges,
    handles=frozenset(get_args(AccountEvent)),
    project=project_balances,
    makes={AccountOpened: 1},
    origin=_origin,
)
