"""How the read models `accounts` and `balances` store the holds of an account, and what an account holds at a moment.

Each hold is a field of its account: `hold:<hold_id>` is "<amount> <expires_at>", without a moment if the hold does not expire.
Amounts stay integers: no store adds them.
"""

from collections.abc import Mapping
from typing import Any, Final

_PREFIX: Final = "hold:"


def hold_field(hold_id: str) -> str:
    return f"{_PREFIX}{hold_id}"


def hold_text(amount: int, expires_at: str | None) -> str:
    return f"{amount} {expires_at or ''}"


def held_at(fields: Mapping[str, Any], now: str) -> int:
    """Returns the amount that an account with these fields holds at a moment, in minor units. `now` is RFC 3339 in UTC."""
    held = 0
    for name, text in fields.items():
        if name.startswith(_PREFIX):
            amount, _, expires_at = text.partition(" ")
            held += int(amount) if not expires_at or now < expires_at else 0
    return held
