"""Decodes stored events for the checks. An event that cannot be read is reported as a difference."""

from projector.verify.difference import DifferenceFound
from shared.errors import UnknownEvent
from shared.log.encoding import DecryptionKeys, decode
from shared.log.events import Event
from shared.log.read import StoredEvent, StreamMember
from shared.privacy.encryption import KeysByPerson


def decode_stored(where: str, stored: StoredEvent | StreamMember, keys: KeysByPerson, ledger_id: str = "") -> Event:
    """Returns the decoded event. `where` is the name of its place for the error message.

    Raises:
        DifferenceFound: the log has no event at this place, or this code cannot read it.
    """
    if stored.event_id is None or stored.type is None or stored.schema_version is None or stored.data is None:
        raise DifferenceFound(where, "an event of the log", None)
    try:
        return decode(stored.type, stored.schema_version, stored.data, DecryptionKeys(ledger_id, stored.event_id, keys))
    except UnknownEvent as unknown:
        raise DifferenceFound(where, "an event that this code knows", unknown.detail) from unknown
