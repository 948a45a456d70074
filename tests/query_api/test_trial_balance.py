"""The trial balance: the outside world is counted on its own, so a lost entry shows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.read_models.generations import Generation
from shared.read_models.shapes import STATISTICS
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def test_the_trial_balance_is_that_of_the_log_until_an_entry_is_lost(api: Questions) -> None:
    book = Book(4)
    events = list(book.history(300))
    await api.record(events)
    postings = [posting for event in events for posting in event.postings()]
    answer = await api.get("/v1/trial-balance")
    assert [line["currency"] for line in answer["currencies"]] == ["EUR", "JPY"]
    assert answer["position"] == api.position
    for line in answer["currencies"]:
        own = [posting for posting in postings if posting.currency == line["currency"]]
        assert line["accounts"] == str(sum(posting.amount for posting in own if posting.account_id))
        assert line["outside"] == str(sum(posting.amount for posting in own if not posting.account_id))
        assert line["sum"] == "0"
    [euros] = (await api.get("/v1/trial-balance", {"currency": "EUR"}))["currencies"]
    assert euros == answer["currencies"][0]
    assert (await api.ask("/v1/trial-balance", {"currency": "XYZ"})).status_code == 422
    [unused] = (await api.get("/v1/trial-balance", {"currency": "USD"}))["currencies"]
    assert unused == {"currency": "USD", "accounts": "0", "outside": "0", "sum": "0"}
    redis: Any = api.stores.redis  # its `execute_command` has no types
    await redis.execute_command("HINCRBY", Generation(STATISTICS, "main", 1).key("sums"), "EUR", "-7")
    assert [line["sum"] for line in (await api.get("/v1/trial-balance"))["currencies"]] == ["-7", "0"]
    [euros, _] = (await api.get("/v1/stats"))["currencies"]
    assert int(euros["posted"]) + int(euros["outside"]) == -7
