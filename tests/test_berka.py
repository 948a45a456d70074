"""Real bank transactions, loaded through the command API by the importer; every figure is checked against the file."""

from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from cli.berka import Bank, berka_id, load, overdraft_limit, plan, read_bank
from shared.connections import open_postgres
from tests.keys import OPERATOR, bearer
from tests.running import Stack

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "berka"
ROWS = 3_000

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"the transactions are not part of the project: {FOLDER} is absent")


@pytest.fixture(scope="module")
def bank() -> Bank:
    return read_bank(FOLDER)


def by_decimal_arithmetic(count: int) -> dict[str, Decimal]:
    """Account id → balance, straight from the file, without the importer's reading of it."""
    balances: dict[str, Decimal] = defaultdict(Decimal)
    for line in (FOLDER / "trans.asc").read_text("latin-1").splitlines()[1 : count + 1]:
        _, account, _, kind, _, amount, *_ = line.replace('"', "").split(";")
        balances[berka_id("account", int(account))] += Decimal(amount) if kind == "PRIJEM" else -Decimal(amount)
    return balances


def test_the_importer_reads_the_file_to_the_last_heller(bank: Bank) -> None:
    assert sum(row.amount for row in bank.rows) == 2_018_882_910
    assert len(bank.rows) == 25_170


def test_the_limits_let_every_row_through_and_are_no_wider_than_that(bank: Bank) -> None:
    limits = {account: overdraft_limit(rows) for account, rows in bank.by_account().items()}
    assert sum(limit > 0 for limit in limits.values()) == 21
    assert max(limits.values()) == 883_860


@pytest.mark.services
async def test_the_first_rows_stand_in_the_log_and_in_both_stores_exactly(bank: Bank, stack: Stack) -> None:
    stages = plan(bank.first(ROWS))
    expected = by_decimal_arithmetic(ROWS)
    new = await load(stack.command.url, OPERATOR, stages, 32, lambda: None)
    assert new == sum(len(chain) for stage in stages for chain in stage)
    again = await load(stack.command.url, OPERATOR, stages, 32, lambda: None)
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
        assert crowns["outside"] == -crowns["posted"]

        accounts = await listed(client, "/v1/accounts", wait)
        assert {account["id"]: Decimal(account["balance"]["posted"]).scaleb(-2) for account in accounts} == expected
        for account_id, balance in expected.items():
            redis = (await client.get(f"/v1/accounts/{account_id}/balance", headers=wait)).json()
            assert Decimal(redis["posted"]).scaleb(-2) == balance
            assert redis["available"] >= 0
            newest = await client.get(f"/v1/accounts/{account_id}/entries", params={"limit": 1}, headers=wait)
            assert newest.json()["items"][0]["balance"] == redis["posted"]


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
