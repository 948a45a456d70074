"""Sums over accounts are exact at any size, in every store, every answer and every comparison."""

from collections.abc import Iterator

import pytest

from shared.log.events import Event
from shared.money import AMOUNT_MAX
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.projecting import open_ledger
from tests.harness.questions import query_api
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services

ACCOUNTS = 2_060
"""The smallest number of accounts with the largest balance whose sum needs 65 bits with its sign."""


def largest_balances(book: Book) -> Iterator[Event]:
    owner = book.create_user()
    yield owner
    for _ in range(ACCOUNTS):
        opened = book.open_account(owner.user_id)
        yield opened
        yield book.deposit(opened.account_id, AMOUNT_MAX, occurred_at="2026-01-01T00:00:00.000000Z")


@pytest.mark.slow
async def test_a_sum_of_65_bits_is_exact_in_statistics_replay_and_verify(settings: Settings) -> None:
    """The sum of all balances and of the amounts of one day pass 64 bits. No answer has a number that JSON parsers round."""
    total = str(ACCOUNTS * AMOUNT_MAX)
    async with open_ledger(settings) as ledger, query_api(settings) as api:
        api.position = await ledger.append(largest_balances(Book()))
        await ledger.build()
        live = await ledger.digests()
        assert await ledger.rebuild("statistics", "balances") == {name: live[name] for name in ("statistics", "balances")}
        answer = await api.get("/v1/stats", {"currency": "EUR", "top": 1})
        [euros] = answer["currencies"]
        assert (euros["posted"], euros["outside"]) == (total, f"-{total}")
        assert answer["days"] == [{"day": "2026-01-01", "transfers": ACCOUNTS, "amounts": {"EUR": total}}]
        assert answer["ranking"][0]["posted"] == AMOUNT_MAX
        code, out, err = await daybook(settings, "verify").ended()
        assert code == 0, out + err
