"""`daybook sql` prints what the reporting database answers, exactly, and the database refuses every write."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from cli.exit_codes import ExitCode
from dev.data_folder import ROOT
from dev.servers import MariaDb
from shared.reporting.statements import open_to_read, run_statement
from shared.reporting.store import make_engine
from shared.reporting.tables import DATA_TABLES, METADATA
from shared.reporting_errors import StatementDenied, StatementInvalid
from tests.harness.reporting import KINDS, migrate_reporting, new_database
from tests.harness.running import Servers
from tests.harness.terminals import Terminal, TerminalRun, run_in

LARGEST: Final = 2**53 - 1
MOMENT: Final = "2026-01-31T00:00:00.000000Z"
ENDLESS: Final = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
SUMS: Final = "SELECT currency, sum(posted) AS posted, min(owner_id) AS owner, NULL AS absent FROM accounts GROUP BY currency"


async def fill(url: str) -> None:
    """Makes the tables, with two accounts in euros."""
    await migrate_reporting(url)
    zeros = dict.fromkeys(("position", "model_version", "letters", "parked", "put_aside"), 0)
    generation = {
        "id": 1,
        "ledger_id": "main",
        "model": "reports",
        "number": 1,
        "log_hash": "",
        "retired": False,
        "paused": False,
    }
    account = {"generation_id": 1, "owner_id": "=1+1", "currency": "EUR", "status": "open", "overdraft_limit": 0, "holds": 0}
    account |= {"opened_at": MOMENT, "changed_at": MOMENT, "version": 1, "position": 1}
    engine = make_engine(url, 10)
    async with engine.begin() as connection:
        await connection.execute(insert(METADATA.tables["generations"]), [generation | zeros])
        rows = [account | {"id": "a", "posted": LARGEST}, account | {"id": "b", "posted": LARGEST - 1}]
        await connection.execute(insert(DATA_TABLES["accounts"]), rows)
    await engine.dispose()


async def rows_in(url: str, table: str) -> int:
    engine = make_engine(url, 10)
    async with engine.connect() as connection:
        count = await connection.scalar(select(func.count()).select_from(METADATA.tables[table]))
    await engine.dispose()
    return count or 0


@pytest_asyncio.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> str:
    """The URL of a database of each kind, as `fill` leaves it."""
    mariadb = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    made = await new_database(request.param, servers, mariadb, tmp_path)
    await fill(made)
    return made


@pytest_asyncio.fixture
async def sqlite(tmp_path: Path) -> str:
    made = f"sqlite+aiosqlite:///{tmp_path}/some reports.sqlite"
    await fill(made)
    return made


def sql(url: str, *arguments: str, variable: str = "DAYBOOK_REPORTING_URL", stdin: str = os.devnull) -> TerminalRun:
    """Runs `daybook sql` as an analyst does, who has no other setting."""
    environment = {"PATH": "/usr/bin:/bin", variable: url, "DAYBOOK_DATA_DIR": "/proc/nowhere"}
    ended = run_in(Terminal("plain", stdin=stdin), ["sql", *arguments], environment, ROOT)
    assert "Traceback" not in ended.err, ended.err
    return ended


async def test_an_answer_is_exact_in_every_format(url: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked.sql"
    asked.write_text(f"{SUMS} -- 100 % of :all ?\n")
    total = 2 * LARGEST - 1
    as_csv = sql(url, "--format", "csv", stdin=str(asked))
    assert (as_csv.code, as_csv.out.splitlines()) == (0, ["currency,posted,owner,absent", f"EUR,{total},'=1+1,"]), as_csv.err
    as_json = sql(url, SUMS, "--format", "json")
    assert json.loads(as_json.out) == [{"currency": "EUR", "posted": total, "owner": "=1+1", "absent": None}]
    assert str(total) in as_json.out
    assert re.search(rf"EUR\W+{total}\W+=1\+1", sql(url, SUMS).out)
    nothing = sql(url, f"{SUMS.partition(' GROUP')[0]} WHERE currency = 'USD' GROUP BY currency", "--format", "json")
    assert (nothing.code, json.loads(nothing.out)) == (0, [])


@dataclass
class Kept:
    """A writer that keeps what it is given."""

    columns: Sequence[str] = ()
    found: list[Any] = field(default_factory=list)

    def begin(self, columns: Sequence[str]) -> None:
        self.columns = columns

    def rows(self, rows: Sequence[Sequence[Any]]) -> None:
        self.found += rows

    def end(self) -> None: ...


async def ask(url: str, statement: str) -> Kept:
    kept = Kept()
    async with open_to_read(url, "DAYBOOK_REPORTING_URL") as store:
        await run_statement(store, statement, 60, kept)
    return kept


WRITES: Final = (
    "DELETE FROM accounts",
    "UPDATE accounts SET posted = 0",
    "INSERT INTO notes VALUES ('main', 'reports', 'a', 'b')",
    "DROP TABLE notes",
    "CREATE TABLE more (id INTEGER)",
    "CREATE INDEX more ON notes (value)",
)
SEVERAL: Final = (
    "COMMIT; DELETE FROM accounts",
    "SELECT 1; DELETE FROM accounts",
    "ROLLBACK; SET SESSION TRANSACTION READ WRITE; DELETE FROM accounts",
)


async def test_the_database_refuses_every_write(url: str) -> None:
    """The login may write. So it is the session that may not."""
    returning = "WITH gone AS (DELETE FROM accounts RETURNING 1) SELECT count(*) FROM gone"
    for statement in (*WRITES, *([returning] if "postgresql" in url else [])):
        with pytest.raises(StatementDenied):
            await ask(url, statement)
    for statement in SEVERAL:
        with pytest.raises(StatementInvalid):
            await ask(url, statement)
    assert (await rows_in(url, "accounts"), await rows_in(url, "notes")) == (2, 0)
    assert (await ask(url, "SELECT sum(posted) FROM accounts")).found == [[2 * LARGEST - 1]]


async def test_each_error_has_its_exit_code_and_says_the_cause_in_one_line(sqlite: str, tmp_path: Path) -> None:
    dead = "postgresql+asyncpg://analyst:secret@127.0.0.1:1/reports"
    cases: list[tuple[str, tuple[str, ...], ExitCode, str]] = [
        (sqlite, ("SELECT * FROM nowhere",), ExitCode.USAGE, "no such table: nowhere"),
        (sqlite, (), ExitCode.USAGE, "there is no statement"),
        (sqlite, ("SELECT id, id FROM accounts", "--format", "json"), ExitCode.USAGE, "the same name"),
        (sqlite, ("DELETE FROM accounts",), ExitCode.DENIED, "readonly"),
        (sqlite, (ENDLESS, "--seconds", "0.2"), ExitCode.UNAVAILABLE, "within 0.2 s"),
        (dead, ("SELECT 1",), ExitCode.UNAVAILABLE, "cannot do this now"),
        (f"sqlite+aiosqlite:///{tmp_path}/none.sqlite", ("SELECT 1",), ExitCode.SETTINGS, "daybook migrate"),
        ("oracle://h/d", ("SELECT 1",), ExitCode.SETTINGS, "DAYBOOK_REPORTING_READ_URL: must begin with"),
        ("", ("SELECT 1",), ExitCode.SETTINGS, "DAYBOOK_REPORTING_READ_URL: is not set"),
    ]
    for url, arguments, code, cause in cases:
        ended = sql(url, *arguments, variable="DAYBOOK_REPORTING_READ_URL")
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (code, "", 1), (arguments, ended)
        assert cause in ended.err
        assert "secret" not in ended.err
    assert not (tmp_path / "none.sqlite").exists()


# ── a login that may only read ───────────────────────────────────────────────────────────────────────────────────────


def printed_statements(database: str) -> list[str]:
    """Returns the statements that docs/stores.md prints for a login of this database."""
    page = (ROOT / "docs/stores.md").read_text()
    [block] = [each for each in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if each.startswith(f"-- {database}")]
    return [each.strip() for each in block.partition("\n")[2].split(";") if each.strip()]


async def require_may_only_read(url: str) -> None:
    """Checks a login of its own tables: without our read-only session, the database refuses writes because of its grants."""
    asked = sql(url, SUMS, "--format", "csv", variable="DAYBOOK_REPORTING_READ_URL")
    assert (asked.code, f"EUR,{2 * LARGEST - 1}" in asked.out) == (0, True), asked.err
    engine = make_engine(url, 10)
    for statement in WRITES:
        with pytest.raises(DBAPIError, match=r"denied|must be owner"):
            async with engine.begin() as connection:
                await connection.execute(text(statement))
    await engine.dispose()


async def test_the_printed_grants_make_a_login_of_postgresql_that_may_only_read(servers: Servers) -> None:
    superuser = await asyncpg.connect(servers.postgres.superuser_url)
    address = make_url(servers.postgres.url).set(drivername="postgresql+asyncpg", database="reports")
    try:
        await superuser.execute("CREATE DATABASE reports OWNER daybook")
        owner = await asyncpg.connect(
            make_url(servers.postgres.superuser_url).set(database="reports").render_as_string(hide_password=False)
        )
        for statement in printed_statements("PostgreSQL"):  # before the migrations: it must hold for tables that come later
            await owner.execute(statement)
        await owner.close()
        await fill(address.render_as_string(hide_password=False))
        await require_may_only_read(address.set(username="analyst", password="choose-one").render_as_string(hide_password=False))
    finally:
        await superuser.execute("DROP DATABASE IF EXISTS reports WITH (FORCE)")
        await superuser.execute("DROP ROLE IF EXISTS analyst")
        await superuser.close()


async def test_the_printed_grants_make_a_login_of_mariadb_that_may_only_read(mariadb: MariaDb) -> None:
    address = make_url(mariadb.url)
    root = make_engine(
        address.set(username="root", query={"unix_socket": str(mariadb.socket)}).render_as_string(hide_password=False), 10
    )
    try:
        async with root.begin() as connection:
            for statement in ("CREATE DATABASE reports", *printed_statements("MariaDB")):
                await connection.exec_driver_sql(statement.replace("%", "%%"))
        await fill(mariadb.url_of("reports"))
        login = address.set(username="analyst", password="choose-one", database="reports")
        await require_may_only_read(login.render_as_string(hide_password=False))
    finally:
        async with root.begin() as connection:
            await connection.exec_driver_sql("DROP DATABASE IF EXISTS reports")
            await connection.exec_driver_sql("DROP USER IF EXISTS analyst@'%%'")
        await root.dispose()
