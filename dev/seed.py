"""Seeds an empty ledger through the command API, with two users, three accounts and a few transfers."""

from typing import Any, Final

import httpx2

from shared.errors import StackError
from shared.web.api_client import bearer

ADA: Final = "ada00000-0000-4000-8000-000000000000"
GRACE: Final = "9ace0000-0000-4000-8000-000000000000"
ADAS_EUROS: Final = "ada00000-0000-4000-8000-000000000978"
GRACES_EUROS: Final = "9ace0000-0000-4000-8000-000000000978"
GRACES_YEN: Final = "9ace0000-0000-4000-8000-000000000392"

SEED: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/v1/users", {"id": ADA, "name": "Ada Lovelace", "email": "ada@example.com"}),
    ("/v1/users", {"id": GRACE, "name": "Grace Hopper", "email": "grace@example.com"}),
    ("/v1/accounts", {"id": ADAS_EUROS, "owner_id": ADA, "currency": "EUR"}),
    ("/v1/accounts", {"id": GRACES_EUROS, "owner_id": GRACE, "currency": "EUR", "overdraft_limit": 50_000}),
    ("/v1/accounts", {"id": GRACES_YEN, "owner_id": GRACE, "currency": "JPY"}),
    ("/v1/deposits", {"account_id": ADAS_EUROS, "amount": 1_000_000, "currency": "EUR", "reference": "Salary"}),
    ("/v1/deposits", {"account_id": GRACES_YEN, "amount": 90_000, "currency": "JPY", "reference": "Honorarium"}),
    (
        "/v1/transfers",
        {
            "from_account_id": ADAS_EUROS,
            "to_account_id": GRACES_EUROS,
            "amount": 12_550,
            "currency": "EUR",
            "reference": "Dinner",
        },
    ),
    ("/v1/withdrawals", {"account_id": GRACES_EUROS, "amount": 2_000, "currency": "EUR", "reference": "Cash"}),
)


async def seed(command_url: str, query_url: str, api_key: str) -> None:
    """Seeds the ledger if it is empty. If a seeding was interrupted, finishes it. Does nothing in any other ledger.

    Raises:
        StackError: an API answered with an error.
    """
    async with httpx2.AsyncClient(headers=bearer(api_key), timeout=10, trust_env=False) as client:
        log = await client.get(f"{query_url}/v1/events", params={"limit": 1})
        if not log.is_success:
            raise StackError(f"cannot seed the ledger: GET /v1/events was answered {log.status_code}: {log.text}")
        first = log.json()["items"]
        if first and first[0]["data"].get("user_id") != ADA:
            return
        for number, (path, body) in enumerate(SEED):
            answer = await client.post(command_url + path, json=body, headers={"Idempotency-Key": f"seed-{number}"})
            if not answer.is_success:
                raise StackError(f"cannot seed the ledger: POST {path} was answered {answer.status_code}: {answer.text}")
