"""`daybook statement`: shows the entries of an account in a period, between its opening and its closing balance."""

from collections.abc import Iterator, Mapping
from operator import methodcaller
from typing import Annotated, Any, Literal
from uuid import UUID

import typer
from daybook_client import Daybook

from cli.api_access import ApiLedgerOption, ProfileOption, open_api
from cli.arguments import moment_text
from cli.money_cells import amount_cell
from cli.row_writers import Cells, OutputFormat, OutputOption, print_item, print_items


def statement(
    account_id: Annotated[UUID, typer.Argument(metavar="ACCOUNT", help="The id of the account.")],
    *,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="The first moment: a date, or RFC 3339. Default: the first entry.", callback=moment_text),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="The end, which belongs to the next statement. Default: the last entry.", callback=moment_text),
    ] = None,
    axis: Annotated[
        Literal["recorded_at", "occurred_at"],
        typer.Option(help="The time that places an entry in a period and orders the lines."),
    ] = "recorded_at",
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show the entries of an account in a period, between its two balances. Dates are in UTC.

    A table and CSV have amounts in major units. JSON has the whole statement, and JSON Lines has its entries.

    Example: daybook statement ada00000-0000-4000-8000-000000000978 --from 2026-11-01 --to 2026-12-01 --output csv
    """
    period: dict[str, Any] = {name: moment for name, moment in (("from_", from_), ("to", to)) if moment}
    with open_api(profile, ledger) as api:
        found: Any = api.get_statement(account_id, axis=axis, **period)
        if output is OutputFormat.JSON:
            print_item(found, {}, output)
        else:
            print_items(found["lines"] if output is OutputFormat.JSONL else _lines(found), _cells(api, axis), output)


def _lines(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the opening balance, the entries, and the closing balance."""
    currency, axis = found["currency"], found["axis"]
    yield {"kind": "opening balance", axis: found["from"], "balance": found["opening_balance"], "currency": currency}
    yield from found["lines"]
    yield {"kind": "closing balance", axis: found["to"], "balance": found["closing_balance"], "currency": currency}


def _cells(api: Daybook, axis: str) -> Cells:
    return {
        axis: methodcaller("get", axis),
        "kind": methodcaller("get", "kind"),
        "counterparty_account_id": methodcaller("get", "counterparty_account_id"),
        "reference": methodcaller("get", "reference"),
        "amount": amount_cell(api),
        "balance": amount_cell(api, "balance"),
        "currency": methodcaller("get", "currency"),
    }
