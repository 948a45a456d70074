"""Finds how the tables of the timeline store differ from this code."""

from collections.abc import AsyncIterator
from typing import Final

from shared.read_models.stored_state import SchemaDifference
from shared.settings import Settings
from shared.stores.findings import Finding, found
from shared.timeline.rows import COLUMNS
from shared.timeline.store import TimelineStore, open_store

_MAKE_AGAIN: Final = "`daybook projections rebuild timeline`"


async def find_table_differences(store: TimelineStore) -> list[SchemaDifference]:
    """Returns how the tables of all generations differ from this code. Columns that somebody added are none."""
    return sorted(
        SchemaDifference(f"column {name} of {table}", is_missing=name not in columns, fix=_MAKE_AGAIN)
        for table, columns in (await store.read_columns()).items()
        for name, kind in COLUMNS.items()
        if columns.get(name) != kind
    )


async def check_store(settings: Settings) -> AsyncIterator[Finding]:
    """Yields the findings of `daybook doctor` about the timeline store."""
    async with open_store(settings, read_only=True) as store:
        differences = await find_table_differences(store)
    for each in differences:
        state = "is missing" if each.is_missing else "was changed"
        yield found("timeline-table-changed", part=each.part, state=state, fix=each.fix)
