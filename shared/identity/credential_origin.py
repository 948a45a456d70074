"""The origin of a password: the API key that issued the reset token with which the password was set.

A credential never outlives the one that it comes from. So a reset token, a password and its sessions are valid only while their
origin lasts: the key was not revoked, and it or a key that replaced it by rotation has neither expired nor been revoked. What an
origin opens has at most the origin's scopes. The password and its sessions keep both when a user changes the password, because
whoever knows the current password can do that.
"""

from typing import Final

import msgspec
from sqlalchemy import text

from shared.identity.access import CUSTOMER_SCOPES

SECONDS_LEFT: Final = """(
    SELECT max(coalesce(extract(epoch FROM valid.expires_at - now())::float8, 'Infinity'))
    FROM api_keys origin
    JOIN api_keys valid ON valid.ledger_id = origin.ledger_id AND valid.principal = origin.principal
    WHERE origin.key_id = {origin_key_id} AND origin.revoked_at IS NULL
      AND valid.created_at >= origin.created_at AND valid.revoked_at IS NULL
      AND (valid.expires_at IS NULL OR valid.expires_at > now())
)"""
"""SQL for the seconds until an origin ends: infinity if it never expires, NULL if it has ended. Keys of a principal are rotations
of one key, because no two callers of a ledger ever have the same principal."""

READ_SECONDS_LEFT: Final = text(f"SELECT {SECONDS_LEFT.format(origin_key_id=':origin_key_id')}")


class Origin(msgspec.Struct, frozen=True):
    """The key that a credential comes from, and the scopes that the credential can give."""

    key_id: str
    scopes: tuple[str, ...]

    @classmethod
    def of_issuer(cls, key_id: str, scopes: frozenset[str]) -> "Origin":
        """Returns the origin of what a key issues to a customer: the scopes that the key has and a customer can use."""
        return cls(key_id, tuple(scope for scope in CUSTOMER_SCOPES if scope in scopes))
