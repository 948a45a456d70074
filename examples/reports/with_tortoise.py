"""Prints the largest accounts, read from the reporting database with Tortoise ORM.

REPORTS_URL=sqlite:///path/reports.sqlite python with_tortoise.py
"""

import os

from tortoise import Tortoise, fields, run_async
from tortoise.models import Model


class LiveAccount(Model):
    """A row of the view of live accounts. An id is unique in its ledger."""

    id = fields.CharField(max_length=36, primary_key=True)
    ledger_id = fields.CharField(max_length=31)
    currency = fields.CharField(max_length=3)
    posted = fields.BigIntField()

    class Meta:
        table = "live_accounts"


async def main() -> None:
    await Tortoise.init(db_url=os.environ["REPORTS_URL"], modules={"models": ["__main__"]})
    for account in await LiveAccount.filter(ledger_id="main", posted__gt=0).order_by("-posted", "id").limit(3):
        print(account.id, account.posted, account.currency)


if __name__ == "__main__":
    run_async(main())
