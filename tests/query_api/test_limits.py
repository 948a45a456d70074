"""Limits of an account as the query API answers them, on real stores with the real projector."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from query_api.resources.limits import counted
from shared.log.event_struct import Spent
from shared.settings import Settings
from shared.spending_periods import reset_of
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


@pytest.mark.services
async def test_the_limits_of_an_account_show_what_was_used_and_their_history(api: Questions) -> None:
    book = Book()
    account = book.open_account(book.new_id(), overdraft_limit=70)
    path = f"/v1/accounts/{account.account_id}/limits"
    today = f"{datetime.now(UTC).date()}"
    await api.record([account, book.deposit(account.account_id, 100)])
    none = await api.get(path)
    assert (none["overdraft_limit"], none["per_day"], none["per_month"], none["per_transfer_max"]) == (70, None, None, None)
    assert [(each["position"], each["overdraft_limit"]) for each in none["history"]] == [(1, 70)]
    await api.record([book.limit_spending(account.account_id, per_transfer_max=50, per_day=40, per_month=90)])
    await api.record(
        [book.withdraw(account.account_id, 15, spent=Spent(today, 15, 15)), book.change_limit(account.account_id, 80)]
    )
    found = await api.get(path)
    assert (found["overdraft_limit"], found["per_transfer_min"], found["per_transfer_max"]) == (80, None, 50)
    if f"{datetime.now(UTC).date()}" == today:
        resets = reset_of(today)
        assert found["per_day"] == {"limit": 40, "used": 15, "resets_at": resets["day"]}
        assert found["per_month"] == {"limit": 90, "used": 15, "resets_at": resets["month"]}
    asked = {"per_transfer_min": None, "per_transfer_max": 50, "per_day": 40, "per_month": 90}
    changes = [{name: value for name, value in each.items() if name != "recorded_at"} for each in found["history"]]
    assert changes == [
        {"position": 5, "overdraft_limit": 80},
        {"position": 3, "limits": asked},
        {"position": 1, "overdraft_limit": 70},
    ]
    first = await api.get(path, {"limit": 2})
    rest = await api.get(path, {"limit": 2, "cursor": first["next"]})
    assert (first["history"] + rest["history"], rest["next"]) == (found["history"], None)
    earlier = Spent("2020-02-29", 40, 90)
    await api.record([book.limit_spending(account.account_id, per_day=40, spent=earlier)])
    later = await api.get(path)
    assert (later["per_day"]["used"], later["per_month"], later["per_transfer_max"]) == (0, None, None)
    assert (await api.ask("/v1/accounts/0198c5a0-0000-7000-8000-00000000dead/limits")).status_code == 404


@pytest.mark.services
async def test_what_postings_spend_is_used_too(api: Questions) -> None:
    book = Book()
    payer, payee = (book.open_account(book.new_id(), overdraft_limit=70) for _ in range(2))
    limited = book.limit_spending(payer.account_id, per_day=40)
    today = f"{datetime.now(UTC).date()}"
    moved = book.move((payer.account_id, -15), (payee.account_id, 15))
    first, second = moved.legs
    legs = (msgspec.structs.replace(first, spent=Spent(today, 15)), second)
    await api.record([payer, payee, limited, msgspec.structs.replace(moved, legs=legs)])
    found = await api.get(f"/v1/accounts/{payer.account_id}/limits")
    assert found["per_day"]["used"] == 15 or f"{datetime.now(UTC).date()}" != today


def test_what_was_used_is_that_of_the_day_and_the_month_of_now() -> None:
    limits = {"per_transfer_min": None, "per_transfer_max": None, "per_day": 9, "per_month": 99}

    def used(spent: str | None, now: str) -> tuple[int, int]:
        found = counted(limits, spent, now)
        return found["per_day"]["used"], found["per_month"]["used"]

    assert used("2026-02-28 5 50", "2026-02-28T23:59:59.999999Z") == (5, 50)
    assert used("2026-02-27 5 50", "2026-02-28T00:00:00.000000Z") == (0, 50)
    assert used("2026-02-28 5 50", "2026-03-01T00:00:00.000000Z") == (0, 0)
    assert used(None, "2026-03-01T00:00:00.000000Z") == (0, 0)


def test_a_month_resets_on_the_first_of_the_next() -> None:
    assert reset_of("2026-12-31") == {"day": "2027-01-01T00:00:00.000000Z", "month": "2027-01-01T00:00:00.000000Z"}
    assert reset_of("2026-01-31")["month"] == "2026-02-01T00:00:00.000000Z"
    day = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(800):
        moment = day + timedelta(days=number)
        resets = reset_of(f"{moment.date()}")
        assert resets["day"][:10] == f"{(moment + timedelta(days=1)).date()}"
        assert resets["month"][8:10] == "01"
        assert f"{moment.date()}" < resets["month"] <= f"{(moment + timedelta(days=31)).date()}Z"
