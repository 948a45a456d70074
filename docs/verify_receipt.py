"""Checks a receipt of Daybook without Daybook: `python verify_receipt.py receipt.json PUBLIC_KEY`. Needs `cryptography` only."""

import base64
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def require(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def event_hash(e: dict[str, Any]) -> bytes:
    recorded_at = datetime.strptime(e["recorded_at"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    microseconds = (recorded_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    parts = [e[name] for name in ("ledger_id", "position", "event_id", "type", "schema_version", "data", "metadata")]
    canonical = json.dumps([*parts, microseconds], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(bytes.fromhex(e["hash_before"]), canonical.encode())


def root_of_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    if size == 1:
        require(not path, "the audit path is too long")
        return leaf
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        return sha256(b"\x01", root_of_path(leaf, index, half, path[:-1]), path[-1])
    return sha256(b"\x01", path[-1], root_of_path(leaf, index - half, size - half, path[:-1]))


def verify(receipt: dict[str, Any], key: bytes) -> str:
    event, seal, index = receipt["event"], receipt["seal"], receipt["leaf_index"]
    require(receipt["format"] == "daybook-receipt-1", "this is no receipt that is understood here")
    require(event["position"] == receipt["position"] == index + 1 <= seal["position"], "the positions do not agree")
    require(event["ledger_id"] == seal["ledger_id"], "event and seal are of different ledgers")
    require(event_hash(event).hex() == receipt["hash"], "the event is not the one that was hashed")
    path = [bytes.fromhex(node) for node in receipt["audit_path"]]
    root = root_of_path(sha256(b"\x00", bytes.fromhex(receipt["hash"])), index, seal["position"], path)
    require(root.hex() == seal["root"], "the event is not in the sealed tree")
    require(seal["key_id"] == sha256(key).hex()[:16], "the seal was made with another key")
    lines = "daybook-seal-1", seal["ledger_id"], str(seal["position"]), seal["root"], seal["key_id"], seal["sealed_at"]
    Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(seal["signature"]), "\n".join(lines).encode())
    return f"valid: event {event['event_id']} is number {index + 1} of {seal['position']}, sealed {seal['sealed_at']}"


try:
    print(verify(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), base64.b64decode(sys.argv[2])))
except Exception as error:
    sys.exit(f"NOT VALID: {str(error) or type(error).__name__}")
