"""A little money to look at: two people, three accounts, a few transfers. Sent through the command API as any client would."""

import asyncio
from typing import Any, Final

import httpx2

from dev.children import LOOK_SECONDS
from shared.errors import StackError

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


async def seed(command_url: str, query_url: str) -> None:
    """Does nothing to a ledger that has events, unless they are ours: then it finishes what was interrupted.

    Raises:
        StackError: the command API refused.
    """
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as client:
        first = (await client.get(f"{query_url}/v1/events", params={"limit": 1})).json()["items"]
        if first and first[0]["data"].get("user_id") != ADA:
            return
        for number, (path, body) in enumerate(SEED):
            answer = await client.post(command_url + path, json=body, headers={"Idempotency-Key": f"seed-{number}"})
            if not answer.is_success:
                raise StackError(f"cannot seed the ledger: POST {path} was answered {answer.status_code}: {answer.text}")


async def caught_up(query_url: str, within_seconds: float) -> bool:
    """Waits until every read model shows every event, for so long at most; says whether they do."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_seconds
    async with httpx2.AsyncClient(timeout=2, trust_env=False) as client:
        while loop.time() < end:
            projections = await list_projections(client, query_url)
            if projections and all(each["lag_events"] == 0 for each in projections):
                return True
            await asyncio.sleep(LOOK_SECONDS)
    return False


async def list_projections(client: httpx2.AsyncClient, query_url: str) -> list[dict[str, Any]]:
    """None while the query API cannot tell."""
    try:
        answer = await client.get(f"{query_url}/v1/projections")
    except httpx2.TransportError:
        return []
    items: list[dict[str, Any]] = answer.json()["items"] if answer.is_success else []
    return items
