"""The state of a ledger: its name, its settings, and if it is closed. It is folded from the events of the stream `ledger`.

The deciders and the queries both need it. This module does no I/O.
"""

from typing import Literal, assert_never

import msgspec

from shared.log.ledger_events import LedgerClosed, LedgerCreated, LedgerEvent


class LedgerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a ledger. A ledger without events about itself has the defaults: it is open, in UTC, with all currencies."""

    name: str | None = None
    """None if no event names the ledger. It is then called by its id."""
    time_zone: str = "UTC"
    """A name of the IANA database."""
    currencies: tuple[str, ...] | None = None
    """The currencies in which accounts can be opened. None for all."""
    status: Literal["open", "closed"] = "open"


def evolve_ledger(state: LedgerState, event: LedgerEvent) -> LedgerState:
    match event:
        case LedgerCreated():
            return LedgerState(event.name, event.time_zone, event.currencies)
        case LedgerClosed():
            return msgspec.structs.replace(state, status="closed")
        case _:
            assert_never(event)
