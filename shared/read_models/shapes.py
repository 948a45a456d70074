"""The read models: their names, their indexes, and the fields of their documents and keys. This module does no I/O.

Money is stored as integers. Times are RFC 3339 text (see `shared.timestamps.timestamp`). A document's `position` is the position
of the last event that changed it. Its `version` is the version of its stream, which callers send as `If-Match`.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

Store = Literal["mongo", "redis", "sql", "search", "timeline"]
Index = tuple[tuple[str, int], ...]


class ReadModel(msgspec.Struct, frozen=True):
    """Describes one read model. Raise `version` when the shape or the meaning of its data changes.

    `indexes` are the indexes in MongoDB, except the one on `_id`. Each begins with the generation, which is left out here. All
    fields of an index have the same direction, so that a list can be read in both directions.
    """

    name: str
    store: Store
    version: int = 1
    indexes: tuple[Index, ...] = ()
    indexes_of_references: tuple[Index, ...] = ()
    """Further indexes, of only those documents that have a reference. The others cost them nothing."""
    personal: bool = False
    """True if the read model holds personal data. Then old generations are not kept, because an erasure would not reach them."""
    written_once: bool = False
    """True if no document is ever changed. Then its fields always have the order in which they were inserted."""


USERS: Final = ReadModel(
    "users",
    "mongo",
    version=3,
    indexes=(
        (("created_at", 1), ("_id", 1)),
        (("found_by", 1), ("created_at", 1), ("_id", 1)),
        (("status", 1), ("created_at", 1), ("_id", 1)),
        (("name", 1), ("_id", 1)),
        (("status", 1), ("name", 1), ("_id", 1)),
        (("search", 1),),
    ),
    personal=True,
)
"""{_id, name, email, metadata: pairs or null, status: active | inactive | erased, search: see `search_words`, found_by: see
`found_by_email`, created_at, changed_at, version, position}; of an erased user, name and email are empty texts, metadata is null,
and search and found_by are empty."""

ACCOUNTS: Final = ReadModel(
    "accounts",
    "mongo",
    version=5,
    indexes=(
        (("owner_id", 1), ("opened_at", 1), ("_id", 1)),
        (("status", 1), ("opened_at", 1), ("_id", 1)),
        (("currency", 1), ("opened_at", 1), ("_id", 1)),
        (("currency", 1), ("posted", 1), ("_id", 1)),
        (("opened_at", 1), ("_id", 1)),
        (("found_by", 1), ("opened_at", 1), ("_id", 1)),
    ),
)
"""{_id, owner_id, currency, status: open | frozen | closed, overdraft_limit, posted, holds, opened_at, changed_at, version,
position}; `holds` is the number of holds that have not ended in the log. Each of them is a field: see `read_models.holds`. An
account with metadata has also `metadata`, as JSON, and `found_by`. Its limits are fields too: see `LIMIT_NAMES`."""

TRANSFERS: Final = ReadModel(
    "transfers",
    "mongo",
    version=6,
    written_once=True,
    indexes=(
        # A later position never has an earlier `recorded_at`, so the order by position also serves filters by time.
        (("recorded_at", -1), ("position", -1)),
        (("found_by", 1), ("recorded_at", -1), ("position", -1)),
        (("currency", 1), ("amount", 1), ("_id", 1)),
        (("occurred_at", 1), ("_id", 1)),
    ),
    indexes_of_references=((("reference", 1), ("_id", 1)),),
)
"""{_id, kind: deposit | withdrawal | transfer | reversal | postings | exchange, from_account_id, to_account_id, found_by, amount,
currency, occurred_at, recorded_at, reference, metadata, hold_id, reverses, postings, position}; the outside world is None.
`found_by` is the ids of its accounts, the stream of the transfer that it reverses, and its kind, reference and metadata: see
`found_by`. A transfer with `postings` names no other accounts, and its `amount` is what moved in the currency of the first.
`occurred_at` is `recorded_at` if the event names no other moment. An exchange has `postings`, both ends, and also `exchange`:
{to_amount, to_currency, rate, remainder_account_id, remainder}. A run of a schedule also has `schedule_id`. A document is written
once and never changed: its reversals say what of a transfer was reversed."""

ENTRIES: Final = ReadModel(
    "entries",
    "mongo",
    version=3,
    written_once=True,
    indexes=(
        (("account_id", 1), ("occurred_at", 1), ("_id", 1)),
        (("account_id", 1), ("amount", 1), ("_id", 1)),
    ),
    indexes_of_references=((("account_id", 1), ("reference", 1), ("_id", 1)),),
)
"""{_id: "<account>/<position, 16 digits>", account_id, amount, occurred_at, reference, recorded_at, position, item: an `Entry` as
JSON}. `item` is the text that is answered. A list of an account's entries is a range of `_id`, and the entries of a kind, with a
counterparty or with metadata are those of the transfers that `TRANSFERS` finds. A document is written once and never changed."""

BALANCES: Final = ReadModel("balances", "redis", version=3)
"""`account:<id>`: a hash with the fields of an account's document. Answers questions about one account and its balance."""

