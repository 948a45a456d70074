"""Compares the reporting database with its migrations, for `daybook verify` and `daybook doctor`.

What the migrations make must be there. Tables, indexes and columns that somebody added are left alone, because they change no
answer. Alembic compares; it does not see a primary key that was dropped.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect
from sqlalchemy.schema import CreateIndex

from shared.errors import SchemaMismatch
from shared.read_models.stored_state import SchemaDifference
from shared.reporting.store import VERSION_TABLE, ReportingStore, open_store
from shared.reporting.tables import METADATA
from shared.reporting.views import VIEWS, create_statement
from shared.settings import Settings
from shared.stores.findings import Finding, found

COMPARE_SECONDS_MAX: Final = 60.0
_MAKE_AGAIN: Final = "drop all reporting views and tables, run `daybook migrate`, and the worker fills them again"


async def find_schema_differences(store: ReportingStore) -> list[SchemaDifference]:
    """Returns the differences, in the order of the names of the parts.

    Raises:
        SchemaMismatch: the migrations of this code have not run.
    """
    async with store.reading(COMPARE_SECONDS_MAX) as connection:
        return await connection.run_sync(lambda session: sorted(_compared(session)))


async def check_store(settings: Settings) -> AsyncIterator[Finding]:
    """Yields the findings of `daybook doctor` about the reporting database."""
    async with open_store(settings, read_only=True) as store:
        try:
            differences = await find_schema_differences(store)
        except SchemaMismatch as mismatch:
            yield found("reporting-schema-other", what=mismatch.detail)
            return
    for each in differences:
        state = "is missing" if each.is_missing else "was changed"
        yield found("reporting-schema-changed", part=each.part, state=state, fix=each.fix)


def _compared(connection: Connection) -> Iterator[SchemaDifference]:
    options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
    context = MigrationContext.configure(connection, opts=options)
    found: list[Any] = []
    for difference in compare_metadata(context, METADATA):
        # The changes of a column are a list of differences. All others are differences themselves.
        found += difference if isinstance(difference, list) else [difference]
    for view in VIEWS.keys() - {*inspect(connection).get_view_names()}:
        yield SchemaDifference(f"view {view}", is_missing=True, fix=create_statement(view, connection.dialect))
    missing_tables = {parts[0].name for what, *parts in found if what == "add_table"}
    for what, *parts in found:
        if what == "add_index" and parts[0].table.name not in missing_tables:
            fix = str(CreateIndex(parts[0]).compile(dialect=connection.dialect)).strip()
            yield SchemaDifference(f"index {parts[0].name} of {parts[0].table.name}", is_missing=True, fix=fix)
        elif what != "add_index" and not what.startswith("remove_"):
            yield SchemaDifference(_name(what, parts), is_missing=what.startswith("add_"), fix=_MAKE_AGAIN)


def _name(what: str, parts: list[Any]) -> str:
    """Returns the name of what a difference of Alembic is about."""
    kind = what.partition("_")[2]
    if kind == "table":
        return f"table {parts[0].name}"
    if what == "add_column":
        return f"column {parts[2].name} of {parts[1]}"
    if what.startswith("modify_"):
        return f"column {parts[2]} of {parts[1]}, {kind}"
    return f"constraint {parts[0].name} of {parts[0].table.name}"
