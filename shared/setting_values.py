"""Reads settings that are more than a number or a text: networks, public keys of an identity provider, secrets, master keys.

Pure, but for a key set that is named by the path of its file. No message repeats a secret.
"""

import base64
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec

RSA_BITS_MIN: Final = 2_048
MASTER_KEY_BYTES: Final = 32
SECRET_CHARACTERS_MIN: Final = 32

Network = IPv4Network | IPv6Network

_ALGORITHMS: Final = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256"}
"""The algorithms by type and curve of the key. All of them use public keys: no shared secrets, and never "none"."""


def read_networks(text: str) -> tuple[Network, ...]:
    """Parses a list of IP addresses and networks, separated by commas.

    Raises:
        ValueError: an item is neither an address nor a network.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def read_secrets(text: str) -> tuple[str, ...]:
    """Returns the secrets in the text of the setting: separated by commas, the one that signs first.

    Raises:
        ValueError: a secret is too short. The message does not repeat it.
    """
    secrets = tuple(word.strip() for word in text.split(","))
    for number, secret in enumerate(secrets, 1):
        if len(secret) < SECRET_CHARACTERS_MIN:
            raise ValueError(f"secret {number} has fewer than {SECRET_CHARACTERS_MIN} characters (a comma ends a secret)")
    return secrets


def read_master_keys(text: str) -> tuple[bytes, ...]:
    """Returns the master keys in the text of the setting: keys in base64, separated by commas, the newest first.

    Raises:
        ValueError: a key is not 32 bytes in base64. The message does not repeat the key.
    """
    keys = []
    for number, word in enumerate(text.split(","), 1):
        try:
            plain = word.strip().rstrip("=").replace("-", "+").replace("_", "/")
            key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError:
            key = b""
        if len(key) != MASTER_KEY_BYTES:
            raise ValueError(f"key {number} is not 32 bytes in base64 (openssl rand -base64 32 makes one)")
        keys.append(key)
    return tuple(keys)


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_public_keys(setting: str) -> dict[str, jwt.PyJWK]:
    """Reads a JWK set from `setting`, which is either JSON or the path of a file with the JSON. Returns the keys by key id.

    Raises:
        ValueError: a key cannot be used. The message says which key, and does not quote the set.
    """
    try:
        text = setting if setting.lstrip().startswith("{") else Path(setting).read_text()
        found = msgspec.json.decode(text, type=_KeySet).keys
    except (OSError, ValueError):
        raise ValueError("must be a JWK set, or the path of a file with a JWK set") from None
    keys: dict[str, jwt.PyJWK] = {}
    for number, members in enumerate(found, 1):
        key_id = members.get("kid")
        if not isinstance(key_id, str) or not key_id or key_id in keys:
            raise ValueError(f"key {number} has no kid, or the same kid as an earlier key")
        keys[key_id] = _public_key(members, number)
    if not keys:
        raise ValueError("must have at least one key")
    return keys


def _public_key(members: dict[str, Any], number: int) -> jwt.PyJWK:
    algorithm = _ALGORITHMS.get((members.get("kty", ""), members.get("crv")))
    if algorithm is None or members.get("alg", algorithm) != algorithm or members.get("use", "sig") != "sig":
        raise ValueError(f"key {number} is not a signature key for {', '.join(sorted(_ALGORITHMS.values()))}")
    if "d" in members:
        raise ValueError(f"key {number} is a private key: remove it and give only its public part")
    try:
        key = jwt.PyJWK(members, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ValueError(f"key {number} cannot be read") from None
    if algorithm == "RS256" and key.key.key_size < RSA_BITS_MIN:
        raise ValueError(f"key {number} has fewer than {RSA_BITS_MIN} bits")
    return key
