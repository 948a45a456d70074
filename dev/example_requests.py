"""Makes example requests as curl commands: open an account, transfer money to it, and read its balance."""

import json
import uuid
from collections.abc import Mapping

import httpx2

from dev.seed import ADA, ADAS_EUROS
from shared.web.api_client import bearer


def curl_lines(command_url: str, query_url: str, api_key: str) -> list[str]:
    """Returns three curl commands, or none if the ledger does not have the seeded account."""
    funds = httpx2.get(f"{query_url}/v1/accounts/{ADAS_EUROS}/balance", headers=bearer(api_key), trust_env=False)
    if not funds.is_success:
        return []
    account_id = str(uuid.uuid4())
    # The first two requests record one event each.
    position = funds.json()["position"] + 2
    account = {"id": account_id, "owner_id": ADA, "currency": "EUR"}
    transfer = {"from_account_id": ADAS_EUROS, "to_account_id": account_id, "amount": 1250, "currency": "EUR"}
    headers = f"-H '{_authorization(api_key)}' -H 'Daybook-Min-Position: {position}'"
    return [
        _curl_post(f"{command_url}/v1/accounts", api_key, f"open-{account_id}", account),
        _curl_post(f"{command_url}/v1/transfers", api_key, f"fund-{account_id}", transfer),
        f"curl -s {query_url}/v1/accounts/{account_id}/balance {headers}",
    ]


def _curl_post(url: str, api_key: str, idempotency_key: str, body: Mapping[str, object]) -> str:
    headers = (_authorization(api_key), "Content-Type: application/json", f"Idempotency-Key: {idempotency_key}")
    named = " ".join(f"-H '{header}'" for header in headers)
    return f"curl -s {url} {named} -d '{json.dumps(body)}'"


def _authorization(api_key: str) -> str:
    return f"Authorization: Bearer {api_key}"
