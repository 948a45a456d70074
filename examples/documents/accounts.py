"""Prints the largest accounts in one currency, read from MongoDB with synchronous PyMongo.

    python accounts.py CURRENCY

Needs DAYBOOK_MONGO_URL, and DAYBOOK_MONGO_DATABASE if that is not `daybook`.
"""

import os
import sys
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database


def live_generation(database: Database[dict[str, Any]], ledger_id: str, read_model: str) -> str:
    """Returns what the documents of the live generation have in their field `generation`.

    Raises:
        LookupError: the read model is being built.
    """
    pointer = database.pointers.find_one({"_id": f"{ledger_id}/{read_model}"})
    if pointer is None or pointer["live"] is None:
        message = f"{read_model} of {ledger_id} is being built: ask again soon"
        raise LookupError(message)
    return f"{ledger_id}.{pointer['live']}"


def main(currency: str) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(os.environ["DAYBOOK_MONGO_URL"])
    with client:
        database = client[os.environ.get("DAYBOOK_MONGO_DATABASE", "daybook")]
        generation = live_generation(database, "main", "accounts")
        accounts = database.accounts.find({"generation": generation, "currency": currency})
        for account in accounts.sort([("posted", -1), ("_id", 1)]).limit(3):
            print(account["_id"].partition("/")[2], account["posted"], account["currency"])


if __name__ == "__main__":
    main(sys.argv[1])
