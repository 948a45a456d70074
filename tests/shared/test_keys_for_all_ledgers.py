"""A key for all ledgers creates, lists and closes ledgers over HTTP. It opens nothing that a ledger holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final, NamedTuple

import httpx2
import pytest
from sqlalchemy import text

import command_api.app
import query_api.app
from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.errors import ApiKeyError
from shared.identity.access import ALL_LEDGERS, SCOPES
from shared.identity.api_keys import key_id_of as id_of
from shared.identity.api_keys import make_key, revoke_key, rotate_key
from shared.identity.audit_records import ActCaller, read_after
from shared.log.heads import read_head
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.doctor import examine
from shared.stores.postgres import open_postgres
from tests.harness.clients import client_of
from tests.harness.keys import OPERATOR, add_key, bearer
from tests.query_api.test_query_openapi import conforms
from tests.shared.test_access import GUARDED, NO_THING, Operation

pytestmark = pytest.mark.services

ACME: Final = {"id": "acme", "name": "Acme Ltd.", "time_zone": "Europe/Berlin", "currencies": ["USD", "EUR"]}
ALL: Final = "landlord"


class Apis(NamedTuple):
    """Both APIs, and the token of a key for all ledgers."""

    commands: httpx2.AsyncClient
    queries: httpx2.AsyncClient
    token: str
    settings: Settings

    async def post(self, path: str, body: Any = None, token: str = "", **headers: str) -> httpx2.Response:
        named = bearer(token or self.token) | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.commands.post(path, json=body, headers=named)

    async def put(self, path: str, body: Any, token: str = "", **headers: str) -> httpx2.Response:
        named = bearer(token or self.token) | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.commands.put(path, json=body, headers=named)

    async def get(self, path: str, token: str = "", **headers: str) -> httpx2.Response:
        named = bearer(token or self.token) | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.queries.get(path, headers=named)

    async def heads(self) -> list[Any]:
        async with open_postgres(self.settings, "daybook_command") as engine, engine.connect() as connection:
            return list(await connection.execute(text("SELECT ledger_id, position FROM log_heads ORDER BY ledger_id")))


@pytest.fixture
async def apis(settings: Settings) -> AsyncIterator[Apis]:
    token = await add_key(settings.database_url, ALL, ledger_id=ALL_LEDGERS, scopes=["ops:admin"])
    async with AsyncExitStack() as exits:
        commands, queries = [
            await exits.enter_async_context(client_of(api.create_app(settings), "")) for api in (command_api.app, query_api.app)
        ]
        yield Apis(commands, queries, token, settings)


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["code"])


async def fault_of_log(settings: Settings, ledger_id: str) -> str:
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, ledger_id)).position
        _, replies = await verify_events(connection, ledger_id, head, DOMAIN, PersonKeys(settings), lambda _: None)
    return replies.fault


async def test_a_ledger_is_created_once_for_each_key_and_every_answer_follows_from_its_log(apis: Apis) -> None:
    made = await apis.post("/v1/ledgers", ACME, idempotency_key="new")
    assert (made.status_code, made.headers["etag"], made.headers["daybook-position"]) == (201, '"v1"', "1"), made.text
    assert made.headers["location"].endswith("/v1/ledgers/acme")
    expected = {"id": "acme", "position": 1, "version": 1, "name": "Acme Ltd.", "status": "open"}
    assert made.json() == expected | {"time_zone": "Europe/Berlin", "currencies": ["EUR", "USD"], "transfer_max": None}
    again = await apis.post("/v1/ledgers", ACME | {"currencies": ["EUR", "USD"]}, idempotency_key="new")
    assert (again.content, again.headers["idempotency-replayed"]) == (made.content, "true"), "the order says nothing"
    assert code(await apis.post("/v1/ledgers", ACME | {"time_zone": "UTC"}, idempotency_key="new")) == "idempotency-key-reused"
    taken = await apis.post("/v1/ledgers", ACME)
    assert (taken.status_code, code(taken)) == (409, "id-taken")
    for number in range(2):
        body = {"transfer_max": {"USD": 7, "EUR": 5}}
        changed = await apis.put("/v1/ledgers/acme/settings", body, idempotency_key=f"change-{number}")
        shown = {"name": "acme", "time_zone": "Europe/Berlin", "currencies": None, **body, "version": 2}
        assert (changed.status_code, changed.json() | shown) == (200, changed.json()), changed.text
        assert (await apis.get("/v1/ledgers/acme")).json()["transfer_max"] == body["transfer_max"]
    for number in range(2):
        closed = await apis.post("/v1/ledgers/acme/close", idempotency_key=f"close-{number}")
        assert (closed.status_code, closed.json()["status"], closed.json()["version"]) == (200, "closed", 3), closed.text
    again = await apis.put("/v1/ledgers/acme/settings", {"name": "Other"})
    assert (again.status_code, code(again)) == (409, "ledger-closed")
    assert await fault_of_log(apis.settings, "acme") == ""


async def test_a_new_ledger_is_listed_at_once_and_everybody_else_sees_only_their_own(apis: Apis) -> None:
    await apis.post("/v1/ledgers", ACME)
    shown = (await apis.get("/v1/ledgers/acme")).json()
    assert (shown["name"], shown["time_zone"], shown["currencies"], shown["status"]) == (
        *("Acme Ltd.", "Europe/Berlin", ["EUR", "USD"], "open"),
    )
    assert shown["created_at"]
    assert [each["id"] for each in (await apis.get("/v1/ledgers")).json()["items"]] == ["acme", "main"]
    first = await apis.get("/v1/ledgers?limit=1")
    second = await apis.get(f"/v1/ledgers?limit=1&cursor={first.json()['next']}")
    assert [page.json()["items"][0]["id"] for page in (first, second)] == ["acme", "main"]
    own = await apis.get("/v1/ledgers", OPERATOR)
    assert [(each["id"], each["name"], each["time_zone"]) for each in own.json()["items"]] == [("main", "main", "UTC")]
    assert (await apis.get("/v1/ledgers/main", OPERATOR)).json() == own.json()["items"][0]
    foreign, missing = [await apis.get(f"/v1/ledgers/{each}", OPERATOR) for each in ("acme", "nowhere")]
    assert [answer.status_code for answer in (foreign, missing)] == [404, 404]
    assert foreign.json() | {"request_id": ""} == missing.json() | {"request_id": ""}
    assert (await apis.get("/v1/ledgers/nowhere")).status_code == 404


async def test_a_dry_run_leaves_no_ledger(apis: Apis) -> None:
    before = await apis.heads()
    rehearsed = await apis.post("/v1/ledgers?dry_run=true", ACME)
    assert (rehearsed.status_code, rehearsed.json()["name"], rehearsed.headers["daybook-dry-run"]) == (201, "Acme Ltd.", "true")
    assert await apis.heads() == before
    assert (await apis.get("/v1/ledgers/acme")).status_code == 404
    made = await apis.post("/v1/ledgers", ACME)
    assert (made.status_code, made.json()) == (201, rehearsed.json())
    assert code(await apis.post("/v1/ledgers?dry_run=true", ACME)) == "id-taken"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "validation-failed"),
        ({"id": "main.2"}, "validation-failed"),
        ({"id": "Acme"}, "validation-failed"),
        ({"id": "a" * 32}, "validation-failed"),
        ({"id": "*"}, "validation-failed"),
        ({"id": "acme", "name": ""}, "validation-failed"),
        ({"id": "acme", "name": "a\u202eb"}, "validation-failed"),
        ({"id": "acme", "time_zone": "Europe/Nowhere"}, "validation-failed"),
        ({"id": "acme", "time_zone": "localtime"}, "validation-failed"),
        ({"id": "acme", "time_zone": 1}, "validation-failed"),
        ({"id": "acme", "currencies": []}, "validation-failed"),
        ({"id": "acme", "currencies": ["XYZ"]}, "currency-unknown"),
        ({"id": "acme", "currencies": "EUR"}, "validation-failed"),
        ({"id": "acme", "limits": 1}, "validation-failed"),
    ],
)
async def test_a_wrong_setting_is_refused_and_leaves_no_ledger(apis: Apis, body: dict[str, Any], expected: str) -> None:
    before = await apis.heads()
    answer = await apis.post("/v1/ledgers", body)
    assert (answer.status_code, code(answer)) == (422, expected), answer.text
    assert await apis.heads() == before


async def test_a_key_for_one_ledger_creates_and_closes_none(apis: Apis) -> None:
    """Not even its own. Its answers do not say which ledgers exist."""
    await apis.post("/v1/ledgers", ACME)
    before = await apis.heads()
    for token in (OPERATOR, await add_key(apis.settings.database_url, "metrics", scopes=["ops:admin"])):
        for ledger_id in ("main", "acme", "nowhere"):
            answers = [await apis.post("/v1/ledgers", {"id": ledger_id}, token)]
            answers += [await apis.post(f"/v1/ledgers/{ledger_id}/close", None, token)]
            answers += [await apis.put(f"/v1/ledgers/{ledger_id}/settings", {}, token)]
            assert {(answer.status_code, code(answer)) for answer in answers} == {(403, "forbidden")}
    assert await apis.heads() == before


async def test_a_key_for_all_ledgers_opens_nothing_that_a_ledger_holds(apis: Apis) -> None:
    await apis.post("/v1/ledgers", ACME)
    before = await apis.heads()
    walked = 0
    for operation in GUARDED:
        if operation.access and "ops:admin" not in operation.access["scopes"]:
            for ledger_id in ("main", "acme"):
                answer = await _send(apis, operation, ledger_id)
                assert (answer.status_code, code(answer)) == (403, "forbidden"), f"{operation}: {answer.text}"
            walked += 1
    assert walked > 20
    assert await apis.heads() == before
    for path in ("/metrics", "/v1/projections", "/v1/refusals"):
        for ledger_id in ("main", "acme"):
            assert (await apis.get(path, daybook_ledger=ledger_id)).status_code == 200, path
        assert (await apis.get(path, daybook_ledger="nowhere")).status_code == 404, path


async def test_a_key_for_all_ledgers_sees_what_the_doctor_finds_in_bounded_time(apis: Apis) -> None:
    """Callers of ten seconds share a report. A key for one ledger must not learn where the whole Daybook is weak."""
    expected = {finding.name for finding in await examine(apis.settings)}
    assert expected, "the servers of the tests are not safe for production"
    answers = [answer.json() for answer in await asyncio.gather(*(apis.get("/v1/doctor") for _ in range(3)))]
    conforms("get_doctor", answers[0])
    assert {finding["name"] for finding in answers[0]["items"]} == expected
    assert len({answer["examined_at"] for answer in answers}) == 1
    severities = [finding["severity"] for finding in answers[0]["items"]]
    assert severities == sorted(severities), "the dangerous ones first"
    for token in (OPERATOR, await add_key(apis.settings.database_url, "metrics", scopes=["ops:admin"])):
        assert code(await apis.get("/v1/doctor", token)) == "forbidden"


async def _send(apis: Apis, operation: Operation, ledger_id: str) -> httpx2.Response:
    client = apis.commands if operation.api == "command_api" else apis.queries
    path = operation.path.format(**dict.fromkeys(operation.names("path"), NO_THING))
    headers = bearer(apis.token) | {"daybook-ledger": ledger_id, "idempotency-key": "k"}
    return await client.request(operation.method.upper(), path, json=operation.body, headers=headers)


async def test_a_key_for_all_ledgers_has_no_scope_of_a_ledger_and_a_name_of_its_own(apis: Apis) -> None:
    """No two callers of a ledger have the same name, also if one of them is a caller of all ledgers."""
    await apis.post("/v1/ledgers", ACME)
    caller = ActCaller.operator("of a test")
    async with open_postgres(apis.settings, "daybook_admin") as admin:

        async def make(name: str, *scopes: str, **fields: Any) -> str:
            async with admin.begin() as connection:
                return await make_key(connection, name, scopes, caller=caller, **fields)

        for scope in {*SCOPES} - {"ops:admin"}:
            with pytest.raises(ApiKeyError, match="all ledgers"):
                await make("too-much", "ops:admin", scope, ledger_id=ALL_LEDGERS)
        with pytest.raises(ApiKeyError, match="no user"):
            await make("customer", "ops:admin", ledger_id=ALL_LEDGERS, user_id="u")
        await make("tenant", "ledger:read", ledger_id="acme")
        for name, ledger_id in ((ALL, "main"), (ALL, "acme"), ("tenant", ALL_LEDGERS)):
            with pytest.raises(ApiKeyError, match="has had the name"):
                await make(name, "ops:admin", ledger_id=ledger_id)
        token = await make("second", "ops:admin", ledger_id=ALL_LEDGERS)
        async with admin.begin() as connection:
            new_token = await rotate_key(connection, id_of(token), timedelta(), caller)
            await revoke_key(connection, id_of(new_token), caller)
    async with open_postgres(apis.settings, "daybook_query") as engine, engine.connect() as connection:
        for ledger_id in ("acme", "main"):
            acts = [each.act for each in await read_after(connection, ledger_id, 0, 100)][-3:]
            assert acts == ["key-made", "key-rotated", "key-revoked"], ledger_id
