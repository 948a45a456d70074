"""Loads the PKDD'99 «Berka» bank transactions through the command API, as any client would.

Clients become users, accounts become accounts in CZK, money in becomes deposits and money out withdrawals, in the order of the
file for each account and with its dates. Ids and idempotency keys come from the file's own numbers, so that a second run, or
one after a break, changes nothing that is there.
"""

import asyncio
import csv
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import httpx2
import msgspec
import typer
from rich.console import Console

from cli.progress import Progress
from dev.seed import bearer
from shared.errors import DaybookError
from shared.money import to_minor_units

CURRENCY: Final = "CZK"
ATTEMPTS_MAX: Final = 20
NAMESPACE: Final = uuid.UUID("0b5f7a3e-9d1c-5e43-8a2f-6265726b6131")

Post = tuple[str, str, dict[str, Any]]
"""Path, idempotency key, body."""


class Row(msgspec.Struct, frozen=True):
    """One line of `trans.asc`. `amount` in hellers, negative where money went out."""

    number: int
    account: int
    date: str
    amount: int


class Bank(msgspec.Struct, frozen=True):
    """What the folder holds: client numbers, account number → owner's client number, rows in the order of the file."""

    clients: list[int]
    owners: dict[int, int]
    rows: list[Row]

    def first(self, count: int) -> "Bank":
        """The first rows, with the accounts and owners that they need."""
        rows = self.rows[:count]
        owners = {account: self.owners[account] for account in dict.fromkeys(row.account for row in rows)}
        return Bank(sorted(set(owners.values())), owners, rows)

    def by_account(self) -> dict[int, list[Row]]:
        rows: dict[int, list[Row]] = {account: [] for account in self.owners}
        for row in self.rows:
            rows[row.account].append(row)
        return rows


class ImportFailed(DaybookError):
    """The import could not go on."""

    code = "import-failed"


def read_bank(folder: Path) -> Bank:
    return Bank(
        clients=[int(line["client_id"]) for line in _lines(folder / "client.asc")],
        owners={
            int(line["account_id"]): int(line["client_id"]) for line in _lines(folder / "disp.asc") if line["type"] == "OWNER"
        },
        rows=[_row(line) for line in _lines(folder / "trans.asc")],
    )


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="latin-1", newline="") as file:
        yield from csv.DictReader(file, delimiter=";")


def _row(line: dict[str, str]) -> Row:
    amount = to_minor_units(Decimal(line["amount"]), CURRENCY)
    year, month, day = re.findall("..", line["date"])
    return Row(
        number=int(line["trans_id"]),
        account=int(line["account_id"]),
        date=f"19{year}-{month}-{day}T00:00:00Z",
        amount=amount if line["type"] == "PRIJEM" else -amount,
    )


def overdraft_limit(rows: Iterable[Row]) -> int:
    """The least limit that lets the rows through in their order."""
    balance = lowest = 0
    for row in rows:
        balance += row.amount
        lowest = min(lowest, balance)
    return -lowest


def berka_id(kind: str, number: int) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{kind}-{number}"))


# ── as commands ──────────────────────────────────────────────────────────────────────────────────────────────────────


def create_user(client: int) -> Post:
    body = {"id": berka_id("client", client), "name": f"Client {client}", "email": f"client-{client}@berka.example"}
    return "/v1/users", f"berka-client-{client}", body


def open_account(account: int, owner: int, rows: list[Row]) -> Post:
    body = {
        "id": berka_id("account", account),
        "owner_id": berka_id("client", owner),
        "currency": CURRENCY,
        "overdraft_limit": overdraft_limit(rows),
    }
    return "/v1/accounts", f"berka-account-{account}", body


def move_money(row: Row) -> Post:
    body = {
        "id": berka_id("trans", row.number),
        "account_id": berka_id("account", row.account),
        "amount": abs(row.amount),
        "currency": CURRENCY,
        "occurred_at": row.date,
        "reference": f"berka {row.number}",
    }
    return "/v1/deposits" if row.amount > 0 else "/v1/withdrawals", f"berka-trans-{row.number}", body


