"""Stores person keys: one key for each person of a ledger, wrapped by a master key, in the table `person_keys`.

The transaction that records a person creates the key, and the transaction that records the erasure deletes the key. A process
keeps a key in memory only for one batch or one read of events, so an erasure takes effect everywhere as soon as it is committed.
All SQL on `person_keys` is in this module.

Every method uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import LogDamaged, MasterKeyUnknown
from shared.privacy.encryption import DecryptionFailed, new_key
from shared.privacy.master_keys import master_key_id, unwrap, wrap
from shared.setting_values import read_master_keys
from shared.settings import Settings

ADDRESSES: Final = "addresses"
"""Used in place of a person's id: the name of the key for hashes of e-mail addresses and of requests about people."""

_READ: Final = text("""
    SELECT person_id, wrapped_key, master_key_id FROM person_keys
    WHERE ledger_id = :ledger_id AND person_id = ANY (CAST(:person_ids AS text[]))
""")
_INSERT: Final = text("""
    INSERT INTO person_keys (ledger_id, person_id, wrapped_key, master_key_id)
    SELECT :ledger_id, person_id, wrapped_key, :master_key_id
    FROM unnest(CAST(:person_ids AS text[]), CAST(:wrapped_keys AS bytea[])) AS k (person_id, wrapped_key)
""")
_INSERT_FIRST: Final = text(f"""{_INSERT.text}
    WHERE NOT EXISTS (SELECT FROM log_heads WHERE ledger_id = :ledger_id AND position > 0) ON CONFLICT DO NOTHING
""")
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
"""A person's id, the wrapped person key, and the id of the master key that wraps it."""


