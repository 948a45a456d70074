"""Signed tokens: JWTs that an identity provider has signed for a service. Daybook verifies them with the provider's public keys.

The algorithm is always that of the key, never the one that the token names. A token contains the caller's subject and scopes. Its
caller is always a service, never a customer.
"""

import math
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt

from shared.errors import Unauthorized
from shared.identity.access import SCOPES, Principal
from shared.identity.credential_cache import CredentialDenied, VerifiedCredential
from shared.input_types import LEDGER_ID

LEEWAY_SECONDS: Final = 30
LIFETIME_MAX_SECONDS: Final = 3_600
"""The longest lifetime of a token. A token with a longer lifetime is not valid, because tokens cannot be revoked."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]{2,}){2}")
_SUBJECT: Final = re.compile(r"[\x21-\x7e]{1,128}")
SIGNED_SCOPES: Final = frozenset(SCOPES) - {"credentials:write"}
"""The scopes that a signed token can carry. What `credentials:write` issues must end with its issuer; nobody can end a token."""
_REQUIRED: Final = ("iss", "aud", "sub", "iat", "exp")
PublicKeys = Mapping[str, jwt.PyJWK]
"""Public keys by key id."""


class SignedTokens:
    """Verifies the tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, keys: PublicKeys) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys

    def matches(self, token: str) -> bool:
        return _TOKEN.fullmatch(token) is not None

    async def verify(self, token: str) -> VerifiedCredential:
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            key = self._keys.get(key_id) if isinstance(key_id, str) else None
            if key is None or "crit" in header:
                raise Unauthorized
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                # PyJWT takes text for a time, so `_found` checks the times.
                options={"require": list(_REQUIRED), "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        # A signature only proves who made the token. Its claims can still be of any type and size.
        except (jwt.InvalidTokenError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise Unauthorized from None
        return _found(claims, str(key_id))

    async def close(self) -> None:
        """Does nothing, because this object holds no connections."""


def _found(claims: Mapping[str, Any], key_id: str) -> VerifiedCredential:
    """Returns the principal that the claims describe. Its name begins with `jwt:`, so it never equals the name of an API key.

    Raises:
        Unauthorized: a claim has the wrong form, or the lifetime of the token is too long.
        CredentialDenied: the token is not valid yet, or not any more.
    """
    subject, ledger_id, scopes = claims["sub"], claims.get("ledger", "main"), claims.get("scope", "")
    if not (isinstance(ledger_id, str) and LEDGER_ID.fullmatch(ledger_id)):
        raise Unauthorized
    if not (_SUBJECT.fullmatch(subject) and isinstance(scopes, str)):
        raise Unauthorized
    begins_at, issued_at, ends_at = claims.get("nbf", claims["iat"]), claims["iat"], claims["exp"]
    if not all(map(_is_number, (begins_at, issued_at, ends_at))) or not 0 < ends_at - issued_at <= LIFETIME_MAX_SECONDS:
        raise Unauthorized
    principal = Principal(f"jwt:{subject}", key_id, ledger_id, None, SIGNED_SCOPES & frozenset(scopes.split()))
    now = time.time()
    if max(begins_at, issued_at) > now + LEEWAY_SECONDS or ends_at <= now - LEEWAY_SECONDS:
        raise CredentialDenied(principal)
    return VerifiedCredential(principal, ends_at + LEEWAY_SECONDS - now)


def _is_number(value: object) -> bool:
    """True for a finite number of JSON, and not for `true`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
