"""Asks the timeline store for the entries of an account. Imported only where DAYBOOK_TIMELINE_URL is set.

A question reads the pointer and the checkpoint first. So the answer has all events up to the position that it names. What was
written in the meantime may show too.

The rows of days say in which partitions an account has entries. A page goes through them, newest first. Its cursor has the row of
the day at which the partition was found, and the driver's paging state within the partition.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from query_api.cursors import CursorKey
from query_api.lists import ListSlice, read_one
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from shared.errors import CursorInvalid, Rebuilding
from shared.read_models.generations import Generation
from shared.read_models.shapes import ACCOUNTS, TIMELINE
from shared.timeline.rows import DAYS_PART, ENTRY_FIELDS, MONTH
from shared.timeline.store import PagingStateInvalidError, TableMissingError, TimelineStore

PARTITIONS_MAX: Final = 24
"""How many partitions one page reads at most. A page of an account that moves seldom has fewer entries, and a next one."""
DAYS_READ: Final = 31 * PARTITIONS_MAX + 1
"""How many rows of days a page reads. A partition has at most 31 of them, so the one that may be cut off is not read any more."""
_AFTER_ALL_DAYS: Final = "~"
_DAY: Final = 10
_BUCKET_MAX: Final = 2**53


class TimelineSlice(msgspec.Struct, frozen=True):
    """A page of entries, and the closing balances of their days, newest first."""

    page: ListSlice
    closing_balances: list[JsonObject]


class TimelineQueries:
    """The questions to the timeline store."""

    def __init__(self, store: TimelineStore) -> None:
        self._store = store

    async def find(
        self, view: CallerView, account_id: str, month: str | None, limit: int, key: CursorKey | None
    ) -> AsOf[TimelineSlice | None]:
        """Returns a page of an account's entries, or None if there is no such account that the caller may see.

        Raises:
            StoreUnavailable: the timeline store does not answer.
            TimeoutError: it takes too long.
        """
        account = await read_one(view, ACCOUNTS, account_id, dict, view.own("owner_id"))
        if account.data is None:
            return account

        async def look() -> AsOf[TimelineSlice | None]:
            try:
                async with asyncio.timeout(self._store.read_seconds):
                    return await self._look(view.ledger_id, account_id, month, limit, key)
            except (Rebuilding, TableMissingError):
                await view.reader.require_ledger(view.ledger_id)
                raise rebuilding(TIMELINE) from None
            except PagingStateInvalidError:
                raise CursorInvalid from None

        return await view.fresh(TIMELINE, look)

    async def _look(
        self, ledger_id: str, account_id: str, month: str | None, limit: int, key: CursorKey | None
    ) -> AsOf[TimelineSlice | None]:
        number = (await self._store.read_pointer(TIMELINE, ledger_id)).live
        generation = Generation(TIMELINE, ledger_id, number or 0)
        checkpoint = None if number is None else await self._store.read_checkpoint(generation)
        if checkpoint is None:
            raise rebuilding(TIMELINE)
        account = AccountTimeline(self._store, self._store.table_of(generation), account_id)
        page = await account.page(month, limit, key)
        return AsOf(checkpoint.position, TimelineSlice(page, await account.closing_balances(page.items)))


class AccountTimeline:
    """The rows of one account in one table."""

    def __init__(self, store: TimelineStore, table: str, account_id: str) -> None:
        self._store = store
        self._table = table
        self._account_id = account_id

    async def page(self, month: str | None, limit: int, key: CursorKey | None) -> ListSlice:
        day, bucket, state = key or (f"{month or ''}{_AFTER_ALL_DAYS}", _BUCKET_MAX, None)
        partitions = await self._partitions(month, day, bucket)
        items: list[JsonObject] = []
        paging_state = bytes.fromhex(state) if state else None
        for place, (found_at, in_bucket) in enumerate(partitions):
            if len(items) == limit or place == PARTITIONS_MAX:
                return ListSlice(items, [found_at, in_bucket, None])
            found = await self._store.ask(
                f"SELECT moment, {', '.join(ENTRY_FIELDS)} FROM {self._table} "  # noqa: S608 # no text of a caller is in it
                "WHERE account_id = ? AND part = ? AND bucket = ?",
                [self._account_id, found_at[:MONTH], in_bucket],
                page_rows=limit - len(items),
                paging_state=paging_state,
            )
            items += [self._item(row) for row in found.rows]
            if found.paging_state:
                return ListSlice(items, [found_at, in_bucket, found.paging_state.hex()])
            paging_state = None
        return ListSlice(items, None)

    async def _partitions(self, month: str | None, day: str, bucket: int) -> list[tuple[str, int]]:
        """Returns the partitions from a day and a bucket back, each as the newest day and the bucket of its rows."""
        rows = await self._days("(moment, place) <= (?, ?) AND moment >= ?", [day, bucket, month or ""], DAYS_READ)
        partitions: dict[tuple[str, int], tuple[str, int]] = {}
        for row in rows:
            partitions.setdefault((row["moment"][:MONTH], row["place"]), (row["moment"], row["place"]))
        return [*partitions.values()]

    async def closing_balances(self, items: Sequence[Mapping[str, Any]]) -> list[JsonObject]:
        """Returns the closing balances of the days of these entries, which are the newest first."""
        if not items:
            return []
        first, last = items[-1]["recorded_at"][:_DAY], items[0]["recorded_at"][:_DAY]
        days: dict[str, JsonObject] = {}
        for row in await self._days("moment <= ? AND moment >= ?", [last, first], None):
            # The first row of a day is that of its last bucket.
            days.setdefault(row["moment"], {"day": row["moment"], "balance": row["balance"], "currency": row["currency"]})
        return [*days.values()]

    async def _days(self, which: str, values: Sequence[Any], limit: int | None) -> list[JsonObject]:
        question = (
            f"SELECT moment, place, balance, currency FROM {self._table} "  # noqa: S608 # as above
            f"WHERE account_id = ? AND part = ? AND bucket = ? AND {which}" + (f" LIMIT {limit}" if limit else "")
        )
        pages = self._store.pages(question, [self._account_id, DAYS_PART, 0, *values])
        return [row async for page in pages for row in page]

    def _item(self, row: Mapping[str, Any]) -> JsonObject:
        entry = {name: value for name, value in row.items() if name != "moment"}
        return {"account_id": self._account_id} | entry | {"recorded_at": row["moment"]}