class PersonKeys:
    """Reads and writes person keys. The object keeps only the master keys in memory."""

    def __init__(self, settings: Settings) -> None:
        master_keys = read_master_keys(settings.master_keys.get_secret_value())
        self._master_keys = {master_key_id(key): key for key in master_keys}
        self._newest = master_keys[0]
        self.newest_id: Final = master_key_id(self._newest)

    async def read(self, connection: AsyncConnection, ledger_id: str, person_ids: Iterable[str]) -> dict[str, bytes]:
        """Returns the keys of these people, by the person's id. A person without a key is left out.

        Raises:
            MasterKeyUnknown: a stored key is wrapped by a master key that the settings do not contain.
            LogDamaged: a stored key was changed, or belongs to another person.
        """
        wanted = sorted(person_ids)
        if not wanted:
            return {}
        rows = await connection.execute(_READ, {"ledger_id": ledger_id, "person_ids": wanted})
        return {row[0]: self._unwrapped(ledger_id, *row[:3]) for row in rows}

    async def require(
        self, connection: AsyncConnection, ledger_id: str, person_ids: Iterable[str], new: Iterable[str]
    ) -> dict[str, bytes]:
        """Returns the keys of all these people. Creates keys for the people in `new`, who must not have keys yet.

        Raises:
            LogDamaged: a person who is not in `new` has no key.
            sqlalchemy.exc.IntegrityError: a person in `new` already has a key, which another transaction created. Retry in a
                new transaction.
        """
        wanted, created = set(person_ids), {person_id: new_key() for person_id in new}
        await self._insert(connection, _INSERT, ledger_id, created)
        keys = created | await self.read(connection, ledger_id, wanted - created.keys())
        if missing := wanted - keys.keys():
            raise LogDamaged(f"ledger {ledger_id!r} has no key for person {min(missing)}, who was not erased")
        return keys

    async def forget(self, connection: AsyncConnection, ledger_id: str, person_ids: Iterable[str]) -> None:
        """Deletes the keys of these people, which erases the people."""
        if wanted := sorted(person_ids):
            await connection.execute(_DELETE, {"ledger_id": ledger_id, "person_ids": wanted})

    async def pepper(self, connection: AsyncConnection, ledger_id: str) -> bytes:
        """Returns the ledger's key for hashes of e-mail addresses and of requests about people.

        Creates it if the ledger has no events yet. Later it cannot be created again: with another key, every address would have
        another hash, so an address could be taken twice and nobody could log in.

        Raises:
            LogDamaged: the ledger has events, and the key is missing.
        """
        keys = await self.read(connection, ledger_id, [ADDRESSES])
        if not keys:
            await self._insert(connection, _INSERT_FIRST, ledger_id, {ADDRESSES: new_key()})
            keys = await self.read(connection, ledger_id, [ADDRESSES])
        if not keys:
            raise LogDamaged(
                f"ledger {ledger_id!r} has lost the key that hashes e-mail addresses: restore the row with person_id "
                f"{ADDRESSES!r} of the table person_keys from a backup of PostgreSQL"
            )
        return keys[ADDRESSES]

    async def read_ids(self, connection: AsyncConnection, ledger_id: str) -> set[str]:
        """Returns the ids of all people of a ledger who have a key."""
        return set((await connection.execute(_READ_IDS, {"ledger_id": ledger_id, "addresses": ADDRESSES})).scalars())

    async def read_wrapped(self, connection: AsyncConnection, ledger_id: str) -> list[WrappedKey]:
        """Returns all keys of a ledger in their wrapped form, including the key named `ADDRESSES`."""
        return [(row[0], row[1], row[2]) for row in await connection.execute(_READ_WRAPPED, {"ledger_id": ledger_id})]

    async def replace(self, connection: AsyncConnection, ledger_id: str, rows: Iterable[WrappedKey]) -> None:
        """Replaces all keys of a ledger with wrapped keys from another copy of this ledger.

        Raises:
            MasterKeyUnknown: a key is wrapped by a master key that the settings do not contain.
            LogDamaged: a key was changed, or does not belong to its person.
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
        """Wraps up to `limit` keys of older master keys with the newest master key, and returns their number.

        The person keys themselves do not change. Their rows stay locked until the transaction ends.
        """
        rows = (await connection.execute(_READ_OLD, {"master_key_id": self.newest_id, "limit": limit})).all()
        wrapped = [wrap(self._unwrapped(row[3], *row[:3]), self._newest, _context(row[3], row[0])) for row in rows]
        if rows:
            columns = {"ledger_ids": [row[3] for row in rows], "person_ids": [row[0] for row in rows], "wrapped_keys": wrapped}
            await connection.execute(_REWRAP, {"master_key_id": self.newest_id, **columns})
        return len(rows)

    async def count_old(self, connection: AsyncConnection) -> int:
        """Returns the number of keys that are not wrapped by the newest master key."""
        return int(await connection.scalar(_COUNT_OLD, {"master_key_id": self.newest_id}) or 0)

    async def _insert(self, connection: AsyncConnection, insert: Any, ledger_id: str, keys: Mapping[str, bytes]) -> None:
        if keys:
            wrapped = [wrap(key, self._newest, _context(ledger_id, person_id)) for person_id, key in keys.items()]
            values = {"person_ids": list(keys), "wrapped_keys": wrapped, "master_key_id": self.newest_id}
            await connection.execute(insert, {"ledger_id": ledger_id, **values})

    def _unwrapped(self, ledger_id: str, person_id: str, wrapped: bytes, key_id: str) -> bytes:
        master_key = self._master_keys.get(key_id)
        if master_key is None:
            raise MasterKeyUnknown(f"keys of people are wrapped by master key {key_id}, which DAYBOOK_MASTER_KEYS does not name")
        try:
            return unwrap(wrapped, master_key, _context(ledger_id, person_id))
        except DecryptionFailed as broken:
            raise LogDamaged(f"ledger {ledger_id!r}, person {person_id}: {broken}") from broken


def _context(ledger_id: str, person_id: str) -> tuple[str, ...]:
    return "person-key", ledger_id, person_id