STATISTICS: Final = ReadModel("statistics", "redis", version=2)
"""Hashes `users` (status → number), `accounts` (currency:status → number), `sums` (currency → posted), `outside`
(currency → balance of the outside world, from its own side of each transfer), `transfers` (day → number), `volumes` (day:currency
→ amount moved); sorted sets `ranking:<currency>` (accounts that are not closed, by balance; the score only gives their order) and
`busiest` (accounts by number of transfers). A day is that of `occurred_at`."""

ACTIVITY: Final = ReadModel("activity", "redis")
"""`recent`: a list of JSON objects, newest first, the last `ACTIVITY_MAX` transfers: the documents of `TRANSFERS`, with `id`
for `_id` and without `found_by`, `metadata`, `hold_id`, `reverses` and `postings`."""

HOLDS: Final = ReadModel(
    "holds",
    "mongo",
    version=2,
    indexes=(
        (("placed_at", 1), ("_id", 1)),
        (("found_by", 1), ("placed_at", 1), ("_id", 1)),
        (("status", 1), ("placed_at", 1), ("_id", 1)),
        (("status", 1), ("expires_at", 1)),
    ),
    indexes_of_references=((("reference", 1), ("_id", 1)),),
)
"""{_id, account_id, to_account_id, found_by, amount, captured, remaining, currency, status: active | captured | released |
expired, expires_at, placed_at, changed_at, reference, metadata, version, position}; an `active` one may have expired already.
`found_by` is the ids of its accounts, and its reference and metadata: see `found_by`."""

LIMIT_HISTORY: Final = ReadModel("limit-history", "mongo", written_once=True)
"""{_id: "<account>/<position, 16 digits>", item: a `LimitChange` as JSON}. A list of an account's changes is a range of `_id`."""

SHIFTS: Final = ReadModel("shifts", "mongo")
"""{_id: "<account>/<level>/<period>", within_billions, within_rest, start_billions, start_rest}: for each account a tree of
sums, see `read_models.sum_trees`. A document without `start_billions` and `start_rest` has nothing at its start."""

SCHEDULES: Final = ReadModel(
    "schedules",
    "mongo",
    indexes=(
        (("created_at", 1), ("_id", 1)),
        (("found_by", 1), ("created_at", 1), ("_id", 1)),
        (("status", 1), ("created_at", 1), ("_id", 1)),
        (("to_account_id", 1), ("created_at", 1), ("_id", 1)),
        (("status", 1), ("next_run.due_at", 1)),
    ),
)
"""{_id, owner_id, from_account_id, to_account_id, found_by, amount, currency, reference, metadata, rule, status: active |
cancelled | ended, next_run, run_count, refused_count, created_at, changed_at, version, position}; `rule` is a `ScheduleRule` or
None, `next_run` a `PlannedRun` or None, and `found_by` is the ids of the account that pays and of its owner, neither of
which changes."""

SCHEDULE_RUNS: Final = ReadModel("schedule-runs", "mongo", written_once=True)
"""{_id: "<schedule>/<number, 16 digits>", item: a `RecordedRun` as JSON}. The runs of a schedule are a range of `_id`."""

CURRENCY_SUMS: Final = ReadModel("currency-sums", "mongo")
"""Documents as in `SHIFTS`. The owners of the trees are `recorded_sum`, by position, and `shifted_sum`, by moment."""

DAYS: Final = ReadModel("days", "mongo", written_once=True, indexes=((("end", 1),),))
"""{_id: the day, time_zone, start, end, up_to, events, root, first_position, last_position, totals: [{currency, entries, moved,
paid_in, paid_out}], closed_at, position}: the days that were closed. `start` is the first moment of the day, and `end` that after
it."""

REPORTS: Final = ReadModel("reports", "sql", version=2, personal=True)
"""Rows of the tables in `shared.reporting.tables`: see there. The id of a row is `<table>/<id>`."""

SEARCH: Final = ReadModel("search", "search", personal=True)
"""Documents of OpenSearch, whose `resource` says what each is about:

`transfers/<id>`: {resource: transfer, account_ids, kind, from_account_id, to_account_id, amount, currency, occurred_at, month of
`occurred_at`, recorded_at, reference, metadata: pairs or null, metadata_values, position}.
`users/<id>`: {resource: user, name, email, status, metadata, metadata_values, recorded_at, position}; of an erased user, name and
email are empty texts, metadata is null and metadata_values is empty.
`accounts/<id>`: {resource: account, owner_id, position}: whose name the transfers of an account are found by."""

TIMELINE: Final = ReadModel("timeline", "timeline")
"""Rows of Cassandra:

`entries/<account>/<recorded_at>/<position, 16 digits>`: {transfer_id, kind, amount, balance, currency, counterparty_account_id,
occurred_at, reference, position}, as in `Entry`.
`days/<account>/<day>/<bucket>`: {currency, balance, position}: the balance after the last entry that was recorded on this day
with a position in this bucket. The day closed with that of the last bucket."""

