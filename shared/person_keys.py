"""The keys of people: one for each person of a ledger, wrapped by a master key, in a table of their own.

A key is made in the transaction that records the person and deleted in the one that records the erasure. Nobody keeps keys in
memory beyond one batch or page: an erasure counts for every process from its commit on. The only SQL on `person_keys`.

Every function takes the caller's connection: none of them begins or commits.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import LogDamaged, MasterKeyUnknown
from shared.event_store import StoredEvent
from shared.events import EVENT_TYPES
from shared.personal_data import Keys, SealBroken, new_key, people_in, personal_fields, read_master_keys, unwrap, wrap
from shared.settings import Settings

ADDRESSES: Final = "addresses"
"""Stands where a person's id does, and is none: the key that e-mail addresses and requests about people are hashed with."""

_READ: Final = text("""
    SELECT person_id, wrapped_key, master_key_id FROM person_keys
    WHERE ledger_id = :ledger_id AND person_id = ANY (CAST(:person_ids AS text[]))
""")
_INSERT: Final = text("""
    INSERT INTO person_keys (ledger_id, person_id, wrapped_key, master_key_id)
    SELECT :ledger_id, person_id, wrapped_key, :master_key_id
    FROM unnest(CAST(:person_ids AS text[]), CAST(:wrapped_keys AS bytea[])) AS k (person_id, wrapped_key)
""")
_INSERT_ONCE: Final = text(f"{_INSERT.text} ON CONFLICT DO NOTHING")
_DELETE: Final = text("""
    DELETE FROM person_keys WHERE ledger_id = :ledger_id AND person_id = ANY (CAST(:person_ids AS text[]))
""")
_READ_IDS: Final = text("SELECT person_id FROM person_keys WHERE ledger_id = :ledger_id AND person_id <> :addresses")
_READ_OLD: Final = text("""
    SELECT person_id, wrapped_key, master_key_id, ledger_id FROM person_keys
    WHERE master_key_id <> :master_key_id ORDER BY ledger_id, person_id LIMIT :limit FOR UPDATE SKIP LOCKED
""")
_REWRAP: Final = text("""
    UPDATE person_keys p SET wrapped_key = k.wrapped_key, master_key_id = :master_key_id
    FROM unnest(CAST(:ledger_ids AS text[]), CAST(:person_ids AS text[]), CAST(:wrapped_keys AS bytea[]))
         AS k (ledger_id, person_id, wrapped_key)
    WHERE p.ledger_id = k.ledger_id AND p.person_id = k.person_id
""")
_READ_WRAPPED: Final = text("""
    SELECT person_id, wrapped_key, master_key_id FROM person_keys WHERE ledger_id = :ledger_id ORDER BY person_id
""")
_DELETE_ALL: Final = text("DELETE FROM person_keys WHERE ledger_id = :ledger_id")
_COUNT_OLD: Final = text("SELECT count(*) FROM person_keys WHERE master_key_id <> :master_key_id")

WrappedKey = tuple[str, bytes, str]
"""A person's id, their key as a master key wraps it, and which master key that is."""


def master_key_id(master_key: bytes) -> str:
    """Names a master key without telling it."""
    return hashlib.sha256(b"daybook master key\x00" + master_key).hexdigest()[:16]