def plan(bank: Bank) -> list[list[list[Post]]]:
    """Three stages; within a stage, lists run side by side and each list in its order."""
    rows = bank.by_account()
    return [
        [[create_user(client)] for client in bank.clients],
        [[open_account(account, owner, rows[account])] for account, owner in bank.owners.items()],
        [[move_money(row) for row in account_rows] for account_rows in rows.values()],
    ]


async def load(
    command_url: str, api_key: str, stages: list[list[list[Post]]], concurrency: int, advance: Callable[[], None]
) -> int:
    """Posts everything; how many commands were new, and not answered before."""
    limits = httpx2.Limits(max_connections=concurrency)
    new = 0
    async with httpx2.AsyncClient(base_url=command_url, headers=bearer(api_key), limits=limits, timeout=30) as client:
        for stage in stages:
            waiting = iter(stage)

            async def work(chains: Iterator[list[Post]] = waiting) -> int:
                return sum([await _post(client, post, advance) for chain in chains for post in chain])

            new += sum(await _together(work, concurrency))
    return new


async def _together(work: Callable[[], Awaitable[int]], concurrency: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(work)) for _ in range(concurrency)]
    return [task.result() for task in tasks]


async def _awaited(work: Callable[[], Awaitable[int]]) -> int:
    return await work()


async def _post(client: httpx2.AsyncClient, post: Post, advance: Callable[[], None]) -> bool:
    """Whether it was new. Waits and tries again while the API is busy or away: the key makes that safe."""
    path, key, body = post
    for attempt in range(ATTEMPTS_MAX):
        try:
            response = await client.post(path, json=body, headers={"Idempotency-Key": key})
        except httpx2.TransportError:
            response = None
        if response is not None and response.status_code < 400:  # noqa: PLR2004
            advance()
            return "Idempotency-Replayed" not in response.headers
        if response is not None and response.status_code != 503:  # noqa: PLR2004
            msg = f"{key}: {response.status_code} {response.text}"
            raise ImportFailed(msg)
        await asyncio.sleep(min(0.1 * 2**attempt, 2))
    msg = f"{key}: the command API at {client.base_url} does not answer; start it and run the import again"
    raise ImportFailed(msg)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def berka(
    folder: Annotated[Path, typer.Argument(help="The folder with trans.asc, disp.asc and client.asc.", exists=True)],
    rows: Annotated[int | None, typer.Option(help="Only the first rows, with their accounts and owners.", min=1)] = None,
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.", min=1, max=512)] = 64,
    command_url: Annotated[str, typer.Option(envvar="DAYBOOK_COMMAND_URL", help="The command API.")] = "http://127.0.0.1:8000",
) -> None:
    """Load the PKDD'99 «Berka» bank transactions, with the API key in DAYBOOK_API_KEY. A second run changes nothing.

    Example: daybook import berka ../shared/data/berka --rows 3000
    """
    bank = read_bank(folder)
    if rows:
        bank = bank.first(rows)
    stages = plan(bank)
    total = sum(len(chain) for stage in stages for chain in stage)
    try:
        with Progress("import berka", total, "commands") as progress:
            new = asyncio.run(load(command_url, os.environ.get("DAYBOOK_API_KEY", ""), stages, concurrency, progress.advance))
    except* ImportFailed as failures:
        Console(stderr=True).print(f"daybook: {failures.exceptions[0]}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    balance = sum(row.amount for row in bank.rows)
    typer.echo(
        f"{len(bank.clients)} users, {len(bank.owners)} accounts, {len(bank.rows)} rows: "
        f"{new} commands were new, {total - new} were there before; "
        f"the file's balances sum to {Decimal(balance).scaleb(-2):,} CZK"
    )
