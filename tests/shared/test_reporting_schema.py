"""The tables of SQL reporting: the migrations make what the classes say, in SQLite, MariaDB and PostgreSQL."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, Connection, insert, inspect, text, update

from shared.errors import SettingsInvalid
from shared.reporting.schema import reporting_migrations
from shared.reporting.schema_check import find_schema_differences
from shared.reporting.store import REPORTING_REVISION, VERSION_TABLE, ReportingStore, make_engine
from shared.reporting.tables import DATA_TABLES, METADATA
from shared.reporting.views import VIEWS
from tests.harness.reporting import KINDS, migrate_reporting, new_database
from tests.harness.running import Servers

URLS = {
    "sqlite": "sqlite+aiosqlite:///reports.sqlite",
    "mysql": "mysql+aiomysql://u@h/d",
    "postgresql": "postgresql+asyncpg://u@h/d",
}
MONEY = {"amount", "balance", "posted", "overdraft_limit", "captured", "remaining", "amount_billions", "amount_rest"}


@pytest_asyncio.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    mariadb = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    return await new_database(request.param, servers, mariadb, tmp_path)


async def tables_of(url: str) -> set[str]:
    engine = make_engine(url, 10)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda session: inspect(session).get_table_names())
    await engine.dispose()
    return {*names}


async def test_the_migrations_make_the_tables_of_the_classes_and_take_them_away_again(url: str) -> None:
    await migrate_reporting(url)
    engine = make_engine(url, 10)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    assert await tables_of(url) == {*METADATA.tables, VERSION_TABLE}
    await asyncio.to_thread(command.downgrade, reporting_migrations(url), "base")
    assert await tables_of(url) == {VERSION_TABLE}
    await migrate_reporting(url)
    assert await tables_of(url) == {*METADATA.tables, VERSION_TABLE}


async def test_a_dropped_index_a_changed_column_and_a_missing_table_are_found_and_an_index_can_be_made_again(url: str) -> None:
    await migrate_reporting(url)
    engine = make_engine(url, 10)
    store = ReportingStore(engine, 10)
    where = " ON days" if engine.dialect.name == "mysql" else ""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE INDEX of_an_analyst ON days (kind)"))
        await connection.execute(text("CREATE TABLE table_of_an_analyst (id INTEGER)"))
    assert await find_schema_differences(store) == []
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP INDEX ix_days_generation_id_day{where}"))
        await connection.execute(text("DROP VIEW live_days"))
    index, view = await find_schema_differences(store)
    assert (index.part, index.is_missing) == ("index ix_days_generation_id_day of days", True)
    assert (view.part, view.is_missing) == ("view live_days", True)
    async with engine.begin() as connection:
        await connection.execute(text(index.fix))
        await connection.execute(text(view.fix))
    assert await find_schema_differences(store) == []
    async with engine.begin() as connection:
        for view_name in VIEWS:
            await connection.execute(text(f"DROP VIEW {view_name}"))
        await connection.execute(text("DROP TABLE entries"))
        await connection.execute(text("ALTER TABLE days DROP COLUMN transfers"))
    column, table, *views = await find_schema_differences(store)
    assert [each.part for each in views] == sorted(f"view {name}" for name in VIEWS)
    assert [(each.part, each.is_missing) for each in (column, table)] == [
        ("column transfers of days", True),
        ("table entries", True),
    ]
    assert "daybook migrate" in table.fix
    await engine.dispose()


async def test_a_view_has_the_live_rows_of_each_ledger_and_no_others(url: str) -> None:
    await migrate_reporting(url)
    engine = make_engine(url, 10)
    zeros = dict.fromkeys(("position", "model_version", "letters", "parked", "put_aside"), 0)
    flags = {"log_hash": "", "retired": False, "paused": False, "model": "reports"}
    generations = [
        {"id": number, "ledger_id": ledger, "number": of_ledger, **flags, **zeros}
        for number, ledger, of_ledger in ((1, "main", 1), (2, "main", 2), (3, "shop", 1))
    ]
    pointers = [{"ledger_id": ledger, "model": "reports", "live": live} for ledger, live in (("main", 2), ("shop", 1))]
    user = {"name": "Ada", "email": "", "status": "active", "created_at": "", "changed_at": "", "version": 1, "position": 1}
    async with engine.begin() as connection:
        await connection.execute(insert(METADATA.tables["generations"]), generations)
        await connection.execute(insert(METADATA.tables["pointers"]), pointers)
        await connection.execute(
            insert(DATA_TABLES["users"]), [user | {"generation_id": each, "id": f"u{each}"} for each in (1, 2, 3)]
        )
        assert [*await connection.execute(text("SELECT ledger_id, id FROM live_users ORDER BY id"))] == [
            ("main", "u2"),
            ("shop", "u3"),
        ]
        await connection.execute(update(METADATA.tables["pointers"]).where(text("ledger_id = 'main'")).values(live=1))
        assert [*await connection.execute(text("SELECT ledger_id, id FROM live_users ORDER BY id"))] == [
            ("main", "u1"),
            ("shop", "u3"),
        ]
        for view, table in VIEWS.items():
            columns = [*(await connection.execute(text(f"SELECT * FROM {view}"))).keys()]
            assert columns == ["ledger_id", *(each.name for each in table.c if each.name != "generation_id")]
    await engine.dispose()


@pytest.mark.parametrize("dialect", URLS)
def test_the_migrations_can_be_printed_for_each_database(dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(reporting_migrations(URLS[dialect]), "head", sql=True)
    upgrade = capsys.readouterr().out
    assert {*re.findall(r"CREATE TABLE `?(\w+)", upgrade)} >= {*METADATA.tables}
    command.downgrade(reporting_migrations(URLS[dialect]), "head:base", sql=True)
    assert {*re.findall(r"DROP TABLE `?(\w+)", capsys.readouterr().out)} >= {*METADATA.tables}


def test_the_code_needs_the_newest_migration() -> None:
    newest = ScriptDirectory.from_config(reporting_migrations(URLS["sqlite"])).get_current_head()
    assert newest == REPORTING_REVISION


def test_all_money_is_bigint() -> None:
    columns = [column for table in DATA_TABLES.values() for column in table.columns if column.name in MONEY]
    assert {column.name for column in columns} == MONEY
    assert {type(column.type) for column in columns} == {BigInteger}


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite:///x",
        "mysql+pymysql://u@h/d",
        "oracle://h/d",
        "not a url",
        "postgresql+asyncpg://h:99999/d",
    ],
)
def test_a_url_that_is_not_one_of_ours_is_refused_in_one_line_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="DAYBOOK_REPORTING_URL") as refused:
        make_engine(url, 1)
    assert url not in str(refused.value).replace("sqlite+aiosqlite://,", "")


@pytest.mark.long
def test_a_process_without_optional_stores_and_publishing_imports_nothing_for_them() -> None:
    rooms = "projector.worker, projector.generations.operator_rebuilds, query_api.app, query_api.resources.reports, cli.app"
    packages = "'sqlmodel', 'aiosqlite', 'aiomysql', 'pyarrow', 'shared.reporting', 'nats', 'aiokafka', "
    packages += "'opensearchpy', 'aiohttp', 'shared.search', 'cassandra', 'shared.timeline'"
    program = f"import sys, {rooms}; print(*sorted({{{packages}}} & {{*sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == ""
