"""Keys are revoked and rotated over HTTP, by nobody who could not do with the own key what the other one allows."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import command_api.app
import query_api.app
from shared.identity.access import ALL_LEDGERS, SCOPES
from shared.identity.api_keys import key_id_of, revoke_key
from shared.identity.audit_records import ActCaller
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import client_of
from tests.harness.keys import OPERATOR, add_key, bearer

pytestmark = pytest.mark.services

HELPER = ["credentials:write", "ledger:read"]


class Apis:
    """Both APIs, and the keys of a ledger."""

    def __init__(self, settings: Settings, commands: httpx2.AsyncClient, queries: httpx2.AsyncClient) -> None:
        self.settings = settings
        self.commands = commands
        self.queries = queries

    async def key(self, name: str, scopes: Sequence[str], **more: Any) -> str:
        return await add_key(self.settings.database_url, name, scopes=scopes, **more)

    async def ask(self, verb: str, token: str, by: str = OPERATOR, **more: Any) -> httpx2.Response:
        body = {"overlap_seconds": more.pop("overlap", 0)} if verb == "rotate" else None
        return await self.commands.post(f"/v1/keys/{key_id_of(token)}/{verb}", json=body, headers=bearer(by) | more)

    async def rotated(self, token: str, by: str = OPERATOR, **more: Any) -> str:
        answer = await self.ask("rotate", token, by, **more)
        assert answer.status_code == 201, answer.text
        made: str = answer.json()["token"]
        return made

    async def listed(self) -> dict[str, dict[str, Any]]:
        return {item["id"]: item for item in (await self.queries.get("/v1/keys?limit=100")).json()["items"]}

    async def status_of(self, token: str) -> str:
        found: str = (await self.listed())[key_id_of(token)]["status"]
        return found

    async def is_accepted(self, token: str) -> bool:
        return (await self.commands.get("/v1/users/none/sessions", headers=bearer(token))).status_code != 401


@pytest_asyncio.fixture
async def apis(settings: Settings) -> AsyncIterator[Apis]:
    async with (
        client_of(command_api.app.create_app(settings)) as commands,
        client_of(query_api.app.create_app(settings)) as queries,
    ):
        yield Apis(settings, commands, queries)


async def test_a_revoked_key_ends_at_once_in_the_process_that_revokes_it(apis: Apis) -> None:
    reader = await apis.key("reader", ["ledger:read"])
    assert await apis.is_accepted(reader)
    first, second = [await apis.ask("revoke", reader) for _ in range(2)]
    assert first.json() == {"id": key_id_of(reader), "revoked_key_ids": [key_id_of(reader)]}
    assert (second.status_code, second.json()["revoked_key_ids"]) == (200, []), "repeating this changes nothing"
    assert not await apis.is_accepted(reader)
    assert await apis.status_of(reader) == "revoked"
    assert (await apis.ask("rotate", reader)).json()["code"] == "not-found"
    records = (await apis.queries.get("/v1/audit-records")).json()["items"]
    assert [(each["act"], each["data"]) for each in records[:2]] == [
        ("key-revoked", {"key_id": key_id_of(reader)}), ("limits-changed", records[1]["data"]),
    ]  # fmt: skip
    assert records[0]["caller"]["key_id"] == key_id_of(OPERATOR)


async def test_a_rotated_key_has_the_holder_and_the_scopes_of_the_old_one(apis: Apis) -> None:
    reader = await apis.key("reader", ["ledger:read"], lifetime=timedelta(days=9))
    answer = await apis.ask("rotate", reader, overlap=600)
    new = answer.json()["token"]
    keys = await apis.listed()
    before, after = keys[key_id_of(reader)], keys[key_id_of(new)]
    for member in ("principal", "scopes", "user_id"):
        assert after[member] == before[member]
    assert answer.json() == {
        "id": after["id"], "token": new, "expires_at": after["expires_at"],
        "old_key_id": before["id"], "old_expires_at": before["expires_at"],
    }  # fmt: skip
    lifetimes = [_moment(each["expires_at"]) - _moment(each["created_at"]) for each in (before, after)]
    assert timedelta(minutes=9) < lifetimes[0] < timedelta(minutes=11)
    assert lifetimes[1] == timedelta(days=9)
    assert after["origin_key_id"] == key_id_of(OPERATOR)
    assert await apis.is_accepted(reader)
    assert await apis.is_accepted(new)
    [record, *_] = (await apis.queries.get("/v1/audit-records")).json()["items"]
    assert record["act"] == "key-rotated"
    assert record["data"] == {
        "key_id": before["id"], "new_key_id": after["id"], "overlap_seconds": 600, "lifetime_seconds": 9 * 86_400,
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"
    assert "content-encoding" not in answer.headers


def _moment(shown: str) -> datetime:
    return datetime.fromisoformat(shown)


async def test_nobody_changes_a_key_with_a_scope_that_the_own_key_lacks(apis: Apis) -> None:
    """Or one of another ledger, or one for all ledgers. Then nothing is changed."""
    helper = await apis.key("helper", HELPER)
    lesser = [await apis.key(f"lesser-{number}", [scope]) for number, scope in enumerate(HELPER)]
    stronger = [await apis.key(f"stronger-{scope[:5]}", ["ledger:read", scope]) for scope in SCOPES if scope not in HELPER]
    elsewhere = await apis.key("elsewhere", ["ledger:read"], ledger_id="acme")
    landlord = await apis.key("landlord", ["ops:admin"], ledger_id=ALL_LEDGERS)
    before = await apis.listed()
    for verb in ("rotate", "revoke"):
        for key in (*stronger, OPERATOR):
            assert (await apis.ask(verb, key, helper)).json()["code"] == "forbidden"
        for key in (elsewhere, landlord):
            assert (await apis.ask(verb, key)).json()["code"] == "not-found"
            named = await apis.ask(verb, elsewhere, landlord, **{"daybook-ledger": "acme"})
            assert named.json()["code"] == "forbidden", "a key for all ledgers yields no key"
        for scopes in (["ops:admin"], [scope for scope in SCOPES if scope != "credentials:write"]):
            weak = await apis.key(f"weak-{verb}-{len(scopes)}", scopes)
            assert (await apis.ask(verb, weak, weak)).json()["code"] == "forbidden"
    after = await apis.listed()
    changed = [key_id for key_id, item in before.items() if after[key_id] | {"last_used_at": 0} != item | {"last_used_at": 0}]
    assert changed == []
    assert len(after) == len(before) + 4, "no key is made"
    for key in lesser:
        assert (await apis.ask("revoke", key, helper)).is_success


async def test_a_key_made_over_http_ends_with_the_key_that_made_it(apis: Apis, settings: Settings) -> None:
    """So who has stolen a key, and rotated others or the same one, has nothing after it ends."""
    stolen = await apis.key("helper", HELPER, lifetime=timedelta(hours=1))
    reader = await apis.key("reader", ["ledger:read"], lifetime=timedelta(days=90))
    unending = await apis.key("unending", ["ledger:read"])
    own = await apis.rotated(stolen, stolen, overlap=600)
    made = [own, await apis.rotated(own, own, overlap=600), await apis.rotated(reader, stolen), await apis.rotated(unending, own)]
    keys = await apis.listed()
    assert max(_moment(keys[key_id_of(key)]["expires_at"]) for key in made) <= _moment(keys[key_id_of(stolen)]["created_at"]) + (
        timedelta(hours=1)
    )
    async with open_postgres(settings, "daybook_admin") as engine, engine.begin() as connection:
        ended = await revoke_key(connection, key_id_of(stolen), ActCaller.operator("a test"))
    assert ended[0] == key_id_of(stolen)
    assert {*ended[1:]} == {key_id_of(key) for key in made}
    assert {await apis.status_of(key) for key in made} == {"revoked"}
    records = (await apis.queries.get("/v1/audit-records")).json()["items"]
    assert [each["data"]["key_id"] for each in reversed(records) if each["act"] == "key-revoked"] == ended


async def test_a_key_that_is_made_while_its_origin_is_revoked_ends_too(apis: Apis) -> None:
    for number in range(5):
        origin = await apis.key(f"origin-{number}", HELPER)
        reader = await apis.key(f"reader-{number}", ["ledger:read"])
        made, _ = await asyncio.gather(apis.ask("rotate", reader, origin), apis.ask("revoke", origin))
        assert made.status_code in {201, 401, 404}, made.text
        if made.status_code == 201:
            assert await apis.status_of(made.json()["token"]) == "revoked"


@pytest.mark.parametrize("body", [{"overlap_seconds": -1}, {"overlap_seconds": 2_592_001}, {"overlap_seconds": 1.0}, {"more": 1}])
async def test_a_wrong_rotation_makes_no_key(apis: Apis, body: dict[str, Any]) -> None:
    answer = await apis.commands.post(f"/v1/keys/{key_id_of(OPERATOR)}/rotate", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
    assert (await apis.commands.post("/v1/keys/UPPER/revoke")).status_code == 422
    assert len(await apis.listed()) == 1


async def test_only_the_command_api_can_have_keys_changed_by_functions(settings: Settings) -> None:
    """They cannot widen a key: the new one has what the old one has, and its origin has all of that."""
    weak = await add_key(settings.database_url, "weak", scopes=["ledger:read"])
    rotate = text(f"SELECT rotate_api_key('{key_id_of(OPERATOR)}', '{key_id_of(weak)}', 'newnewnewn', '', '0')")
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        assert await connection.scalar(rotate) is None
    for role, statement in (
        ("daybook_query", rotate),
        ("daybook_projector", rotate),
        ("daybook_admin", rotate),
        ("daybook_query", text(f"SELECT revoke_api_key('{key_id_of(weak)}')")),
    ):
        async with open_postgres(settings, role) as engine:  # type: ignore[arg-type]
            with pytest.raises(DBAPIError, match="permission denied"):
                async with engine.begin() as connection:
                    await connection.execute(statement)
