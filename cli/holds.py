"""`daybook holds`: lists and shows holds through the query API."""

from operator import itemgetter
from typing import Annotated, Literal
from uuid import UUID

import typer
from daybook_client import Daybook

from cli.api_access import LIMIT, ApiLedgerOption, LimitOption, ProfileOption, open_api, pages
from cli.money_cells import amount_cell
from cli.row_writers import Cells, OutputFormat, OutputOption, print_item, print_items

app = typer.Typer(help="List and show holds over HTTP.", no_args_is_help=True)

ShownHoldStatus = Literal["active", "captured", "released", "expired"]


@app.command(name="list")
def list_(
    *,
    account: Annotated[UUID | None, typer.Option(help="Only holds on this account.")] = None,
    status: Annotated[ShownHoldStatus | None, typer.Option(help="Only holds in this state.")] = None,
    sort: Annotated[
        Literal["placed_at", "-placed_at"], typer.Option(help="The order. A minus puts the last first.")
    ] = "-placed_at",
    limit: LimitOption = LIMIT,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show holds, the latest first. A table and CSV have amounts in major units.

    Example: daybook holds list --status active
    """
    with open_api(profile, ledger) as api:
        print_items(pages(api.list_holds, limit, account_id=account, status=status, sort=sort), _cells(api), output)


@app.command()
def show(
    hold_id: Annotated[UUID, typer.Argument(metavar="HOLD", help="The id of the hold.")],
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show a hold.

    Example: daybook holds show 401d0000-0000-4000-8000-000000000001
    """
    with open_api(profile, ledger) as api:
        print_item(api.get_hold(hold_id), _cells(api), output)


def _cells(api: Daybook) -> Cells:
    return {
        "id": itemgetter("id"),
        "account_id": itemgetter("account_id"),
        "amount": amount_cell(api),
        "remaining": amount_cell(api, "remaining"),
        **{name: itemgetter(name) for name in ("currency", "status", "expires_at", "reference")},
    }
