"""Reports: pages with totals, filters and sums from the tables of SQL reporting, and files of all rows."""

import csv
import io
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import pytest_asyncio
from sqlalchemy import event

from query_api.parquet_files import ROWS_IN_GROUP, parquet_file
from query_api.reading import CallerView, Freshness, Reader
from query_api.report_queries import PageNumber, ReportQueries
from query_api.resources.reports import PARQUET
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.projecting import open_ledger
from tests.harness.questions import Questions, query_api
from tests.harness.reporting import KINDS, migrate_reporting, new_database
from tests.harness.running import Servers
from tests.query_api.test_query_openapi import conforms


@pytest_asyncio.fixture(params=KINDS)
async def reporting(request: pytest.FixtureRequest, settings: Settings, servers: Servers, tmp_path: Path) -> Settings:
    """Settings with an empty, migrated reporting database of each kind."""
    mariadb = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    url = await new_database(request.param, servers, mariadb, tmp_path)
    await migrate_reporting(url)
    return settings.model_copy(update={"reporting_url": url})


class Scene:
    """A ledger with three users: Ada has 2 accounts in euros and one in dollars, Bob one, and Eve none."""

    def __init__(self) -> None:
        book = Book(seed=1)
        ada, bob, eve = (book.create_user(name, f"{name.lower()}@example.com") for name in ("Ada", "=Bob", "Eve"))
        self.ada, self.bob, self.eve = ada.user_id, bob.user_id, eve.user_id
        accounts = [book.open_account(self.ada), book.open_account(self.ada), book.open_account(self.ada, "USD")]
        accounts.append(book.open_account(self.bob))
        self.a, self.b, self.dollars, self.c = (each.account_id for each in accounts)
        moves = [
            book.deposit(self.a, 1_000, occurred_at="2026-01-31T23:59:59.000000Z"),
            book.deposit(self.b, 500, occurred_at="2026-02-01T00:00:00.000000Z"),
            book.deposit(self.dollars, 7, occurred_at="2026-02-02T00:00:00.000000Z"),
            book.transfer(self.a, self.c, 300, occurred_at="2026-02-03T00:00:00.000000Z", reference="=1+1"),
        ]
        self.book = book
        self.events: list[Any] = [ada, bob, eve, *accounts, *moves]


@pytest_asyncio.fixture
async def api(reporting: Settings) -> AsyncIterator[tuple[Questions, Scene]]:
    scene = Scene()
    async with open_ledger(reporting) as ledger:
        await ledger.append(scene.events)
        await ledger.build("reports")
    async with query_api(reporting) as questions:
        questions.position = len(scene.events)
        yield questions, scene


async def test_users_have_the_number_and_the_sums_of_their_accounts(api: tuple[Questions, Scene]) -> None:
    questions, scene = api
    body = await questions.get("/v1/reports/users", {"sort": "-accounts", "page_size": 2})
    assert (body["total"], body["pages"], body["page"], body["position"]) == (3, 2, 1, len(scene.events))
    ada, bob = body["items"]
    assert (ada["id"], ada["accounts"]) == (scene.ada, 3)
    assert ada["sums"] == [{"currency": "EUR", "accounts": 2, "sum": "1200"}, {"currency": "USD", "accounts": 1, "sum": "7"}]
    assert (bob["name"], bob["sums"]) == ("=Bob", [{"currency": "EUR", "accounts": 1, "sum": "300"}])
    conforms("report_users", body)
    [eve] = (await questions.get("/v1/reports/users", {"sort": "-accounts", "page_size": 2, "page": 2}))["items"]
    assert (eve["id"], eve["accounts"], eve["sums"]) == (scene.eve, 0, [])
    assert (await questions.get("/v1/reports/users", {"page": 9}))["items"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"search": "ada"}, ["Ada"]),
        ({"search": "example BOB"}, ["=Bob"]),
        ({"search": "100%"}, []),
        ({"currency": "USD"}, ["Ada"]),
        ({"status": "inactive"}, []),
        ({"sort": "-name"}, ["Eve", "Ada", "=Bob"]),
    ],
)
async def test_users_are_searched_filtered_and_sorted(
    api: tuple[Questions, Scene], parameters: dict[str, str], names: list[str]
) -> None:
    body = await api[0].get("/v1/reports/users", parameters)
    assert ([each["name"] for each in body["items"]], body["total"]) == (names, len(names))


