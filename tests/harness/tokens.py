"""Signed tokens of tests, and the keys that an identity provider would have."""

import json
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from shared.identity.access import SCOPES
from shared.identity.signed_tokens import SignedTokens
from shared.setting_values import read_public_keys
from shared.settings import Settings

ISSUER, AUDIENCE = "https://login.example", "daybook"
PRIVATE: Final[dict[str, Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}
_WRITERS: Final[dict[str, Any]] = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm, "RS256": RSAAlgorithm}


def jwk(algorithm: str, key: Any, **members: Any) -> dict[str, Any]:
    return {"kid": f"of-{algorithm}", **json.loads(_WRITERS[algorithm].to_jwk(key)), **members}


PUBLIC: Final = [jwk(algorithm, key.public_key()) for algorithm, key in PRIVATE.items()]


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys or PUBLIC)})


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a valid token, with changes; a claim that is changed to None is left out."""
    now = int(time.time())
    valid = {"iss": ISSUER, "aud": AUDIENCE, "sub": "billing", "iat": now, "exp": now + 300, "scope": " ".join(SCOPES)}
    return {name: value for name, value in {**valid, **changed}.items() if value is not None}


def signed(algorithm: str = "EdDSA", headers: dict[str, Any] | None = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), PRIVATE[algorithm], algorithm, {"kid": f"of-{algorithm}", **(headers or {})})


def accepting_tokens(settings: Settings) -> Settings:
    return settings.model_copy(update={"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": key_set()})


def signed_tokens() -> SignedTokens:
    return SignedTokens(ISSUER, AUDIENCE, read_public_keys(key_set()))
