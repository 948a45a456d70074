"""The state of a ledger: its name, its settings, and if it is closed. It is folded from the events of the stream `ledger`.

The deciders and the queries both need it. This module does no I/O.
"""

from collections.abc import Mapping
from typing import Literal, assert_never

import msgspec

from shared.log.ledger_events import LedgerChanged, LedgerClosed, LedgerCreated, LedgerEvent


class LedgerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a ledger. A ledger without events about itself has the defaults: it is open, in UTC, with all currencies."""

    name: str | None = None
    """None if no event names the ledger. It is then called by its id."""
    time_zone: str = "UTC"
    """A name of the IANA database."""
    currencies: tuple[str, ...] | None = None
    """The currencies in which accounts can be opened. None for all."""
    transfer_max: Mapping[str, int] | None = None
    """The largest amount of a transfer by currency, in minor units. None if there is no limit."""
    status: Literal["open", "closed"] = "open"


def evolve_ledger(state: LedgerState, event: LedgerEvent) -> LedgerState:
    match event:
        case LedgerCreated():
            return LedgerState(event.name, event.time_zone, event.currencies, event.transfer_max)
        case LedgerChanged():
            changed = {"name": event.name, "currencies": event.currencies, "transfer_max": event.transfer_max}
            return msgspec.structs.replace(state, **changed)
        case LedgerClosed():
            return msgspec.structs.replace(state, status="closed")
        case _:
            assert_never(event)
