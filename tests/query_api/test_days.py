"""Business days: what a closing says, that days close in order, what comes after a closing, and that verify computes it again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import pytest

from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.business_days import bounds_of
from shared.errors import EventImpossible
from shared.log.day_events import CurrencyTotals, DayClosed
from shared.log.heads import read_head
from shared.log.ledger_events import LedgerCreated
from shared.log.read import read_stored
from shared.privacy.person_keys import PersonKeys
from shared.proof.merkle import EMPTY_ROOT, Frontier, leaf_hash
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import Commands, command_api, created
from tests.harness.log import append
from tests.harness.questions import Questions, projecting, query_api
from tests.harness.terminals import daybook

services = pytest.mark.services
TODAY = datetime.now(UTC)
YESTERDAY, DAY_BEFORE = ((TODAY - timedelta(days=days)).date().isoformat() for days in (1, 2))
NOON = f"{YESTERDAY}T12:00:00.000000Z"


class Both:
    """The command API, and the query API that waits for what the command API has answered."""

    def __init__(self, commands: Commands, queries: Questions) -> None:
        self.commands = commands
        self.queries = queries

    async def close(self, day: str, **headers: str) -> httpx2.Response:
        return self._seen(await self.commands.post(f"/v1/days/{day}/close", **headers))

    async def deposit(self, account_id: str, amount: int, **fields: Any) -> str:
        body = {"account_id": account_id, "amount": amount, "currency": "EUR", **fields}
        return created(self._seen(await self.commands.post("/v1/deposits", body)))

    def _seen(self, answer: httpx2.Response) -> httpx2.Response:
        self.queries.position = int(answer.headers.get("daybook-position", self.queries.position))
        return answer


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        commands = await stack.enter_async_context(command_api(settings))
        queries = await stack.enter_async_context(query_api(settings))
        await stack.enter_async_context(projecting(queries, settings))
        yield Both(commands, queries)


async def fault_of_log(settings: Settings) -> str:
    """Decides the whole log again, with its closings and its stored replies. Returns the first fault, or nothing."""
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, "main")).position
        try:
            _, replies = await verify_events(connection, "main", head, DOMAIN, PersonKeys(settings), lambda _: None)
        except EventImpossible as impossible:
            return str(impossible)
    return replies.fault


async def root_of(settings: Settings, *positions: int) -> str:
    """Computes the root over the stored hashes of events, without the code that closes days."""
    tree = Frontier()
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        for stored in await read_stored(connection, "main", 0):
            if stored.position in positions:
                assert [*tree.append(leaf_hash(stored.hash))] == []
    return tree.root().hex()


@services
async def test_a_closing_counts_what_occurred_on_the_day_and_nothing_else(api: Both, settings: Settings) -> None:
    payer, payee = await api.commands.account(), await api.commands.account()
    await api.deposit(payer, 100, occurred_at=NOON)
    await api.deposit(payer, 1_000)
    await api.deposit(payer, 7, occurred_at=bounds_of(YESTERDAY, "UTC").end)
    body = {"from_account_id": payer, "to_account_id": payee, "amount": 30, "currency": "EUR"}
    paid = await api.commands.post("/v1/transfers", body | {"occurred_at": bounds_of(YESTERDAY, "UTC").start})
    spent = {"account_id": payer, "amount": 20, "currency": "EUR", "occurred_at": NOON}
    created(await api.commands.post("/v1/withdrawals", spent))
    answer = await api.close(YESTERDAY, idempotency_key="k")
    assert answer.status_code == 200, answer.text
    closed = answer.json()
    assert closed["totals"] == [{"currency": "EUR", "entries": 4, "moved": "150", "paid_in": "100", "paid_out": "20"}]
    first, last = paid.json()["position"] - 3, paid.json()["position"] + 1
    assert (closed["events"], closed["first_position"], closed["last_position"]) == (3, first, last)
    assert (closed["up_to"], closed["position"], closed["version"]) == (last, last + 1, 1)
    assert closed["root"] == await root_of(settings, first, last - 1, last)
    again = await api.close(YESTERDAY)
    assert (again.status_code, again.json()) == (200, closed)
    assert (await api.close(YESTERDAY, idempotency_key="k")).content == answer.content
    assert await fault_of_log(settings) == ""
    read = await api.queries.get(f"/v1/days/{YESTERDAY}")
    assert {name: read[name] for name in closed.keys() - {"position", "version"}} == {
        name: value for name, value in closed.items() if name not in {"position", "version"}
    }
    assert (read["closed_position"], read["after_close"]) == (closed["position"], {"count": 0, "transfer_ids": []})


@services
async def test_what_is_back_dated_into_a_closed_day_is_taken_and_marked(api: Both, settings: Settings) -> None:
    account_id = await api.commands.account()
    before = await api.deposit(account_id, 1, occurred_at=NOON)
    assert (await api.close(YESTERDAY)).status_code == 200
    late = [await api.deposit(account_id, amount, occurred_at=NOON) for amount in (2, 3)]
    other = await api.deposit(account_id, 4, occurred_at=f"{DAY_BEFORE}T12:00:00Z")
    now = await api.deposit(account_id, 5)
    marks = {each["id"]: each["after_close"] for each in (await api.queries.get("/v1/transfers"))["items"]}
    assert marks == {before: False, late[0]: True, late[1]: True, other: False, now: False}
    assert (await api.queries.get(f"/v1/transfers/{late[0]}"))["after_close"] is True
    for path, name in (("entries", "items"), ("statement?axis=occurred_at", "lines"), ("entries?kind=deposit", "items")):
        found = (await api.queries.get(f"/v1/accounts/{account_id}/{path}"))[name]
        assert {each["transfer_id"]: each["after_close"] for each in found} == marks, path
    day = await api.queries.get(f"/v1/days/{YESTERDAY}")
    assert (day["events"], day["after_close"]) == (1, {"count": 2, "transfer_ids": late})
    assert await fault_of_log(settings) == ""


@services
async def test_days_close_in_order_and_only_after_their_end(api: Both) -> None:
    early = await api.close(TODAY.date().isoformat())
    assert (early.status_code, early.json()["code"], early.json()["retryable"]) == (409, "day-not-ended", True)
    assert (await api.close(DAY_BEFORE)).status_code == 200
    for day in ("2025-01-31", (TODAY - timedelta(days=3)).date().isoformat()):
        wrong = await api.close(day)
        assert (wrong.status_code, wrong.json()["code"], wrong.json()["next_day"]) == (409, "day-out-of-order", YESTERDAY)
    assert (await api.close(YESTERDAY)).json()["version"] == 2
    assert [each["day"] for each in (await api.queries.get("/v1/days"))["items"]] == [YESTERDAY, DAY_BEFORE]
    assert [len(page) for page in await api.queries.pages("/v1/days", {"limit": 1, "sort": "day"})] == [1, 1]
    for none in ("2025-02-29", "1899-12-31", "20250131", "2025-1-31", "day"):
        assert (await api.close(none)).status_code == 422
        assert (await api.queries.ask(f"/v1/days/{none}")).status_code == 422
    assert (await api.queries.ask("/v1/days/2025-01-31")).status_code == 404


@services
async def test_a_day_that_is_closed_by_many_at_once_is_closed_once(api: Both, settings: Settings) -> None:
    account_id = await api.commands.account()
    answers = await asyncio.gather(
        *(api.close(YESTERDAY) for _ in range(5)), *(api.deposit(account_id, 1, occurred_at=NOON) for _ in range(5))
    )
    closed = [answer.json() for answer in answers if isinstance(answer, httpx2.Response)]
    assert {each["version"] for each in closed} == {1}
    assert len({each["root"] for each in closed}) == 1
    assert await fault_of_log(settings) == ""


@pytest.mark.slow
@services
async def test_an_operator_closes_a_day_on_the_command_line(api: Both, settings: Settings) -> None:
    account_id = await api.commands.account()
    await api.deposit(account_id, 100, occurred_at=NOON)
    for _ in range(2):
        code, out, err = await daybook(settings, "close", YESTERDAY).ended()
        assert (code, err) == (0, "")
        assert f"{YESTERDAY}: 1 events" in out
        assert "EUR: 1 entries, 100 moved, 100 paid in, 0 paid out" in out
    for wrong, said in (("2025-01-31", "day-out-of-order"), (TODAY.date().isoformat(), "not ended"), ("today", "2026-01-31")):
        code, _, err = await daybook(settings, "close", wrong).ended()
        assert code != 0, wrong
        assert said in err or "in order" in err


WRONG: list[dict[str, Any]] = [
    {"events": 2},
    {"root": EMPTY_ROOT.hex()},
    {"first_position": 1},
    {"last_position": None},
    {"totals": ()},
    {"totals": (CurrencyTotals("EUR", 1, "101", "100", "0"),)},
    {"up_to": 0},
]


@pytest.mark.slow
@services
@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_closing_that_says_otherwise_than_the_log_is_found(api: Both, settings: Settings, wrong: dict[str, Any]) -> None:
    account_id = await api.commands.account()
    await api.deposit(account_id, 100, occurred_at=NOON)
    position = api.queries.position
    right = DayClosed(
        day=YESTERDAY,
        time_zone="UTC",
        up_to=position,
        events=1,
        root=await root_of(settings, position),
        first_position=position,
        last_position=position,
        totals=(CurrencyTotals("EUR", 1, "100", "100", "0"),),
    )
    await append(api.queries.writer, [msgspec.structs.replace(right, **wrong)])
    assert f"position {position + 1}" in await fault_of_log(settings)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-01-31", 24)])
def test_a_day_has_the_hours_of_its_time_zone(day: str, hours: int) -> None:
    start, end = map(datetime.fromisoformat, bounds_of(day, "Europe/Berlin"))
    assert end - start == timedelta(hours=hours)
    assert bounds_of(day, "UTC") == (f"{day}T00:00:00.000000Z", bounds_of(day, "UTC").end)


@services
async def test_a_day_ends_at_midnight_in_the_time_zone_of_the_ledger(api: Both, settings: Settings) -> None:
    await append(api.queries.writer, [LedgerCreated(name="Acme", time_zone="Asia/Tokyo")])
    account_id = await api.commands.account()
    for moment, amount in ((f"{DAY_BEFORE}T14:59:59Z", 1), (f"{DAY_BEFORE}T15:00:00Z", 20), (f"{YESTERDAY}T14:59:59Z", 300)):
        await api.deposit(account_id, amount, occurred_at=moment)
    await api.deposit(account_id, 4_000, occurred_at=f"{YESTERDAY}T15:00:00Z")
    closed = (await api.close(YESTERDAY)).json()
    assert (closed["time_zone"], closed["totals"][0]["moved"]) == ("Asia/Tokyo", "320")
    late = await api.deposit(account_id, 5, occurred_at=f"{DAY_BEFORE}T15:00:00Z")
    assert (await api.queries.get(f"/v1/days/{YESTERDAY}"))["after_close"]["transfer_ids"] == [late]
    assert await fault_of_log(settings) == ""
