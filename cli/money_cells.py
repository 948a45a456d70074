"""Amounts in cells: exact decimal numbers in major units, with the decimal places that the API says the currency has."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from daybook_client import Daybook

from cli.row_writers import Cells


def amount_cell(api: Daybook, member: str = "amount") -> Callable[[Any], Decimal | None]:
    """Returns the function that reads an amount from an item with the members `currency` and `member`, which may be absent."""

    def cell(item: Any) -> Decimal | None:
        return None if item.get(member) is None else api.money_of(item, member).decimal

    return cell


def balance_cells(api: Daybook) -> Cells:
    """Returns the cells of a balance. One of a moment in the past has only `posted`."""
    return {name: amount_cell(api, name) for name in ("posted", "held", "available")}
