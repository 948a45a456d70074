"""Tokens that an identity provider has signed for a service: JWTs, checked with its public keys and without asking anybody.

The key decides the algorithm, never the token. What a token says of the caller is its subject and its scopes; it stands for
services only, and never for a customer.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec

from shared.access import SCOPES, Principal
from shared.callers import Found
from shared.errors import Unauthorized
from shared.fields import LEDGER_ID

LEEWAY_SECONDS: Final = 30
LIFETIME_MAX_SECONDS: Final = 3_600
"""Nobody can revoke such a token, so none is taken that was made for longer."""
RSA_BITS_MIN: Final = 2_048

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]{2,}){2}")
_SUBJECT: Final = re.compile(r"[\x21-\x7e]{1,128}")
_REQUIRED: Final = ("iss", "aud", "sub", "iat", "exp")
_ALGORITHMS: Final = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256"}
"""Of public keys only: no secret that both sides share, no "none"."""

Keys = Mapping[str, jwt.PyJWK]
"""By key id."""


class SignedTokens:
    """Those of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, keys: Keys) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys

    def recognises(self, token: str) -> bool:
        return _TOKEN.fullmatch(token) is not None

    async def look(self, token: str) -> Found:
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
                leeway=LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise Unauthorized from None
        return _found(claims, str(key_id))

    async def close(self) -> None:
        """Nothing is open."""


def _found(claims: Mapping[str, Any], key_id: str) -> Found:
    """`jwt:` keeps these callers apart from those with an API key of the same name."""
    subject, ledger_id, scopes = claims["sub"], claims.get("ledger", "main"), claims.get("scope", "")
    if not (isinstance(ledger_id, str) and LEDGER_ID.fullmatch(ledger_id)):
        raise Unauthorized
    if not (_SUBJECT.fullmatch(subject) and isinstance(scopes, str)):
        raise Unauthorized
    if not 0 < claims["exp"] - claims["iat"] <= LIFETIME_MAX_SECONDS:
        raise Unauthorized
    principal = Principal(f"jwt:{subject}", key_id, ledger_id, None, frozenset(SCOPES) & frozenset(scopes.split()))
    return Found(principal, claims["exp"] + LEEWAY_SECONDS - time.time())


# ── the keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_public_keys(setting: str) -> dict[str, jwt.PyJWK]:
    """A JWK set: its JSON, or the path of a file that has it.

    Raises:
        ValueError: says which key cannot be used; the set itself is not repeated.
    """
    try:
        text = setting if setting.lstrip().startswith("{") else Path(setting).read_text()
        found = msgspec.json.decode(text, type=_KeySet).keys
    except (OSError, ValueError):
        raise ValueError("must be a JWK set, or a file that has one") from None
    keys: dict[str, jwt.PyJWK] = {}
    for number, members in enumerate(found, 1):
        key_id = members.get("kid")
        if not isinstance(key_id, str) or not key_id or key_id in keys:
            raise ValueError(f"key {number} has no kid of its own")
        keys[key_id] = _public_key(members, number)
    if not keys:
        raise ValueError("must have a key")
    return keys


def _public_key(members: dict[str, Any], number: int) -> jwt.PyJWK:
    algorithm = _ALGORITHMS.get((members.get("kty", ""), members.get("crv")))
    if algorithm is None or members.get("alg", algorithm) != algorithm or members.get("use", "sig") != "sig":
        raise ValueError(f"key {number} is none for signatures by {', '.join(sorted(_ALGORITHMS.values()))}")
    if "d" in members:
        raise ValueError(f"key {number} is a private key: only the public part belongs here")
    try:
        key = jwt.PyJWK(members, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ValueError(f"key {number} cannot be read") from None
    if algorithm == "RS256" and key.key.key_size < RSA_BITS_MIN:
        raise ValueError(f"key {number} has less than {RSA_BITS_MIN} bits")
    return key
