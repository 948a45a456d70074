"""The shapes that the projector writes and the query API reads: names, keys, documents, indexes, checkpoints.

A read model lives in one store and can stand there in several generations; a pointer names the live one. The checkpoint of a
generation lies beside its data and moves with them in one atomic step, so a store that was emptied or restored knows exactly
how far it is. A ledger without a pointer has no read model yet: that is «rebuilding», never «zero».

    MongoDB   read_models        {_id: "main/users", live: 2 | null, building: 3 | null, previous: 1 | null, notes}
              checkpoints        {_id: "main/users/1", position: 812, log_hash: that of event 812, model_version: 1,
                                  collection_uuid, retired: true once another generation is live}
              main.users.1       the documents
    Redis     daybook:{main}:balances                   hash: live, building, previous, notes; what is null is absent
              daybook:{main}:balances:1:checkpoint      "812"
              daybook:{main}:balances:1:origin          hash: log_hash (hexadecimal), model_version
              daybook:{main}:balances:1:<key>           the data; the braces keep a ledger on one node of a cluster

`previous` was live before and is kept for a rollback. Notes stand beside the pointer: `paused` (since when nothing may move),
`rate` (events a second of the last rebuild). A copy as of a
past moment is a read model of its own with a label in its name, `users@audit`, that no reader asks for.

`log_hash` ties a read model to the one history it was folded from: a log that was restored and went another way is noticed.
What keeps a projection from going on is its trouble. It is noted in the store that is not the read model's own, since that
one may be the one that fails:

    MongoDB   troubles           {_id: "main/balances", cause, position, since}
    Redis     daybook:{main}:troubles                   hash: "users" → JSON of the same

Money is stored as integers. Moments are RFC 3339 text (see `shared.events.timestamp`). A document's `position` is that of
the last event that changed it, its `version` the number of events of its stream, which is what `If-Match` expects.
"""

import re
import unicodedata
from typing import Any, Final, Literal

import msgspec
from motor.motor_asyncio import AsyncIOMotorCollection
from redis.asyncio import Redis

from shared.connections import MongoDatabase
from shared.errors import Rebuilding

Store = Literal["mongo", "redis"]
Index = tuple[tuple[str, int], ...]
Collection = AsyncIOMotorCollection[dict[str, Any]]

WAKE_CHANNEL: Final = "daybook:wake"
"""The command API publishes a ledger's id here after a commit. Only a hint: the projector also looks by itself."""

MOVED_CHANNEL: Final = "daybook:moved"
"""The projector publishes here where read models have come to: JSON, `{"main/users": 812}`. Only a hint: who waits also looks."""

HEALTH_KEY: Final = "daybook:projector:health"
"""Redis holds it while a projector lives, and a few seconds longer."""


class ReadModel(msgspec.Struct, frozen=True):
    """`version` changes with the shape or the meaning of the data; `indexes` are MongoDB's, without the one on `_id`.

    Fields that a list is ordered by have one direction: such an index can be read from both ends.
    """

    name: str
    store: Store
    version: int = 1
    indexes: tuple[Index, ...] = ()
    personal: bool = False
    """It holds what an erasure must remove: nothing that no longer follows the log is kept of it."""


class Generation(msgspec.Struct, frozen=True):
    """One copy of a ledger's read model. `position` is its checkpoint: all events up to it are in."""

    model: ReadModel
    ledger_id: str
    number: int
    position: int = 0

    def collection(self, database: MongoDatabase) -> Collection:
        return database[f"{self.ledger_id}.{self.model.name}.{self.number}"]

    def key(self, *parts: str) -> str:
        return ":".join((pointer_key(self.model, self.ledger_id), str(self.number), *parts))


# ── the read models ──────────────────────────────────────────────────────────────────────────────────────────────────

USERS: Final = ReadModel(
    "users",
    "mongo",
    indexes=(
        (("created_at", 1), ("_id", 1)),
        (("status", 1), ("created_at", 1), ("_id", 1)),
        (("name", 1), ("_id", 1)),
        (("search", 1),),
    ),
    personal=True,
)
"""{_id, name, email, status: active | inactive | erased, search: see `search_words`, created_at, changed_at, version,
position}; of an erased user, name and email are empty texts and search has no words."""

ACCOUNTS: Final = ReadModel(
    "accounts",
    "mongo",
    indexes=(
        (("owner_id", 1), ("_id", 1)),
        (("currency", 1), ("posted", 1), ("_id", 1)),
        (("opened_at", 1), ("_id", 1)),
    ),
)
"""{_id, owner_id, currency, status: open | frozen | closed, overdraft_limit, posted, held, opened_at, changed_at, version,
position}"""

TRANSFERS: Final = ReadModel(
    "transfers",
    "mongo",
    indexes=(
        # `recorded_at` never falls as `position` grows, so one order serves both, and a filter by time is a range of it.
        (("recorded_at", -1), ("position", -1)),
        (("account_ids", 1), ("recorded_at", -1), ("position", -1)),
        (("currency", 1), ("amount", 1), ("_id", 1)),
        (("occurred_at", 1), ("_id", 1)),
    ),
)
"""{_id, kind: deposit | withdrawal | transfer, from_account_id, to_account_id, account_ids, amount, currency, occurred_at,
recorded_at, reference, metadata, position}; an account that is the outside world is None. `occurred_at` is `recorded_at`
where the event names no other. Written once."""

