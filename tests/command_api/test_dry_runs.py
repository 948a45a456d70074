"""A dry run gives the answer that the command would get, and records nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
import pytest
from sqlalchemy import text

from command_api.app import create_app
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.command_api.test_exchange_requests import parties
from tests.harness.clients import Commands, command_api, served

pytestmark = pytest.mark.services

Body = dict[str, Any]
TABLES: Final = ("events", "log_heads", "streams", "stream_events", "idempotency_keys", "person_keys", "audit_records")
MISSING: Final = "0198c5a0-0000-7000-8000-00000000dead"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings) as commands:
        yield commands


async def send(api: Commands, method: str, path: str, body: Any, query: str = "", **headers: str) -> httpx2.Response:
    return await served(lambda: api.client.request(method, path + query, json=body, headers=headers))


async def content_of(settings: Settings) -> dict[str, list[str]]:
    """Everything that PostgreSQL has of the ledger."""
    async with open_postgres(settings, "daybook_command") as engine, engine.connect() as connection:
        return {table: sorted((await connection.execute(text(f"SELECT t::text FROM {table} t"))).scalars()) for table in TABLES}


def without_times(body: Any) -> Any:
    """The body without what differs between two requests in any case: the times of recording and the request's own id."""
    if isinstance(body, dict):
        return {k: without_times(v) for k, v in body.items() if k not in {"recorded_at", "occurred_at", "request_id", "instance"}}
    return [without_times(each) for each in body] if isinstance(body, list) else body


def move(payer: str, payee: str, amount: int, **fields: Any) -> Body:
    return {"from_account_id": payer, "to_account_id": payee, "amount": amount, "currency": "EUR", **fields}


def too_much(account_id: str) -> Body:
    return {"type": "withdrawal", "account_id": account_id, "amount": 10**6, "currency": "EUR"}


def many(payer: str, payee: str, mode: str, first: int) -> Body:
    """Commands of several kinds, of which some need what those before them leave."""
    ids = [f"0198c5a0-0000-7000-8000-00000000d0{first + n:02x}" for n in range(4)]
    return {
        "mode": mode,
        "commands": [
            {"type": "deposit", "id": ids[0], "account_id": payer, "amount": 9, "currency": "EUR"},
            {"type": "hold", "id": ids[1], "account_id": payer, "to_account_id": payee, "amount": 8, "currency": "EUR"},
            {"type": "capture", "id": ids[2], "hold_id": ids[1], "amount": 3},
            {"type": "release", "hold_id": ids[1]},
            {"type": "reverse", "id": ids[3], "transfer_id": ids[0], "amount": 2},
        ],
    }


def postings(payer: str, payee: str, amount: int, **fields: Any) -> Body:
    found = ((payer, -amount), (payee, amount))
    return {"postings": [{"account_id": each, "amount": change, "currency": "EUR"} for each, change in found], **fields}


