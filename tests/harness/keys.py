"""API keys for tests: the operator's key, which is in the template of every test database, and keys that a test adds."""

import os
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from shared.identity.access import SCOPES
from shared.identity.api_keys import key_id_of
from shared.identity.credential_cache import hash_token


def new_token(key_id: str = "") -> str:
    key_id = key_id or "".join(secrets.choice("abcdefghij234567") for _ in range(10))
    return f"dbk_{key_id}_{secrets.token_urlsafe(32)}"


OPERATOR: Final = os.environ.get("OPERATOR_OF_TESTS") or new_token()
"""The operator's key. If `MIGRATED_POSTGRES` names a PostgreSQL that already has one, `OPERATOR_OF_TESTS` must be that key."""


def bearer(token: str = OPERATOR) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def add_key(
    database_url: str,
    name: str = "operator",
    *,
    token: str | None = None,
    scopes: Sequence[str] = SCOPES,
    ledger_id: str = "main",
    user_id: str | None = None,
    lifetime: timedelta | None = None,
) -> str:
    """Stores a new API key and returns its token. Unlike `make_key`, it can also store a key that has expired."""
    token = token or new_token()
    connection = await asyncpg.connect(
        database_url, ssl=False
    )  # if asyncpg asked for TLS and got none, it would leave a socket open
    try:
        await connection.execute(
            """
            INSERT INTO api_keys (key_id, ledger_id, principal, user_id, scopes, token_hash, expires_at, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, now() + $7, now())
            """,
            *(key_id_of(token), ledger_id, name, user_id, list(scopes), hash_token(token), lifetime),
        )
    finally:
        await connection.close()
    return token
