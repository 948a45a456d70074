"""Imports real bank transactions through the command API, and checks every figure against the file."""

import asyncio
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from importers.berka import BERKA
from importers.book import Book
from importers.command_client import post_commands
from importers.commands import imported_id, stages_of
from importers.csv_folder import read_folder
from importers.faults import Faults
from shared.stores.postgres import open_postgres
from tests.harness.keys import OPERATOR, bearer
from tests.harness.running import Stack

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "berka"
ROWS = 2_000

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"the transactions are not part of the project: {FOLDER} is absent")


@pytest.fixture(scope="module")
def bank() -> Book:
    """All files, in which no fault is found. So the limit of every account lets every row through."""
    faults = Faults()
    book = read_folder(FOLDER, BERKA, faults, lambda _: None)
    faults.require_none()
    return book


def by_decimal_arithmetic(count: int) -> dict[str, Decimal]:
    """Account id → balance, computed from the file without the importer."""
    balances: dict[str, Decimal] = defaultdict(Decimal)
    for line in (FOLDER / "trans.asc").read_text("latin-1").splitlines()[1 : count + 1]:
        _, account, _, kind, _, amount, *_ = line.replace('"', "").split(";")
        balances[imported_id("berka", "account", account)] += Decimal(amount) if kind == "PRIJEM" else -Decimal(amount)
    return balances


@pytest.mark.long
def test_the_importer_reads_the_file_to_the_last_heller(bank: Book) -> None:
    assert bank.posted() == {"CZK": 2_018_882_910}
    assert (len(bank.users), len(bank.accounts), len(bank.transactions)) == (5_369, 4_500, 25_170)


@pytest.mark.long
def test_a_part_of_the_file_opens_accounts_as_all_of_it_does(bank: Book) -> None:
    """The limit of an account does not depend on the rows that are read, so next month's file can be added."""
    part = {command.idempotency_key for stage in stages_of(bank.first(ROWS)) for chain in stage for command in chain}
    assert part < {command.idempotency_key for stage in stages_of(bank) for chain in stage for command in chain}


@pytest.mark.slow
@pytest.mark.services
async def test_the_first_rows_stand_in_the_log_and_in_both_stores_exactly(bank: Book, stack: Stack) -> None:
    stages = stages_of(bank.first(ROWS))
    expected = by_decimal_arithmetic(ROWS)
    new = await post_commands(stack.command.url, OPERATOR, stages, 32, lambda _: None)
    assert new == sum(len(chain) for stage in stages for chain in stage)
    again = await post_commands(stack.command.url, OPERATOR, stages, 32, lambda _: None)
    assert again == 0, "a second run changes nothing"

    async with open_postgres(stack.settings, "daybook_query") as engine, engine.connect() as connection:
        position = await connection.scalar(text("SELECT position FROM log_heads"))
        assert position == new
        rows = await connection.execute(
            text("""
                SELECT data->>'account_id',
                       sum((data->>'amount')::numeric * CASE type WHEN 'FundsDeposited' THEN 1 ELSE -1 END) / 100
                FROM events WHERE type IN ('FundsDeposited', 'FundsWithdrawn') GROUP BY 1
            """)
        )
        assert {row[0]: row[1] for row in rows} == expected

    async with httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(), timeout=60) as client:
        wait = {"Daybook-Min-Position": str(position), "Prefer": "wait=10, handling=strict"}
        statistics = await client.get("/v1/stats", headers=wait)
        [crowns] = statistics.json()["currencies"]
        assert Decimal(crowns["posted"]).scaleb(-2) == sum(expected.values())
        assert crowns["outside"] == f"-{crowns['posted']}"

        accounts = await listed(client, "/v1/accounts", wait)
        assert {account["id"]: Decimal(account["balance"]["posted"]).scaleb(-2) for account in accounts} == expected

        async def check(account_id: str, balance: Decimal) -> None:
            async with turns:
                redis = (await client.get(f"/v1/accounts/{account_id}/balance", headers=wait)).json()
                newest = await client.get(f"/v1/accounts/{account_id}/entries", params={"limit": 1}, headers=wait)
            assert Decimal(redis["posted"]).scaleb(-2) == balance
            assert redis["available"] >= 0
            assert newest.json()["items"][0]["balance"] == redis["posted"]

        turns = asyncio.Semaphore(16)
        await asyncio.gather(*(check(account_id, balance) for account_id, balance in expected.items()))


async def listed(client: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    items: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {"limit": 100}
    while True:
        page = (await client.get(path, params=parameters, headers=headers)).json()
        items += page["items"]
        if page["next"] is None:
            return items
        parameters["cursor"] = page["next"]
