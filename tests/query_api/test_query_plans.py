"""Every list is read along an index from where its page begins, and nothing is sorted in memory."""

import itertools
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from query_api.parameters import ServedParameters
from query_api.reading import AsOf, CallerView, Freshness, Reader
from query_api.resources.accounts import ACCOUNT_ORDERS, AccountParameters, find_accounts
from query_api.resources.entries import (
    ENTRY_ORDERS,
    ORDERS_BY_TRANSFER,
    EntryParameters,
    find_entries,
)
from query_api.resources.holds import HOLD_ORDERS, HoldParameters, find_holds
from query_api.resources.schedules import SCHEDULE_ORDERS, ScheduleParameters, find_schedules
from query_api.resources.transfers import TRANSFER_ORDERS, TransferParameters, find_transfers
from query_api.resources.users import USER_ORDERS, UserParameters, find_users
from shared.log.account_events import AccountOpened
from shared.read_models.generations import Generation
from shared.read_models.shapes import ReadModel
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.questions import projecting, query_api

pytestmark = pytest.mark.services

SOMEBODY = "0198c5a0-0000-7000-8000-00000000ada0"


class ExplainingView(CallerView):
    """Explains how MongoDB would find what is asked, instead of asking for it."""

    plan: str = ""
    considered: str = ""
    """All plans that MongoDB compared."""

    async def documents(
        self,
        model: ReadModel,
        pipeline: Sequence[dict[str, Any]],
        *,
        alone: bool = False,  # noqa: ARG002
    ) -> AsOf[list[dict[str, Any]]]:
        mongo = self.reader.mongo
        generation = Generation(model, self.ledger_id, 1).documents()
        command = {"aggregate": generation.collection_name, "pipeline": generation.stages(pipeline), "cursor": {}}
        explained = await mongo.command("explain", command, verbosity="queryPlanner")
        # If MongoDB groups what it has found, it tells of the search as the first stage.
        planner = explained.get("queryPlanner") or explained["stages"][0]["$cursor"]["queryPlanner"]
        self.plan += json.dumps(planner["winningPlan"])
        self.considered += json.dumps(planner)
        return AsOf(0, [])


BY_TEXT = {"reference": "salary"}
BY_PAIR = {"metadata[k-y_1]": "v"}
FOUND = [
    *(BY_TEXT, BY_PAIR, {"kind": "deposit"}, {"counterparty": SOMEBODY}, {"reference[prefix]": "sal"}),
    {"recorded_at[gte]": "2026-11-21T09:30:00Z"},
]
PAIRS = [
    {**found, **more}
    for found in (BY_TEXT, BY_PAIR, {"kind": "deposit"}, {"counterparty": SOMEBODY})
    for more in ({"account_id": SOMEBODY}, {"recorded_at[lt]": "2026-11-21T09:30:00Z"}, {"kind": "transfer"})
]

List = tuple[Callable[..., Awaitable[Any]], Any]
"""The query and its parameters."""


def lists() -> list[List]:
    entries = [{"sort": sort} for sort in (*ENTRY_ORDERS, *ORDERS_BY_TRANSFER)]
    entries += _turned(EntryParameters, [{n: v for n, v in found.items() if n != "account_id"} for found in FOUND + PAIRS])
    entries += [{"amount[gte]": "-5", "amount[lt]": "9"}, {"occurred_at[lt]": "2026-11-21T09:30:00Z"}]
    users = [{"sort": sort} for sort in USER_ORDERS]
    users += [{"sort": sort, "status": "active"} for sort in USER_ORDERS]
    users += [
        {"sort": sort} | found for sort in ("created_at", "-created_at") for found in ({"email": "ada@example.com"}, BY_PAIR)
    ]
    accounts = [{"sort": sort, "currency": "EUR"} for sort in ACCOUNT_ORDERS if sort.endswith("posted")]
    accounts += [
        {"sort": sort} | found
        for sort in ("opened_at", "-opened_at")
        for found in (
            {},
            {"owner_id": SOMEBODY},
            {"status": "frozen"},
            {"currency": "EUR"},
            {"owner_id": SOMEBODY, "currency": "EUR"},
            BY_PAIR,
        )
    ]
    transfers = [{"sort": sort} for sort in TRANSFER_ORDERS]
    transfers += [{"sort": sort, "account_id": SOMEBODY} for sort in ("recorded_at", "-recorded_at")]
    transfers += [{"sort": "-amount", "currency": "EUR", "amount[lte]": "700"}]
    transfers += _turned(TransferParameters, FOUND + PAIRS)
    transfers += [{"recorded_at[gte]": "2026-11-21T09:30:00Z", "recorded_at[lt]": "2026-11-22T09:30:00Z"}]
    holds = [{"sort": sort} for sort in HOLD_ORDERS]
    holds += [{"sort": sort, "account_id": SOMEBODY} for sort in ("placed_at", "-placed_at")]
    holds += [{"sort": "placed_at", "status": status} for status in ("active", "captured", "expired")]
    holds += _turned(
        HoldParameters,
        [
            *(
                {**found, **more}
                for found in (BY_TEXT, BY_PAIR, {"counterparty": SOMEBODY})
                for more in ({}, {"account_id": SOMEBODY})
            ),
            {"reference[prefix]": "rent"},
            {"metadata[k-y_1]": "v", "status": "active"},
            {"placed_at[gte]": "2026-11-21T09:30:00Z", "account_id": SOMEBODY},
        ],
    )
    ends: tuple[dict[str, str], ...] = (
        {},
        {"account_id": SOMEBODY},
        {"counterparty": SOMEBODY},
        {"account_id": SOMEBODY, "counterparty": SOMEBODY},
    )
    schedules = [
        {"sort": sort} | found | status for sort in SCHEDULE_ORDERS for found in ends for status in ({}, {"status": "active"})
    ]
    return [
        *((find_schedules, ScheduleParameters.model_validate(p)) for p in schedules),
        *((find_holds, HoldParameters.model_validate(p)) for p in holds),
        *((find_users, UserParameters.model_validate(p)) for p in users),
        *((find_accounts, AccountParameters.model_validate(p)) for p in accounts),
        *((find_own_entries, EntryParameters.model_validate(p)) for p in entries),
        *((find_transfers, TransferParameters.model_validate(p)) for p in transfers),
    ]


