"""Makes and checks seals. A seal is the signed root of the Merkle tree over a ledger's events 1 to `position`.

The Ed25519 signature covers the six lines of `Seal.message`. A seal contains the id of its key, so old seals stay valid when the
key changes. This module does no I/O.

The audit records of a ledger are a hash chain of their own. They get seals of the same form: see `AUDIT_SUFFIX`.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.timestamps import timestamp

KEY_BYTES: Final = 32
AUDIT_SUFFIX: Final = ":audit"
"""A seal whose ledger id ends so is about the audit records of that ledger, and its root is the hash of the record at `position`.

No ledger id contains a colon, so these seals are never taken for those of a log.
"""
EVENT_NAME: Final = "seal"


class Seal(msgspec.Struct, frozen=True):
    ledger_id: str
    position: int
    root: bytes
    signature: bytes
    key_id: str
    sealed_at: datetime

    def message(self) -> bytes:
        """Returns the bytes that the signature covers."""
        lines = "daybook-seal-1", self.ledger_id, str(self.position), self.root.hex(), self.key_id, timestamp(self.sealed_at)
        return "\n".join(lines).encode()

    def members(self) -> dict[str, Any]:
        """Returns the seal as JSON members, for answers of the query API, the seal file and log lines."""
        return {
            "ledger_id": self.ledger_id,
            "position": self.position,
            "root": self.root.hex(),
            "signature": self.signature.hex(),
            "key_id": self.key_id,
            "sealed_at": timestamp(self.sealed_at),
        }


class _Line(msgspec.Struct):
    ledger_id: str
    position: int
    root: str
    signature: str
    key_id: str
    sealed_at: datetime
    event: str = ""


_LINES: Final = msgspec.json.Decoder(_Line)


def write_line(seal: Seal) -> bytes:
    return msgspec.json.encode({"event": EVENT_NAME, **seal.members()}) + b"\n"


def read_line(line: bytes) -> Seal | None:
    """Returns the seal in a line of a seal file or in a log line; None if the line contains no complete seal."""
    try:
        found = _LINES.decode(line)
        root, signature = bytes.fromhex(found.root), bytes.fromhex(found.signature)
    except (msgspec.DecodeError, ValueError):
        return None
    if found.event != EVENT_NAME or found.sealed_at.tzinfo is None:
        return None
    return Seal(found.ledger_id, found.position, root, signature, found.key_id, found.sealed_at)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def key_id(key: Ed25519PublicKey) -> str:
    """Returns the id of a public key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def new_seed() -> str:
    """Returns a new random seed for a `SealingKey`."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


class SealingKey:
    """The key that signs seals. `seed` is 32 random bytes in base64."""

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(seed))
        self.public = self._key.public_key()
        self.key_id = key_id(self.public)

    def public_text(self) -> str:
        return base64.b64encode(self.public.public_bytes_raw()).decode()

    def sign(self, ledger_id: str, position: int, root: bytes, sealed_at: datetime) -> Seal:
        seal = Seal(ledger_id, position, root, b"", self.key_id, sealed_at)
        return msgspec.structs.replace(seal, signature=self._key.sign(seal.message()))


KnownKeys = Mapping[str, Ed25519PublicKey]
"""The public keys whose seals are accepted, by the id of the key."""


def known_keys(seed: str | None, public_keys: Iterable[str]) -> KnownKeys:
    """Returns the keys whose seals are accepted: the current key, if `seed` is given, and earlier public keys."""
    keys = [Ed25519PublicKey.from_public_bytes(base64.b64decode(text)) for text in public_keys]
    if seed:
        keys.append(SealingKey(seed).public)
    return {key_id(key): key for key in keys}


def is_signed(seal: Seal, keys: KnownKeys) -> bool:
    """Returns True if a known key has signed the seal and the seal was not changed afterwards."""
    key = keys.get(seal.key_id)
    if key is None:
        return False
    try:
        key.verify(seal.signature, seal.message())
    except InvalidSignature:
        return False
    return True


def is_key(text: str) -> bool:
    """Returns True if the text is 32 bytes in base64."""
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except ValueError:
        return False
