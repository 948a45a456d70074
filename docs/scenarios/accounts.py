"""What the scenarios share: the client of both APIs, new accounts, and their balances."""

from typing import Any
from uuid import uuid4

from daybook_client import Daybook, Money

daybook = Daybook()


def euros(amount: str) -> Money:
    return daybook.money(amount, "EUR")


def new_account(owner: str, currency: str = "EUR", **fields: Any) -> str:
    """Creates a user with an account, and returns the id of the account."""
    user = daybook.create_user(name=owner, email=f"{uuid4()}@example.com")
    return daybook.open_account(owner_id=user["id"], currency=currency, **fields)["id"]


def balances(*accounts: str) -> list[int]:
    """Returns what is posted to each account, in minor units."""
    return [daybook.get_balance(account)["posted"] for account in accounts]