ENTRIES: Final = ReadModel("entries", "mongo", version=2)
"""{_id: "<account>/<position, 16 digits>", amount, recorded_at, position, item: an `Entry` as JSON}: what it is found by, and
the text that is answered. A page of an account is a range of `_id`. Written once."""

BALANCES: Final = ReadModel("balances", "redis")
"""`account:<id>`: a hash with the fields of an account's document. Serves single accounts and their balances."""

STATISTICS: Final = ReadModel("statistics", "redis")
"""Hashes `users` (status → number), `accounts` (currency:status → number), `sums` (currency → posted), `transfers`
(day → number), `volumes` (day:currency → amount moved); sorted sets `ranking:<currency>` (accounts that are not closed, by
balance; a score only orders) and `busiest` (account by number of transfers). A day is that of `occurred_at`."""

ACTIVITY: Final = ReadModel("activity", "redis")
"""`recent`: a list of JSON objects, newest first, the last `ACTIVITY_MAX` transfers: the documents of `TRANSFERS`, with `id`
for `_id` and without `account_ids` and `metadata`."""

READ_MODELS: Final = (USERS, ACCOUNTS, TRANSFERS, ENTRIES, BALANCES, STATISTICS, ACTIVITY)
ACTIVITY_MAX: Final = 100
COPY_MARK: Final = "@"


def labelled(model: ReadModel, label: str) -> ReadModel:
    """The copy of a read model as of a past moment."""
    return msgspec.structs.replace(model, name=f"{model.name}{COPY_MARK}{label}")


class Entry(msgspec.Struct, frozen=True):
    """One side of a movement of money, as it is answered: the text that an entry's document holds is this as JSON.

    `amount` is negative where it left the account, `balance` what was there after it. None is the outside world.
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


def entry_id(account_id: str, position: int) -> str:
    return f"{account_id}/{position:016d}"


def entry_position(entry_id: str) -> int:
    """0 for what is no entry's id."""
    digits = entry_id.rpartition("/")[2]
    return int(digits) if re.fullmatch(r"[0-9]{16}", digits) else 0


_WORD: Final = re.compile(r"[^\W_]+")


def search_words(text: str) -> list[str]:
    """The words of a name, an address or a search: lower case, without accents, each once.

    A user is found when every word of the search begins a word of the user's name or address.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return sorted(set(_WORD.findall("".join(letter for letter in letters if not unicodedata.combining(letter)))))


# ── pointers and checkpoints ─────────────────────────────────────────────────────────────────────────────────────────


def pointer_id(model: ReadModel, ledger_id: str) -> str:
    return f"{ledger_id}/{model.name}"


def checkpoint_id(generation: Generation) -> str:
    return f"{pointer_id(generation.model, generation.ledger_id)}/{generation.number}"


def pointer_key(model: ReadModel, ledger_id: str) -> str:
    return f"daybook:{{{ledger_id}}}:{model.name}"


async def live_generation(mongo: MongoDatabase, redis: "Redis", model: ReadModel, ledger_id: str) -> Generation:
    """The generation that readers see, at its present position.

    Raises:
        Rebuilding: there is none yet.
    """
    number = await _live_number(mongo, redis, model, ledger_id)
    if number is not None:
        generation = Generation(model, ledger_id, number)
        position = await read_checkpoint(mongo, redis, generation)
        if position is not None:
            return msgspec.structs.replace(generation, position=position)
    msg = f"The read model {model.name!r} is being rebuilt."
    raise Rebuilding(msg, projection=model.name)


async def read_checkpoint(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> int | None:
    """The position up to which the generation holds everything; None where it does not exist."""
    if generation.model.store == "mongo":
        checkpoint = await mongo.checkpoints.find_one({"_id": checkpoint_id(generation)})
        return checkpoint["position"] if checkpoint else None
    stored = await redis.get(generation.key("checkpoint"))
    return int(stored) if stored is not None else None


async def _live_number(mongo: MongoDatabase, redis: "Redis", model: ReadModel, ledger_id: str) -> int | None:
    if model.store == "mongo":
        pointer = await mongo.read_models.find_one({"_id": pointer_id(model, ledger_id)})
        return pointer["live"] if pointer else None
    stored = await redis.hget(pointer_key(model, ledger_id), "live")  # type: ignore[misc]  # typed for both clients at once
    return int(stored) if stored else None


# ── what keeps a projection from going on ────────────────────────────────────────────────────────────────────────────


class Trouble(msgspec.Struct, frozen=True):
    """`position` is where the read model stands, `since` when this cause was first seen (see `shared.events.timestamp`)."""

    cause: str
    position: int
    since: str


def troubles_key(ledger_id: str) -> str:
    return f"daybook:{{{ledger_id}}}:troubles"


async def read_troubles(mongo: MongoDatabase, redis: "Redis", ledger_id: str) -> dict[str, Trouble]:
    """Read model → why it does not go on, for those that do not."""
    models = {pointer_id(model, ledger_id): model.name for model in READ_MODELS if model.store == "redis"}
    noted = await mongo.troubles.find({"_id": {"$in": list(models)}}).to_list(None)
    troubles = {models[found.pop("_id")]: msgspec.convert(found, Trouble) for found in noted}
    fields = await redis.hgetall(troubles_key(ledger_id))  # type: ignore[misc]  # typed for both clients at once
    return troubles | {name: msgspec.json.decode(found, type=Trouble) for name, found in fields.items()}