async def test_totals_are_those_of_the_entries_by_owner_month_and_currency(api: tuple[Questions, Scene]) -> None:
    questions, scene = api
    by_month = (await questions.get("/v1/reports/totals"))["items"]
    conforms("report_totals", await questions.get("/v1/reports/totals"))
    conforms("report_entries", await questions.get("/v1/reports/entries"))
    euros = {"currency": "EUR", "entries": 1, "paid_in": "1000", "paid_out": "0", "sum": "1000"}
    february = {"currency": "EUR", "entries": 3, "paid_in": "800", "paid_out": "300", "sum": "500"}
    dollars = {"currency": "USD", "entries": 1, "paid_in": "7", "paid_out": "0", "sum": "7"}
    assert by_month == [{"month": "2026-01"} | euros, {"month": "2026-02"} | february, {"month": "2026-02"} | dollars]
    by_owner = (await questions.get("/v1/reports/totals", {"by": "owner", "currency": "EUR"}))["items"]
    assert {each["owner_id"]: each["sum"] for each in by_owner} == {scene.ada: "1200", scene.bob: "300"}
    [january] = (await questions.get("/v1/reports/totals", {"by": "currency", "month[lte]": "2026-01"}))["items"]
    assert january == euros
    entries = await questions.get("/v1/reports/entries", {"owner_id": scene.ada, "sort": "-amount"})
    assert [each["amount"] for each in entries["items"]] == [1_000, 500, 7, -300]


async def test_a_file_has_all_rows_and_no_cell_that_a_spreadsheet_would_run(api: tuple[Questions, Scene]) -> None:
    questions, scene = api
    files: dict[str, list[dict[str, str]]] = {}
    for report in ("users", "totals", "entries"):
        answer = await questions.ask(f"/v1/reports/{report}", {"page_size": 1}, accept="text/csv")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
        assert answer.headers["daybook-position"] == str(len(scene.events))
        files[report] = [*csv.DictReader(io.StringIO(answer.text))]
    sums = defaultdict(list)
    for row in files["users"]:
        sums[row["name"]].append((row["currency"], row["accounts"], row["sum"]))
    assert sums == {"Ada": [("EUR", "2", "1200"), ("USD", "1", "7")], "'=Bob": [("EUR", "1", "300")], "Eve": [("", "0", "")]}
    assert sum(int(row["entries"]) for row in files["totals"]) == len(files["entries"]) == 5
    assert {row["reference"] for row in files["entries"]} == {"", "'=1+1"}


async def test_a_parquet_file_has_the_rows_of_the_csv_file_with_exact_types(api: tuple[Questions, Scene]) -> None:
    questions, scene = api
    for report in ("users", "totals", "entries"):
        answer = await questions.ask(f"/v1/reports/{report}", {"page_size": 1}, accept=PARQUET)
        assert (answer.status_code, answer.headers["content-type"]) == (200, PARQUET)
        assert answer.headers["daybook-position"] == str(len(scene.events))
        table = pyarrow.parquet.read_table(io.BytesIO(answer.content))
        written = (await questions.ask(f"/v1/reports/{report}", accept="text/csv")).text.replace("'=", "=")
        read = [{name: _as_text(cell) for name, cell in row.items()} for row in table.to_pylist()]
        assert read == [*csv.DictReader(io.StringIO(written))]
        types = {name: str(table.schema.field(name).type) for name in table.column_names}
        expected = {"amount": "int64", "position": "int64", "sum": "decimal128(38, 0)", "occurred_at": "timestamp[us, tz=UTC]"}
        assert {name: kind for name, kind in types.items() if name in expected} == {
            name: kind for name, kind in expected.items() if name in types
        }


def _as_text(cell: Any) -> str:
    if isinstance(cell, datetime):
        return cell.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return "" if cell is None else str(cell)


async def test_a_large_parquet_file_comes_in_row_groups() -> None:
    async def pieces() -> AsyncIterator[list[Any]]:
        for first in range(0, ROWS_IN_GROUP + 2_000, 1_000):
            yield [{"position": number, "sum": str(2**80), "reference": None} for number in range(first, first + 1_000)]

    parts = [part async for part in parquet_file(pieces(), ("position", "sum", "reference"))]
    file = pyarrow.parquet.ParquetFile(io.BytesIO(b"".join(parts)))
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [ROWS_IN_GROUP, 2_000]
    table = file.read()
    assert table["position"].to_pylist() == [*range(ROWS_IN_GROUP + 2_000)]
    assert {*table["sum"].to_pylist()} == {2**80}
    assert parts[0].startswith(b"PAR1")
    assert len(parts) == 2