async def commands_of_every_kind(api: Commands) -> list[tuple[str, str, Body | None]]:
    """A request of every kind of command, in an order in which each is accepted, and some that are rejected."""
    user, other = await api.user(), await api.user()
    payer, payee, closing = await api.account(user, balance=100), await api.account(), await api.account()
    ids = [f"0198c5a0-0000-7000-8000-0000000000{number:02x}" for number in range(9)]
    hold, schedule = "0198c5a0-0000-7000-8000-00000000c000", "0198c5a0-0000-7000-8000-00000000c00f"
    exchange = {"id": "0198c5a0-0000-7000-8000-00000000c006", **await parties(api), "from_amount": 10, "rate": "1.05"}
    return [
        ("POST", "/v1/users", {"id": ids[0], "name": "Ada", "email": "dry@example.com"}),
        ("PATCH", f"/v1/users/{user}", {"name": "Grace"}),
        ("PATCH", f"/v1/users/{user}", {"metadata": {"customer_number": "4711"}}),
        ("POST", "/v1/accounts", {"id": ids[1], "owner_id": user, "currency": "EUR", "overdraft_limit": 5}),
        ("PUT", f"/v1/accounts/{payer}/overdraft-limit", {"overdraft_limit": 7}),
        ("PATCH", f"/v1/accounts/{payer}", {"metadata": {"iban": "DE02"}}),
        ("PUT", f"/v1/accounts/{payer}/limits", {"per_day": 500, "per_transfer_max": 400}),
        ("POST", "/v1/deposits", {"id": ids[2], "account_id": payer, "amount": 10, "currency": "EUR", "reference": "r"}),
        ("POST", "/v1/withdrawals", {"id": ids[3], "account_id": payer, "amount": 10, "currency": "EUR"}),
        ("POST", "/v1/transfers", move(payer, payee, 10, id=ids[4])),
        ("POST", "/v1/transfers", move(payer, payee, 1, id=ids[4])),  # the id is taken
        ("POST", "/v1/transfers", move(payer, payee, 1_000)),
        ("POST", "/v1/transfers", move(payer, MISSING, 1)),
        # The second can be paid only with what the first brings, and the third cannot be paid.
        ("POST", "/v1/transfers/batch", {"transfers": [move(payer, payee, 90, id=ids[5]), move(payee, payer, 95, id=ids[6])]}),
        ("POST", "/v1/transfers/batch", {"transfers": [move(payer, payee, 90, id=ids[7]), move(payer, payee, 90, id=ids[8])]}),
        ("POST", "/v1/transfers/batch", {"mode": "atomic", "transfers": [move(payer, payee, 1), move(payer, payee, 1_000)]}),
        ("POST", "/v1/holds", {"id": hold, "account_id": payee, "to_account_id": payer, "amount": 5, "currency": "EUR"}),
        ("POST", "/v1/holds", {"account_id": payee, "amount": 1_000, "currency": "EUR"}),
        ("POST", f"/v1/holds/{hold}/capture", {"id": "0198c5a0-0000-7000-8000-00000000c001", "amount": 2}),
        ("POST", f"/v1/holds/{hold}/release", None),
        ("POST", f"/v1/holds/{hold}/release", None),
        ("POST", f"/v1/transfers/{ids[4]}/reverse", {"id": "0198c5a0-0000-7000-8000-00000000c002", "amount": 6}),
        ("POST", f"/v1/transfers/{ids[4]}/reverse", {"id": "0198c5a0-0000-7000-8000-00000000c003", "amount": 5}),
        ("POST", "/v1/transfers", postings(payer, payee, 3, id="0198c5a0-0000-7000-8000-00000000c004")),
        ("POST", "/v1/transfers", postings(payer, payee, 1_000, id="0198c5a0-0000-7000-8000-00000000c005")),
        ("POST", "/v1/exchanges", exchange),
        ("POST", "/v1/exchanges", exchange),  # the id is taken
        ("POST", "/v1/batch", many(payer, payee, "independent", 0)),
        ("POST", "/v1/batch", many(payer, payee, "atomic", 10)),
        ("POST", "/v1/batch", {"mode": "atomic", "commands": [*many(payer, payee, "atomic", 20)["commands"], too_much(payer)]}),
        ("POST", "/v1/schedules", {"id": schedule, "transfer": move(payer, payee, 5), "at": "2199-01-01T00:00:00Z"}),
        ("POST", "/v1/schedules", {"id": ids[0], "transfer": move(payer, payer, 5), "at": "2199-01-01T00:00:00Z"}),
        ("PATCH", f"/v1/schedules/{schedule}", {"transfer": {"amount": 6}}),
        ("POST", f"/v1/schedules/{schedule}/cancel", None),
        ("POST", f"/v1/schedules/{schedule}/cancel", None),
        ("POST", f"/v1/accounts/{payee}/freeze", None),
        ("POST", f"/v1/accounts/{payee}/unfreeze", None),
        ("POST", f"/v1/accounts/{closing}/close", None),
        ("POST", f"/v1/accounts/{payer}/close", None),
        ("POST", "/v1/days/2025-01-31/close", None),
        ("POST", f"/v1/users/{other}/deactivate", None),
        ("POST", f"/v1/users/{other}/reactivate", None),
        ("POST", f"/v1/users/{other}/erase", None),
    ]


@pytest.mark.slow
async def test_a_dry_run_answers_like_the_command_and_records_nothing(api: Commands, settings: Settings) -> None:
    """Both have the same key, so a dry run that used its key would be seen too."""
    for number, (method, path, body) in enumerate(await commands_of_every_kind(api)):
        before = await content_of(settings)
        rehearsed = await send(api, method, path, body, "?dry_run=true", **{"idempotency-key": f"k{number}"})
        assert await content_of(settings) == before, path
        done = await send(api, method, path, body, **{"idempotency-key": f"k{number}"})
        assert "idempotency-replayed" not in done.headers, path
        if body and "id" not in body and path.startswith("/v1/transfers"):
            continue  # each has an id of its own
        assert (rehearsed.status_code, without_times(rehearsed.json())) == (done.status_code, without_times(done.json())), path
        assert rehearsed.headers["content-type"] == done.headers["content-type"]
        assert rehearsed.headers["daybook-dry-run"] == "true"
        assert not {"daybook-position", "location", "etag", "idempotency-replayed"} & set(rehearsed.headers)


async def test_every_command_has_a_dry_run_and_nothing_else_has(settings: Settings) -> None:
    document = create_app(settings).openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = {each["name"] for each in operation.get("parameters", ())}
            assert ("dry_run" in names) == ("Idempotency-Key" in names), (method, path)


async def test_dry_runs_between_commands_change_nothing(api: Commands) -> None:
    payer, payee = await api.account(balance=100), await api.account()
    requests = [
        *(send(api, "POST", "/v1/transfers", move(payer, payee, 1), "?dry_run=true") for _ in range(50)),
        *(api.transfer(payer, payee, 1) for _ in range(50)),
    ]
    answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {201}
    last = await api.deposit(payer, 1)
    assert last.json()["balances"][0]["posted"] == 51


@pytest.mark.slow
@pytest.mark.parametrize(
    "query", ["?dry_run=1", "?dry_run=", "?dry_run=True", "?dry_run=true&dry_run=true", "?dry_run=true&dry_run=false"]
)
async def test_a_dry_run_that_is_asked_for_in_another_way_is_refused(api: Commands, query: str) -> None:
    account_id = await api.account()
    body = {"account_id": account_id, "amount": 10, "currency": "EUR"}
    refused = await send(api, "POST", "/v1/deposits", body, query, **{"idempotency-key": "k"})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")
    assert (await send(api, "POST", "/v1/deposits", body, "?dry_run=false", **{"idempotency-key": "k"})).status_code == 201


async def test_a_request_that_records_no_event_refuses_a_dry_run(api: Commands) -> None:
    user_id = await api.user()
    refused = await send(api, "POST", f"/v1/users/{user_id}/reset-token", None, "?dry_run=true")
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")
