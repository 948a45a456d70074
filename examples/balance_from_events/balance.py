"""Builds the balances of accounts from the events that Daybook publishes to NATS, and drops repeats.

    python examples/balance_from_events/balance.py ACCOUNT_ID [--ledger main] [--until POSITION]

Needs `nats-py` and nothing of Daybook. `DAYBOOK_PUBLISH_URL` names the broker.
"""

import argparse
import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import nats


class Balances:
    """The balance of every account after the events up to `position`. Keep both together, in one transaction of your store."""

    def __init__(self) -> None:
        self.position = 0
        self.of: defaultdict[str, int] = defaultdict(int)  # account id → minor units

    def apply(self, cloud_event: dict[str, Any]) -> None:
        """Applies one event. Does nothing if it was applied before."""
        position = int(cloud_event["id"])
        if position <= self.position:
            return
        if position != self.position + 1:
            message = f"event {self.position + 1} is missing: position {position} came after {self.position}"
            raise RuntimeError(message)
        for account_id, amount in _changes(cloud_event["type"], cloud_event["data"]["data"]):
            if account_id is not None:  # else it is the outside world
                self.of[account_id] += amount
        self.position = position


def _changes(type_name: str, data: dict[str, Any]) -> Iterator[tuple[str | None, int]]:
    """Yields the accounts of an event with what it changes there. An event that moves no money changes nothing."""
    match type_name:
        case "FundsDeposited":
            yield data["account_id"], data["amount"]
        case "FundsWithdrawn":
            yield data["account_id"], -data["amount"]
        case "FundsTransferred" | "HoldCaptured" | "TransferReversed":
            yield data.get("from_account_id"), -data["amount"]
            yield data.get("to_account_id"), data["amount"]
        case "FundsMoved" | "FundsExchanged":
            for leg in data["legs"]:
                yield leg["account_id"], leg["amount"]


async def follow(url: str, subject: str, account_id: str, until: int | None) -> None:
    """Prints the position and the balance whenever the balance has changed, until the position `until` is applied."""
    balances, shown = Balances(), None
    connection = await nats.connect(url)
    try:
        messages = await connection.jetstream().subscribe(subject, ordered_consumer=True)
        async for message in messages.messages:
            balances.apply(json.loads(message.data))
            if balances.of[account_id] != shown and (until is None or balances.position >= until):
                shown = balances.of[account_id]
                print(balances.position, shown, flush=True)
            if until is not None and balances.position >= until:
                return
    finally:
        await connection.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Print the balance of an account from published events.")
    arguments.add_argument("account_id")
    arguments.add_argument("--ledger", default="main")
    arguments.add_argument("--prefix", default="daybook", help="DAYBOOK_PUBLISH_PREFIX of the worker.")
    arguments.add_argument("--until", type=int, help="End when the event at this position is applied.")
    given = arguments.parse_args()
    url = os.environ["DAYBOOK_PUBLISH_URL"]
    asyncio.run(follow(url, f"{given.prefix}.{given.ledger}", given.account_id, given.until))


if __name__ == "__main__":
    main()