async def test_without_pyarrow_a_parquet_file_is_a_406_and_csv_goes_on(
    reporting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (reporting.reporting_url or "").startswith("sqlite"):
        pytest.skip("one kind of database is enough")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "query_api.parquet_files", raising=False)
    async with query_api(reporting) as questions:
        answer = await questions.ask("/v1/reports/totals", accept=f"{PARQUET}, text/csv;q=0.5", prefer="")
        assert (answer.status_code, answer.json()["code"]) == (406, "parquet-off")
        assert "text/csv" in answer.json()["detail"]


async def test_a_page_takes_the_same_number_of_statements_whatever_its_size(reporting: Settings) -> None:
    async with open_ledger(reporting) as ledger:
        book = Book(seed=2)
        users = [book.create_user() for _ in range(30)]
        await ledger.append([*users, *(book.open_account(user.user_id) for user in users for _ in range(2))])
        await ledger.build("reports")
        store = ledger.stores.optional["sql"]
        reader = Reader(*ledger.stores[:3], reporting, ledger.stores.optional)
        view, statements = CallerView(reader, "main", Freshness()), []
        event.listen(store.engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        numbers = []
        for size in (1, 30):
            statements.clear()
            found = await ReportQueries(store).users(view, {"sort": "name"}, PageNumber(1, size))
            assert (len(found.data.items), found.data.total) == (size, 30)
            numbers.append(len([each for each in statements if each != "BEGIN"]))
        assert numbers[0] == numbers[1] <= 5


@pytest.mark.slow
async def test_sums_are_exact_beyond_64_bits(reporting: Settings) -> None:
    async with open_ledger(reporting) as ledger:
        largest = 2**53 - 1
        book = Book(seed=3)
        user = book.create_user()
        account = book.open_account(user.user_id)
        moves = [
            move
            for _ in range(1_100)
            for move in (book.deposit(account.account_id, largest), book.withdraw(account.account_id, largest))
        ]
        await ledger.append([user, account, *moves])
        await ledger.build("reports")
        reader = Reader(*ledger.stores[:3], reporting, ledger.stores.optional)
        queries = ReportQueries(ledger.stores.optional["sql"])
        found = await queries.totals(CallerView(reader, "main", Freshness()), {"by": "owner"}, PageNumber(1, 20))
        [line] = found.data.items
        assert (line["paid_in"], line["paid_out"], line["sum"]) == (str(1_100 * largest), str(1_100 * largest), "0")


async def test_where_reporting_is_off_the_answer_says_how_to_turn_it_on(settings: Settings) -> None:
    async with query_api(settings) as questions:
        for report in ("users", "totals", "entries"):
            answer = await questions.ask(f"/v1/reports/{report}")
            assert (answer.status_code, answer.json()["code"]) == (404, "reporting-off")
            assert "DAYBOOK_REPORTING_URL" in answer.json()["detail"]


@pytest.mark.slow
async def test_before_the_first_build_and_without_migrations_the_answer_is_503(reporting: Settings, tmp_path: Path) -> None:
    async with open_ledger(reporting) as ledger:
        await ledger.append(Scene().events)
    async with query_api(reporting) as questions:
        answer = await questions.ask("/v1/reports/users", prefer="")
        assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
    bare = reporting.model_copy(
        update={"reporting_url": None, "reporting_read_url": f"sqlite+aiosqlite:///{tmp_path}/bare.sqlite"}
    )
    async with query_api(bare, is_patient=False) as questions:
        answer = await questions.ask("/v1/reports/users", accept="text/csv", prefer="")
        assert (answer.status_code, answer.json()["code"], "daybook migrate" in answer.text) == (503, "store-unavailable", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [
        {"page": "0"},
        {"page_size": "101"},
        {"sort": "email"},
        {"month[gte]": "2026-13"},
        {"by": "year"},
        {"x": "1"},
        {"currency": "X"},
    ],
)
async def test_a_report_that_is_asked_wrongly_is_refused(api: tuple[Questions, Scene], parameters: dict[str, str]) -> None:
    for report in ("users", "totals", "entries"):
        if report == "totals" or "by" not in parameters:
            answer = await api[0].ask(f"/v1/reports/{report}", parameters)
            assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
