"""New ids. Version 7: they grow with time, so that indexes grow at their end."""

from uuid_utils import uuid7


def new_id() -> str:
    return str(uuid7())
