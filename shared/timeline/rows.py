"""The rows of the timeline, and the table of a generation. This module does no I/O.

A document of the read model is a row. Its name says where the row is:

    entries/<account>/<recorded_at>/<position, 16 digits>  partition (account, month, bucket), ordered by (recorded_at, position)
    days/<account>/<day>/<bucket>                          partition (account, "days", 0), ordered by (day, bucket)

A bucket is a range of positions of the ledger, so a partition of entries has at most `TIMELINE_BUCKET` rows. The rows of days
also say in which partitions an account has entries. The checkpoint of a generation is one more row of its table.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cassandra.query import UNSET_VALUE

from shared.read_models.shapes import TIMELINE_BUCKET

TimelineFields = dict[str, Any]

DAYS_PART: Final = "days"
MONTH: Final = 7
CHECKPOINT_KEY: Final = {"account_id": "@checkpoint", "part": "", "bucket": 0, "moment": "", "place": 0}
"""The key of the row that holds the checkpoint: no account has this id."""
KEY_COLUMNS: Final = {"account_id": "text", "part": "text", "bucket": "int", "moment": "text", "place": "bigint"}
VALUE_COLUMNS: Final = {
    "transfer_id": "text",
    "kind": "text",
    "amount": "bigint",
    "balance": "bigint",
    "currency": "text",
    "counterparty_account_id": "text",
    "occurred_at": "text",
    "reference": "text",
    "position": "bigint",
}
COLUMNS: Final[Mapping[str, str]] = KEY_COLUMNS | VALUE_COLUMNS | {"state": "text"}
"""The columns of a generation's table, with their types."""
TABLE_BODY: Final = (
    f"({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())}, "
    "PRIMARY KEY ((account_id, part, bucket), moment, place)) WITH CLUSTERING ORDER BY (moment DESC, place DESC)"
)
ENTRY_FIELDS: Final = tuple(VALUE_COLUMNS)
DAY_FIELDS: Final = ("currency", "balance", "position")


class RowKey(msgspec.Struct, frozen=True):
    """The primary key of a row: the partition, and the place in it."""

    account_id: str
    part: str
    bucket: int
    moment: str
    place: int


def bucket_of(position: int) -> int:
    return position // TIMELINE_BUCKET


def key_of(name: str) -> RowKey:
    """Returns the key of the row with this name."""
    kind, account_id, moment, place = name.split("/")
    if kind == DAYS_PART:
        return RowKey(account_id, DAYS_PART, 0, moment, int(place))
    return RowKey(account_id, moment[:MONTH], bucket_of(int(place)), moment, int(place))


def document_of(row: Mapping[str, Any]) -> TimelineFields:
    """Returns a row as the document that the projection made."""
    is_day = row["part"] == DAYS_PART
    place = row["place"] if is_day else f"{row['place']:016d}"
    name = f"{DAYS_PART if is_day else 'entries'}/{row['account_id']}/{row['moment']}/{place}"
    return {"_id": name} | {field: row[field] for field in (DAY_FIELDS if is_day else ENTRY_FIELDS)}


def values_of(document: TimelineFields) -> list[Any]:
    """Returns the values of a row in the order of the columns, and its write timestamp: the position of its event."""
    key = msgspec.structs.astuple(key_of(document["_id"]))
    # A value that is not set writes nothing. NULL would write a tombstone.
    values = (UNSET_VALUE if document.get(name) is None else document[name] for name in VALUE_COLUMNS)
    return [*key, *values, document["position"]]
