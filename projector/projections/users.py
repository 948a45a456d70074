"""The read model `users`: one document per user."""

from typing import Final, assert_never, get_args

from projector.projections.changes import DocumentChanges, StoredDocument
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.streams import user_stream
from shared.log.user_events import (
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserReactivated,
    metadata_pairs,
)
from shared.read_models.shapes import USERS, found_by, found_by_email, search_words
from shared.timestamps import timestamp


def project_users(changes: DocumentChanges, recorded: RecordedEvent, event: UserEvent) -> None:
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    match event:
        case UserCreated():
            created = {"status": "active", "created_at": changed["changed_at"], "version": 1}
            changes.insert(event.user_id, _user_fields(event) | created | changed)
        case UserChanged():
            changes.change(event.user_id, _user_fields(event) | changed, {"version": 1})
        case UserDeactivated():
            changes.change(event.user_id, {"status": "inactive"} | changed, {"version": 1})
        case UserReactivated():
            changes.change(event.user_id, {"status": "active"} | changed, {"version": 1})
        case UserErased():
            # The fields are empty and not None, because lists are ordered by name, and a MongoDB range on texts skips None.
            empty: StoredDocument = {"name": "", "email": "", "metadata": None, "search": [], "found_by": []}
            changes.change(event.user_id, {"status": "erased"} | empty | changed, {"version": 1})
        case _:
            assert_never(event)


def _user_fields(event: UserCreated | UserChanged) -> StoredDocument:
    words = search_words(f"{event.name} {event.email}")
    metadata = metadata_pairs(event.metadata)
    found = found_by_email(event.email) + found_by(metadata=metadata)
    return {"name": event.name, "email": event.email, "metadata": metadata or None, "search": words, "found_by": found}


USERS_PROJECTION: Final = Projection(
    USERS,
    DocumentChanges,
    handles=frozenset(get_args(UserEvent)),
    project=project_users,
    makes={UserCreated: 1},
    origin=user_stream,
)
