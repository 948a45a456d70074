"""What a seal is: the signed root of the Merkle tree over a ledger's events 1 to `position`. No I/O here.

The signature (Ed25519) covers the six lines of `Seal.message`. A key is known by its id, so that seals outlive a change of keys.
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

from shared.events import timestamp

KEY_BYTES: Final = 32
EVENT_NAME: Final = "seal"


class Seal(msgspec.Struct, frozen=True):
    ledger_id: str
    position: int
    root: bytes
    signature: bytes
    key_id: str
    sealed_at: datetime

    def message(self) -> bytes:
        """What is signed."""
        lines = "daybook-seal-1", self.ledger_id, str(self.position), self.root.hex(), self.key_id, timestamp(self.sealed_at)
        return "\n".join(lines).encode()

    def members(self) -> dict[str, Any]:
        """As JSON has it, in answers, in the seal file and in the log."""
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
    """None for a line that is no seal: the file may be a log with other lines in it, or end in the middle of one."""
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
    """The first 16 hexadecimal digits of the SHA-256 of the public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def new_seed() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


class SealingKey:
    """Signs. `seed` is base64 of 32 random bytes."""

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
"""By key id."""


def known_keys(seed: str | None, public_keys: Iterable[str]) -> KnownKeys:
    """The key that seals are made with now, and those that they were made with before."""
    keys = [Ed25519PublicKey.from_public_bytes(base64.b64decode(text)) for text in public_keys]
    if seed:
        keys.append(SealingKey(seed).public)
    return {key_id(key): key for key in keys}


def is_signed(seal: Seal, keys: KnownKeys) -> bool:
    """Whether the seal was signed by a known key, and nothing in it has changed since."""
    key = keys.get(seal.key_id)
    if key is None:
        return False
    try:
        key.verify(seal.signature, seal.message())
    except InvalidSignature:
        return False
    return True


def is_key(text: str) -> bool:
    """Whether this is base64 of 32 bytes."""
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except ValueError:
        return False