READ_MODELS: Final = (
    USERS,
    ACCOUNTS,
    TRANSFERS,
    ENTRIES,
    BALANCES,
    STATISTICS,
    ACTIVITY,
    HOLDS,
    LIMIT_HISTORY,
    SHIFTS,
    SCHEDULES,
    SCHEDULE_RUNS,
    CURRENCY_SUMS,
    DAYS,
)
OPTIONAL_READ_MODELS: Final = (REPORTS, SEARCH, TIMELINE)
"""The read models of optional stores. They exist only where their store is in use."""

LIMIT_NAMES: Final = ("per_transfer_min", "per_transfer_max", "per_day", "per_month")
"""The fields of an account that limit what it may spend. An account has those of its limits, and no others."""

ACTIVITY_MAX: Final = 100
COPY_MARK: Final = "@"
TIMELINE_BUCKET: Final = 65_536
"""How many positions a bucket of the timeline has. An account has at most one entry for each."""
GENERATION_FIELD: Final = "generation"
"""The field that all indexes begin with, except the one on `_id`: see `read_models.documents`."""


def index_options(model: ReadModel) -> list[tuple[Index, dict[str, Any]]]:
    """Returns each index of a read model, which begins with the generation, and the options that MongoDB creates it with."""
    whole = [(keys, dict[str, Any]()) for keys in model.indexes]
    whole += [(keys, {"partialFilterExpression": {"reference": {"$gt": ""}}}) for keys in model.indexes_of_references]
    return [(((GENERATION_FIELD, 1), *keys), options) for keys, options in whole]


def index_text(keys: Iterable[Iterable[Any]], options: Mapping[str, Any]) -> str:
    """Returns an index as text, the same for a definition and for what a driver reads from MongoDB."""
    return json.dumps([[*map(list, keys)], options])


def labelled(model: ReadModel, label: str) -> ReadModel:
    """Returns the definition of a copy as of a past moment: the same read model under the name `<name>@<label>`."""
    return msgspec.structs.replace(model, name=f"{model.name}{COPY_MARK}{label}")


class Entry(msgspec.Struct, frozen=True):
    """One line of an account, as a query returns it. The stored document of an entry contains it as JSON text.

    `amount` is negative if the money left the account. `balance` is the account's balance after the transfer.
    `counterparty_account_id` is None for the outside world.
    """

    account_id: str
    transfer_id: str
    kind: str
    amount: int
    balance: int
    currency: str
    counterparty_account_id: str | None
    occurred_at: str
    recorded_at: str
    reference: str | None
    position: int


class LimitChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of the overdraft limit of an account, or of what it may spend, as a query returns it. It has one of the two."""

    position: int
    recorded_at: str
    overdraft_limit: int | None = None
    limits: dict[str, int | None] | None = None


class RecordedRun(msgspec.Struct, frozen=True):
    """A run of a schedule, as a query returns it: a transfer, or a refusal with the code of the rejection."""

    number: int
    due_at: str
    recorded_at: str
    position: int
    transfer_id: str | None = None
    refused: str | None = None


def recorded_sum(currency: str, side: str) -> str:
    """Returns the owner of the tree of what was recorded of a currency. `side` is `accounts` or `outside`."""
    return f"{currency}-{side}"


def shifted_sum(currency: str, side: str) -> str:
    """Returns the owner of the tree of what occurred at another moment than it was recorded."""
    return f"{currency}-{side}-shifted"


def entry_id(account_id: str, position: int) -> str:
    return f"{account_id}/{position:016d}"


def entry_position(entry_id: str) -> int:
    """Returns the position that is part of an entry's id; 0 if the text is not the id of an entry."""
    digits = entry_id.rpartition("/")[2]
    return int(digits) if re.fullmatch(r"[0-9]{16}", digits) else 0


def timeline_entry_id(account_id: str, recorded_at: str, position: int) -> str:
    return f"entries/{account_id}/{recorded_at}/{position:016d}"


def timeline_day_id(account_id: str, day: str, position: int) -> str:
    """Returns the id of the row of a day that an event at this position changes."""
    return f"days/{account_id}/{day}/{position // TIMELINE_BUCKET}"


def found_by(
    ids: Iterable[str | None] = (),
    *,
    kind: str | None = None,
    reference: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Returns the texts by which a document is found. A query asks for one of them, or for a document that has several.

    One index of all these texts costs a document as much as an index of each, and costs nothing for what a document lacks.
    """
    texts = [f"metadata.{name}={value}" for name, value in (metadata or {}).items()]
    texts += [f"reference={reference}"] if reference else []
    texts += [each for each in ids if each]
    return texts + ([f"kind={kind}"] if kind else [])


def found_by_email(email: str) -> list[str]:
    """Returns the text by which the user with this address is found. Addresses that differ only in case are the same."""
    return [f"email={email.lower()}"]


_WORD: Final = re.compile(r"[^\W_]+")


def search_words(text: str) -> list[str]:
    """Returns the words of a name, an address or a search text in lower case, without accents and without duplicates.

    A search finds a user if each of its words is the beginning of a word of the user's name or address.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return sorted(set(_WORD.findall("".join(letter for letter in letters if not unicodedata.combining(letter)))))
