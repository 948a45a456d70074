"""The client of the scenarios. It needs nothing but Python, and the addresses and key that `daybook env` prints."""

import json
import os
import urllib.error
import urllib.request
import uuid
from typing import Any

positions = [0]
"""The positions of all answers. Queries wait until the read models have the last one."""


def command(path: str, method: str = "POST", **body: Any) -> dict[str, Any]:
    """Sends a command, and returns its answer. A rejected command returns its problem, whose `code` says why."""
    return _send(os.environ["DAYBOOK_COMMAND_URL"], method, path, {"Idempotency-Key": str(uuid.uuid4())}, body)


def query(path: str) -> dict[str, Any]:
    headers = {"Daybook-Min-Position": str(max(positions)), "Prefer": "wait=10"}
    return _send(os.environ["DAYBOOK_QUERY_URL"], "GET", path, headers)


def new_account(owner: str, currency: str = "EUR", **fields: Any) -> str:
    """Creates a user with an account, and returns the id of the account."""
    user = command("/v1/users", name=owner, email=f"{uuid.uuid4()}@example.com")
    account: str = command("/v1/accounts", owner_id=user["id"], currency=currency, **fields)["id"]
    return account


def balances(*accounts: str) -> list[int]:
    """Returns what is posted to each account, in minor units."""
    return [query(f"/v1/accounts/{account}/balance")["posted"] for account in accounts]


def _send(url: str, method: str, path: str, headers: dict[str, str], body: Any = None) -> dict[str, Any]:
    headers |= {"Authorization": f"Bearer {os.environ['DAYBOOK_API_KEY']}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)  # noqa: S310 # the URL is the operator's
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            content: dict[str, Any] = json.load(answer)
            positions.append(int(answer.headers.get("Daybook-Position", 0)))
    except urllib.error.HTTPError as rejected:
        content = json.load(rejected)
    return content
