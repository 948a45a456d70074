"""Writes the rows of a report as a Parquet file, in pieces. Imported only when somebody asks for one: it needs pyarrow.

Money, counts and positions are 64-bit integers. A sum has no upper limit, so it is a decimal number without decimal places. Times
are timestamps in UTC with microseconds.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

ROWS_IN_GROUP: Final = 10_000
"""The rows that are kept in memory, and that a reader reads at once."""
_SUM: Final = pa.decimal128(38, 0)
_TIME: Final = pa.timestamp("us", tz="UTC")
_TYPES: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("accounts", "amount", "balance", "entries", "position"), pa.int64()),
    **dict.fromkeys(("paid_in", "paid_out", "sum"), _SUM),
    **dict.fromkeys(("created_at", "occurred_at", "recorded_at"), _TIME),
}
"""The types of columns by name. All others are text."""
_READERS: Final[Mapping[Any, Callable[[str], Any]]] = {_SUM: Decimal, _TIME: datetime.fromisoformat}


async def parquet_file(pieces: AsyncIterator[list[Mapping[str, Any]]], columns: Sequence[str]) -> AsyncIterator[bytes]:
    """Yields the parts of a file with these columns. If it stops before the end, the file has no footer and cannot be read."""
    schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in columns])
    file = _PartsOfFile()
    writer = ParquetWriter(file, schema)
    waiting: list[Mapping[str, Any]] = []
    async for rows in pieces:
        waiting += rows
        while len(waiting) >= ROWS_IN_GROUP:
            await asyncio.to_thread(_write_group, writer, schema, waiting[:ROWS_IN_GROUP])
            del waiting[:ROWS_IN_GROUP]
            yield file.take()
    if waiting:
        await asyncio.to_thread(_write_group, writer, schema, waiting)
    writer.close()
    yield file.take()


def _write_group(writer: Any, schema: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    arrays = [pa.array(_values(rows, field), field.type) for field in schema]
    writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=ROWS_IN_GROUP)


def _values(rows: Sequence[Mapping[str, Any]], field: Any) -> Iterable[Any]:
    values = [row.get(field.name) for row in rows]
    if read := _READERS.get(field.type):
        return [None if value is None else read(value) for value in values]
    return values


class _PartsOfFile(io.RawIOBase):
    """A file to write to, whose content is taken away in parts."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
