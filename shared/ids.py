"""Makes new ids. They are UUIDs of version 7, which grow with time, so new rows go to the end of an index."""

from uuid_utils import uuid7


def new_id() -> str:
    """Returns a new UUID of version 7 in its usual text form."""
    return str(uuid7())
