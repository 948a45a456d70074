"""Which fold belongs to which stream."""

from collections.abc import MutableMapping
from typing import Any, Final

from command_api.account import ACCOUNT
from command_api.fold import Fold
from command_api.projection import PROJECTION
from command_api.transfer import TRANSFER
from command_api.user import EMAIL, USER
from shared.events import Event

FOLDS: Final = {"account": ACCOUNT, "user": USER, "email": EMAIL, "transfer": TRANSFER, "projection": PROJECTION}


def fold_of(stream_id: str) -> Fold:
    return FOLDS[stream_id.partition("-")[0]]


def evolve_all(states: MutableMapping[str, Any], event: Event) -> None:
    """Takes the event into the states of all its streams."""
    for stream_id in event.streams():
        states[stream_id] = fold_of(stream_id).evolve(states[stream_id], event)
