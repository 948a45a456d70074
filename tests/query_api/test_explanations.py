"""Explanations of balances: facts that are added up one after another, page by page."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.cursors import CursorKey
from query_api.resources.explanations import explain
from shared.read_models.shapes import Entry, entry_id
from shared.settings import Settings
from tests.harness.clients import served
from tests.harness.documents import documents_of
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

AMOUNTS = st.lists(st.integers(-(2**53), 2**53).filter(bool), max_size=12)


def entries_of(amounts: list[int]) -> list[Entry]:
    return [
        Entry(
            account_id="a",
            transfer_id=f"t{place}",
            kind="deposit" if amount > 0 else "withdrawal",
            amount=amount,
            balance=sum(amounts[: place + 1]),
            currency="EUR",
            counterparty_account_id=None,
            occurred_at="",
            recorded_at="",
            reference=None,
            position=place + 2,
        )
        for place, amount in enumerate(amounts)
    ]


def pages_of(entries: list[Entry], limit: int, posted: int) -> list[dict[str, Any]]:
    """Explains page by page, as the query does with the entries after the position in the key."""
    pages: list[dict[str, Any]] = []
    key: CursorKey | None = None
    while not pages or key:
        after = key[0] if key else 0
        page, key = explain([each for each in entries if each.position > after][: limit + 1], limit, key, posted)
        pages.append(page)
    return pages


@given(AMOUNTS, st.integers(1, 5))
def test_the_pages_of_an_explanation_show_every_fact_once_and_add_up(amounts: list[int], limit: int) -> None:
    pages = pages_of(entries_of(amounts), limit, sum(amounts))
    facts = [fact for page in pages for fact in page["facts"]]
    assert [fact["amount"] for fact in facts] == amounts
    assert [fact["balance"] for fact in facts] == [sum(amounts[: place + 1]) for place in range(len(amounts))]
    assert all(page["adds_up"] for page in pages)


@given(AMOUNTS.filter(bool), st.integers(1, 5), st.data())
def test_a_fact_that_is_missing_makes_the_last_page_say_that_nothing_adds_up(
    amounts: list[int], limit: int, data: st.DataObject
) -> None:
    entries = entries_of(amounts)
    del entries[data.draw(st.integers(0, len(amounts) - 1))]
    assert not pages_of(entries, limit, sum(amounts))[-1]["adds_up"]


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def explained(api: Questions, account_id: str, limit: int) -> list[dict[str, Any]]:
    pages = []
    parameters: dict[str, Any] = {"limit": limit}
    while True:
        pages.append(await api.get(f"/v1/accounts/{account_id}/explain", parameters))
        if pages[-1]["next"] is None:
            return pages
        parameters["cursor"] = pages[-1]["next"]


@pytest.mark.services
async def test_the_explanation_of_every_account_adds_up_to_its_balance_until_an_entry_is_changed(api: Questions) -> None:
    """Captures of holds are facts too. An entry that somebody deletes or changes in MongoDB shows in `adds_up`."""
    book = Book()
    await api.record(book.history(120))
    held = book.open_account(book.new_id())
    hold = book.place_hold(held.account_id, 60)
    await api.record([held, book.deposit(held.account_id, 100), hold, book.capture(hold.hold_id, 20)])
    await api.record([book.deposit(held.account_id, 3)])
    for account_id in book.accounts:
        pages = await explained(api, account_id, limit=7)
        posted = (await api.get(f"/v1/accounts/{account_id}/balance"))["posted"]
        assert pages[-1]["balance"] == posted == sum(fact["amount"] for page in pages for fact in page["facts"])
        assert all(page["adds_up"] for page in pages)
    [page] = await explained(api, held.account_id, limit=100)
    facts = [(fact["type"], fact["amount"], fact["balance"]) for fact in page["facts"]]
    assert facts == [("deposit", 100, 100), ("withdrawal", -20, 80), ("deposit", 3, 83)]
    first = entry_id(held.account_id, page["facts"][0]["position"])
    await documents_of(api.stores.mongo, "entries").delete(first)
    assert not (await explained(api, held.account_id, limit=100))[0]["adds_up"]
    path = f"/v1/accounts/{held.account_id}/explain"
    answer = await served(partial(api.ask, path, {"cursor": "AAAA"}))
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")
