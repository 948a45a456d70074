"""Prints what each owner has, read from the reporting database with synchronous SQLAlchemy.

REPORTS_URL=sqlite:////path/reports.sqlite python with_sqlalchemy.py
"""

import os

from sqlalchemy import MetaData, Table, create_engine, func, select


def main() -> None:
    engine = create_engine(os.environ["REPORTS_URL"])
    metadata = MetaData()
    users = Table("live_users", metadata, autoload_with=engine)
    accounts = Table("live_accounts", metadata, autoload_with=engine)
    owned = (accounts.c.ledger_id == users.c.ledger_id) & (accounts.c.owner_id == users.c.id)
    question = (
        select(users.c.name, accounts.c.currency, func.sum(accounts.c.posted))
        .join_from(users, accounts, owned)
        .where(users.c.ledger_id == "main")
        .group_by(users.c.id, users.c.name, accounts.c.currency)
        .order_by(users.c.name, users.c.id, accounts.c.currency)
    )
    with engine.connect() as connection:
        for name, currency, minor_units in connection.execute(question):
            print(name, minor_units, currency)


if __name__ == "__main__":
    main()