class PersonKeys:
    """Reads and writes keys. Nothing but the master keys stays in it."""

    def __init__(self, settings: Settings) -> None:
        master_keys = read_master_keys(settings.master_keys.get_secret_value())
        self._master_keys = {master_key_id(key): key for key in master_keys}
        self._newest = master_keys[0]
        self.newest_id: Final = master_key_id(self._newest)

    async def read(self, connection: AsyncConnection, ledger_id: str, person_ids: Iterable[str]) -> dict[str, bytes]:
        """The keys of those who have one.

        Raises:
            MasterKeyUnknown: a key is there and cannot be unwrapped. That must never be taken for an erasure.
        """
        wanted = sorted(person_ids)
        if not wanted:
            return {}
        rows = await connection.execute(_READ, {"ledger_id": ledger_id, "person_ids": wanted})
        return {row[0]: self._unwrapped(ledger_id, *row[:3]) for row in rows}

    async def read_for(self, connection: AsyncConnection, events: Iterable[StoredEvent]) -> Keys:
        """What it takes to decode events of one ledger; no round trip where they hold nothing personal."""
        ledger_id, people = "", set()
        for stored in events:
            if stored.type in PERSONAL_TYPES:
                ledger_id = stored.ledger_id
                people |= people_in(EVENT_TYPES[stored.type], msgspec.json.decode(stored.data))
        return await self.read(connection, ledger_id, people)

    async def require(
        self, connection: AsyncConnection, ledger_id: str, person_ids: Iterable[str], new: Iterable[str]
    ) -> dict[str, bytes]:
        """The keys of all these people; of `new` ones, who have none yet, they are made.

        Raises:
            LogDamaged: somebody who is neither new nor erased has no key.
            sqlalchemy.exc.IntegrityError: another transaction made a new one's key first; begin anew.
        """
        wanted, created = set(person_ids), {person_id: new_key() for person_id in new}
        await self._insert(connection, _INSERT, ledger_id, created)
        keys = created | await self.read(connection, ledger_id, wanted - created.keys())
        if missing := wanted - keys.keys():
            raise LogDamaged(f"ledger {ledger_id!r} has no key for person {min(missing)}, who was not erased")
        return keys

    async def forget(self, connection: AsyncConnection, ledger_id: str, person_ids: Iterable[str]) -> None:
        """For good."""
        if wanted := sorted(person_ids):
            await connection.execute(_DELETE, {"ledger_id": ledger_id, "person_ids": wanted})

    async def pepper(self, connection: AsyncConnection, ledger_id: str) -> bytes:
        """The ledger's key for hashing what must be found again and must not be guessed; made when it is first needed."""
        keys = await self.read(connection, ledger_id, [ADDRESSES])
        if not keys:
            await self._insert(connection, _INSERT_ONCE, ledger_id, {ADDRESSES: new_key()})
            keys = await self.read(connection, ledger_id, [ADDRESSES])
        return keys[ADDRESSES]

    async def read_ids(self, connection: AsyncConnection, ledger_id: str) -> set[str]:
        """Everybody who has a key."""
        return set((await connection.execute(_READ_IDS, {"ledger_id": ledger_id, "addresses": ADDRESSES})).scalars())

    async def read_wrapped(self, connection: AsyncConnection, ledger_id: str) -> list[WrappedKey]:
        """All keys of a ledger as they are stored, the one of its addresses among them."""
        return [(row[0], row[1], row[2]) for row in await connection.execute(_READ_WRAPPED, {"ledger_id": ledger_id})]

    async def replace(self, connection: AsyncConnection, ledger_id: str, rows: Iterable[WrappedKey]) -> None:
        """Gives a ledger the keys of another copy of it, and takes those away that it has.

        Raises:
            MasterKeyUnknown: none of the master keys can unwrap one.
            LogDamaged: one is not a key of this person.
        """
        await connection.execute(_DELETE_ALL, {"ledger_id": ledger_id})
        by_master_key: dict[str, dict[str, bytes]] = {}
        for person_id, wrapped, key_id in rows:
            self._unwrapped(ledger_id, person_id, wrapped, key_id)
            by_master_key.setdefault(key_id, {})[person_id] = wrapped
        for key_id, wrapped_keys in by_master_key.items():
            values = {"person_ids": list(wrapped_keys), "wrapped_keys": list(wrapped_keys.values()), "master_key_id": key_id}
            await connection.execute(_INSERT, {"ledger_id": ledger_id, **values})

    async def rewrap(self, connection: AsyncConnection, limit: int) -> int:
        """Wraps some keys, which stay locked, with the newest master key; the number of them. Keys themselves never change."""
        rows = (await connection.execute(_READ_OLD, {"master_key_id": self.newest_id, "limit": limit})).all()
        wrapped = [wrap(self._unwrapped(row[3], *row[:3]), self._newest, _place(row[3], row[0])) for row in rows]
        if rows:
            columns = {"ledger_ids": [row[3] for row in rows], "person_ids": [row[0] for row in rows], "wrapped_keys": wrapped}
            await connection.execute(_REWRAP, {"master_key_id": self.newest_id, **columns})
        return len(rows)

    async def count_old(self, connection: AsyncConnection) -> int:
        """Keys that an older master key wraps."""
        return int(await connection.scalar(_COUNT_OLD, {"master_key_id": self.newest_id}) or 0)

    async def _insert(self, connection: AsyncConnection, insert: Any, ledger_id: str, keys: Mapping[str, bytes]) -> None:
        if keys:
            wrapped = [wrap(key, self._newest, _place(ledger_id, person_id)) for person_id, key in keys.items()]
            values = {"person_ids": list(keys), "wrapped_keys": wrapped, "master_key_id": self.newest_id}
            await connection.execute(insert, {"ledger_id": ledger_id, **values})

    def _unwrapped(self, ledger_id: str, person_id: str, wrapped: bytes, key_id: str) -> bytes:
        master_key = self._master_keys.get(key_id)
        if master_key is None:
            raise MasterKeyUnknown(f"keys of people are wrapped by master key {key_id}, which DAYBOOK_MASTER_KEYS does not name")
        try:
            return unwrap(wrapped, master_key, _place(ledger_id, person_id))
        except SealBroken as broken:
            raise LogDamaged(f"ledger {ledger_id!r}, person {person_id}: {broken}") from broken


def _place(ledger_id: str, person_id: str) -> tuple[str, ...]:
    return "person-key", ledger_id, person_id


PERSONAL_TYPES: Final = frozenset(name for name, kind in EVENT_TYPES.items() if personal_fields(kind))
