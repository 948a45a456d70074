"""`daybook users`: lists, shows and creates users through the APIs."""

from operator import itemgetter
from typing import Annotated, Final, Literal
from uuid import UUID

import typer

from cli.api_access import LIMIT, ApiLedgerOption, LimitOption, ProfileOption, open_api, pages
from cli.arguments import utf8, utf8_or_none
from cli.row_writers import Cells, OutputFormat, OutputOption, print_item, print_items

app = typer.Typer(help="List, show and create users over HTTP.", no_args_is_help=True)

CELLS: Final[Cells] = {name: itemgetter(name) for name in ("id", "name", "email", "status", "created_at")}
CREATED: Final[Cells] = {name: itemgetter(name) for name in ("id", "name", "email", "status", "position")}

UserSort = Literal["created_at", "-created_at", "name", "-name"]


@app.command(name="list")
def list_(
    *,
    search: Annotated[
        str | None, typer.Option(help="Only users whose name or e-mail address has this text.", callback=utf8_or_none)
    ] = None,
    email: Annotated[str | None, typer.Option(help="Only the user with this e-mail address.", callback=utf8_or_none)] = None,
    status: Annotated[Literal["active", "inactive", "erased"] | None, typer.Option(help="Only users in this state.")] = None,
    sort: Annotated[UserSort, typer.Option(help="The order. A minus puts the last first.")] = "created_at",
    limit: LimitOption = LIMIT,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show users.

    Example: daybook users list --search ada --output csv
    """
    with open_api(profile, ledger) as api:
        print_items(pages(api.list_users, limit, search=search, email=email, status=status, sort=sort), CELLS, output)


@app.command()
def show(
    user_id: Annotated[UUID, typer.Argument(metavar="USER", help="The id of the user.")],
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show a user.

    Example: daybook users show ada00000-0000-4000-8000-000000000000
    """
    with open_api(profile, ledger) as api:
        print_item(api.get_user(user_id), CELLS, output)


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="The name.", callback=utf8)],
    email: Annotated[str, typer.Option(help="The e-mail address.", callback=utf8)],
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Create a user.

    Example: daybook users create --name "Ada Lovelace" --email ada@example.com
    """
    with open_api(profile, ledger) as api:
        print_item(api.create_user(name=name, email=email), CREATED, output)
