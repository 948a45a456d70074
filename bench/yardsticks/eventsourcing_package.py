"""Measures the `eventsourcing` package on PostgreSQL without HTTP. Each transfer loads two accounts, moves money, and saves both.

The script runs in its own virtual environment and imports nothing from Daybook. Its arguments are the PostgreSQL URL, the number
of accounts, the number of threads, and the seconds. It prints JSON: the number of transfers, and the seconds that they took.
"""

import json
import random
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class AccountAggregate(Aggregate):
    @event("Opened")
    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.balance = 0

    @event("Debited")
    def debit(self, amount: int) -> None:
        self.balance -= amount

    @event("Credited")
    def credit(self, amount: int) -> None:
        self.balance += amount


def make_application(url: str) -> Any:
    parts = urlsplit(url)
    return Application[UUID](
        env={
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path[1:],
            "POSTGRES_HOST": str(parts.hostname),
            "POSTGRES_PORT": str(parts.port),
            "POSTGRES_USER": str(parts.username),
            "POSTGRES_PASSWORD": str(parts.password),
            "POSTGRES_POOL_SIZE": "10",
        }
    )


def transfer(application: Any, account_ids: list[UUID]) -> None:
    payer_id, payee_id = random.sample(account_ids, 2)
    payer, payee = application.repository.get(payer_id), application.repository.get(payee_id)
    payer.debit(7)
    payee.credit(7)
    application.save(payer, payee)


def work(application: Any, account_ids: list[UUID], end: float, counts: list[int]) -> None:
    """Makes transfers until the end. A transfer that fails because another one was faster is repeated, and counts once."""
    count = 0
    while time.perf_counter() < end:
        try:
            transfer(application, account_ids)
        except Exception as error:  # the package turns the driver's errors into its own errors
            if type(error).__name__ != "IntegrityError":
                raise
        else:
            count += 1
    counts.append(count)


def main(url: str, accounts: int, threads: int, seconds: float) -> None:
    application = make_application(url)
    opened = [AccountAggregate(currency="EUR") for _ in range(accounts)]
    for account in opened:
        application.save(account)
    counts: list[int] = []
    begin = time.perf_counter()
    arguments = (application, [account.id for account in opened], begin + seconds, counts)
    workers = [threading.Thread(target=work, args=arguments) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.stdout.write(json.dumps({"transfers": sum(counts), "seconds": time.perf_counter() - begin}) + "\n")
    application.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
