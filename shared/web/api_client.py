"""A client of the query API, for `daybook status` and the development stack."""

import asyncio
from typing import Any, Final

import httpx2

API_ERRORS: Final = (httpx2.HTTPError,)
"""The exceptions of a request that got no answer."""
LOOK_SECONDS: Final = 0.03
TIMEOUT_SECONDS: Final = 2


def bearer(api_key: str) -> dict[str, str]:
    """Returns the `Authorization` header for an API key, or no header for an empty key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


async def list_projections(client: httpx2.AsyncClient, query_url: str) -> list[dict[str, Any]]:
    """Returns the items of `GET /v1/projections`, or an empty list if the query API does not answer."""
    try:
        response = await client.get(f"{query_url}/v1/projections")
    except httpx2.TransportError:
        return []
    items: list[dict[str, Any]] = response.json()["items"] if response.is_success else []
    return items


async def wait_until_caught_up(query_url: str, api_key: str, within_seconds: float) -> bool:
    """Waits until every read model has applied every event. Returns False if this takes longer than `within_seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_seconds
    async with httpx2.AsyncClient(headers=bearer(api_key), timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        while loop.time() < end:
            projections = await list_projections(client, query_url)
            if projections and all(each["lag_events"] == 0 for each in projections):
                return True
            await asyncio.sleep(LOOK_SECONDS)
    return False
