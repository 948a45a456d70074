"""The read model `search`: transfers and users as documents of full text.

A transfer holds no name of a person. Who has an account is in a document of the account, so that a change of a name, or an
erasure, changes one document. No document counts anything: a store without transactions may be given a change twice.
"""

from typing import Final, get_args

from projector.projections.changes import DocumentChanges, StoredDocument
from projector.projections.money_movements import transfer_fields
from projector.projections.projection import Projection
from shared.log.account_events import AccountOpened
from shared.log.events import RecordedEvent
from shared.log.money_events import FundsMoved, MoneyEvent
from shared.log.streams import account_stream, transfer_stream, user_stream
from shared.log.user_events import UserChanged, UserCreated, UserDeactivated, UserErased, UserEvent, metadata_pairs
from shared.read_models.shapes import SEARCH
from shared.timestamps import timestamp

SearchedEvent = UserEvent | AccountOpened | MoneyEvent

_MONTH: Final = 7
_USER_EVENTS: Final = get_args(UserEvent)
_MONEY_EVENTS: Final = get_args(MoneyEvent)


def project_search(changes: DocumentChanges, recorded: RecordedEvent, event: SearchedEvent) -> None:
    if isinstance(event, _MONEY_EVENTS):
        _project_transfer(changes, recorded, event)
    elif isinstance(event, AccountOpened):
        fields = {"resource": "account", "owner_id": event.owner_id, "position": recorded.position}
        changes.insert(f"accounts/{event.account_id}", fields)
    elif isinstance(event, _USER_EVENTS):
        _project_user(changes, recorded, event)


def _project_transfer(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    fields = transfer_fields(recorded, event)
    ends = [fields["from_account_id"], fields["to_account_id"]]
    if isinstance(event, FundsMoved):
        ends = [leg.account_id for leg in event.legs]
    more = {
        "resource": "transfer",
        "account_ids": sorted({account_id for account_id in ends if account_id}),
        "month": fields["occurred_at"][:_MONTH],
    }
    changes.insert(f"transfers/{event.transfer_id}", fields | more | _metadata_fields(event.metadata or {}))


def _project_user(changes: DocumentChanges, recorded: RecordedEvent, event: UserEvent) -> None:
    document_id, changed = f"users/{event.user_id}", {"position": recorded.position}
    if isinstance(event, UserCreated):
        created = {"resource": "user", "status": "active", "recorded_at": timestamp(recorded.recorded_at)}
        changes.insert(document_id, _personal_fields(event) | created | changed)
    elif isinstance(event, UserChanged):
        changes.change(document_id, _personal_fields(event) | changed, {})
    elif isinstance(event, UserErased):
        changes.change(document_id, {"name": "", "email": "", "status": "erased"} | _metadata_fields({}) | changed, {})
    else:
        status = "inactive" if isinstance(event, UserDeactivated) else "active"
        changes.change(document_id, {"status": status} | changed, {})


def _personal_fields(event: UserCreated | UserChanged) -> StoredDocument:
    return {"name": event.name, "email": event.email} | _metadata_fields(metadata_pairs(event.metadata))


def _metadata_fields(pairs: dict[str, str]) -> StoredDocument:
    return {"metadata": pairs or None, "metadata_values": [pairs[name] for name in sorted(pairs)]}


def _origin(name: str) -> str:
    resource, _, resource_id = name.partition("/")
    streams = {"users": user_stream, "accounts": account_stream, "transfers": transfer_stream}
    return streams[resource](resource_id)


SEARCH_PROJECTION: Final = Projection(
    SEARCH,
    DocumentChanges,
    handles=frozenset((*_USER_EVENTS, AccountOpened, *_MONEY_EVENTS)),
    project=project_search,
    makes=dict.fromkeys((UserCreated, AccountOpened, *_MONEY_EVENTS), 1),
    origin=_origin,
)
