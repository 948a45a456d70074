"""Every list is read along an index from where its page begins, and nothing is sorted in memory."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from query_api.reading import AsOf, CallerView, Freshness, Reader
from query_api.resources.accounts import ACCOUNT_ORDERS, AccountParameters, find_accounts
from query_api.resources.holds import HOLD_ORDERS, HoldParameters, find_holds
from query_api.resources.transfers import TRANSFER_ORDERS, TransferParameters, find_transfers
from query_api.resources.users import USER_ORDERS, UserParameters, find_users
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

    async def documents(
        self,
        model: ReadModel,
        pipeline: Sequence[dict[str, Any]],
        *,
        alone: bool = False,  # noqa: ARG002
    ) -> AsOf[list[dict[str, Any]]]:
        mongo = self.reader.mongo
        collection_name = Generation(model, self.ledger_id, 1).collection(mongo).name
        command = {"aggregate": collection_name, "pipeline": list(pipeline), "cursor": {}}
        explained = await mongo.command("explain", command, verbosity="queryPlanner")
        self.plan = json.dumps(explained["queryPlanner"]["winningPlan"])
        return AsOf(0, [])


List = tuple[Callable[..., Awaitable[Any]], Any]
"""The query and its parameters."""


def lists() -> list[List]:
    users = [{"sort": sort} for sort in USER_ORDERS]
    users += [{"sort": sort, "status": "active"} for sort in ("created_at", "-created_at")]
    accounts = [{"sort": sort, "currency": "EUR"} for sort in ACCOUNT_ORDERS if sort.endswith("posted")]
    accounts += [{"sort": sort} for sort in ACCOUNT_ORDERS if sort.endswith("opened_at")]
    transfers = [{"sort": sort} for sort in TRANSFER_ORDERS]
    transfers += [{"sort": sort, "account_id": SOMEBODY} for sort in ("recorded_at", "-recorded_at")]
    transfers += [{"sort": "-amount", "currency": "EUR", "amount[lte]": "700"}]
    transfers += [{"recorded_at[gte]": "2026-11-21T09:30:00Z", "recorded_at[lt]": "2026-11-22T09:30:00Z"}]
    holds = [{"sort": sort} for sort in HOLD_ORDERS] + [{"sort": sort, "account_id": SOMEBODY} for sort in HOLD_ORDERS]
    holds += [{"sort": "placed_at", "status": status} for status in ("active", "captured", "expired")]
    return [
        *((find_holds, HoldParameters.model_validate(p)) for p in holds),
        *((find_users, UserParameters.model_validate(p)) for p in users),
        *((find_accounts, AccountParameters.model_validate(p)) for p in accounts),
        *((find_transfers, TransferParameters.model_validate(p)) for p in transfers),
    ]


def key_of(sort: str) -> list[Any]:
    """A cursor's key, with values of the types that the list is ordered by."""
    name = sort.removeprefix("-")
    return [700 if name in {"posted", "amount"} else "2026", 7 if name in {"recorded_at", "position"} else SOMEBODY]


async def test_every_list_is_read_along_an_index(settings: Settings) -> None:
    async with query_api(settings) as api:
        async with projecting(api, settings):
            await api.record(Book().history(500, accounts=30))
            for path in ("/v1/users", "/v1/accounts", "/v1/transfers", "/v1/holds", "/v1/stats"):
                await api.get(path)
        view = ExplainingView(Reader(api.stores.engine, api.stores.mongo, api.stores.redis, settings), "main", Freshness())
        for ask, parameters in lists():
            for key in (None, key_of(parameters.sort)):
                await ask(view, parameters, key)
                stages = set(re.findall(r'"stage": "(\w+)"', view.plan))
                assert "IXSCAN" in stages, (parameters.filters(), view.plan)
                assert not stages & {"COLLSCAN", "SORT"}, (parameters.filters(), view.plan)