async def find_own_entries(view: CallerView, parameters: EntryParameters, key: list[Any] | None) -> None:
    await find_entries(view, SOMEBODY, parameters, key)


def _turned(model: type[ServedParameters], found: list[dict[str, str]]) -> list[dict[str, str]]:
    """Asks for each of these filters in the order that the list chooses for it, and in the other direction."""
    chosen = [(each, model.model_validate(each).model_dump()["sort"]) for each in found]
    return [each | {"sort": sort} for each, order in chosen for sort in (order.removeprefix("-"), f"-{order.removeprefix('-')}")]


def index_of(filters: dict[str, Any]) -> set[str]:
    """Returns a field of the index that serves each of these filters."""
    served = {
        "kind": "found_by",
        "counterparty": "(?:found_by|to_account_id)",
        "reference": "found_by",
        "metadata": "found_by",
        "email": "found_by",
    }
    served |= {"reference_prefix": "reference", "status": "status", "owner_id": "owner_id", "currency": "currency"}
    return {served[name] for name in filters if name in served}


def key_of(sort: str, *, is_entry: bool) -> list[Any]:
    """A cursor's key, with values of the types that the list is ordered by."""
    name = sort.removeprefix("-")
    if is_entry and name in {"recorded_at", "position"}:
        return [f"{SOMEBODY}/{7:016d}"]
    return [700 if name in {"posted", "amount"} else "2026", 7 if name in {"recorded_at", "position"} else SOMEBODY]


async def test_every_list_is_read_along_an_index(settings: Settings) -> None:
    async with query_api(settings) as api:
        async with projecting(api, settings):
            book = Book()
            history = list(book.history(500, accounts=30))
            # MongoDB sorts a few documents rather than read an index in order. So there are many holds, half of them over.
            account_id, ends = next(iter(book.accounts)), (None, "2026-01-02T00:00:00.000000Z")
            payer = next(event for event in history if isinstance(event, AccountOpened))
            plans = [book.plan(payer, payee, 1) for payee in itertools.islice(itertools.cycle(book.accounts), 400)]
            holds = [book.place_hold(account_id, 1, expires_at=ends[n % 2]) for n in range(400)]
            await api.record([*history, *holds, *plans])
            for path in ("/v1/users", "/v1/accounts", "/v1/transfers", "/v1/holds", "/v1/schedules", "/v1/stats"):
                await api.get(path)
        view = ExplainingView(Reader(api.stores.engine, api.stores.mongo, api.stores.redis, settings), "main", Freshness())
        for ask, parameters in lists():
            is_entry = isinstance(parameters, EntryParameters) and not parameters.asks_for_transfers
            for key in (None, key_of(parameters.sort, is_entry=is_entry)):
                view.plan = view.considered = ""
                await ask(view, parameters, key)
                stages = set(re.findall(r'"stage": "(\w+)"', view.plan))
                assert "IXSCAN" in stages, (parameters.filters(), view.plan)
                assert not stages & {"COLLSCAN", "SORT"}, (parameters.filters(), view.plan)
                for field in index_of(parameters.filters()):
                    assert re.search(f'"indexName": "[^"]*{field}_1', view.considered), (parameters.filters(), view.considered)
