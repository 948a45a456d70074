"""`daybook explain`: lists the facts that make the balance of an account, and adds them up."""

from typing import Annotated
from uuid import UUID

import typer
import uvloop

from cli.arguments import LedgerOption
from cli.exit_codes import ExitCode
from shared.read_models.account_facts import read_balance, read_entries
from shared.settings import read_settings
from shared.stores.all_stores import open_stores


def explain(
    account: Annotated[UUID, typer.Argument(metavar="ACCOUNT", help="The id of the account.")],
    ledger: LedgerOption = "main",
) -> None:
    """List the facts that make the balance of an account, and add them up. The oldest comes first. Amounts are in minor units.

    The facts come from the read model `entries` in MongoDB, and the balance from `balances` in Redis, so the two check each
    other. The exit code is 3 if a sum differs from the balance that an entry tells, or if the last sum differs from the balance.

    Example: daybook explain 0198c5a0-0000-7000-8000-0000000000e1
    """
    if not uvloop.run(_explain(ledger, str(account))):
        raise typer.Exit(ExitCode.DIFFERENT)


async def _explain(ledger_id: str, account_id: str) -> bool:
    """Prints the explanation. Returns True if everything adds up."""
    async with open_stores(read_settings(), "daybook_projector") as stores:
        balance = await read_balance(stores.mongo, stores.redis, ledger_id, account_id)
        count, total, adds_up = 0, 0, True
        typer.echo(_line("position", "recorded_at", "type", "amount", "balance"))
        async for entry in read_entries(stores.mongo, stores.redis, ledger_id, account_id, balance.position):
            count, total = count + 1, total + entry.amount
            typer.echo(_line(entry.position, entry.recorded_at, entry.kind, entry.amount, total))
            if total != entry.balance:
                adds_up = False
                typer.echo(
                    f"position {entry.position}: the facts add up to {total}, but this one tells {entry.balance}", err=True
                )
    if total != balance.posted:
        adds_up = False
        typer.echo(f"the balance is {balance.posted}, but the facts add up to {total}", err=True)
    if adds_up:
        typer.echo(f"{count} facts add up to {total} {balance.currency} (minor units), which is the balance")
    return adds_up


def _line(position: int | str, recorded_at: str, kind: str, amount: int | str, balance: int | str) -> str:
    return f"{position:>10}  {recorded_at:<27}  {kind:<10}  {amount:>16}  {balance:>16}"
