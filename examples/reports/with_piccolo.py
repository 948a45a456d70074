"""Prints the newest entries of an account, read from the reporting database with Piccolo.

    REPORTS_FILE=/path/reports.sqlite python with_piccolo.py ACCOUNT_ID

For PostgreSQL, give `PostgresEngine` to the table instead.
"""

import asyncio
import os
import sys

from piccolo.columns import BigInt, Varchar
from piccolo.engine.sqlite import SQLiteEngine
from piccolo.table import Table

ENGINE = SQLiteEngine(path=os.environ["REPORTS_FILE"])


class LiveEntry(Table, tablename="live_entries", db=ENGINE):
    """A row of the view of live entries. `amount` is below 0 if the money left the account."""

    id = Varchar(length=53, primary_key=True)
    ledger_id = Varchar(length=31)
    account_id = Varchar(length=36)
    amount = BigInt()
    balance = BigInt()
    position = BigInt()


async def main(account_id: str) -> None:
    mine = LiveEntry.select(LiveEntry.position, LiveEntry.amount, LiveEntry.balance).where(
        LiveEntry.ledger_id == "main", LiveEntry.account_id == account_id
    )
    for entry in await mine.order_by(LiveEntry.position, ascending=False).limit(3):
        print(entry["position"], entry["amount"], entry["balance"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
