"""`daybook transfers`: lists and shows transfers through the query API."""

from operator import itemgetter
from typing import Annotated, Literal
from uuid import UUID

import typer
from daybook_client import Daybook

from cli.api_access import LIMIT, ApiLedgerOption, LimitOption, ProfileOption, open_api, pages
from cli.arguments import moment_text, utf8_or_none
from cli.money_cells import amount_cell
from cli.row_writers import Cells, OutputFormat, OutputOption, print_item, print_items

app = typer.Typer(help="List and show transfers over HTTP.", no_args_is_help=True)

ShownTransferKind = Literal["deposit", "withdrawal", "transfer", "reversal", "postings", "exchange"]
TransferSort = Literal["recorded_at", "-recorded_at", "occurred_at", "-occurred_at", "amount", "-amount"]


@app.command(name="list")
def list_(
    *,
    account: Annotated[UUID | None, typer.Option(help="Only transfers from or to this account.")] = None,
    kind: Annotated[ShownTransferKind | None, typer.Option(help="Only transfers of this kind.")] = None,
    reference: Annotated[str | None, typer.Option(help="Only transfers with this reference.", callback=utf8_or_none)] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those recorded at this moment or later: a date, or RFC 3339.", callback=moment_text)
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only those recorded before this moment.", callback=moment_text)] = None,
    sort: Annotated[TransferSort, typer.Option(help="The order. A minus puts the last first.")] = "-recorded_at",
    limit: LimitOption = LIMIT,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show transfers, deposits and withdrawals, the latest first. A table and CSV have amounts in major units.

    Example: daybook transfers list --since 2026-11-01 --kind deposit --output jsonl
    """
    with open_api(profile, ledger) as api:
        found = pages(
            api.list_transfers,
            limit,
            account_id=account,
            kind=kind,
            reference=reference,
            recorded_at_gte=since,
            recorded_at_lt=until,
            sort=sort,
        )
        print_items(found, _cells(api), output)


@app.command()
def show(
    transfer_id: Annotated[UUID, typer.Argument(metavar="TRANSFER", help="The id of the transfer.")],
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Show a transfer.

    Example: daybook transfers show d1220000-0000-4000-8000-000000000001
    """
    with open_api(profile, ledger) as api:
        print_item(api.get_transfer(transfer_id), _cells(api), output)


def _cells(api: Daybook) -> Cells:
    return {
        "id": itemgetter("id"),
        "kind": itemgetter("kind"),
        "amount": amount_cell(api),
        **{name: itemgetter(name) for name in ("currency", "from_account_id", "to_account_id", "reference", "recorded_at")},
    }
