"""`daybook accounts`: lists, shows and opens accounts through the APIs."""

from operator import itemgetter
from typing import Annotated, Literal
from uuid import UUID

import typer
from daybook_client import Daybook

from cli.api_access import LIMIT, ApiLedgerOption, LimitOption, ProfileOption, open_api, pages
from cli.arguments import utf8, utf8_or_none
from cli.money_cells import balance_cells
from cli.row_writers import Cells, OutputFormat, OutputOption, print_item, print_items

app = typer.Typer(help="List, show and open accounts over HTTP.", no_args_is_help=True)

AccountSort = Literal["opened_at", "-opened_at", "posted", "-posted"]


@app.command(name="list")
def list_(
    *,
    owner: Annotated[UUID | None, typer.Option(help="Only accounts of this user.")] = None,
    currency: Annotated[str | None, typer.Option(help="Only accounts in this currency.", callback=utf8_or_none)] = None,
    status: Annotated[Literal["open", "frozen", "closed"] | None, typer.Option(help="Only accounts in this state.")] = None,
    sort: Annotated[AccountSort, typer.Option(help="The order. A minus puts the last first.")] = "opened_at",
    limit: LimitOption = LIMIT,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show accounts with their balances. A table and CSV have amounts in major units, such as 12.50 for 1250 cents.

    Example: daybook accounts list --currency EUR --sort=-posted --limit 10
    """
    with open_api(profile, ledger) as api:
        found = pages(api.list_accounts, limit, owner_id=owner, currency=currency, status=status, sort=sort)
        print_items(found, _cells(api), output)


@app.command()
def show(
    account_id: Annotated[UUID, typer.Argument(metavar="ACCOUNT", help="The id of the account.")],
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show an account with its balance.

    Example: daybook accounts show ada00000-0000-4000-8000-000000000978
    """
    with open_api(profile, ledger) as api:
        print_item(api.get_account(account_id), _cells(api), output)


@app.command(name="open")
def open_(
    *,
    owner: Annotated[UUID, typer.Option(help="The id of the user who owns it.")],
    currency: Annotated[str, typer.Option(help="Its currency, such as EUR.", callback=utf8)],
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Open an account.

    Example: daybook accounts open --owner ada00000-0000-4000-8000-000000000000 --currency EUR
    """
    with open_api(profile, ledger) as api:
        print_item(api.open_account(owner_id=owner, currency=currency.upper()), _cells(api), output)


def _cells(api: Daybook) -> Cells:
    return {name: itemgetter(name) for name in ("id", "owner_id", "currency", "status")} | {
        name: (lambda item, cell=cell: cell(item["balance"])) for name, cell in balance_cells(api).items()
    }
