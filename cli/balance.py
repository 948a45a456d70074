"""`daybook balance`: shows the balance of an account."""

from operator import itemgetter
from typing import Annotated
from uuid import UUID

import typer

from cli.api_access import ApiLedgerOption, ProfileOption, open_api
from cli.arguments import moment_text
from cli.money_cells import balance_cells
from cli.row_writers import Cells, OutputFormat, OutputOption, print_item


def balance(
    account_id: Annotated[UUID, typer.Argument(metavar="ACCOUNT", help="The id of the account.")],
    at: Annotated[
        str | None, typer.Option(help="A moment in the past: a date, or RFC 3339. Default: now.", callback=moment_text)
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show the balance of an account, now or at a moment in the past. A table and CSV have amounts in major units.

    Example: daybook balance ada00000-0000-4000-8000-000000000978 --at 2126-01-31
    """
    with open_api(profile, ledger) as api:
        cells: Cells = {"account_id": itemgetter("account_id"), "currency": itemgetter("currency"), **balance_cells(api)}
        print_item(api.get_balance(account_id, at=at), cells, output)
