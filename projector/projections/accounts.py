"""The read model `accounts`: one document per account."""

from typing import Final, get_args

from projector.projections.account_fields import account_counts, account_fields
from projector.projections.changes import REMOVED, DocumentChanges
from projector.projections.projection import Projection
from shared.log.account_events import AccountEvent, AccountMetadataChanged, AccountOpened
from shared.log.events import RecordedEvent
from shared.log.streams import account_stream
from shared.read_models.shapes import ACCOUNTS, found_by


def project_accounts(changes: DocumentChanges, recorded: RecordedEvent, event: AccountEvent) -> None:
    for account_id, fields in account_fields(recorded, event):
        if isinstance(event, AccountOpened | AccountMetadataChanged) and "metadata" in fields:
            fields["found_by"] = found_by(metadata=event.metadata) or REMOVED
        if type(event) is AccountOpened:
            changes.insert(account_id, fields | {"version": 1})
        else:
            changes.change(account_id, fields, account_counts(event, account_id))


ACCOUNTS_PROJECTION: Final = Projection(
    ACCOUNTS,
    DocumentChanges,
    handles=frozenset(get_args(AccountEvent)),
    project=project_accounts,
    makes={AccountOpened: 1},
    origin=account_stream,
)
