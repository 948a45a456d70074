"""The list of API keys: operators see all keys of their ledger, page by page, and nobody sees a secret."""

from datetime import timedelta
from typing import Any

import pytest

from query_api.app import create_app
from shared.identity.access import ALL_LEDGERS
from shared.identity.api_keys import key_id_of, revoke_key
from shared.identity.audit_records import ActCaller
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import client_of
from tests.harness.keys import OPERATOR, add_key, bearer

pytestmark = pytest.mark.services


async def test_operators_see_each_key_of_their_ledger_and_no_secret(settings: Settings) -> None:
    url = settings.database_url
    ended = await add_key(url, "ended", scopes=["ledger:read"], lifetime=timedelta(hours=-1))
    revoked = await add_key(url, "revoked", scopes=["ledger:read"])
    landlord = await add_key(url, "landlord", scopes=["ops:admin"], ledger_id=ALL_LEDGERS)
    reader = await add_key(url, "reader", scopes=["ledger:read", "events:read", "credentials:write"])
    async with open_postgres(settings, "daybook_admin") as engine, engine.begin() as connection:
        await revoke_key(connection, key_id_of(revoked), ActCaller.operator("a test"))
    async with client_of(create_app(settings)) as client:
        answer = await client.get("/v1/keys")
        items = answer.json()["items"]
        assert {item["principal"]: item["status"] for item in items} == {
            "operator": "valid",
            "ended": "expired",
            "revoked": "revoked",
            "reader": "valid",
        }
        assert items[0]["id"] == key_id_of(reader)
        assert items[0]["scopes"] == ["ledger:read", "events:read", "credentials:write"]
        assert not [token for token in (OPERATOR, ended, revoked, reader) if token.split("_", 2)[2] in answer.text]
        read: list[Any] = []
        path = "/v1/keys?limit=1"
        while path:
            page = (await client.get(path)).json()
            read += page["items"]
            path = f"/v1/keys?limit=1&cursor={page['next']}" if page["next"] else ""
        assert [item["id"] for item in read] == [item["id"] for item in items]
        assert (await client.get("/v1/keys", headers=bearer(reader))).status_code == 403
        there = await client.get("/v1/keys", headers=bearer(landlord) | {"daybook-ledger": "main"})
        assert [item["id"] for item in there.json()["items"]] == [item["id"] for item in items]
