"""Revokes and rotates API keys for callers of the API. These acts are not in the ledger's log; they have audit records.

A caller needs all scopes of the key that it revokes or rotates. So a key that may only read metrics ends no other key, and the
token of a rotated key allows nothing that its maker could not do before.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import ApiKeyError, Forbidden, NotFound
from shared.identity import api_keys
from shared.identity.access import Principal
from shared.identity.api_keys import ApiKey, RotatedKey
from shared.identity.audit_records import ActCaller

NO_VALID_KEY: Final = "There is no such key that is not revoked."


class ApiKeyChanges:
    """Changes the keys of all ledgers. `principal` is the caller, who must be no customer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def revoke(self, ledger_id: str, key_id: str, principal: Principal, caller: ActCaller) -> list[str]:
        """Revokes a key and the keys that were made with it. Returns the ids of those that this has ended.

        Raises:
            NotFound: the ledger has no such key.
            Forbidden: the key has a scope that the caller lacks.
        """
        async with self._engine.begin() as connection:
            await _lesser_key(connection, ledger_id, key_id, principal)
            with suppress(ApiKeyError):  # it was revoked before
                return await api_keys.revoke_key(connection, key_id, caller)
            return []

    async def rotate(
        self, ledger_id: str, key_id: str, overlap: timedelta, principal: Principal, caller: ActCaller
    ) -> RotatedKey:
        """Makes a new key for the holder of a key. It ends with the caller's key at the latest. The old one ends after `overlap`.

        Raises:
            NotFound: the ledger has no such key, or it was revoked.
            Forbidden: the key has a scope that the caller lacks.
        """
        async with self._engine.begin() as connection:
            key = await _lesser_key(connection, ledger_id, key_id, principal)
            rotated = await api_keys.rotate_key_with(connection, key, principal.key_id, overlap, caller)
        if rotated is None:
            raise NotFound(NO_VALID_KEY)
        return rotated


async def _lesser_key(connection: AsyncConnection, ledger_id: str, key_id: str, principal: Principal) -> ApiKey:
    key = await api_keys.find_key(connection, ledger_id, key_id)
    if key is None:
        raise NotFound
    if not principal.scopes.issuperset(key.scopes):
        raise Forbidden
    return key
